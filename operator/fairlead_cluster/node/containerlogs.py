"""Log files of containers, laid out as a kubelet's /var/log/pods, and the end of them for termination messages."""

from __future__ import annotations

import os
from pathlib import Path

_MESSAGE_LIMIT_BYTES = 4096
_FALLBACK_LIMIT_BYTES, _FALLBACK_LIMIT_LINES = 2048, 80
_KEPT_RUNS = 2


class ContainerLogs:
    """`directory/0.log`, `1.log`, … one per run; the last two are kept."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def open(self, run: int) -> int:
        """A file descriptor to append to; the caller closes it."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self.path(run - _KEPT_RUNS).unlink(missing_ok=True)
        return os.open(self.path(run), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def path(self, run: int) -> Path:
        """Of one run's file, which may not exist."""
        return self._directory / f"{run}.log"

    def last_words(self, run: int) -> str:
        """What `FallbackToLogsOnError` takes: the last 80 lines, at most 2048 bytes."""
        try:
            data = self.path(run).read_bytes()[-_FALLBACK_LIMIT_BYTES:]
        except FileNotFoundError:
            return ""
        return "".join(data.decode(errors="replace").splitlines(keepends=True)[-_FALLBACK_LIMIT_LINES:])


def termination_message(path: Path, policy: str, exit_code: int, logs: ContainerLogs, run: int) -> str:
    """The message of a run that ended: from its file, else (if the policy says so, after an error) from its log."""
    try:
        message = path.read_bytes()[:_MESSAGE_LIMIT_BYTES].decode(errors="replace")
    except OSError:
        message = ""
    if not message and policy == "FallbackToLogsOnError" and exit_code != 0:
        message = logs.last_words(run)
    return message
