"""The end of a pod: hooks, signals, grace, order, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from pathlib import Path

import psutil
import pytest
from tests.cluster.node.pods import (
    MOUNT,
    PATIENCE_S,
    PYTHON,
    SHARED,
    STAY,
    Json,
    NodeProcess,
    Pods,
    container_status,
    is_ready,
    shell,
)

from fairlead_cluster.api import PODS, Api

pytestmark = pytest.mark.cluster


@pytest.fixture
def outside(tmp_path: Path) -> Json:
    """A directory of the host as a volume, so that a pod's last words outlive it."""
    return {"volumes": [{"name": "shared", "hostPath": {"path": str(tmp_path), "type": "Directory"}}]}


def saying(word: str) -> str:
    """A script that says so when SIGTERM comes, and ends."""
    return f"trap 'echo {word} >>/shared/end; exit 0' TERM; touch /shared/up-{word}; while :; do sleep 0.05; done"


async def running(pods: Pods, name: str, tmp_path: Path, *words: str) -> Json:
    """The pod when it is ready and its traps are set."""
    pod = await pods.ready(name)
    async with asyncio.timeout(PATIENCE_S):
        while not all((tmp_path / f"up-{word}").exists() for word in words):
            await asyncio.sleep(0.02)
    return pod


async def test_pre_stop_runs_wholly_before_sigterm(pods: Pods, outside: Json, tmp_path: Path) -> None:
    hook = {
        "preStop": {"exec": {"command": ["sh", "-c", "echo hook >>/shared/end; sleep 1; echo hooked >>/shared/end"]}}
    }
    await pods.create("hook", shell(saying("term"), lifecycle=hook, **MOUNT), **outside)
    await running(pods, "hook", tmp_path, "term")

    await pods.delete("hook")

    assert (tmp_path / "end").read_text().split() == ["hook", "hooked", "term"]


async def test_pre_stop_may_sleep_and_the_pod_serves_meanwhile(pods: Pods, outside: Json, tmp_path: Path) -> None:
    hook = {"preStop": {"sleep": {"seconds": 1}}}
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    container = shell(saying("term"), lifecycle=hook, readinessProbe=probe, **MOUNT)
    await pods.create("sleepy", container, **outside)
    await running(pods, "sleepy", tmp_path, "term")
    started_s = time.monotonic()
    await pods.api.delete(PODS, "sleepy", pods.namespace)

    pod = await pods.until("sleepy", lambda pod: "deletionTimestamp" in pod["metadata"])
    await asyncio.sleep(0.3)
    assert is_ready(await pods.get("sleepy")), (
        "a terminating pod stays Ready while it is; Services look at the deletion"
    )
    assert pod["status"]["phase"] == "Running"
    await pods.gone("sleepy")
    assert time.monotonic() - started_s >= 1.0


async def test_pre_stop_may_ask_by_http(pods: Pods, outside: Json, tmp_path: Path) -> None:
    server = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        open("/shared/end", "a").write(self.path + "\\n"); self.send_response(200); self.end_headers()
http.server.HTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""
    hook = {"preStop": {"httpGet": {"path": "/drain", "port": 8080}}}
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    container = {"name": "main", "image": PYTHON, "command": ["python3", "-c", server], **MOUNT}
    await pods.create("http", container | {"lifecycle": hook, "readinessProbe": probe}, **outside)
    await pods.ready("http")

    await pods.delete("http")

    assert (tmp_path / "end").read_text() == "/drain\n"


async def test_a_hook_that_takes_too_long_ends_with_the_grace_period(pods: Pods, outside: Json, tmp_path: Path) -> None:
    hook = {"preStop": {"exec": {"command": ["sleep", "60"]}}}
    await pods.create(
        "long", shell(saying("term"), lifecycle=hook, **MOUNT), terminationGracePeriodSeconds=1, **outside
    )
    await running(pods, "long", tmp_path, "term")

    took_s = await pods.delete("long")

    assert 1.0 <= took_s < 30.0, "not as long as the hook"
    assert (tmp_path / "end").read_text() == "term\n", "two seconds are left for SIGTERM in any case"


async def test_who_ignores_sigterm_is_killed_at_the_end_of_the_grace_period(pods: Pods) -> None:
    await pods.create("deaf", shell("trap '' TERM; while :; do sleep 0.05; done"), terminationGracePeriodSeconds=3)
    await pods.ready("deaf")
    assert 3.0 <= await pods.delete("deaf") < 20.0, "not after the 30 s that are usual"


async def test_a_second_delete_may_shorten_the_grace_period(pods: Pods) -> None:
    await pods.create("patient", shell("trap '' TERM; while :; do sleep 0.05; done"), terminationGracePeriodSeconds=60)
    await pods.ready("patient")
    await pods.api.delete(PODS, "patient", pods.namespace)
    await asyncio.sleep(0.3)
    assert await pods.delete("patient", grace_period_s=1) < 30.0, "not after the first grace period"


