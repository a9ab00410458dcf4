"""Alerts as Alertmanager tells of them and as status keeps them, in one form for the endpoint, the rules of order and planning."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = ["ActiveAlert", "Alert", "Delivery"]


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert of one delivery. `fingerprint` and `starts_at` together name one firing of it; `ends_at`: None while nobody knows when.
    `about`: namespace and name of the LLMDeployment that its labels speak of, None where they speak of none."""

    fingerprint: str
    name: str
    is_firing: bool
    starts_at: datetime
    ends_at: datetime | None = None
    about: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One webhook request. `truncated`: alerts that Alertmanager left out of it (`max_alerts`)."""

    alerts: tuple[Alert, ...]
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class ActiveAlert:
    """An alert that fires for all that is known. `last_seen`: of its last delivery, to the minute; `ends_at`: as in `Alert`."""

    fingerprint: str
    name: str
    starts_at: datetime
    last_seen: datetime
    ends_at: datetime | None = None
