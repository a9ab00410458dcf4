"""The control law, case by case."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.scaling.situations import (
    DOWN,
    NOW,
    TTFT,
    UP,
    again,
    ago,
    decided,
    looks,
    policy,
    recommended,
    sample,
    situation,
    times,
)

from fairlead.api.conditions import Reason
from fairlead.facts.scaling import Measure
from fairlead.scaling.decision import Behavior, Change, Limit

IDLE = sample(ttft=0.2, requests=0, running=0)
QUIET = sample(ttft=0.2, running=2)
SLOW = sample(ttft=2.0, running=8)


def test_a_missed_target_adds_replicas_and_says_so_with_numbers() -> None:
    decision = decided(policy(), situation(2, looks(SLOW)))
    assert (decision.replicas, decision.reason) == (5, Reason.SCALED_UP)
    assert decision.message == "time to first token P90 2.35 s of 1 s over 180 requests in 45 s: 2 -> 5 replicas"
    assert decision.inputs["timeToFirstToken"] == "2.35 s of 1 s"


def test_a_met_target_changes_nothing() -> None:
    decision = decided(policy(), situation(2, looks(sample(ttft=0.6))))
    assert (decision.replicas, decision.reason, decision.is_healthy) == (2, Reason.TARGETS_MET, True)


def test_fewer_replicas_when_they_would_do_for_as_long_as_the_window_says() -> None:
    case = situation(4, looks(replace(QUIET, asked=4, answered=4)))
    waits = decided(policy(), case)
    assert (waits.replicas, waits.reason, waits.recommended) == (4, Reason.TARGETS_MET, 3)
    assert "would do" in waits.message
    goes = decided(policy(), replace(case, recommendations=recommended(3)))
    assert (goes.replicas, goes.reason) == (3, Reason.SCALED_DOWN)


@pytest.mark.parametrize(
    "history",
    [
        recommended(3, 100),
        tuple(one for one in recommended(3) if not 60 < (NOW - one.at).total_seconds() < 120),
        (),
    ],
    ids=["too short", "with a gap", "none, after a restart"],
)
def test_a_history_that_does_not_cover_the_window_takes_nothing_away(history: object) -> None:
    case = situation(4, looks(replace(QUIET, asked=4, answered=4)), recommendations=history)
    decision = decided(policy(), case)
    assert (decision.replicas, decision.reason) == (4, Reason.TARGETS_MET)
    assert "3 replicas would do, waiting" in decision.message


def test_the_highest_recommendation_in_the_window_counts() -> None:
    history = (*recommended(3)[:-10], *recommended(4, 50))
    case = situation(5, looks(replace(QUIET, asked=5, answered=5)), recommendations=history)
    assert decided(policy(down=Behavior(180)), case).replicas == 4


def test_the_averages_are_not_waited_for_when_three_samples_miss() -> None:
    calm, sudden = looks(sample(ttft=0.2), until_s=15), looks(sample(ttft=4.0, running=9), 10)
    slowly = Behavior(60, UP.limits)
    two = situation(2, (*calm, *sudden[1:]), recommendations=recommended(2))
    assert decided(policy(up=slowly), two).reason == Reason.STABILIZING
    assert decided(policy(up=slowly), replace(two, samples=(*calm, *sudden))).replicas > 2


def test_an_alert_needs_one_sample_that_misses() -> None:
    calm, slow = looks(sample(ttft=0.2, requests=40), until_s=5), sample(ttft=4.0, running=9)
    case = situation(2, (*calm, slow), is_urgent=True)
    assert decided(policy(), case).replicas > 2
    assert decided(policy(), replace(case, is_urgent=False)).replicas == 2
    assert decided(policy(), situation(2, looks(QUIET), is_urgent=True)).replicas == 2


def test_an_average_waits_for_the_window_of_scale_up() -> None:
    wanted = policy(up=Behavior(60))
    case = situation(2, looks(sample(ttft=0.9, running=8)), recommendations=recommended(2))
    assert decided(wanted, case).reason == Reason.STABILIZING
    assert decided(wanted, replace(case, recommendations=recommended(4))).replicas == 3


def test_limits_look_at_changes() -> None:
    case = situation(6, looks(replace(SLOW, asked=6, answered=6)), changes=(Change(ago(30), 2, 6),))
    decision = decided(policy(20, 40), replace(case, replicas=20, ready=20))
    assert decision.replicas >= 20
    decision = decided(policy(1, 40), case)
    assert (decision.replicas, decision.reason, decision.due_s) == (6, Reason.RATE_LIMITED, 30)


def test_the_maximum_is_told_of() -> None:
    decision = decided(policy(maximum=2), situation(2, looks(SLOW)))
    assert (decision.replicas, decision.reason, decision.is_healthy) == (2, Reason.AT_MAXIMUM, False)
    assert "the maximum is 2" in decision.message
    full = decided(policy(maximum=2), situation(2, looks(sample(ttft=0.2, running=100, kv=0.8))))
    assert (full.reason, full.is_healthy) == (Reason.AT_MAXIMUM, True)  # no target is missed


@pytest.mark.parametrize(("capacity", "replicas"), [(2, 2), (3, 3), (0, 2)])
def test_never_beyond_the_accelerators(capacity: int, replicas: int) -> None:
    decision = decided(policy(), situation(2, looks(SLOW), capacity=capacity))
    assert (decision.replicas, decision.reason, decision.is_healthy) == (replicas, Reason.CAPACITY_BLOCKED, False)
    assert "5 replicas wanted" in decision.message
    assert f"{capacity} is all" in decision.message


@pytest.mark.parametrize("signals", [(), looks(QUIET), looks(SLOW)], ids=["none", "quiet", "slow"])
def test_bounds_hold_whatever_the_signals_say(signals: object) -> None:
    above = decided(policy(maximum=3), situation(5, signals))  # type: ignore[arg-type]
    assert above.replicas == 3
    below = decided(policy(minimum=4, maximum=4), situation(2, signals))  # type: ignore[arg-type]
    assert below.replicas == 4


def test_a_minimum_beyond_the_accelerators_is_blocked() -> None:
    decision = decided(policy(minimum=5), situation(2, looks(QUIET), capacity=3))
    assert (decision.replicas, decision.reason) == (3, Reason.CAPACITY_BLOCKED)


def test_pods_that_load_are_counted_on() -> None:
    slow = looks(SLOW)
    first = decided(policy(), situation(2, slow))
    case = again(policy(), situation(2, slow), first)
    later = decided(policy(), replace(case, now=NOW + timedelta(seconds=5)))
    assert (later.replicas, later.reason) == (5, Reason.TARGETS_MISSED)
    assert later.message.endswith("3 more replicas load, for 5 s of some 120 s")


def test_times_of_fewer_pods_say_nothing_of_more() -> None:
    """The window is full of slow requests from before the new pods were ready: that asks for no more of them."""
    before, after = looks(SLOW, until_s=5), replace(SLOW, at=NOW, asked=5, answered=5)
    assert decided(policy(), situation(5, (*before, after))).replicas == 5


def test_without_ready_pods_nothing_is_measured() -> None:
    decision = decided(policy(), situation(2, (), ready=0, starting_since=(ago(10), ago(10))))
    assert (decision.replicas, decision.reason) == (2, Reason.WAKING_UP)


def test_a_target_that_no_number_of_replicas_would_meet() -> None:
    alone = looks(sample(ttft=4.0, running=0.6))
    decision = decided(policy(), situation(2, alone, recommendations=recommended(1)))
    assert (decision.replicas, decision.reason, decision.is_healthy) == (2, Reason.TARGETS_OUT_OF_REACH, False)
    assert "0.3 requests at a time" in decision.message


def test_a_full_engine_asks_for_more_before_times_rise() -> None:
    full = looks(sample(ttft=0.2, running=100, kv=0.8))
    decision = decided(policy(), situation(2, full))
    assert (decision.replicas, decision.reason) == (3, Reason.SCALED_UP)
    assert "KV cache 80%" in decision.message


def test_a_request_that_has_just_come_is_no_queue() -> None:
    """A look between its arrival and the engine's next step sees it wait, and nobody run."""
    come = (sample(ttft=0.2, requests=0, running=0, waiting=1, kv=0.0, pods=1),)
    assert decided(policy(), situation(1, come)).replicas == 1
    stuck = looks(sample(ttft=0.2, requests=0, running=0, waiting=20, kv=0.0, pods=1))
    assert decided(policy(), situation(1, stuck)).replicas > 1


