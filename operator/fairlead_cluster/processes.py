"""Processes that die with their parent, that are ended by pid, and that say their last words.

A local cluster is a dozen processes. Two things must never happen: that one of them outlives the cluster (a crashed
test run would leave an API server behind), and that `down` ends a stranger that got a recycled pid. Hence: the kernel
kills each child when its parent dies, and a pid counts only together with the process's start time.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fairlead_cluster.errors import ComponentDiedError

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_TAIL_SIZE_BYTES = 16 * 1024

# PR_SET_PDEATHSIG fires when the *thread* that forked ends, not only when the process does. All children are therefore
# forked by one thread that lives as long as this process, whatever thread or event loop asked for them.
_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process that cannot be mistaken for another one: pid and start time in clock ticks since boot."""

    name: str
    pid: int
    start_ticks: int

    def is_alive(self) -> bool:
        """Whether exactly this process still runs (a zombie does not count)."""
        stat = _read_stat(self.pid)
        return stat is not None and stat.start_ticks == self.start_ticks and stat.state not in "ZX"

    def send(self, signum: signal.Signals) -> None:
        """Send a signal if exactly this process still runs; else do nothing."""
        if self.is_alive():
            try:
                os.kill(self.pid, signum)
            except ProcessLookupError:
                return

    def end(self, grace_s: float) -> None:
        """Ask the process to end, and kill it after `grace_s` seconds."""
        self.send(signal.SIGTERM)
        if not wait_until(lambda: not self.is_alive(), grace_s):
            self.send(signal.SIGKILL)
            wait_until(lambda: not self.is_alive(), 5.0)


@dataclass(frozen=True, slots=True)
class _Stat:
    state: str
    start_ticks: int


def _read_stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the command's name may hold blanks and parentheses
    return _Stat(state=fields[0], start_ticks=int(fields[19]))


def identify(name: str, pid: int) -> ProcessIdentity:
    """The identity of a running process; ProcessLookupError if there is none."""
    stat = _read_stat(pid)
    if stat is None:
        raise ProcessLookupError(f"no process {pid} ({name})")
    return ProcessIdentity(name, pid, stat.start_ticks)


def wait_until(condition: Callable[[], bool], timeout_s: float, interval_s: float = 0.02) -> bool:
    """Poll `condition` until it holds (True) or `timeout_s` seconds are over (False)."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval_s)
    return True


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log file, indented; what a person needs to see when a process died."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_SIZE_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return "    (no log)"
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:]) or "    (its log is empty)"


def _die_with(parent_pid: int, signum: signal.Signals) -> Callable[[], None]:
    def in_child() -> None:
        if _LIBC is not None and _LIBC.prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0) != 0:
            os._exit(126)
        if os.getppid() != parent_pid:  # the parent died between fork and prctl
            os._exit(126)

    return in_child


class ManagedProcess:
    """A child with a log file, started by `spawn`, that does not outlive this process."""

    def __init__(
        self,
        name: str,
        popen: subprocess.Popen[bytes],
        log_path: Path,
        stop_grace_s: float,
        start_again: Callable[[], ManagedProcess],
    ) -> None:
        self.name = name
        self.log_path = log_path
        self.start_again = start_again  # the same command once more; for one that has ended
        self._popen = popen
        self._stop_grace_s = stop_grace_s
        self.identity = identify(name, popen.pid)

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; else its exit status (negative: the signal that ended it)."""
        return self._popen.poll()

    def is_running(self) -> bool:
        """Whether the child still runs."""
        return self._popen.poll() is None

    def check(self) -> None:
        """Raise ComponentDiedError with the end of the log if the child has ended."""
        code = self.returncode
        if code is not None:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
            raise ComponentDiedError(f"{self.name} {how}; the end of {self.log_path}:\n{tail(self.log_path)}")

    def send(self, signum: signal.Signals) -> None:
        """Send a signal; nothing happens if the child has ended."""
        self._popen.send_signal(signum)

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end; False if it still runs after `timeout_s` seconds."""
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, grace_s: float | None = None) -> None:
        """SIGTERM, then SIGKILL after the grace time (default: the one given to `spawn`). Safe to call twice."""
        self.send(signal.SIGTERM)
        if not self.wait(self._stop_grace_s if grace_s is None else grace_s):
            self.send(signal.SIGKILL)
            self._popen.wait()

    def kill(self) -> None:
        """SIGKILL, as a crash would be; returns when the child is gone."""
        self.send(signal.SIGKILL)
        self._popen.wait()


def spawn(
    name: str,
    command: Sequence[str | Path],
    log_path: Path,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stop_grace_s: float = 10.0,
    death_signal: signal.Signals = signal.SIGKILL,
) -> ManagedProcess:
    """Start a child whose output goes to the end of `log_path`.

    The child gets `death_signal` when this process dies. `env` replaces the environment as a whole. It has a process
    group of its own, so that Ctrl-C at the terminal reaches only the parent, which then stops things in order.
    """

    def fork() -> subprocess.Popen[bytes]:
        with log_path.open("ab") as log:
            return subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                process_group=0,
                preexec_fn=_die_with(os.getpid(), death_signal),
            )

    def start() -> ManagedProcess:
        return ManagedProcess(name, _SPAWNER.submit(fork).result(), log_path, stop_grace_s, start)

    log_path.parent.mkdir(parents=True, exist_ok=True)
    return start()
