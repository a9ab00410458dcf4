"""What the law gives in the simulated world: bounds for each trace, against others, and with signals as they are in life."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
from tests.world.engine import OLLAMA_8B_L4, QWEN3_32B_2H100
from tests.world.policies import Law, PublishedLaw, QueueHpa, RunningHpa, Static, policy
from tests.world.table import law, serve
from tests.world.traces import CHAT, Trace, bursty, constant, diurnal, ramp, staged, step
from tests.world.world import DIRECT, EPOCH, PROMETHEUS, Objective, Outcome, Scaler, Source, live

from fairlead.api.conditions import Reason
from fairlead.facts.scaling import Distribution, Sample

SOURCES = pytest.mark.parametrize("source", [DIRECT, PROMETHEUS], ids=lambda source: source.name)


def lived(
    trace: Trace,
    scaler: Scaler | None = None,
    source: Source = DIRECT,
    start: int = 3,
    distort: Callable[[Sample], Sample | None] | None = None,
) -> Outcome:
    """With 3 to 8 replicas of Qwen3-32B."""
    return live(trace, QWEN3_32B_2H100, scaler or Law(policy()), start=start, source=source, distort=distort)


@SOURCES
def test_the_published_ramp(source: Source) -> None:
    """At least 97 % at no more than 5.7 replicas while the load lasts, and nothing comes back that was taken away."""
    outcome = lived(ramp(), source=source)
    assert outcome.attainment >= 0.97
    assert outcome.average <= 5.7
    assert outcome.flaps == 0


@SOURCES
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_ramp_by_chance(source: Source, seed: int) -> None:
    outcome = lived(ramp(seed, by_chance=True), source=source)
    assert outcome.attainment >= 0.97
    assert outcome.average <= 6.5
    assert outcome.flaps == 0


@SOURCES
@pytest.mark.parametrize(("per_s", "start"), [(2, 3), (3, 3), (5, 5), (6, 6)])
def test_a_constant_load_comes_to_rest(source: Source, per_s: float, start: int) -> None:
    outcome = lived(constant(per_s), source=source, start=start)
    assert outcome.attainment >= 0.97
    assert outcome.flaps <= 1
    assert len(outcome.replicas) <= 5


@SOURCES
def test_a_day(source: Source) -> None:
    outcome = lived(diurnal(), source=source)
    assert outcome.attainment >= 0.99
    assert outcome.average <= 5.7
    assert outcome.flaps == 0


@pytest.mark.parametrize("make", [ramp, step, bursty, diurnal], ids=["ramp", "step", "bursty", "diurnal"])
@pytest.mark.parametrize("other", [QueueHpa, RunningHpa, PublishedLaw], ids=lambda other: other.__name__)
def test_no_worse_than_others(make: Callable[[], Trace], other: Callable[[], Scaler]) -> None:
    """More requests in time than each of them, within half a percent; nobody tells the law what a replica bears."""
    assert lived_once(make).attainment >= lived(make(), other()).attainment - 0.005


@cache
def lived_once(make: Callable[[], Trace]) -> Outcome:
    """The law on a trace, by direct looks."""
    return lived(make())


def test_never_beyond_the_accelerators() -> None:
    law = Law(policy(), capacity=5)
    outcome = lived(ramp(), law)
    assert outcome.most == 5
    assert Reason.CAPACITY_BLOCKED in {decision.reason for _, decision in law.decisions}


def spoiled(seed: int) -> Callable[[Sample], Sample | None]:
    """A tenth of the looks is lost, some are partial, not numbers, or refused."""
    rng = random.Random(seed)

    def distort(sample: Sample) -> Sample | None:
        luck = rng.random()
        if luck < 0.1:
            return None
        if luck < 0.15:
            return replace(sample, answered=max(sample.answered - 1, 0))
        if luck < 0.17:
            return replace(sample, problem="Prometheus answers 503")
        if luck < 0.19:
            bad = {name: Distribution(one.bounds, (math.nan,) * len(one.counts)) for name, one in sample.times.items()}
            return replace(sample, times=bad)
        return sample

    return distort


@SOURCES
def test_noisy_signals_cost_little(source: Source) -> None:
    outcome = lived(ramp(), source=source, distort=spoiled(3))
    assert outcome.attainment >= 0.95
    assert outcome.average <= 6.8
    assert outcome.flaps == 0


@pytest.mark.parametrize("how", ["silent", "empty", "old"])
def test_while_nothing_is_known_nothing_is_taken_away(how: str) -> None:
    """The load falls to a fifth while the source is away for ten minutes; replicas go when it is back, and not before."""
    trace = constant(8, 1800)
    trace = replace(trace, arrivals=tuple(one for one in trace.arrivals if one[0] < 700 or one[0] % 5 < 1))
    frozen: list[Sample] = []

    def distort(sample: Sample) -> Sample | None:
        seconds = (sample.at - EPOCH).total_seconds()
        if not 690 < seconds < 1290:
            frozen[:] = [sample]
            return sample
        if how == "empty":
            return replace(sample, times={}, running=None, waiting=None, kv_cache_usage=None)
        return None if how == "silent" else frozen[0]

    outcome = lived(trace, start=7, distort=distort)
    changes = [(at, number) for at, number in outcome.replicas if at > 690]
    assert changes
    assert min(at for at, _ in changes) > 1290


def test_an_engine_that_tells_only_of_times() -> None:
    """Ollama by its gateways: requests in flight and times, no KV cache, no queue."""
    trace = staged(((0.5, 900), (2.0, 1200), (0.5, 1200)), shape=CHAT)
    target = policy(1, 8, {"timeToFirstToken": "2s"})
    goal = Objective(2.0, 1.0)
    law = live(trace, OLLAMA_8B_L4, Law(target, startup_s=40), start=1, objective=goal)
    fixed = live(trace, OLLAMA_8B_L4, Static(5), start=5, objective=goal)
    assert fixed.attainment < 0.97
    assert law.attainment >= 0.97
    assert law.average <= 5.8
    assert law.flaps == 0


@SOURCES
def test_a_breach_is_answered_in_time(source: Source) -> None:
    """From the step to the first replicas that are asked for: 15 s where pods are asked, 45 s by Prometheus."""
    outcome = lived(step(), source=source)
    asked = next(at for at, number in outcome.replicas if number > 3)
    assert asked - 600 <= (15 if source is DIRECT else 45)


@SOURCES
def test_an_engine_that_is_full_before_its_cache_is(source: Source) -> None:
    """24 sequences at most use four tenths of the cache: that they are full is learned from the first breach, and not forgotten."""
    trace = constant(4, 3600)
    engine = replace(QWEN3_32B_2H100, sequences=24)
    few = live(trace, engine, Static(4), start=4)
    outcome = live(trace, engine, Law(policy()), start=3, source=source)
    assert few.attainment < 0.5
    assert outcome.attainment >= 0.95
    assert outcome.average <= 6.5
    assert outcome.flaps == 0


def test_pods_that_take_five_minutes_to_load() -> None:
    engine = replace(QWEN3_32B_2H100, load_s=300)
    trace = diurnal()
    outcome = live(trace, engine, Law(policy(), startup_s=300), start=3)
    published = live(trace, engine, PublishedLaw(), start=3)
    assert outcome.attainment >= 0.99 > published.attainment
    assert outcome.flaps == 0


@SOURCES
def test_an_hour_of_a_public_service(source: Source) -> None:
    """Another engine, real arrivals, prompts of all lengths."""
    outcome = serve(law, 8, source)
    assert outcome.attainment >= 0.96
    assert outcome.average <= 14.5
    assert outcome.flaps <= 1