async def test_the_last_status_has_the_exit_code_before_the_object_goes(pods: Pods) -> None:
    await pods.create(
        "last", shell("trap 'exit 5' TERM; touch /shared/up; while :; do sleep 0.05; done", **MOUNT), **SHARED
    )
    pod = await pods.ready("last")
    await pods.text(pod, "shared/up", lambda _: True)
    async with asyncio.TaskGroup() as group:
        last = group.create_task(
            pods.until("last", lambda pod: container_status(pod).get("state", {}).get("terminated"))
        )
        await asyncio.sleep(0.2)
        await pods.api.delete(PODS, "last", pods.namespace)
    status = last.result()["status"]
    assert container_status(last.result())["state"]["terminated"]["exitCode"] == 5
    assert not is_ready(last.result())
    assert status["phase"] in ("Running", "Failed")


async def test_sidecars_end_after_main_containers_from_the_last_to_the_first(
    pods: Pods, outside: Json, tmp_path: Path
) -> None:
    slow = "trap 'sleep 0.5; echo main >>/shared/end; exit 0' TERM; touch /shared/up-main; while :; do sleep 0.05; done"
    sidecars = [shell(saying(name), name, restartPolicy="Always", **MOUNT) for name in ("first", "second")]
    await pods.create("sidecars", shell(slow, **MOUNT), initContainers=sidecars, **outside)
    await running(pods, "sidecars", tmp_path, "main", "first", "second")

    await pods.delete("sidecars")

    assert (tmp_path / "end").read_text().split() == ["main", "second", "first"]


async def test_a_pod_can_be_deleted_while_it_crashes_waits_or_initializes(pods: Pods) -> None:
    await pods.create("crashing", shell("exit 1"))
    await pods.create("waiting", {"name": "main", "image": "no.such/image:1"})
    await pods.create("mounting", shell(STAY), volumes=[{"name": "v", "configMap": {"name": "absent"}}])
    await pods.create("initializing", shell(STAY), initContainers=[shell(STAY, "init")])
    await pods.until("crashing", lambda pod: container_status(pod).get("restartCount", 0) >= 1)
    await pods.until("initializing", lambda pod: container_status(pod, "init").get("state", {}).get("running"))
    for name in ("crashing", "waiting", "mounting", "initializing"):
        assert await pods.delete(name) < 20.0, f"{name} waits for nothing"


async def test_a_forced_deletion_kills_the_processes_all_the_same(pods: Pods) -> None:
    seconds = unique_seconds()
    await pods.create("forced", shell(f"trap '' TERM; sleep {seconds}"))
    await pods.ready("forced")
    async with asyncio.timeout(PATIENCE_S):
        while not processes(seconds):  # the shell has started, its child perhaps not yet
            await asyncio.sleep(0.02)
    await pods.delete("forced", grace_period_s=0)
    async with asyncio.timeout(PATIENCE_S):
        while processes(seconds):
            await asyncio.sleep(0.05)


async def test_nothing_that_a_container_started_outlives_it(pods: Pods) -> None:
    seconds = unique_seconds()
    script = f"sleep {seconds} & setsid sleep {seconds} & (setsid sleep {seconds} &); sleep 1"
    await pods.create("family", shell(script), restartPolicy="Never")
    await pods.until("family", lambda pod: container_status(pod).get("state", {}).get("running"))
    async with asyncio.timeout(PATIENCE_S):
        while len(processes(seconds)) < 3:
            await asyncio.sleep(0.02)
    await pods.finished("family")
    assert processes(seconds) == []


def unique_seconds() -> str:
    """A time to sleep by which a process is recognized, even beside those of another run."""
    return str(random.SystemRandom().randrange(10_000, 1_000_000))


def processes(argument: str) -> list[int]:
    """Processes that have this argument."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[:1] == ["sleep"] and argument in process.cmdline()[1:]:
                found.append(process.pid)
    return found


async def test_files_of_a_pod_are_removed_with_it(pods: Pods, nodes: NodeProcess) -> None:
    await pods.create("tidy", shell(STAY, **MOUNT), **SHARED)
    pod = await pods.ready("tidy")
    directory = pods.file(pod, "")
    assert directory.is_dir()
    await pods.delete("tidy")
    async with asyncio.timeout(PATIENCE_S):
        while directory.exists():
            await asyncio.sleep(0.02)


async def test_a_pod_that_takes_the_name_of_another_gets_an_address_of_its_own(pods: Pods, api: Api) -> None:
    await pods.create("again", shell(STAY))
    first = await pods.ready("again")
    await pods.delete("again")
    await pods.create("again", shell(STAY))
    second = await pods.ready("again")
    assert first["status"]["podIP"] != second["status"]["podIP"]
