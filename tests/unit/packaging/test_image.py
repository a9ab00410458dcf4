"""The Dockerfile keeps its promises: pinned base, hashed dependencies, numeric user, and nothing but the operator inside."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml


@pytest.fixture(scope="module")
def dockerfile(root: Path) -> list[str]:
    """Instructions, continuation lines joined."""
    text = re.sub(r"^#.*\n", "", (root / "Dockerfile").read_text(), flags=re.MULTILINE)
    return [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def test_every_stage_starts_from_the_pinned_base(dockerfile: list[str]) -> None:
    (base,) = [line for line in dockerfile if line.startswith("ARG PYTHON=")]
    assert re.fullmatch(r"ARG PYTHON=python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)
    stages = [line for line in dockerfile if line.startswith("FROM ")]
    assert len(stages) == 2
    assert all(line.split()[1] == "${PYTHON}" for line in stages)


def test_base_is_a_python_that_the_lock_was_made_for(dockerfile: list[str], root: Path) -> None:
    made_for = re.search(r"with Python (3\.\d+)", (root / "requirements/operator.txt").read_text())
    used = re.search(r"python:(3\.\d+)\.", "\n".join(dockerfile))
    assert used is not None
    assert made_for is None or made_for[1] == used[1]


def test_nothing_is_installed_without_a_hash(dockerfile: list[str]) -> None:
    installs = [
        part for line in dockerfile if line.startswith("RUN") for part in line.split("&&") if " install " in part
    ]
    assert installs
    for install in installs:
        assert "--require-hashes" in install or "--no-deps dist/fairlead-*.whl" in install, install


def test_the_backend_that_is_cut_out_of_the_lock_has_hashes(dockerfile: list[str], root: Path) -> None:
    assert any("sed -n '/^setuptools==/,/[^\\\\]$/p' requirements/dev.txt" in line for line in dockerfile)
    lines = (root / "requirements/dev.txt").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("setuptools=="))
    assert lines[start].endswith("\\")
    assert "--hash=sha256:" in lines[start + 1]


def test_runs_as_a_numeric_user_without_a_shell(dockerfile: list[str], root: Path) -> None:
    last = dockerfile[max(i for i, line in enumerate(dockerfile) if line.startswith("FROM ")) :]
    assert "USER 65532:65532" in last
    assert 'ENTRYPOINT ["python", "-m", "fairlead"]' in last
    assert not any(line.startswith("RUN") for line in last)
    deployment = yaml.safe_load((root / "manifests/base/deployment.yaml").read_text())
    assert deployment["spec"]["template"]["spec"]["securityContext"]["runAsUser"] == 65532


def test_the_context_holds_what_is_copied_and_no_more(dockerfile: list[str], root: Path) -> None:
    sources = {
        source
        for line in dockerfile
        if line.startswith("COPY ") and "--from=" not in line
        for source in line.split()[1:-1]
    }
    rules = [line for line in (root / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert sources == {rule[1:] for rule in rules if rule.startswith("!")}
    assert all((root / source).exists() for source in sources)
    assert not any("fairlead_" in source for source in sources)
