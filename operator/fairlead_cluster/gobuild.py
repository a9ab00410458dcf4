"""Runs `go` for builds that take minutes: the same clean environment every time, and a sign of life while it works."""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fairlead_cluster.errors import BuildError

HEARTBEAT_S = 15.0
_STRAYS = ("GOOS", "GOARCH", "GOROOT", "GOBIN")

Say = Callable[[str], None]


def make_go_environment(environ: Mapping[str, str], *, cgo: bool) -> dict[str, str]:
    """The user's environment (caches, proxies) without what would change the result of a pinned build."""
    environment = {name: value for name, value in environ.items() if name not in _STRAYS}
    environment.update(CGO_ENABLED="1" if cgo else "0", GOFLAGS="-mod=readonly", GOTOOLCHAIN="local", GOWORK="off")
    return environment


def run_go(command: Sequence[str], cwd: Path, environment: Mapping[str, str], say: Say, doing: str) -> list[str]:
    """Run go with a heartbeat; the lines of its stdout. On stderr go says a line per package or module, and errors.

    Raises BuildError with its last words.
    """
    done_lines = 0
    last_words: deque[str] = deque(maxlen=20)
    started = time.monotonic()

    def progress() -> str:
        return f"  {doing}: {time.monotonic() - started:.0f} s, {done_lines} done"

    with (
        tempfile.TemporaryFile("w+") as stdout,
        subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(environment),
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
        ) as process,
        _heartbeat(lambda: say(progress())),
    ):
        assert process.stderr is not None
        for line in process.stderr:
            done_lines += 1
            last_words.append(line.rstrip())
        if process.wait() != 0:
            errors = "\n".join(f"  {line}" for line in last_words)
            raise BuildError(f"`{command[0]} {command[1]}` ended with {process.returncode}:\n{errors}")
        stdout.seek(0)
        return stdout.read().splitlines()


@contextmanager
def _heartbeat(beat: Callable[[], None]) -> Iterator[None]:
    stopped = threading.Event()

    def run() -> None:
        while not stopped.wait(HEARTBEAT_S):
            beat()

    thread = threading.Thread(target=run, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
