"""kopf's own way to the API server: over the shared connections, but without the answers for which it would end the process.

kopf retries a broken connection, 5xx, 403 and 429. It ends the operator at every other refusal of its watch (a CRD that is
removed for a moment: 404), at an error inside the stream that is not 410, and at a line that was cut; and a 401 makes it close
the session and log in again, hundreds of times a second for as long as it lasts. So all of these reach it as what it retries.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

import aiohttp
import orjson

logger = logging.getLogger(__name__)

#: kopf begins a watch that ended again at once. A server that ends each of them at once must not be asked without pause.
WATCH_PERIOD_S: Final = 1.0
_ERROR_MARK: Final = b'"ERROR"'

#: A raw event -> whether it says nothing new.
IsKnown = Callable[[Mapping[str, Any]], bool]
Handler = Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]]


class Listener(NamedTuple):
    """Who is told of one collection: `on_list` is called when a list of it was answered; events of its watch that `is_known` says
    yes to are kept from kopf."""

    on_list: Callable[[], None]
    is_known: IsKnown | None = None


class Patience:
    """Client middleware for kopf's session. `listeners`: by the plural of the collection that kopf watches."""

    def __init__(self, listeners: Mapping[str, Listener]) -> None:
        self._listeners = listeners
        self._began_at: dict[str, float] = {}

    async def __call__(self, request: aiohttp.ClientRequest, handler: Handler) -> aiohttp.ClientResponse:
        """Pass an answer on, or raise what kopf retries. A list whose next page expired (410) begins anew."""
        is_watch = "watch" in request.url.query
        if is_watch:
            await self._pace(request.url.path)
        response = await handler(request)
        listener = self._listeners.get(request.url.path.rpartition("/")[2])
        if response.status < 400:
            if listener is not None and not is_watch:
                listener.on_list()
            if listener is not None and isinstance(response.content, _WholeLines):
                response.content.is_known = listener.is_known
            return response
        if response.status == 401 or (listener is not None and not _is_retried_by_kopf(response)):
            refusal = f"HTTP {response.status} for {request.method} {request.url.path}"
            response.release()
            if response.status == 410:
                raise aiohttp.ClientPayloadError(refusal)
            raise aiohttp.ClientConnectionError(refusal)
        return response

    async def _pace(self, path: str) -> None:
        loop = asyncio.get_running_loop()
        pause_s = self._began_at.get(path, float("-inf")) + WATCH_PERIOD_S - loop.time()
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        self._began_at[path] = loop.time()


def _is_retried_by_kopf(response: aiohttp.ClientResponse) -> bool:
    if response.status == 429:  # but it cannot read a date there
        return response.headers.get("Retry-After", "1").replace(".", "", 1).isdigit()
    return response.status == 403 or response.status >= 500


class PatientResponse(aiohttp.ClientResponse):
    """An answer whose stream of watch events has whole lines only, and no errors but 410."""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        """As aiohttp does, and wrap what comes."""
        await super().start(connection)
        if self.status == 200 and "watch" in self.url.query:
            self.content = _WholeLines(self.content)  # type: ignore[assignment]
        return self


class _WholeLines:
    """A StreamReader whose `iter_chunked`, all that kopf uses of it, gives whole lines."""

    def __init__(self, stream: aiohttp.StreamReader) -> None:
        self._stream = stream
        self.is_known: IsKnown | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def iter_chunked(self, size_bytes: int) -> AsyncIterator[bytes]:
        """Raises ClientPayloadError for a cut line and for an error that would end kopf: it watches on from where it was."""
        rest = b""
        async for data in self._stream.iter_chunked(size_bytes):
            end = data.rfind(b"\n") + 1
            if end == 0:
                rest += data
                continue
            lines, rest = rest + data[:end], data[end:]
            if _ERROR_MARK in lines:
                _check(lines)
            if self.is_known is not None:
                lines = b"".join(
                    line for line in lines.splitlines(keepends=True) if not _says_nothing(line, self.is_known)
                )
            if lines:
                yield lines
        if rest.strip():
            raise aiohttp.ClientPayloadError("the stream ended inside a line")


def _says_nothing(line: bytes, is_known: IsKnown) -> bool:
    try:
        return bool(line.strip()) and is_known(orjson.loads(line))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return False  # whatever it is, kopf is the one to say so


def _check(lines: bytes) -> None:
    for line in lines.splitlines():
        if _ERROR_MARK not in line:
            continue
        event = orjson.loads(line)
        if event.get("type") == "ERROR" and event["object"].get("code") != 410:
            logger.warning("The API server ended a watch: %s", event["object"].get("message"))
            raise aiohttp.ClientPayloadError("the API server ended the watch with an error")
