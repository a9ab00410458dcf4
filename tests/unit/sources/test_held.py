"""Asking gateways for whom requests wait: what is usable of their answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from fairlead.sources import held
from fairlead.sources.held import HeldSource


@asynccontextmanager
async def gateway(routes: dict[str, Any]) -> AsyncIterator[int]:
    """A server on loopback: path -> handler. Yields its port."""
    app = web.Application()
    for path, handler in routes.items():
        app.router.add_get(path, handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def answering(text: str, status: int = 200, **headers: str) -> Any:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=text, status=status, headers=headers)

    return answer


async def ask(routes: dict[str, Any], timeout_s: float = 5.0) -> Any:
    async with gateway(routes) as port:
        source = HeldSource(port, timeout_s)
        try:
            return (await source.ask(["127.0.0.1"])).get("127.0.0.1")
        finally:
            await source.close()


async def test_the_answer_is_an_object() -> None:
    assert await ask({"/held": answering('{"stats": []}')}) == {"stats": []}


async def test_who_does_not_know_the_question_is_asked_for_its_metrics() -> None:
    assert await ask({"/metrics": answering("a 1\n")}) == "a 1\n"


async def test_what_is_no_answer_is_none() -> None:
    for text in ("", "[]", "7", "{", "null", '{"a": 1'):
        assert await ask({"/held": answering(text)}) is None
    assert await ask({"/held": answering("{}", 503)}) is None
    assert await ask({"/metrics": answering("a 1\n", 500)}) is None
    assert await ask({"/held": answering("", 302, location="/metrics"), "/metrics": answering("a 1\n")}) is None


async def test_nobody_listens() -> None:
    async with gateway({}) as port:
        pass
    source = HeldSource(port)
    assert await source.ask(["127.0.0.1"]) == {}
    await source.close()


async def test_an_answer_that_does_not_end_is_given_up(monkeypatch: Any) -> None:
    monkeypatch.setattr(held, "MAX_HELD_BYTES", 1000)

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 500)

    assert await ask({"/held": endless}) is None


async def test_one_that_hangs_does_not_make_others_late() -> None:
    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    began = time.monotonic()
    assert await ask({"/held": hang}, timeout_s=0.1) is None
    assert time.monotonic() - began < 5
