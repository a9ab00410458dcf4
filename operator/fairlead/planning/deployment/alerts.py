"""Alerts about an LLMDeployment in its status: what status tells of there counts as accepted, and outlives the operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from fairlead.facts.alerts import ActiveAlert
from fairlead.scaling.alerts import Book, describe_alerts, next_expiry

__all__ = ["find_alerts_due_s", "note_alerts"]


def note_alerts(scaling: Mapping[str, Any] | None, alerts: Sequence[ActiveAlert]) -> dict[str, Any] | None:
    """status.scaling with the alerts that fire, and no others; None for nothing to tell."""
    rest = {key: value for key, value in (scaling or {}).items() if key != "alerts"}
    noted = {**rest, "alerts": describe_alerts(alerts)} if alerts else rest
    return noted or None


def find_alerts_due_s(alerts: Sequence[ActiveAlert], now: datetime) -> float | None:
    """Seconds until the next of them is over if nothing more is heard of it."""
    expiry = next_expiry(Book(tuple(alerts)))
    return max(0.0, (expiry - now).total_seconds()) if expiry is not None else None
