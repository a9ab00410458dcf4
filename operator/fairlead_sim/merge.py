"""Several asynchronous streams as one, in the order in which their items come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

_Item = TypeVar("_Item")


async def merge(streams: list[AsyncGenerator[_Item]]) -> AsyncGenerator[tuple[int, _Item]]:
    """Items with the number of their stream. The first error ends all; the streams are closed in every case."""
    if len(streams) == 1:
        async for only in streams[0]:
            yield 0, only
        return
    queue: asyncio.Queue[tuple[int, _Item | None, BaseException | None]] = asyncio.Queue()

    async def pump(number: int, stream: AsyncGenerator[_Item]) -> None:
        try:
            async for item in stream:
                queue.put_nowait((number, item, None))
        except Exception as error:  # noqa: BLE001 - handed to the consumer, who raises it
            queue.put_nowait((number, None, error))
        else:
            queue.put_nowait((number, None, None))

    pumps = [asyncio.create_task(pump(number, stream)) for number, stream in enumerate(streams)]
    left = len(pumps)
    try:
        while left:
            number, item, error = await queue.get()
            if error is not None:
                raise error
            if item is None:
                left -= 1
            else:
                yield number, item
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
