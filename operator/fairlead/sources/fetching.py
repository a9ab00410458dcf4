"""Fetches metrics of pods: one session, budgets of requests and of bytes at the same time, and limits for what a pod may answer.

Connections are not kept. Engines end idle ones after five seconds, which is when they would be asked again, and a thousand of them would be
held for requests of a millisecond. aiohttp, which the API server is asked with anyway, takes 0.2 ms of CPU for one such request; httpx
takes 0.6 ms, and with a thousand kept connections 70 ms.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import aiohttp

__all__ = ["FetchError", "Fetcher"]

TIMEOUT_S: Final = 2.0
PARALLEL: Final = 64
#: A vLLM with default settings tells 44 kB.
MAX_BYTES: Final = 4 * 1_048_576
#: Of answers that are larger than this only so many are held at once, so that all that is held of all pods stays below
#: PARALLEL * LARGE_BYTES + LARGE_AT_ONCE * the largest answer (48 MiB), whatever they send.
LARGE_BYTES: Final = 262_144
LARGE_AT_ONCE: Final = 4
_HEADERS: Final = {"accept": "text/plain;version=0.0.4", "accept-encoding": "identity", "user-agent": "fairlead"}


class FetchError(Exception):
    """There is no usable answer; `str()` says why, for people. `status`: of an answer that is not 200; `is_late`: none came in time."""

    def __init__(self, message: str, status: int | None = None, *, is_late: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.is_late = is_late


class Fetcher:
    """Shared by all who scrape pods: the budget is of the whole process."""

    def __init__(self, timeout_s: float = TIMEOUT_S, parallel: int = PARALLEL, max_bytes: int = MAX_BYTES) -> None:
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._budget = asyncio.Semaphore(parallel)
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._session: aiohttp.ClientSession | None = None

    async def get(self, scheme: str, address: str, port: int, path: str, max_bytes: int | None = None) -> bytes:
        """The body of a GET. Certificates are not verified: see docs/security.md. Raises FetchError."""
        async with self.open(scheme, address, port, path, max_bytes) as body:
            return body

    @asynccontextmanager
    async def open(
        self, scheme: str, address: str, port: int, path: str, max_bytes: int | None = None
    ) -> AsyncIterator[bytes]:
        """The same for what takes time to read: a large body counts against the budget until the end of the block."""
        host = f"[{address}]" if ":" in address else address
        async with AsyncExitStack() as room:
            yield await self._fetch(f"{scheme}://{host}:{port}{path}", max_bytes or self._max_bytes, room)

    async def close(self) -> None:
        """Give the session back."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _fetch(self, url: str, max_bytes: int, room: AsyncExitStack) -> bytes:
        async with self._budget:
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._read(url, max_bytes, room)
            except TimeoutError as error:
                raise FetchError(f"no answer within {self._timeout_s:g} s", is_late=True) from error
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise FetchError(_describe(error)) from error

    async def _read(self, url: str, max_bytes: int, room: AsyncExitStack) -> bytes:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, force_close=True, ssl=False)
            jar = aiohttp.DummyCookieJar()
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=jar, auto_decompress=False)
        body, has_room = bytearray(), False
        async with self._session.get(url, headers=_HEADERS, allow_redirects=False) as response:
            if response.status != 200:
                raise FetchError(f"HTTP status {response.status}", response.status)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise FetchError("an encoding that was not asked for")
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > max_bytes:
                    raise FetchError(f"more than {max_bytes} bytes")
                if len(body) > LARGE_BYTES and not has_room:
                    await room.enter_async_context(self._large)
                    has_room = True
        return bytes(body)


def _describe(error: Exception) -> str:
    """Never with what the pod sent: it may be anything."""
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return "no TLS"
    if isinstance(error, aiohttp.ClientConnectorError):
        return os.strerror(error.os_error.errno) if error.os_error.errno else "no connection"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "a connection that ends without an answer"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "an answer that breaks off"
    if isinstance(error, aiohttp.ClientResponseError):
        return "an answer that is no HTTP"
    return type(error).__name__
