"""Arrivals: when requests come and how long they are. Drawn once from a seed, so that every policy gets the same."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.world.azure import COUNTS, OUTPUTS, PROMPTS
from tests.world.engine import Request

__all__ = [
    "CHAT",
    "RAMP",
    "Shape",
    "Trace",
    "at_rate",
    "bursty",
    "constant",
    "conversations",
    "counted",
    "diurnal",
    "quiet",
    "ramp",
    "staged",
    "step",
]

#: (requests a second, seconds): the scored profile of llm-d's benchmark, 2 -> 4 -> 6 -> 8 -> 10 -> 4 -> 1 (scored-config.yml).
RAMP = ((2.0, 330.0), (4.0, 360.0), (6.0, 360.0), (8.0, 360.0), (10.0, 360.0), (4.0, 360.0), (1.0, 300.0))


@dataclass(frozen=True, slots=True)
class Shape:
    """Tokens: mean, deviation, least, most; of prompts and of answers."""

    prompt: tuple[float, float, int, int] = (4000, 300, 3500, 4500)
    output: tuple[float, float, int, int] = (1000, 80, 900, 1100)


#: Questions and answers.
CHAT = Shape((600, 400, 50, 2000), (250, 150, 20, 800))


@dataclass(frozen=True, slots=True)
class Trace:
    """`requests` in order; `seconds`: until the load ends; `rate`: requests a second at a time, for the oracle."""

    name: str
    arrivals: tuple[tuple[float, int, int], ...]
    seconds: float
    rate: Callable[[float], float]

    def requests(self) -> list[Request]:
        """Fresh ones, for one run."""
        return [Request(*arrival) for arrival in self.arrivals]


def _drawn(rng: random.Random, times: Sequence[float], shape: Shape) -> tuple[tuple[float, int, int], ...]:
    return tuple((at, _tokens(rng, shape.prompt), _tokens(rng, shape.output)) for at in times)


def _tokens(rng: random.Random, law: tuple[float, float, int, int]) -> int:
    mean, deviation, least, most = law
    return int(min(max(rng.gauss(mean, deviation), least), most))


def _poisson(rng: random.Random, rate: Callable[[float], float], most: float, seconds: float) -> list[float]:
    """Arrivals by chance at a rate that changes, by thinning."""
    times, at = [], 0.0
    while (at := at + rng.expovariate(most)) < seconds:
        if rng.random() * most < rate(at):
            times.append(at)
    return times


def _rate_of(stages: Sequence[tuple[float, float]]) -> Callable[[float], float]:
    def rate(at: float) -> float:
        for one, seconds in stages:
            if at < seconds:
                return one
            at -= seconds
        return 0.0

    return rate


def ramp(seed: int = 1, *, by_chance: bool = False) -> Trace:
    """The published ramp, with its even arrivals; `by_chance`: as many, but at random (Poisson)."""
    rng = random.Random(seed)
    rate = _rate_of(RAMP)
    seconds = sum(length for _, length in RAMP)
    times: list[float] = []
    if by_chance:
        times = _poisson(rng, rate, 10, seconds)
    else:
        begin = 0.0
        for one, length in RAMP:
            times += [begin + index / one for index in range(round(one * length))]
            begin += length
    return Trace("ramp by chance" if by_chance else "ramp", _drawn(rng, times, Shape()), seconds, rate)


def staged(stages: Sequence[tuple[float, float]], seed: int = 1, shape: Shape | None = None) -> Trace:
    """One rate after the other, at random: (requests a second, seconds)."""
    rng = random.Random(seed)
    rate, seconds = _rate_of(stages), sum(length for _, length in stages)
    times = _poisson(rng, rate, max(one for one, _ in stages), seconds)
    return Trace("staged", _drawn(rng, times, shape or Shape()), seconds, rate)


def constant(per_s: float, seconds: float = 1800, seed: int = 1, shape: Shape | None = None) -> Trace:
    """The same rate all the time, at random."""
    rng = random.Random(seed)
    times = _poisson(rng, lambda _: per_s, per_s, seconds)
    return Trace(f"constant {per_s:g}/s", _drawn(rng, times, shape or Shape()), seconds, lambda _: per_s)


def step(low: float = 2, high: float = 8, seconds: float = 2400, seed: int = 1) -> Trace:
    """From low to high at a quarter, back at three quarters."""
    rng = random.Random(seed)

    def rate(at: float) -> float:
        return high if seconds / 4 <= at < seconds * 3 / 4 else low

    return Trace("step", _drawn(rng, _poisson(rng, rate, high, seconds), Shape()), seconds, rate)


def bursty(seed: int = 1, seconds: float = 3600) -> Trace:
    """A base of 3/s with a minute of 8/s every ten minutes."""
    rng = random.Random(seed)

    def rate(at: float) -> float:
        return 8.0 if at % 600 > 540 else 3.0

    return Trace("bursty", _drawn(rng, _poisson(rng, rate, 8, seconds), Shape()), seconds, rate)


def diurnal(seed: int = 1, seconds: float = 7200) -> Trace:
    """A day in two hours: a sine between 1/s and 9/s."""
    rng = random.Random(seed)

    def rate(at: float) -> float:
        return 5 - 4 * math.cos(2 * math.pi * at / seconds)

    return Trace("diurnal", _drawn(rng, _poisson(rng, rate, 9, seconds), Shape()), seconds, rate)


def conversations(seed: int = 1) -> Trace:
    """An hour of a public service: as many requests in each ten seconds as there were, with prompts and answers as long."""
    return counted("conversations", COUNTS, PROMPTS, OUTPUTS, seed)


def counted(name: str, counts: Sequence[int], prompts: Sequence[int], outputs: Sequence[int], seed: int) -> Trace:
    """So many requests in each ten seconds, at random within them, of lengths by their quantiles: each of the two by itself."""
    rng = random.Random(seed)
    times = sorted(10 * (index + rng.random()) for index, count in enumerate(counts) for _ in range(count))
    sizes = tuple((at, _quantile(rng, prompts), _quantile(rng, outputs)) for at in times)
    return Trace(name, sizes, 10.0 * len(counts), lambda at: counts[min(int(at / 10), len(counts) - 1)] / 10)


def at_rate(name: str, rate: Callable[[float], float], most: float, seconds: float, seed: int) -> Trace:
    """At random at a rate that changes and is never above `most`, a second; lengths as in the published ramp."""
    rng = random.Random(seed)
    return Trace(name, _drawn(rng, _poisson(rng, rate, most, seconds), Shape()), seconds, rate)


def _quantile(rng: random.Random, steps: Sequence[int]) -> int:
    """A value of a distribution of which some quantiles, evenly spaced, are known."""
    place = rng.random() * (len(steps) - 1)
    low, high = steps[int(place)], steps[int(place) + 1]
    return max(round(low + (high - low) * (place - int(place))), 1)


def quiet(seed: int = 1, seconds: float = 5400) -> Trace:
    """Some minutes of load, an hour of nothing, load again: what goes to zero."""
    rng = random.Random(seed)

    def rate(at: float) -> float:
        return 0.0 if 600 <= at < 4200 else 2.0

    return Trace("quiet", _drawn(rng, _poisson(rng, rate, 2, seconds), Shape()), seconds, rate)
