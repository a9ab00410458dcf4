"""What the condition ScalingActive says, and that it says the same until something else has lasted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from fairlead.api.autoscaling import AutoscalingMode, AutoscalingSpec, DecisionPolicy
from fairlead.api.conditions import ConditionType, Reason
from fairlead.api.llmdeployment import LLMDeploymentSpec
from fairlead.planning.conditions import FALSE, TRUE, UNKNOWN, Condition, find_condition
from fairlead.planning.deployment.capacity import Room
from fairlead.planning.deployment.following import Following
from fairlead.planning.plan import PlannedEvent
from fairlead.scaling.decision import Decision, Policy

__all__ = [
    "Scene",
    "find_counted_words",
    "find_ignored",
    "stand_still",
    "steady",
    "tell_of_decision",
    "tell_of_external",
    "tell_of_fixed",
    "tell_of_hold",
    "tell_of_pause",
    "tell_of_suspension",
    "tell_of_writer",
]

#: How long something else must be the case before it is told: looks differ by chance, and who reads status is no faster.
LASTING: Final = timedelta(seconds=60)
_NOT_KNOWN: Final = frozenset({Reason.SIGNALS_MISSING, Reason.SIGNALS_PARTIAL, Reason.SIGNALS_STALE})
_ADD_NODES: Final = "add nodes (where pods that wait have them added: the operator's option --nodes=OnDemand)"
#: What looks at the pods lead to. Anything else is told at once.
_OF_LOOKS: Final = frozenset({
    Reason.SIGNALS_READY,
    Reason.SIGNALS_MISSING,
    Reason.SIGNALS_PARTIAL,
    Reason.SIGNALS_STALE,
    Reason.AT_MAXIMUM,
    Reason.CAPACITY_BLOCKED,
    Reason.TARGETS_OUT_OF_REACH,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scene:
    """What a decision needs to know of the pods. `starting_since`: of those that are not ready, when they were made; `fitting`: how many
    have a node or were given time enough to find one, None where all have; `homeless`: those that nothing fits, and `words`: the
    scheduler's of one of them; `is_placing`: some are still to be made, or without a node. `startup_s`: how long one took to answer, None
    where that is not known; `due_s`: when one has had its time. `room`: how many the nodes hold, None where they are not counted;
    `ready_on`: the nodes of those that are ready."""

    ready: int
    starting_since: tuple[datetime, ...] = ()
    fitting: int | None = None
    homeless: int = 0
    words: str = ""
    is_placing: bool = False
    startup_s: float | None = None
    due_s: float | None = None
    room: Room | None = None
    ready_on: tuple[str, ...] = ()


def stand_still(previous: Mapping[str, Any]) -> Condition:
    """Of a spec that cannot be carried out: the pods stay as they are, and so does their number."""
    if previous.get("scaling"):
        return _condition(FALSE, Reason.INVALID_SPEC, "The spec is refused, see Stalled: the number of replicas stays.")
    return _condition(UNKNOWN, Reason.INVALID_SPEC, "The spec is refused, see Stalled.")


def tell_of_fixed(spec: LLMDeploymentSpec, following: Following) -> Condition:
    """spec.replicas alone."""
    if following.held_s:
        return tell_of_hold(spec, following)
    return _condition(FALSE, Reason.FIXED_REPLICAS, "spec.replicas says how many; spec.autoscaling is not there.")


def tell_of_suspension() -> Condition:
    """No pod is meant to run."""
    return _condition(FALSE, Reason.SUSPENDED, "Suspended: nothing is decided.")


def tell_of_pause(spec: LLMDeploymentSpec, following: Following) -> Condition:
    """The number stays."""
    message = f"Paused at {following.replicas} replicas, until spec.autoscaling.policy is Apply."
    return _condition(FALSE, Reason.SCALING_PAUSED, message + _say_unread(spec))


def tell_of_writer(spec: LLMDeploymentSpec, following: Following) -> Condition:
    """Another autoscaler decides."""
    message = f"{following.writer} decides how many replicas there are."
    if spec.autoscaling is not None and spec.autoscaling.mode is not AutoscalingMode.EXTERNAL:
        message += " Nothing is decided here while it does. Next: delete it, or say autoscaling.mode: External."
    return _condition(TRUE, Reason.EXTERNALLY_MANAGED, message)


def tell_of_external(spec: LLMDeploymentSpec, following: Following) -> Condition:
    """Whoever writes spec.replicas decides."""
    if following.held_s:
        return tell_of_hold(spec, following)
    autoscaling = spec.autoscaling
    assert autoscaling is not None
    message = (
        f"Whoever writes spec.replicas decides, between {autoscaling.min_replicas} and {autoscaling.max_replicas}."
    )
    if following.replicas != spec.replicas:
        message += f" {spec.replicas} is asked for, {following.replicas} is what these bounds permit."
    return _condition(TRUE, Reason.EXTERNALLY_MANAGED, message)


def tell_of_hold(spec: LLMDeploymentSpec, following: Following) -> Condition:
    """The number from before a hand-over is kept."""
    message = (
        f"{following.replicas} replicas as before the hand-over: spec.replicas is {spec.replicas}."
        " It counts when it asks for as many, or after five minutes."
    )
    return _condition(TRUE, Reason.REPLICAS_HELD, message)


def tell_of_decision(
    spec: LLMDeploymentSpec,
    following: Following,
    scene: Scene,
    decision: Decision,
    policy: Policy,
    note: str = "",
    *,
    has_samples: bool,
) -> Condition:
    """By this look alone. `note`: a sentence to say in any case, with a space before it."""
    autoscaling = spec.autoscaling
    assert autoscaling is not None
    is_recommended = autoscaling.policy is DecisionPolicy.RECOMMEND
    suffix = note + (" Only recommended: spec.replicas counts." if is_recommended else _say_unread(spec))
    if lacking := _tell_of_nodes(following, scene, decision, policy, is_recommended=is_recommended):
        return _condition(FALSE, Reason.CAPACITY_BLOCKED, lacking + suffix)
    if scene.homeless and not is_recommended:
        placed = following.replicas - scene.homeless
        text = f"{following.replicas} replicas wanted, {placed} found a node: {scene.words}."
        return _condition(FALSE, Reason.CAPACITY_BLOCKED, f"{text} Next: add nodes or free accelerators.{suffix}")
    if not has_samples and decision.reason in _NOT_KNOWN and scene.ready:
        return _condition(UNKNOWN, Reason.SIGNALS_MISSING, "Nothing has been measured yet." + suffix)
    if not decision.is_healthy or (decision.reason in _NOT_KNOWN and scene.ready):
        return _condition(FALSE, Reason(decision.reason), decision.message + suffix)
    if not following.replicas and policy.minimum == 0 and not is_recommended:
        return _condition(TRUE, Reason.SCALED_TO_ZERO, "Nothing runs until a gateway has a request for it." + suffix)
    if not scene.ready and following.replicas:
        message = "No pod is ready, so there is nothing to measure."
        return _condition(UNKNOWN, Reason.PODS_PENDING, message + suffix)
    by = ", ".join(measure.value for measure in policy.targets) or "what is asked for"
    message = f"{autoscaling.min_replicas} to {autoscaling.max_replicas} replicas by {by}."
    return _condition(TRUE, Reason.SIGNALS_READY, message + suffix)


def _tell_of_nodes(
    following: Following, scene: Scene, decision: Decision, policy: Policy, *, is_recommended: bool
) -> str:
    """That there are too few nodes, "" where there are enough: for what there shall be already, or for what is decided."""
    room = scene.room
    if room is None or room.replicas is None:
        return ""
    if room.replicas < following.replicas and scene.is_placing and not is_recommended:
        lower = "the minimum" if following.replicas <= policy.minimum else "maxReplicas"
        return f"{following.replicas} replicas wanted, {room.words}. Next: {_ADD_NODES}, or lower {lower}."
    if decision.reason == Reason.CAPACITY_BLOCKED and room.words in decision.message:
        return f"{decision.message}. Next: {_ADD_NODES}, or lower maxReplicas."
    return ""


def find_counted_words(told: Condition, room: Room | None) -> str:
    """What of a condition was counted, "" where nothing was: that needs no second look, and each number of it is news."""
    is_told = told.reason is Reason.CAPACITY_BLOCKED and room is not None and room.words in told.message
    return room.words if is_told and room is not None else ""


def steady(
    told: Condition,
    verdict: tuple[str, datetime] | None,
    previous: Mapping[str, Any],
    now: datetime,
    *,
    is_placing: bool = False,
    of_looks: frozenset[Reason] = _OF_LOOKS,
    counted: str = "",
) -> tuple[Condition, tuple[str, datetime], float | None]:
    """What is to be told, given what this look alone would tell, what the looks before did (`verdict`: that, and since when), and what was
    told last. `is_placing`: some pod has no node yet; `of_looks`: reasons that have to last before they take each other's place;
    `counted`: of `find_counted_words`. Also the verdict for the next look, and the seconds until the other thing has lasted, None where
    nothing is waited for."""
    name = f"{told.status}/{told.reason}"
    before = find_condition(previous, told.type)
    since = verdict[1] if verdict is not None and verdict[0] == name and verdict[1] <= now else now
    left_s = (LASTING - (now - since)).total_seconds()
    if is_placing and told.reason is Reason.SIGNALS_READY and before.get("reason") == Reason.CAPACITY_BLOCKED:
        left_s = LASTING.total_seconds()  # another attempt: that the last pod finds a node is still to be seen
    if told.status == UNKNOWN and told.reason is Reason.SIGNALS_MISSING and left_s <= 0.0:
        told = replace(told, status=FALSE)
    if (before.get("status"), before.get("reason")) == (told.status, told.reason.value):
        waits_s = left_s if told.status == UNKNOWN and left_s > 0.0 else None
        said = str(before.get("message", ""))
        return told if counted not in said else _keep_words(told, said), (name, since), waits_s
    is_known = before.get("status") in (TRUE, FALSE)
    is_of_looks = is_known and before.get("reason") in of_looks and told.reason in of_looks
    if not is_of_looks or left_s <= 0.0 or counted:
        return told, (name, since), None
    kept = replace(told, status=str(before["status"]), reason=Reason(before["reason"]), message=str(before["message"]))
    return kept, (name, since), left_s


def _keep_words(told: Condition, said: str) -> Condition:
    """Numbers that move with each look are no news; what the user has set is."""
    unread = told.message.partition(" spec.replicas (")[2]
    same = _without_numbers(said) == _without_numbers(told.message) and said.endswith(unread)
    return replace(told, message=said) if told.status == FALSE and same else told


def _without_numbers(text: str) -> str:
    return re.sub(r"\d[\d.]*", "#", text)


def _say_unread(spec: LLMDeploymentSpec) -> str:
    return f" spec.replicas ({spec.replicas}) is not read with autoscaling.mode Operator." if spec.replicas != 1 else ""


def find_ignored(
    spec: LLMDeploymentSpec, autoscaling: AutoscalingSpec, previous: Mapping[str, Any]
) -> tuple[PlannedEvent, ...]:
    """Somebody set spec.replicas, by kubectl scale perhaps, where it is not read."""
    before = previous.get("scaling") or {}
    is_read = autoscaling.policy is DecisionPolicy.RECOMMEND or before.get("mode") != AutoscalingMode.OPERATOR
    if is_read or before.get("specReplicas") in (None, spec.replicas):
        return ()
    message = (
        f"spec.replicas was set to {spec.replicas} and is not read with autoscaling.mode Operator."
        " Next: set autoscaling.minReplicas, or mode: External."
    )
    return (PlannedEvent("Warning", Reason.SCALE_IGNORED.value, message, action="Scale"),)


def _condition(status: str, reason: Reason, message: str) -> Condition:
    return Condition(ConditionType.SCALING_ACTIVE, status, reason, message)
