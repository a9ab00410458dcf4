"""The status of an LLMRoute. Ready is True only when the gateways have said that they serve this generation.

A backend that is missing is no outage of the route while another one may answer: it shows in its own row and condition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fairlead.api.conditions import ConditionType, Reason
from fairlead.facts.observed import ApplyFailure
from fairlead.gateway.table import RouteTable
from fairlead.planning.conditions import FALSE, TRUE, UNKNOWN, Condition, truncate
from fairlead.planning.route.backends import ASLEEP, READY, UNRESOLVED, Resolved
from fairlead.planning.route.gateways import GIVE_UP_S
from fairlead.policy.law import CLASSES

__all__ = [
    "Fault",
    "Situation",
    "decide_conditions",
    "describe_failure",
    "find_orphans",
    "find_problems",
    "make_backend_rows",
    "make_model_rows",
]

Json = dict[str, Any]
_ROWS: Final = 32
_MESSAGE_LENGTH: Final = 1024


@dataclass(frozen=True, slots=True)
class Fault:
    """Why the route is not where it should be. `terminal`: a person must act; `refuses`: the spec itself is not accepted."""

    reason: Reason
    message: str
    terminal: bool
    refuses: bool = False


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the conditions are made of. `programmed`: gateways that have loaded the routing as wanted; `ready`: pods that are
    ready; `is_published`: nothing is left to publish; `problems`: references that do not resolve; `orphans`: models that have
    no backend which answers; `rejected`: files that some gateway refuses; `late`: gateways that have
    not loaded it for long; `newer_revision` waits for a change of the gateways (law 8);
    `rolling`: how far their replacement is, "" if none is under way."""

    wanted: int
    ready: int
    programmed: int
    is_published: bool
    fault: Fault | None = None
    problems: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    newer_revision: str | None = None
    rolling: str = ""


def describe_failure(failure: ApplyFailure) -> Fault:
    """What the API server refused, in the words of status."""
    reason = Reason(failure.reason) if failure.reason in set(Reason) else Reason.CHILD_REFUSED
    if failure.is_sentence:
        return Fault(reason, failure.message, failure.terminal)
    where = f" ({failure.path})" if failure.path else ""
    return Fault(reason, f"{failure.key}{where}: {failure.message}", failure.terminal)


def decide_conditions(situation: Situation) -> list[Condition]:
    """All conditions, consistent with each other."""
    programmed = _decide_programmed(situation)
    healthy = _decide_healthy(situation)
    ready = _decide_ready(situation, programmed, healthy)
    stalled = _decide_stalled(situation, ready)
    return [
        ready,
        _decide_reconciling(situation, ready, stalled, programmed),
        stalled,
        _decide_accepted(situation),
        _decide_resolved(situation),
        programmed,
        healthy,
    ]


def _decide_ready(situation: Situation, programmed: Condition, healthy: Condition) -> Condition:
    fault = situation.fault
    if fault is not None:
        return Condition(ConditionType.READY, FALSE, fault.reason, fault.message)
    for condition in (programmed, healthy):
        if condition.status != TRUE:
            return Condition(ConditionType.READY, FALSE, condition.reason, condition.message)
    message = f"{situation.programmed} of {situation.wanted} gateways serve this route."
    if situation.newer_revision:
        message += (
            f" Revision {situation.newer_revision} of the gateways is taken when they are replaced next, or with"
            " gateway.revision: Latest."
        )
        return Condition(ConditionType.READY, TRUE, Reason.REVISION_AVAILABLE, message)
    return Condition(ConditionType.READY, TRUE, Reason.SERVING, message)


def _decide_stalled(situation: Situation, ready: Condition) -> Condition:
    fault = situation.fault
    if fault is not None and fault.terminal:
        return Condition(ConditionType.STALLED, TRUE, fault.reason, fault.message)
    if situation.rejected and ready.status != TRUE:
        return Condition(ConditionType.STALLED, TRUE, ready.reason, ready.message)
    return Condition(ConditionType.STALLED, FALSE, Reason.NOT_STALLED, "Nothing waits for a person.")


def _decide_reconciling(situation: Situation, ready: Condition, stalled: Condition, programmed: Condition) -> Condition:
    kind = ConditionType.RECONCILING
    if stalled.status == TRUE:
        return Condition(kind, FALSE, stalled.reason, "Waiting for a person, see Stalled.")
    if ready.status != TRUE:
        return Condition(kind, TRUE, ready.reason, ready.message)
    if situation.programmed < situation.wanted or not situation.is_published:
        return Condition(kind, TRUE, Reason.GATEWAYS_PENDING, programmed.message)
    if situation.rolling:
        return Condition(kind, TRUE, Reason.ROLLING_OUT, situation.rolling)
    return Condition(kind, FALSE, Reason.UP_TO_DATE, "Everything is as the spec says.")


