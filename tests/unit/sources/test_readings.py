"""Two readings of pods and what is between them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.facts.scaling import Distribution, Measure
from fairlead.sources.readings import Cumulative, Look, Reading, add_distributions, count_since, make_sample

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TTFT, LATENCY = Measure.TIME_TO_FIRST_TOKEN, Measure.LATENCY


def cumulative(*counts: float, total: float, bounds: tuple[float, ...] = (0.5, 1.0)) -> Cumulative:
    return Cumulative(bounds, counts, total)


def told(at: float, total: float | None = None, **more: float) -> Reading:
    times = {TTFT: cumulative(0, total, total=total)} if total is not None else {}
    return Reading(at, times, **more)


def test_counts_between_two_readings_are_of_each_bucket_alone() -> None:
    before, now = cumulative(1, 3, total=4), cumulative(2, 6, total=9)
    assert count_since(now, before) == Distribution((0.5, 1.0), (1, 2, 2))


def test_nothing_is_said_of_a_pod_that_is_new_or_has_other_buckets() -> None:
    now = cumulative(1, 3, total=4)
    assert count_since(now, None) is None
    assert count_since(now, cumulative(1, total=1, bounds=(0.5,))) is None


@pytest.mark.parametrize(
    "before",
    [cumulative(9, 9, total=9), cumulative(2, 2, total=2), cumulative(1, 1, total=4)],
    ids=["all", "one", "moved"],
)
def test_counts_that_went_down_are_of_another_process(before: Cumulative) -> None:
    assert count_since(cumulative(1, 3, total=4), before) is None


@given(st.lists(st.integers(0, 50), min_size=3, max_size=3), st.lists(st.integers(0, 50), min_size=3, max_size=3))
def test_no_count_is_ever_negative(new: list[int], old: list[int]) -> None:
    def pile(raw: list[int]) -> Cumulative:
        return cumulative(raw[0], sum(raw[:2]), total=sum(raw))

    since = count_since(pile(new), pile(old))
    risen = [after - before for after, before in zip(new, old, strict=True)]
    assert since == (Distribution((0.5, 1.0), tuple(risen)) if min(risen) >= 0 else None)


def test_equal_numbers_of_many_pods_and_looks_are_kept_once() -> None:
    looks = [
        Look(Reading(5.0, {TTFT: cumulative(7, 7, total=7)}), Reading(0.0, {TTFT: cumulative(7, 7, total=7)}))
        for _ in range(2)
    ]
    one, other, both = (make_sample(some, NOW).times[TTFT] for some in (looks[:1], looks[1:], looks))
    assert one is other is both


def test_pods_with_equal_bounds_are_added_up() -> None:
    one, other = Distribution((1.0,), (2, 3)), Distribution((1.0,), (5, 7))
    assert add_distributions([one, other]) == Distribution((1.0,), (7, 10))


def test_pods_with_other_bounds_are_added_up_at_those_that_all_have() -> None:
    fine, coarse = Distribution((0.5, 1.0, 2.0), (1, 2, 3, 4)), Distribution((1.0, 5.0), (10, 20, 30))
    assert add_distributions([fine, coarse]) == Distribution((1.0,), (13, 57))
    assert add_distributions([fine, Distribution((7.0,), (1, 1))]) is None
    assert add_distributions([]) is None


def test_a_sample_of_two_pods() -> None:
    looks = [
        Look(told(105.0, 7, running=2, waiting=1, kv_cache_usage=0.2), told(100.0, 4)),
        Look(told(105.1, 5, running=3, waiting=0, kv_cache_usage=0.6), told(99.0, 5)),
    ]
    sample = make_sample(looks, NOW)
    assert sample.times == {TTFT: Distribution((0.5, 1.0), (0, 3, 0))}
    assert (sample.asked, sample.answered, sample.problem, sample.failures) == (2, 2, "", ())
    assert (sample.running, sample.waiting, sample.kv_cache_usage) == (5, 1, 0.4)
    assert sample.over_s == pytest.approx(6.1)


def test_a_new_pod_tells_its_gauges_and_no_times() -> None:
    sample = make_sample([Look(told(5.0, 7, running=2))], NOW)
    assert (sample.times, sample.over_s, sample.running, sample.answered) == ({}, 0.0, 2, 1)


def test_no_requests_is_not_the_same_as_not_known() -> None:
    sample = make_sample([Look(told(5.0, 7), told(0.0, 7))], NOW)
    assert sample.times[TTFT].total == 0
    assert LATENCY not in sample.times


def test_a_pod_that_does_not_answer_is_told_of_and_counts_as_asked() -> None:
    sample = make_sample([Look(told(5.0, running=1)), Look(None, failure="m-2: no answer within 2 s")], NOW)
    assert (sample.asked, sample.answered, sample.problem) == (2, 1, "")
    assert sample.failures == ("m-2: no answer within 2 s",)


def test_if_nobody_answers_the_look_is_doubtful() -> None:
    sample = make_sample([Look(None, failure=f"m-{n}: refused") for n in range(5)], NOW)
    assert (sample.asked, sample.answered, sample.running, sample.waiting) == (5, 0, None, None)
    assert sample.problem == "none of 5 pods told anything: m-0: refused"
    assert len(sample.failures) == 3


def test_pods_without_a_common_bucket_are_a_problem() -> None:
    def look(bound: float) -> Look:
        then = Reading(0.0, {TTFT: Cumulative((bound,), (0,), 0)})
        return Look(Reading(5.0, {TTFT: Cumulative((bound,), (1,), 1)}), then)

    sample = make_sample([look(1.0), look(2.0)], NOW)
    assert sample.times == {}
    assert sample.problem == "the pods' histograms of timeToFirstToken have no bucket in common"
