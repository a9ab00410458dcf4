"""Asking gateways for whom requests wait: what is usable of their answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from tests.unit.fake_time import run_in_fake_time

from fairlead.sources import held
from fairlead.sources.fetching import PARALLEL, FetchError
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


async def told_by(source: HeldSource, addresses: list[str]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    await source.ask(addresses, told.__setitem__)
    return told


async def ask(routes: dict[str, Any], timeout_s: float = 5.0) -> Any:
    async with gateway(routes) as port:
        source = HeldSource(port, timeout_s)
        try:
            return (await told_by(source, ["127.0.0.1"])).get("127.0.0.1")
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
    assert await told_by(source, ["127.0.0.1"]) == {}
    await source.close()


async def test_an_answer_that_does_not_end_is_given_up(monkeypatch: Any) -> None:
    monkeypatch.setattr(held, "MAX_HELD_BYTES", 1000)

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 500)

    assert await ask({"/held": endless}) is None


class Hanging:
    """In place of what fetches: the addresses in `hangs` say nothing in time. `asked`: in this look, in order."""

    def __init__(self, hangs: set[str]) -> None:
        self.hangs, self.asked = hangs, list[str]()
        self.parallel = asyncio.Semaphore(PARALLEL)

    async def get(self, scheme: str, address: str, port: int, path: str, max_bytes: int) -> bytes:
        async with self.parallel:
            self.asked.append(address)
            if address in self.hangs:
                await asyncio.sleep(held.TIMEOUT_S)
                raise FetchError("no answer", is_late=True)
        return b"{}"


def hanging(hangs: set[str]) -> tuple[HeldSource, Hanging]:
    source, fetcher = HeldSource(1), Hanging(hangs)
    source._fetcher = fetcher  # type: ignore[assignment]
    return source, fetcher


async def test_who_is_silent_is_late_and_who_refuses_is_not() -> None:
    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async with gateway({"/held": hang}) as port:
        source = HeldSource(port, 0.1)
        assert await told_by(source, ["127.0.0.1"]) == {}
        assert source._choose(["127.0.0.1", "127.0.0.2"]) == ["127.0.0.2"]
    source = HeldSource(port)
    assert await told_by(source, ["127.0.0.1"]) == {}
    assert source._choose(["127.0.0.1"]) == ["127.0.0.1"]
    await source.close()


def test_those_that_answer_are_told_of_before_those_that_hang() -> None:
    async def test() -> None:
        source, _ = hanging({f"10.0.1.{number}" for number in range(PARALLEL - 1)})
        loop = asyncio.get_running_loop()
        began, told = loop.time(), list[float]()
        wanted = sorted(source._fetcher.hangs) + [f"10.0.2.{number}" for number in range(9)]  # type: ignore[attr-defined]
        await source.ask(wanted, lambda *_: told.append(loop.time() - began))
        assert told == [0.0] * 9
        assert loop.time() - began == pytest.approx(held.TIMEOUT_S)

    run_in_fake_time(test)


def test_very_many_that_hang_make_one_look_late_and_no_other() -> None:
    async def test() -> None:
        source, fetcher = hanging({f"10.0.1.{number}" for number in range(199)})
        loop = asyncio.get_running_loop()
        wanted = sorted({*fetcher.hangs, "10.0.2.1"})
        took = []
        for _ in range(20):
            began = loop.time()
            fetcher.asked.clear()
            await source.ask(wanted, lambda *_: None)
            took.append(loop.time() - began)
            assert "10.0.2.1" in fetcher.asked
            assert len(took) == 1 or (fetcher.asked[0] == "10.0.2.1" and len(fetcher.asked) <= 1 + held.AGAIN_AT_ONCE)
            await asyncio.sleep(1.0)
        assert max(took[1:]) == pytest.approx(held.TIMEOUT_S)
        fetcher.hangs.clear()
        await asyncio.sleep(held.AGAIN_S)
        for _ in range(13):
            fetcher.asked.clear()
            await source.ask(wanted, lambda *_: None)
        assert len(fetcher.asked) == 200, "who answers again is asked as before"

    run_in_fake_time(test)
