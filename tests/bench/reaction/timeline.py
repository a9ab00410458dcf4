"""A reaction as moments one after the other, and what lies between two of them: the items of a figure, which add up to the whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LOAD", "Item", "Moment", "Timeline", "median_run", "print_timelines", "worst_run", "write_timelines"]

#: The item that an engine needs, whoever runs it: no part of what is promised.
LOAD = "load"


@dataclass(frozen=True, slots=True)
class Moment:
    """`at`: seconds since the epoch, by this machine's one clock; `item`: what took from the moment before to this one; `read`: where it
    was read."""

    item: str
    at: float
    read: str


@dataclass(frozen=True, slots=True)
class Item:
    """Below zero where what should come later came first."""

    item: str
    seconds: float
    read: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """One run of a figure. `target_s` is of the whole, less what the engine needed to load."""

    figure: str
    target_s: float
    began: float
    moments: tuple[Moment, ...]

    @property
    def items(self) -> tuple[Item, ...]:
        """What lies between the moments, in their order."""
        befores = (self.began, *(moment.at for moment in self.moments))
        return tuple(
            Item(moment.item, moment.at - before, moment.read)
            for before, moment in zip(befores, self.moments, strict=False)
        )

    @property
    def whole_s(self) -> float:
        """From the beginning to the last moment."""
        return self.moments[-1].at - self.began

    @property
    def judged_s(self) -> float:
        """What the target is of."""
        return self.whole_s - sum(item.seconds for item in self.items if item.item == LOAD)

    @property
    def ok(self) -> bool:
        """Whether the target is met."""
        return self.judged_s <= self.target_s


def median_run(runs: Sequence[Timeline]) -> Timeline:
    """The one in the middle; of an even number the later one. Its items add up, as medians of items would not."""
    return sorted(runs, key=lambda run: run.judged_s)[len(runs) // 2]


def worst_run(runs: Sequence[Timeline]) -> Timeline:
    """The one that took longest."""
    return max(runs, key=lambda run: run.judged_s)


def by_figure(runs: Iterable[Timeline]) -> dict[str, list[Timeline]]:
    """Runs of the same figure, in the order in which figures came."""
    found: dict[str, list[Timeline]] = {}
    for run in runs:
        found.setdefault(run.figure, []).append(run)
    return found


def print_timelines(runs: Iterable[Timeline]) -> None:
    """A table for each figure, in Markdown, since it goes into the documents."""
    for figure, ones in by_figure(runs).items():
        median, worst = median_run(ones), worst_run(ones)
        verdict = "ok" if worst.ok else "MISSED"
        print(f"\n{figure}: at most {worst.target_s:g} s, {len(ones)} runs: {verdict}\n")
        print("| Item | median run, s | worst run, s | Read where |\n| --- | --- | --- | --- |")
        for one, other in zip(median.items, worst.items, strict=True):
            print(f"| {one.item} | {one.seconds:.3f} | {other.seconds:.3f} | {one.read} |")
        print(f"| **whole** | **{median.whole_s:.3f}** | **{worst.whole_s:.3f}** | |")
        if median.judged_s != median.whole_s:
            print(f"| **whole without {LOAD}** | **{median.judged_s:.3f}** | **{worst.judged_s:.3f}** | |")
        print(flush=True)


def write_timelines(runs: Iterable[Timeline], path: Path) -> None:
    """A list of {figure, target_s, ok, runs: [{whole_s, judged_s, items: [{item, seconds, read}]}]}."""
    told = [
        {
            "figure": figure,
            "target_s": ones[0].target_s,
            "ok": all(run.ok for run in ones),
            "runs": [
                {
                    "whole_s": round(run.whole_s, 6),
                    "judged_s": round(run.judged_s, 6),
                    "items": [
                        {"item": one.item, "seconds": round(one.seconds, 6), "read": one.read} for one in run.items
                    ],
                }
                for run in ones
            ],
        }
        for figure, ones in by_figure(runs).items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=2) + "\n")
