"""A model server that costs next to nothing, so that what is measured is what stands before it.

One answer of fixed bytes to whatever is asked; a stream of 200 chunks, each written by itself, five milliseconds apart, as tokens
come. Nothing is parsed but where a request ends. A process of its own: `python -m tests.bench.gateway.backend PORT`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Final, cast

import uvloop

__all__ = ["CHUNKS", "INTERVAL_S"]

CHUNKS: Final = 200
INTERVAL_S: Final = 0.005
_USAGE: Final = {"prompt_tokens": 400, "completion_tokens": CHUNKS, "total_tokens": 400 + CHUNKS}
_WORDS: Final = "The tide turns at seven and the pilot boards an hour before it does. " * 5


def _whole() -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": _WORDS}, "finish_reason": "stop"}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    text = json.dumps({**body, "usage": _USAGE}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text)


def _chunk(data: str) -> bytes:
    text = f"data: {data}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(text), text)


def _event(*choices: object, **more: object) -> str:
    event = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    return json.dumps({**event, **more})


_WHOLE: Final = _whole()
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
# Each another word: some gateways end a stream that says the same again and again.
_TOKENS: Final = [
    _chunk(_event({"index": 0, "delta": {"content": f" word{number:03}"}, "finish_reason": None}))
    for number in range(CHUNKS)
]
_LAST: Final = b"".join(
    (
        _chunk(_event({"index": 0, "delta": {}, "finish_reason": "stop"})),
        _chunk(_event(usage=_USAGE)),
        _chunk("[DONE]"),
        b"0\r\n\r\n",
    )
)


class _Ticker:
    """Writes the next chunk of all streams at once."""

    def __init__(self) -> None:
        self._left: dict[asyncio.Transport, int] = {}

    def add(self, transport: asyncio.Transport) -> None:
        if not self._left:
            asyncio.get_running_loop().call_later(INTERVAL_S, self._tick)
        self._left[transport] = CHUNKS

    def remove(self, transport: asyncio.Transport) -> None:
        self._left.pop(transport, None)

    def _tick(self) -> None:
        for transport, left in list(self._left.items()):
            if left:
                transport.write(_TOKENS[CHUNKS - left])
                self._left[transport] = left - 1
            else:
                del self._left[transport]
                transport.write(_LAST)
        if self._left:
            asyncio.get_running_loop().call_later(INTERVAL_S, self._tick)


class _Server(asyncio.Protocol):
    def __init__(self, ticker: _Ticker) -> None:
        self._ticker = ticker
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ticker.remove(self._transport)

    def data_received(self, data: bytes) -> None:
        self._data = data = self._data + data if self._data else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = data[:end].lower()
        _, found, length = head.partition(b"content-length: ")
        if found:
            if len(data) < end + 4 + int(length.partition(b"\r\n")[0]):
                return
        elif b"chunked" in head and not data.endswith(b"0\r\n\r\n"):
            return
        self._data = b""
        if b'"stream":true' in data or b'"stream": true' in data:
            self._transport.write(_HEAD)
            self._ticker.add(self._transport)
        else:
            self._transport.write(_WHOLE)


async def _serve(port: int) -> None:
    ticker = _Ticker()
    server = await asyncio.get_running_loop().create_server(lambda: _Server(ticker), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
