"""Volumes made of files: content, modes, the symlink swap, and how changes arrive."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.node.pods import PATIENCE_S, STAY, Json, Pods, condition, phase, shell, waiting

from fairlead_cluster.api import CONFIG_MAPS, PODS

pytestmark = pytest.mark.cluster


def mounted(path: str = "/etc/config", **mount: Any) -> Json:
    return {"volumeMounts": [{"name": "v", "mountPath": path, **mount}]}


def volume(**source: Any) -> Json:
    return {"volumes": [{"name": "v", **source}]}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_config_map_is_links_to_a_dated_folder(pods: Pods) -> None:
    await pods.config_map("files", **{"a.txt": "A", "b.txt": "B"})
    await pods.create("links", shell(f"cat /etc/config/*; {STAY}", **mounted()), **volume(configMap={"name": "files"}))

    pod = await pods.ready("links")

    directory = pods.file(pod, "v")
    assert await pods.log(pod) == "AB"
    assert sorted(entry.name for entry in directory.iterdir() if not entry.name.startswith("..2")) == [
        "..data",
        "a.txt",
        "b.txt",
    ]
    assert str((directory / "a.txt").readlink()) == "..data/a.txt"
    assert str((directory / "..data").readlink()).startswith("..2")
    assert mode(directory / "a.txt") == 0o644


async def test_a_change_arrives_by_one_swap_at_once(pods: Pods) -> None:
    await pods.config_map("files", old="1", same="1")
    await pods.create("live", shell(STAY, **mounted()), **volume(configMap={"name": "files"}))
    pod = await pods.ready("live")
    directory = pods.file(pod, "v")
    before = (directory / "..data").readlink()

    body = {"data": {"old": None, "new": "2", "same": "2"}}
    await pods.api.patch(CONFIG_MAPS, "files", body, pods.namespace)
    changed_s = time.monotonic()
    await pods.text(pod, "v/new", lambda text: text == "2")

    assert time.monotonic() - changed_s < 15  # far from a kubelet's minute; on an idle machine a fraction of a second
    assert (directory / "same").read_text() == "2"
    assert (directory / "..data").readlink() != before
    async with asyncio.timeout(PATIENCE_S):
        while (directory / before).exists() or (directory / "old").is_symlink():
            await asyncio.sleep(0.01)


async def test_every_change_of_many_arrives_in_the_end(pods: Pods) -> None:
    await pods.config_map("files", number="0")
    await pods.create("many", shell(STAY, **mounted()), **volume(configMap={"name": "files"}))
    pod = await pods.ready("many")
    for number in range(1, 21):
        await pods.config_map("files", number=str(number))
    await pods.text(pod, "v/number", lambda text: text == "20")


async def test_items_choose_paths_and_modes(pods: Pods) -> None:
    await pods.secret("keys", one="1", two="2")
    items = [{"key": "one", "path": "deep/er/one", "mode": 0o400}, {"key": "two", "path": "two"}]
    source = {"secretName": "keys", "items": items, "defaultMode": 0o440}
    await pods.create("items", shell(f"cat /etc/config/deep/er/one; {STAY}", **mounted()), **volume(secret=source))

    pod = await pods.ready("items")

    assert await pods.log(pod) == "1"
    assert mode(pods.file(pod, "v/deep/er/one")) == 0o400
    assert mode(pods.file(pod, "v/two")) == 0o440


async def test_several_sources_in_one_projected_volume(pods: Pods) -> None:
    await pods.config_map("files", a="A")
    await pods.secret("keys", b="B")
    fields = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
    sources = [
        {"configMap": {"name": "files"}},
        {"secret": {"name": "keys"}},
        {"downwardAPI": {"items": fields}},
        {"configMap": {"name": "absent", "optional": True}},
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
    ]
    await pods.create("all", shell(STAY, **mounted()), **volume(projected={"sources": sources}))

    pod = await pods.ready("all")

    assert pods.file(pod, "v/a").read_text() == "A"
    assert pods.file(pod, "v/b").read_text() == "B"
    assert pods.file(pod, "v/labels").read_text() == 'app="all"'
    assert pods.file(pod, "v/token").read_text().count(".") == 2

    await pods.config_map("absent", c="C")
    await pods.text(pod, "v/c", lambda text: text == "C")


async def test_a_changed_annotation_is_projected_again(pods: Pods) -> None:
    fields = [{"path": "note", "fieldRef": {"fieldPath": "metadata.annotations['note']"}}]
    await pods.create(
        "noted", shell(STAY, **mounted()), annotations={"note": "1"}, **volume(downwardAPI={"items": fields})
    )
    pod = await pods.ready("noted")
    await pods.api.patch(PODS, "noted", {"metadata": {"annotations": {"note": "2"}}}, pods.namespace)
    await pods.text(pod, "v/note", lambda text: text == "2")


async def test_a_file_by_sub_path_is_one_file_and_stays_as_it_was(pods: Pods) -> None:
    await pods.config_map("files", **{"a.txt": "A", "b.txt": "B"})
    container = shell(STAY) | mounted("/opt/app/a.txt", subPath="a.txt")
    container["volumeMounts"].append({"name": "v", "mountPath": "/etc/whole"})
    probe = {"exec": {"command": ["sh", "-c", "[ $(cat /opt/app/a.txt) = A ] && [ $(cat /etc/whole/a.txt) = A2 ]"]}}
    container["readinessProbe"] = probe | {"periodSeconds": 1}
    await pods.create("sub", container, **volume(configMap={"name": "files"}))
    pod = await pods.until("sub", lambda pod: phase(pod) == "Running")

    await pods.config_map("files", **{"a.txt": "A2", "b.txt": "B"})

    await pods.text(pod, "v/a.txt", lambda text: text == "A2")
    await pods.ready("sub")  # the probe sees the old file by subPath and the new one in the whole volume


async def test_a_mount_inside_of_a_mount_is_found_from_both(pods: Pods) -> None:
    await pods.config_map("files", a="A")
    mounts = [{"name": "outer", "mountPath": "/outer"}, {"name": "v", "mountPath": "/outer/in/ner"}]
    script = "cat /outer/in/ner/a; cd /outer && cat in/ner/a"
    volumes = [{"name": "outer", "emptyDir": {}}, {"name": "v", "configMap": {"name": "files"}}]
    await pods.create("nested", shell(script, volumeMounts=mounts), volumes=volumes, restartPolicy="Never")
    assert await pods.log(await pods.finished("nested")) == "AA"


async def test_an_empty_dir_is_shared_by_containers_and_outlives_restarts(pods: Pods) -> None:
    script = "echo x >>/dev/shm/count; [ $(wc -l </dev/shm/count) -ge 3 ] && exec sleep 60; exit 1"
    await pods.create("empty", shell(script, **mounted("/dev/shm")), **volume(emptyDir={"medium": "Memory"}))
    pod = await pods.until("empty", lambda pod: pods.file(pod, "v/count").exists())
    await pods.text(pod, "v/count", lambda text: text.count("x") == 3)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"configMap": {"name": "absent"}}, 'configmap "absent" not found'),
        ({"secret": {"secretName": "absent"}}, 'secret "absent" not found'),
        (
            {"configMap": {"name": "there", "items": [{"key": "no", "path": "no"}]}},
            "references non-existent config key: no",
        ),
        ({"persistentVolumeClaim": {"claimName": "absent"}}, ""),
        ({"nfs": {"server": "127.0.0.9", "path": "/"}}, "does not make volumes of kind nfs"),
    ],
)
async def test_a_volume_that_cannot_be_made_holds_the_pod(pods: Pods, source: Json, words: str) -> None:
    await pods.config_map("there", yes="1")
    await pods.create("holding", shell(STAY, **mounted()), **volume(**source))
    if not words:  # the scheduler does not even bind it
        await pods.event("holding", "FailedScheduling", containing='persistentvolumeclaim "absent" not found')
        return
    event = await pods.event("holding", "FailedMount", containing=words)
    assert event["message"].startswith('MountVolume.SetUp failed for volume "v" : ')
    pod = await pods.get("holding")
    assert phase(pod) == "Pending"
    assert waiting(pod)["reason"] == "ContainerCreating"
    assert condition(pod, "PodReadyToStartContainers")["status"] == "False"


async def test_the_pod_starts_as_soon_as_what_was_missing_is_there(pods: Pods) -> None:
    await pods.create("late", shell(STAY, **mounted()), **volume(configMap={"name": "later"}))
    await pods.event("late", "FailedMount", containing="not found")
    await pods.config_map("later", a="A")
    pod = await pods.ready("late")
    assert pods.file(pod, "v/a").read_text() == "A"


async def test_a_removed_config_map_leaves_the_files(pods: Pods) -> None:
    await pods.config_map("files", a="A")
    await pods.create("keeping", shell(STAY, **mounted()), **volume(configMap={"name": "files"}))
    pod = await pods.ready("keeping")
    await pods.api.delete(CONFIG_MAPS, "files", pods.namespace)
    await asyncio.sleep(0.5)
    assert pods.file(pod, "v/a").read_text() == "A"
    assert os.fspath(pods.file(pod, "v")) in str(pods.file(pod, "v/a").resolve())


async def test_the_token_that_every_pod_gets_is_there_and_is_accepted(pods: Pods) -> None:
    path = "/var/run/secrets/kubernetes.io/serviceaccount"
    await pods.create("token", shell(f"cat {path}/namespace; ls {path}; {STAY}"), automountServiceAccountToken=True)
    pod = await pods.ready("token")
    assert await pods.log(pod, holds=lambda text: "token" in text) == f"{pods.namespace}ca.crt\nnamespace\ntoken\n"
