"""How many replicas are decided on, and what becomes of that.

A decision is written to status first and carried out by the next pass, which finds it there: whoever takes over in between, or is told
the same twice, comes to the same number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from fairlead.api.autoscaling import AutoscalingMode, AutoscalingSpec, DecisionPolicy
from fairlead.api.conditions import Reason
from fairlead.api.llmdeployment import LLMDeploymentSpec
from fairlead.facts.scaling import Recommendation, Signals
from fairlead.planning.conditions import MAX_MESSAGE_LENGTH, Condition, truncate
from fairlead.planning.deployment.capacity import Room
from fairlead.planning.deployment.following import RECOMMEND, Following, format_time, read_time, within
from fairlead.planning.deployment.kedawords import OF_KEDA, KedaState, tell_of_keda
from fairlead.planning.deployment.scalingpolicy import find_floor, find_next_change, make_policy
from fairlead.planning.deployment.scalingwords import (
    Scene,
    find_counted_words,
    find_ignored,
    steady,
    tell_of_decision,
    tell_of_external,
    tell_of_fixed,
    tell_of_pause,
    tell_of_suspension,
    tell_of_writer,
)
from fairlead.planning.deployment.spotfloor import find_spot_floor
from fairlead.planning.plan import PlannedEvent
from fairlead.scaling.decision import Change, Decision, Policy, Situation
from fairlead.scaling.law import decide
from fairlead.scaling.memory import remembered_changes, remembered_recommendations

__all__ = ["CAPACITY_PATIENCE", "Scaling", "scale"]

Json = dict[str, Any]

DECISIONS_KEPT: Final = 20
INPUTS_KEPT: Final = 16
#: Where no pod has told yet how long it takes.
STARTUP_S: Final = 120.0
#: How long a pod that nothing fits is left to whoever adds nodes, which takes minutes where they have accelerators.
CAPACITY_PATIENCE: Final = timedelta(minutes=5)
#: For how long a number that pods without a node led to is not passed again.
CAPACITY_REMEMBERED: Final = timedelta(minutes=10)
#: Among the inputs of a decision: replicas that the nodes held when it was made.
FIT: Final = "fit"


@dataclass(frozen=True, slots=True)
class Scaling:
    """What is told: `status` for status.scaling, None for none; the condition; Events. `recommendations`: what the signals asked for
    lately, for the next decision; `verdict`: what the condition would say of this look alone, and since when. `is_decided`: status
    holds another number than the Deployment gets, and the next pass carries it out; `goes_down`: it is a lower one. `is_measured`: the
    pods are to be looked at. `fewest`: replicas that suffice to be ready, None where all are asked for; `wakes`: a request brings it back
    from zero. `due_s`: when to look again though nothing happens."""

    condition: Condition
    status: Json | None = None
    events: tuple[PlannedEvent, ...] = ()
    recommendations: tuple[Recommendation, ...] = ()
    verdict: tuple[str, datetime] | None = None
    is_decided: bool = False
    goes_down: bool = False
    is_measured: bool = False
    fewest: int | None = None
    wakes: bool = False
    due_s: float | None = None


def scale(
    spec: LLMDeploymentSpec,
    following: Following,
    signals: Signals,
    scene: Scene,
    keda: KedaState,
    previous: Mapping[str, Any],
    now: datetime,
) -> Scaling:
    """What is decided, and what is told of who decides."""
    autoscaling = spec.autoscaling
    if following.writer:
        return Scaling(tell_of_writer(spec, following), following.status, due_s=following.held_s or None)
    if autoscaling is None:
        return Scaling(tell_of_fixed(spec, following), following.status, due_s=following.held_s or None)
    if spec.suspend:
        return Scaling(tell_of_suspension(), following.status)
    if autoscaling.mode is AutoscalingMode.EXTERNAL:
        return Scaling(tell_of_external(spec, following), following.status, due_s=following.held_s or None)
    if autoscaling.mode is AutoscalingMode.KEDA:
        return _follow_keda(spec, following, signals, scene, keda, previous, now)
    ignored = find_ignored(spec, autoscaling, previous)
    if autoscaling.policy is DecisionPolicy.PAUSE:
        return Scaling(tell_of_pause(spec, following), following.status, ignored)
    scaling = _follow_law(spec, autoscaling, following, signals, scene, previous, now)
    return replace(scaling, events=(*ignored, *scaling.events))


def _follow_law(
    spec: LLMDeploymentSpec,
    autoscaling: AutoscalingSpec,
    following: Following,
    signals: Signals,
    scene: Scene,
    previous: Mapping[str, Any],
    now: datetime,
) -> Scaling:
    """The operator decides, or says what it would."""
    spot = find_spot_floor(autoscaling, signals.nodes, scene.ready_on)
    policy = make_policy(autoscaling, now, spot)
    is_applied = autoscaling.policy is DecisionPolicy.APPLY
    situation = _bind(_describe(autoscaling, following, signals, scene, previous, now), policy, scene.room)
    decision = (_take_back(policy, following, scene) if is_applied else None) or decide(policy, situation)
    told = tell_of_decision(spec, following, scene, decision, policy, spot.told, has_samples=bool(signals.samples))
    condition, verdict, settles_s = steady(
        told, signals.verdict, previous, now, is_placing=scene.is_placing, counted=find_counted_words(told, scene.room)
    )
    due_s = (decision.due_s, settles_s, scene.due_s, find_next_change(autoscaling, now), following.held_s or None)
    scaling = Scaling(
        condition,
        following.status,
        recommendations=remembered_recommendations(signals.recommendations, decision, policy, now),
        verdict=verdict,
        is_measured=True,
        fewest=find_floor(autoscaling, now) if is_applied else None,
        wakes=is_applied and autoscaling.min_replicas == 0,
        due_s=min((one for one in due_s if one is not None), default=None),
    )
    return _note(scaling, decision, situation, policy, following, is_applied=is_applied)


def _note(
    scaling: Scaling,
    decision: Decision,
    situation: Situation,
    policy: Policy,
    following: Following,
    *,
    is_applied: bool,
) -> Scaling:
    """The decision in status, from where the next pass carries it out."""
    changed = decision.replicas != situation.replicas
    status = dict(following.status or {})
    if changed:
        status["decisions"] = _add_change(situation, decision, policy)
    if not is_applied:
        return replace(scaling, status=status | {"recommendedReplicas": decision.replicas})
    if not changed:
        return scaling
    event = PlannedEvent("Normal", str(decision.reason), decision.message, action="Scale")
    return replace(
        scaling,
        status=status | {"desiredReplicas": decision.replicas},
        events=(event,),
        is_decided=True,
        goes_down=decision.replicas < following.replicas,
    )


def _follow_keda(
    spec: LLMDeploymentSpec,
    following: Following,
    signals: Signals,
    scene: Scene,
    keda: KedaState,
    previous: Mapping[str, Any],
    now: datetime,
) -> Scaling:
    autoscaling = spec.autoscaling
    assert autoscaling is not None
    told = tell_of_keda(spec, following, keda, has_ready=scene.ready > 0)
    condition, verdict, settles_s = steady(told, signals.verdict, previous, now, of_looks=OF_KEDA)
    return Scaling(
        condition,
        following.status,
        verdict=verdict,
        fewest=autoscaling.min_replicas,
        wakes=keda.is_known
        and not keda.is_going
        and autoscaling.min_replicas == 0
        and autoscaling.policy is DecisionPolicy.APPLY,
        due_s=min((one for one in (settles_s, following.held_s) if one), default=None),
    )


def _describe(
    autoscaling: AutoscalingSpec,
    following: Following,
    signals: Signals,
    scene: Scene,
    previous: Mapping[str, Any],
    now: datetime,
) -> Situation:
    """What is only recommended goes on from what was recommended last, at the pace that it would have."""
    before = previous.get("scaling") or {}
    recommended = before.get("recommendedReplicas") if before.get("mode") == RECOMMEND else None
    changes = read_changes(before)
    return Situation(
        now=now,
        replicas=following.replicas if recommended is None else within(autoscaling, int(recommended)),
        ready=scene.ready,
        starting_since=scene.starting_since,
        samples=signals.samples,
        recommendations=signals.recommendations,
        changes=changes,
        capacity=_find_capacity(scene, changes, now),
        held=signals.held,
        startup_s=STARTUP_S if scene.startup_s is None else scene.startup_s,
        is_urgent=signals.is_urgent,
        idle_since=signals.idle_since,
    )


def _bind(situation: Situation, policy: Policy, room: Room | None) -> Situation:
    """To the accelerators that there are, as far as the user does not ask for more whatever happens: and for one, which whoever adds nodes
    can see."""
    if room is None:
        return situation
    held = situation.replicas if room.replicas is None else room.replicas
    most = max(held, policy.minimum, 1)
    if situation.capacity is not None and situation.capacity < most:
        return situation
    return replace(situation, capacity=most, capacity_words=room.words)


def _take_back(policy: Policy, following: Following, scene: Scene) -> Decision | None:
    """Pods that nothing fits serve nobody, and take what comes free from those who were promised it. One is left, which whoever adds nodes
    can see."""
    wanted = following.replicas
    if scene.fitting is None:
        return None
    after = max(1, policy.minimum, scene.ready, scene.fitting)
    if after >= wanted:
        return None
    message = f"{wanted} replicas wanted, {scene.fitting} found a node ({scene.words}): {wanted} -> {after} replicas"
    inputs = {} if scene.room is None or scene.room.replicas is None else {FIT: str(scene.room.replicas)}
    return Decision(after, None, Reason.CAPACITY_BLOCKED, message, is_healthy=False, inputs=inputs)


def _find_capacity(scene: Scene, changes: Sequence[Change], now: datetime) -> int | None:
    """How many replicas find a node: by pods that have found none, or by those that had found none a while ago, unless nodes came."""
    blocked = [
        change.after
        for change in changes
        if change.reason == Reason.CAPACITY_BLOCKED
        and change.after < change.before
        and timedelta(0) <= now - change.at < CAPACITY_REMEMBERED
        and not _has_grown(change, scene.room)
    ]
    known = (scene.fitting, min(blocked, default=None))
    return min((one for one in known if one is not None), default=None)


def _has_grown(change: Change, room: Room | None) -> bool:
    fit = change.inputs.get(FIT, "")
    return fit.isdecimal() and room is not None and room.replicas is not None and room.replicas > int(fit)


def read_changes(scaling: Mapping[str, Any]) -> tuple[Change, ...]:
    """The decisions that status.scaling remembers, oldest first, less those that nobody can read."""
    read = (_read_change(one) for one in scaling.get("decisions") or ())
    return tuple(one for one in read if one is not None)


def _read_change(one: Mapping[str, Any]) -> Change | None:
    at = read_time(one.get("time"))
    try:
        return (
            None
            if at is None
            else Change(
                at=at,
                before=int(one["from"]),
                after=int(one["to"]),
                reason=str(one["reason"]),
                message=str(one["message"]),
                load=None if one.get("requests") is None else float(one["requests"]),
                inputs=dict(one.get("inputs") or {}),
            )
        )
    except (KeyError, TypeError, ValueError):
        return None


def _add_change(situation: Situation, decision: Decision, policy: Policy) -> list[Json]:
    made = Change(
        situation.now,
        situation.replicas,
        decision.replicas,
        str(decision.reason),
        truncate(decision.message, MAX_MESSAGE_LENGTH),
        decision.load,
        dict(sorted(decision.inputs.items())[:INPUTS_KEPT]),
    )
    kept = remembered_changes((*situation.changes, made), policy, situation.now)
    return [_write_change(one) for one in kept[-DECISIONS_KEPT:]]


def _write_change(change: Change) -> Json:
    written: Json = {"time": format_time(change.at), "from": change.before, "to": change.after}
    if change.load is not None:
        written["requests"] = round(change.load)
    if change.inputs:
        written["inputs"] = {name: truncate(value, 64) for name, value in change.inputs.items()}
    return written | {"reason": change.reason, "message": change.message}
