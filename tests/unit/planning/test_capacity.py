"""Replicas that no node fits."""

from __future__ import annotations

from datetime import timedelta

from tests.unit.planning.scaledworld import asleep, replicas_of, samples, scaled, serving
from tests.unit.planning.world import make_homeless_pod, merge

from fairlead.facts.scaling import Signals


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
    assert decision["message"].endswith(f"({homeless.rstrip('.')}): {wanted} -> 2 replicas")
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
