"""What is measured of a model's pods, in one form for every source: what scaling decides from.

A source (Prometheus, or fairlead itself that scrapes engines or gateways) gives samples; it never decides. Whoever decides takes a
sample that is missing, partial or doubtful for what it is: a reason to leave things as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from fairlead.facts.alerts import ActiveAlert
from fairlead.facts.nodes import Surroundings

if TYPE_CHECKING:
    from fairlead.facts.observed import ObjectKey

__all__ = [
    "TIMES",
    "Distribution",
    "Measure",
    "Recommendation",
    "Sample",
    "ScrapeWish",
    "SignalSource",
    "Signals",
    "Source",
    "Target",
]


class Measure(StrEnum):
    """What can be a target of scaling, named as in `spec.autoscaling.targets`."""

    TIME_TO_FIRST_TOKEN = "timeToFirstToken"  # noqa: S105
    LATENCY = "latency"
    OUTPUT_TOKEN_LATENCY = "outputTokenLatency"  # noqa: S105
    QUEUED_REQUESTS = "queuedRequests"
    RUNNING_REQUESTS = "runningRequests"
    KV_CACHE_USAGE = "kvCacheUsagePercent"


#: The measures that are distributions of seconds; the others are numbers of now.
TIMES: Final = (Measure.TIME_TO_FIRST_TOKEN, Measure.LATENCY, Measure.OUTPUT_TOKEN_LATENCY)


@dataclass(frozen=True, slots=True)
class Distribution:
    """How many requests took how long. `counts[i]`: more than `bounds[i - 1]` and at most `bounds[i]` seconds; one count more than there
    are bounds, for what took longer than the last. Counts may be fractions (Prometheus' increase)."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]

    @property
    def total(self) -> float:
        """Requests."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Sample:
    """What one look at the pods of one LLMDeployment gave.

    `at`: when the look ended. `times`: of the requests that ended in the `over_s` seconds before; a measure that is missing is not
    known, one without counts had no requests. `over_s` 0: a first look, which can tell nothing of times. `asked`: pods that were ready
    and should have told something; `answered`: those that did, or for which gateways did. `running`, `waiting`: requests in all pods
    that answered; `kv_cache_usage`: mean over those pods, 0 to 1. None: the engine does not tell. `problem`: why the whole look is
    doubtful, for people ("": it is not). `failures`: of pods that did not answer, the first three, why. `busy`: requests that engine pods
    work on, by uid, of those that told.
    """

    at: datetime
    over_s: float
    asked: int
    answered: int
    times: Mapping[Measure, Distribution] = field(default_factory=dict)
    running: float | None = None
    waiting: float | None = None
    kv_cache_usage: float | None = None
    problem: str = ""
    failures: tuple[str, ...] = ()
    busy: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """How many replicas the signals alone asked for at a time: what stabilisation looks back on."""

    at: datetime
    replicas: int


@dataclass(frozen=True, slots=True)
class Signals:
    """All that is known of one LLMDeployment beside its own objects when replicas are decided.

    `samples` and `recommendations`: oldest first, those that are still of use. `held`: requests that gateways hold for it, None where none
    is asked. `idle_since`: since when no request was seen, None where there are some or one cannot be sure. `alerts`: about it, those that
    fire; `is_urgent`: somebody (an alert) says that targets are missed. `verdict`: what the look before would have told by itself,
    and since when looks do. `writer`: an autoscaler that writes spec.replicas, `writer_of_child`: one that writes the Deployment's ("":
    none), as people call it. `nodes`: None where they cannot be seen.
    """

    samples: tuple[Sample, ...] = ()
    recommendations: tuple[Recommendation, ...] = ()
    held: int | None = None
    idle_since: datetime | None = None
    is_urgent: bool = False
    alerts: tuple[ActiveAlert, ...] = ()
    verdict: tuple[str, datetime] | None = None
    writer: str = ""
    writer_of_child: str = ""
    nodes: Surroundings | None = None


class Source(StrEnum):
    """Who is asked: each engine pod, each pod of the gateways that lead to it, or Prometheus."""

    ENGINE = "Engine"
    GATEWAY = "Gateway"
    PROMETHEUS = "Prometheus"


@dataclass(frozen=True, slots=True)
class ScrapeWish:
    """How the pods of one LLMDeployment are looked at.

    `port`: of the engine, or of the gateways; `tls_port`: of the TLS before the engine, in pods that have it: in a rollout they differ.
    `names`: what the metrics are called, newest name first; of a histogram without `_bucket`. `interval_s`: seconds between two looks;
    `keep_s`: how long a sample is of use. `over_s`: seconds that one answer of Prometheus speaks of, at least two of its scrapes;
    others speak of the time since the look before. Gateways have names of their own, so `names` is empty there.
    """

    path: str
    port: int
    tls_port: int = 0
    names: Mapping[Measure, tuple[str, ...]] = field(default_factory=dict)
    interval_s: float = 5.0
    keep_s: float = 400.0
    over_s: float = 60.0
    source: Source = Source.ENGINE


@dataclass(frozen=True, slots=True)
class Target:
    """A ready pod. `address`: its IP; `is_tls`: its engine is reached by TLS only; `backends`: of a gateway's pod, what its route calls the
    LLMDeployment that is looked at."""

    name: str
    uid: str
    address: str
    is_tls: bool = False
    backends: frozenset[str] = frozenset()


class SignalSource(Protocol):
    """Looks at pods, once each time that it is asked."""

    async def look(self, key: ObjectKey, wish: ScrapeWish, targets: Sequence[Target]) -> Sample:
        """What the ready pods of this LLMDeployment tell now. What goes wrong is in the sample; nothing is raised for it."""

    def forget(self, key: ObjectKey) -> None:
        """Of what was seen of this LLMDeployment before."""

    async def close(self) -> None:
        """Give back connections and threads."""
