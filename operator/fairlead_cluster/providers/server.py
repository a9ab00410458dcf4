"""One provider's HTTPS server: reads requests, records them, answers or fails."""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
import socket
import ssl
import struct
from collections.abc import Iterable
from weakref import WeakKeyDictionary

from fairlead_cluster.providers.faults import Fault, Faults, Kind
from fairlead_cluster.providers.http1 import LIMIT_BYTES, ProtocolError, Request, read_request
from fairlead_cluster.providers.recording import Recorder
from fairlead_cluster.providers.replies import Behaviour, Reply, make_reply

_log = logging.getLogger(__name__)
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with 0 seconds: close sends RST instead of FIN
_GARBAGE = b"\x16\x03\x00 this is not HTTP\r\n\r\n\x00\xff" * 8


class ProviderServer:
    """Listens at `host:port` between `open` and `close`, again and again; what it knows lasts."""

    def __init__(self, name: str, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self.name = name
        self.host = host
        self.port = port
        self.recorder = Recorder(name)
        self.faults = Faults()
        self.behaviour = Behaviour()
        self._context = context
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._count = 0
        self._server_names: WeakKeyDictionary[object, str] = WeakKeyDictionary()
        if context is not None:
            context.sni_callback = self._note_server_name

    @property
    def open_connections(self) -> int:
        """How many clients are connected now, idle ones included."""
        return len(self._connections)

    async def open(self) -> None:
        """Listen. OSError if somebody else does. Nothing happens if it listens already."""
        if self._server is None:
            self._server = await asyncio.start_server(
                self._accept, self.host, self.port, ssl=self._context, limit=LIMIT_BYTES
            )

    async def close(self) -> None:
        """Refuse connections, and reset those that there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task, writer in list(self._connections.items()):
            _reset(writer)
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _note_server_name(self, connection: object, name: str | None, _context: ssl.SSLContext) -> None:
        self._server_names[connection] = name or ""

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        self._count += 1
        try:
            await self._serve(reader, writer, self._count)
        except ProtocolError as error:
            _log.warning("%s: %s", self.name, error)
            writer.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        except (ConnectionError, ssl.SSLError) as error:
            _log.info("%s: the client went away: %s", self.name, error)
        except asyncio.CancelledError:
            return  # by `close`, which waits for us
        finally:
            del self._connections[task]
            with contextlib.suppress(OSError, RuntimeError):
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        server_name = self._server_names.get(writer.get_extra_info("ssl_object"), "") if self._context else ""
        while True:
            request = await read_request(reader, writer)
            if request is None:
                return
            fault = self.faults.take(request) if request.complete else None
            kind = fault.kind if fault else ""
            self.recorder.note(request, connection=connection, server_name=server_name, fault=kind)
            if not request.complete or not await self._answer(request, fault, reader, writer):
                return

    async def _answer(
        self, request: Request, fault: Fault | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """False if the connection is at its end."""
        reply = make_reply(request, self.name, self.behaviour)
        if fault is None:
            await self._send(reply, reply.pieces, writer)
            await _finish(reply, writer)
            return (request.header("connection") or "").lower() != "close"
        if fault.kind is Kind.RESET:
            _reset(writer)
        elif fault.kind is Kind.GARBAGE:
            writer.write(_GARBAGE)
            await writer.drain()
        elif fault.kind is Kind.STATUS:
            body = fault.error_body(request)
            failed = Reply(fault.code, {"content-type": "application/json", **fault.headers}, (body,))
            await self._send(failed, failed.pieces, writer)
            return True
        elif fault.kind is Kind.SLOW:
            await asyncio.sleep(fault.delay_s)
            await self._send(reply, reply.pieces, writer)
            await _finish(reply, writer)
            return True
        else:
            await self._send(reply, _first(reply, fault.after_chunks), writer)
            if fault.kind is Kind.STALL:
                await reader.read(1)  # until the client goes (or sends what nobody will answer)
            elif fault.kind is Kind.GARBLED:
                writer.write(_GARBAGE)
                await writer.drain()
        return False

    async def _send(self, reply: Reply, pieces: Iterable[bytes], writer: asyncio.StreamWriter) -> None:
        size = {} if reply.is_stream else {"content-length": str(sum(map(len, reply.pieces)))}
        framing = {"transfer-encoding": "chunked"} if reply.is_stream else size
        try:
            words = http.HTTPStatus(reply.status).phrase
        except ValueError:
            words = ""
        lines = [f"HTTP/1.1 {reply.status} {words}", *(f"{key}: {value}" for key, value in reply.headers.items())]
        lines += [f"{key}: {value}" for key, value in framing.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        for index, piece in enumerate(pieces):
            if index and self.behaviour.gap_s:
                await writer.drain()
                await asyncio.sleep(self.behaviour.gap_s)
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if reply.is_stream else piece)
        await writer.drain()


async def _finish(reply: Reply, writer: asyncio.StreamWriter) -> None:
    if reply.is_stream:
        writer.write(b"0\r\n\r\n")
        await writer.drain()


def _first(reply: Reply, count: int) -> tuple[bytes, ...]:
    """The beginning of a body: some pieces of a stream, half of anything else."""
    if reply.is_stream:
        return reply.pieces[:count]
    whole = b"".join(reply.pieces)
    return (whole[: len(whole) // 2],)


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
