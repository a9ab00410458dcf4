"""The bench of reaction adds up: its items are what lies between moments, and nothing is left out or counted twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.bench.reaction.timeline import (
    LOAD,
    Moment,
    Timeline,
    median_run,
    print_timelines,
    worst_run,
    write_timelines,
)


def run(*ats: float, target_s: float = 5.0, began: float = 100.0) -> Timeline:
    names = ("seen", "written", LOAD, "served")
    moments = tuple(Moment(name, began + at, "somewhere") for name, at in zip(names, ats, strict=False))
    return Timeline("a figure", target_s, began, moments)


def test_items_add_up_to_the_whole() -> None:
    one = run(1.0, 1.5, 11.5, 12.0)
    assert [(item.item, item.seconds) for item in one.items] == [
        ("seen", 1.0),
        ("written", 0.5),
        (LOAD, 10.0),
        ("served", 0.5),
    ]
    assert sum(item.seconds for item in one.items) == pytest.approx(one.whole_s) == pytest.approx(12.0)


def test_the_target_is_of_the_whole_without_the_load() -> None:
    assert run(1.0, 1.5, 11.5, 12.0).judged_s == pytest.approx(2.0)
    assert run(1.0, 1.5, 11.5, 12.0, target_s=2.0).ok
    assert not run(1.0, 1.5, 11.5, 12.1, target_s=2.0).ok
    assert not run(1.0, 5.1).ok, "where nothing loads nothing is taken off"


def test_what_came_in_another_order_is_not_hidden() -> None:
    assert [item.seconds for item in run(2.0, 1.5).items] == [2.0, -0.5]


def test_one_late_run_misses_the_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [run(1.0, 2.0), run(3.0, 6.0), run(2.0, 3.0)]
    assert median_run(runs) is runs[2]
    assert worst_run(runs) is runs[1]
    write_timelines(runs, tmp_path / "deep" / "reaction.json")
    [told] = json.loads((tmp_path / "deep" / "reaction.json").read_text())
    assert (told["ok"], [one["judged_s"] for one in told["runs"]]) == (False, [2.0, 6.0, 3.0])
    print_timelines(runs)
    shown = capsys.readouterr().out
    assert "MISSED" in shown
    assert "| seen | 2.000 | 3.000 | somewhere |" in shown
    assert "| **whole** | **3.000** | **6.000** | |" in shown
