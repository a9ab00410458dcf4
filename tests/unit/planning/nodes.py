"""Nodes for the tests of who may run on them, and what an LLMDeployment of a test's world is told of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.unit.planning.world import World

from fairlead.facts.nodes import NodeFacts, Surroundings
from fairlead.planning.deployment.capacity import count_capacity, read_demand

GPU = "nvidia.com/gpu"


def make_node(name: str = "node", gpus: int = 4, **facts: Any) -> NodeFacts:
    """One with accelerators, ready."""
    return NodeFacts(name, facts.pop("labels", {}), resources={GPU: gpus}, **facts)


def show(world: World, *nodes: NodeFacts, resource: str = GPU) -> None:
    """The signals of the next pass tell of these nodes, as whoever watches them would."""
    demand = read_demand(world.deployment["spec"]["template"], resource)
    under = {(pod.get("spec") or {}).get("nodeName") for pod in world.pods}
    seen = Surroundings(
        spot=frozenset(node.name for node in nodes if node.is_spot and node.name in under),
        leaving=frozenset(node.name for node in nodes if node.is_leaving and node.name in under),
        capacity=count_capacity(demand, nodes) if demand is not None else None,
        is_counted=True,
    )
    world.signals = replace(world.signals, nodes=seen)
