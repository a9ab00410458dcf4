"""Since when nobody asks, over longer than samples are kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from fairlead.facts.scaling import Distribution, Measure, Sample
from fairlead.scaling.zero import follow_idle, idle_for_s

T0 = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
NOBODY = {Measure.LATENCY: Distribution((1.0,), (0.0, 0.0))}


def look(at_s: float, **changes: Any) -> Sample:
    fields: dict[str, Any] = {"asked": 1, "answered": 1, "times": NOBODY, "running": 0.0, "waiting": 0.0} | changes
    return Sample(T0 + timedelta(seconds=at_s), 5.0, **fields)


def followed(*samples: Sample) -> datetime | None:
    since, last = None, None
    for sample in samples:
        since, last = follow_idle(since, last, sample, 15.0), sample
    return since


def test_looks_without_a_request_add_up() -> None:
    samples = [look(5.0 * number) for number in range(200)]
    since = followed(*samples)
    assert since == T0
    assert idle_for_s(samples[-10:], samples[-1].at, 15.0, since) == 995.0
    assert idle_for_s(samples[-10:], samples[-1].at, 15.0) == 45.0


def test_a_request_a_doubt_and_a_gap_begin_it_anew() -> None:
    assert followed(look(0), look(5, running=1.0)) is None
    assert followed(look(0), look(5, times={Measure.LATENCY: Distribution((1.0,), (1.0, 0.0))})) is None
    assert followed(look(0), look(5, answered=0)) is None
    assert followed(look(0), look(5, times={})) is None
    assert followed(look(0), look(5, problem="partial")) is None
    assert followed(look(0), look(5, running=1.0), look(10)) == T0 + timedelta(seconds=10)
    assert followed(look(0), look(60)) == T0 + timedelta(seconds=60)
    assert followed(look(60), look(0)) == T0  # a clock was set back


def test_what_was_before_counts_for_nothing_after_a_request() -> None:
    samples = [look(100, running=1.0), look(105)]
    assert idle_for_s(samples, T0 + timedelta(seconds=105), 15.0, T0) == 0.0
    assert idle_for_s((), T0 + timedelta(seconds=105), 15.0, T0) == 0.0
