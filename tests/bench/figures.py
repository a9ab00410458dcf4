"""A measured figure beside its target, printed as a table and written as JSON."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {"=": operator.eq, "<=": operator.le, "": lambda _a, _b: True}


@dataclass(frozen=True, slots=True)
class Figure:
    """`target` reads `= 6` or `<= 2.5`; empty when the figure is only reported."""

    figure: str
    value: float
    unit: str
    target: str

    @property
    def ok(self) -> bool:
        """Whether the value meets the target."""
        comparison, _, number = self.target.partition(" ")
        return _COMPARISONS[comparison](self.value, float(number or 0))


def print_table(figures: Sequence[Figure]) -> None:
    """One line per figure, with its target and whether it holds."""
    width = max(len(figure.figure) for figure in figures)
    for figure in figures:
        verdict = "" if not figure.target else "ok" if figure.ok else "MISSED"
        print(
            f"{figure.figure:<{width}}  {figure.value:>10.3f} {figure.unit:<14} {figure.target:<10} {verdict}",
            flush=True,
        )


def write_json(figures: Sequence[Figure], path: Path) -> None:
    """A list of {figure, value, unit, target, ok}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([{**asdict(figure), "ok": figure.ok} for figure in figures], indent=2) + "\n")
