"""Log lines: one JSON object each, about something, with nothing of kopf's in them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Literal

import pytest

from fairlead.runtime.logs import configure_logging


@pytest.fixture
def stream(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """Reads what was logged since the last call; logging is as it was afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("kopf", "aiohttp.access", "asyncio")}
    yield lambda: capsys.readouterr().err
    root.handlers[:], root.level = before
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


ABOUT = {"about": {"controller": "llmdeployment", "namespace": "ml", "name": "m", "generation": 3}}


def test_json_lines_carry_what_they_are_about(stream: Callable[[], str]) -> None:
    configure_logging("json", "info")
    logging.getLogger("fairlead.x").info("Reconciled: %s", "status", extra=ABOUT)
    line = json.loads(stream())
    assert line.pop("ts").endswith("+00:00")
    assert line == {
        "level": "info", "logger": "fairlead.x", "msg": "Reconciled: status", "controller": "llmdeployment",
        "namespace": "ml", "name": "m", "generation": 3,
    }  # fmt: skip


def test_a_traceback_is_in_its_line(stream: Callable[[], str]) -> None:
    configure_logging("json", "info")
    try:
        raise ValueError("bug\nin two lines")
    except ValueError:
        logging.getLogger("fairlead.x").exception("failed", extra={"path": object()})
    (text,) = stream().splitlines()
    line = json.loads(text)
    assert "ValueError: bug" in line["traceback"]
    assert line["path"].startswith("<object")


def test_plain_lines_are_for_people(stream: Callable[[], str]) -> None:
    configure_logging("plain", "info")
    logging.getLogger("fairlead.x").warning("again", extra=ABOUT)
    assert stream().endswith("warning fairlead.x: again controller=llmdeployment namespace=ml name=m generation=3\n")


def test_chatty_libraries_speak_from_warning_on_unless_debugging(stream: Callable[[], str]) -> None:
    configure_logging("json", "info")
    logging.getLogger("kopf.objects").info("chatter", extra={"k8s_ref": {"x": 1}})
    logging.getLogger("fairlead").debug("detail")
    assert stream() == ""
    logging.getLogger("kopf.objects").warning("trouble", extra={"k8s_ref": {"x": 1}})
    assert "k8s_ref" not in json.loads(stream())
    configure_logging("json", "debug")
    logging.getLogger("kopf.objects").info("chatter")
    assert "chatter" in stream()


TOKEN = "hf_c4naryZq7Xw93LmKd82Tb"


@pytest.mark.parametrize("log_format", ["json", "plain"])
def test_no_credential_is_logged_neither_in_a_message_nor_in_a_traceback(
    stream: Callable[[], str], log_format: Literal["json", "plain"]
) -> None:
    configure_logging(log_format, "info")
    try:
        raise ValueError(f"refused: {TOKEN}")
    except ValueError as error:
        logging.getLogger("fairlead.x").exception("The pass failed: %s", error, extra=ABOUT)
    said = stream()
    assert said.count("<redacted>") == 2, "in the message and in the exception"
    assert TOKEN not in said
