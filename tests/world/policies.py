"""Who scales: the real law, and what it is compared with."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from tests.world.world import View

from fairlead.api.autoscaling import AutoscalingSpec
from fairlead.facts.scaling import Measure, Sample
from fairlead.planning.deployment.scalingpolicy import make_policy
from fairlead.scaling.decision import Change, Decision, Policy, Recommendation, Situation
from fairlead.scaling.law import decide
from fairlead.scaling.memory import remembered_changes, remembered_recommendations
from fairlead.scaling.signals import quantile, times_of
from fairlead.scaling.tuning import DEFAULT, Tuning

__all__ = ["Hpa", "Law", "Oracle", "PublishedLaw", "QueueHpa", "RunningHpa", "Static", "policy", "published_hpa"]


#: Nothing is scheduled here.
NO_TIME = datetime(2026, 1, 1, tzinfo=UTC)


def policy(minimum: int = 3, maximum: int = 8, targets: Mapping[str, object] | None = None) -> Policy:
    """What a custom resource says with nothing but bounds and targets; those of the published benchmark, unless others are given."""
    told = targets or {"timeToFirstToken": "3s", "outputTokenLatency": "100ms"}
    spec = AutoscalingSpec.model_validate({"minReplicas": max(minimum, 1), "maxReplicas": maximum, "targets": told})
    return replace(make_policy(spec, NO_TIME), minimum=minimum)


def _kept(samples: Sequence[Sample], policy: Policy, now: datetime, tuning: Tuning) -> tuple[Sample, ...]:
    """The samples that a decision may still look at, oldest first. The operator keeps them as long, and knows since when nobody asks."""
    reach_s = tuning.extended_s + tuning.window_s
    if policy.minimum <= 0:
        reach_s = max(reach_s, policy.idle_s + tuning.stale_s)
    begin = now - timedelta(seconds=reach_s)
    return tuple(one for one in samples if begin <= one.at <= now)


@dataclass(slots=True)
class Law:
    """fairlead's own, with its memory."""

    policy: Policy
    name: str = "fairlead"
    tuning: Tuning = DEFAULT
    startup_s: float = 100.0
    capacity: int | None = None
    recommendations: tuple[Recommendation, ...] = ()
    changes: tuple[Change, ...] = ()
    decisions: list[tuple[float, Decision]] = field(default_factory=list)

    def replicas(self, view: View) -> int:
        """Ask the law, and remember as the operator does."""
        situation = Situation(
            view.now,
            view.replicas,
            view.ready,
            view.starting_since,
            _kept(view.samples, self.policy, view.now, self.tuning),
            self.recommendations,
            self.changes,
            self.capacity,
            view.held,
            self.startup_s,
        )
        decision = decide(self.policy, situation, self.tuning)
        self.recommendations = remembered_recommendations(self.recommendations, decision, self.policy, view.now)
        if decision.replicas != view.replicas:
            change = Change(
                view.now, view.replicas, decision.replicas, decision.reason, decision.message, decision.load
            )
            self.changes = remembered_changes([*self.changes, change], self.policy, view.now, tuning=self.tuning)
        self.decisions.append((view.seconds, decision))
        return decision.replicas


@dataclass(slots=True)
class Static:
    """As many as there were."""

    number: int

    @property
    def name(self) -> str:
        """For the table."""
        return f"static {self.number}"

    def replicas(self, view: View) -> int:
        """Always the same."""
        return self.number


@dataclass(slots=True)
class Oracle:
    """Knows the trace, and how many requests a second a replica bears; asks for pods as long before as they take to load."""

    rate: Callable[[float], float]
    per_replica: float
    lead_s: float
    minimum: int = 3
    maximum: int = 8
    name: str = "oracle"

    def replicas(self, view: View) -> int:
        """What the highest rate until then needs."""
        ahead = range(0, int(self.lead_s) + 20, 5)
        most = max(self.rate(view.seconds + one) for one in ahead)
        return min(max(math.ceil(most / self.per_replica - 1e-9), self.minimum), self.maximum)


