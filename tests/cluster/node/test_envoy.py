"""Envoy in pods: configuration as on a real cluster, names from the cluster's DNS, changes by the kubelet's swap.

Volumes are synced as a kubelet does it (after a minute, or at once when the pod changes), so that nothing here works
that would not work there.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import pytest
from tests.cluster.node import envoys
from tests.cluster.node.envoys import get, note_change, pods_of, until

from fairlead_cluster.build import Binaries
from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.node.options import Options, VolumeSync

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def envoy_cluster(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A cluster of its own, whose volumes are in no hurry."""
    pytest.importorskip("envoy")
    options = Options(volume_sync=VolumeSync.KUBELET, crash_back_off_s=1.0)
    directory = tmp_path_factory.mktemp("envoy")
    with LocalCluster(directory, node_options=options, install=False, binaries=binaries) as running:
        yield running


@pytest.fixture
def place(envoy_cluster: LocalCluster) -> Iterator[str]:
    """A namespace with the rules of the restricted profile enforced."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    with envoy_cluster.namespace("envoy", labels) as name:
        yield name


def start(cluster: LocalCluster, namespace: str, *, backends: int = 2, gateways: int = 1) -> tuple[str, int]:
    """Backend and gateway, ready; the gateway's address."""
    host = f"backend-pods.{namespace}.svc.cluster.local"
    cluster.kubectl.apply(*envoys.backend(namespace, backends), *envoys.gateway(namespace, gateways, host=host))
    for name in ("backend", "gateway"):
        cluster.kubectl("rollout", "status", f"deployment/{name}", "-n", namespace, "--timeout=30s")
    return cluster.service_address(namespace, "gateway", envoys.PORT)


def scale(cluster: LocalCluster, namespace: str, replicas: int) -> None:
    cluster.kubectl("scale", "deployment/backend", "-n", namespace, f"--replicas={replicas}")


def test_traffic_follows_the_pods_of_a_headless_service(envoy_cluster: LocalCluster, place: str) -> None:
    address = start(envoy_cluster, place, gateways=2)

    def answering() -> set[str]:
        answers = [get(address) for _ in range(12)]
        return {one.pod if one.status == 200 else str(one.status) for one in answers}

    until(lambda: answering() == {pod["metadata"]["name"] for pod in pods_of(envoy_cluster, place, "backend")})
    assert len(answering()) == 2
    scale(envoy_cluster, place, 3)
    until(lambda: len(answering()) == 3)
    scale(envoy_cluster, place, 1)
    until(lambda: answering() == {pod["metadata"]["name"] for pod in pods_of(envoy_cluster, place, "backend")})
    scale(envoy_cluster, place, 0)
    until(lambda: answering() == {"503"})
    scale(envoy_cluster, place, 1)
    until(lambda: answering() == {pod["metadata"]["name"] for pod in pods_of(envoy_cluster, place, "backend")})


def test_changed_routes_and_keys_arrive_when_the_pod_is_annotated(envoy_cluster: LocalCluster, place: str) -> None:
    address = start(envoy_cluster, place, backends=1)
    until(lambda: get(address).status == 200)
    answer = get(address)
    assert answer.headers["x-version"] == "1"
    assert json.loads(answer.body)["key"] == "first"

    envoy_cluster.kubectl.apply(
        envoys.config_map(place, "routes", rds_json=envoys.routes("2")), envoys.secret(place, "keys", key="second")
    )
    time.sleep(1.5)
    assert get(address).headers["x-version"] == "1"  # a kubelet has not looked yet

    note_change(envoy_cluster, place)
    changed_s = time.monotonic()
    until(lambda: get(address).headers.get("x-version") == "2")
    until(lambda: json.loads(get(address).body)["key"] == "second")
    assert time.monotonic() - changed_s < 15  # far from a kubelet's minute; on an idle machine one second
    (pod,) = pods_of(envoy_cluster, place, "gateway")
    volume = envoy_cluster.nodes_dir / "pods" / pod["metadata"]["uid"][:8] / "xds"
    assert (volume / "lds.json").read_text() == envoys.listeners()  # only Envoy sees other addresses
    assert (volume.parent / "run" / "admin.sock").is_socket()
    logs = envoy_cluster.kubectl("logs", pod["metadata"]["name"], "-n", place)
    assert "starting main dispatch loop" in logs
    until(lambda: '"GET / HTTP/1.1" 200' in envoy_cluster.kubectl("logs", pod["metadata"]["name"], "-n", place))


def test_readiness_of_the_listener_gates_the_service(envoy_cluster: LocalCluster, place: str) -> None:
    host = f"backend-pods.{place}.svc.cluster.local"
    objects = envoys.gateway(place, 1, host=host, lds=json.dumps({"resources": []}))
    envoy_cluster.kubectl.apply(*envoys.backend(place, 1), *objects)

    def running() -> bool:
        statuses = [pod.get("status", {}) for pod in pods_of(envoy_cluster, place, "gateway")]
        return [one.get("phase") for one in statuses] == ["Running"]

    until(running)
    address = envoy_cluster.service_address(place, "gateway", envoys.PORT)
    time.sleep(2)
    assert get(address).status == 0
    envoy_cluster.kubectl.apply(
        envoys.config_map(
            place, "listen", lds_json=envoys.listeners(), cds_json=envoys.clusters(host), sds_json=envoys.secrets()
        )
    )
    note_change(envoy_cluster, place)
    until(lambda: get(address).status == 200)


