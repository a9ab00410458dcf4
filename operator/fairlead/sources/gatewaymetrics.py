"""Asks gateways how the engines behind them are doing, for engines that have no metrics of their own.

A gateway tells of all of its backends at once, so that its answer serves all LLMDeployments that are looked at about that time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from fairlead.facts.scaling import Measure, ScrapeWish, Target
from fairlead.sources.exposition import find_samples, line_pattern, make_cumulative, read_labels
from fairlead.sources.fetching import Fetcher, FetchError
from fairlead.sources.podsource import PodSource
from fairlead.sources.readings import Cumulative, Reading

__all__ = ["GatewayMetricsSource"]

_ACTIVE: Final = b"envoy_cluster_upstream_rq_active"
_TIMES: Final = {
    b"envoy_fairlead_time_to_first_token_ms_bucket": Measure.TIME_TO_FIRST_TOKEN,
    b"envoy_fairlead_request_duration_ms_bucket": Measure.LATENCY,
}
_LINES: Final = line_pattern([_ACTIVE, *_TIMES])
#: Clusters that lead to a backend's own hosts, by DNS and by an affinity: `be~<backend>~<place>`.
_TO_HOSTS: Final = ("be", "pin")
_MS: Final = 0.001
#: A gateway tells 3.5 kB for each combination of model, consumer, class and backend, of which it may have two thousand.
MAX_BYTES: Final = 8 * 1_048_576
#: From here on reading takes long enough that other work should not wait for it.
_LARGE_BYTES: Final = 1_048_576


@dataclass(slots=True)
class _Backend:
    """What a gateway tells of one backend: requests that it is at, and the buckets of all label sets."""

    active: float = 0.0
    buckets: dict[Measure, list[tuple[bytes, float]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Answer:
    at: float
    backends: dict[str, _Backend]


class GatewayMetricsSource(PodSource):
    """Answers are kept for half of an interval. `bounds`: of the gateways' histograms, milliseconds: what nobody has asked for yet is not
    told at all, and is a histogram without requests."""

    def __init__(
        self,
        fetcher: Fetcher,
        bounds: Mapping[Measure, Sequence[float]],
        *,
        clock: Callable[[], float],
        wall: Callable[[], datetime],
    ) -> None:
        super().__init__(fetcher, clock=clock, wall=wall)
        self._none = {
            measure: Cumulative(tuple(bound * _MS for bound in bounds[measure]), (0.0,) * len(bounds[measure]), 0.0)
            for measure in _TIMES.values()
        }
        self._answers: dict[str, _Answer] = {}

    async def close(self) -> None:
        """The fetcher, too."""
        self._answers.clear()
        await super().close()

    async def _read(self, wish: ScrapeWish, target: Target) -> Reading:
        answer = self._answers.get(target.uid)
        if answer is None or self._clock() - answer.at > wish.interval_s / 2:
            answer = await self._fetch(wish, target)
        found = [answer.backends[name] for name in sorted(target.backends) if name in answer.backends]
        times = {}
        for measure in _TIMES.values():
            buckets = [bucket for backend in found for bucket in backend.buckets.get(measure, ())]
            times[measure] = make_cumulative(buckets, _MS) or self._none[measure]
        return Reading(answer.at, times, running=sum(backend.active for backend in found))

    async def _fetch(self, wish: ScrapeWish, target: Target) -> _Answer:
        async with self._fetcher.open("http", target.address, wish.port, wish.path, MAX_BYTES) as text:
            if b"\nenvoy_" not in text:
                raise FetchError(f"{wish.path} has no metrics of a gateway")
            now = self._clock()
            is_large = len(text) > _LARGE_BYTES
            backends = await asyncio.to_thread(_read_backends, text) if is_large else _read_backends(text)
        answer = _Answer(now, backends)
        self._answers = {uid: one for uid, one in self._answers.items() if now - one.at < wish.interval_s}
        self._answers[target.uid] = answer
        return answer


def _read_backends(text: bytes) -> dict[str, _Backend]:
    backends: dict[str, _Backend] = {}
    for name, labels, value in find_samples(text, _LINES):
        for backend, le in _find_backend(name, labels):
            entry = backends.setdefault(backend, _Backend())
            if name == _ACTIVE:
                entry.active += value
            else:
                entry.buckets.setdefault(_TIMES[name], []).append((le, value))
    return backends


def _find_backend(name: bytes, labels: bytes) -> Iterator[tuple[str, bytes]]:
    """The backend that a sample is about and its `le`; nothing for what the gateway answered by itself, and for its other clusters."""
    read = read_labels(labels)
    if name != _ACTIVE:
        if read.get(b"backend") and b"le" in read:
            yield read[b"backend"].decode(errors="replace"), read[b"le"]
        return
    kind, _, rest = read.get(b"envoy_cluster_name", b"").decode(errors="replace").partition("~")
    backend = rest.partition("~")[0]
    if kind in _TO_HOSTS and backend:
        yield backend, b""
