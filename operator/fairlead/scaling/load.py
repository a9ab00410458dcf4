"""How full the engines are, and where that goes: what tells of a latency target before it is missed.

An engine batches: times hardly rise until its KV cache is full and requests wait, and then they rise without bound. So a time alone comes
too late, while the share of the KV cache that is used, with what waits, rises with the load."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fairlead.facts.scaling import Measure, Sample
from fairlead.scaling.signals import mean_of
from fairlead.scaling.tuning import Tuning

__all__ = ["Load", "Trend", "in_flight", "load_of", "trend_of"]


@dataclass(frozen=True, slots=True)
class Load:
    """Means over the window. `pods`: that answered; `running`, `waiting`: requests in each; `use`: share of the load that an
    engine bears which it has, more than 1 where requests wait; None where the engine does not tell."""

    pods: float
    running: float | None
    waiting: float | None
    kv_cache_usage: float | None
    use: float | None

    @property
    def each(self) -> float | None:
        """Requests in flight for each pod."""
        return None if self.running is None else self.running + (self.waiting or 0.0)

    @property
    def in_flight(self) -> float | None:
        """Requests in flight in all pods."""
        return None if self.each is None else self.each * self.pods


@dataclass(frozen=True, slots=True)
class Trend:
    """`growth`: requests that come, as a multiple of those that end; 1 where nothing but chance is seen. `before`: the load
    before it grew."""

    growth: float = 1.0
    per_minute: float = 0.0
    before: Load | None = None

    @property
    def is_rising(self) -> bool:
        """Whether more come than end."""
        return self.growth > 1

    def ahead(self, value: float | None, pods: float) -> float:
        """What a load for each pod (`value` of `before`) becomes with as many pods as there are now."""
        if value is None or self.before is None:
            return 0.0
        return value * self.before.pods / pods * self.growth


def in_flight(sample: Sample) -> float | None:
    """Requests in the pods: running, and waiting where the engine tells."""
    return None if sample.running is None else sample.running + (sample.waiting or 0.0)


def load_of(samples: Sequence[Sample], tuning: Tuning) -> Load:
    """The load of each pod over these samples (at least one)."""
    pods = sum(sample.answered for sample in samples) / len(samples)
    running = mean_of(samples, lambda sample: None if sample.running is None else sample.running / sample.answered)
    waiting = mean_of(samples, lambda sample: None if sample.waiting is None else sample.waiting / sample.answered)
    usage = mean_of(samples, lambda sample: sample.kv_cache_usage)
    return Load(pods, running, waiting, usage, _use(running, waiting, usage, tuning))


def _use(running: float | None, waiting: float | None, usage: float | None, tuning: Tuning) -> float | None:
    """The load grows slower than the cache fills: the more requests are in a batch, the longer each stays. What an engine with the
    share f of its cache bears is as f / (1 + k f), with k the time of a full batch's steps beyond that of an empty one's."""
    if usage is None or running is None:
        return None
    queue = 0.0 if waiting is None or waiting < 1 else waiting / max(running, 1.0)
    # Where a tenth waits, the engine is full, by another bound than the cache if that is not.
    full = min(max(usage, 1.0 if queue > 0.1 else 0.0), 1.0)
    use = full * (1 + tuning.crowding) / (1 + tuning.crowding * full)
    return min(use * (1 + queue), tuning.cap)


def trend_of(samples: Sequence[Sample], horizon_s: float, tuning: Tuning) -> Trend:
    """How much more comes than ends, by the slope of the requests in flight (least squares over the last seconds).

    Their number grows after a step of the load until as many end as come: by Little's law to what it was, times what comes by what ends.
    Requests come by chance, so their number scatters by its root: only a rise that is well beyond that counts."""
    if not samples:
        return Trend()
    newest = samples[-1].at
    recent = [
        one
        for one in samples
        if (newest - one.at).total_seconds() <= tuning.trend_s and one.answered == one.asked and one.running is not None
    ]
    points = [((one.at - newest).total_seconds(), in_flight(one) or 0.0) for one in recent]
    if len(points) < 3 or points[-1][0] - points[0][0] < 10:
        return Trend()
    slope = _slope(points)
    now = max(points[-1][1], 1.0)
    if slope * (points[-1][0] - points[0][0]) <= tuning.noise * math.sqrt(now):
        return Trend()
    before = load_of(recent[: (len(recent) + 1) // 2], tuning)
    ending = _ending_per_s(recent)
    growth = 1 + (slope / ending if ending else slope * horizon_s / now)
    return Trend(min(growth, tuning.cap), slope * 60, before)


def _ending_per_s(samples: Sequence[Sample]) -> float | None:
    """Requests that end each second: of the measure that counted fewest, since some are counted with the first token already."""
    counts: dict[Measure, float] = {}
    for sample in samples:
        for measure, times in sample.times.items():
            if sample.over_s > 0:
                counts[measure] = counts.get(measure, 0.0) + times.total / sample.over_s
    return min(counts.values()) / len(samples) if counts else None


def _slope(points: Sequence[tuple[float, float]]) -> float:
    middle = sum(x for x, _ in points) / len(points)
    mean = sum(y for _, y in points) / len(points)
    spread = sum((x - middle) ** 2 for x, _ in points)
    return sum((x - middle) * (y - mean) for x, y in points) / spread if spread > 0 else 0.0
