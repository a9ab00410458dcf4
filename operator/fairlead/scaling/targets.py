"""What each target asks for: how many replicas at least, and how few would do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fairlead.api.conditions import Reason
from fairlead.facts.scaling import TIMES, Distribution, Measure, Sample
from fairlead.scaling.load import Load, Trend
from fairlead.scaling.signals import Trouble, quantile, times_of
from fairlead.scaling.tuning import Tuning

__all__ = ["Ask", "Look", "ask_for", "knee_of"]

NAMES = {
    Measure.TIME_TO_FIRST_TOKEN: "time to first token",
    Measure.LATENCY: "latency",
    Measure.OUTPUT_TOKEN_LATENCY: "time per output token",
    Measure.QUEUED_REQUESTS: "queued requests",
    Measure.RUNNING_REQUESTS: "running requests",
    Measure.KV_CACHE_USAGE: "KV cache",
}


#: For `Ask.at_fewest`: as many as there are, those that load too.
STAY: Final = 10**9


@dataclass(frozen=True, slots=True)
class Look:
    """What is judged: samples since the number of ready pods changed last, and what they say of the load. `bearable`: requests in flight
    for each replica that it is known to bear, None where no lesson was learned. `is_settled`: enough is measured since that
    change. `caution`: 1, and less after replicas were taken away and came back: it lowers the thresholds of going down."""

    samples: tuple[Sample, ...]
    load: Load
    trend: Trend
    bearable: float | None
    is_settled: bool = True
    window_s: float = 45.0
    caution: float = 1.0

    @property
    def pods(self) -> int:
        """Ready pods of the samples."""
        return self.samples[-1].asked


@dataclass(frozen=True, slots=True)
class Ask:
    """`ratio`: measured as a multiple of the target, None where that is not known. `at_least`: replicas that are needed, 0 where it asks
    for none. `at_fewest`: with how many it would still be met, STAY: not with fewer; None: that is not known. `value`: for status."""

    ratio: float | None
    at_least: int
    at_fewest: int | None
    text: str
    value: str
    trouble: Trouble | None = None


def ask_for(measure: Measure, target: float, look: Look, tuning: Tuning) -> Ask:
    """What one target of the user's asks for."""
    if measure in TIMES:
        return _ask_of_times(measure, target, look, tuning)
    value = _gauge(measure, look.load)
    if value is None or target <= 0:
        text = f"the engine tells nothing of {NAMES[measure]}"
        return Ask(None, 0, None, text, "unknown", Trouble(Reason.SIGNALS_MISSING, text, stops_all=False))
    return _ask_of_load(measure, value, target, look, tuning)


def knee_of(look: Look, tuning: Tuning) -> Ask | None:
    """What the use of the engines asks for, so that targets of time are not missed in the first place; None where it is not known."""
    use = look.load.use
    if use is None:
        return None
    pods = look.load.pods
    text = f"engines have {use:.0%} of the load that they bear (KV cache {look.load.kv_cache_usage or 0:.0%})"
    text += _queue_words(look.load)
    needed = 0
    if use > tuning.knee_up:
        needed = max(math.ceil(pods * use / tuning.knee_aim), look.pods + 1)
    ahead = min(look.trend.ahead(look.trend.before.use, pods), tuning.most_growth) if look.trend.before else 0.0
    if ahead > tuning.trend_up:
        needed = max(needed, math.ceil(pods * ahead / tuning.trend_up))
        text += f", {ahead:.0%} soon ({look.trend.per_minute:+.0f} requests a minute)"
    by_use = math.ceil(pods * use / (tuning.knee_down * look.caution) - 1e-9)
    fewest = STAY if look.trend.is_rising else max(by_use, _by_lesson(look), 1)
    return Ask(max(use, ahead), needed, fewest, text, f"{use:.0%}")


def _ask_of_times(measure: Measure, target: float, look: Look, tuning: Tuning) -> Ask:
    found = _enough(look.samples, measure, look.window_s, tuning)
    name = NAMES[measure]
    if found is None:
        text = f"nothing is known of {name}"
        # A first look, after which times are what happened since.
        is_first = look.samples[-1].over_s <= 0
        trouble = Trouble(Reason.SIGNALS_MISSING, text, stops_all=False, is_lasting=not is_first)
        return Ask(None, 0, None, text, "unknown", trouble)
    times, covered = found
    if times.total < tuning.few:
        return _ask_of_few(name, times, covered, look, tuning)
    measured = quantile(times, tuning.quantile)
    ratio = measured / target
    beyond = "more than " if measured >= times.bounds[-1] else ""
    text = (
        f"{name} P{tuning.quantile * 100:.0f} {beyond}{_time(measured)} of {_time(target)} "
        f"over {times.total:.0f} requests in {covered:.0f} s"
    )
    value = f"{_time(measured)} of {_time(target)}"
    if not look.is_settled:
        return Ask(ratio, 0, None, text, value)
    busy = look.load.each
    if ratio > 1 and busy is not None and busy <= tuning.idle_load:
        words = f"{text}, though each replica has {busy:.1f} requests at a time: more replicas would make none faster"
        return Ask(ratio, 0, None, text, value, Trouble(Reason.TARGETS_OUT_OF_REACH, words, stops_all=False))
    return Ask(ratio, _needed(ratio, look, tuning), _fewest(ratio, look, tuning), text, value)


