"""What pods told, and the difference of two of it: a sample. Pods count since their start, samples between two looks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from fairlead.facts.scaling import TIMES, Distribution, Measure, Sample

__all__ = [
    "Cumulative",
    "Look",
    "Reading",
    "add_distributions",
    "count_since",
    "make_sample",
    "share_bounds",
    "share_distribution",
]


@dataclass(frozen=True, slots=True)
class Cumulative:
    """A histogram since the start of its process. `counts[i]`: requests that took at most `bounds[i]` seconds; `total`: all."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]
    total: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What one pod told at `at`, seconds of a clock that never goes back. None, or a missing measure: it did not tell."""

    at: float
    times: Mapping[Measure, Cumulative] = field(default_factory=dict)
    running: float | None = None
    waiting: float | None = None
    kv_cache_usage: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing of what was asked for is in it."""
        return not self.times and self.running is None and self.waiting is None and self.kv_cache_usage is None


@dataclass(frozen=True, slots=True)
class Look:
    """One pod's answer, or why there is none. `before`: what it told the last time, None of a pod that is new; `uid`: the pod's."""

    now: Reading | None
    before: Reading | None = None
    failure: str = ""
    uid: str = ""


@lru_cache(maxsize=256)
def share_bounds(bounds: tuple[float, ...]) -> tuple[float, ...]:
    """The same object for equal bounds: all pods of an engine have the same."""
    return bounds


@lru_cache(maxsize=4096)
def share_distribution(bounds: tuple[float, ...], counts: tuple[float, ...]) -> Distribution:
    """The same object for the same numbers: most looks find no request, or few, and are kept for minutes."""
    return Distribution(bounds, counts)


def count_since(now: Cumulative, before: Cumulative | None) -> Distribution | None:
    """What was counted between two readings of a pod, never negative; None: nothing can be said. Where a count went down the process is
    another one (it was started again): like a new pod it tells from its second reading on."""
    if before is None or before.bounds != now.bounds:
        return None
    risen = [new - old for new, old in zip((*now.counts, now.total), (*before.counts, before.total), strict=True)]
    counts = tuple(high - low for high, low in zip(risen, [0.0, *risen], strict=False))
    return share_distribution(now.bounds, counts) if min(counts) >= 0 else None


def add_distributions(distributions: Sequence[Distribution]) -> Distribution | None:
    """Of several pods. Where their bounds differ, as in a rollout of another version, those count that all have: only for these it is
    known how many requests took longer. None: they have none in common, or there are none."""
    if not distributions:
        return None
    common = set(distributions[0].bounds).intersection(*(one.bounds for one in distributions[1:]))
    if not common:
        return None
    bounds = share_bounds(tuple(sorted(common)))
    parts = [one if one.bounds == bounds else _coarsen(one, bounds) for one in distributions]
    if len(parts) == 1:
        return parts[0]
    return share_distribution(bounds, tuple(map(sum, zip(*(part.counts for part in parts), strict=True))))


def _coarsen(fine: Distribution, bounds: tuple[float, ...]) -> Distribution:
    counts, place = [0.0] * (len(bounds) + 1), 0
    for bound, count in zip((*fine.bounds, float("inf")), fine.counts, strict=True):
        while place < len(bounds) and bound > bounds[place]:
            place += 1
        counts[place] += count
    return Distribution(bounds, tuple(counts))


def make_sample(looks: Sequence[Look], at: datetime) -> Sample:
    """What the answers of all ready pods come to."""
    answered = [look for look in looks if look.now is not None and not look.now.is_empty]
    failures = tuple(look.failure for look in looks if look.failure)
    readings = [look.now for look in answered if look.now is not None]
    known = [(look.now, look.before) for look in answered if look.now is not None and look.before is not None]
    problem = f"none of {len(looks)} pods told anything: {failures[0]}" if failures and not answered else ""
    times: dict[Measure, Distribution] = {}
    for measure in TIMES:
        since = [
            count_since(now.times[measure], then.times.get(measure)) for now, then in known if measure in now.times
        ]
        told = [one for one in since if one is not None]
        added = add_distributions(told)
        if added is not None:
            times[measure] = added
        elif told:
            problem = f"the pods' histograms of {measure} have no bucket in common"
    shares = [share for reading in readings if (share := reading.kv_cache_usage) is not None]
    return Sample(
        at=at,
        over_s=max((now.at - then.at for now, then in known), default=0.0),
        asked=len(looks),
        answered=len(answered),
        times=times,
        running=_add(reading.running for reading in readings),
        waiting=_add(reading.waiting for reading in readings),
        kv_cache_usage=sum(shares) / len(shares) if shares else None,
        problem=problem,
        failures=failures[:3],
        busy={look.uid: look.now.running for look in answered if look.now is not None and look.now.running is not None},
    )


def _add(values: Iterable[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return sum(told) if told else None
