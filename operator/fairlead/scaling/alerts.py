"""Which alerts of an LLMDeployment fire, whatever order they are told in: deliveries come twice, late, in any order, or not at all.

An alert never means "one more replica". While one fires, the law is asked at once and knows that somebody else, too, says that targets
are missed; what that is worth the law decides. So the worst that a wrong delivery does is one evaluation more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from fairlead.facts.alerts import ActiveAlert, Alert

__all__ = ["Book", "Effect", "describe_alerts", "enter", "expire", "is_told", "next_expiry", "read_book"]

#: Alerts that are kept of one LLMDeployment. More than that fire for one cause, and are left out: if they took the place of others, those
#: would do the same with their next repeat, and each time status would be written.
ACTIVE_MAX: Final = 16
ENDED_MAX: Final = 16
#: How long an alert is taken to fire after its last delivery: whether it was resolved may never be told.
EXPIRES_S: Final = 300.0
#: Within this time after it was resolved, an alert that fires since the same moment is an old delivery. Later it fires again:
#: Alertmanager, too, takes an alert for resolved when Prometheus was silent for a while, and it keeps its start.
LATE_S: Final = 60.0
#: How exactly the last delivery is known. Each step is a write of status.
SEEN_S: Final = 60.0


class Effect(StrEnum):
    """What came of an alert."""

    FIRING = "firing"
    REPEATED = "repeated"
    RESOLVED = "resolved"
    OUTDATED = "outdated"
    LEFT_OUT = "left_out"


@dataclass(frozen=True, slots=True)
class _Ended:
    fingerprint: str
    starts_at: datetime
    at: datetime


@dataclass(frozen=True, slots=True)
class Book:
    """The alerts of one LLMDeployment: those that fire, oldest first, and those that were resolved a moment ago."""

    active: tuple[ActiveAlert, ...] = ()
    ended: tuple[_Ended, ...] = ()


def enter(book: Book, alert: Alert, now: datetime) -> tuple[Book, Effect]:
    """The book with an alert that was delivered at `now`. An older state of an alert never replaces a newer one."""
    book = expire(book, now)
    return _enter_firing(book, alert, now) if alert.is_firing else _enter_resolved(book, alert, now)


def _enter_firing(book: Book, alert: Alert, now: datetime) -> tuple[Book, Effect]:
    if alert.ends_at is not None and alert.ends_at <= now:
        return book, Effect.OUTDATED
    ended = _find(book.ended, alert.fingerprint)
    if ended is not None and alert.starts_at <= ended.starts_at:
        return book, Effect.OUTDATED
    known = _find(book.active, alert.fingerprint)
    if known is not None and alert.starts_at < known.starts_at:
        return book, Effect.OUTDATED
    if known is not None and alert.starts_at == known.starts_at:
        seen = now if now - known.last_seen >= timedelta(seconds=SEEN_S) else known.last_seen
        again = replace(known, last_seen=seen, ends_at=alert.ends_at)
        return replace(book, active=tuple(again if one is known else one for one in book.active)), Effect.REPEATED
    if known is None and len(book.active) >= ACTIVE_MAX:
        return book, Effect.LEFT_OUT
    entry = ActiveAlert(alert.fingerprint, alert.name, alert.starts_at, now, alert.ends_at)
    active = (*(one for one in book.active if one is not known), entry)
    return replace(book, active=active), Effect.FIRING


def _enter_resolved(book: Book, alert: Alert, now: datetime) -> tuple[Book, Effect]:
    known = _find(book.active, alert.fingerprint)
    if known is not None and alert.starts_at < known.starts_at:
        return book, Effect.OUTDATED
    ended = _find(book.ended, alert.fingerprint)
    if known is None and ended is not None and alert.starts_at <= ended.starts_at:
        return book, Effect.REPEATED
    active = tuple(one for one in book.active if one is not known)
    others = (one for one in book.ended if one is not ended)
    return Book(active, (*others, _Ended(alert.fingerprint, alert.starts_at, now))[-ENDED_MAX:]), Effect.RESOLVED


def _find(entries: Iterable[Any], fingerprint: str) -> Any:
    return next((one for one in entries if one.fingerprint == fingerprint), None)


def expire(book: Book, now: datetime) -> Book:
    """The book without what is over at `now`; the same book if that is nothing."""
    active = tuple(one for one in book.active if _expiry_of(one) > now)
    ended = tuple(one for one in book.ended if now - one.at < timedelta(seconds=LATE_S))
    if len(active) == len(book.active) and len(ended) == len(book.ended):
        return book
    return Book(active, ended)


def next_expiry(book: Book) -> datetime | None:
    """When the next alert stops firing if nothing more is heard of it."""
    return min(map(_expiry_of, book.active), default=None)


def _expiry_of(alert: ActiveAlert) -> datetime:
    expiry = alert.last_seen + timedelta(seconds=EXPIRES_S)
    return expiry if alert.ends_at is None else min(expiry, alert.ends_at)


def describe_alerts(alerts: Iterable[ActiveAlert]) -> list[dict[str, str]]:
    """As `status.scaling.alerts` has them."""
    return [
        {
            "fingerprint": one.fingerprint,
            "name": one.name,
            "startsAt": one.starts_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "lastSeen": one.last_seen.isoformat(timespec="seconds").replace("+00:00", "Z"),
        }
        for one in alerts
    ]


def read_book(status: Mapping[str, Any]) -> Book:
    """The book as far as `status` of an LLMDeployment has it: after a restart or a change of the leader. What cannot be read is left
    out, since somebody else has written it."""
    entries = (status.get("scaling") or {}).get("alerts") or ()
    alerts = (_read_entry(entry) for entry in entries)
    return Book(tuple(alert for alert in alerts if alert is not None)[-ACTIVE_MAX:])


def is_told(status: Mapping[str, Any], book: Book, fingerprint: str) -> bool:
    """Whether `status` says of this alert what the book says: that it fires, and since when, or that it does not."""
    stored, known = _find(read_book(status).active, fingerprint), _find(book.active, fingerprint)
    if stored is None or known is None:
        return stored is known
    return bool(stored.starts_at == known.starts_at)


def _read_entry(entry: Mapping[str, Any]) -> ActiveAlert | None:
    try:
        starts_at, last_seen = (
            datetime.fromisoformat(str(entry[field])).astimezone(UTC) for field in ("startsAt", "lastSeen")
        )
        return ActiveAlert(str(entry["fingerprint"]), str(entry.get("name", "")), starts_at, last_seen)
    except (KeyError, ValueError, OverflowError):
        return None
