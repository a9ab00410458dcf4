"""Reads of Prometheus' text format what scaling needs, and nothing else.

prometheus_client has a parser for all of it. It takes 5.2 ms for what one vLLM tells (0.18 ms here), which is the whole of a core for a
thousand pods every five seconds; the tests compare both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final

from fairlead.facts.scaling import TIMES, Measure
from fairlead.sources.readings import Cumulative, Reading, share_bounds

__all__ = ["find_samples", "line_pattern", "make_cumulative", "read_labels", "read_text"]

Names = tuple[tuple[Measure, tuple[str, ...]], ...]
_LABEL: Final = re.compile(rb'\s*([a-zA-Z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?')
#: The label `le`, behind others or not. A quote within a value has a backslash before it, and ends none.
_LE: Final = re.compile(rb'(?:\s*[a-zA-Z_]\w*\s*=\s*"(?:[^"\\]|\\.)*"\s*,)*?\s*le\s*=\s*"([^"\\]*)"')


def read_text(text: bytes, names: Mapping[Measure, tuple[str, ...]], at: float) -> Reading:
    """What the text says of these metrics; empty if it says nothing. Of several names of a measure the first that is there counts; label
    sets (engines in one pod, models) are added up, the share of the KV cache is their mean. Lines that are no samples, and values that
    are not finite, are passed over. `at`: seconds, when it was said."""
    found: dict[bytes, list[tuple[bytes, float]]] = {}
    for name, labels, value in find_samples(text, _pattern_of(tuple(names.items()))):
        found.setdefault(name, []).append((labels, value))
    times: dict[Measure, Cumulative] = {}
    numbers: dict[Measure, float] = {}
    for measure, candidates in names.items():
        for candidate in candidates:
            samples = found.get(_sample_name(measure, candidate))
            if not samples:
                continue
            if measure not in TIMES:
                total = sum(value for _, value in samples)
                numbers[measure] = total / len(samples) if measure is Measure.KV_CACHE_USAGE else total
                break
            buckets = ((le.group(1), value) for labels, value in samples if (le := _LE.match(labels)) is not None)
            cumulative = make_cumulative(buckets)
            if cumulative is not None:
                times[measure] = cumulative
                break
    return Reading(
        at=at,
        times=times,
        running=_at_least_zero(numbers.get(Measure.RUNNING_REQUESTS)),
        waiting=_at_least_zero(numbers.get(Measure.QUEUED_REQUESTS)),
        kv_cache_usage=_share(numbers.get(Measure.KV_CACHE_USAGE)),
    )


def find_samples(text: bytes, pattern: re.Pattern[bytes]) -> Iterator[tuple[bytes, bytes, float]]:
    """Name, labels as they stand in the braces, and value of each line that a `line_pattern` finds."""
    for name, labels, written in pattern.findall(text):
        try:
            value = float(written)
        except ValueError:
            continue
        if math.isfinite(value):
            yield name, labels, value


def read_labels(labels: bytes) -> dict[bytes, bytes]:
    """Label -> value, as it is escaped."""
    return dict(_LABEL.findall(labels))


def make_cumulative(buckets: Iterable[tuple[bytes, float]], unit_s: float = 1.0) -> Cumulative | None:
    """One histogram out of the `le` and values of all label sets; None: there is none. `le` "5" and "5.0" are the same. A bucket that
    not all label sets have is left out: a sum over some of them would be no count. `unit_s`: seconds in one of its units."""
    sums: dict[float, float] = {}
    seen: dict[float, int] = {}
    for written, value in buckets:
        try:
            le = float(written) * unit_s
        except ValueError:
            continue
        if not math.isnan(le):
            sums[le] = sums.get(le, 0.0) + value
            seen[le] = seen.get(le, 0) + 1
    whole = seen.get(math.inf, 0)
    bounds = tuple(sorted(le for le, times in seen.items() if times == whole and math.isfinite(le)))
    if not bounds:
        return None
    return Cumulative(share_bounds(bounds), tuple(sums[le] for le in bounds), sums[math.inf])


def _sample_name(measure: Measure, name: str) -> bytes:
    return (f"{name}_bucket" if measure in TIMES else name).encode()


@lru_cache(maxsize=64)
def _pattern_of(names: Names) -> re.Pattern[bytes]:
    return line_pattern(_sample_name(measure, name) for measure, several in names for name in several)


def line_pattern(names: Iterable[bytes]) -> re.Pattern[bytes]:
    """Finds the samples of these names in a text: name, labels, value."""
    either = b"|".join(sorted({re.escape(name) for name in names}, reverse=True)) or b"(?!)"
    return re.compile(
        rb"^(" + either + rb")[ \t]*(?:\{(.*)\})?[ \t]*(?<=[ \t}])(\S+)(?:[ \t]+\S+)?[ \t\r]*$", re.MULTILINE
    )


def _at_least_zero(value: float | None) -> float | None:
    return value if value is None else max(value, 0.0)


def _share(value: float | None) -> float | None:
    """None for what is no share, such as a percentage: taken for one it would mean a full cache for ever."""
    return value if value is not None and 0.0 <= value <= 1.0 else None
