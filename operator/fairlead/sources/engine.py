"""Asks engine pods themselves how they are doing: no monitoring need be installed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from fairlead.facts.observed import ObjectKey
from fairlead.facts.scaling import Sample, ScrapeWish, Target
from fairlead.sources.exposition import read_text
from fairlead.sources.fetching import Fetcher, FetchError
from fairlead.sources.readings import Look, Reading, make_sample

__all__ = ["EngineSource"]

#: Looks that a pod may have missed, and its next answer still tells what happened since.
_LOOKS_MISSED: Final = 3


class EngineSource:
    """Each pod's last reading is kept, so that the next one tells what happened in between. `clock`: seconds, never back; `wall`: now."""

    def __init__(self, fetcher: Fetcher, *, clock: Callable[[], float], wall: Callable[[], datetime]) -> None:
        self._fetcher = fetcher
        self._clock = clock
        self._wall = wall
        self._last: dict[ObjectKey, Mapping[str, Reading]] = {}

    async def look(self, key: ObjectKey, wish: ScrapeWish, targets: Sequence[Target]) -> Sample:
        """All pods at the same time, as far as the budget goes."""
        last = self._last.get(key, {})
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._ask(wish, target, last.get(target.uid))) for target in targets]
        looks = [task.result() for task in asked]
        pairs = zip(targets, looks, strict=True)
        self._last[key] = {target.uid: one for target, look in pairs if (one := look.now or look.before) is not None}
        return make_sample(looks, self._wall())

    def forget(self, key: ObjectKey) -> None:
        """The next look at it is the first."""
        self._last.pop(key, None)

    async def close(self) -> None:
        """The fetcher, too."""
        self._last.clear()
        await self._fetcher.close()

    async def _ask(self, wish: ScrapeWish, target: Target, before: Reading | None) -> Look:
        if before is not None and self._clock() - before.at > _LOOKS_MISSED * wish.interval_s + 1.0:
            before = None
        try:
            text = await self._fetcher.get(wish.scheme, target.address, wish.port, wish.path)
        except FetchError as error:
            return Look(None, before, f"{target.name}: {error}")
        now = read_text(text, wish.names, self._clock())
        if now.is_empty:
            return Look(None, before, f"{target.name}: {wish.path} has none of the engine's metrics")
        return Look(now, before)
