"""Kubernetes quantities as exact numbers, for resource fields and memory limits."""

from __future__ import annotations

import math
import re
from fractions import Fraction

_QUANTITY = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)$")
_SUFFIXES = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    **{suffix: Fraction(1000**power) for power, suffix in enumerate(("", "k", "M", "G", "T", "P", "E"))},
    **{suffix: Fraction(1024**power) for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
}


def parse_quantity(text: str | float) -> Fraction:
    """`500m` is 1/2, `1Gi` is 1073741824. ValueError if it is not a quantity."""
    match = _QUANTITY.match(str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is not a Kubernetes quantity")
    number, exponent, suffix = match.groups()
    return Fraction(number + (exponent or "")) * _SUFFIXES[suffix or ""]


def divided_up(quantity: str, divisor: str) -> str:
    """A resource in units of the divisor, rounded up, as `resourceFieldRef` gives it (divisor 0 means 1)."""
    unit = parse_quantity(divisor) or Fraction(1)
    return str(math.ceil(parse_quantity(quantity) / unit))
