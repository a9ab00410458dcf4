"""A process of its own in which other people's engine templates are rendered, with a limit of time and of memory.

Jinja's sandbox keeps a template from reaching anything, but not from running for ever or filling the memory; in the
operator's own process that would stop every deployment and lose the Lease. The process is started when the first such
template appears, is reused, and is killed when it takes too long. It gets its work on stdin and has no credentials.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import resource
import struct
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

if TYPE_CHECKING:
    from fairlead.facts.observed import Observed, OperatorFacts
    from fairlead.planning.plan import Plan

logger = logging.getLogger(__name__)

TIME_LIMIT_S: Final = 1.0
MEMORY_LIMIT_BYTES: Final = 64 * 1024 * 1024
START_LIMIT_S: Final = 30.0
_HEADER: Final = struct.Struct(">I")
_READY: Final = b"ready"


class SandboxError(Exception):
    """A plan could not be made within the limits; `str()` says which."""


class _OutOfMemoryError(Exception):
    """Unpickled here, raised there."""


class Sandbox:
    """One process, one plan at a time; started on demand. The limits are for tests to change."""

    def __init__(self, *, time_limit_s: float = TIME_LIMIT_S, memory_limit_bytes: int = MEMORY_LIMIT_BYTES) -> None:
        self._time_limit_s = time_limit_s
        self._memory_limit_bytes = memory_limit_bytes
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None

    async def decide(
        self,
        raw: Mapping[str, Any],
        observed: Observed,
        overrides: Mapping[str, tuple[str, str]],
        facts: OperatorFacts,
        now: datetime,
    ) -> Plan:
        """What `runtime.decide.decide` answers there. Raises SandboxError beyond the limits, else what it raises."""
        request = pickle.dumps((dict(raw), observed, dict(overrides), facts, now))
        async with self._lock:
            process = await self._running()
            try:
                async with asyncio.timeout(self._time_limit_s):
                    answer = await _exchange(process, request)
            except TimeoutError:
                await self._kill("a template took longer than it may")
                raise SandboxError(f"rendering takes longer than {self._time_limit_s:g} s") from None
            except (OSError, EOFError, asyncio.IncompleteReadError) as error:
                await self._kill("it ended in the middle of a template")
                raise SandboxError("rendering ended the process that it ran in") from error
            except asyncio.CancelledError:
                await self._kill()  # an answer that nobody waits for must not become the next one's
                raise
        result = pickle.loads(answer)  # noqa: S301 - from our own child, which no template can make write
        if isinstance(result, _OutOfMemoryError):
            limit_mib = self._memory_limit_bytes // 2**20
            raise SandboxError(f"rendering needs more than {limit_mib} MiB of memory")
        if isinstance(result, BaseException):
            raise result
        plan: Plan = result
        return plan

    async def close(self) -> None:
        """End the process."""
        async with self._lock:
            await self._kill()

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            __name__,
            str(self._memory_limit_bytes),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PATH": os.defpath},
            limit=2**26,
        )
        self._process = process
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_LIMIT_S):
                hello = await _receive(process.stdout)
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._kill()
            raise
        assert hello == _READY
        logger.info("A process for engines from ConfigMaps was started", extra={"pid": process.pid})
        return process

    async def _kill(self, why: str = "") -> None:
        process, self._process = self._process, None
        if process is not None:
            if why:
                logger.warning("The process for engines from ConfigMaps was ended: %s", why, extra={"pid": process.pid})
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _exchange(process: asyncio.subprocess.Process, request: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(_HEADER.pack(len(request)) + request)
    await process.stdin.drain()
    return await _receive(process.stdout)


async def _receive(stream: asyncio.StreamReader) -> bytes:
    (length,) = _HEADER.unpack(await stream.readexactly(_HEADER.size))
    return await stream.readexactly(length)


def _serve(requests: BinaryIO, answers: BinaryIO, memory_limit_bytes: int) -> None:
    """The other side: one request after the other until stdin ends."""
    from fairlead.runtime.decide import decide

    _limit_memory(memory_limit_bytes)
    _send(answers, _READY)
    while header := requests.read(_HEADER.size):
        request = pickle.loads(requests.read(_HEADER.unpack(header)[0]))  # noqa: S301 - from our own parent
        result: object
        try:
            result = decide(*request)
        except MemoryError:
            result = _OutOfMemoryError()
        except Exception as error:  # noqa: BLE001 - whatever it is, the other side raises it
            result = error
        _send(answers, _pickle(result))


def _pickle(result: object) -> bytes:
    try:
        raw = pickle.dumps(result)
        pickle.loads(raw)  # noqa: S301 - some exceptions can be pickled and not read again
    except Exception:  # noqa: BLE001 - pickling runs code of the object's class
        return pickle.dumps(RuntimeError(f"{type(result).__name__}: {result}"))
    return raw


def _send(stream: BinaryIO, answer: bytes) -> None:
    stream.write(_HEADER.pack(len(answer)) + answer)
    stream.flush()


def _limit_memory(limit_bytes: int) -> None:
    """No more address space than the process has now and `limit_bytes` beyond. Where there is no /proc, no limit."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        now_bytes = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now_bytes + limit_bytes, now_bytes + limit_bytes))


if __name__ == "__main__":
    # Whatever a library prints must not land among the answers.
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    from fairlead.runtime.sandbox import _serve as serve  # the module's own name, so that pickles agree on both sides

    serve(sys.stdin.buffer, channel, int(sys.argv[1]))
