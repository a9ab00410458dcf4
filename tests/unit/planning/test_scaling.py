"""That a decision is written before it is carried out, and what is told of it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.unit.planning.scaledworld import asleep, replicas_of, samples, scaled, serving, settle
from tests.unit.planning.world import VLLM, World, ended, make_pod, merge

from fairlead.facts.scaling import Sample, Signals
from fairlead.planning.deployment.scaling import DECISIONS_KEPT

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


# Zero.


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


@pytest.mark.parametrize("replicas", [1, 4])
def test_numbers_that_each_look_moves_are_no_news(replicas: int) -> None:
    """Also where spec.replicas is what it is by default, so that no sentence about it ends the message."""
    world = World(merge(VLLM, replicas=replicas, autoscaling=scaled(minReplicas=2, maxReplicas=2)))
    settle(world)
    messages = set()
    for waiting in (60.0, 70.0, 80.0):
        world.now += timedelta(minutes=2)
        world.signals = samples(world, waiting=waiting, pods=2)
        world.step()
        world.now += timedelta(minutes=2)
        world.signals = samples(world, waiting=waiting, pods=2)
        world.step()
        assert world.states()["ScalingActive"] == "False/AtMaximum"
        messages.add(world.condition("ScalingActive")["message"])
    assert len(messages) == 1
