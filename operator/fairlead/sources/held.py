"""Asks gateways for whom requests wait. One that an earlier release started does not know the question; of it all metrics are read.

One that hangs must not make others late: each is told of when it answers, those that hung are left out for some seconds, and only a few of
them are asked again at once, after all others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import orjson

from fairlead.sources.fetching import Fetcher, FetchError

__all__ = ["HeldSource", "Take"]

#: Less than the time between two questions.
TIMEOUT_S: Final = 0.8
#: Who hung is asked again after that time, and so many of them at once.
AGAIN_S: Final = 5.0
AGAIN_AT_ONCE: Final = 16
#: What is longer ago is forgotten: the pod may be gone.
_FORGOTTEN_S: Final = 60.0
#: An answer has a few hundred bytes. Whoever has the pod's address by now may send anything.
MAX_HELD_BYTES: Final = 1_048_576
MAX_METRICS_BYTES: Final = 8 * MAX_HELD_BYTES

#: Is given an address, and its answer to GET /held, or the text of GET /metrics where that is not known.
Take = Callable[[str, Mapping[str, Any] | str], None]


class HeldSource:
    """Each second while something is at zero replicas, so that it has a budget of its own."""

    def __init__(self, port: int, timeout_s: float = TIMEOUT_S) -> None:
        self._port = port
        self._fetcher = Fetcher(timeout_s)
        self._hung: dict[str, float] = {}  # address -> when

    async def ask(self, addresses: Iterable[str], take: Take) -> None:
        """Ask all at the same time, as far as the budget goes. `take` is called with each usable answer as it comes; nothing is kept."""
        async with asyncio.TaskGroup() as group:
            for address in self._choose(sorted(set(addresses))):
                group.create_task(self._ask_one(address, take))

    async def close(self) -> None:
        """Give the session back."""
        await self._fetcher.close()

    def _choose(self, wanted: list[str]) -> list[str]:
        """Those that hung come last, a few of them, and not too soon."""
        now = asyncio.get_running_loop().time()
        self._hung = {address: at for address, at in self._hung.items() if now - at < _FORGOTTEN_S}
        again = [address for address in wanted if now - self._hung.get(address, now) >= AGAIN_S]
        again.sort(key=self._hung.__getitem__)
        return [address for address in wanted if address not in self._hung] + again[:AGAIN_AT_ONCE]

    async def _ask_one(self, address: str, take: Take) -> None:
        try:
            answer = await self._read(address)
        except FetchError as error:
            if error.is_late:
                self._hung[address] = asyncio.get_running_loop().time()
            return
        self._hung.pop(address, None)
        if answer is not None:
            take(address, answer)

    async def _read(self, address: str) -> Mapping[str, Any] | str | None:
        try:
            answer = orjson.loads(await self._fetcher.get("http", address, self._port, "/held", MAX_HELD_BYTES))
        except FetchError as error:
            if error.status != 404:
                raise
            body = await self._fetcher.get("http", address, self._port, "/metrics", MAX_METRICS_BYTES)
            return body.decode(errors="replace")
        except orjson.JSONDecodeError:
            return None
        return answer if isinstance(answer, dict) else None
