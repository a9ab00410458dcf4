"""Windows of time in which there shall be more replicas than otherwise: cron expressions in a time zone.

Pure but for the time zone database, which Python reads once (from the system or the package tzdata)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError

__all__ = ["Window", "floor_of", "is_active", "next_change", "why_not"]

#: A look ahead for the next change that is longer than this finds none in time for anybody.
FAR = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class Window:
    """`start`: cron, five fields, in `time_zone` (IANA name); it lasts until `end` (cron, too). Times that a change of clocks
    skips count as those that follow it; in an hour that comes twice it is there twice."""

    start: str
    replicas: int
    end: str
    time_zone: str = "UTC"


def why_not(window: Window) -> dict[str, str]:
    """Why a window cannot be used, by field; empty if it can."""
    reasons = {}
    for name, expression in (("start", window.start), ("end", window.end)):
        if reason := _why_no_cron(expression):
            reasons[name] = reason
    if (reason := _why_no_zone(window.time_zone)) is not None:
        reasons["time_zone"] = reason
    return reasons


def is_active(window: Window, now: datetime) -> bool:
    """Whether `now` is in the window: its last start is not followed by an end. It must be one that can be used."""
    started = next(_before(window.start, window.time_zone, now), None)
    if started is None:
        return False
    ended = next(_before(window.end, window.time_zone, now), None)
    return ended is None or ended <= started


def floor_of(windows: Sequence[Window], now: datetime) -> int:
    """The replicas that the active windows ask for: the most of them, 0 where none is active."""
    return max((window.replicas for window in windows if is_active(window, now)), default=0)


def next_change(windows: Sequence[Window], now: datetime) -> datetime | None:
    """When some window begins or ends next, in UTC; None where that is more than a year away."""
    times = [next(_after(one, window.time_zone, now), None) for window in windows for one in (window.start, window.end)]
    return min((one for one in times if one is not None and one - now <= FAR), default=None)


def _before(expression: str, zone: str, now: datetime) -> Iterator[datetime]:
    """Times of a cron expression until now, the last one first, in UTC."""
    local = (now.replace(microsecond=0) + timedelta(seconds=1)).astimezone(ZoneInfo(zone))
    for one in CronSim(expression, local, reverse=True):
        yield one.astimezone(UTC)


def _after(expression: str, zone: str, now: datetime) -> Iterator[datetime]:
    """Times of a cron expression after now, in UTC."""
    for one in CronSim(expression, now.astimezone(ZoneInfo(zone))):
        yield one.astimezone(UTC)


def _why_no_cron(expression: str) -> str | None:
    example = 'for example "0 8 * * MON-FRI"'
    if len(expression.split()) != 5:
        return f"five fields are needed: minute, hour, day of month, month, day of week; {example}"
    try:
        next(CronSim(expression, datetime(2024, 1, 1, tzinfo=UTC)), None)
    except CronSimError as error:
        return f"{str(error).lower()}; {example}"
    return None


def _why_no_zone(name: str) -> str | None:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        near = get_close_matches(name, available_timezones(), n=1, cutoff=0.4)
        return f"{name} is no time zone of the IANA database; for example {near[0] if near else 'Europe/Berlin'}"
    return None
