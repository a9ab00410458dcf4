"""Situations to decide in, made of few words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from fairlead.facts.scaling import Distribution, Measure, Sample
from fairlead.scaling.decision import Behavior, Change, Decision, Limit, Policy, Recommendation, Situation
from fairlead.scaling.law import decide
from fairlead.scaling.memory import remembered_changes, remembered_recommendations

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
BOUNDS = (0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0)
UP = Behavior(0, (Limit(60, pods=4), Limit(60, percent=100)))
DOWN = Behavior(180, (Limit(60, pods=1),))
TTFT = Measure.TIME_TO_FIRST_TOKEN


def ago(seconds: float) -> datetime:
    """A time before NOW."""
    return NOW - timedelta(seconds=seconds)


def policy(
    minimum: int = 1,
    maximum: int = 10,
    targets: dict[Measure, float] | None = None,
    up: Behavior = UP,
    down: Behavior = DOWN,
    idle_s: float = 300,
) -> Policy:
    """Time to first token of a second, unless others are given."""
    return Policy(minimum, maximum, {TTFT: 1.0} if targets is None else targets, up, down, idle_s)


def times(seconds: float, requests: float = 20) -> Distribution:
    """All requests took about so long."""
    counts = [0.0] * (len(BOUNDS) + 1)
    counts[next((i for i, bound in enumerate(BOUNDS) if seconds <= bound), len(BOUNDS))] = requests
    return Distribution(BOUNDS, tuple(counts))


def sample(
    at: datetime = NOW,
    *,
    pods: int = 2,
    ttft: float | None = 0.2,
    requests: float = 20,
    running: float | None = 4,
    waiting: float | None = 0,
    kv: float | None = None,
    over_s: float = 5,
) -> Sample:
    """One look; `running` and `waiting` in all pods."""
    told = {} if ttft is None else {TTFT: times(ttft, requests), Measure.LATENCY: times(ttft, requests)}
    return Sample(at, over_s, pods, pods, told, running, waiting, kv)


def looks(like: Sample, seconds: float = 400, every_s: float = 5, until_s: float = 0) -> tuple[Sample, ...]:
    """The same look again and again, oldest first."""
    count = int((seconds - until_s) / every_s)
    return tuple(replace(like, at=ago(until_s + every_s * one)) for one in reversed(range(count + 1)))


def recommended(replicas: int, seconds: float = 400, every_s: float = 5) -> tuple[Recommendation, ...]:
    """The same recommendation over that time."""
    return tuple(Recommendation(ago(every_s * one), replicas) for one in reversed(range(1, int(seconds / every_s) + 1)))


def situation(replicas: int = 2, samples: Sequence[Sample] = (), **others: object) -> Situation:
    """All pods ready."""
    ready = others.pop("ready", replicas)
    return Situation(NOW, replicas, ready, samples=tuple(samples), **others)  # type: ignore[arg-type]


def again(policy: Policy, before: Situation, decision: Decision) -> Situation:
    """The same instant, after the decision was carried out and remembered; new pods load."""
    added = max(decision.replicas - before.replicas, 0)
    changes: Sequence[Change] = before.changes
    if decision.replicas != before.replicas:
        change = Change(
            before.now, before.replicas, decision.replicas, decision.reason, decision.message, decision.load
        )
        changes = remembered_changes([*changes, change], policy, before.now)
    return replace(
        before,
        replicas=decision.replicas,
        ready=min(before.ready, decision.replicas),
        starting_since=(*before.starting_since, *[before.now] * added),
        recommendations=remembered_recommendations(before.recommendations, decision, policy, before.now),
        changes=tuple(changes),
    )


def decided(policy: Policy, situation: Situation) -> Decision:
    """Decide, and hold the laws that always hold."""
    decision = decide(policy, situation)
    assert decision == decide(policy, situation)
    assert decision.replicas == decide(policy, again(policy, situation, decision)).replicas, "not idempotent"
    return decision
