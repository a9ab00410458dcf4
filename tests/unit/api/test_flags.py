"""Arguments that repeat a field, in every spelling that vLLM's parser takes; and none of its other flags."""

from __future__ import annotations

import argparse
import json
import re
from functools import cache
from pathlib import Path

import pytest

from fairlead.api.rules.flags import FIELD_FLAGS, PROTECTED_FLAGS, flag_pattern

_FILES = sorted((Path(__file__).parents[2] / "data" / "vllm").glob("*.json"))
_OWNED = [
    (flag, flag_pattern((flag,), ())) for flag in (*PROTECTED_FLAGS, *(f for row in FIELD_FLAGS for f in row.flags))
]
_SHORT = [(short, flag_pattern(row.flags, row.short)) for row in FIELD_FLAGS for short in row.short]


@cache
def _real_flags(file: Path) -> frozenset[str]:
    """All spellings of that version's own parser."""
    text = file.read_text()
    return frozenset(re.findall(r'"(--?[A-Za-z][-A-Za-z0-9_.]*)"', text))


@pytest.mark.parametrize(("flag", "pattern"), _OWNED, ids=[flag for flag, _ in _OWNED])
@pytest.mark.parametrize("spelling", ["{}", "{}=x", "{}=", "UNDERSCORE", "NO"])
def test_every_spelling_is_found(flag: str, pattern: str, spelling: str) -> None:
    words = {"UNDERSCORE": "--" + flag.removeprefix("--").replace("-", "_"), "NO": "--no-" + flag.removeprefix("--")}
    assert re.search(pattern, words.get(spelling, spelling.format(flag)), re.ASCII)


@pytest.mark.parametrize(("flag", "pattern"), _OWNED, ids=[flag for flag, _ in _OWNED])
def test_every_abbreviation_that_argparse_takes_is_found(flag: str, pattern: str) -> None:
    """Checked against argparse with the newest version's flags."""
    newest = max(_FILES, key=lambda file: [int(part) for part in file.stem.split(".")])
    longs = sorted(name for name in _real_flags(newest) if name.startswith("--"))
    if flag not in longs:
        pytest.skip(f"{flag} is not a flag of {newest.stem}")
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    for name in longs:
        parser.add_argument(name, nargs="?")
    for length in range(3, len(flag)):
        short = flag[:length]
        try:
            parsed = parser.parse_args([f"{short}=x"])
        except (argparse.ArgumentError, SystemExit):
            continue  # ambiguous, so vLLM refuses it
        meant = [name for name in longs if getattr(parsed, name.removeprefix("--").replace("-", "_")) == "x"]
        if meant == [flag]:
            assert re.search(pattern, short, re.ASCII), short


@pytest.mark.parametrize("file", _FILES, ids=[file.stem for file in _FILES])
def test_no_other_flag_is_taken_for_one(file: Path) -> None:
    owned = {flag for flag, _ in _OWNED} | {short for short, _ in _SHORT}
    synonyms = {"--model-tag"}
    for name in _real_flags(file):
        canonical = "--" + re.sub("^--(no-)?", "", name.replace("_", "-")) if name.startswith("--") else name
        if canonical in owned or name in owned or canonical in synonyms:
            continue
        for flag, pattern in [*_OWNED, *_SHORT]:
            assert not re.search(pattern, name, re.ASCII), f"{name} is taken for {flag}"


@pytest.mark.parametrize("argument", ["-tp", "-tp=4", "-tp4", "-pp=2", "-dp", "-q", "-q=fp8", "-qfp8", "-ep"])
def test_short_spellings_are_found(argument: str) -> None:
    assert any(re.search(pattern, argument, re.ASCII) for _, pattern in _SHORT)


def test_lists_of_flags_are_there() -> None:
    assert len(_FILES) >= 2
    assert all(json.loads(file.read_text())["version"] == file.stem for file in _FILES)
