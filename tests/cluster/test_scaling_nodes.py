"""Replicas and the accelerators of real Node objects: no pod is made that no node can hold, and a node that comes is used.

There are no kubelets: nodes and pods are told to be ready by the test, and each ready pod's engine is a server that says how many
requests wait.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import pytest
from tests.cluster.operator_world import QUIET_S, Json, World, make_cr, until
from tests.cluster.test_privileges import grant, rules_of

from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.node.registration import make_node, make_node_status
from fairlead_cluster.node.specs import GPU, NodeSpec

pytestmark = pytest.mark.cluster

NAME = "scaling-nodes"
TARGETS = {"queuedRequests": 5}
#: All of 127/8 is this machine; nobody else of the tests has these.
ENGINES = [f"127.83.7.{number}" for number in range(1, 4)]


@pytest.fixture(scope="module")
def operated(control_plane: LocalCluster) -> Iterator[LocalCluster]:
    control_plane.start_operator(name=NAME)
    control_plane.wait_for_operator(NAME)
    yield control_plane
    control_plane.stop_operator(NAME)


@pytest.fixture
def world(operated: LocalCluster, namespace: str) -> Iterator[World]:
    yield World(operated, namespace)
    operated.kubectl("delete", "nodes", f"--selector=pool={namespace}", "--ignore-not-found")


def put_node(world: World, name: str, gpus: int, **labels: str) -> None:
    """A node of this world's pool, as its kubelet would make it; again: a heartbeat."""
    name = f"{world.namespace}-{name}"
    spec = NodeSpec(name, extended_resources={GPU: gpus}, labels={"pool": world.namespace} | labels)
    kubectl = world.cluster.kubectl
    kubectl.apply({"apiVersion": "v1", "kind": "Node", **make_node(spec)})
    status = json.dumps({"status": make_node_status(spec, "127.0.0.1", 10250)})
    kubectl("patch", "node", name, "--subresource=status", "--type=strategic", f"--patch={status}")


def make_model(world: World, gpus: int = 4, **spec: object) -> Json:
    pod = {"nodeSelector": {"pool": world.namespace}}
    return make_cr(world.namespace, "m", accelerator={"count": gpus}, pod=pod, **spec)


class Busy(BaseHTTPRequestHandler):
    """An engine in which forty requests wait."""

    def do_GET(self) -> None:
        body = b'vllm:num_requests_running{model_name="m"} 8\nvllm:num_requests_waiting{model_name="m"} 40\n'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@contextmanager
def engines(port: int) -> Iterator[None]:
    """Where pods that are told to be ready answer."""
    servers = [ThreadingHTTPServer((address, port), Busy) for address in ENGINES]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def pods(world: World) -> list[Json]:
    found: list[Json] = json.loads(world.kubectl("get", "pods", "-o", "json"))["items"]
    return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


def serve(world: World, count: int) -> None:
    """There are so many pods, and each has a node and is ready."""
    until(lambda: [bool(pod["spec"].get("nodeName")) for pod in pods(world)] == [True] * count, f"{count} have nodes")
    for pod, address in zip(pods(world), ENGINES, strict=False):
        ready = [{"type": kind, "status": "True"} for kind in ("PodScheduled", "Ready", "ContainersReady")]
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": ready}
        patch = json.dumps({"status": status})
        name = pod["metadata"]["name"]
        world.kubectl("patch", "pod", name, "--subresource=status", "--type=strategic", f"--patch={patch}")


def replicas(world: World) -> int:
    deployment = world.get("deployment/m")
    return int(deployment["spec"]["replicas"]) if deployment is not None else 0


def blocked(world: World) -> str:
    """What the condition says of too few nodes, "" where it does not."""
    condition = world.condition("m", "ScalingActive")
    return str(condition["message"]) if condition.get("reason") == "CapacityBlocked" else ""


def test_no_pod_is_made_for_which_there_is_no_accelerator(world: World) -> None:
    put_node(world, "a", 4)
    put_node(world, "b", 4)
    with engines(8000):
        world.apply(make_model(world, autoscaling={"minReplicas": 1, "maxReplicas": 8, "targets": TARGETS}))
        serve(world, 1)
        until(lambda: replicas(world) == 2, "a second one is asked for")
        serve(world, 2)
        words = "replicas wanted, 2 fit: 8 nvidia.com/gpu on 2 nodes, 4 per replica. Next: add nodes"
        until(lambda: words in blocked(world), "it is told with numbers")
        deadline = time.monotonic() + 8.0  # a look and more
        while time.monotonic() < deadline:
            assert len(pods(world)) == 2
            time.sleep(0.5)
        for name in "abc":
            put_node(world, name, 4)
        until(lambda: replicas(world) == 3, "the node that came is used", 20.0)
        serve(world, 3)
        until(lambda: "3 fit: 12 nvidia.com/gpu on 3 nodes" in blocked(world), "the numbers are those of now")


