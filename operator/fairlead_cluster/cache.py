"""Where expensive things are kept between runs: the user's cache folder, with a lock per thing that is made once."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """FAIRLEAD_CACHE, else `fairlead` in XDG_CACHE_HOME, else `~/.cache/fairlead`. Not created here."""
    if explicit := environ.get("FAIRLEAD_CACHE"):
        return Path(explicit).expanduser().resolve()
    xdg = environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says that a relative path is invalid and must be ignored.
    base = Path(xdg) if Path(xdg).is_absolute() else Path.home() / ".cache"
    return base / "fairlead"


@contextlib.contextmanager
def exclusive(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file exclusively; calls `on_wait` once if somebody else has it. The kernel frees it if we die."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