def test_a_slow_engine_with_room_is_not_left_for_its_times() -> None:
    """A target near the time that an idle engine needs is no reason for more, where the engine says that it has room."""
    near = looks(sample(ttft=0.9, running=20, kv=0.2))
    assert decided(policy(), situation(2, near)).replicas == 2


def test_a_rising_load_is_met_before_it_is_there() -> None:
    rising = tuple(
        sample(ago(5 * one), ttft=0.2, running=100 + max(0, 10 - one) * 14, kv=0.3 + max(0, 10 - one) * 0.03)
        for one in reversed(range(40))
    )
    decision = decided(policy(), situation(2, rising))
    assert decision.replicas > 2
    assert "requests a minute" in decision.message


def test_chance_is_no_trend() -> None:
    noisy = tuple(
        sample(ago(5 * one), ttft=0.2, running=100 + (one * 37 % 23) - 11, kv=0.3) for one in reversed(range(80))
    )
    assert decided(policy(), situation(2, noisy)).replicas == 2


@pytest.mark.parametrize(
    ("measure", "target", "look", "replicas"),
    [
        (Measure.QUEUED_REQUESTS, 5, sample(waiting=15), 3),
        (Measure.QUEUED_REQUESTS, 5, sample(waiting=10), 2),
        (Measure.RUNNING_REQUESTS, 10, sample(running=50), 5),
        (Measure.RUNNING_REQUESTS, 10, sample(running=21), 2),
        (Measure.KV_CACHE_USAGE, 60, sample(kv=0.9), 3),
    ],
)
def test_loads_as_targets(measure: Measure, target: float, look: object, replicas: int) -> None:
    case = situation(2, looks(look))  # type: ignore[arg-type]
    assert decided(policy(targets={measure: target}), case).replicas == replicas


