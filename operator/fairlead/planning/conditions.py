"""Conditions as Kubernetes tools read them: all types always there, a generation in each, a transition only when `status` moves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fairlead.api.conditions import DEPLOYMENT_CONDITIONS, ConditionType, Reason
from fairlead.facts.words import redact
from fairlead.planning.plan import PlannedEvent

__all__ = [
    "FALSE",
    "TRUE",
    "UNKNOWN",
    "Condition",
    "find_condition",
    "make_conditions",
    "make_transition_events",
    "truncate",
]

TRUE, FALSE, UNKNOWN = "True", "False", "Unknown"
MAX_MESSAGE_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class Condition:
    """One verdict. `message` names the object and, where a person must act, the next step. What it quotes is told without
    credentials, whoever quoted it."""

    type: ConditionType
    status: str
    reason: Reason
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", redact(self.message))


def find_condition(status: Mapping[str, Any], condition_type: str) -> Mapping[str, Any]:
    """The raw condition in a status, or {}."""
    for condition in status.get("conditions") or []:
        if condition.get("type") == condition_type:
            return dict(condition)
    return {}


def make_conditions(
    conditions: Iterable[Condition],
    generation: int,
    previous: Mapping[str, Any],
    now: datetime,
    types: Sequence[ConditionType] = DEPLOYMENT_CONDITIONS,
) -> list[dict[str, Any]]:
    """In the order of `types`. `previous` is the status as last written: its transition times stay where the
    status of a condition did not move. Raises ValueError unless every type is there once."""
    by_type = {condition.type: condition for condition in conditions}
    if set(by_type) != set(types):
        raise ValueError(f"conditions {sorted(set(types) ^ set(by_type))} are missing, or too many")
    return [_make_condition(by_type[condition_type], generation, previous, now) for condition_type in types]


def _make_condition(
    condition: Condition, generation: int, previous: Mapping[str, Any], now: datetime
) -> dict[str, Any]:
    before = find_condition(previous, condition.type)
    unmoved = before.get("status") == condition.status and before.get("lastTransitionTime")
    return {
        "type": condition.type.value,
        "status": condition.status,
        "observedGeneration": generation,
        "lastTransitionTime": before["lastTransitionTime"] if unmoved else _format_time(now),
        "reason": condition.reason.value,
        "message": truncate(condition.message, MAX_MESSAGE_LENGTH),
    }


def make_transition_events(conditions: Sequence[Condition], previous: Mapping[str, Any]) -> tuple[PlannedEvent, ...]:
    """Events when Ready or Stalled move, or Stalled gets another reason. Repeating a pass repeats none: by then `previous`
    says what was said."""
    by_type = {condition.type: condition for condition in conditions}
    ready, stalled = by_type[ConditionType.READY], by_type[ConditionType.STALLED]
    was_ready, was_stalled = find_condition(previous, ready.type), find_condition(previous, stalled.type)
    events = []
    if stalled.status == TRUE and (was_stalled.get("status"), was_stalled.get("reason")) != (
        TRUE,
        stalled.reason.value,
    ):
        events.append(PlannedEvent("Warning", stalled.reason.value, truncate(stalled.message, MAX_MESSAGE_LENGTH)))
    elif ready.status == TRUE and was_ready.get("status") != TRUE:
        events.append(PlannedEvent("Normal", ready.reason.value, truncate(ready.message, MAX_MESSAGE_LENGTH)))
    elif ready.status == FALSE and was_ready.get("status") == TRUE:
        kind = "Warning" if ready.reason is Reason.REPLICAS_UNAVAILABLE else "Normal"
        events.append(PlannedEvent(kind, ready.reason.value, truncate(ready.message, MAX_MESSAGE_LENGTH)))
    return tuple(events)


def truncate(text: str, length: int) -> str:
    """At most `length` characters; the end goes, since what is wrong stands first."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _format_time(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
