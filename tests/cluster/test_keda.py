"""mode: KEDA at the real API server, with KEDA's own CRD and a real HorizontalPodAutoscaler.

KEDA itself is too large to be built here (2,600 Go packages): what it does to the cluster, a test does in its place: status of the
ScaledObject, the autoscaler that it makes, and the scale subresource by which it wakes an LLMDeployment from zero.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from tests.cluster.keda import AUTOSCALING as KEDA
from tests.cluster.keda import KIND, install
from tests.cluster.operator_world import QUIET_S, Json, World, make_cr, until

from fairlead_cluster.cluster import LocalCluster

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def operated(control_plane: LocalCluster) -> Iterator[LocalCluster]:
    """Without KEDA at first: that it comes, and goes, is the first test and the last."""
    control_plane.start_operator(["--log-level=debug", "--prometheus-url=http://127.0.0.1:9"])
    control_plane.wait_for_operator()
    yield control_plane
    control_plane.stop_operator()
    control_plane.kubectl.run("delete", "crd", KIND, "--ignore-not-found")


@pytest.fixture
def world(operated: LocalCluster, namespace: str) -> World:
    return World(operated, namespace)


@pytest.fixture
def keda(world: World) -> World:
    install(world.cluster.kubectl)
    return world


def apply(world: World, **spec: object) -> None:
    world.apply(make_cr(world.namespace, "m", **spec))
    world.wait_observed("m")


def scaling(world: World) -> str:
    condition = world.condition("m", "ScalingActive")
    return f"{condition.get('status')}/{condition.get('reason')}"


def replicas(world: World) -> int | None:
    deployment = world.get("deployment/m")
    return int(deployment["spec"]["replicas"]) if deployment is not None else None


def scaled_object(world: World) -> Json | None:
    return world.get(f"{KIND}/m")


def say(world: World, *conditions: Json) -> None:
    """As KEDA's operator writes status."""
    patch = json.dumps({"status": {"conditions": conditions}})
    world.kubectl("patch", KIND, "m", "--subresource=status", "--type=merge", f"--patch={patch}")


READY = {"type": "Ready", "status": "True", "reason": "ScaledObjectReady", "message": "is ready for scaling"}


def make_autoscaler(world: World, least: int, *, by_keda: bool) -> Json:
    """One that writes its own minimum, without metrics."""
    name = "keda-hpa-m" if by_keda else "theirs"
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "name": name,
            "namespace": world.namespace,
            "labels": {"scaledobject.keda.sh/name": "m"} if by_keda else {},
        },
        "spec": {
            "scaleTargetRef": {"apiVersion": "fairlead.dev/v1alpha1", "kind": "LLMDeployment", "name": "m"},
            "minReplicas": least,
            "maxReplicas": 6,
            "metrics": [{"type": "Resource", "resource": cpu}],
        },
    }


def test_keda_may_come_later(world: World) -> None:
    apply(world, replicas=2, autoscaling=KEDA)
    until(lambda: replicas(world) == 2, "spec.replicas counts")
    assert scaling(world) == "False/KEDAMissing"
    assert "install KEDA" in world.condition("m", "ScalingActive")["message"]
    mark = world.mark()
    install(world.cluster.kubectl)
    until(lambda: scaled_object(world), "it is found")
    until(lambda: scaling(world) == "Unknown/Progressing", "and waited for")
    assert world.quiet_writes(mark, 2) == ["patch llmdeployments/status m: 200", "patch scaledobjects m: 201"]


