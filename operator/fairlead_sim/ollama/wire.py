"""JSON, NDJSON and times in the form in which Ollama sends them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web


def json_response(body: Any, *, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(
        status=status, body=orjson.dumps(body), headers={"Content-Type": "application/json; charset=utf-8"}
    )


def timestamp(unix_s: float) -> str:
    """RFC 3339 in UTC, with fractions of a second."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


async def send_lines(request: web.Request, lines: AsyncGenerator[dict[str, Any]]) -> web.StreamResponse:
    """Send objects as NDJSON while they come. A client that goes away ends them."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    response.enable_chunked_encoding()
    async with aclosing(lines) as open_lines:
        await response.prepare(request)
        async for line in open_lines:
            await response.write(orjson.dumps(line) + b"\n")
        await response.write_eof()
    return response


async def send_events(request: web.Request, events: AsyncGenerator[dict[str, Any]]) -> web.StreamResponse:
    """Send objects as server-sent events, with `[DONE]` at the end."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    response.enable_chunked_encoding()
    async with aclosing(events) as open_events:
        await response.prepare(request)
        async for event in open_events:
            await response.write(b"data: " + orjson.dumps(event) + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
    return response
