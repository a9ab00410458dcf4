"""llm-katan, an OpenAI-compatible provider that we did not write, installed once from its lock file into the user's cache.

Our own fake providers record more and fail in more ways, but they believe of the API what we believe. `python -m hack.katan`
installs it (67 MB, some seconds); what it needs stays out of the virtual environment.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from fairlead_cluster.cache import cache_dir, exclusive
from fairlead_cluster.errors import BuildError
from fairlead_cluster.wheels import install_wheels

LOCK = Path(__file__).parents[1] / "requirements" / "katan.txt"


def find(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The folder to put on PYTHONPATH, if it is in the cache."""
    directory = directory_in(cache_dir(environ))
    return directory if (directory / "llm_katan" / "cli.py").is_file() else None


def find_or_install(say: Callable[[str], None], environ: Mapping[str, str] = os.environ) -> Path:
    """The same; installs it if need be. Raises BuildError with what pip said."""
    target = directory_in(cache_dir(environ))
    with exclusive(target.with_name(f"{target.name}.lock"), lambda: say("somebody else installs llm-katan: waiting")):
        found = find(environ)
        if found is None:
            say(f"installing llm-katan {pinned_version()} once into {target}")
            _install_into(target)
            found = find(environ)
    if found is None:
        raise BuildError(f"{LOCK.name} was installed, but there is no llm_katan/cli.py in {target}")
    return found


def pinned_version(lock: Path = LOCK) -> str:
    """Of llm-katan. Raises BuildError if the lock file does not pin it."""
    pin = re.search(r"^llm-katan==(\S+)", lock.read_text(), re.MULTILINE)
    if pin is None:
        raise BuildError(f"{lock} does not pin llm-katan")
    return pin[1]


def directory_in(cache: Path, lock: Path = LOCK) -> Path:
    """Another one for another lock file, and for another Python, whose wheels are others."""
    python = f"{platform.system()} {platform.machine()} {sys.implementation.cache_tag}\n"
    digest = hashlib.sha256(python.encode() + lock.read_bytes())
    return cache / "tools" / f"llm-katan-{pinned_version(lock)}-{digest.hexdigest()[:16]}"


def _install_into(target: Path) -> None:
    """Beside `target`, then renamed, so that a reader sees all or nothing."""
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{target.name}.partial-"))
    try:
        install_wheels(LOCK, partial)
        partial.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def main() -> int:
    """0 and the folder on stdout, or 1 and the reason on stderr."""
    try:
        print(find_or_install(lambda line: print(line, file=sys.stderr, flush=True)))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
