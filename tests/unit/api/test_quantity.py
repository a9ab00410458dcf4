"""Quantities and durations: the grammar, the values, and what is not one."""

from __future__ import annotations

from decimal import Decimal

import pytest

from fairlead.api.quantity import is_duration, is_quantity, parse_duration_s, parse_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("8", 8), ("500m", Decimal("0.5")), ("1.5", Decimal("1.5")), ("1k", 1000), ("64Gi", 64 * 2**30),
        ("1.5Gi", 1536 * 2**20), ("2T", 2 * 10**12), ("1Ei", 2**60),
    ],
)  # fmt: skip
def test_quantity(text: str, value: Decimal) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "-1", "+1", "1e3", "1E3", ".5", "5.", "1KB", "1gi", "Gi", "1.0.0", "1\n", "١"]
)
def test_not_a_quantity(text: str) -> None:
    assert not is_quantity(text)
    with pytest.raises(ValueError, match="not a quantity"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("90s", 90), ("1h30m", 5400), ("500ms", 0.5), ("1.5h", 5400), ("1m1h", 3660), ("2m2m", 240)],
)
def test_duration(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "0", "10", "1d", "-1s", "1 s", "s", "1s ", "1h 30m", "1us", "1.s", "1s\n"])
def test_not_a_duration(text: str) -> None:
    assert not is_duration(text)
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration_s(text)
