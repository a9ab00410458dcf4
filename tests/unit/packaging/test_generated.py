"""Committed files that are generated say what their source says now."""

from __future__ import annotations

from pathlib import Path

from hack.generate.generators import generate_all


def test_nothing_is_stale(root: Path) -> None:
    stale = [
        path
        for path, text in generate_all().items()
        if not (root / path).is_file() or (root / path).read_text() != text
    ]
    assert stale == [], "run `make generate`"


def test_generation_is_deterministic() -> None:
    assert generate_all() == generate_all()
