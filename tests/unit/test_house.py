"""Laws of the house that no linter knows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Modules that may be longer, each with its reason.
LONG_MODULES = {"tests/unit/runtime/test_controller.py": "one table of passes with every fault that a write can have"}


def tracked_files() -> list[Path]:
    """Files that git tracks, or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_the_source_root_is_not_a_package() -> None:
    """`operator/__init__.py` would shadow the standard library's `operator` for everybody."""
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_the_standard_librarys_operator_wins_from_the_checkout() -> None:
    """Python started in the checkout still gets the standard library's module."""
    code = "import collections, operator; print(operator.__file__)"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert str(ROOT) not in out


@pytest.mark.parametrize(
    "path", [p for p in tracked_files() if p.suffix == ".py"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_every_module_says_why_it_exists_and_fits(path: Path) -> None:
    text = path.read_text()
    if not text.strip():
        pytest.fail(f"{path.relative_to(ROOT)} is empty")
    assert re.match(r'(#![^\n]*\n)?("""|r""")\S', text), "a module begins with a docstring that says why it exists"
    name = str(path.relative_to(ROOT))
    assert len(text.splitlines()) <= 500 or name in LONG_MODULES, "over 500 lines: two rooms?"


def test_no_path_of_a_machine_and_no_registry_host_is_committed() -> None:
    """A lock or a script must work on every machine, with whatever registry it has."""
    machine = re.compile(r"(?<![\w./-])/(?:work|root|home/[a-z])(?:/|\b)")
    registry = re.compile(
        r"pypi\.org|files\.pythonhosted|proxy\.golang\.org|registry\.npmjs|deb\.debian\.org|repo1?\.maven"
    )
    found = []
    for path in tracked_files():
        if path == Path(__file__).resolve() or path.suffix in {".png", ".gguf"}:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if machine.search(line) or registry.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert not found, "\n".join(found)


def test_the_lock_carries_no_address_and_only_hashed_pins() -> None:
    for lock in sorted((ROOT / "requirements").glob("*.txt")):
        lines = lock.read_text().splitlines()
        assert not [line for line in lines if "://" in line or line.startswith("--")], lock.name
        pins = [line for line in lines if re.match(r"^[A-Za-z0-9]", line)]
        assert pins, f"{lock.name} pins nothing"
        assert all(re.match(r"^[\w.-]+==[\w.!+-]+( ;.*)? \\$", pin) for pin in pins), lock.name