def test_an_empty_queue_takes_away_one_at_a_time() -> None:
    empty = looks(sample(pods=4, running=20, waiting=0))
    case = situation(4, empty, recommendations=recommended(3))
    assert decided(policy(targets={Measure.QUEUED_REQUESTS: 5}, down=Behavior(180)), case).replicas == 3


def test_a_load_that_was_too_much_is_remembered() -> None:
    """Three replicas with 10 requests each were too few; now there are 36 requests on four."""
    case = situation(4, looks(sample(pods=4, running=36)), recommendations=recommended(3))
    wanted = policy(targets={Measure.QUEUED_REQUESTS: 5})
    assert decided(wanted, case).replicas == 3
    lesson = Change(ago(1200), 3, 4, load=30.0)
    assert decided(wanted, replace(case, changes=(lesson,))).replicas == 4
    assert decided(wanted, replace(case, changes=(replace(lesson, at=ago(4000)),))).replicas == 3


def test_disabled_directions() -> None:
    never = Behavior(0, is_disabled=True)
    assert decided(policy(up=never), situation(2, looks(SLOW))).reason == Reason.RATE_LIMITED
    case = situation(4, looks(replace(QUIET, asked=4, answered=4)), recommendations=recommended(3))
    assert decided(policy(down=never), case).replicas == 4