def _enough(
    samples: Sequence[Sample], measure: Measure, window_s: float, tuning: Tuning
) -> tuple[Distribution, float] | None:
    """Times over the window, and farther back where there are too few in it."""
    found = times_of(samples, measure, window_s)
    while found is not None and found[0].total < tuning.few and window_s < tuning.extended_s:
        window_s = min(window_s * 2, tuning.extended_s)
        found = times_of(samples, measure, window_s)
    return found


def _ask_of_few(name: str, times: Distribution, covered: float, look: Look, tuning: Tuning) -> Ask:
    """Few requests: their quantile is chance. It goes down only where the pods are nearly idle, and as far as they stay so."""
    text = f"{name}: {_count(times.total, 'request')} in {covered:.0f} s, too few to judge"
    value = f"{times.total:.0f} requests"
    load = look.load
    if load.running is None:
        none_came = times.total == 0 and covered >= tuning.extended_s * 0.9
        fewest = 1 if none_came else None
    else:
        total = load.in_flight or 0.0
        waits = (load.waiting or 0.0) > 0
        fewest = None if waits else max(math.ceil(total / tuning.idle_load - 1e-9), 1)
        if fewest is not None and fewest >= look.pods > 1:
            fewest = None
        if times.total == 0 and total > 0:
            fewest = None  # nothing ends: long answers, or an engine that hangs
    trouble = None
    if fewest is None or times.total > 0:
        # Soon after the number of pods changed, it is too early rather than too few.
        reason = Reason.TOO_FEW_REQUESTS if covered >= tuning.extended_s * 0.9 else Reason.STABILIZING
        trouble = Trouble(reason, text, stops_all=False)
    return Ask(0.0 if times.total == 0 else None, 0, fewest, text, value, trouble)


def _needed(ratio: float, look: Look, tuning: Tuning) -> int:
    pods = look.load.pods
    if look.load.use is not None:
        if ratio <= 1:
            return 0
        return max(math.ceil(pods * look.load.use / tuning.knee_aim), look.pods + 1)
    if ratio <= tuning.latency_up:
        return 0
    return max(math.ceil(pods * min(ratio, tuning.cap) / tuning.latency_up), look.pods + 1)


def _fewest(ratio: float, look: Look, tuning: Tuning) -> int:
    if ratio > tuning.latency_safe or look.trend.is_rising:
        return STAY
    if look.load.use is not None:
        return 1  # how much load the engines would have decides
    by_time = math.ceil(look.pods * ratio / (tuning.latency_down * look.caution) - 1e-9)
    by_lesson = _by_lesson(look)
    return STAY if by_time >= look.pods else max(by_time, by_lesson, 1)


def _by_lesson(look: Look) -> int:
    """With how many replicas the load stays below what was too much before; one fewer than now where the load is not known."""
    if look.load.in_flight is None:
        return look.pods - 1
    if look.bearable is None:
        return 0
    return math.ceil(look.load.in_flight / max(look.bearable, 1e-9) - 1e-9)


def _ask_of_load(measure: Measure, value: float, target: float, look: Look, tuning: Tuning) -> Ask:
    pods = look.load.pods
    ratio = value / target
    asked = min(ratio, tuning.cap) if measure is Measure.QUEUED_REQUESTS else ratio
    if measure is Measure.RUNNING_REQUESTS and look.trend.before is not None:
        asked = max(ratio, look.trend.ahead(look.trend.before.running, pods) / target)
    text = f"{NAMES[measure]} {_load(measure, value)} of {_load(measure, target)} per replica"
    needed = 0
    if asked > 1 + tuning.tolerance:
        needed = max(math.ceil(pods * asked - 1e-9), look.pods + 1)
    short = f"{_load(measure, value)} of {_load(measure, target)}"
    return Ask(ratio, needed, _fewest_of_load(measure, ratio, look, tuning), text, short)


def _fewest_of_load(measure: Measure, ratio: float, look: Look, tuning: Tuning) -> int:
    pods = look.load.pods
    if look.trend.is_rising:
        return STAY
    if measure is Measure.QUEUED_REQUESTS:
        # An empty queue does not say how few would do: one by one, by what else is known.
        if ratio > tuning.queue_down:
            return STAY
        by_use = (
            0 if look.load.use is None else math.ceil(pods * look.load.use / (tuning.knee_down * look.caution) - 1e-9)
        )
        return max(by_use, _by_lesson(look), look.pods - 1, 1)
    share = (1 - tuning.tolerance) * look.caution
    if measure is Measure.KV_CACHE_USAGE:  # which fills faster than the load grows
        share *= 1 - tuning.tolerance
    return max(math.ceil(pods * ratio / share - 1e-9), 1)


def _gauge(measure: Measure, load: Load) -> float | None:
    if measure is Measure.QUEUED_REQUESTS:
        return load.waiting
    if measure is Measure.RUNNING_REQUESTS:
        return load.running
    return None if load.kv_cache_usage is None else load.kv_cache_usage * 100


def _queue_words(load: Load) -> str:
    return f", {load.waiting:.0f} requests wait per replica" if load.waiting is not None and load.waiting >= 1 else ""


def _count(number: float, noun: str) -> str:
    return f"{number:.0f} {noun}{'' if round(number) == 1 else 's'}"


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{seconds * 1000:.3g} ms"


def _load(measure: Measure, value: float) -> str:
    return f"{value:.0f}%" if measure is Measure.KV_CACHE_USAGE else f"{value:.3g}"
