"""Replicas are bound to the accelerators that there are."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.planning.nodes import make_node, show
from tests.unit.planning.scaledworld import asleep, external, replicas_of, samples, scaled, serving, settle
from tests.unit.planning.world import VLLM, World, make_homeless_pod, merge

from fairlead.facts.nodes import NodeFacts
from fairlead.facts.scaling import Signals

NODES = tuple(make_node(name, 1) for name in "abc")
WORDS = "3 fit: 3 nvidia.com/gpu on 3 nodes, 1 per replica"


def look(world: World, *nodes: NodeFacts, waiting: float = 80.0) -> None:
    """A pass that sees these nodes and so many requests that wait, and one that carries it out."""
    for _ in range(2):
        world.signals = samples(world, waiting=waiting, pods=len(world.pods) or 1)
        show(world, *nodes)
        world.step()


def test_no_more_are_asked_for_than_the_nodes_hold_and_it_is_told_at_once() -> None:
    world = serving(2)
    look(world, *NODES)
    assert replicas_of(world) == 3
    condition = world.condition("ScalingActive")
    assert (condition["status"], condition["reason"]) == ("False", "CapacityBlocked")
    assert f"replicas wanted, {WORDS}. Next: add nodes (" in condition["message"]
    [*_, decision] = world.status["scaling"]["decisions"]
    assert (decision["from"], decision["to"], decision["reason"]) == (2, 3, "CapacityBlocked")
    assert WORDS in decision["message"]


def test_without_the_nodes_as_many_are_asked_for_as_are_needed() -> None:
    world = serving(2)
    world.signals = samples(world, waiting=80.0, pods=2)
    world.step()
    assert world.status["scaling"]["desiredReplicas"] > 3


def test_nodes_that_come_are_used_at_once() -> None:
    """What was decided for nodes that were there is no memory of pods that found none."""
    world = serving(2)
    look(world, *NODES)
    world.serve()
    look(world, *NODES, make_node("d", 1))
    assert replicas_of(world) == 4
    assert "4 fit: 4 nvidia.com/gpu on 4 nodes" in world.condition("ScalingActive")["message"]


def test_each_number_of_the_nodes_is_news() -> None:
    world = serving(3)
    look(world, *NODES)
    look(world, make_node("a", 3))
    assert "3 fit: 3 nvidia.com/gpu on 1 node," in world.condition("ScalingActive")["message"]


def test_pods_that_serve_stay_when_nodes_go() -> None:
    """Only pods that nothing fits are taken back: a node that is not ready for a moment costs nobody a pod."""
    world = serving(4)
    look(world, *NODES)
    assert replicas_of(world) == 4


@pytest.mark.parametrize("least", [1, 3])
def test_never_below_what_the_user_asks_for_whatever_happens(least: int) -> None:
    world = World(merge(VLLM, autoscaling=scaled(minReplicas=least)))
    world.step()
    show(world)
    world.step()
    assert replicas_of(world) == least
    message = world.condition("ScalingActive")["message"]
    assert f"{least} replicas wanted, 0 fit: no node that takes its pods has nvidia.com/gpu." in message
    assert message.endswith("--nodes=OnDemand), or lower the minimum.")


def test_a_schedule_is_a_floor_too() -> None:
    always = {"name": "always", "start": "0 0 * * *", "end": "59 23 * * *", "minReplicas": 5}
    world = World(merge(VLLM, autoscaling=scaled(schedules=[always])))
    for _ in range(2):
        world.step()
    show(world, *NODES)
    settle(world)
    assert replicas_of(world) == 5


def test_one_is_woken_though_no_node_is_there() -> None:
    world = asleep()
    world.signals = Signals(held=3)
    show(world)
    world.step()
    world.step()
    assert replicas_of(world) == 1


def test_pods_that_were_taken_back_are_asked_for_again_when_nodes_come() -> None:
    """Others had the accelerators that were counted: for ten minutes no more are asked for, unless more nodes come."""
    world = serving(2)
    nodes = [make_node(str(one), 1) for one in range(4)]
    look(world, *nodes)
    assert replicas_of(world) == 4
    ready = world.pods
    world.report(replicas=4, updated=4, ready=2)
    words = "0/4 nodes are available: 4 Insufficient nvidia.com/gpu."
    world.pods = [*ready, *(make_homeless_pod(f"new-{one}", words, since=world.now) for one in range(2))]
    world.now += timedelta(minutes=5)
    look(world, *nodes)
    assert replicas_of(world) == 2
    world.serve()
    world.now += timedelta(minutes=2)
    look(world, *nodes)
    assert replicas_of(world) == 2
    look(world, *nodes, make_node("new", 1))
    assert replicas_of(world) == 4


def test_what_changed_pods_need_is_counted_before_there_are_more() -> None:
    """The pass that changes the template knows only what the old pods needed."""
    world = serving(1)
    world.edit(merge(world.spec, accelerator={"count": 2}))
    world.signals = samples(world, waiting=80.0)
    show(world, *(make_node(str(one), 1) for one in range(8)))
    world.step()
    assert replicas_of(world) == world.status["scaling"]["desiredReplicas"] == 1
    assert world.deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    look(world, make_node("a", 4), make_node("b", 1))
    assert replicas_of(world) == 2


def test_fixed_replicas_and_those_of_others_are_not_bound() -> None:
    for spec in (merge(VLLM, replicas=6), merge(VLLM, replicas=6, autoscaling=external())):
        world = World(spec)
        world.step()
        show(world, *NODES)
        settle(world)
        assert replicas_of(world) == 6


def test_a_model_without_accelerators_is_not_bound() -> None:
    world = World(merge(VLLM, accelerator=None, autoscaling=scaled()))
    settle(world)
    look(world)
    assert replicas_of(world) == 2


def test_where_nodes_are_added_for_pods_that_wait_they_wait() -> None:
    world = serving(2)
    world.signals = samples(world, waiting=80.0, pods=2)
    show(world, *NODES)
    assert world.signals.nodes is not None
    seen = replace(world.signals.nodes, is_counted=False)
    world.signals = replace(world.signals, nodes=seen)
    world.step()
    assert world.status["scaling"]["desiredReplicas"] > 3


def test_a_recommendation_is_bound_too() -> None:
    world = World(merge(VLLM, replicas=1, autoscaling=scaled(policy="Recommend")))
    settle(world)
    look(world, make_node("a", 1))
    assert world.status["scaling"]["recommendedReplicas"] == 1


def test_nothing_new_is_nothing_to_do() -> None:
    world = serving(2)
    look(world, *NODES)
    world.serve()
    look(world, *NODES)
    before = world.status
    look(world, *NODES)
    assert world.status == before
