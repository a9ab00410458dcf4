"""The world in which a policy scales: arrivals, a gateway, pods that load, serve and drain, a source that looks. Events, no
clock, no sleep."""

from __future__ import annotations

import bisect
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from tests.world.engine import Engine, Pod, Request
from tests.world.traces import Trace

from fairlead.facts.scaling import Distribution, Measure, Sample

__all__ = ["DIRECT", "EPOCH", "PROMETHEUS", "Objective", "Outcome", "Scaler", "Source", "View", "live"]

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
#: vLLM's own buckets.
TTFT_BOUNDS = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
    20,
    40,
    80,
    160,
    640,
    2560,
)
TPOT_BOUNDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)


@dataclass(frozen=True, slots=True)
class Source:
    """How often it looks, and how many seconds its times are of."""

    name: str
    interval_s: float
    over_s: float


#: A gateway that holds requests tells of it, and looks for a ready pod, every second.
PROBE_S = 1.0

DIRECT = Source("direct", 5, 5)
PROMETHEUS = Source("Prometheus", 15, 60)


@dataclass(frozen=True, slots=True)
class Objective:
    """What a request must keep, in seconds."""

    first_token_s: float = 3.0
    output_token_s: float = 0.1


@dataclass(frozen=True, slots=True)
class View:
    """What a policy sees."""

    now: datetime
    seconds: float
    replicas: int
    ready: int
    starting_since: tuple[datetime, ...]
    samples: Sequence[Sample]
    held: int


class Scaler(Protocol):
    """A policy: asked at each look of its source, and whenever the gateway begins to hold requests."""

    name: str

    def replicas(self, view: View) -> int:
        """How many there shall be."""


@dataclass(slots=True)
class Outcome:
    """What came of it. `replicas`: (second, number) at each change."""

    requests: list[Request]
    replicas: list[tuple[float, int]]
    load_s: float
    objective: Objective

    @property
    def attainment(self) -> float:
        """Share of requests that kept both objectives."""
        return sum(self._is_kept(one) for one in self.requests) / max(len(self.requests), 1)

    def _is_kept(self, one: Request) -> bool:
        return (
            one.time_to_first_token_s <= self.objective.first_token_s
            and one.output_token_s <= self.objective.output_token_s
        )

    @property
    def average(self) -> float:
        """Replicas, averaged over the time of the load (not over the cheap time after it)."""
        total = 0.0
        for (begin, number), (end, _) in zip(self.replicas, [*self.replicas[1:], (self.load_s, 0)], strict=True):
            total += number * max(min(end, self.load_s) - min(begin, self.load_s), 0)
        return total / self.load_s

    @property
    def flaps(self) -> int:
        """How often replicas came back within ten minutes after they had been taken away."""
        steps = [
            (at, after - before) for (_, before), (at, after) in zip(self.replicas, self.replicas[1:], strict=False)
        ]
        downs = [at for at, step in steps if step < 0]
        return sum(1 for at, step in steps if step > 0 and any(0 < at - down <= 600 for down in downs))

    @property
    def most(self) -> int:
        """The highest number of replicas."""
        return max(number for _, number in self.replicas)


