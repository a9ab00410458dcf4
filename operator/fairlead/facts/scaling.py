"""What is measured of a model's pods, in one form for every source: what scaling decides from.

A source (Prometheus, or fairlead itself that scrapes engines or gateways) gives samples; it never decides. Whoever decides takes a
sample that is missing, partial or doubtful for what it is: a reason to leave things as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

__all__ = ["Distribution", "Measure", "Recommendation", "Sample", "Signals"]


class Measure(StrEnum):
    """What can be a target of scaling, named as in `spec.autoscaling.targets`."""

    TIME_TO_FIRST_TOKEN = "timeToFirstToken"  # noqa: S105
    LATENCY = "latency"
    OUTPUT_TOKEN_LATENCY = "outputTokenLatency"  # noqa: S105
    QUEUED_REQUESTS = "queuedRequests"
    RUNNING_REQUESTS = "runningRequests"
    KV_CACHE_USAGE = "kvCacheUsagePercent"


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

    `at`: when the look ended. `times`: of the requests that ended in the `over_s` seconds before. `asked`: pods that were ready and
    should have told something; `answered`: those that did. `running`, `waiting`: requests in all pods that answered; `kv_cache_usage`:
    mean over those pods, 0 to 1. None: the engine does not tell. `problem`: why the whole look is doubtful, for people ("": it is not).
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


@dataclass(frozen=True, slots=True)
class Recommendation:
    """How many replicas the signals alone asked for at a time: what stabilisation looks back on."""

    at: datetime
    replicas: int


@dataclass(frozen=True, slots=True)
class Signals:
    """All that is known of one LLMDeployment beside its own objects when replicas are decided.

    `samples` and `recommendations`: oldest first, those that are still of use. `held`: requests that gateways hold for it, None where none
    is asked. `is_urgent`: somebody (an alert) says that targets are missed. `capacity`: replicas that the cluster's accelerators permit,
    None where that is not known. `writer`: an autoscaler that writes spec.replicas, `writer_of_child`: one that writes the Deployment's
    ("": none), as people call it.
    """

    samples: tuple[Sample, ...] = ()
    recommendations: tuple[Recommendation, ...] = ()
    held: int | None = None
    is_urgent: bool = False
    capacity: int | None = None
    writer: str = ""
    writer_of_child: str = ""
