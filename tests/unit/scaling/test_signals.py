"""Quantiles and windows over samples."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.scaling.situations import BOUNDS, NOW, TTFT, ago, looks, sample, times

from fairlead.facts.scaling import Distribution
from fairlead.scaling.signals import quantile, times_of


@pytest.mark.parametrize(
    ("counts", "share", "seconds"),
    [
        ((10, 0, 0, 0), 0.5, 0.5),
        ((10, 0, 0, 0), 1.0, 1.0),
        ((5, 5, 0, 0), 0.9, 1.8),
        ((0, 0, 10, 0), 0.9, 3.8),
        ((9, 0, 0, 1), 0.9, 1.0),
        ((5, 0, 0, 5), 0.9, 4.0),
        ((0.5, 0.25, 0.25, 0), 0.75, 2.0),
    ],
)
def test_quantiles_as_prometheus_makes_them(counts: tuple[float, ...], share: float, seconds: float) -> None:
    assert quantile(Distribution((1.0, 2.0, 4.0), counts), share) == pytest.approx(seconds)


def test_samples_that_follow_each_other_are_added_up_to_the_window() -> None:
    found = times_of(looks(sample(requests=2)), TTFT, 45)
    assert found is not None
    assert (found[0].total, found[1]) == (18, 45)


def test_a_sample_that_covers_the_window_is_enough() -> None:
    found = times_of(looks(sample(requests=50, over_s=60), every_s=15), TTFT, 45)
    assert found is not None
    assert (found[0].total, found[1]) == (50, 60)


def test_samples_that_overlap_count_once() -> None:
    found = times_of(looks(sample(requests=10, over_s=30), every_s=15), TTFT, 60)
    assert found is not None
    assert (found[0].total, found[1]) == (20, 60)


def test_other_buckets_end_the_window() -> None:
    old = replace(sample(ago(5)), times={TTFT: Distribution((1.0,), (5.0, 0.0))})
    found = times_of((old, sample(NOW)), TTFT, 45)
    assert found is not None
    assert found[0] == times(0.2)
    assert found[0].bounds == BOUNDS


def test_a_measure_that_the_newest_does_not_tell_is_unknown() -> None:
    assert times_of((sample(ago(5)), sample(NOW, ttft=None)), TTFT, 45) is None
