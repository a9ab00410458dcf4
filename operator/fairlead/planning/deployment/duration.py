"""Durations of the API in whole seconds, as Kubernetes' own fields want them, and back in words."""

from __future__ import annotations

import math

from fairlead.api.quantity import parse_duration_s

__all__ = ["format_duration", "to_whole_seconds"]


def to_whole_seconds(text: str) -> int:
    """`90s`, `2m`, `1h30m`, `500ms` → seconds, rounded up. Raises ValueError for anything else."""
    return math.ceil(parse_duration_s(text))


def format_duration(seconds: int) -> str:
    """The shortest way to write whole seconds: 5400 → `1h30m`."""
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    text = "".join(f"{number}{unit}" for number, unit in ((hours, "h"), (minutes, "m"), (rest, "s")) if number)
    return text or "0s"
