"""Processes of containers: started so that they cannot outlive the stand-in, waited for without threads or polling."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import secrets
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fairlead_cluster.node.guardian import Guardian
from fairlead_cluster.node.sessions import MARK, Group, kill_groups

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
# PR_SET_PDEATHSIG fires when the *thread* that forked ends: one thread forks for the whole life of this process.
_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="container-spawner")


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: `program` is the file, `arguments` all of argv."""

    program: str
    arguments: Sequence[str]
    env: Mapping[str, str]
    working_dir: Path


@dataclass(frozen=True, slots=True)
class Stdio:
    """File descriptors of a process; the caller closes them. `terminal`: they are one, which shall control it."""

    stdout: int
    stderr: int
    stdin: int = subprocess.DEVNULL
    terminal: bool = False


class StartError(Exception):
    """The program could not be started; `str()` is what a container runtime would say."""


class ContainerProcess:
    """A running process that leads a session. `await process.wait()` gives the exit code as a container has it."""

    def __init__(self, popen: subprocess.Popen[bytes], mark: str, guardian: Guardian) -> None:
        self._popen = popen
        self._guardian = guardian
        self._ended = asyncio.get_running_loop().create_future()
        self._pidfd = os.pidfd_open(popen.pid)
        self._group = Group(popen.pid, mark)
        guardian.watch(self._group)
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)

    @classmethod
    async def start(cls, command: Command, stdio: Stdio, guardian: Guardian) -> Self:
        """Start it. StartError if that fails.

        If the caller is cancelled meanwhile, nothing stays behind.
        """
        mark = secrets.token_hex(8)
        spawning = _SPAWNER.submit(_spawn, command, mark, stdio, os.getpid())
        try:
            popen = await asyncio.shield(asyncio.wrap_future(spawning))
        except asyncio.CancelledError:
            spawning.add_done_callback(lambda spawned: _kill_orphan(spawned, mark))
            raise
        except OSError as error:
            raise StartError(_start_message(command.arguments[0], error)) from error
        return cls(popen, mark, guardian)

    @property
    def group(self) -> Group:
        """It and all that it has started."""
        return self._group

    def has_ended(self) -> bool:
        """Whether its exit was seen."""
        return self._ended.done()

    async def wait(self) -> int:
        """Its exit code; 128 + n when signal n ended it. All processes that it left behind are dead by then."""
        return int(await asyncio.shield(self._ended))

    def send(self, signum: signal.Signals) -> None:
        """A signal to the first process only, as a container runtime sends it."""
        if not self._ended.done():
            with contextlib.suppress(ProcessLookupError):
                self._popen.send_signal(signum)

    def kill(self) -> None:
        """SIGKILL to the first process; the rest follows when its exit is seen, as in a PID namespace."""
        self.send(signal.SIGKILL)

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        # The first process is still a zombie, so its pid (and session id) cannot belong to anybody else yet.
        kill_groups([self._group])
        code = self._popen.wait()
        self._guardian.forget(self._group)
        self._ended.set_result(128 - code if code < 0 else code)


def _spawn(command: Command, mark: str, stdio: Stdio, parent_pid: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        list(command.arguments),
        executable=command.program,
        stdin=stdio.stdin,
        stdout=stdio.stdout,
        stderr=stdio.stderr,
        env={**command.env, MARK: mark},
        cwd=command.working_dir,
        start_new_session=True,
        preexec_fn=_prepare(parent_pid, terminal=stdio.terminal),
    )


def _prepare(parent_pid: int, *, terminal: bool) -> Callable[[], None]:
    def in_child() -> None:
        if _LIBC is not None and _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
            os._exit(126)
        if os.getppid() != parent_pid:  # the parent died between fork and prctl
            os._exit(126)
        if terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    return in_child


def _kill_orphan(spawning: Future[subprocess.Popen[bytes]], mark: str) -> None:
    if spawning.cancelled() or spawning.exception() is not None:
        return
    popen = spawning.result()
    popen.kill()
    kill_groups([Group(popen.pid, mark)])
    popen.wait()


def _start_message(program: str, error: OSError) -> str:
    reason = {
        FileNotFoundError: "no such file or directory" if "/" in program else "executable file not found in $PATH",
        PermissionError: "permission denied",
    }.get(type(error), str(error.strerror).lower())
    return (
        "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
        f'unable to start container process: error during container init: exec: "{program}": {reason}'
    )
