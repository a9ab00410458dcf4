"""Replicas that there are because their nodes may be taken back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.unit.planning.nodes import make_node, show
from tests.unit.planning.scaledworld import replicas_of, samples, scaled, settle
from tests.unit.planning.world import VLLM, World, make_pod, merge

from fairlead.facts.nodes import NodeFacts, Surroundings, Taint
from fairlead.facts.scaling import Signals

SPOT = {"karpenter.sh/capacity-type": "spot"}
GOES = (Taint("karpenter.sh/disrupted", "", "NoSchedule"),)


def place(world: World, *nodes: NodeFacts) -> None:
    """All replicas are ready, one on each node and the rest on the last one; then a pass that sees that, and one that carries out what
    follows."""
    for _ in range(2):
        wanted = replicas_of(world)
        world.report(replicas=wanted, updated=wanted, ready=wanted)
        names = [nodes[min(number, len(nodes) - 1)].name for number in range(wanted)]
        world.pods = [
            make_pod(f"pod-{one}", ready=True) | {"spec": {"nodeName": name}} for one, name in enumerate(names)
        ]
        world.signals = samples(world, waiting=0.0, pods=wanted)
        show(world, *nodes)
        world.step()


def start(**autoscaling: object) -> World:
    world = World(merge(VLLM, autoscaling=scaled(spot={"minReplicas": 3}, **autoscaling)))
    world.signals = Signals(nodes=Surroundings())
    world.step()
    return world


def test_on_spot_nodes_there_are_at_least_so_many() -> None:
    world = start()
    place(world, make_node("a", 9, labels=SPOT))
    assert replicas_of(world) == 3
    [decision] = world.status["scaling"]["decisions"]
    assert decision["message"].startswith("the minimum is 3, as pods run on spot nodes;")
    assert "At least 3 while pods run on spot nodes." in world.condition("ScalingActive")["message"]


def test_on_other_nodes_the_field_asks_for_nothing() -> None:
    world = start()
    place(world, make_node("a", 9))
    assert replicas_of(world) == 1
    assert "spot" not in world.condition("ScalingActive")["message"]


def test_one_pod_on_a_spot_node_is_enough() -> None:
    world = start(minReplicas=2)
    place(world, make_node("a", 9), make_node("b", 9, labels=SPOT))
    assert replicas_of(world) == 3


def test_a_pod_that_does_not_serve_tells_nothing() -> None:
    world = start()
    world.report(replicas=1, updated=1, ready=0)
    world.pods = [make_pod("pod-0") | {"spec": {"nodeName": "a"}}]
    show(world, make_node("a", 9, labels=SPOT))
    world.step()
    assert world.status["scaling"]["desiredReplicas"] == 1


def test_where_nodes_cannot_be_seen_it_holds_and_says_so() -> None:
    world = start()
    world.signals = Signals()
    settle(world)
    assert replicas_of(world) == 3
    assert "nodes cannot be seen" in world.condition("ScalingActive")["message"]


def test_a_pod_whose_node_goes_does_not_count() -> None:
    world = start()
    stays, goes = make_node("a", 9, labels=SPOT), make_node("b", 9, labels=SPOT)
    place(world, stays, goes)
    assert replicas_of(world) == 3
    place(world, replace(goes, taints=GOES), stays)
    assert replicas_of(world) == 4
    decision = world.status["scaling"]["decisions"][-1]
    assert "as pods run on spot nodes and beside 1 pod whose node goes" in decision["message"]
    place(world, replace(goes, taints=GOES), stays)
    assert replicas_of(world) == 4, "one more for each, however often it is looked at"


def test_never_more_than_the_maximum() -> None:
    world = start(maxReplicas=3)
    place(world, make_node("a", 9, labels=SPOT, taints=GOES))
    assert replicas_of(world) == 3


def make_loading_pod(name: str) -> dict[str, Any]:
    pod = make_pod(name)
    return pod | {"metadata": {**pod["metadata"], "creationTimestamp": "2026-11-25T12:00:00Z"}}


def test_it_is_ready_with_as_many_as_the_user_asks_for_anywhere() -> None:
    """The others are there for a bad hour: that they load is no fault."""
    world = start()
    place(world, make_node("a", 9, labels=SPOT))
    world.report(replicas=3, updated=3, ready=1)
    world.pods = [world.pods[0], *(make_loading_pod(f"new-{one}") for one in range(2))]
    show(world, make_node("a", 9, labels=SPOT))
    world.step()
    assert world.states()["Ready"].startswith("True/")


def test_without_the_field_spot_nodes_are_nodes() -> None:
    world = World(merge(VLLM, autoscaling=scaled()))
    world.step()
    place(world, make_node("a", 9, labels=SPOT, taints=GOES))
    assert replicas_of(world) == 1
