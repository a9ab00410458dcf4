"""Looks at the pods of LLMDeployments again and again, while this replica leads, and keeps what they tell for as long as it is of use.

Each one is looked at at its own time: a thousand are spread over the interval, by their names. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Final

from fairlead.config import OperatorConfig
from fairlead.facts.observed import ObjectKey
from fairlead.facts.prometheus import PodLabels
from fairlead.facts.scaling import Measure, Sample, ScrapeWish, SignalSource, Source
from fairlead.gateway.envoy.bootstrap import DURATIONS_MS, FIRST_TOKEN_MS
from fairlead.kube.cache import Cache
from fairlead.runtime.targets import Targets
from fairlead.scaling.zero import follow_idle
from fairlead.sources.engine import EngineSource
from fairlead.sources.fetching import Fetcher
from fairlead.sources.gatewaymetrics import GatewayMetricsSource
from fairlead.sources.prometheus import PrometheusSettings, PrometheusSource

__all__ = ["Collector", "make_sources", "speak_for"]

logger = logging.getLogger(__name__)
#: Looks that may be missing in a row and leave it certain that there was no request.
IDLE_GAPS: Final = 3
_PHASES: Final = 2**32
_HISTOGRAMS_MS: Final = {Measure.TIME_TO_FIRST_TOKEN: FIRST_TOKEN_MS, Measure.LATENCY: DURATIONS_MS}


class _Watched:
    """One LLMDeployment: its wish, its samples with the time that they came at, and the task that looks."""

    def __init__(self, wish: ScrapeWish) -> None:
        self.wish = wish
        self.samples: deque[tuple[float, Sample]] = deque()
        self.idle_since: datetime | None = None
        self.is_telling = False
        self.task: asyncio.Task[None] | None = None

    def add(self, now: float, sample: Sample) -> None:
        last = self.samples[-1][1] if self.samples else None
        self.idle_since = follow_idle(self.idle_since, last, sample, IDLE_GAPS * self.wish.interval_s)
        self.samples.append((now, sample))
        self.drop_old(now)

    def drop_old(self, now: float) -> None:
        while self.samples and now - self.samples[0][0] > self.wish.keep_s:
            self.samples.popleft()


class Collector:
    """`clock`: seconds, never back, that of the loop. `on_sample` is told after each look; it must not wait."""

    def __init__(
        self,
        cache: Cache,
        sources: Mapping[Source, SignalSource],
        on_sample: Callable[[ObjectKey], None],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._targets = Targets(cache)
        self._sources = sources
        self._on_sample = on_sample
        self._clock = clock
        self._watched: dict[ObjectKey, _Watched] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._is_running = False

    def __len__(self) -> int:
        """LLMDeployments that are looked at."""
        return len(self._watched)

    @property
    def is_running(self) -> bool:
        """Whether wishes are taken."""
        return self._is_running

    def start(self) -> None:
        """Take wishes. Nothing is known of an earlier term."""
        self._is_running = True

    async def stop(self) -> None:
        """End all looks, and forget what they gave."""
        self._is_running = False
        for key in list(self._watched):
            self.forget(key)
        await asyncio.gather(*self._ending, return_exceptions=True)
        self._targets.clear()

    async def close(self) -> None:
        """Stop, and give back what the sources hold."""
        await self.stop()
        for source in self._sources.values():
            await source.close()

    def watch(self, key: ObjectKey, wish: ScrapeWish) -> None:
        """Look at it as the wish says, from now on. The same wish again changes nothing; another one begins anew, without samples. Not
        while this replica does not lead, nor with a source that this installation does not have."""
        known = self._watched.get(key)
        if not self._is_running or wish.source not in self._sources or (known is not None and known.wish == wish):
            return
        self.forget(key)
        watched = self._watched[key] = _Watched(wish)
        watched.task = asyncio.create_task(self._follow(key, watched), name="signals")

    def forget(self, key: ObjectKey) -> None:
        """Look at it no more. Nothing if it is not looked at."""
        watched = self._watched.pop(key, None)
        if watched is None or watched.task is None:
            return
        self._ending.add(watched.task)
        watched.task.add_done_callback(self._ending.discard)
        watched.task.cancel()
        self._sources[watched.wish.source].forget(key)

    def samples(self, key: ObjectKey) -> tuple[Sample, ...]:
        """Those that are of use still, oldest first."""
        watched = self._watched.get(key)
        if watched is None:
            return ()
        watched.drop_old(self._clock())
        return tuple(sample for _, sample in watched.samples)

    def idle_since(self, key: ObjectKey) -> datetime | None:
        """Since when no look has seen a request, without a gap between looks. None: there are some, or one cannot be sure."""
        watched = self._watched.get(key)
        return watched.idle_since if watched is not None else None

    async def _follow(self, key: ObjectKey, watched: _Watched) -> None:
        """Look each `interval_s`, at a moment of it that is this key's own. A look that takes longer than that is followed by the next at
        once, never by two."""
        interval_s = watched.wish.interval_s
        due = self._clock() + interval_s * _phase_of(key)
        while True:
            await asyncio.sleep(max(due - self._clock(), 0.0))
            try:
                await self._look(key, watched)
            except Exception:
                # One that cannot be looked at, for whatever reason, is not to keep others from it, nor itself from the next look.
                logger.exception("A look at the pods failed", extra={"about": f"{key.namespace}/{key.name}"})
            due = max(due + interval_s, self._clock())

    async def _look(self, key: ObjectKey, watched: _Watched) -> None:
        wish = watched.wish
        engines = self._targets.find_engines(key)
        targets = self._targets.find_gateways(key) if wish.source is Source.GATEWAY else engines
        if not targets or not engines:
            # Nobody to ask: what is to be done without a ready pod is decided without samples.
            self._sources[wish.source].forget(key)
            watched.drop_old(self._clock())
            if watched.is_telling:
                watched.is_telling = False
                self._on_sample(key)  # that nobody tells any more is news, too
            return
        sample = await self._sources[wish.source].look(key, wish, targets)
        if self._watched.get(key) is not watched:
            return
        if wish.source is Source.GATEWAY:
            sample = speak_for(sample, len(engines))
        now = self._clock()
        watched.is_telling = True
        watched.add(now, sample)
        self._on_sample(key)


def speak_for(sample: Sample, engines: int) -> Sample:
    """What gateways told, as of the engines behind them: a gateway that did not answer is as many engines that did not."""
    return replace(sample, busy={}, asked=engines, answered=engines * sample.answered // max(sample.asked, 1))


def make_sources(config: OperatorConfig, clock: Callable[[], float]) -> dict[Source, SignalSource]:
    """Those that this installation has. All pods are asked within one budget."""
    fetcher = Fetcher()

    def wall() -> datetime:
        return datetime.now(UTC)

    sources: dict[Source, SignalSource] = {
        Source.ENGINE: EngineSource(fetcher, clock=clock, wall=wall),
        Source.GATEWAY: GatewayMetricsSource(fetcher, _HISTOGRAMS_MS, clock=clock, wall=wall),
    }
    if config.prometheus_url:
        settings = PrometheusSettings(
            url=config.prometheus_url,
            headers=dict(entry.split("=", 1) for entry in config.prometheus_headers),
            token_file=config.prometheus_token_file,
            ca_file=config.prometheus_ca_file,
            timeout_s=config.prometheus_timeout_s,
            labels=PodLabels(config.prometheus_namespace_label, config.prometheus_pod_label),
        )
        sources[Source.PROMETHEUS] = PrometheusSource(settings, wall=wall)
    return sources


def _phase_of(key: ObjectKey) -> float:
    """0 to 1, always the same for a key."""
    digest = blake2b(f"{key.namespace}/{key.name}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") / _PHASES
