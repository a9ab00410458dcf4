"""Who says how many replicas there are, that a decision is written before it is carried out, and that a hand-over takes no pod away."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.planning.world import VLLM, World, ended, make_homeless_pod, make_pod, merge

from fairlead.facts.scaling import Distribution, Measure, Sample, Signals
from fairlead.planning.deployment.following import HAND_OVER
from fairlead.planning.deployment.scaling import DECISIONS_KEPT

Json = dict[str, Any]


def scaled(**autoscaling: Any) -> Json:
    return {"maxReplicas": 8, "targets": {"queuedRequests": 5}} | autoscaling


def external(**autoscaling: Any) -> Json:
    return {"mode": "External", "minReplicas": 1, "maxReplicas": 8} | autoscaling


def serving(replicas: int, **autoscaling: Any) -> World:
    """A world that is scaled and has come to so many replicas."""
    world = World(merge(VLLM, autoscaling=scaled(**autoscaling | {"minReplicas": replicas})))
    settle(world)
    world.edit(merge(world.spec, autoscaling=scaled(**autoscaling)))
    settle(world)
    assert replicas_of(world) == replicas
    return world


def settle(world: World) -> None:
    for _ in range(3):
        world.step()
        world.serve()
    world.step()


def replicas_of(world: World) -> int:
    return int(world.deployment["spec"]["replicas"])


def samples(world: World, *, waiting: float, count: int = 60, pods: int = 1) -> Signals:
    """Of the last five minutes."""
    return Signals(
        samples=tuple(
            Sample(world.now - timedelta(seconds=5 * back), 5.0, pods, pods, {}, running=8.0, waiting=waiting)
            for back in reversed(range(count))
        )
    )


# Decided here.


def test_a_decision_is_in_status_before_any_pod_is_made() -> None:
    world = World(merge(VLLM, autoscaling=scaled()))
    settle(world)
    assert replicas_of(world) == 1
    assert world.status["scaling"] == {"mode": "Operator", "specReplicas": 1, "desiredReplicas": 1}
    world.edit(merge(VLLM, autoscaling=scaled(minReplicas=3)))
    first = world.step()
    assert first.acts_on_status
    assert replicas_of(world) == 1
    assert world.status["scaling"]["desiredReplicas"] == 3
    [made] = world.status["scaling"]["decisions"]
    assert (made["from"], made["to"], made["time"]) == (1, 3, "2026-11-25T12:00:00Z")
    assert [event.action for event in first.events] == ["Scale"]
    second = world.step()
    assert replicas_of(world) == 3
    assert not second.acts_on_status
    assert [event.action for event in second.events] == ["Reconcile"]  # fewer serve than must
    assert len(world.status["scaling"]["decisions"]) == 1


def test_other_bounds_and_targets_move_no_pod() -> None:
    world = serving(2)
    before = world.deployment
    world.edit(merge(world.spec, autoscaling={"maxReplicas": 4, "minReplicas": 2, "targets": {"latency": "5s"}}))
    settle(world)
    assert world.deployment["spec"]["template"] == before["spec"]["template"]
    assert world.deployment["metadata"]["annotations"] == before["metadata"]["annotations"]


def test_whoever_takes_over_between_decision_and_pods_comes_to_the_same_number() -> None:
    world = serving(1)
    world.signals = samples(world, waiting=40.0)
    world.step()
    decided = world.status["scaling"]["desiredReplicas"]
    assert decided > 1
    world.signals = Signals()  # another process, which has measured nothing yet
    world.step()
    assert replicas_of(world) == decided
    assert world.status["scaling"]["desiredReplicas"] == decided


def test_nothing_measured_changes_nothing() -> None:
    world = serving(4)
    before = world.status
    for minutes in range(30):
        world.now += timedelta(minutes=minutes)
        plan = world.step()
        assert not plan.acts_on_status
    assert replicas_of(world) == 4
    assert world.status["scaling"] == before["scaling"]
    assert world.condition("ScalingActive")["status"] == "False"


def test_decisions_in_status_are_bounded() -> None:
    world = serving(1)
    for number in range(DECISIONS_KEPT + 5):
        world.edit(merge(VLLM, autoscaling=scaled(minReplicas=2 + number % 2, maxReplicas=2 + number % 2)))
        settle(world)
    assert len(world.status["scaling"]["decisions"]) == DECISIONS_KEPT


def test_pods_that_are_added_do_not_take_readiness_away() -> None:
    world = serving(1)
    assert world.states()["Ready"] == "True/Serving"
    world.signals = samples(world, waiting=40.0)
    world.step()
    world.step()
    wanted = replicas_of(world)
    assert wanted > 1
    assert world.states()["Ready"] == "True/Serving"  # its controller has not looked yet
    world.report(replicas=wanted, updated=wanted, ready=1)
    plan = world.step()
    assert world.states()["Ready"] == "True/Serving"
    assert world.states()["Reconciling"].startswith("True/")
    assert plan.events == ()


def test_fewer_than_the_fewest_take_it_away() -> None:
    world = serving(3, minReplicas=2)
    world.report(replicas=3, updated=3, ready=1)
    world.step()
    assert world.states()["Ready"] == "False/ReplicasUnavailable"


def test_a_number_that_moves_with_each_look_is_not_told_anew() -> None:
    world = serving(2)
    for _ in range(13):
        world.signals = Signals(samples=(*world.signals.samples, Sample(world.now, 5.0, 2, 1)))
        world.step()
        world.now += timedelta(seconds=5)
    before = world.condition("ScalingActive")
    assert before["status"] == "False"
    world.signals = Signals(samples=(*world.signals.samples, Sample(world.now, 5.0, 2, 1)))
    world.step()
    assert world.condition("ScalingActive")["message"] == before["message"]


def test_a_start_of_the_operator_and_one_look_that_fails_are_no_news() -> None:
    world = serving(2)
    world.signals = samples(world, waiting=2.0)
    world.step()
    assert world.states()["ScalingActive"] == "True/SignalsReady"
    good = world.signals.samples
    partial = Signals(samples=(*good, Sample(world.now + timedelta(seconds=5), 5.0, 2, 1)))
    for signals in (Signals(), Signals(samples=(Sample(world.now, 0.0, 2, 2, {}, 8.0, 2.0),)), partial):
        world.signals = signals
        assert not world.step().acts_on_status
        assert world.states()["ScalingActive"] == "True/SignalsReady"


def test_what_lasts_is_told_after_a_minute() -> None:
    world = serving(2)
    world.signals = samples(world, waiting=2.0)
    world.step()
    told = []
    for _ in range(14):
        world.now += timedelta(seconds=5)
        world.signals = Signals(samples=(*world.signals.samples, Sample(world.now, 5.0, 2, 1)))
        world.step()
        told.append(world.states()["ScalingActive"])
    assert told[:12] == ["True/SignalsReady"] * 12
    assert told[12:] == ["False/SignalsPartial"] * 2


def test_looks_that_differ_by_chance_are_no_news() -> None:
    """At the maximum with a load around the target: half of the looks ask for more."""
    world = serving(2, maxReplicas=2)
    world.signals = samples(world, waiting=4.0, pods=2)
    world.step()
    told = world.status
    for number in range(60):
        world.now += timedelta(seconds=5)
        waiting = 16.0 if number % 2 else 4.0
        look = Sample(world.now, 5.0, 2, 2, {}, running=8.0, waiting=waiting)
        world.signals = Signals(samples=(*world.signals.samples, look))
        world.step()
        assert world.status == told


def test_kubectl_scale_is_answered_and_changes_nothing() -> None:
    world = serving(2)
    world.edit(merge(world.spec, replicas=7))
    plan = world.step()
    assert [(event.type, event.reason) for event in plan.events] == [("Warning", "ScaleIgnored")]
    assert "minReplicas" in plan.events[0].message
    assert replicas_of(world) == 2
    assert "spec.replicas (7) is not read" in world.condition("ScalingActive")["message"]
    assert world.step().events == ()


def test_recommended_and_not_applied() -> None:
    world = World(merge(VLLM, replicas=2, autoscaling=scaled(policy="Recommend")))
    settle(world)
    world.signals = samples(world, waiting=80.0, pods=2)
    plan = world.step()
    assert replicas_of(world) == 2
    assert not plan.acts_on_status
    assert world.status["scaling"]["recommendedReplicas"] > 2
    assert world.status["scaling"]["desiredReplicas"] == 2
    world.edit(merge(world.spec, replicas=3))
    assert "ScaleIgnored" not in [event.reason for event in world.step().events]
    assert replicas_of(world) == 3


def test_a_pause_keeps_the_number() -> None:
    world = serving(3)
    world.edit(merge(VLLM, autoscaling=scaled(policy="Pause")))
    world.signals = samples(world, waiting=80.0, pods=3)
    settle(world)
    assert replicas_of(world) == 3
    assert world.states()["ScalingActive"] == "False/ScalingPaused"


def test_suspension_keeps_the_decision_for_later() -> None:
    world = serving(3)
    world.edit(merge(world.spec, suspend=True))
    settle(world)
    assert replicas_of(world) == 0
    assert world.states()["ScalingActive"] == "False/Suspended"
    world.edit(merge(world.spec, suspend=False))
    settle(world)
    assert replicas_of(world) == 3


def test_a_spec_that_is_refused_keeps_the_number() -> None:
    world = serving(3)
    world.edit(merge(world.spec, engine={"type": "None"}))
    world.step()
    assert replicas_of(world) == 3
    assert world.status["scaling"]["desiredReplicas"] == 3


# Taken over.


def test_from_a_fixed_number_no_pod_goes() -> None:
    world = World(merge(VLLM, replicas=4))
    settle(world)
    world.edit(merge(VLLM, autoscaling=scaled()))  # and replicas left Git: the CRD's default is there
    settle(world)
    assert replicas_of(world) == 4


@pytest.mark.parametrize("replicas", [None, 6], ids=["left Git", "is there"])
def test_from_external_no_pod_goes(replicas: int | None) -> None:
    world = World(merge(VLLM, replicas=6, autoscaling=external()))
    settle(world)
    world.edit(merge(VLLM, replicas=replicas, autoscaling=scaled()))
    settle(world)
    assert replicas_of(world) == 6


def test_to_external_the_number_stays_until_somebody_writes_it() -> None:
    world = serving(5)
    world.edit(merge(VLLM, autoscaling=external()))
    plan = world.step()
    assert replicas_of(world) == 5
    assert world.states()["ScalingActive"] == "True/ReplicasHeld"
    assert plan.requeue_after_s == HAND_OVER.total_seconds()
    world.now += timedelta(minutes=2)
    world.step()
    assert replicas_of(world) == 5
    world.edit(merge(world.spec, replicas=3))  # an autoscaler begins with its own minimum
    settle(world)
    assert replicas_of(world) == 5
    world.edit(merge(world.spec, replicas=6))
    settle(world)
    assert replicas_of(world) == 6
    assert world.states()["ScalingActive"] == "True/ExternallyManaged"
    assert "heldUntil" not in world.status["scaling"]
    world.edit(merge(world.spec, replicas=3))
    settle(world)
    assert replicas_of(world) == 3


def test_to_external_the_number_is_held_for_minutes_only() -> None:
    world = serving(5)
    world.edit(merge(VLLM, autoscaling=external(minReplicas=2)))
    world.step()
    world.now += HAND_OVER
    settle(world)
    assert replicas_of(world) == 2  # never fewer, whatever spec.replicas says


def test_external_is_kept_within_its_bounds() -> None:
    world = World(merge(VLLM, replicas=9, autoscaling=external(minReplicas=2)))
    settle(world)
    assert replicas_of(world) == 8
    world.edit(merge(world.spec, replicas=0))
    settle(world)
    assert replicas_of(world) == 2


def test_a_number_that_changes_with_the_mode_counts_at_once() -> None:
    world = serving(5)
    world.edit(merge(VLLM, replicas=3, autoscaling=external()))
    world.step()
    assert replicas_of(world) == 3


def test_back_to_a_fixed_number() -> None:
    world = serving(5)
    world.edit(merge(VLLM, replicas=2))
    settle(world)
    assert replicas_of(world) == 2
    assert "scaling" not in world.status
    assert world.states()["ScalingActive"] == "False/FixedReplicas"


# Never two writers.


def test_another_autoscaler_of_the_resource_is_left_to_it() -> None:
    world = serving(3)
    world.signals = Signals(writer="HorizontalPodAutoscaler llama")
    world.step()
    assert replicas_of(world) == 3  # until it writes
    world.edit(merge(world.spec, replicas=4))
    settle(world)
    assert replicas_of(world) == 4
    assert world.states()["ScalingActive"] == "True/ExternallyManaged"
    assert "HorizontalPodAutoscaler llama" in world.condition("ScalingActive")["message"]
    world.signals = Signals()
    settle(world)
    assert replicas_of(world) == 4


def test_another_autoscaler_of_the_deployment_is_followed() -> None:
    world = World(merge(VLLM, replicas=2))
    settle(world)
    world.signals = Signals(writer_of_child="HorizontalPodAutoscaler llama")
    world.deployment["spec"]["replicas"] = 6
    world.serve()
    world.step()
    assert replicas_of(world) == 6
    assert world.states()["ScalingActive"] == "True/ExternallyManaged"


# Capacity.


def test_pods_that_nothing_fits_are_taken_back_and_not_asked_for_again_soon() -> None:
    world = serving(2)
    world.edit(merge(world.spec, autoscaling=scaled(minReplicas=1)))
    world.signals = samples(world, waiting=80.0, pods=2)
    world.step()
    world.step()
    wanted = replicas_of(world)
    assert wanted > 2
    ready = list(world.pods)
    world.report(replicas=wanted, updated=wanted, ready=2)
    homeless = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
    since = world.now
    world.pods = [*ready, make_homeless_pod("pod-9", homeless, since=since)]
    world.now = since + timedelta(minutes=2)
    world.signals = samples(world, waiting=80.0, pods=2)
    plan = world.step()
    assert replicas_of(world) == wanted  # whoever adds nodes needs minutes
    assert plan.requeue_after_s is not None
    assert plan.requeue_after_s <= 180.0
    world.now = since + timedelta(minutes=5)
    world.signals = samples(world, waiting=80.0, pods=2)
    world.step()
    world.step()
    assert replicas_of(world) == 2
    decision = world.status["scaling"]["decisions"][-1]
    assert decision["reason"] == "CapacityBlocked"
    assert "nvidia.com/gpu" in decision["message"]
    world.pods = ready
    world.serve()
    for _ in range(9):
        world.now += timedelta(minutes=1)
        world.signals = samples(world, waiting=80.0, pods=2)
        world.step()
        assert world.status["scaling"]["desiredReplicas"] == 2
    assert world.states()["ScalingActive"] == "False/CapacityBlocked"
    world.now += timedelta(minutes=1)
    world.signals = samples(world, waiting=80.0, pods=2)
    world.step()
    assert world.status["scaling"]["desiredReplicas"] > 2
    for _ in range(
        5
    ):  # another attempt, whose pod the scheduler has not looked at: whoever is alerted is not told that all is well
        world.now += timedelta(seconds=30)
        world.signals = samples(world, waiting=80.0, pods=2)
        world.step()
        assert world.states()["ScalingActive"] == "False/CapacityBlocked"


def test_a_pod_that_waits_for_one_that_ends_is_no_lack_of_nodes() -> None:
    """A rollout in place: the new pod has no node until the old one has given its accelerator back."""
    world = serving(3)
    ending = {**world.pods[0], "metadata": {**world.pods[0]["metadata"], "deletionTimestamp": "2026-11-25T12:00:00Z"}}
    homeless = make_homeless_pod("pod-9", "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.", since=world.now)
    world.pods = [ending, *world.pods[1:], homeless]
    world.report(replicas=3, updated=1, ready=2)
    world.now += timedelta(minutes=20)
    for _ in range(3):
        assert not world.step().acts_on_status
    assert replicas_of(world) == 3


def test_pods_that_serve_are_never_taken_back() -> None:
    world = serving(3)
    homeless = [make_homeless_pod(f"new-{number}", "0/2 nodes.", since=world.now) for number in range(3)]
    world.pods = [*world.pods, *homeless]
    world.now += timedelta(minutes=20)
    world.step()
    assert world.status["scaling"]["desiredReplicas"] == 3


def test_the_first_pod_for_a_request_is_left_to_whoever_adds_nodes() -> None:
    world = asleep()
    world.signals = Signals(held=3)
    world.step()
    world.step()
    world.pods = [make_homeless_pod("pod-0", "0/2 nodes are available.", since=world.now)]
    world.report(replicas=1, updated=1, ready=0)
    world.now += timedelta(minutes=30)
    world.step()
    world.step()
    assert replicas_of(world) == 1
    assert world.states()["ScalingActive"] == "False/CapacityBlocked"
    assert world.states()["Ready"].startswith("False/")


# Zero.

NOBODY = {Measure.LATENCY: Distribution((1.0,), (0.0, 0.0))}


def asleep() -> World:
    """A world whose last replica has gone."""
    world = World(merge(VLLM, autoscaling=scaled(minReplicas=0, idleTimeout="1m")))
    settle(world)
    assert replicas_of(world) == 1
    quiet = [
        Sample(world.now - timedelta(seconds=5 * back), 5.0, 1, 1, NOBODY, running=0.0, waiting=0.0)
        for back in range(20)
    ]
    world.signals = Signals(samples=tuple(reversed(quiet)), held=0)
    settle(world)
    assert replicas_of(world) == 0
    world.pods = []
    world.report(replicas=0, updated=0, ready=0)
    world.signals = Signals(held=0)
    world.step()
    return world


def test_idle_at_zero_is_ready_and_says_how_it_wakes() -> None:
    world = asleep()
    assert world.states()["Ready"] == "True/ScaledToZero"
    assert world.states()["Reconciling"] == "False/UpToDate"
    assert world.states()["ScalingActive"] == "True/ScaledToZero"
    assert "wakes when a gateway has a request" in world.condition("Ready")["message"]
    assert not world.step().acts_on_status


def test_a_request_that_waits_wakes_it_at_once() -> None:
    world = asleep()
    world.signals = Signals(held=3)
    assert world.step().acts_on_status
    world.step()
    assert replicas_of(world) == 1
    assert world.status["scaling"]["decisions"][-1]["reason"] == "WakingUp"


def test_nobody_asked_is_nobody_waiting() -> None:
    world = asleep()
    world.signals = Signals(held=None)
    world.now += timedelta(hours=1)
    world.step()
    assert not world.step().acts_on_status
    assert replicas_of(world) == 0


def test_pods_that_were_never_seen_idle_do_not_go() -> None:
    world = World(merge(VLLM, autoscaling=scaled(minReplicas=0, idleTimeout="1m")))
    settle(world)
    world.now += timedelta(hours=3)
    settle(world)
    assert replicas_of(world) == 1


# Schedules.

OFFICE = [{"name": "office", "start": "0 8 * * *", "end": "0 18 * * *", "timeZone": "Europe/Berlin", "minReplicas": 3}]


def test_a_schedule_raises_the_fewest_from_its_start_on() -> None:
    world = World(merge(VLLM, autoscaling=scaled(schedules=OFFICE)))
    world.now = world.now.replace(hour=6, minute=30)  # half past seven in Berlin
    settle(world)
    assert replicas_of(world) == 1
    world.now += timedelta(minutes=2)
    assert world.step().requeue_after_s == 1680.0
    world.now = world.now.replace(hour=7, minute=0)
    settle(world)
    assert replicas_of(world) == 3


def test_times_that_do_not_exist_are_told_by_field() -> None:
    world = World(merge(VLLM, autoscaling=scaled(schedules=[{**OFFICE[0], "start": "61 8 * * *", "timeZone": "UTC"}])))
    world.step()
    assert world.states()["Stalled"] == "True/InvalidSpec"
    assert "spec.autoscaling.schedules[0].start" in world.condition("Stalled")["message"]
    world.edit(merge(VLLM, autoscaling=scaled(schedules=[{**OFFICE[0], "timeZone": "Europe/Berlim"}])))
    world.step()
    assert "spec.autoscaling.schedules[0].timeZone" in world.condition("Stalled")["message"]
    assert "Europe/Berlin" in world.condition("Stalled")["message"]


# Who goes.


def test_pods_with_the_fewest_requests_go_first() -> None:
    world = serving(3)
    for number, pod in enumerate(world.pods):
        pod["metadata"]["uid"] = f"uid-{number}"
    world.edit(merge(world.spec, autoscaling=scaled(maxReplicas=2)))
    busy = {"uid-0": 7.0, "uid-1": 0.0, "uid-2": 3.0, "uid-9": 1.0}
    world.signals = Signals(samples=(Sample(world.now, 5.0, 3, 3, running=10.0, waiting=0.0, busy=busy),))
    plan = world.step()
    assert plan.acts_on_status
    assert replicas_of(world) == 3  # they are told before their number changes
    costs = {nudge.uid: nudge.value for nudge in plan.nudges}
    assert costs == {"uid-0": "7", "uid-2": "3"}  # 0 is what it is without
    assert world.step().nudges == ()
    assert replicas_of(world) == 2


def test_nobody_is_told_when_there_are_to_be_more() -> None:
    world = serving(2)
    for number, pod in enumerate(world.pods):
        pod["metadata"]["uid"] = f"uid-{number}"
    world.edit(merge(world.spec, autoscaling=scaled(minReplicas=4)))
    world.signals = Signals(samples=(Sample(world.now, 5.0, 2, 2, running=9.0, waiting=0.0, busy={"uid-0": 9.0}),))
    plan = world.step()
    assert plan.acts_on_status
    assert plan.nudges == ()


# Hand-overs that a review found.


def test_after_suspension_there_are_as_many_as_before() -> None:
    world = World(merge(VLLM, replicas=4))
    settle(world)
    world.signals = Signals(writer_of_child="HorizontalPodAutoscaler llama")
    settle(world)
    world.edit(merge(world.spec, suspend=True))
    settle(world)
    assert replicas_of(world) == 0
    world.edit(merge(world.spec, suspend=False))
    settle(world)
    assert replicas_of(world) == 4


@pytest.mark.parametrize(
    "autoscaling", [None, external(minReplicas=0), scaled(minReplicas=0)], ids=["fixed", "external", "operator"]
)
def test_what_is_suspended_is_not_taken_for_zero(autoscaling: Json | None) -> None:
    world = World(merge(VLLM, replicas=4, suspend=True))
    settle(world)
    world.edit(merge(VLLM, replicas=4, suspend=False, autoscaling=autoscaling))
    settle(world)
    assert replicas_of(world) == 4


def test_another_autoscaler_of_the_deployment_goes_without_a_dip() -> None:
    world = World(merge(VLLM, replicas=1))
    settle(world)
    world.signals = Signals(writer_of_child="HorizontalPodAutoscaler llama")
    world.deployment["spec"]["replicas"] = 6
    settle(world)
    world.signals = Signals()
    settle(world)
    assert replicas_of(world) == 6
    assert world.states()["ScalingActive"] == "True/ReplicasHeld"
    world.now += HAND_OVER
    settle(world)
    assert replicas_of(world) == 1
    assert "scaling" not in world.status


def test_what_is_there_counts_where_status_has_not_told_of_it_yet() -> None:
    world = World(merge(VLLM, replicas=4, autoscaling=external()))
    settle(world)
    told = world.status
    world.edit(merge(world.spec, replicas=5))
    world.step()
    assert replicas_of(world) == 5
    world.status = told  # it waits until the change has settled
    world.edit(merge(VLLM, replicas=5, autoscaling=scaled()))
    world.step()
    assert replicas_of(world) == 5


def test_to_recommended_without_a_dip_and_within_the_bounds() -> None:
    world = serving(6)
    world.edit(merge(world.spec, autoscaling=scaled(minReplicas=3, policy="Recommend")))
    settle(world)
    assert replicas_of(world) == 6
    world.now += HAND_OVER
    settle(world)
    assert replicas_of(world) == 3


def test_more_at_once_is_not_held_back() -> None:
    world = World(merge(VLLM, replicas=2))
    settle(world)
    world.edit(merge(VLLM, replicas=6, autoscaling=external()))
    settle(world)
    assert replicas_of(world) == 6


def test_a_clock_that_is_set_back_does_not_lengthen_the_hold() -> None:
    world = serving(5)
    world.edit(merge(VLLM, autoscaling=external()))
    world.step()
    world.now -= timedelta(hours=1)
    plan = world.step()
    assert plan.requeue_after_s is not None
    assert plan.requeue_after_s <= HAND_OVER.total_seconds()


def test_bounds_that_clamp_are_told() -> None:
    world = World(merge(VLLM, replicas=20, autoscaling=external()))
    settle(world)
    assert "20 is asked for, 8 is what these bounds permit" in world.condition("ScalingActive")["message"]


def test_a_pause_keeps_to_the_bounds_and_answers_kubectl_scale() -> None:
    world = serving(6)
    world.edit(merge(VLLM, replicas=2, autoscaling=scaled(policy="Pause", maxReplicas=4)))
    assert [event.reason for event in world.step().events if event.action == "Scale"] == ["ScaleIgnored"]
    settle(world)
    assert replicas_of(world) == 4


def test_what_crashes_is_not_excused() -> None:
    world = serving(8, minReplicas=1)
    world.report(replicas=8, updated=8, ready=1)
    crashed = [make_pod(f"pod-{n}", containerStatuses=[ended("boom", restarts=4)]) for n in range(1, 8)]
    world.pods = [make_pod("pod-0", ready=True), *crashed]
    world.step()
    assert world.states()["Ready"].startswith("False/")


def test_status_that_somebody_else_wrote_stops_nothing() -> None:
    world = serving(3)
    world.status["scaling"]["decisions"] = [
        {"time": "yesterday", "from": 1},
        {"time": "2026-11-25T11:00:00", "from": 1, "to": 2},
    ]
    world.edit(merge(world.spec, autoscaling=scaled(minReplicas=4)))
    settle(world)
    assert replicas_of(world) == 4


def test_inputs_of_a_decision_are_in_status() -> None:
    world = serving(1)
    world.signals = samples(world, waiting=40.0)
    world.step()
    assert world.status["scaling"]["decisions"][-1]["inputs"]["waiting"] == "40.0"
