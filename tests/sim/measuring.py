"""What the pods of a simulated cluster tell of their load: so many requests wait, all told. Stands in for the real collector's sockets.

It has always been looking: whoever starts anew finds the same history, so that only what an operator remembers by itself is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from tests.sim.cluster import SimCluster

from fairlead.facts.observed import ObjectKey
from fairlead.facts.scaling import Sample, ScrapeWish
from fairlead.runtime.signals import Collector

KEEP_S = 400.0


class ScriptedCollector(Collector):
    """Reads `cluster.waiting`."""

    def __init__(self, cluster: SimCluster, on_sample: Callable[[ObjectKey], None]) -> None:
        self._cluster = cluster
        self._tell = on_sample
        self._looking: dict[ObjectKey, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._looking)

    def start(self) -> None:
        pass

    async def stop(self) -> None:
        self.drop()

    def drop(self) -> None:
        """At once."""
        for key in list(self._looking):
            self.forget(key)

    async def close(self) -> None:
        await self.stop()

    def watch(self, key: ObjectKey, wish: ScrapeWish) -> None:
        if key not in self._looking:
            self._looking[key] = asyncio.create_task(self._look(key, wish.interval_s), name=f"signals of {key}")

    def forget(self, key: ObjectKey) -> None:
        if key in self._looking:
            self._looking.pop(key).cancel()

    def samples(self, key: ObjectKey) -> tuple[Sample, ...]:
        pods = self._count_ready(key)
        now = self._cluster.clock()
        ticks = [now - now % 5.0 - 5.0 * back for back in reversed(range(int(KEEP_S / 5.0)))] if pods else []
        return tuple(self._sample(at_s, now, pods) for at_s in ticks)

    def idle_since(self, key: ObjectKey) -> datetime | None:
        return None

    async def _look(self, key: ObjectKey, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s)
            self._tell(key)

    def _sample(self, at_s: float, now: float, pods: int) -> Sample:
        at = self._cluster.wall() - timedelta(seconds=now - at_s)
        waiting = next((load for since, load in reversed(self._cluster.waiting) if since <= at_s), 0.0)
        return Sample(at, 5.0, pods, pods, {}, running=4.0 * pods if waiting else 0.0, waiting=waiting)

    def _count_ready(self, key: ObjectKey) -> int:
        pods = [record.live for where, record in self._cluster.records.items() if where.kind == "Pod"]
        return sum(
            1
            for pod in pods
            if (pod["metadata"].get("labels") or {}).get("fairlead.dev/llmdeployment") == key.name
            and any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions") or ())
        )
