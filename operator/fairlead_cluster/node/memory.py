"""Memory limits without cgroups: the resident memory of a container's processes is added up once a second.

A container over its limit is killed as the kernel would do it (OOMKilled, 137). Shared pages count for every process
and a quick burst goes unseen: good enough to learn what the operator does about it, not to measure memory.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from fairlead_cluster.node.quantity import parse_quantity
from fairlead_cluster.node.sessions import Group, members, process_table

_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class _Limit:
    size_bytes: Fraction
    on_exceeded: Callable[[], None]


class MemoryWatch:
    """Watches groups of processes that have a limit; costs nothing while there is none."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._limits: dict[Group, _Limit] = {}
        self._any = asyncio.Event()

    @contextlib.contextmanager
    def limit(self, group: Group, quantity: str | None, on_exceeded: Callable[[], None]) -> Iterator[None]:
        """While inside, call `on_exceeded` when the group uses more than `quantity` (None: no limit)."""
        if not self._enabled or quantity is None:
            yield
            return
        self._limits[group] = _Limit(parse_quantity(quantity), on_exceeded)
        self._any.set()
        try:
            yield
        finally:
            del self._limits[group]
            if not self._limits:
                self._any.clear()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self._any.wait()
            await asyncio.sleep(_INTERVAL_S)
            for group, entries in members(self._limits, process_table()).items():
                limit = self._limits.get(group)
                if limit is not None and sum(entry.rss_bytes for entry in entries) > limit.size_bytes:
                    limit.on_exceeded()