@dataclass(slots=True)
class World:
    """All that is; `live` runs it."""

    engine: Engine
    rng: random.Random
    pods: list[Pod] = field(default_factory=list)
    draining: list[Pod] = field(default_factory=list)
    held: list[Request] = field(default_factory=list)
    since: dict[int, float] = field(default_factory=dict)

    def ready(self, now: float) -> list[Pod]:
        """Pods that serve."""
        return [pod for pod in self.pods if pod.ready_at <= now]

    def scale(self, replicas: int, now: float) -> None:
        """Make pods, or take those away that do least: the ones that load first."""
        while len(self.pods) < replicas:
            pod = Pod(self.engine, now + self.engine.load_s, now=now)
            self.since[id(pod)] = now
            self.pods.append(pod)
        while len(self.pods) > replicas:
            idlest = min(self.pods, key=lambda pod: (pod.ready_at <= now, pod.in_flight, -pod.ready_at))
            self.pods.remove(idlest)
            self.draining.append(idlest)

    def send(self, request: Request, now: float) -> None:
        """As Envoy's least request: the better one of two by chance. Held where no pod is ready."""
        ready = self.ready(now)
        if not ready:
            self.held.append(request)
            return
        pair = self.rng.sample(ready, min(2, len(ready)))
        for pod in pair:
            pod.advance(now)
        min(pair, key=lambda pod: pod.in_flight).add(request, now)

    def release(self, now: float) -> None:
        """Send what is held, where there is a ready pod by now."""
        waiting, self.held = self.held, []
        for one in waiting:
            self.send(one, now)

    def look(self, now: float, source: Source, seen: list[tuple[float, Request, bool]]) -> Sample:
        """What the ready pods say now; `seen`: first tokens and ends of late, kept for sources with long windows."""
        ready = self.ready(now)
        for pod in [*self.pods, *self.draining]:
            pod.advance(now)
            seen += [(one.first_token, one, True) for one in pod.begun]
            seen += [(one.end, one, False) for one in pod.finished]
            pod.begun.clear()
            pod.finished.clear()
        self.draining = [pod for pod in self.draining if pod.in_flight]
        seen[:] = [one for one in seen if one[0] > now - source.over_s]
        first = [one.time_to_first_token_s for _, one, is_first in seen if is_first]
        each = [one.output_token_s for _, one, is_first in seen if not is_first]
        times = {
            Measure.TIME_TO_FIRST_TOKEN: _distribution(first, TTFT_BOUNDS),
            Measure.OUTPUT_TOKEN_LATENCY: _distribution(each, TPOT_BOUNDS),
        }
        kv = sum(pod.kv_used / self.engine.kv_tokens for pod in ready) / len(ready) if ready else 0.0
        return Sample(
            EPOCH + timedelta(seconds=now),
            source.over_s,
            len(ready),
            len(ready),
            times,
            running=float(sum(pod.active if self.engine.tells_kv else pod.in_flight for pod in ready)),
            waiting=float(sum(len(pod.waiting) for pod in ready)) if self.engine.tells_kv else None,
            kv_cache_usage=min(kv, 1.0) if self.engine.tells_kv else None,
        )


def _distribution(values: Sequence[float], bounds: tuple[float, ...]) -> Distribution:
    counts = [0.0] * (len(bounds) + 1)
    for value in values:
        counts[bisect.bisect_left(bounds, value)] += 1
    return Distribution(bounds, tuple(counts))


def live(
    trace: Trace,
    engine: Engine,
    scaler: Scaler,
    *,
    start: int,
    source: Source = DIRECT,
    objective: Objective | None = None,
    distort: Callable[[Sample], Sample | None] | None = None,
    seed: int = 7,
) -> Outcome:
    """Run a trace to its last answer under a policy, from `start` ready replicas. `distort`: what the source makes of a sample."""
    world = World(engine, random.Random(seed))
    world.pods = [Pod(engine, 0.0) for _ in range(start)]
    requests = trace.requests()
    history: list[tuple[float, int]] = [(0.0, start)]
    samples: list[Sample] = []
    seen: list[tuple[float, Request, bool]] = []
    look_at, probe_at, index = source.interval_s, float("inf"), 0
    while True:
        arrival = requests[index].at if index < len(requests) else float("inf")
        if arrival < min(look_at, probe_at):
            world.send(requests[index], arrival)
            index += 1
            if world.held:
                probe_at = min(probe_at, arrival + PROBE_S)
            continue
        now = min(look_at, probe_at)
        world.release(now)
        probe_at = now + PROBE_S if world.held else float("inf")
        if now < look_at:
            if not world.pods and (woken := scaler.replicas(_view(world, now, samples))):
                world.scale(woken, now)
                history.append((now, woken))
            continue
        sample = world.look(now, source, seen)
        told = distort(sample) if distort else sample
        if told is not None:
            samples.append(told)
        del samples[:-400]
        wanted = scaler.replicas(_view(world, now, samples))
        if wanted != len(world.pods):
            world.scale(wanted, now)
            history.append((now, wanted))
        look_at += source.interval_s
        is_over = now >= trace.seconds and index == len(requests) and not world.held
        if is_over and not any(pod.in_flight for pod in [*world.pods, *world.draining]):
            return Outcome(requests, history, trace.seconds, objective or Objective())


def _view(world: World, now: float, samples: Sequence[Sample]) -> View:
    at = EPOCH + timedelta(seconds=now)
    starting = tuple(EPOCH + timedelta(seconds=world.since[id(pod)]) for pod in world.pods if pod.ready_at > now)
    ready = len(world.pods) - len(starting)
    return View(at, now, len(world.pods), ready, starting, samples, len(world.held))
