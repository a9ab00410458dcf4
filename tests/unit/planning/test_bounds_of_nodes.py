"""Whatever is measured and whatever nodes there are: never more than they hold, never fewer than the user asks for."""

from __future__ import annotations

import copy
from functools import lru_cache

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.planning.nodes import make_node, show
from tests.unit.planning.scaledworld import replicas_of, samples, scaled, serving
from tests.unit.planning.world import World, merge


@lru_cache
def _settled(replicas: int) -> World:
    return serving(replicas)


@settings(max_examples=120, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 6),
    st.one_of(st.none(), st.integers(2, 8)),
    st.lists(st.integers(0, 3), max_size=4),
    st.floats(0, 300),
)
def test_never_beyond_the_nodes_and_never_below_the_floor(
    before: int, least: int, spot: int | None, nodes: list[int], waiting: float
) -> None:
    world = copy.deepcopy(_settled(before))
    wish = {"spot": {"minReplicas": spot}} if spot is not None else {}
    world.edit(merge(world.spec, autoscaling=scaled(minReplicas=least, **wish)))
    labels = {"karpenter.sh/capacity-type": "spot"}
    world.pods = [pod | {"spec": {"nodeName": "0"}} for pod in world.pods]
    held = [make_node(str(number), gpus, labels=labels) for number, gpus in enumerate(nodes)]
    for _ in range(4):
        world.signals = samples(world, waiting=waiting, pods=before)
        show(world, *held)
        world.step()
    floor = max(least, spot or 0) if nodes else least
    assert replicas_of(world) >= floor
    assert replicas_of(world) <= max(sum(nodes), floor, before)
