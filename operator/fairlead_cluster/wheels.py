"""Installs packages from a lock file into a folder of their own: nothing is resolved, and every file is checked by its hash."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from fairlead_cluster.errors import BuildError


def install_wheels(lock: Path, target: Path) -> None:
    """What `lock` pins, and nothing else, into `target`. Raises BuildError with what pip said."""
    command = [_python_with_pip(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--only-binary=:all:", "--target", str(target), "-r", str(lock)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"pip could not install what {lock.name} pins; pip said:\n{done.stderr.strip()}")


def _python_with_pip() -> str:
    if importlib.util.find_spec("pip") is not None:
        return sys.executable
    # A virtual environment made with --without-pip: the interpreter below it has one.
    base: str = getattr(sys, "_base_executable", sys.executable)
    probe = subprocess.run([base, "-m", "pip", "--version"], capture_output=True, check=False)
    if probe.returncode != 0:
        raise BuildError("neither this Python nor the one below it has pip: install pip")
    return base
