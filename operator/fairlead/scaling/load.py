"""How full the engines are, and where that goes: what tells of a latency target before it is missed.

An engine batches: times hardly rise until its KV cache is full and requests wait, and then they rise without bound. So a time alone comes
too late, while the share of the KV cache that is used, with what waits, rises with the load."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fairlead.facts.scaling import Measure, Sample
from fairlead.scaling.signals import mean_of
from fairlead.scaling.tuning import Tuning

#: Times that are counted once for each request, when it ends.
WHOLE: Final = (Measure.LATENCY, Measure.OUTPUT_TOKEN_LATENCY)

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
    # Who waits while nobody runs has only just come: an engine takes the first one at once.
    queued = (waiting or 0.0) - max(1.0 - running, 0.0)
    queue = queued / max(running, 1.0) if waiting is not None and waiting >= 1 else 0.0
    # Where a tenth waits, the engine is full, by another bound than the cache if that is not.
    full = min(max(usage, 1.0 if queue > 0.1 else 0.0), 1.0)
    use = full * (1 + tuning.crowding) / (1 + tuning.crowding * full)
    return min(use * (1 + queue), tuning.cap)


def trend_of(samples: Sequence[Sample], interval_s: float, tuning: Tuning) -> Trend:
    """How many more requests come now than came: those that ended lately, and those that there are more in flight.

    What engines then have to do is what they had before, times that. Requests come by chance, so their number scatters by its root: only
    more than that counts. Needs samples of a minute before, of whatever number of pods."""
    whole = [one for one in samples if one.answered == one.asked and one.running is not None]
    if not whole:
        return Trend()
    newest = whole[-1].at
    span_s = max(tuning.trend_s, 2 * interval_s)
    ages = [(newest - one.at).total_seconds() for one in whole]
    lately = [one for one, age in zip(whole, ages, strict=True) if age <= span_s]
    before = [one for one, age in zip(whole, ages, strict=True) if span_s < age <= span_s + tuning.before_s]
    # A request ends later than it comes, so those that end are taken as much later.
    ended = [one for one, age in zip(whole, ages, strict=True) if age <= tuning.before_s]
    if len(lately) < 3 or len(before) < 2:
        return Trend()
    seconds = (lately[-1].at - lately[0].at).total_seconds()
    usual = (ended_per_s(ended) or 0.0) * seconds
    more = _slope([((one.at - newest).total_seconds(), _unended(one)) for one in lately]) * seconds
    came = (ended_per_s(lately) or 0.0) * seconds + more
    # Where those that end are counted over longer, what ends by chance counts as chance, too.
    chance = usual * (2 if lately[-1].over_s > seconds else 1)
    if came - usual <= tuning.noise * math.sqrt(max(chance, 1.0)) or more <= 0:
        return Trend()
    growth = min(came / max(usual, 1.0), tuning.most_growth)
    return Trend(growth, more / seconds * 60, load_of(before, tuning))


def ended_per_s(samples: Sequence[Sample]) -> float | None:
    """Requests that end each second, by the times of whole requests; else by their first tokens."""
    rates = [_ended(sample) / sample.over_s for sample in samples if sample.over_s > 0]
    return sum(rates) / len(rates) if rates else None


def _ended(sample: Sample) -> float:
    measure = next((one for one in WHOLE if one in sample.times), Measure.TIME_TO_FIRST_TOKEN)
    return sample.times[measure].total if measure in sample.times else 0.0


def _unended(sample: Sample) -> float:
    """Requests that `_ended` counts later: with first tokens only those that wait."""
    if any(one in sample.times for one in WHOLE):
        return in_flight(sample) or 0.0
    return sample.waiting or 0.0


def _slope(points: Sequence[tuple[float, float]]) -> float:
    middle = sum(x for x, _ in points) / len(points)
    mean = sum(y for _, y in points) / len(points)
    spread = sum((x - middle) ** 2 for x, _ in points)
    return sum((x - middle) * (y - mean) for x, y in points) / spread if spread > 0 else 0.0
