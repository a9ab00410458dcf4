"""What samples say: which of them count, what is wrong with them, quantiles over a window."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from statistics import median

from fairlead.api.conditions import Reason
from fairlead.facts.scaling import Distribution, Measure, Sample
from fairlead.scaling.tuning import Tuning

__all__ = [
    "Looks",
    "Trouble",
    "interval_s",
    "is_usable",
    "look_back",
    "mean_of",
    "merged",
    "quantile",
    "times_of",
]

#: Clocks of different machines may differ by this much.
CLOCK_S = 5.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why samples do not suffice. `stops_all`: not even to go up. `is_lasting`: it is more than one look that failed, or the first one
    that is still to come."""

    reason: Reason
    message: str
    stops_all: bool = True
    is_lasting: bool = True


@dataclass(frozen=True, slots=True)
class Looks:
    """Samples that can be used, oldest first; `trouble`: what is wrong with the newest one or with time."""

    usable: tuple[Sample, ...]
    interval_s: float
    trouble: Trouble | None = None

    @property
    def newest(self) -> Sample:
        """The last one; there must be one."""
        return self.usable[-1]


def interval_s(samples: Sequence[Sample]) -> float:
    """Seconds from look to look, as they were of late."""
    steps = [(after.at - before.at).total_seconds() for before, after in pairwise(samples[-9:])]
    steps = [step for step in steps if step > 0]
    return median(steps) if steps else 15.0


def look_back(samples: Sequence[Sample], now: datetime, tuning: Tuning) -> Looks:
    """Sort out what cannot be used, and say what is wrong with the newest look."""
    known = sorted((sample for sample in samples if _age_s(sample, now) >= -CLOCK_S), key=lambda sample: sample.at)
    ahead = len(samples) - len(known)
    step = interval_s(known)
    usable = tuple(sample for sample in known if is_usable(sample))
    trouble = _trouble(known, ahead, now, step, tuning)
    if trouble is not None and trouble.reason is not Reason.SIGNALS_STALE:
        whole = [one for one in usable if one.answered == one.asked]
        is_recent = bool(whole) and _age_s(whole[-1], now) <= max(3 * step, tuning.gap_s)
        trouble = replace(trouble, is_lasting=bool(known) and not is_recent)
    return Looks(usable, step, trouble)


def _first_of(failures: Sequence[str]) -> str:
    return f" ({failures[0]})" if failures else ""


def _trouble(known: Sequence[Sample], ahead: int, now: datetime, step: float, tuning: Tuning) -> Trouble | None:
    if not known:
        if ahead:
            return Trouble(
                Reason.SIGNALS_STALE, f"all {ahead} samples are of the future: a clock was set back, or clocks differ"
            )
        return Trouble(Reason.SIGNALS_MISSING, "nothing has been measured yet")
    newest = known[-1]
    age = _age_s(newest, now)
    bound = min(max(3 * step, 15.0), tuning.stale_s)
    if age > bound:
        return Trouble(Reason.SIGNALS_STALE, f"the newest sample is {age:.0f} s old, more than {bound:.0f} s")
    if newest.problem:
        return Trouble(Reason.SIGNALS_MISSING, newest.problem)
    if not newest.answered:
        return Trouble(
            Reason.SIGNALS_MISSING, f"none of {newest.asked} ready pods told anything{_first_of(newest.failures)}"
        )
    if not _is_sound(newest):
        return Trouble(Reason.SIGNALS_MISSING, "what was measured is not a number, or less than nothing")
    if newest.answered < newest.asked:
        message = f"only {newest.answered} of {newest.asked} ready pods told anything{_first_of(newest.failures)}"
        return Trouble(Reason.SIGNALS_PARTIAL, message, stops_all=False)
    if ahead:
        return Trouble(Reason.SIGNALS_STALE, f"{ahead} samples are of the future: clocks differ", stops_all=False)
    return None


def is_usable(sample: Sample) -> bool:
    """Whether anything can be read from it."""
    return not sample.problem and sample.answered > 0 and _is_sound(sample)


def _age_s(sample: Sample, now: datetime) -> float:
    return (now - sample.at).total_seconds()


def _is_sound(sample: Sample) -> bool:
    gauges = [value for value in (sample.running, sample.waiting, sample.kv_cache_usage) if value is not None]
    if not all(math.isfinite(value) and value >= 0 for value in gauges):
        return False
    return all(_is_sound_distribution(times) for times in sample.times.values())


def _is_sound_distribution(times: Distribution) -> bool:
    # A sum is finite only if all of it is, and then comparisons mean something.
    return (
        len(times.counts) == len(times.bounds) + 1
        and math.isfinite(times.total)
        and min(times.counts) >= 0
        and _are_sound_bounds(times.bounds)
    )


@lru_cache(maxsize=64)
def _are_sound_bounds(bounds: tuple[float, ...]) -> bool:
    """Finite, and each higher than the one before; all pods of an engine have the same."""
    return bool(bounds) and math.isfinite(sum(bounds)) and all(lower < upper for lower, upper in pairwise(bounds))


def times_of(samples: Sequence[Sample], measure: Measure, seconds: float) -> tuple[Distribution, float] | None:
    """What the newest samples of at least `seconds` say of times, and how many seconds that is. Samples that overlap count once.

    None where the newest does not tell of this measure. What has other buckets than the newest is left out.
    """
    newest = samples[-1].times.get(measure) if samples else None
    if newest is None:
        return None
    parts = [newest]
    begin = samples[-1].at
    covered = max(samples[-1].over_s, 0.0)
    for sample in reversed(samples[:-1]):
        if covered >= seconds:
            break
        if (begin - sample.at).total_seconds() < covered - sample.over_s / 4:
            continue  # of a time that is covered already
        times = sample.times.get(measure)
        if times is None or times.bounds != newest.bounds:
            break
        parts.append(times)
        covered = (begin - sample.at).total_seconds() + sample.over_s
    return merged(parts), covered


def merged(parts: Sequence[Distribution]) -> Distribution:
    """One distribution of several with the same buckets."""
    return Distribution(parts[0].bounds, tuple(map(sum, zip(*(part.counts for part in parts), strict=True))))


def quantile(times: Distribution, share: float) -> float:
    """The time that `share` of the requests kept, linear within a bucket as Prometheus does it; the last bound for what is beyond it."""
    wanted = times.total * share
    below = 0.0
    lower = 0.0
    for bound, count in zip(times.bounds, times.counts, strict=False):
        if count > 0 and below + count >= wanted:
            return lower + (bound - lower) * max(wanted - below, 0.0) / count
        below += count
        lower = bound
    return times.bounds[-1]


def mean_of(samples: Sequence[Sample], value: Callable[[Sample], float | None]) -> float | None:
    """The mean of a gauge over samples, weighing each alike; None where any does not tell."""
    values = [value(sample) for sample in samples]
    told = [number for number in values if number is not None]
    return sum(told) / len(told) if values and len(told) == len(values) else None
