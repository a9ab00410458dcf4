"""Asks gateways for whom requests wait.

Each second while something is at zero replicas, so connections stay open, and an answer has a few hundred bytes. A gateway that an
earlier release started does not know the question; of it all metrics are read instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

import aiohttp
import orjson

__all__ = ["HeldSource"]

#: Less than the time between two questions: one that hangs must not make others late.
TIMEOUT_S: Final = 0.8
#: Whoever has the pod's address by now may send anything.
MAX_HELD_BYTES: Final = 1_048_576
MAX_METRICS_BYTES: Final = 8 * MAX_HELD_BYTES
_AT_ONCE: Final = 64


class HeldSource:
    """One session for all gateways."""

    def __init__(self, port: int, timeout_s: float = TIMEOUT_S) -> None:
        self._port = port
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, addresses: Iterable[str]) -> dict[str, Mapping[str, Any] | str]:
        """Address -> the answer to GET /held, or the text of GET /metrics where that is not known; all asked at the same time, and those
        without a usable answer are left out."""
        wanted = sorted(set(addresses))
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=_AT_ONCE, limit_per_host=1)
            self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        answers = await asyncio.gather(*(self._ask_one(self._session, address) for address in wanted))
        return {address: answer for address, answer in zip(wanted, answers, strict=True) if answer is not None}

    async def close(self) -> None:
        """Give the connections back."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask_one(self, session: aiohttp.ClientSession, address: str) -> Mapping[str, Any] | str | None:
        url = f"http://{f'[{address}]' if ':' in address else address}:{self._port}"
        try:
            async with asyncio.timeout(self._timeout_s):
                status, body = await _read(session, f"{url}/held", MAX_HELD_BYTES)
                if status == 404:
                    status, body = await _read(session, f"{url}/metrics", MAX_METRICS_BYTES)
                    return body.decode(errors="replace") if status == 200 else None
                answer = orjson.loads(body) if status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None
        return answer if isinstance(answer, dict) else None


async def _read(session: aiohttp.ClientSession, url: str, most_bytes: int) -> tuple[int, bytes]:
    """Status and body. ValueError for a longer one."""
    async with session.get(url, allow_redirects=False) as response:
        body = b""
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > most_bytes:
                raise ValueError("the answer is too long")
        return response.status, body
