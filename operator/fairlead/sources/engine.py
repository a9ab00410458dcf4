"""Asks engine pods themselves how they are doing: no monitoring need be installed."""

from __future__ import annotations

from fairlead.facts.scaling import ScrapeWish, Target
from fairlead.sources.exposition import read_text
from fairlead.sources.fetching import FetchError
from fairlead.sources.podsource import PodSource
from fairlead.sources.readings import Reading

__all__ = ["EngineSource"]


class EngineSource(PodSource):
    """By the names that the engine's file gives."""

    async def _read(self, wish: ScrapeWish, target: Target) -> Reading:
        scheme, port = ("https", wish.tls_port) if target.is_tls else ("http", wish.port)
        text = await self._fetcher.get(scheme, target.address, port, wish.path)
        reading = read_text(text, wish.names, self._clock())
        if reading.is_empty:
            raise FetchError(f"{wish.path} has none of the engine's metrics")
        return reading
