"""How `tests/conftest.py` ends a session: the same in one process and in several, for all tests, without the long ones, and for those."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests import conftest
from tests.witness import Witness

ROOT = Path(__file__).resolve().parents[3]
SKIPS = "import pytest\n@pytest.mark.parametrize('n', [1, 2])\ndef test_it(n):\n    pytest.skip('not here')\n"
LEAKS = "def test_it(witnessed):\n    witnessed.leaks.append(__name__)\n"
PASSES = "def test_it():\n    pass\n"
DIES = "import os\ndef test_it():\n    os._exit(1)\n"
SEVERAL = pytest.mark.parametrize("processes", [[], ["-n", "2", "--dist", "loadfile"]], ids=["one", "several"])


def run(directory: Path, files: Mapping[str, str], processes: list[str], allowed: str = "") -> tuple[int, str]:
    """Status and output of a session with these files, judged as CI judges."""
    for name, text in files.items():
        (directory / f"test_{name}.py").write_text(text)
    (directory / "skips").write_text(allowed)
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", directory, "-p", "tests.conftest"]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))},
        "PYTHONPATH": f"{ROOT}:{ROOT / 'operator'}",
        "FAIRLEAD_ALLOWED_SKIPS": str(directory / "skips"),
    }
    line = [str(part) for part in (*command, *processes, directory)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


@SEVERAL
def test_a_skip_is_a_failure_unless_it_is_allowed(tmp_path: Path, processes: list[str]) -> None:
    status, output = run(tmp_path, {"a": PASSES, "b": SKIPS}, processes, allowed="test_b.py::test_it[[]1]  # why not\n")
    assert status == 1, output
    assert "skipped without being allowed" in output
    assert "  test_b.py::test_it[2]\n" in output
    assert "  test_b.py::test_it[1]\n" not in output
    status, output = run(tmp_path, {}, processes, allowed="test_b.py::*\n")
    assert status == 0, output


@SEVERAL
def test_what_any_process_witnessed_is_a_failure(tmp_path: Path, processes: list[str]) -> None:
    status, output = run(tmp_path, {"a": PASSES, "b": LEAKS, "c": LEAKS}, processes)
    assert status == 1, output
    assert output.count("a planted secret got out: test_") == 2, output


def test_a_process_that_dies_is_a_failure(tmp_path: Path) -> None:
    """What it saw is lost with it."""
    status, output = run(tmp_path, {"a": PASSES, "b": DIES}, ["-n", "2", "--dist", "loadfile"])
    assert status == 1, output
    assert "crashed" in output


@pytest.mark.parametrize(
    ("markers", "keyword", "more", "whole"),
    [
        ("", "", True, True),
        ("not long", "", True, True),
        ("not alone", "", True, True),
        ("long", "", True, False),
        ("", "operator", True, False),
        ("not long", "", False, False),
    ],
)
def test_which_run_is_whole(
    monkeypatch: pytest.MonkeyPatch, markers: str, keyword: str, more: bool, whole: bool
) -> None:
    witness = Witness()
    monkeypatch.setattr(conftest, "WITNESS", witness)
    config = SimpleNamespace(option=SimpleNamespace(markexpr=markers, keyword=keyword))
    paths = sorted(conftest._CLUSTER_TESTS)
    items = [_make_item(path) for path in (paths if more else paths[1:])]
    conftest.pytest_collection_modifyitems(config, items)  # type: ignore[arg-type]
    assert witness.whole is whole


def test_what_runs_alone_is_long() -> None:
    """`make test` runs what is not long beside others."""
    config = SimpleNamespace(option=SimpleNamespace(markexpr="", keyword=""))
    path = min(conftest._CLUSTER_TESTS)
    conftest.pytest_collection_modifyitems(config, [_make_item(path, "alone", "long")])  # type: ignore[arg-type,list-item]
    with pytest.raises(pytest.UsageError, match="hasty"):
        conftest.pytest_collection_modifyitems(config, [_make_item(path, "alone", name="hasty")])  # type: ignore[arg-type,list-item]


def _make_item(path: Path, *markers: str, name: str = "test") -> SimpleNamespace:
    return SimpleNamespace(path=path, nodeid=name, get_closest_marker=lambda one: one if one in markers else None)
