"""Who stands behind a Service: the rules of the endpointslice controller and of kube-proxy, as a table."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead_cluster.endpoints import Endpoint, endpoints, resolve_target_port

Json = dict[str, Any]


def make_pod(name: str, ip: str = "127.244.0.1", *, ready: bool = True, **changes: Any) -> Json:
    """A pod with port `http` = 8000; `terminating`, `labels`, `phase`, `namespace` change it."""
    metadata: Json = {
        "name": name,
        "namespace": changes.get("namespace", "ns"),
        "labels": changes.get("labels", {"app": "a"}),
    }
    if changes.get("terminating"):
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    container = {"name": "main", "ports": [{"name": "http", "containerPort": 8000}, {"containerPort": 9000}]}
    sidecar = {"name": "proxy", "restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 7000}]}
    init = {"name": "once", "ports": [{"name": "init", "containerPort": 6000}]}
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": metadata,
        "spec": {"containers": [container], "initContainers": [sidecar, init]},
        "status": {"podIP": ip, "phase": changes.get("phase", "Running"), "conditions": conditions},
    }


def make_service(**spec: Any) -> Json:
    """A Service that selects app=a."""
    return {
        "metadata": {"name": "svc", "namespace": "ns"},
        "spec": {"clusterIP": "127.96.0.9", "selector": {"app": "a"}, **spec},
    }


PORT = {"port": 80, "targetPort": "http"}
READY = make_pod("ready", "127.244.0.1")
DRAINING = make_pod("draining", "127.244.0.2", terminating=True)
LOADING = make_pod("loading", "127.244.0.3", ready=False)


@pytest.mark.parametrize(
    ("service", "pods", "ips"),
    [
        pytest.param(make_service(), [READY, LOADING], ["127.244.0.1"], id="only ready pods"),
        pytest.param(make_service(), [READY, DRAINING], ["127.244.0.1"], id="no terminating pod beside a ready one"),
        pytest.param(make_service(), [DRAINING, LOADING], ["127.244.0.2"], id="a draining pod where there is no other"),
        pytest.param(
            make_service(), [make_pod("x", ready=False, terminating=True)], [], id="draining and not ready: nobody"
        ),
        pytest.param(make_service(), [LOADING], [], id="nobody is ready"),
        pytest.param(make_service(clusterIP="None"), [DRAINING], [], id="headless: no draining pods in DNS"),
        pytest.param(
            make_service(publishNotReadyAddresses=True),
            [READY, DRAINING, LOADING],
            ["127.244.0.2", "127.244.0.3", "127.244.0.1"],
            id="published although not ready, in the order of names",
        ),
        pytest.param(make_service(), [make_pod("x", labels={"app": "b"})], [], id="other labels"),
        pytest.param(make_service(), [make_pod("x", labels=None)], [], id="no labels"),
        pytest.param(make_service(), [make_pod("x", namespace="other")], [], id="other namespace"),
        pytest.param(make_service(), [make_pod("x", phase="Failed")], [], id="failed"),
        pytest.param(make_service(), [make_pod("x", phase="Succeeded")], [], id="finished"),
        pytest.param(make_service(), [make_pod("x", "")], [], id="no address yet"),
        pytest.param(make_service(selector={}), [READY], [], id="no selector selects nobody"),
        pytest.param(make_service(selector=None), [READY], [], id="without selector"),
    ],
)
def test_backing_pods(service: Json, pods: list[Json], ips: list[str]) -> None:
    assert [endpoint.ip for endpoint in endpoints(service, PORT, pods)] == ips


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        pytest.param({"port": 80, "targetPort": 8080}, 8080, id="number, also one that no container declares"),
        pytest.param({"port": 80, "targetPort": "http"}, 8000, id="name"),
        pytest.param({"port": 80}, 80, id="absent: the Service's port"),
        pytest.param({"port": 80, "targetPort": "side"}, 7000, id="a native sidecar's port"),
        pytest.param({"port": 80, "targetPort": "init"}, None, id="an init container's port is gone by now"),
        pytest.param({"port": 80, "targetPort": "absent"}, None, id="nobody has the name"),
        pytest.param({"port": 80, "targetPort": "http", "protocol": "UDP"}, None, id="the name is of another protocol"),
    ],
)
def test_target_port(port: Json, expected: int | None) -> None:
    assert resolve_target_port(READY, port) == expected


def test_a_pod_without_the_named_port_gets_no_traffic() -> None:
    other = make_pod("other", "127.244.0.9")
    other["spec"]["containers"][0]["ports"] = []
    assert endpoints(make_service(), PORT, [READY, other]) == (Endpoint("127.244.0.1", 8000),)