def test_keda_decides_by_what_its_own_schema_takes(keda: World) -> None:
    apply(keda, autoscaling=KEDA)
    made = until(lambda: scaled_object(keda), "a ScaledObject")
    assert made["metadata"]["ownerReferences"][0]["kind"] == "LLMDeployment"
    assert [one["name"] for one in made["spec"]["triggers"]] == ["timeToFirstToken", "queuedRequests"]
    assert made["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]["policies"]
    say(keda, READY)
    until(lambda: scaling(keda) == "True/ExternallyManaged", "it is told")
    keda.apply(make_autoscaler(keda, 3, by_keda=True))
    until(lambda: replicas(keda) == 3, "its autoscaler is followed")
    assert "ScaledObject m" in keda.condition("m", "ScalingActive")["message"]
    assert scaled_object(keda), "it is no second writer"
    time.sleep(QUIET_S)
    mark = keda.mark()
    say(keda, READY, {"type": "Active", "status": "True", "reason": "ScalerActive", "message": "x"})
    assert keda.quiet_writes(mark, 0) == []


def test_another_autoscaler_is_left_to_decide(keda: World) -> None:
    apply(keda, autoscaling=KEDA)
    until(lambda: scaled_object(keda), "a ScaledObject")
    keda.apply(make_autoscaler(keda, 4, by_keda=False))
    until(lambda: scaled_object(keda) is None, "KEDA's goes")
    until(lambda: replicas(keda) == 4, "the other is followed")
    until(lambda: scaling(keda) == "True/ExternallyManaged", "it is told")
    keda.kubectl("delete", "horizontalpodautoscaler", "theirs")
    until(lambda: scaled_object(keda), "it is KEDA's again")
    assert replicas(keda) == 4


def test_there_and_back_without_a_dip(keda: World) -> None:
    operator = {"maxReplicas": 8, "targets": {"queuedRequests": 5}}
    apply(keda, autoscaling=operator | {"minReplicas": 4})
    until(lambda: replicas(keda) == 4, "four replicas")
    apply(keda, autoscaling=KEDA)
    until(lambda: scaled_object(keda), "a ScaledObject")
    assert (replicas(keda), scaling(keda)) == (4, "True/ReplicasHeld")
    keda.patch("llmdeployment/m", '{"spec": {"autoscaling": {"mode": "Operator"}}}')
    until(lambda: scaled_object(keda) is None, "it goes with the mode")
    keda.wait_observed("m")
    assert replicas(keda) == 4


def test_none_at_least_is_written_and_woken_by_the_scale_subresource(keda: World) -> None:
    apply(keda, replicas=0, autoscaling=KEDA | {"minReplicas": 0, "idleTimeout": "2m"})
    made = until(lambda: scaled_object(keda), "a ScaledObject")
    assert (made["spec"]["minReplicaCount"], made["spec"]["cooldownPeriod"]) == (0, 120)
    say(keda, READY)
    until(lambda: keda.condition("m", "Ready").get("reason") == "ScaledToZero", "nothing runs")
    keda.kubectl("scale", "llmdeployment/m", "--replicas=1")
    until(lambda: replicas(keda) == 1, "woken")


def test_what_the_api_server_refuses_is_told_and_harms_nobody(keda: World) -> None:
    """A user's own ScaledObject has the name."""
    theirs = {"scaleTargetRef": {"name": "other"}, "triggers": [{"type": "cpu", "metadata": {}}]}
    keda.apply(
        {
            "apiVersion": "keda.sh/v1alpha1",
            "kind": "ScaledObject",
            "metadata": {"name": "m", "namespace": keda.namespace},
        }
        | {"spec": theirs}
    )
    apply(keda, autoscaling=KEDA)
    stalled = keda.wait_stalled("m", "NameConflict")
    assert "ScaledObject/m" in stalled["message"]
    found = scaled_object(keda)
    assert found is not None
    assert found["spec"]["scaleTargetRef"] == {"name": "other"}
    until(lambda: replicas(keda) == 1, "what else there is to do is done")


def test_keda_may_go(keda: World) -> None:
    apply(keda, autoscaling=KEDA | {"minReplicas": 2})
    until(lambda: scaled_object(keda), "a ScaledObject")
    keda.cluster.kubectl("delete", "crd", KIND)
    until(lambda: scaling(keda) == "False/KEDAMissing", "it is told")
    assert replicas(keda) == 2
    mark = keda.mark()
    assert keda.quiet_writes(mark, 0) == [], "nothing is tried again and again"
