"""A TCP relay between one operator and the API server, which can be told to misbehave. It sees only ciphertext: what it can do to a
connection is what a network can."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import yaml

_SLOW_S = 0.4


class Mode(StrEnum):
    """How the network is."""

    OPEN = "open"
    REFUSING = "refusing"  # every connection ends at once
    BLACK_HOLE = "a black hole"  # nothing is refused and nothing answers
    SLOW = "slow"  # everything takes a while longer


class Relay:
    """Listens on a port of 127.0.0.1, in a thread of its own, until `close`."""

    def __init__(self, server_url: str) -> None:
        target = urlsplit(server_url)
        assert target.hostname is not None
        assert target.port is not None
        self._target = (target.hostname, target.port)
        self._mode = Mode.OPEN
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def kubeconfig(self, original: Path, path: Path) -> Path:
        """A copy of a kubeconfig that leads through here."""
        document = yaml.safe_load(original.read_text())
        for cluster in document["clusters"]:
            cluster["cluster"]["server"] = f"https://127.0.0.1:{self.port}"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(document))
        return path

    def be(self, mode: Mode) -> None:
        """From now on, for new connections and for those that are open."""
        self._mode = mode
        if mode is Mode.REFUSING:
            self.cut()

    def cut(self) -> None:
        """Break every connection that is open."""

        async def abort() -> None:
            for writer in list(self._writers):
                writer.transport.abort()

        self._call(abort())

    def close(self) -> None:
        """End everything."""
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _call(self, work):  # type: ignore[no-untyped-def]
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(asyncio.CancelledError):
            await self._relay(reader, writer)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode is Mode.REFUSING:
            writer.transport.abort()
            return
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, upstream_writer}
        self._writers |= both
        try:
            await asyncio.gather(self._copy(reader, upstream_writer), self._copy(upstream_reader, writer))
        except OSError:
            pass
        finally:
            self._writers -= both
            for one in both:
                with contextlib.suppress(OSError):
                    one.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            while self._mode is Mode.BLACK_HOLE:
                await asyncio.sleep(0.1)
            if self._mode is Mode.SLOW:
                await asyncio.sleep(_SLOW_S)
            writer.write(data)
            await writer.drain()
        writer.transport.abort()  # one side ended: so does the other