def test_a_minimum_is_asked_for_whatever_nodes_there_are_and_told(world: World) -> None:
    put_node(world, "a", 4)
    world.apply(make_model(world, autoscaling={"minReplicas": 3, "maxReplicas": 8, "targets": TARGETS}))
    until(lambda: replicas(world) == 3, "the minimum")
    until(lambda: "3 replicas wanted, 1 fit: 4 nvidia.com/gpu on 1 node" in blocked(world), "it is told")
    put_node(world, "b", 8)
    until(lambda: not world.condition("m", "ScalingActive")["message"].startswith("3 replicas wanted"), "it fits", 90.0)


def test_a_floor_holds_while_a_pod_runs_on_a_spot_node(world: World) -> None:
    put_node(world, "a", 8)
    quiet = {"minReplicas": 1, "maxReplicas": 4, "targets": {"queuedRequests": 1000}, "spot": {"minReplicas": 2}}
    with engines(8000):
        world.apply(make_model(world, autoscaling=quiet))
        serve(world, 1)
        time.sleep(2 * QUIET_S)
        assert replicas(world) == 1, "its node stays"
        put_node(world, "a", 8, **{"cloud.google.com/gke-spot": "true"})
        until(lambda: replicas(world) == 2, "its node may be taken back")
        [decision] = world.status("m")["scaling"]["decisions"]
        assert "the minimum is 2, as pods run on spot nodes" in decision["message"]
        assert "At least 2 while pods run on spot nodes" in world.condition("m", "ScalingActive")["message"]


def test_fixed_replicas_are_not_bound(world: World) -> None:
    world.apply(make_model(world, replicas=5))
    until(lambda: replicas(world) == 5, "five")
    until(lambda: world.condition("m", "ScalingActive").get("reason") == "FixedReplicas", "status")


def count_passes(world: World) -> float:
    with urlopen(f"{world.cluster.operator_url(NAME)}/metrics", timeout=5) as answer:
        page = answer.read().decode()
    found = re.findall(
        r'^controller_runtime_reconcile_total\{controller="llmdeployment".*\} (\S+)$', page, re.MULTILINE
    )
    return sum(map(float, found))


def test_heartbeats_and_nodes_of_others_plan_nothing(world: World) -> None:
    put_node(world, "a", 4)
    pod = {"nodeSelector": {"pool": world.namespace}, "schedulerName": "frozen"}
    cr = make_model(world, autoscaling={"minReplicas": 1, "maxReplicas": 8, "targets": TARGETS})
    cr["spec"]["pod"] = pod
    world.apply(cr)
    until(lambda: pods(world), "its pod")
    taints = ("get", "node", f"{world.namespace}-a", "-o=jsonpath={.spec.taints}")
    until(lambda: not world.cluster.kubectl(*taints), "the node may be used")
    put_node(world, "a", 4)  # on a busy machine it may have been silent for too long
    time.sleep(2 * QUIET_S)
    mark, passes = world.mark(), count_passes(world)
    for _ in range(3):
        put_node(world, "a", 4)
    put_node(world, "other", 8, pool="others")
    world.cluster.kubectl("delete", "node", f"{world.namespace}-other")
    time.sleep(QUIET_S)
    assert (count_passes(world) - passes, world.writes(mark)) == (0.0, [])
    put_node(world, "b", 4)
    until(lambda: count_passes(world) > passes, "a node that it can use is heard of")


def test_without_the_right_replicas_are_decided_as_if_there_were_no_nodes(
    control_plane: LocalCluster, namespace: str, tmp_path: Path
) -> None:
    cluster, name = control_plane, "scoped"
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
    cluster.kubectl.apply(account)
    grant(cluster, namespace, rules_of("rbac-own-namespace.yaml"), namespace, "own")
    grant(cluster, namespace, rules_of("rbac-watched.yaml"), namespace, "watched")
    kubeconfig = cluster.control_plane.write_service_account_kubeconfig(namespace, name, tmp_path / "kubeconfig")
    environment = {"KUBECONFIG": str(kubeconfig), "POD_NAMESPACE": namespace}
    cluster.start_operator([f"--watch-namespaces={namespace}"], environment, name=NAME + "-without")
    try:
        cluster.wait_for_operator(NAME + "-without")
        world = World(cluster, namespace)
        spot = {"spot": {"minReplicas": 3}}
        world.apply(make_model(world, autoscaling={"minReplicas": 1, "maxReplicas": 8, "targets": TARGETS} | spot))
        until(lambda: replicas(world) == 3, "the floor for spot nodes holds")
        condition = until(lambda: world.condition("m", "ScalingActive"), "status")
        assert "nodes cannot be seen" in condition["message"]
        assert condition["reason"] != "CapacityBlocked"
        assert "nodes: done without, because" in (cluster.logs_dir / f"{NAME}-without.log").read_text()
    finally:
        cluster.stop_operator(NAME + "-without")
