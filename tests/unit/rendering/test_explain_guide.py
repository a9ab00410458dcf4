"""What the guide shows of `fairlead explain` is what it prints."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from tests.unit.rendering.commands import ROUTE

from fairlead.cli import main

ROOT = Path(__file__).parents[3]


def test_the_guide_shows_real_output(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever docs/llmroute.md shows of this command is what it prints."""
    page = (ROOT / "docs/llmroute.md").read_text()
    (shown,) = [
        text
        for text in re.findall(r"^```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
        if "builtin: PaymentCard" in text
    ]
    assert yaml.safe_load(shown) == ROUTE
    (tmp_path / "route.yaml").write_text(shown)
    monkeypatch.chdir(tmp_path)
    section = page.partition("## Asking before sending")[2].partition("\n## ")[0]
    commands = 0
    for block in re.findall(r"^```console\n(.*?)^```$", section, re.DOTALL | re.MULTILINE):
        for command, output in re.findall(r"^\$ (.*?)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
            if command.startswith("cat "):
                (tmp_path / command.removeprefix("cat ")).write_text(output)
            elif command.startswith("fairlead explain "):
                line, _, errors = command.partition(" 2>")
                main(shlex.split(line)[1:])
                captured = capfd.readouterr()
                assert ("" if errors else captured.err) + captured.out == output, command
                commands += 1
    assert commands >= 3
