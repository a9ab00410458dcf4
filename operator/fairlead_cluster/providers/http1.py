"""HTTP/1.1 requests exactly as they come over the wire.

Not by a web framework: those merge, fold and drop (trailers, the case and order of headers, how a body was framed), and
what a client has really sent is the whole point here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import Any

#: Of a request's head, and of one line of a chunked body.
LIMIT_BYTES = 1024 * 1024
Headers = tuple[tuple[str, str], ...]


class ProtocolError(Exception):
    """What came is not an HTTP/1.1 request."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `target` has the query; headers are in the order and case in which they came.

    complete: False if the client went away before the end of the body; `body` is what came of it.
    """

    method: str
    target: str
    version: str
    headers: Headers
    body: bytes = b""
    trailers: Headers = ()
    complete: bool = True

    @property
    def path(self) -> str:
        """Without the query."""
        return self.target.split("?", 1)[0]

    def header(self, name: str) -> str | None:
        """The first header of that name, in any case; None if there is none."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def json(self) -> Any:
        """The body as JSON; None if it is not."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    """The next request; None at the end of the connection. ProtocolError for what is not one."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial.strip():
            raise ProtocolError(f"the connection ended within a head: {error.partial[:200]!r}") from error
        return None
    except asyncio.LimitOverrunError as error:
        raise ProtocolError("a head without end") from error
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise ProtocolError(f"not a request line: {lines[0][:200]!r}")
    headers = _headers(lines[1:])
    request = Request(words[0], words[1], words[2], headers)
    if (request.header("expect") or "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body, trailers, complete = await _read_body(reader, request)
    return Request(words[0], words[1], words[2], headers, body, trailers, complete)


async def _read_body(reader: asyncio.StreamReader, request: Request) -> tuple[bytes, Headers, bool]:
    if "chunked" in (request.header("transfer-encoding") or "").lower():
        return await _read_chunks(reader)
    try:
        size_bytes = int(request.header("content-length") or 0)
    except ValueError as error:
        raise ProtocolError(f"content-length: {request.header('content-length')!r}") from error
    body = bytearray()
    # Not `readexactly`: a reset would throw away what came before it.
    with contextlib.suppress(ConnectionError):
        while len(body) < size_bytes and (data := await reader.read(size_bytes - len(body))):
            body += data
    return bytes(body), (), len(body) == size_bytes


async def _read_chunks(reader: asyncio.StreamReader) -> tuple[bytes, Headers, bool]:
    body = bytearray()
    try:
        while True:
            line = await reader.readuntil(b"\r\n")
            size_bytes = int(line.split(b";", 1)[0], 16)
            if size_bytes == 0:
                break
            body += await reader.readexactly(size_bytes)
            await reader.readexactly(2)
        trailers = []
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            trailers.append(line.decode("latin-1").rstrip("\r\n"))
    except ValueError as error:
        raise ProtocolError("not a chunk") from error
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        if isinstance(error, asyncio.IncompleteReadError):
            body += error.partial
        return bytes(body), (), False
    return bytes(body), _headers(trailers), True


def _headers(lines: list[str]) -> Headers:
    pairs = (line.partition(":") for line in lines if line)
    return tuple((name, value.strip(" \t")) for name, _, value in pairs)
