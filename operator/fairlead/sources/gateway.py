"""Asks gateways what they have loaded.

A gateway that does not answer in time has said nothing: whoever decides takes it for one that has not loaded anything.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import httpx

__all__ = ["GatewaySource"]

TIMEOUT_S: Final = 1.5
#: An answer has a few kilobytes. Whoever has the pod's address by now may send anything.
MAX_ANSWER_BYTES: Final = 1_048_576


class GatewaySource:
    """One client for all gateways, without connections that stay: a gateway is asked seldom, and pods go."""

    def __init__(self, port: int, timeout_s: float = TIMEOUT_S) -> None:
        self._port = port
        self._timeout_s = timeout_s
        self._client: httpx.AsyncClient | None = None

    async def ask(self, addresses: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        """Address -> the answer to GET /generation, all asked at the same time; those without a usable one are left out."""
        wanted = sorted(set(addresses))
        answers = await asyncio.gather(*(self._ask_one(address) for address in wanted))
        return {address: answer for address, answer in zip(wanted, answers, strict=True) if answer is not None}

    async def close(self) -> None:
        """Give the client back."""
        if self._client is not None:
            await self._client.aclose()

    async def _ask_one(self, address: str) -> Mapping[str, Any] | None:
        host = f"[{address}]" if ":" in address else address
        import httpx  # 5 MiB that an installation without routes does not need

        if self._client is None:
            limits = httpx.Limits(max_keepalive_connections=0)
            self._client = httpx.AsyncClient(timeout=self._timeout_s, limits=limits, trust_env=False)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._read(self._client, f"http://{host}:{self._port}/generation")
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError):
            return None

    async def _read(self, client: httpx.AsyncClient, url: str) -> Mapping[str, Any] | None:
        async with client.stream("GET", url) as response:
            if response.status_code != 200:
                return None
            body = b""
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    return None
        answer = json.loads(body)
        return answer if isinstance(answer, dict) else None
