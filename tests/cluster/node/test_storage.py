"""Claims: provisioning, binding, what access modes forbid, and how long data lives."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.node.pods import PATIENCE_S, STAY, Json, NodeProcess, Pods, is_ready, phase, shell

from fairlead_cluster.api import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES, Api

pytestmark = pytest.mark.cluster

MOUNT: Json = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}


def claimed(claim: str) -> Json:
    return {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]}


async def claim(pods: Pods, name: str, *modes: str, **spec: Any) -> Json:
    body = {
        "metadata": {"name": name},
        "spec": {"accessModes": list(modes), "resources": {"requests": {"storage": "1Gi"}}, **spec},
    }
    return await pods.api.create(PERSISTENT_VOLUME_CLAIMS, body, pods.namespace)


async def bound(pods: Pods, name: str) -> Json:
    """The volume of a claim, once it is bound."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await pods.api.get(PERSISTENT_VOLUME_CLAIMS, name, pods.namespace)
            if found.get("status", {}).get("phase") == "Bound":
                return await pods.api.get(PERSISTENT_VOLUMES, found["spec"]["volumeName"])
            await asyncio.sleep(0.05)


async def test_the_default_class_waits_for_the_first_pod(pods: Pods) -> None:
    made = await claim(pods, "data", "ReadWriteOnce")
    assert made["spec"]["storageClassName"] == "standard"
    await asyncio.sleep(0.5)
    assert (await pods.api.get(PERSISTENT_VOLUME_CLAIMS, "data", pods.namespace))["status"]["phase"] == "Pending"

    await pods.create("first", shell(STAY, **MOUNT), **claimed("data"))

    await pods.ready("first")
    volume = await bound(pods, "data")
    assert volume["spec"]["capacity"]["storage"] == "1Gi"
    assert volume["spec"]["accessModes"] == ["ReadWriteOnce"]


async def test_an_immediate_class_does_not_wait(pods: Pods, api: Api) -> None:
    body = {
        "metadata": {"name": "immediate"},
        "provisioner": "fairlead.dev/local",
        "volumeBindingMode": "Immediate",
        "reclaimPolicy": "Retain",
    }
    await api.apply(STORAGE_CLASSES, body, field_manager="test")
    await claim(pods, "early", "ReadWriteMany", storageClassName="immediate")
    volume = await bound(pods, "early")
    path = Path(volume["spec"]["hostPath"]["path"])
    (path / "kept").touch()

    await api.delete(PERSISTENT_VOLUME_CLAIMS, "early", pods.namespace)

    name = volume["metadata"]["name"]
    async with asyncio.timeout(PATIENCE_S):
        while (await api.get(PERSISTENT_VOLUMES, name))["status"]["phase"] != "Released":
            await asyncio.sleep(0.05)
    assert (path / "kept").exists(), "Retain keeps volume and data"
    await api.delete(PERSISTENT_VOLUMES, name)


async def test_data_survives_pods_and_goes_with_the_claim(pods: Pods) -> None:
    await claim(pods, "data", "ReadWriteOnce")
    await pods.create("writer", shell("echo kept >/data/file", **MOUNT), restartPolicy="Never", **claimed("data"))
    assert phase(await pods.finished("writer")) == "Succeeded"
    await pods.delete("writer")
    await pods.create("reader", shell("cat /data/file", **MOUNT), restartPolicy="Never", **claimed("data"))
    assert await pods.log(await pods.finished("reader")) == "kept\n"
    volume = await bound(pods, "data")
    path = Path(volume["spec"]["hostPath"]["path"])
    assert (path / "file").exists()

    await pods.delete("reader")
    await pods.api.delete(PERSISTENT_VOLUME_CLAIMS, "data", pods.namespace)

    async with asyncio.timeout(PATIENCE_S):
        while path.exists() or await pods.api.find(PERSISTENT_VOLUMES, volume["metadata"]["name"]):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(("access", "together"), [("ReadWriteOnce", False), ("ReadWriteMany", True)])
async def test_a_volume_for_one_node_is_not_attached_to_a_second(pods: Pods, access: str, together: bool) -> None:
    await claim(pods, "data", access)
    await pods.create("here", shell(STAY, **MOUNT), nodeName="cpu", **claimed("data"))
    # A pod that names its node is not seen by the scheduler, so the claim must be told its node as the scheduler does.
    selected = {"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "cpu"}}}
    await pods.api.patch(PERSISTENT_VOLUME_CLAIMS, "data", selected, pods.namespace)
    await pods.ready("here")
    await pods.create("beside", shell(STAY, **MOUNT), nodeName="cpu", **claimed("data"))
    await pods.ready("beside")
    await pods.create("there", shell(STAY, **MOUNT), nodeName="gpu-l4", **claimed("data"))

    if together:
        await pods.ready("there")
        return
    event = await pods.event("there", "FailedAttachVolume", containing="Multi-Attach error for volume")
    assert event["message"].endswith("Volume is already used by pod(s) beside, here")
    assert not is_ready(await pods.get("there"))
    await pods.delete("here")
    await pods.delete("beside")
    await pods.ready("there")


async def test_what_the_provisioner_cannot_do_it_says(pods: Pods) -> None:
    await claim(pods, "block", "ReadWriteOnce", volumeMode="Block")
    devices = [{"name": "data", "devicePath": "/dev/data"}]
    await pods.create("blocked", shell(STAY, volumeDevices=devices), **claimed("block"))
    await pods.event("block", "ProvisioningFailed", containing="not volumeMode Block")


async def test_a_sub_path_of_a_claim_is_made_and_shared(pods: Pods) -> None:
    await claim(pods, "data", "ReadWriteOnce")
    mounts = [{"name": "data", "mountPath": "/cache", "subPath": "models/one"}, {"name": "data", "mountPath": "/all"}]
    script = "echo weights >/cache/file; cat /all/models/one/file"
    await pods.create("sub", shell(script, volumeMounts=mounts), restartPolicy="Never", **claimed("data"))
    assert await pods.log(await pods.finished("sub")) == "weights\n"


async def test_volumes_lie_in_the_data_directory(pods: Pods, nodes: NodeProcess) -> None:
    await claim(pods, "data", "ReadWriteOnce")
    await pods.create("where", shell(STAY, **MOUNT), **claimed("data"))
    await pods.ready("where")
    path = Path((await bound(pods, "data"))["spec"]["hostPath"]["path"])
    assert path.parent == nodes.data_dir / "volumes"
