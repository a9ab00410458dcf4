"""What a scaling decision is made of, and what it is: frozen data, so that a decision can be replayed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from fairlead.facts.scaling import Measure, Recommendation, Sample

__all__ = ["Behavior", "Change", "Decision", "Limit", "Policy", "Recommendation", "Situation"]


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `pods` or `percent` (of the replicas when the period began) more, or fewer, within `period_s`. One of the two is None."""

    period_s: float
    pods: int | None = None
    percent: int | None = None


@dataclass(frozen=True, slots=True)
class Behavior:
    """One direction, with the meaning that a HorizontalPodAutoscaler's behavior has. `limits`: the one that permits most counts, or the
    one that permits least with `takes_least`; none: no limit. `is_disabled`: never in this direction. `is_firm`: the window is the
    user's own, and nothing goes past it."""

    window_s: float
    limits: tuple[Limit, ...] = ()
    takes_least: bool = False
    is_disabled: bool = False
    is_firm: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user wants. `minimum`, `maximum`: replicas, the minimum with what schedules ask for now; `targets`: seconds, requests per
    ready replica, or percent. `idle_s`: with `minimum` 0, how long without any request before the last replica goes. `why_minimum`: what
    raised it, to stand after the number ("": nothing to tell of)."""

    minimum: int
    maximum: int
    targets: Mapping[Measure, float]
    scale_up: Behavior
    scale_down: Behavior
    idle_s: float = 300.0
    why_minimum: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A decision that changed the number of replicas: kept in status, so that limits and cool-down outlive the process. `load`: requests
    in flight that are too many for `before` ready replicas, None where that was not found."""

    at: datetime
    before: int
    after: int
    reason: str = ""
    message: str = ""
    load: float | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Situation:
    """What is the case. `replicas`: as decided last. `ready`: pods that answer; `starting_since`: when each of the others was made.
    `samples`: oldest first. `recommendations`, `changes`: oldest first, those that are still of use. `capacity`: replicas that the
    cluster's accelerators permit, None where that is not known; `capacity_words`: how many that are, with numbers. `held`: requests
    that gateways hold for it, None where none is asked. `startup_s`: how long a pod took, or may take, to become ready. `is_urgent`:
    somebody else (an alert) says that targets are missed. `idle_since`: since when no request was seen, also before the oldest sample;
    None: there are some, or one cannot be sure."""

    now: datetime
    replicas: int
    ready: int
    starting_since: tuple[datetime, ...] = ()
    samples: tuple[Sample, ...] = ()
    recommendations: tuple[Recommendation, ...] = ()
    changes: tuple[Change, ...] = ()
    capacity: int | None = None
    held: int | None = None
    startup_s: float = 120.0
    is_urgent: bool = False
    idle_since: datetime | None = None
    capacity_words: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """`replicas`: how many there shall be. `recommended`: what the signals alone ask for, None where they do not suffice to say.
    `reason`: a value of `fairlead.api.conditions.Reason`; `message`: a sentence with the numbers that decided. `is_healthy`: nothing
    holds the decision back that a person should know of; where the reason says that signals are missing or partial: not for long yet.
    `inputs`: what was measured, by name, for status. `due_s`: when to decide anew though no sample comes. `load`: for `Change.load`."""

    replicas: int
    recommended: int | None
    reason: str
    message: str
    is_healthy: bool = True
    inputs: Mapping[str, str] = field(default_factory=dict)
    due_s: float | None = None
    load: float | None = None
