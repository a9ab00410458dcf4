"""One TCP forwarder: accepts at an address, passes each connection on to one of some endpoints, byte by byte.

It must be as invisible as kube-proxy's rules in the kernel: nothing is buffered beyond the sockets, a half-close and a
reset on one side are the same on the other, an open connection survives when its pod leaves the Service, and an
address without endpoints refuses connections.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import struct
from contextlib import suppress

from fairlead_cluster.endpoints import Endpoint

_log = logging.getLogger(__name__)
_CHUNK_SIZE_BYTES = 64 * 1024
_BACKLOG = 512
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with 0 seconds: close sends RST instead of FIN


class Forwarder:
    """Forwards `host:port`. `set_endpoints` starts and stops listening; `close` ends everything."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._endpoints: tuple[Endpoint, ...] = ()
        self._turn = random.SystemRandom().randrange(1 << 16)  # not all forwarders begin with the same pod
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where new connections go."""
        return self._endpoints

    @property
    def is_listening(self) -> bool:
        """Whether the address accepts connections."""
        return self._server is not None

    async def set_endpoints(self, endpoints: tuple[Endpoint, ...]) -> None:
        """From now on new connections go to these, in turn. OSError if the address cannot be bound."""
        self._endpoints = endpoints
        if endpoints and self._server is None:
            self._server = await asyncio.start_server(self._accept, self.host, self.port, backlog=_BACKLOG)
        elif not endpoints and self._server is not None:
            self._server.close()
            self._server = None

    async def close(self) -> None:
        """Stop listening and reset the open connections, as the end of the machine would."""
        self._endpoints = ()
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._forward(reader, writer)
        finally:
            self._connections.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        endpoint = self._next_endpoint()
        if endpoint is None:
            _reset(writer)
            return
        try:
            pod_reader, pod_writer = await asyncio.open_connection(endpoint.ip, endpoint.port)
        except OSError as error:
            # No second try with another pod: kube-proxy would not do it either, and clients must cope.
            _log.info("%s:%d -> %s:%d: %s", self.host, self.port, endpoint.ip, endpoint.port, error)
            _reset(writer)
            return
        except asyncio.CancelledError:
            _reset(writer)
            raise
        await _join((reader, writer), (pod_reader, pod_writer))

    def _next_endpoint(self) -> Endpoint | None:
        if not self._endpoints:
            return None
        self._turn += 1
        return self._endpoints[self._turn % len(self._endpoints)]


_Side = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _join(client: _Side, pod: _Side) -> None:
    """Copy both ways until both directions are at their end; a broken side breaks the other."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(client[0], pod[1]))
            group.create_task(_copy(pod[0], client[1]))
    except* OSError:
        _reset(client[1])
        _reset(pod[1])
    except* asyncio.CancelledError:
        _reset(client[1])
        _reset(pod[1])
    else:
        client[1].close()
        pod[1].close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(_CHUNK_SIZE_BYTES):
        sink.write(data)
        await sink.drain()
    sink.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
