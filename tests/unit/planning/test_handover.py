"""Who says how many replicas there are, and that no hand-over takes a pod away."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.unit.planning.scaledworld import Json, external, replicas_of, scaled, serving, settle
from tests.unit.planning.world import VLLM, World, merge

from fairlead.facts.scaling import Signals
from fairlead.planning.deployment.following import HAND_OVER

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


# From and to what is unusual.


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
