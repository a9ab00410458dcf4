"""Kubernetes quantities in canonical form.

The API server stores `1000m` as `1`; a child that says `1000m` would look changed for ever (kube/compare.py). Everything
that goes into a child therefore passes through `canonical`.
"""

from __future__ import annotations

from decimal import ROUND_UP, Decimal, localcontext

from fairlead.api.quantity import BINARY_SUFFIXES, DECIMAL_SUFFIXES, parse_live_quantity, split_quantity

__all__ = ["canonical", "format_bytes"]


def canonical(text: str) -> str:
    """The same quantity as the API server prints it: the largest suffix of its family that leaves a whole number.

    Source: k8s.io/apimachinery/pkg/api/resource. A binary quantity that is not a whole number of bytes, or is less than
    1024, is printed in the decimal family, as there. Raises ValueError.
    """
    suffix = split_quantity(text)[1]
    with localcontext() as context:
        context.prec = 60  # nanos of exabytes
        value = parse_live_quantity(text)
        if value == 0:
            return "0"
        if suffix in BINARY_SUFFIXES and abs(value) >= 1024 and value == value.to_integral_value():
            return _print(value, {"": Decimal(1), **BINARY_SUFFIXES})
        # Finer than nano is rounded up, as the API server does.
        value = value.quantize(DECIMAL_SUFFIXES["n"], rounding=ROUND_UP)
        if suffix[:1] in ("e", "E") and len(suffix) > 1:
            return _print(value, {f"e{power}" if power else "": Decimal(1).scaleb(power) for power in range(-9, 21, 3)})
        return _print(value, DECIMAL_SUFFIXES)


def _print(value: Decimal, factors: dict[str, Decimal]) -> str:
    """With the largest of `factors` (ascending) that leaves a whole number."""
    suffix, factor = next((s, f) for s, f in reversed(factors.items()) if value % f == 0)
    return f"{int(value / factor)}{suffix}"


def format_bytes(size_bytes: int) -> str:
    """A size for people: `16.1 GB`."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"
