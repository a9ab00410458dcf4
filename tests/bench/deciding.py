"""What it costs to decide on replicas anew after each look: a pass's plan for an LLMDeployment whose pods are looked at every five seconds,
with all the samples that it keeps, beside the plan of one with a fixed number."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

from tests.bench.figures import Figure
from tests.unit.planning.world import NOW, VLLM, World, merge

from fairlead.facts.scaling import Distribution, Measure, Sample, Signals
from fairlead.runtime.decide import Blueprints

PASSES = 300
KEPT = 80
INTERVAL_S = 5.0
CRS = 1000
BOUNDS = (0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
AUTOSCALING = {"maxReplicas": 8, "targets": {"timeToFirstToken": "500ms", "queuedRequests": 5}}


def measure_deciding() -> list[Figure]:
    """CPU of one pass's plan, and of a core for 1,000 of them that are decided on every five seconds."""
    fixed, scaled = _measure({}), _measure({"autoscaling": AUTOSCALING})
    return [
        Figure("plan with a fixed number of replicas: CPU", 1000 * fixed, "ms", ""),
        Figure("plan with a decision on replicas: CPU", 1000 * scaled, "ms", ""),
        Figure("plan with a decision, of one without", scaled / fixed, "x", ""),
        Figure(
            f"decisions on {CRS} CRs every {INTERVAL_S:.0f} s: CPU", 100 * CRS * scaled / INTERVAL_S, "% of a core", ""
        ),
    ]


def _measure(spec: dict[str, Any]) -> float:
    """Seconds of CPU for one plan of a world in which nothing changes but time."""
    world = World(merge(VLLM, **spec))
    blueprints = Blueprints()
    for _ in range(3):
        world.step()
        world.serve()
    looks = [_look(back) for back in reversed(range(KEPT))]
    began = time.process_time()
    for number in range(PASSES):
        later = timedelta(seconds=INTERVAL_S * number)
        samples = tuple(replace(look, at=look.at + later) for look in looks)
        world.now, world.signals = NOW + later, Signals(samples=samples)
        assert not world.plan(blueprints.draw).acts_on_status
    return (time.process_time() - began) / PASSES


def _look(back: int) -> Sample:
    """Of an engine that is used as much as it may be."""
    counts = (0.0, 0.0, 1.0, 3.0, 4.0, 2.0, *(0.0 for _ in BOUNDS[6:]), 0.0)
    times = {measure: Distribution(BOUNDS, counts) for measure in (Measure.TIME_TO_FIRST_TOKEN, Measure.LATENCY)}
    at = NOW - timedelta(seconds=INTERVAL_S * back)
    return Sample(at, INTERVAL_S, 1, 1, times, running=8.0, waiting=0.0, kv_cache_usage=0.5)
