"""Who says how many replicas there are, at the real API server and with the real HorizontalPodAutoscaler.

An autoscaler whose lower bound is above what there is writes it without any metrics, so nothing else is needed here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster.operator_world import QUIET_S, Json, World, make_cr, until

from fairlead_cluster.cluster import LocalCluster

pytestmark = pytest.mark.cluster

EXTERNAL = {"mode": "External", "minReplicas": 1, "maxReplicas": 8}
OPERATOR = {"maxReplicas": 8, "targets": {"queuedRequests": 5}}


@pytest.fixture(scope="module")
def operated(control_plane: LocalCluster) -> Iterator[LocalCluster]:
    control_plane.start_operator(["--log-level=debug"])
    control_plane.wait_for_operator()
    yield control_plane
    control_plane.stop_operator()


@pytest.fixture
def world(operated: LocalCluster, namespace: str) -> World:
    return World(operated, namespace)


def make_autoscaler(world: World, least: int, kind: str = "LLMDeployment") -> Json:
    version = "fairlead.dev/v1alpha1" if kind == "LLMDeployment" else "apps/v1"
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "theirs", "namespace": world.namespace},
        "spec": {
            "scaleTargetRef": {"apiVersion": version, "kind": kind, "name": "m"},
            "minReplicas": least,
            "maxReplicas": 6,
            "metrics": [{"type": "Resource", "resource": cpu}],
        },
    }


def replicas(world: World) -> int | None:
    deployment = world.get("deployment/m")
    return int(deployment["spec"]["replicas"]) if deployment is not None else None


def scaling(world: World) -> str:
    condition = world.condition("m", "ScalingActive")
    return f"{condition.get('status')}/{condition.get('reason')}"


def apply(world: World, **spec: Any) -> None:
    world.apply(make_cr(world.namespace, "m", **spec))
    world.wait_observed("m")


def seen_replicas(world: World, seconds: float) -> set[int | None]:
    """All that the Deployment was told to have in that time."""
    seen = set()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen.add(replicas(world))
        time.sleep(0.1)
    return seen


def test_a_decision_is_carried_out_and_costs_two_writes(world: World) -> None:
    apply(world, autoscaling=OPERATOR)
    until(lambda: replicas(world) == 1, "one replica")
    time.sleep(QUIET_S)
    mark = world.mark()
    apply(world, autoscaling=OPERATOR | {"minReplicas": 3})
    until(lambda: replicas(world) == 3, "three replicas")
    time.sleep(QUIET_S)
    writes = world.writes(mark)
    assert writes.count("patch deployments m: 200") == 1
    [decision] = world.status("m")["scaling"]["decisions"]
    assert (decision["from"], decision["to"]) == (1, 3)
    mark = world.mark()
    time.sleep(QUIET_S)
    assert world.writes(mark) == []


def test_kubectl_scale_is_answered_where_the_operator_decides(world: World) -> None:
    apply(world, autoscaling=OPERATOR | {"minReplicas": 2})
    until(lambda: replicas(world) == 2, "two replicas")
    world.kubectl("scale", "llmdeployment/m", "--replicas=5")
    until(lambda: "spec.replicas (5)" in world.condition("m", "ScalingActive")["message"], "it is told")
    reasons = ("get", "events.v1.events.k8s.io", "-o", "jsonpath={.items[*].reason}")
    until(lambda: "ScaleIgnored" in world.kubectl(*reasons), "an Event")
    assert replicas(world) == 2


def test_an_autoscaler_takes_over_and_gives_back_without_a_dip(world: World) -> None:
    apply(world, autoscaling=OPERATOR | {"minReplicas": 4})
    until(lambda: replicas(world) == 4, "four replicas")
    apply(world, autoscaling=EXTERNAL)
    assert scaling(world) == "True/ReplicasHeld"
    assert replicas(world) == 4
    world.apply(make_autoscaler(world, 3))  # fewer than there are: it writes its own minimum without any metrics
    until(lambda: (world.get("llmdeployment/m") or {})["spec"]["replicas"] == 3, "the autoscaler writes")
    assert seen_replicas(world, 3.0) == {4}
    assert "HorizontalPodAutoscaler theirs" in world.condition("m", "ScalingActive")["message"]
    world.apply(make_autoscaler(world, 5))
    until(lambda: replicas(world) == 5, "it is followed")
    until(lambda: scaling(world) == "True/ExternallyManaged", "it is told")
    world.kubectl("delete", "horizontalpodautoscaler", "theirs")
    world.patch("llmdeployment/m", '{"spec": {"autoscaling": {"mode": "Operator", "targets": {"queuedRequests": 5}}}}')
    until(lambda: "HorizontalPodAutoscaler" not in world.condition("m", "ScalingActive")["message"], "it is ours again")
    assert seen_replicas(world, 3.0) == {5}


def test_replicas_that_leave_git_take_no_pod_below_the_fewest(world: World) -> None:
    apply(world, replicas=5, autoscaling=EXTERNAL | {"minReplicas": 2})
    until(lambda: replicas(world) == 5, "five replicas")
    apply(world, autoscaling=EXTERNAL | {"minReplicas": 2})  # the CRD's default takes the field's place
    until(lambda: replicas(world) == 2, "the fewest")
    assert seen_replicas(world, 3.0) == {2}


def test_an_autoscaler_is_left_alone_where_the_operator_would_decide(world: World) -> None:
    apply(world, autoscaling=OPERATOR)
    until(lambda: replicas(world) == 1, "one replica")
    world.apply(make_autoscaler(world, 2))
    until(lambda: replicas(world) == 2, "it is followed")
    until(lambda: scaling(world) == "True/ExternallyManaged", "it is told")
    assert "mode: External" in world.condition("m", "ScalingActive")["message"]


def test_an_autoscaler_of_the_deployment_is_not_fought(world: World) -> None:
    apply(world, replicas=1)
    until(lambda: replicas(world) == 1, "one replica")
    world.apply(make_autoscaler(world, 3, "Deployment"))
    until(lambda: replicas(world) == 3, "the autoscaler writes")
    until(lambda: scaling(world) == "True/ExternallyManaged", "it is told")
    assert seen_replicas(world, 5.0) == {3}