def _decide_accepted(situation: Situation) -> Condition:
    fault = situation.fault
    if fault is not None and fault.refuses:
        return Condition(ConditionType.ACCEPTED, FALSE, fault.reason, fault.message)
    return Condition(ConditionType.ACCEPTED, TRUE, Reason.ACCEPTED, "The route is carried out as it is written.")


def _decide_resolved(situation: Situation) -> Condition:
    if situation.problems:
        return Condition(ConditionType.RESOLVED_REFS, FALSE, Reason.REF_NOT_RESOLVED, " ".join(situation.problems))
    message = "Everything that the route names is there and may be used."
    return Condition(ConditionType.RESOLVED_REFS, TRUE, Reason.RESOLVED, message)


def _decide_programmed(situation: Situation) -> Condition:
    kind = ConditionType.PROGRAMMED
    if situation.fault is not None and (situation.fault.terminal or situation.fault.reason is Reason.REF_NOT_RESOLVED):
        return Condition(kind, FALSE, situation.fault.reason, situation.fault.message)
    count = f"{situation.programmed} of {situation.wanted} gateways have loaded this generation"
    if situation.rejected and situation.programmed < situation.ready:
        files = ", ".join(situation.rejected)
        message = f"{count}; {files} was refused. Next: read the gateway's log."
        return Condition(kind, FALSE, Reason.ROUTING_REJECTED, message)
    if situation.ready == 0:
        return Condition(kind, FALSE, Reason.GATEWAYS_PENDING, f"0 of {situation.wanted} gateways are ready.")
    if situation.late and situation.programmed < situation.ready:
        names = ", ".join(situation.late)
        message = (
            f"{count}; {names} did not say so within {GIVE_UP_S:.0f} s. One that still does what was withdrawn leaves the Service."
            f" Next: kubectl describe pod {situation.late[0]}; look whether its node is well and the operator may reach its port status."
        )
        return Condition(kind, FALSE, Reason.PUBLISHING, message)
    if not situation.is_published or situation.programmed < situation.ready:
        return Condition(kind, FALSE, Reason.PUBLISHING, f"{count}.")
    # One of several may be missing: those that are there serve this generation.
    if situation.programmed >= max(1, situation.wanted - 1):
        return Condition(kind, TRUE, Reason.PROGRAMMED, f"{count}.")
    return Condition(kind, FALSE, Reason.GATEWAYS_PENDING, f"{count}.")


def _decide_healthy(situation: Situation) -> Condition:
    kind = ConditionType.BACKENDS_HEALTHY
    if situation.fault is not None and situation.fault.refuses:
        return Condition(kind, UNKNOWN, situation.fault.reason, "The route is not accepted.")
    if situation.orphans:
        names = ", ".join(situation.orphans)
        message = f"No backend of {names} answers; status.backends says why."
        return Condition(kind, FALSE, Reason.BACKENDS_NOT_READY, message)
    return Condition(
        kind, TRUE, Reason.BACKENDS_READY, "Each model has a backend that answers, or wakes for a request."
    )


def make_backend_rows(resolved: Sequence[Resolved]) -> list[Json]:
    """One row per backend, in the order of the spec."""
    return [
        {
            "name": backend.name,
            "kind": backend.kind,
            "state": backend.state,
            **(
                {"message": truncate(backend.refusal or backend.message, _MESSAGE_LENGTH)}
                if backend.refusal or backend.message
                else {}
            ),
        }
        for backend in resolved
    ]


def make_model_rows(table: RouteTable) -> list[Json]:
    """For the first models: per class that some caller can send, the backends in the order in which they are tried."""
    return [{"name": model, "targets": _targets_of(table, model)} for model in table.models[:_ROWS]]


def _targets_of(table: RouteTable, model: str) -> Mapping[str, str]:
    targets: dict[str, str] = {}
    for data_class in CLASSES:
        tried = {
            ", ".join(attempt.backend for attempt in chain.attempts) or "none is there"
            for (name, _), chain in table.chains.items()
            if name == model and chain.data_class is data_class
        }
        if tried:
            targets[data_class.value] = truncate(" or ".join(sorted(tried)), _MESSAGE_LENGTH)
    return targets


def find_problems(resolved: Sequence[Resolved]) -> tuple[str, ...]:
    """What is missing or may not be used, one sentence or two per backend."""
    return tuple(f"{backend.name}: {backend.message}" for backend in resolved if backend.state == UNRESOLVED)


def find_orphans(table: RouteTable, resolved: Sequence[Resolved]) -> tuple[str, ...]:
    """Models of which no permitted backend answers, whatever the class. One that wakes for a request does."""
    ready = {backend.name for backend in resolved if backend.state in (READY, ASLEEP)}
    return tuple(
        model
        for model in table.models
        if not any(
            attempt.backend in ready
            for (name, _), chain in table.chains.items()
            if name == model
            for attempt in chain.attempts
        )
    )
