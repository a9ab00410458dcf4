"""JSON and server-sent events over aiohttp, in the form in which vLLM sends them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson
from aiohttp import web

DONE = b"data: [DONE]\n\n"


def json_response(body: Any, *, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")


async def send_events(
    request: web.Request, chunks: AsyncGenerator[dict[str, Any]], *, named: bool = False
) -> web.StreamResponse:
    """Send chunks as `data:` events and `[DONE]`; with `named`, each under its `type` as an event name and no `[DONE]`.

    A client that goes away ends the chunks.
    """
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    response.enable_chunked_encoding()
    async with aclosing(chunks) as open_chunks:
        await response.prepare(request)
        async for chunk in open_chunks:
            prefix = f"event: {chunk['type']}\n".encode() if named else b""
            await response.write(prefix + b"data: " + orjson.dumps(chunk) + b"\n\n")
        if not named:
            await response.write(DONE)
        await response.write_eof()
    return response
