"""What is the same for all pods that are asked for metrics themselves: all at once, and each answer against the one before."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from fairlead.facts.observed import ObjectKey
from fairlead.facts.scaling import Sample, ScrapeWish, Target
from fairlead.sources.fetching import Fetcher, FetchError
from fairlead.sources.readings import Look, Reading, make_sample

__all__ = ["PodSource"]

#: Looks after which a pod's next answer still tells what happened since.
_LOOKS_BETWEEN: Final = 3


class PodSource(ABC):
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

    @abstractmethod
    async def _read(self, wish: ScrapeWish, target: Target) -> Reading:
        """Raises FetchError."""

    async def _ask(self, wish: ScrapeWish, target: Target, before: Reading | None) -> Look:
        if before is not None and self._clock() - before.at > _LOOKS_BETWEEN * wish.interval_s + 1.0:
            before = None
        try:
            return Look(await self._read(wish, target), before, uid=target.uid)
        except FetchError as error:
            return Look(None, before, f"{target.name}: {error}", uid=target.uid)
