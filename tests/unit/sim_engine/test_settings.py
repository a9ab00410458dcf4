"""The simulator's own variables: all of them documented, none of them silently wrong."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from fairlead_sim.durations import FOREVER_S, parse_duration, parse_keep_alive
from fairlead_sim.settings import PREFIX, Settings, SettingsError, read_settings

DOCS = Path(__file__).resolve().parents[3] / "docs" / "simulator.md"


def test_variables_are_read_with_their_types() -> None:
    settings = read_settings(
        {
            "FAIRLEAD_SIM_LOAD_SECONDS": "2.5",
            "FAIRLEAD_SIM_ANSWER_TOKENS": "10",
            "FAIRLEAD_SIM_OLLAMA_VERSION": "0.30.1",
            "HOME": "/x",
        }
    )
    assert (settings.load_seconds, settings.answer_tokens, settings.ollama_version) == (2.5, 10, "0.30.1")
    assert read_settings({"FAIRLEAD_SIM_LOAD_SECONDS": ""}) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOAD_SECOND", "1"),
        ("LOAD_SECONDS", "soon"),
        ("LOAD_SECONDS", "-1"),
        ("LOAD_SECONDS", "nan"),
        ("ANSWER_TOKENS", "1.5"),
        ("ANSWER_TOKENS", "0"),
        ("OUTPUT_TOKENS_PER_SECOND", "0"),
    ],
)
def test_a_mistyped_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=PREFIX + name):
        read_settings({PREFIX + name: value})


def test_every_variable_is_documented() -> None:
    text = DOCS.read_text()
    missing = [field.name for field in fields(Settings) if f"`{PREFIX}{field.name.upper()}`" not in text]
    assert not missing


@pytest.mark.parametrize(
    ("text", "seconds"), [("5m", 300), ("1h30m", 5400), ("1.5s", 1.5), ("-1s", -1), ("0", 0), ("100ms", 0.1)]
)
def test_go_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "m", "5x", "1h 30m"])
def test_what_go_does_not_take_for_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(("value", "seconds"), [(-1, FOREVER_S), ("-1m", FOREVER_S), (0, 0), (90, 90), ("2m", 120)])
def test_keep_alive(value: object, seconds: float) -> None:
    assert parse_keep_alive(value) == seconds


@pytest.mark.parametrize("value", [True, [], "soon"])
def test_keep_alive_that_is_none(value: object) -> None:
    with pytest.raises(ValueError, match=r"Unsupported|duration"):
        parse_keep_alive(value)