def test_a_deleted_gateway_finishes_its_streams(envoy_cluster: LocalCluster, place: str) -> None:
    address = start(envoy_cluster, place, backends=1)
    until(lambda: get(address).status == 200)
    (old,) = pods_of(envoy_cluster, place, "gateway")
    answers: list[envoys.Answer] = []
    stream = threading.Thread(target=lambda: answers.append(get(address, "/slow")))
    stream.start()
    time.sleep(0.5)
    envoy_cluster.kubectl("delete", "pod", old["metadata"]["name"], "-n", place, "--wait=false")
    until(lambda: bool(pods_of(envoy_cluster, place, "gateway")))
    # The old one serves on during its preStop: at no time is there nobody.
    deadline_s = time.monotonic() + 2
    while time.monotonic() < deadline_s:
        assert get(address).status == 200
        time.sleep(0.1)
    stream.join()
    assert answers[0].status == 200
    assert answers[0].body == "piece " * 10
    until(lambda: len(envoy_cluster.kubectl.json("get", "pods", "-n", place, "-l=app=gateway")["items"]) == 1)
    events = envoy_cluster.kubectl("get", "events", "-n", place, "-o", "name")
    assert "Failed" not in events


def test_a_native_sidecar_is_there_for_its_application(envoy_cluster: LocalCluster, place: str) -> None:
    """Beside a second one, both with the plain image, without `--disable-hot-restart`, listening on 127.0.0.1 only."""
    script = (
        "import os, time, urllib.request\n"
        "print(urllib.request.urlopen(os.environ['MODEL_URL'] + '/', timeout=5).read().decode(), flush=True)\n"
        "time.sleep(600)\n"
    )
    bootstrap = {
        "static_resources": {
            "listeners": json.loads(envoys.listeners(address="127.0.0.1", port=4000, routes=envoys.route_config("1")))[
                "resources"
            ],
            "clusters": json.loads(envoys.clusters("backend"))["resources"],  # found by the search domain
        }
    }
    for one in (*bootstrap["static_resources"]["listeners"], *bootstrap["static_resources"]["clusters"]):
        del one["@type"]
    sidecar = {
        "name": "gateway",
        "image": "docker.io/envoyproxy/envoy:v1.40.0",
        "command": ["envoy"],
        "args": ["-c", "/etc/one/envoy.yaml", "--concurrency", "1"],
        "restartPolicy": "Always",
        "securityContext": {**envoys.RESTRICTED, "runAsUser": 101},
        "startupProbe": {"httpGet": {"port": 4000, "path": "/healthz"}, "periodSeconds": 1, "failureThreshold": 30},
        "volumeMounts": [{"name": "bootstrap", "mountPath": "/etc/one/envoy.yaml", "subPath": "envoy.yaml"}],
    }
    app = {
        "name": "app",
        "image": "fairlead.test/python:1",
        "command": ["/usr/local/bin/python3", "-c", script],
        "env": [{"name": "MODEL_URL", "value": "http://127.0.0.1:4000"}],
        "securityContext": envoys.AS_USER,
    }
    volume = {"name": "bootstrap", "configMap": {"name": "one"}}
    pods = envoys.deployment(place, "app", 2, initContainers=[sidecar], containers=[app], volumes=[volume])
    pods["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 1
    envoy_cluster.kubectl.apply(
        *envoys.backend(place, 1), envoys.config_map(place, "one", envoy_yaml=json.dumps(bootstrap))
    )
    envoy_cluster.kubectl("rollout", "status", "deployment/backend", "-n", place, "--timeout=30s")
    envoy_cluster.kubectl.apply(pods)
    envoy_cluster.kubectl("rollout", "status", "deployment/app", "-n", place, "--timeout=30s")
    (served,) = pods_of(envoy_cluster, place, "backend")
    for pod in pods_of(envoy_cluster, place, "app"):
        name = pod["metadata"]["name"]
        until(
            lambda name=name: (
                served["metadata"]["name"] in envoy_cluster.kubectl("logs", name, "-n", place, "-c", "app")
            )
        )


def test_a_distroless_image_has_no_shell(envoy_cluster: LocalCluster, place: str) -> None:
    host = f"backend.{place}.svc.cluster.local"
    *objects, deployment, _ = envoys.gateway(place, 1, host=host)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["command"], container["args"] = ["/bin/sh", "-c"], ["exec envoy"]
    envoy_cluster.kubectl.apply(*objects, deployment)

    def ends() -> list[str]:
        statuses = [pod.get("status", {}) for pod in pods_of(envoy_cluster, place, "gateway")]
        containers = [one for status in statuses for one in status.get("containerStatuses", [])]
        states = [state for one in containers for state in (one["state"], one.get("lastState", {}))]
        return [one["terminated"]["message"] for one in states if "terminated" in one]

    until(lambda: any('exec: "/bin/sh": no such file or directory' in message for message in ends()))


def test_names_of_the_hosts_file_resolve(envoy_cluster: LocalCluster, place: str) -> None:
    address = start(envoy_cluster, place, backends=1)
    until(lambda: get(address).status == 200)
    (pod,) = pods_of(envoy_cluster, place, "backend")
    envoy_cluster.hosts_file.update({"api.provider.test": (pod["status"]["podIP"],)})
    envoy_cluster.kubectl.apply(
        envoys.config_map(
            place,
            "listen",
            lds_json=envoys.listeners(),
            cds_json=envoys.clusters("api.provider.test"),
            sds_json=envoys.secrets(),
        )
    )
    note_change(envoy_cluster, place)
    envoy_cluster.kubectl("delete", "service", "backend-pods", "-n", place)
    time.sleep(2)
    assert get(address).status == 200
    envoy_cluster.hosts_file.update({"api.provider.test": None})
    until(lambda: get(address).status == 503)
