"""An event loop in which nobody waits: when there is nothing to do, the clock jumps to the next timer."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """Counts seconds from 1000 on. Sockets must not be used in it: it would never wait for them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        scheduled = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not self._ready and scheduled:  # type: ignore[attr-defined]
            self.now = max(self.now, scheduled[0]._when)
        super()._run_once()  # type: ignore[misc]


def run_in_fake_time(test: Callable[[], Coroutine[Any, Any, Result]], limit_s: float = 100_000.0) -> Result:
    """Run an async test and return what it returns; it fails when it is not over within `limit_s` seconds of fake time."""
    loop = FakeTimeLoop()
    try:
        return loop.run_until_complete(asyncio.wait_for(test(), limit_s))
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
