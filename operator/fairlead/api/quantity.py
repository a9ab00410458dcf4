"""Quantities and durations as the API takes them: what they look like, and what they are worth.

What a CR may say is the part of Kubernetes' quantities that people write (no signs, no exponents) and the part of Go's
durations that makes sense here, small enough that CEL and Python cannot disagree about it. What the API server says of other
objects is read by `parse_live_quantity`, which knows the whole grammar.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache
from typing import Final

QUANTITY_PATTERN: Final = r"[0-9]{1,15}([.][0-9]{1,9})?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?"
DURATION_PATTERN: Final = r"([0-9]{1,7}([.][0-9]{1,3})?(ms|s|m|h)){1,4}"

#: Factors of the two families of suffixes, ascending. Source: k8s.io/apimachinery/pkg/api/resource.
BINARY_SUFFIXES: Final = {
    suffix: Decimal(1024) ** power for power, suffix in enumerate(["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"], start=1)
}
DECIMAL_SUFFIXES: Final = {
    suffix: Decimal(1000) ** power
    for power, suffix in enumerate(["n", "u", "m", "", "k", "M", "G", "T", "P", "E"], start=-3)
}
_LIVE_QUANTITY: Final = re.compile(
    r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|(?:[eE][+-]?[0-9]+))?"
)
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def is_quantity(text: str) -> bool:
    """True for a quantity of the grammar above."""
    return re.fullmatch(QUANTITY_PATTERN, text) is not None


def parse_quantity(text: str) -> Decimal:
    """The exact value of a quantity (bytes, cores, pieces). Raises ValueError for anything else."""
    if not is_quantity(text):
        raise ValueError(f"{text!r} is not a quantity")
    return parse_live_quantity(text)


@lru_cache(maxsize=4096)
def parse_live_quantity(text: str) -> Decimal:
    """The exact value of any quantity that Kubernetes takes, signs and exponents too. Raises ValueError for anything else."""
    number, suffix = split_quantity(text)
    factor = BINARY_SUFFIXES.get(suffix) or DECIMAL_SUFFIXES.get(suffix)
    return number * (factor if factor is not None else Decimal(f"1{suffix}"))


def split_quantity(text: str) -> tuple[Decimal, str]:
    """Number and suffix; an exponent such as `e3` counts as a suffix. Raises ValueError for what is no quantity."""
    match = _LIVE_QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity like 500m, 8 or 64Gi")
    return Decimal(match[1]), match[2] or ""


def is_duration(text: str) -> bool:
    """True for a duration of the grammar above."""
    return re.fullmatch(DURATION_PATTERN, text) is not None


def parse_duration_s(text: str) -> float:
    """A duration such as `1h30m` or `500ms` in seconds. Raises ValueError for anything else."""
    if not is_duration(text):
        raise ValueError(f"{text!r} is not a duration")
    return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(r"([0-9.]+)(ms|s|m|h)", text))
