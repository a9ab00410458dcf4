"""mode: KEDA: the ScaledObject that is made, when there is one, and what is told of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.planning.scaledworld import Json, external, replicas_of, scaled, serving, settle
from tests.unit.planning.world import OLLAMA, VLLM, World, merge

from fairlead.api.conditions import Reason
from fairlead.facts.observed import ObjectKey, OperatorFacts
from fairlead.facts.prometheus import PodLabels, PrometheusFacts
from fairlead.facts.scaling import Signals
from fairlead.planning.deployment.following import HAND_OVER
from fairlead.planning.deployment.keda import PAUSED, WAKING

KEY = ObjectKey("ScaledObject", "ml", "llama")
URL = "http://prometheus.monitoring:9090"
KNOWN = OperatorFacts(prometheus=PrometheusFacts(URL))
READY = {
    "type": "Ready",
    "status": "True",
    "reason": "ScaledObjectReady",
    "message": "ScaledObject is defined correctly",
}


def by_keda(**autoscaling: Any) -> Json:
    return scaled(mode="KEDA") | autoscaling


def make_world(spec: Json = VLLM, facts: OperatorFacts = KNOWN, **autoscaling: Any) -> World:
    world = World(merge(spec, autoscaling=by_keda(**autoscaling)), facts=facts)
    world.step()
    return world


def scaled_object(world: World) -> Json:
    return world.children[KEY]


def triggers(world: World) -> dict[str, Json]:
    return {one["name"]: one for one in scaled_object(world)["spec"]["triggers"]}


def say(world: World, *conditions: Json) -> None:
    """KEDA writes its status."""
    scaled_object(world)["status"] = {"conditions": list(conditions)}


def told(world: World) -> str:
    return world.states()["ScalingActive"]


def message(world: World) -> str:
    return str(world.condition("ScalingActive")["message"])


# What KEDA is asked for.


def test_the_scaled_object_of_a_target() -> None:
    spec = scaled_object(make_world(minReplicas=2))["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "fairlead.dev/v1alpha1", "kind": "LLMDeployment", "name": "llama"}
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 8)
    assert spec["fallback"] == {"failureThreshold": 3, "replicas": 2, "behavior": "currentReplicasIfHigher"}
    assert "cooldownPeriod" not in spec
    [trigger] = spec["triggers"]
    assert trigger["type"] == "prometheus"
    assert trigger["metricType"] == "Value"
    assert trigger["metadata"]["serverAddress"] == URL
    assert trigger["metadata"]["threshold"] == "5"
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert 'namespace="ml",pod=~"llama-[a-z0-9]+-[a-z0-9]{5}"' in trigger["metadata"]["query"]


def test_each_target_is_a_trigger_in_its_own_unit() -> None:
    targets = {
        "timeToFirstToken": "500ms",
        "latency": "1m30s",
        "outputTokenLatency": "50ms",
        "queuedRequests": 5,
        "runningRequests": 100,
        "kvCacheUsagePercent": 80,
    }
    found = {name: one["metadata"]["threshold"] for name, one in triggers(make_world(targets=targets)).items()}
    assert found == {
        "timeToFirstToken": "500",
        "latency": "90000",
        "outputTokenLatency": "50",
        "queuedRequests": "5",
        "runningRequests": "100",
        "kvCacheUsagePercent": "80",
    }


def test_behavior_is_what_an_operator_s_decision_would_keep_to() -> None:
    def behavior_of(world: World) -> Json:
        found: Json = scaled_object(world)["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        return found

    default = behavior_of(make_world())
    assert default["scaleDown"]["stabilizationWindowSeconds"] == 180
    assert default["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 60}]
    assert default["scaleUp"]["policies"][1] == {"type": "Percent", "value": 100, "periodSeconds": 60}
    own = {
        "scaleUp": {"selectPolicy": "Disabled"},
        "scaleDown": {"policies": [{"type": "Percent", "value": 10, "periodSeconds": 30}], "selectPolicy": "Min"},
    }
    found = behavior_of(make_world(behavior=own))
    assert found["scaleUp"]["selectPolicy"] == "Disabled"
    assert found["scaleDown"]["policies"] == [{"type": "Percent", "value": 10, "periodSeconds": 30}]
    assert found["scaleDown"]["selectPolicy"] == "Min"


def test_schedules_are_cron_triggers() -> None:
    office = {
        "name": "office",
        "start": "0 8 * * *",
        "end": "0 18 * * *",
        "timeZone": "Europe/Berlin",
        "minReplicas": 4,
    }
    assert triggers(make_world(schedules=[office]))["schedule-office"] == {
        "type": "cron",
        "name": "schedule-office",
        "metadata": {"timezone": "Europe/Berlin", "start": "0 8 * * *", "end": "0 18 * * *", "desiredReplicas": "4"},
    }


def test_no_two_triggers_have_a_name_in_common() -> None:
    """KEDA refuses that."""
    named = [
        {"name": name, "start": "0 8 * * *", "end": "0 18 * * *", "minReplicas": 2} for name in ("latency", "activity")
    ]
    world = make_world(minReplicas=0, targets={"latency": "5s"}, schedules=named)
    found = [one["name"] for one in scaled_object(world)["spec"]["triggers"]]
    assert len(found) == len(set(found)) == 4


def test_another_prometheus_and_its_credentials() -> None:
    keda = {
        "serverAddress": "https://mimir:8080/prometheus/",
        "authenticationRef": {"name": "mimir"},
        "metadata": {"authModes": "bearer", "customHeaders": "X-Scope-OrgID=ml"},
    }
    facts = OperatorFacts(
        prometheus=PrometheusFacts(URL, ("X-Scope-OrgID=other",), PodLabels("ns", "p"), is_guarded=True)
    )
    trigger = triggers(make_world(facts=facts, keda=keda))["queuedRequests"]
    assert trigger["authenticationRef"] == {"name": "mimir", "kind": "TriggerAuthentication"}
    metadata = trigger["metadata"]
    assert metadata["serverAddress"] == "https://mimir:8080/prometheus"
    assert (metadata["authModes"], metadata["customHeaders"]) == ("bearer", "X-Scope-OrgID=ml")
    assert 'ns="ml",p=~"' in metadata["query"]


def test_the_operator_s_headers_go_with_its_address() -> None:
    facts = OperatorFacts(prometheus=PrometheusFacts(URL, ("X-Scope-OrgID=ml", "a=b")))
    assert triggers(make_world(facts=facts))["queuedRequests"]["metadata"]["customHeaders"] == "X-Scope-OrgID=ml,a=b"


def test_own_headers_take_their_place() -> None:
    facts = OperatorFacts(prometheus=PrometheusFacts(URL, ("a=b=c",)))
    world = make_world(facts=facts, keda={"metadata": {"customHeaders": "X-Scope-OrgID=ml"}})
    assert triggers(world)["queuedRequests"]["metadata"]["customHeaders"] == "X-Scope-OrgID=ml"


# What cannot be asked for.


@pytest.mark.parametrize(
    ("spec", "facts", "path"),
    [
        (VLLM, OperatorFacts(), "spec.autoscaling.keda.serverAddress"),
        (
            VLLM,
            OperatorFacts(prometheus=PrometheusFacts(URL, is_guarded=True)),
            "spec.autoscaling.keda.authenticationRef",
        ),
        (VLLM, OperatorFacts(prometheus=PrometheusFacts(URL, ("a=b=c",))), "spec.autoscaling.keda.serverAddress"),
        (OLLAMA, KNOWN, "spec.autoscaling.mode"),
    ],
    ids=["nobody to ask", "no credentials", "a header that KEDA cannot send", "an engine without metrics"],
)
def test_what_keda_could_not_do_is_told(spec: Json, facts: OperatorFacts, path: str) -> None:
    world = make_world(spec, facts)
    assert KEY not in world.children
    [stalled] = [one for one in world.status["conditions"] if one["type"] == "Stalled"]
    assert (stalled["status"], stalled["reason"]) == ("True", "InvalidSpec")
    assert path in stalled["message"]
    assert "would work" in stalled["message"] or "name a" in stalled["message"]


# When there is one.


def test_without_keda_nothing_is_made_and_spec_replicas_counts() -> None:
    world = World(merge(VLLM, replicas=3, autoscaling=by_keda(minReplicas=2)), facts=KNOWN, has_keda=False)
    settle(world)
    assert KEY not in world.children
    assert replicas_of(world) == 3
    assert told(world) == "False/KEDAMissing"
    world.has_keda = True
    settle(world)
    assert KEY in world.children


def test_what_cannot_be_seen_any_more_is_not_deleted() -> None:
    world = make_world()
    world.has_keda = False
    plan = world.plan()
    assert not plan.deletes


def test_it_goes_with_the_mode() -> None:
    world = make_world()
    world.edit(merge(VLLM, autoscaling=scaled()))
    world.step()
    assert KEY not in world.children


def test_never_beside_another_autoscaler() -> None:
    world = make_world()
    world.signals = Signals(writer="HorizontalPodAutoscaler theirs")
    settle(world)
    assert KEY not in world.children
    assert told(world) == "True/ExternallyManaged"
    assert "delete it" in message(world)


def test_the_name_of_somebody_else_s_is_left_alone() -> None:
    world = World(merge(VLLM, autoscaling=by_keda()), facts=KNOWN)
    theirs = {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "llama", "namespace": "ml", "uid": "x"},
    }
    world.children[KEY] = theirs
    plan = world.step()
    assert all(child.key != KEY for child in plan.children)
    assert world.states()["Stalled"] == "True/NameConflict"


def test_it_is_stable() -> None:
    world = make_world(minReplicas=0)
    settle(world)
    before = world.children[KEY]
    world.step()
    assert world.children[KEY]["spec"] == before["spec"]


# Hand-over.


def test_from_the_operator_no_pod_goes() -> None:
    world = serving(5)
    world.facts = KNOWN
    world.edit(merge(VLLM, autoscaling=by_keda()))
    plan = world.step()
    assert replicas_of(world) == 5
    assert told(world) == "True/ReplicasHeld"
    assert plan.requeue_after_s == HAND_OVER.total_seconds()
    say(world, READY)
    world.edit(merge(world.spec, replicas=6))
    settle(world)
    assert replicas_of(world) == 6
    assert told(world) == "True/ExternallyManaged"
    assert world.status["scaling"]["mode"] == "KEDA"


def test_back_to_the_operator_no_pod_goes() -> None:
    world = World(merge(VLLM, replicas=6, autoscaling=by_keda()), facts=KNOWN)
    settle(world)
    world.edit(merge(VLLM, replicas=1, autoscaling=scaled()))
    settle(world)
    assert replicas_of(world) == 6


def test_between_external_and_keda_no_pod_goes() -> None:
    world = World(merge(VLLM, replicas=6, autoscaling=external()), facts=KNOWN)
    settle(world)
    world.edit(merge(VLLM, replicas=6, autoscaling=by_keda()))
    settle(world)
    world.edit(merge(VLLM, replicas=6, autoscaling=external()))
    settle(world)
    assert replicas_of(world) == 6
    assert KEY not in world.children


# Paused, asleep, woken.


@pytest.mark.parametrize(
    "change", [{"autoscaling": by_keda(policy="Pause")}, {"autoscaling": by_keda(), "suspend": True}]
)
def test_it_is_paused_with_the_decisions(change: Json) -> None:
    world = make_world()
    assert PAUSED not in scaled_object(world)["metadata"].get("annotations", {})
    world.edit(merge(world.spec, **change))
    world.step()
    assert scaled_object(world)["metadata"]["annotations"][PAUSED] == "true"
    assert told(world) in ("False/ScalingPaused", "False/Suspended")


def asleep(**autoscaling: Any) -> World:
    world = World(merge(VLLM, replicas=0, autoscaling=by_keda(minReplicas=0, **autoscaling)), facts=KNOWN)
    world.step()
    world.report(replicas=0, updated=0, ready=0)
    say(world, READY)
    world.signals = Signals(held=0)
    world.step()
    return world


def test_none_at_least() -> None:
    world = asleep(idleTimeout="10m")
    assert replicas_of(world) == 0
    assert world.states()["Ready"] == "True/ScaledToZero"
    assert told(world) == "True/ScaledToZero"
    spec = scaled_object(world)["spec"]
    assert (spec["cooldownPeriod"], spec["initialCooldownPeriod"], spec["minReplicaCount"]) == (600, 600, 0)
    assert spec["fallback"]["replicas"] == 1, "KEDA goes to none on errors where it is 0"
    activity = triggers(world)["activity"]["metadata"]
    assert float(activity["threshold"]) > 100_000
    assert "activationThreshold" not in activity


def is_told(world: World) -> bool:
    return WAKING in scaled_object(world)["metadata"].get("annotations", {})


def test_a_request_that_waits_wakes_it() -> None:
    world = asleep()
    assert not is_told(world)
    world.signals = Signals(held=3)
    world.step()
    assert is_told(world)
    world.signals = Signals(held=0)
    world.step()
    assert not is_told(world), "whoever waited has gone, and nobody has begun"


def test_a_new_leader_that_has_asked_nobody_yet_leaves_it_as_it_is() -> None:
    world = asleep()
    world.signals = Signals()
    world.step()
    assert not is_told(world)
    world.signals = Signals(held=3)
    world.step()
    world.signals = Signals()
    world.step()
    assert is_told(world)


def test_what_was_woken_is_wanted_until_it_has_served_for_a_while() -> None:
    """Whoever waited gave up while it loaded, and KEDA hears of requests only from pods that have been scraped: it would take the first
    pod away as soon as it is there."""
    world = asleep(idleTimeout="1m")
    world.signals = Signals(held=1)
    world.step()
    world.edit(merge(world.spec, replicas=1))  # as KEDA does
    world.signals = Signals(held=0)
    world.step()
    assert replicas_of(world) == 1
    assert is_told(world), "nobody waits, and nobody has served yet"
    world.now += timedelta(minutes=10)
    world.serve()
    for pod in world.pods:
        [ready] = [one for one in pod["status"]["conditions"] if one["type"] == "Ready"]
        ready["lastTransitionTime"] = world.now.isoformat()
    plan = world.step()
    assert is_told(world)
    assert plan.requeue_after_s is not None
    assert 0 < plan.requeue_after_s <= 60
    world.now += timedelta(seconds=60)
    world.step()
    assert not is_told(world)
    world.step()
    assert not is_told(world)


def test_a_paused_one_is_not_woken() -> None:
    world = asleep(policy="Pause")
    world.signals = Signals(held=3)
    world.step()
    assert WAKING not in scaled_object(world)["metadata"]["annotations"]
    assert "until replicas is raised" in world.condition("Ready")["message"]


def test_one_that_has_a_replica_at_least_is_not_woken() -> None:
    world = make_world(minReplicas=1)
    world.signals = Signals(held=3)
    world.step()
    assert WAKING not in scaled_object(world)["metadata"].get("annotations", {})


# What KEDA says of it.


def test_what_keda_has_not_looked_at() -> None:
    world = make_world()
    assert told(world) == "Unknown/Progressing"
    assert "is KEDA running?" in message(world)


@pytest.mark.parametrize(
    ("conditions", "reason", "words"),
    [
        (
            [READY | {"status": "False", "reason": "ScaledObjectCheckFailed", "message": "no such CRD."}],
            Reason.KEDA_NOT_READY,
            "such CRD",
        ),
        (
            [READY | {"status": "Unknown", "reason": "PartialTriggerError", "message": "x"}],
            Reason.KEDA_NOT_READY,
            "Partial",
        ),
        (
            [READY, {"type": "Fallback", "status": "True", "reason": "FallbackExists"}],
            Reason.SIGNALS_MISSING,
            "Prometheus",
        ),
    ],
    ids=["not ready", "some triggers", "fallback"],
)
def test_trouble_is_told_when_it_has_lasted(conditions: list[Json], reason: Reason, words: str) -> None:
    world = make_world()
    say(world, READY)
    settle(world)
    assert told(world) == "True/ExternallyManaged"
    say(world, *conditions)
    plan = world.step()
    assert told(world) == "True/ExternallyManaged", "a rollout makes it flip (KEDA 2.20)"
    assert plan.requeue_after_s is not None
    assert 0 < plan.requeue_after_s <= 60
    world.now += timedelta(seconds=61)
    world.step()
    assert told(world) == f"False/{reason}"
    assert words in message(world)
    say(world, READY)
    world.step()
    world.now += timedelta(seconds=61)
    world.step()
    assert told(world) == "True/ExternallyManaged"


FALLBACK = {"type": "Fallback", "status": "True", "reason": "FallbackExists"}


def test_that_nobody_answers_while_nobody_is_there_is_no_trouble() -> None:
    """Without pods there are no series, which KEDA counts as failures."""
    world = asleep()
    say(world, READY, FALLBACK)
    world.now += timedelta(minutes=5)
    world.step()
    assert told(world) == "True/ScaledToZero"
    loading = make_world()
    loading.report(replicas=1, updated=1, ready=0)
    say(loading, READY, FALLBACK)
    loading.now += timedelta(minutes=5)
    loading.step()
    assert told(loading) == "Unknown/PodsPending"


def test_what_nobody_deletes_is_no_decision() -> None:
    """KEDA was uninstalled before its finalizers were removed."""
    world = make_world()
    say(world, READY)
    scaled_object(world)["metadata"]["deletionTimestamp"] = world.now.isoformat()
    world.step()
    world.now += timedelta(seconds=61)
    world.step()
    assert told(world) == "False/KEDANotReady"
    assert "finalizer" in message(world)
