"""Time as Kubernetes writes it."""

from __future__ import annotations

import datetime as dt


def rfc3339(at_s: float) -> str:
    """Seconds since the epoch as `2026-11-25T17:52:01Z` (whole seconds, as metav1.Time)."""
    return f"{dt.datetime.fromtimestamp(int(at_s), dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


def now_rfc3339() -> str:
    """Now, in whole seconds."""
    return rfc3339(dt.datetime.now(dt.UTC).timestamp())


def now_micro() -> str:
    """Now with microseconds, as Leases have it (metav1.MicroTime)."""
    return f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def parse_rfc3339(text: str) -> float:
    """Seconds since the epoch."""
    return dt.datetime.fromisoformat(text).timestamp()
