"""Worlds whose LLMDeployment is scaled, for the tests of that."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tests.unit.planning.world import VLLM, World, merge

from fairlead.facts.scaling import Distribution, Measure, Sample, Signals

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
