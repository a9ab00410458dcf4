"""Sizes, times and tables as the `ollama` command prints them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

_UNITS = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("KB", 10**3))
_YEAR_H = 24 * 365


def human_bytes(size_bytes: int) -> str:
    """`1.3 GB`, `15 MB`, `512 B`."""
    for unit, factor in _UNITS:
        if size_bytes >= factor:
            value = size_bytes / factor
            return f"{value:.1f} {unit}" if value < 10 and value != int(value) else f"{int(value)} {unit}"
    return f"{size_bytes} B"


def human_duration(seconds: float) -> str:
    """`Less than a second`, `4 minutes`, `About an hour`, ..."""
    whole_s, minutes, hours = int(seconds), int(seconds // 60), round(seconds / 3600)
    if whole_s < 60:
        return "Less than a second" if whole_s < 1 else "1 second" if whole_s == 1 else f"{whole_s} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    steps = ((48, 1, "hours"), (24 * 14, 24, "days"), (24 * 60, 24 * 7, "weeks"), (_YEAR_H * 2, 24 * 30, "months"))
    for below, divisor, unit in steps:
        if hours < below:
            return f"{hours // divisor} {unit}"
    return f"{int(seconds / 3600) // _YEAR_H} years"


def human_time(when: str, now: datetime) -> str:
    """`4 minutes from now`, `2 days ago`, `Forever`."""
    delta_s = (now - datetime.fromisoformat(when)).total_seconds()
    if delta_s < 0 and int(-delta_s / 3600) // _YEAR_H > 20:
        return "Forever"
    return f"{human_duration(-delta_s)} from now" if delta_s < 0 else f"{human_duration(delta_s)} ago"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, four spaces apart, each line padded to the full width."""
    lines = [header, *rows] if header else list(rows)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))] if lines else []
    made = ["    ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + "    " for line in lines]
    return "".join(line + "\n" for line in made)
