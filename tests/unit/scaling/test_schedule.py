"""Windows of time: across midnight, across changes of clocks, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.scaling.schedule import Window, floor_of, is_active, next_change, why_not

BERLIN = "Europe/Berlin"
OFFICE = Window("0 8 * * MON-FRI", 5, end="0 18 * * MON-FRI", time_zone=BERLIN)
NIGHT = Window("0 22 * * *", 3, "0 6 * * *", "America/New_York")


def at(text: str, zone: str = BERLIN) -> datetime:
    """A wall-clock time, in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


@pytest.mark.parametrize(
    ("window", "now", "active"),
    [
        (OFFICE, at("2026-03-02T07:59:59"), False),
        (OFFICE, at("2026-03-02T08:00"), True),
        (OFFICE, at("2026-03-02T17:59:59.9"), True),
        (OFFICE, at("2026-03-02T18:00"), False),
        (OFFICE, at("2026-03-07T12:00"), False),
        (NIGHT, at("2026-06-01T23:00", "America/New_York"), True),
        (NIGHT, at("2026-06-02T05:59", "America/New_York"), True),
        (NIGHT, at("2026-06-02T06:00", "America/New_York"), False),
        (
            Window("*/20 6-7 1,15 JAN-MAR *", 2, "1-59/20 6-7 1,15 JAN-MAR *"),
            datetime(2026, 2, 15, 7, 40, 30, tzinfo=UTC),
            True,
        ),
        (
            Window("*/20 6-7 1,15 JAN-MAR *", 2, "1-59/20 6-7 1,15 JAN-MAR *"),
            datetime(2026, 2, 15, 7, 41, 0, tzinfo=UTC),
            False,
        ),
        (Window("0 0 29 2 *", 2, "1 0 29 2 *"), datetime(2028, 2, 29, 0, 0, 30, tzinfo=UTC), True),
        (Window("0 0 * * *", 2, end="0 0 * * *"), datetime(2026, 2, 1, 0, 0, tzinfo=UTC), True),
        (Window("0 20 * * SUN", 2, end="0 6 * * MON"), datetime(2026, 3, 2, 3, 0, tzinfo=UTC), True),
    ],
)
def test_windows(window: Window, now: datetime, active: bool) -> None:
    assert why_not(window) == {}
    assert is_active(window, now) is active


@pytest.mark.parametrize(
    ("now", "active"),
    [("2026-03-29T00:59", False), ("2026-03-29T01:00", True), ("2026-03-29T02:29", True), ("2026-03-29T02:30", False)],
)
def test_a_start_that_the_change_of_clocks_skips_is_the_moment_after_it(now: str, active: bool) -> None:
    """On 29 March 2026 there is no 2:30 in Berlin: 2:00 is 3:00 (1:00 UTC)."""
    window = Window("30 2 * * *", 2, "30 4 * * *", BERLIN)
    assert is_active(window, datetime.fromisoformat(now).replace(tzinfo=UTC)) is active


def test_what_is_within_an_hour_that_comes_twice_comes_twice() -> None:
    """On 25 October 2026 2:30 comes at 0:30 and at 1:30 UTC."""
    window = Window("30 2 * * *", 2, "45 2 * * *", BERLIN)
    hits = [
        minute
        for minute in range(0, 180, 5)
        if is_active(window, datetime(2026, 10, 25, 0, 0, tzinfo=UTC) + timedelta(minutes=minute))
    ]
    assert hits == [30, 35, 40, 90, 95, 100]


def test_a_window_by_end_keeps_its_wall_clock_times_in_summer() -> None:
    assert is_active(OFFICE, datetime(2026, 3, 27, 7, 30, tzinfo=UTC))
    assert is_active(OFFICE, datetime(2026, 3, 30, 6, 30, tzinfo=UTC))
    assert not is_active(OFFICE, datetime(2026, 3, 27, 6, 30, tzinfo=UTC))


def test_the_most_of_what_is_active() -> None:
    now = at("2026-03-02T12:00")
    always = Window("0 0 * * *", 2, "0 0 * * *")
    assert floor_of([OFFICE, always], now) == 5
    assert floor_of([OFFICE, always], at("2026-03-02T20:00")) == 2
    assert floor_of([], now) == 0


def test_when_it_changes_next() -> None:
    assert next_change([OFFICE], at("2026-03-02T12:00")) == at("2026-03-02T18:00")
    assert next_change([OFFICE], at("2026-03-06T19:00")) == at("2026-03-09T08:00")
    assert next_change([NIGHT], at("2026-06-01T23:00", "America/New_York")) == at(
        "2026-06-02T06:00", "America/New_York"
    )
    assert next_change([Window("0 0 29 2 *", 2, "1 0 29 2 *")], datetime(2026, 1, 1, tzinfo=UTC)) is None
    assert next_change([], at("2026-03-02T12:00")) is None


@pytest.mark.parametrize(
    ("window", "field", "words"),
    [
        (Window("0 8 * *", 1, "0 9 * * *"), "start", "five fields"),
        (Window("0 0 8 * * *", 1, "0 9 * * *"), "start", "five fields"),
        (Window("@daily", 1, "0 9 * * *"), "start", "five fields"),
        (Window("0 25 * * *", 1, "0 9 * * *"), "start", "bad hour"),
        (Window("0 8 * * MON-FRY", 1, "0 9 * * *"), "start", "bad day-of-week"),
        (Window("*/0 8 * * *", 1, "0 9 * * *"), "start", "bad minute"),
        (Window("0 8 31 2 *", 1, "0 9 * * *"), "start", "bad day-of-month"),
        (Window("0 8 * * *", 1, end="61 * * * *"), "end", "bad minute"),
        (Window("0 8 * * *", 1, "0 9 * * *", time_zone="Europe/Berln"), "time_zone", "Europe/Berlin"),
        (Window("0 8 * * *", 1, "0 9 * * *", time_zone="../etc/passwd"), "time_zone", "no time zone"),
        (Window("0 8 * * *", 1, "0 9 * * *", time_zone="Europe"), "time_zone", "no time zone"),
        (Window("0 8 * * *", 1, "0 9 * * *", time_zone=""), "time_zone", "no time zone"),
    ],
)
def test_what_cannot_be_used_is_refused_by_field(window: Window, field: str, words: str) -> None:
    reasons = why_not(window)
    assert list(reasons) == [field]
    assert words in reasons[field]


MINUTES = st.integers(0, 59)
HOURS = st.integers(0, 23)
ZONES = st.sampled_from(["UTC", BERLIN, "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"])


@settings(max_examples=60, deadline=None)
@given(
    st.builds(
        lambda m, h, m2, h2, zone: Window(f"{m} {h} * * *", 2, end=f"{m2} {h2} * * *", time_zone=zone),
        MINUTES,
        HOURS,
        MINUTES,
        HOURS,
        ZONES,
    ),
    st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1)),  # noqa: DTZ001
)
def test_it_changes_exactly_when_it_is_said_to(window: Window, moment: datetime) -> None:
    """Between two moments that `next_change` names, nothing changes; and what is named comes after now."""
    now = moment.replace(tzinfo=UTC)
    moments = [now]
    for _ in range(4):
        moments.append(next_change([window], moments[-1]) or now + timedelta(days=400))
    for begin, end in pairwise(moments):
        assert end > begin
        states = {is_active(window, begin + (end - begin) * share) for share in (0, 0.3, 0.7)}
        states.add(
            is_active(window, end - timedelta(seconds=1))
            if end - begin > timedelta(seconds=1)
            else is_active(window, begin)
        )
        assert len(states) == 1
