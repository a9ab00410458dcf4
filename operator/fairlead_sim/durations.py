"""Durations as Go writes them (`5m`, `1h30m`, `-1`), since Ollama's settings and requests carry them."""

from __future__ import annotations

import re

#: What Ollama takes for "for ever": Go's longest duration, about 292 years.
FOREVER_S = (2**63 - 1) / 1e9

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def parse_duration(text: str) -> float:
    """Seconds of a Go duration string. Raises ValueError with Go's message."""
    body = text.lstrip("+-")
    if body == "0":
        return 0.0
    position, total_s = 0, 0.0
    while position < len(body):
        match = _PART.match(body, position)
        if match is None:
            break
        total_s += float(match.group(1)) * _UNITS_S[match.group(2)]
        position = match.end()
    if not body or position < len(body):
        missing = "missing unit in duration" if re.fullmatch(r"[\d.]+", body) else "invalid duration"
        raise ValueError(f'time: {missing} "{text}"')
    return -total_s if text.startswith("-") else total_s


def parse_keep_alive(value: object) -> float:
    """Seconds that a request's `keep_alive` asks for: number of seconds, or Go duration; negative is for ever."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"Unsupported type: '{type(value).__name__}'")
    duration_s = parse_duration(value) if isinstance(value, str) else float(value)
    return FOREVER_S if duration_s < 0 else duration_s