@dataclass(slots=True)
class Hpa:
    """What a HorizontalPodAutoscaler does with a number of wanted replicas: windows over recommendations, limits over changes."""

    minimum: int = 3
    maximum: int = 8
    up_window_s: float = 0.0
    down_window_s: float = 300.0
    down_pods: int = 100
    down_period_s: float = 15.0
    wanted: deque[tuple[float, int]] = field(default_factory=deque)
    done: deque[tuple[float, int]] = field(default_factory=deque)

    def settle(self, now: float, current: int, wanted: int) -> int:
        """The next number of replicas."""
        self.wanted.append((now, wanted))
        least = min(one for at, one in self.wanted if now - at <= self.up_window_s)
        most = max(one for at, one in self.wanted if now - at <= self.down_window_s)
        number = min(max(current, least), most)
        if number > current:
            added = sum(step for at, step in self.done if step > 0 and now - at < 60)
            number = min(number, max(current, max((current - added) * 2, current - added + 4)))
        elif number < current:
            taken = sum(-step for at, step in self.done if step < 0 and now - at < self.down_period_s)
            number = max(number, min(current, current + taken - self.down_pods))
        number = min(max(number, self.minimum), self.maximum)
        if number != current:
            self.done.append((now, number - current))
        return number


def published_hpa(minimum: int, maximum: int) -> Hpa:
    """The behavior that goes with the published law."""
    return Hpa(minimum, maximum, up_window_s=30, down_window_s=180, down_pods=1, down_period_s=120)


@dataclass(slots=True)
class QueueHpa:
    """An HPA, as KEDA makes it: waiting requests per replica, Kubernetes' default behavior and tolerance."""

    target: float = 5.0
    name: str = "HPA on queue"
    hpa: Hpa = field(default_factory=Hpa)
    last: float = -15.0

    def replicas(self, view: View) -> int:
        """Each 15 s."""
        if view.seconds - self.last < 15 or not view.samples:
            return view.replicas
        self.last = view.seconds
        sample = view.samples[-1]
        usage = (sample.waiting or 0.0) / max(view.replicas, 1) / self.target
        wanted = view.replicas if abs(usage - 1) <= 0.1 else math.ceil(view.replicas * usage)
        return self.hpa.settle(view.seconds, view.replicas, max(wanted, 1))


@dataclass(slots=True)
class RunningHpa:
    """An HPA on running and waiting requests per replica: what is advised where a queue alone comes too late."""

    target: float = 40.0
    name: str = "HPA on requests in flight"
    hpa: Hpa = field(default_factory=Hpa)
    last: float = -15.0

    def replicas(self, view: View) -> int:
        """Each 15 s."""
        if view.seconds - self.last < 15 or not view.samples:
            return view.replicas
        self.last = view.seconds
        sample = view.samples[-1]
        usage = ((sample.running or 0.0) + (sample.waiting or 0.0)) / max(view.replicas, 1) / self.target
        wanted = view.replicas if abs(usage - 1) <= 0.1 else math.ceil(view.replicas * usage)
        return self.hpa.settle(view.seconds, view.replicas, max(wanted, 1))


@dataclass(slots=True)
class PublishedLaw:
    """llm-d's SLO-aware guide: P90 of a minute against the objective, capped at 2, averaged over 45 s, band 0.40 to 0.55, credit
    for pods that load; up max(100 %, 4 pods)/60 s after 30 s, down 1 pod/120 s after 180 s. On measured times, where the guide may
    predict them."""

    name: str = "published SLO law"
    first_token_s: float = 3.0
    output_token_s: float = 0.1
    hpa: Hpa = field(default_factory=lambda: published_hpa(3, 8))
    signals: deque[tuple[float, float]] = field(default_factory=deque)
    last: float = -15.0

    def replicas(self, view: View) -> int:
        """Each 15 s."""
        if view.seconds - self.last < 15 or not view.samples:
            return view.replicas
        self.last = view.seconds
        ratios = [
            self._ratio(view, Measure.TIME_TO_FIRST_TOKEN, self.first_token_s),
            self._ratio(view, Measure.OUTPUT_TOKEN_LATENCY, self.output_token_s),
        ]
        self.signals.append((view.seconds, min(max(ratios), 2.0)))
        recent = [signal for at, signal in self.signals if view.seconds - at < 45]
        signal = sum(recent) / len(recent)
        n, ready = view.replicas, view.ready
        wanted = n
        if signal > 0.55:
            credit = ready / n if 0 < ready < n else 1.0
            wanted = n + math.ceil(n * (signal * credit / 0.55 - 1))
        elif signal < 0.40:
            wanted = n - math.floor(n * (1 - signal / 0.40))
        return self.hpa.settle(view.seconds, n, max(wanted, 1))

    def _ratio(self, view: View, measure: Measure, target: float) -> float:
        found = times_of(view.samples, measure, 60)
        return quantile(found[0], 0.9) / target if found and found[0].total else 0.0
