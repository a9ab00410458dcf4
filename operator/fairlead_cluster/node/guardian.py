"""A watchman who outlives the node stand-in by a moment, and ends what it could not end itself.

The kernel kills a container's first process when the stand-in dies, but not that process's children. The stand-in
tells this process on a pipe what it has started; when the pipe closes, whatever the reason, all of them are killed.
Runs as a plain file with the standard library only, so that it is small and starts at once.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

if __name__ == "__main__" and not TYPE_CHECKING:
    sys.path.insert(0, str(Path(__file__).parent))
    from sessions import Group, kill_groups
else:
    from fairlead_cluster.node.sessions import Group, kill_groups


class Guardian:
    """The stand-in's end of the pipe."""

    def __init__(self, process: subprocess.Popen[bytes], pipe: IO[bytes]) -> None:
        self._process = process
        self._pipe = pipe

    @classmethod
    def start(cls) -> Self:
        """Start the process (in a session of its own, so that Ctrl-C does not reach it)."""
        command = [sys.executable, "-I", "-S", str(Path(__file__))]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, cwd="/")
        assert process.stdin is not None
        return cls(process, process.stdin)

    def watch(self, group: Group) -> None:
        """From now on these processes die with us."""
        self._say(f"+ {group.session} {group.mark}\n")

    def forget(self, group: Group) -> None:
        """They have ended."""
        self._say(f"- {group.session} {group.mark}\n")

    def close(self) -> None:
        """Let it kill what is left, and wait for its end."""
        self._pipe.close()
        self._process.wait()

    def _say(self, line: str) -> None:
        self._pipe.write(line.encode())
        self._pipe.flush()


def _guard() -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    watched: set[Group] = set()
    for line in sys.stdin:
        sign, session, mark = line.split()
        (watched.add if sign == "+" else watched.discard)(Group(int(session), mark))
    if watched:
        kill_groups(watched)


if __name__ == "__main__":
    _guard()