class TestZero:
    """To zero and from zero."""

    def test_idle_for_long_enough(self) -> None:
        decision = decided(policy(0), situation(1, looks(IDLE)))
        assert (decision.replicas, decision.reason) == (0, Reason.SCALED_TO_ZERO)
        assert "no request for" in decision.message

    @pytest.mark.parametrize(
        ("change", "others"),
        [
            ({"running": 1.0}, {}),
            ({"waiting": 1.0}, {}),
            ({"times": {TTFT: times(0.2, 1)}}, {}),
            ({"times": {}}, {}),
            ({"running": None}, {}),
            ({"answered": 1}, {}),
            ({"problem": "timeout"}, {}),
            ({}, {"held": 1}),
        ],
        ids=["runs", "waits", "ended", "times unknown", "running unknown", "partial", "problem", "held"],
    )
    @pytest.mark.parametrize("when", [0, 30, 55])
    def test_one_look_that_finds_a_request_or_is_doubtful(self, change: dict, others: dict, when: int) -> None:
        samples = list(looks(IDLE))
        samples[-1 - when] = replace(samples[-1 - when], **change)
        assert decided(policy(0), situation(1, samples, **others)).replicas > 0

    def test_of_several_only_the_last_goes_that_way(self) -> None:
        assert decided(policy(0), situation(3, looks(IDLE))).replicas > 0

    def test_a_gap_counts_for_nothing(self) -> None:
        samples = [one for one in looks(IDLE) if not 100 < (NOW - one.at).total_seconds() < 150]
        assert decided(policy(0), situation(1, samples)).replicas == 1

    def test_not_before_its_time(self) -> None:
        assert decided(policy(0), situation(1, looks(IDLE, 290))).replicas == 1
        assert decided(policy(0, idle_s=250), situation(1, looks(IDLE, 290))).replicas == 0

    def test_not_with_a_minimum(self) -> None:
        assert decided(policy(1), situation(1, looks(IDLE))).replicas == 1

    def test_not_where_scaling_down_is_disabled(self) -> None:
        assert decided(policy(0, down=Behavior(0, is_disabled=True)), situation(1, looks(IDLE))).replicas == 1

    def test_stays_at_zero(self) -> None:
        decision = decided(policy(0), situation(0))
        assert (decision.replicas, decision.reason, decision.is_healthy) == (0, Reason.SCALED_TO_ZERO, True)

    def test_a_held_request_wakes_at_once(self) -> None:
        decision = decided(policy(0), situation(0, held=3, changes=(Change(ago(1), 1, 0),)))
        assert (decision.replicas, decision.reason) == (1, Reason.WAKING_UP)
        assert decision.message == "3 requests wait for a replica: 0 -> 1 replicas"

    def test_no_accelerator_to_wake_on(self) -> None:
        decision = decided(policy(0), situation(0, held=1, capacity=0))
        assert (decision.replicas, decision.reason) == (0, Reason.CAPACITY_BLOCKED)

    def test_a_minimum_that_a_schedule_raises(self) -> None:
        assert decided(policy(3), situation(0)).replicas == 3

    def test_what_was_woken_is_not_put_to_sleep_by_what_was_before(self) -> None:
        asleep = looks(replace(IDLE, asked=0, answered=0), 200)
        old = looks(IDLE, 700, until_s=205)
        assert decided(policy(0), situation(1, (*old, *asleep), ready=0)).replicas == 1


def test_down_is_limited_to_one_a_minute() -> None:
    case = situation(6, looks(sample(pods=6, ttft=0.1)), recommendations=recommended(3))
    first = decided(policy(down=DOWN), case)
    assert (first.replicas, "would do" in first.message) == (5, True)
    limited = replace(case, replicas=5, ready=5, changes=(Change(ago(20), 6, 5),))
    limited = replace(limited, samples=looks(replace(QUIET, asked=5, answered=5)))
    second = decided(policy(down=DOWN), limited)
    assert (second.replicas, second.due_s) == (5, 40)
    assert "the limits of scaling down permit none now" in second.message
    assert decided(policy(down=Behavior(180, (Limit(60, percent=50),))), case).replicas == 3


