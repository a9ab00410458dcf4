"""The pre-commit hooks run what `make` runs, from the locked environment, and nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

from pre_commit.clientlib import load_config


def test_hooks_are_local_and_run_what_exists(root: Path) -> None:
    config = load_config(root / ".pre-commit-config.yaml")
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.MULTILINE))
    pinned = (root / "requirements/dev.txt").read_text()
    packages = {"ruff": "ruff", "lint-imports": "import-linter", "mypy": "mypy"}
    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    for hook in config["repos"][0]["hooks"]:
        command, *arguments = hook["entry"].split()
        if command == "make":
            assert arguments[0] in targets
        else:
            assert command.startswith(".venv/bin/")
            assert f"\n{packages[command.removeprefix('.venv/bin/')]}==" in pinned
