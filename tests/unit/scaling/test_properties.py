"""What holds in every situation, however mad its numbers."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.scaling.situations import BOUNDS, NOW, TTFT, again, ago, looks, policy, recommended, sample, situation

from fairlead.facts.scaling import Distribution, Measure, Sample
from fairlead.scaling.decision import Behavior, Change, Limit, Policy, Recommendation, Situation
from fairlead.scaling.law import decide
from fairlead.scaling.memory import remembered_recommendations

MAD = st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 0.0, 1e300])
NUMBER = st.one_of(st.floats(0, 200), MAD)
AGES = st.floats(-400, 4000)


@st.composite
def behaviors(draw: st.DrawFn) -> Behavior:
    limits = st.one_of(
        st.builds(Limit, st.floats(1, 1800), pods=st.integers(1, 10)),
        st.builds(Limit, st.floats(1, 1800), percent=st.integers(1, 400)),
    )
    return Behavior(
        draw(st.floats(0, 3600)), tuple(draw(st.lists(limits, max_size=3))), draw(st.booleans()), draw(st.booleans())
    )


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    minimum = draw(st.integers(0, 6))
    measures = draw(st.sets(st.sampled_from(list(Measure)), min_size=1))
    targets = {measure: draw(st.floats(0.01, 100)) for measure in measures}
    maximum = minimum + draw(st.integers(0 if minimum else 1, 10))
    return Policy(minimum, maximum, targets, draw(behaviors()), draw(behaviors()), draw(st.floats(1, 3600)))


@st.composite
def distributions(draw: st.DrawFn) -> Distribution:
    counts = draw(st.lists(NUMBER, min_size=len(BOUNDS) - 1, max_size=len(BOUNDS) + 1))
    return Distribution(BOUNDS, tuple(counts))


@st.composite
def mad_samples(draw: st.DrawFn) -> Sample:
    asked = draw(st.integers(0, 8))
    told = draw(st.dictionaries(st.sampled_from(list(Measure)), distributions(), max_size=3))
    gauges = [draw(st.one_of(st.none(), NUMBER)) for _ in range(3)]
    at = ago(draw(AGES))
    answered = draw(st.integers(0, asked))
    return Sample(at, draw(st.floats(0, 120)), asked, answered, told, *gauges, draw(st.sampled_from(["", "", "no"])))


@st.composite
def sane_samples(draw: st.DrawFn) -> tuple[Sample, ...]:
    pods = draw(st.integers(1, 8))
    like = sample(
        pods=pods,
        ttft=draw(st.sampled_from([0.1, 0.2, 0.4, 0.7, 1.0, 2.0, 9.0])),
        requests=draw(st.sampled_from([0, 0.5, 5, 50])),
        running=draw(st.one_of(st.none(), st.floats(0, 300))),
        waiting=draw(st.one_of(st.none(), st.floats(0, 300))),
        kv=draw(st.one_of(st.none(), st.floats(0, 1))),
    )
    return looks(like, draw(st.sampled_from([10, 60, 400])))


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    replicas = draw(st.integers(0, 14))
    samples = draw(st.one_of(sane_samples(), st.lists(mad_samples(), max_size=12).map(tuple)))
    ready = draw(st.integers(0, replicas))
    recommendations = st.builds(Recommendation, AGES.map(ago), st.integers(0, 20))
    history = draw(st.one_of(st.lists(recommendations, max_size=8).map(tuple), st.integers(0, 12).map(recommended)))
    loads = st.one_of(st.none(), st.floats(0, 100))
    change = st.builds(Change, AGES.map(ago), st.integers(0, 9), st.integers(0, 9), load=loads)
    return Situation(
        NOW,
        replicas,
        ready,
        tuple(ago(age) for age in draw(st.lists(AGES, max_size=3))),
        samples,
        history,
        tuple(draw(st.lists(change, max_size=5))),
        draw(st.one_of(st.none(), st.integers(0, 12))),
        draw(st.one_of(st.none(), st.integers(0, 5))),
        draw(st.floats(0, 1200)),
        draw(st.booleans()),
    )


@settings(max_examples=200, deadline=None)
@given(policies(), situations())
def test_always(wanted: Policy, case: Situation) -> None:
    """Never out of bounds, never beyond the accelerators, always the same, and nothing more to do at the same instant."""
    decision = decide(wanted, case)
    assert decision == decide(wanted, case)
    assert wanted.minimum <= decision.replicas <= wanted.maximum or case.capacity is not None
    assert decision.replicas <= wanted.maximum
    if case.capacity is not None:
        assert decision.replicas <= max(case.capacity, case.replicas)
    assert decision.message
    assert "nan" not in decision.message.lower().replace("nanosecond", "")
    after = decide(wanted, again(wanted, case, decision))
    assert after.replicas == decision.replicas, (decision, after)


@settings(max_examples=150, deadline=None)
@given(policies(), situations(), st.sampled_from(["missing", "stale", "partial", "problem", "nan", "future"]))
def test_never_down_on_bad_data(wanted: Policy, case: Situation, how: str) -> None:
    newest = case.samples[-1] if case.samples else sample()
    bad = {
        "missing": (),
        "stale": tuple(one for one in case.samples if one.at <= ago(100)),
        "partial": (*case.samples, replace(newest, at=NOW, asked=newest.asked + 1, answered=min(newest.answered, 7))),
        "problem": (*case.samples, replace(newest, at=NOW, problem="timeout")),
        "nan": (*case.samples, replace(newest, at=NOW, running=math.nan)),
        "future": tuple(replace(one, at=NOW + timedelta(seconds=30 + i)) for i, one in enumerate(case.samples)),
    }[how]
    decision = decide(wanted, replace(case, samples=bad))
    assert decision.replicas >= min(case.replicas, wanted.maximum)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 8),
    st.lists(st.sampled_from([0.1, 0.2, 0.4, 0.7, 1.0, 2.0, 9.0]), min_size=2, max_size=2),
    st.one_of(st.none(), st.floats(0, 1)),
    st.booleans(),
)
def test_monotone_in_what_is_measured(pods: int, ttfts: list[float], kv: float | None, is_covered: bool) -> None:
    """The slower the requests, the more replicas, other things alike."""
    history = recommended(1) if is_covered else ()
    numbers = [
        decide(
            policy(1, 30),
            situation(pods, looks(sample(pods=pods, ttft=one, running=5.0 * pods, kv=kv)), recommendations=history),
        )
        for one in sorted(ttfts)
    ]
    assert numbers[0].replicas <= numbers[1].replicas


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 8),
    st.lists(st.floats(0, 1), min_size=2, max_size=2),
    st.lists(st.floats(0, 99), min_size=2, max_size=2),
)
def test_monotone_in_the_load(pods: int, usages: list[float], queues: list[float]) -> None:
    """The fuller the engines and the longer the queue, the more replicas."""
    numbers = [
        decide(
            policy(1, 30, {TTFT: 1.0, Measure.QUEUED_REQUESTS: 5.0}),
            situation(
                pods,
                looks(sample(pods=pods, ttft=0.2, running=20.0 * pods, kv=kv, waiting=queue)),
                recommendations=recommended(1),
            ),
        ).replicas
        for kv, queue in zip(sorted(usages), sorted(queues), strict=True)
    ]
    assert numbers[0] <= numbers[1]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 9),
    st.sampled_from([0.1, 0.2, 0.4, 0.7, 1.0, 2.0]),
    st.one_of(st.none(), st.floats(0, 1)),
    st.floats(0, 40),
)
def test_what_is_constant_comes_to_rest(start: int, ttft: float, kv: float | None, each: float) -> None:
    """The same measurements for an hour, whatever the number of pods: replicas go one way, or none, and stop."""
    rule = policy(1, 10)
    case = situation(start, ())
    seen = [start]
    for look in range(240):
        now = NOW + timedelta(seconds=15 * look)
        pods = case.replicas
        like = sample(pods=pods, ttft=ttft, running=each * pods, kv=kv, over_s=15, requests=60)
        samples = [replace(like, at=now - timedelta(seconds=15 * one)) for one in reversed(range(24))]
        case = replace(case, now=now, ready=pods, samples=tuple(samples))
        decision = decide(rule, case)
        remembered = remembered_recommendations(case.recommendations, decision, rule, now)
        changes = case.changes
        if decision.replicas != pods:
            changes = (*changes, Change(now, pods, decision.replicas, load=decision.load))
            seen.append(decision.replicas)
        case = replace(case, replicas=decision.replicas, recommendations=remembered, changes=changes)
    steps = [after - before for before, after in itertools.pairwise(seen)]
    assert all(step > 0 for step in steps) or all(step < 0 for step in steps)
