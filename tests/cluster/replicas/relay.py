"""A TCP relay between one replica and the API server, so that a test can take just this replica's network away.

It forwards bytes and knows nothing of TLS. `cut` is a network that says so (connections are reset, new ones refused);
`black_hole` is one that does not: nothing arrives any more, in either direction, and nobody is told. `hold_requests` is the
worst: what the replica sends is kept, and arrives when nobody thinks of it any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 65_536
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)
_START_TIMEOUT_S = 10.0
_REQUEST_S = 0.5  # head and body of one request may come in two pieces
_LINGER_S = 5.0


class Relay:
    """Listens on a free port of 127.0.0.1 and forwards to `target`, in a thread of its own; a context manager."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.port = 0
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._server: asyncio.Server | None = None
        self._refusing = False
        self._open = asyncio.Event()  # from the replica to the server
        self._answers = asyncio.Event()  # from the server to the replica
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(_START_TIMEOUT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_START_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_TIMEOUT_S)
        self._loop.close()

    @property
    def url(self) -> str:
        """Where the replica finds its API server."""
        return f"https://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset every connection, and every new one."""
        self._call(self._cut)

    def black_hole(self) -> None:
        """Accept connections and bytes, and let nothing through."""
        self._call(self._close_both)

    def hold_requests(self) -> None:
        """What the server says arrives; what the replica says is kept, until `heal`."""
        self._call(self._open.clear)

    def heal(self) -> None:
        """Forward again. What was kept by `hold_requests` arrives now, although its sender is gone; what fell into a black
        hole is lost."""
        self._call(self._heal)

    def _close_both(self) -> None:
        self._open.clear()
        self._answers.clear()

    def _call(self, work: object) -> None:
        done = threading.Event()

        def run() -> None:
            work()  # type: ignore[operator]
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(_START_TIMEOUT_S)

    async def _start(self) -> None:
        self._heal()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        self._reset_all()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _cut(self) -> None:
        self._refusing = True
        self._reset_all()

    def _heal(self) -> None:
        if not self._answers.is_set():
            self._reset_all()
        self._refusing = False
        self._open.set()
        self._answers.set()

    def _reset_all(self) -> None:
        for writer in self._writers:
            _reset(writer)
        for task in self._tasks:
            task.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._forward(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        self._writers.add(writer)
        try:
            if self._refusing:
                return
            await self._open.wait()
            back, forth = await asyncio.open_connection(*self._target)
            ends.append(forth)
            self._writers.add(forth)
            pumps = [
                asyncio.create_task(self._pump(reader, forth, self._open)),
                asyncio.create_task(self._pump(back, writer, self._answers)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            return
        finally:
            for end in ends:
                self._writers.discard(end)
                _reset(end) if self._refusing else end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                if not gate.is_set():
                    await self._deliver_late(data, reader, writer, gate)
                    return
                writer.write(data)
                await writer.drain()

    async def _deliver_late(
        self, data: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        """One request arrives late. What its sender says afterwards (that it is gone, for instance) is lost."""
        with contextlib.suppress(TimeoutError):
            data += await asyncio.wait_for(reader.read(_CHUNK_BYTES), _REQUEST_S)
        await gate.wait()
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(_LINGER_S)


def _reset(writer: asyncio.StreamWriter) -> None:
    raw: socket.socket | None = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
    writer.transport.abort()
