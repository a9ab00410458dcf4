"""Steady load, and what became of it: requests at a rate, and streams that are always open."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
from tests.gateway.asking import Answer, ask, make_body

__all__ = ["Load", "running_load"]


@dataclass
class Load:
    """Answers in the order in which they came; `kinds`: by the requests' ids."""

    answers: list[Answer] = field(default_factory=list)
    kinds: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> list[Answer]:
        """Those that are no success."""
        return [answer for answer in self.answers if not answer.is_success]


#: Kind -> model, data class, key, text.
Kinds = Mapping[str, tuple[str, str, str, str]]


@asynccontextmanager
async def running_load(
    client: httpx.AsyncClient, url: str, kinds: Kinds, *, rps: float, streams: int
) -> AsyncIterator[Load]:
    """Until the block ends; then what was begun is finished. A stream that has ended is followed by the next. Kinds take turns."""
    load, stop = Load(), asyncio.Event()
    turns = {stream: itertools.cycle(kinds.items()) for stream in (False, True)}

    async def one(*, stream: bool) -> None:
        kind, (model, data_class, key, text) = next(turns[stream])
        body = make_body(model, stream=stream, text=text)
        load.kinds[body["user"]] = kind
        load.answers.append(await ask(client, url, body, data_class=data_class, key=key))

    async def keep_streaming() -> None:
        while not stop.is_set():
            await one(stream=True)

    async def keep_asking() -> None:
        loop = asyncio.get_running_loop()
        due, begun = loop.time(), set()
        while not stop.is_set():
            task = asyncio.ensure_future(one(stream=False))
            begun.add(task)
            task.add_done_callback(begun.discard)
            due += 1 / rps
            await asyncio.sleep(max(0.0, due - loop.time()))
        await asyncio.gather(*begun)

    tasks = [asyncio.ensure_future(keep_asking()), *(asyncio.ensure_future(keep_streaming()) for _ in range(streams))]
    try:
        yield load
    finally:
        stop.set()
        await asyncio.gather(*tasks)
