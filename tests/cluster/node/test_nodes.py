"""Nodes themselves: what they say of themselves, how they live and die, and pods without processes."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.cluster.node.pods import (
    PATIENCE_S,
    QUICK,
    STAY,
    Json,
    NodeProcess,
    Pods,
    container_status,
    is_ready,
    shell,
    start_nodes,
)

from fairlead_cluster.api import LEASES, NODES, PODS, Api
from fairlead_cluster.cluster import LocalCluster

pytestmark = pytest.mark.cluster


def status_of(node: Json, kind: str) -> str:
    return str(next(one["status"] for one in node["status"]["conditions"] if one["type"] == kind))


async def test_the_default_nodes_carry_what_gpu_feature_discovery_sets(nodes: NodeProcess, api: Api) -> None:
    l4, h100, cpu = [await api.get(NODES, name) for name in ("gpu-l4", "gpu-h100", "cpu")]
    assert l4["metadata"]["labels"]["nvidia.com/gpu.product"] == "NVIDIA-L4"
    assert l4["metadata"]["labels"]["nvidia.com/gpu.memory"] == "23034"
    assert h100["metadata"]["labels"]["nvidia.com/gpu.product"] == "NVIDIA-H100-80GB-HBM3"
    assert h100["metadata"]["labels"]["nvidia.com/gpu.compute.major"] == "9"
    for node in (l4, h100):
        assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"
        assert node["metadata"]["labels"]["nvidia.com/gpu.present"] == "true"
        assert node["metadata"]["labels"]["nvidia.com/gpu.count"] == "8"
    assert "nvidia.com/gpu" not in cpu["status"]["allocatable"]
    assert not [label for label in cpu["metadata"]["labels"] if label.startswith("nvidia.com/")]
    for node in (l4, h100, cpu):
        assert status_of(node, "Ready") == "True"
        assert not node["spec"].get("taints")
        assert node["status"]["nodeInfo"]["kubeletVersion"].startswith("v1.")


async def test_the_scheduler_counts_accelerators(pods: Pods) -> None:
    def asking(count: int) -> Json:
        return shell(STAY, resources={"limits": {"nvidia.com/gpu": str(count)}})

    selector = {"nvidia.com/gpu.product": "NVIDIA-L4"}
    await pods.create("six", asking(6), nodeSelector=selector)
    pod = await pods.ready("six")
    assert pod["spec"]["nodeName"] == "gpu-l4"
    await pods.create("three", asking(3), nodeSelector=selector)
    await pods.event("three", "FailedScheduling", containing="Insufficient nvidia.com/gpu")
    await pods.delete("six")
    await pods.ready("three")


async def test_every_node_renews_its_lease(nodes: NodeProcess, api: Api) -> None:
    lease = await api.get(LEASES, "cpu", "kube-node-lease")
    assert lease["spec"]["leaseDurationSeconds"] == 40
    async with asyncio.timeout(PATIENCE_S):
        while (await api.get(LEASES, "cpu", "kube-node-lease"))["spec"]["renewTime"] == lease["spec"]["renewTime"]:
            await asyncio.sleep(0.2)
    renewed = dt.datetime.fromisoformat((await api.get(LEASES, "cpu", "kube-node-lease"))["spec"]["renewTime"])
    assert abs((dt.datetime.now(dt.UTC) - renewed).total_seconds()) < 20


async def test_a_simulated_pod_is_ready_without_a_process_and_goes_at_once(pods: Pods) -> None:
    annotations = {"fairlead.dev/stand-in": "simulated"}
    container = {"name": "main", "image": "example.com/no/such:1"}
    await pods.create("simulated", container, annotations=annotations, terminationGracePeriodSeconds=300)
    pod = await pods.ready("simulated")
    assert pod["status"]["podIP"].startswith("127.244.")
    assert not pods.file(pod, "").exists()
    assert await pods.delete("simulated") < 30.0, "not after its grace period"


async def test_a_hundred_simulated_pods_are_ready_in_seconds(pods: Pods) -> None:
    annotations = {"fairlead.dev/stand-in": "simulated"}
    spec = {"nodeName": "cpu", "containers": [{"name": "main", "image": "x"}]}
    async with asyncio.TaskGroup() as group:
        for number in range(100):
            body = {"metadata": {"name": f"many-{number}", "annotations": annotations}, "spec": spec}
            group.create_task(pods.api.create(PODS, body, pods.namespace))
    async with asyncio.timeout(PATIENCE_S):
        while sum(is_ready(pod) for pod in await pods.api.list_all(PODS, pods.namespace)) < 100:
            await asyncio.sleep(0.1)


@pytest.fixture
def start_own(node_control_plane: LocalCluster, tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    """Starts a stand-in with one node `extra` (label `zone: x`), and ends it with the test whatever happens."""
    started: list[NodeProcess] = []
    nodes = tmp_path / "nodes.json"
    nodes.write_text(
        '[{"name": "extra", "cpu": "4", "extended_resources": {"amd.com/gpu": 1}, "labels": {"zone": "x"}}]'
    )
    data_dir = tmp_path / "own"
    data_dir.mkdir()

    def start(*arguments: str) -> NodeProcess:
        own = start_nodes(node_control_plane.admin_kubeconfig, data_dir, f"--nodes={nodes}", *QUICK, *arguments)
        started.append(own)
        return own

    yield start
    for own in started:
        own.process.stop()


async def until_node(api: Api, name: str, *, exists: bool) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while ((found := await api.find(NODES, name)) is not None) is not exists or (
            found is not None and "conditions" not in found["status"]
        ):
            await asyncio.sleep(0.05)


async def test_own_nodes_come_and_go_with_their_processes(
    start_own: Callable[..., NodeProcess], api: Api, pods: Pods
) -> None:
    own = start_own()
    mine = Pods(api, pods.namespace, own)
    await until_node(api, "extra", exists=True)
    node = await api.get(NODES, "extra")
    assert node["status"]["allocatable"]["amd.com/gpu"] == "1"
    seconds = unique_seconds()
    await mine.create("there", shell(f"sleep {seconds} & {STAY}"), nodeSelector={"zone": "x"})
    await mine.ready("there")
    await until_processes(seconds, 1)
    family = psutil.Process(own.process.pid).children(recursive=True)
    assert set(with_argument(seconds)) <= {process.pid for process in family}

    own.process.stop()

    assert own.process.returncode == 0
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert await api.find(NODES, "extra") is None


async def test_with_the_kubelets_slow_sync_a_change_waits_for_a_look_at_the_pod(
    start_own: Callable[..., NodeProcess], api: Api, pods: Pods
) -> None:
    mine = Pods(api, pods.namespace, start_own("--volume-sync=kubelet"))
    await until_node(api, "extra", exists=True)
    await mine.config_map("files", a="1")
    probe = {"exec": {"command": ["test", "-e", "/shared/up"]}, "periodSeconds": 1, "failureThreshold": 1}
    mounts = [{"name": "v", "mountPath": "/etc/config"}, {"name": "shared", "mountPath": "/shared"}]
    container = shell(f"touch /shared/up; {STAY}", volumeMounts=mounts, readinessProbe=probe)
    volumes = [{"name": "v", "configMap": {"name": "files"}}, {"name": "shared", "emptyDir": {}}]
    await mine.create("slow", container, volumes=volumes, nodeSelector={"zone": "x"})
    pod = await mine.ready("slow")

    await mine.config_map("files", a="2")
    mine.file(pod, "shared/up").unlink()
    await mine.until("slow", lambda pod: not is_ready(pod))
    await asyncio.sleep(0.5)
    assert mine.file(pod, "v/a").read_text() == "1", "neither the change nor a new status makes it look"

    await api.patch(PODS, "slow", {"metadata": {"annotations": {"poke": "1"}}}, mine.namespace)
    await mine.text(pod, "v/a", lambda text: text == "2")


async def test_nothing_outlives_a_stand_in_that_is_killed_and_the_next_one_runs_the_pods_again(
    start_own: Callable[..., NodeProcess], api: Api, pods: Pods
) -> None:
    own = start_own()
    mine = Pods(api, pods.namespace, own)
    await until_node(api, "extra", exists=True)
    seconds = unique_seconds()
    script = f"sleep {seconds} & setsid sleep {seconds} & (setsid sleep {seconds} &); {STAY}"
    await mine.create("orphan", shell(script), nodeSelector={"zone": "x"})
    await mine.ready("orphan")
    await until_processes(seconds, 3)

    os.kill(own.process.pid, signal.SIGKILL)
    await until_processes(seconds, 0)

    start_own()
    await mine.until("orphan", lambda pod: container_status(pod)["restartCount"] == 1)
    await mine.ready("orphan")
    await until_processes(seconds, 3)
    await mine.delete("orphan")
    await until_processes(seconds, 0)


def unique_seconds() -> str:
    """A time to sleep by which a process is recognized, even beside those of another run."""
    return str(random.SystemRandom().randrange(10_000, 1_000_000))


async def until_processes(argument: str, count: int) -> None:
    """Wait until so many run."""
    async with asyncio.timeout(PATIENCE_S):
        while len(with_argument(argument)) != count:
            await asyncio.sleep(0.05)


def with_argument(argument: str) -> list[int]:
    """Processes of `sleep ARGUMENT` that run."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline", "status"])
        if process.info["cmdline"] == ["sleep", argument] and process.info["status"] != psutil.STATUS_ZOMBIE
    ]
