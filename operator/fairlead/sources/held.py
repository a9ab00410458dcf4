"""Asks gateways for whom requests wait. One that an earlier release started does not know the question; of it all metrics are read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from fairlead.sources.fetching import Fetcher, FetchError

__all__ = ["HeldSource"]

#: Less than the time between two questions: one that hangs must not make others late.
TIMEOUT_S: Final = 0.8
#: An answer has a few hundred bytes. Whoever has the pod's address by now may send anything.
MAX_HELD_BYTES: Final = 1_048_576
MAX_METRICS_BYTES: Final = 8 * MAX_HELD_BYTES


class HeldSource:
    """Each second while something is at zero replicas, so that it has a budget of its own."""

    def __init__(self, port: int, timeout_s: float = TIMEOUT_S) -> None:
        self._port = port
        self._fetcher = Fetcher(timeout_s)

    async def ask(self, addresses: Iterable[str]) -> dict[str, Mapping[str, Any] | str]:
        """Address -> the answer to GET /held, or the text of GET /metrics where that is not known; all asked at the same time, and those
        without a usable answer are left out."""
        wanted = sorted(set(addresses))
        answers = await asyncio.gather(*(self._ask_one(address) for address in wanted))
        return {address: answer for address, answer in zip(wanted, answers, strict=True) if answer is not None}

    async def close(self) -> None:
        """Give the session back."""
        await self._fetcher.close()

    async def _ask_one(self, address: str) -> Mapping[str, Any] | str | None:
        try:
            answer = orjson.loads(await self._fetcher.get("http", address, self._port, "/held", MAX_HELD_BYTES))
        except FetchError as error:
            return await self._read_metrics(address) if error.status == 404 else None
        except orjson.JSONDecodeError:
            return None
        return answer if isinstance(answer, dict) else None

    async def _read_metrics(self, address: str) -> str | None:
        try:
            body = await self._fetcher.get("http", address, self._port, "/metrics", MAX_METRICS_BYTES)
        except FetchError:
            return None
        return body.decode(errors="replace")
