"""A Deployment that its controller has not looked at yet is on its way to something: status does not tell of the moment.

Kubernetes gives a Deployment a new generation also for an annotation that somebody puts on it. For some milliseconds its status
then speaks of an older generation, as in a rollout, and a Ready that flips for it would be noise on every pager.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from tests.unit.runtime.world import DEPLOYMENTS, DirectedPlanner, World, controlling

from fairlead.facts.observed import ObjectKey, Observed
from fairlead.planning.plan import Plan

CR_STATUS = "llmdeployments/m/status PATCH"


class SeenPlanner(DirectedPlanner):
    """Ready while the Deployment's controller has seen its last generation."""

    async def plan(self, raw: Mapping[str, Any], observed: Observed, now: datetime) -> Plan:
        plan = await super().plan(raw, observed, now)
        live = observed.children.get(ObjectKey("Deployment", "ml", "m"), {})
        seen = live.get("status", {}).get("observedGeneration") == live.get("metadata", {}).get("generation")
        return replace(plan, status={**plan.status, "conditions": [{"type": "Ready", "status": str(seen)}]})


def look(world: World, *, generation: int, observed: int, note: str) -> None:
    """The Deployment as somebody, or its controller, left it; and the cache knows."""
    live = dict(world.api.objects[f"{DEPLOYMENTS}/m"])
    annotations = {**live["metadata"].get("annotations", {}), "note": note}
    metadata = {**live.pop("metadata"), "generation": generation, "annotations": annotations}
    world.api.put(DEPLOYMENTS, "m", **live | {"metadata": metadata, "status": {"observedGeneration": observed}})
    world.sync()


async def ready(world: World) -> None:
    world.put_cr()
    await world.run_pass()
    look(world, generation=1, observed=1, note="made")
    await world.settle()
    assert world.condition() == {"type": "Ready", "status": "True"}
    world.writes()


async def test_an_annotation_on_the_deployment_is_no_rollout() -> None:
    async with controlling(SeenPlanner()) as world:
        await ready(world)
        for generation in range(2, 12):
            look(world, generation=generation, observed=generation - 1, note=f"edit {generation}")
            await world.run_pass()
            world.now[0] += 0.1
            look(world, generation=generation, observed=generation, note=f"edit {generation}")
            world.now[0] += 0.4
            await world.run_pass()
        assert world.writes() == []


async def test_a_controller_that_does_not_look_for_long_is_told_of() -> None:
    async with controlling(SeenPlanner()) as world:
        await ready(world)
        look(world, generation=2, observed=1, note="edit")
        for _ in range(24):
            await world.run_pass()
            world.now[0] += 0.5
        assert world.writes() == [CR_STATUS]
        assert world.condition() == {"type": "Ready", "status": "False"}
