"""Stabilisation and limits mean what they mean for a HorizontalPodAutoscaler: its documented examples, and its corner cases."""

from __future__ import annotations

import math

import pytest
from tests.unit.scaling.situations import NOW, ago, policy, recommended

from fairlead.scaling.decision import Behavior, Change, Limit
from fairlead.scaling.pace import covers, limited_down, limited_up, seconds_until_free, stabilized

FOUR_OR_DOUBLE = (Limit(60, pods=4), Limit(60, percent=100))


@pytest.mark.parametrize(
    ("behavior", "replicas", "changes", "most"),
    [
        (Behavior(0), 3, (), math.inf),
        (Behavior(0, is_disabled=True), 3, (), 3),
        (Behavior(0, FOUR_OR_DOUBLE), 3, (), 7),
        (Behavior(0, FOUR_OR_DOUBLE), 10, (), 20),
        (Behavior(0, FOUR_OR_DOUBLE, takes_least=True), 10, (), 14),
        (Behavior(0, (Limit(60, percent=10),)), 3, (), 4),
        (Behavior(0, (Limit(60, pods=4),)), 7, (Change(ago(30), 3, 7),), 7),
        (Behavior(0, (Limit(60, pods=4),)), 7, (Change(ago(60), 3, 7),), 11),
        (Behavior(0, (Limit(60, pods=4),)), 5, (Change(ago(30), 3, 5),), 7),
        (Behavior(0, (Limit(60, pods=4),)), 3, (Change(ago(30), 5, 3),), 9),
        (Behavior(0, (Limit(60, pods=4),)), 9, (Change(ago(30), 3, 9),), 9),
    ],
)
def test_up(behavior: Behavior, replicas: int, changes: tuple[Change, ...], most: float) -> None:
    assert limited_up(behavior, replicas, changes, NOW) == most


@pytest.mark.parametrize(
    ("behavior", "replicas", "changes", "fewest"),
    [
        (Behavior(0), 80, (), 0),
        (Behavior(0, is_disabled=True), 80, (), 80),
        # the example of Kubernetes' documentation: 4 pods or 10 %, whichever is more
        (Behavior(0, (Limit(60, pods=4), Limit(60, percent=10))), 80, (), 72),
        (Behavior(0, (Limit(60, pods=4), Limit(60, percent=10))), 40, (), 36),
        (Behavior(0, (Limit(60, pods=4), Limit(60, percent=10)), takes_least=True), 80, (), 76),
        (Behavior(0, (Limit(60, pods=1),)), 5, (Change(ago(30), 6, 5),), 5),
        (Behavior(0, (Limit(60, pods=1),)), 5, (Change(ago(61), 6, 5),), 4),
        (Behavior(0, (Limit(60, pods=1),)), 7, (Change(ago(30), 5, 7),), 4),
    ],
)
def test_down(behavior: Behavior, replicas: int, changes: tuple[Change, ...], fewest: float) -> None:
    assert limited_down(behavior, replicas, changes, NOW) == fewest


@pytest.mark.parametrize(
    ("up_s", "down_s", "replicas", "wanted", "history", "after"),
    [
        (0, 180, 4, 2, recommended(3), 3),
        (0, 180, 4, 2, recommended(6), 4),
        (0, 180, 4, 2, recommended(1), 2),
        (60, 180, 4, 8, recommended(5), 5),
        (60, 180, 4, 8, recommended(2), 4),
        (0, 180, 4, 8, recommended(2), 8),
        (0, 0, 4, 2, recommended(9), 2),
    ],
)
def test_windows(up_s: float, down_s: float, replicas: int, wanted: int, history: object, after: int) -> None:
    rule = policy(up=Behavior(up_s), down=Behavior(down_s))
    assert stabilized(rule, replicas, wanted, history, NOW) == after  # type: ignore[arg-type]


def test_what_covers_a_window() -> None:
    assert covers(recommended(3, 200), NOW, 180, 30) == 0
    assert covers(recommended(3, 100), NOW, 180, 30) == 80
    assert covers(recommended(3, 200)[:-10], NOW, 180, 30) == 180
    assert covers((), NOW, 180, 30) == 180
    assert covers((), NOW, 0, 30) == 0


def test_when_a_limit_permits_again() -> None:
    assert seconds_until_free(Behavior(0, (Limit(60, pods=1),)), (Change(ago(45), 3, 2),), NOW) == 15
    assert seconds_until_free(Behavior(0, (Limit(60, pods=1),)), (Change(ago(75), 3, 2),), NOW) is None