def test_replicas_that_came_back_soon_are_kept_longer() -> None:
    """Going down was a mistake ten minutes ago: the same load takes no replica away again."""
    case = situation(5, looks(sample(pods=5, ttft=0.2, running=100, kv=0.3)), recommendations=recommended(4))
    assert decided(policy(), case).replicas == 4
    mistake = (Change(ago(900), 5, 4), Change(ago(700), 4, 5))
    assert decided(policy(), replace(case, changes=mistake)).replicas == 5
    assert decided(policy(), replace(case, changes=mistake[:1])).replicas == 4


def test_soon_after_the_number_of_pods_changed_it_is_too_early() -> None:
    before, after = looks(sample(pods=3, requests=2), until_s=5), sample(pods=2, requests=2)
    decision = decided(policy(), situation(2, (*before, after), recommendations=recommended(1)))
    assert (decision.replicas, decision.reason, decision.is_healthy) == (2, Reason.STABILIZING, True)


def test_the_load_is_remembered_only_where_it_was_too_much() -> None:
    """For each ready replica; of the requests that wait and those that run only the latter are what a replica takes."""
    missed = decided(policy(), situation(3, looks(replace(SLOW, running=8.0, waiting=30.0)), ready=2))
    assert missed.load == pytest.approx(4.0 * 3)
    by_gateway = decided(policy(), situation(2, looks(replace(SLOW, running=8.0, waiting=None))))
    assert by_gateway.load == pytest.approx(8.0)
    assert decided(policy(), situation(2, looks(sample(ttft=0.2, running=100, kv=0.8)))).load is None


def test_a_trend_of_first_tokens_alone_counts_those_that_wait() -> None:
    """Where requests are counted with their first token, those that run have been counted already."""
    rising = tuple(
        sample(ago(5 * one), ttft=0.2, running=100, waiting=max(0, 10 - one) * 14, kv=0.5)
        for one in reversed(range(40))
    )
    only_first = tuple(replace(one, times={TTFT: one.times[TTFT]}) for one in rising)
    assert "requests a minute" in decided(policy(), situation(2, only_first)).message
    more_run = tuple(
        replace(one, running=100.0 + (one.waiting or 0.0), waiting=0.0, kv_cache_usage=0.3) for one in only_first
    )
    assert decided(policy(), situation(2, more_run)).replicas == 2


def test_pods_that_have_just_become_ready_are_not_taken_for_too_many() -> None:
    before = looks(sample(pods=2, running=40), until_s=5)
    case = situation(4, (*before, sample(pods=4, running=4)), recommendations=recommended(1))
    wanted = policy(targets={Measure.RUNNING_REQUESTS: 10})
    assert decided(wanted, case).replicas == 4
    settled = (*looks(sample(pods=2, running=40), until_s=60), *looks(sample(pods=4, running=4), 55))
    assert decided(wanted, replace(case, samples=settled)).replicas == 3


def test_nothing_is_taken_away_while_the_load_rises() -> None:
    rising = tuple(
        sample(ago(5 * one), pods=4, ttft=0.2, running=20 + max(0, 6 - one) * 14, kv=0.05)
        for one in reversed(range(80))
    )
    assert decided(policy(), situation(4, rising, recommendations=recommended(1))).replicas == 4
    level = tuple(replace(one, running=20.0) for one in rising)
    assert decided(policy(), situation(4, level, recommendations=recommended(1))).replicas == 3


def test_a_rise_that_may_be_chance_is_no_trend() -> None:
    """Eight more in 20 s, where 80 come and go: less than a standard deviation."""
    slightly = tuple(
        sample(ago(5 * one), ttft=0.2, running=100 + max(0, 4 - one) * 2, kv=0.62) for one in reversed(range(80))
    )
    assert decided(policy(), situation(2, slightly)).replicas == 2
