"""Signals that are missing, old, partial, few or mad, and clocks that jump: nothing is taken away for them."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.scaling.situations import (
    BOUNDS,
    NOW,
    TTFT,
    ago,
    decided,
    looks,
    policy,
    recommended,
    sample,
    situation,
)

from fairlead.api.conditions import Reason
from fairlead.facts.scaling import Distribution, Measure
from fairlead.scaling.decision import Change

IDLE = sample(ttft=0.2, requests=0, running=0)
QUIET = sample(ttft=0.2, running=2)
SLOW = sample(ttft=2.0, running=8)


NAN = replace(sample(), times={TTFT: Distribution(BOUNDS, (math.nan,) * (len(BOUNDS) + 1))})


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ((), Reason.SIGNALS_MISSING),
        (looks(QUIET, until_s=100), Reason.SIGNALS_STALE),
        (looks(QUIET, until_s=20, every_s=5), Reason.SIGNALS_STALE),
        ((*looks(QUIET, until_s=5), replace(QUIET, at=NOW, problem="Prometheus: 502")), Reason.SIGNALS_MISSING),
        ((*looks(QUIET, until_s=5), replace(QUIET, at=NOW, answered=1)), Reason.SIGNALS_PARTIAL),
        ((*looks(QUIET, until_s=5), replace(QUIET, at=NOW, answered=0)), Reason.SIGNALS_MISSING),
        ((*looks(QUIET, until_s=5), replace(NAN, at=NOW)), Reason.SIGNALS_MISSING),
        (looks(replace(QUIET, running=math.nan)), Reason.SIGNALS_MISSING),
        (looks(replace(QUIET, running=-1)), Reason.SIGNALS_MISSING),
        (looks(replace(QUIET, kv_cache_usage=math.inf)), Reason.SIGNALS_MISSING),
        (
            (*looks(QUIET, until_s=25), replace(QUIET, at=ago(20), answered=1), *looks(QUIET, 15)),
            Reason.SIGNALS_PARTIAL,
        ),
        (looks(replace(QUIET, times={})), Reason.SIGNALS_MISSING),
        (looks(QUIET, 500, until_s=-100)[-10:], Reason.SIGNALS_STALE),
        (looks(QUIET, 400, until_s=-100), Reason.SIGNALS_STALE),
    ],
    ids=[
        "nothing",
        "old",
        "four intervals old",
        "a problem",
        "one pod silent",
        "all silent",
        "NaN times",
        "NaN running",
        "less than none",
        "infinite",
        "one pod was silent of late",
        "the measure is missing",
        "all of the future",
        "some of the future",
    ],
)
def test_what_is_doubtful_takes_nothing_away(samples: object, reason: Reason) -> None:
    case = situation(2, samples, recommendations=recommended(1))  # type: ignore[arg-type]
    decision = decided(policy(), case)
    assert (decision.replicas, decision.reason) == (2, reason)
    assert decision.recommended is None


def test_partial_signals_may_add() -> None:
    slow = looks(replace(SLOW, answered=1))
    assert decided(policy(), situation(2, slow)).replicas > 2


def test_one_unknown_target_holds_down_while_another_goes_up() -> None:
    wanted = policy(targets={TTFT: 1.0, Measure.KV_CACHE_USAGE: 80})
    held = decided(wanted, situation(2, looks(QUIET), recommendations=recommended(1)))
    assert (held.replicas, held.reason) == (2, Reason.SIGNALS_MISSING)
    assert "KV cache" in held.message
    assert decided(wanted, situation(2, looks(SLOW))).replicas > 2


def test_few_requests_are_chance() -> None:
    few = looks(sample(ttft=4.0, requests=0.1, running=5))
    decision = decided(policy(), situation(2, few, recommendations=recommended(1)))
    assert (decision.replicas, decision.reason, decision.is_healthy) == (2, Reason.TOO_FEW_REQUESTS, True)
    assert "too few to judge" in decision.message


def test_few_requests_that_leave_pods_idle_take_them_away() -> None:
    few = looks(sample(pods=4, ttft=0.2, requests=0.1, running=0.2))
    decision = decided(policy(), situation(4, few, recommendations=recommended(1)))
    assert (decision.replicas, decision.reason) == (3, Reason.SCALED_DOWN)


def test_few_requests_in_a_window_are_looked_for_farther_back() -> None:
    few = looks(sample(ttft=4.0, requests=0.5, running=5))
    assert "in 90 s" not in decided(policy(), situation(2, few)).message
    assert decided(policy(), situation(2, few)).replicas > 2


def test_an_engine_that_hangs_is_not_idle() -> None:
    stuck = looks(sample(ttft=0.2, requests=0, running=3))
    decision = decided(policy(), situation(2, stuck, recommendations=recommended(1)))
    assert (decision.replicas, decision.reason) == (2, Reason.TOO_FEW_REQUESTS)


class TestClocks:
    """Clocks that jump neither crash nor take anything away."""

    def test_changes_of_the_future_limit_as_if_they_were_now(self) -> None:
        case = situation(6, looks(replace(SLOW, asked=6, answered=6)), changes=(Change(ago(-600), 2, 6),))
        assert decided(policy(1, 40), case).replicas == 6
        down = situation(4, looks(replace(QUIET, asked=4, answered=4)), recommendations=recommended(3))
        assert decided(policy(), replace(down, changes=(Change(ago(-600), 5, 4),))).replicas == 4

    def test_recommendations_of_the_future_hold(self) -> None:
        future = tuple(replace(one, at=one.at + timedelta(hours=1), replicas=9) for one in recommended(3))
        case = situation(4, looks(replace(QUIET, asked=4, answered=4)), recommendations=(*recommended(3), *future))
        assert decided(policy(), case).replicas == 4

    def test_a_clock_that_was_set_back_is_not_idle(self) -> None:
        assert decided(policy(0), situation(1, looks(IDLE, 400, until_s=-60))).replicas == 1


def test_few_pods_that_hang_are_not_taken_for_idle_ones() -> None:
    stuck = looks(sample(pods=4, ttft=0.2, requests=0, running=1))
    assert decided(policy(), situation(4, stuck, recommendations=recommended(1))).replicas == 4


@pytest.mark.parametrize(
    "spoil",
    [{"answered": 1}, {"answered": 0}, {"problem": "Prometheus: 502"}, {"running": math.nan}],
    ids=["one silent", "all silent", "a problem", "NaN"],
)
def test_one_look_that_fails_is_no_news_and_half_a_minute_is(spoil: dict) -> None:
    bad = replace(QUIET, **spoil)
    once = decided(policy(), situation(2, (*looks(QUIET, until_s=5), replace(bad, at=NOW))))
    assert once.is_healthy
    assert once.reason in {Reason.SIGNALS_MISSING, Reason.SIGNALS_PARTIAL}
    lasting = decided(policy(), situation(2, (*looks(QUIET, until_s=40), *looks(bad, 35))))
    assert (lasting.reason, lasting.is_healthy) == (once.reason, False)


def test_before_the_first_two_looks_nothing_is_wrong() -> None:
    """After a start of the operator, too: times are what happened between two looks."""
    none = decided(policy(), situation(2, ()))
    assert (none.replicas, none.reason, none.is_healthy) == (2, Reason.SIGNALS_MISSING, True)
    first = decided(policy(), situation(2, (replace(QUIET, times={}, over_s=0),)))
    assert (first.replicas, first.reason, first.is_healthy) == (2, Reason.SIGNALS_MISSING, True)
    second = decided(policy(), situation(2, (replace(QUIET, times={}, over_s=5),)))
    assert (second.reason, second.is_healthy) == (Reason.SIGNALS_MISSING, False)
