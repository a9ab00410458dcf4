"""How many replicas the Deployment gets, who says so, and what is told of it.

A decision is written to status first and carried out by the next pass, which finds it there: whoever takes over in between, or is told
the same twice, comes to the same number. Where somebody else writes the number (spec.replicas by an autoscaler, or the Deployment itself),
this only follows, and keeps a hand-over from taking pods away.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fairlead.api.autoscaling import (
    AutoscalingMode,
    AutoscalingSpec,
    DecisionPolicy,
    LimitType,
    ScalingRulesSpec,
    SelectPolicy,
)
from fairlead.api.conditions import ConditionType, Reason
from fairlead.api.llmdeployment import LLMDeploymentSpec
from fairlead.api.quantity import parse_duration_s
from fairlead.errors import RenderError
from fairlead.facts.scaling import Measure, Recommendation, Signals
from fairlead.planning.conditions import FALSE, MAX_MESSAGE_LENGTH, TRUE, UNKNOWN, Condition, find_condition, truncate
from fairlead.planning.plan import PlannedEvent
from fairlead.scaling.decision import Behavior, Change, Decision, Limit, Policy, Situation
from fairlead.scaling.law import decide
from fairlead.scaling.memory import remembered_changes, remembered_recommendations
from fairlead.scaling.schedule import Window, floor_of, next_change, why_not

__all__ = ["Following", "Scaling", "Scene", "check_schedules", "follow", "scale", "stand_still"]

Json = dict[str, Any]

#: How long the number from before a hand-over stays while whoever takes over has not written spec.replicas yet: an autoscaler looks every
#: 15 seconds, and needs pods that are ready and metrics of them.
HAND_OVER: Final = timedelta(minutes=5)
#: Without any request, before the last replica goes.
IDLE_S: Final = 300.0
DECISIONS_KEPT: Final = 20
#: Where no pod has told yet how long it takes.
STARTUP_S: Final = 120.0
#: Reasons of decisions that were made without signals, and those that tell what hinders one.
_NOT_KNOWN: Final = frozenset({Reason.SIGNALS_MISSING, Reason.SIGNALS_PARTIAL, Reason.SIGNALS_STALE})
_HINDRANCES: Final = _NOT_KNOWN | {Reason.AT_MAXIMUM, Reason.CAPACITY_BLOCKED, Reason.TARGETS_OUT_OF_REACH}
#: For how long a number that pods without a node led to is not passed again.
CAPACITY_REMEMBERED: Final = timedelta(minutes=10)
#: What gives most for least in the simulated world (tests/world): half a minute more before going up costs more than it saves.
_UP: Final = Behavior(0.0, (Limit(60.0, pods=4), Limit(60.0, percent=100)))
_DOWN: Final = Behavior(180.0, (Limit(60.0, pods=1),))


@dataclass(frozen=True, slots=True)
class Following:
    """`replicas`: what the Deployment gets in this pass, but for suspension. `status`: status.scaling as it is without a new decision,
    None for none. `writer`: another autoscaler that decides, for people. `held_s`: for how long the number is still that from before
    a hand-over."""

    replicas: int
    status: Json | None = None
    writer: str = ""
    held_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Scene:
    """What a decision needs to know of the pods. `starting_since`: of those that are not ready, when they were made; `fitting`: how many
    have a node or may get one, None where all may; `startup_s`: how long one took to answer, None where that is not known."""

    ready: int
    starting_since: tuple[datetime, ...] = ()
    fitting: int | None = None
    startup_s: float | None = None


@dataclass(frozen=True, slots=True)
class Scaling:
    """What is told: `status` for status.scaling, None for none; the condition; Events. `recommendations`: what the signals asked for
    lately, for the next decision. `is_decided`: status holds another number than the Deployment gets, and the next pass carries it out;
    `goes_down`: it is a lower one. `is_measured`: the pods are to be looked at. `due_s`: when to look again though nothing happens."""

    condition: Condition
    status: Json | None = None
    events: tuple[PlannedEvent, ...] = ()
    recommendations: tuple[Recommendation, ...] = ()
    is_decided: bool = False
    goes_down: bool = False
    is_measured: bool = False
    due_s: float | None = None


def follow(
    spec: LLMDeploymentSpec, previous: Mapping[str, Any], live_replicas: int | None, signals: Signals, now: datetime
) -> Following:
    """`previous`: status as last written; `live_replicas`: of our own Deployment, None where there is none."""
    before, autoscaling = previous.get("scaling") or {}, spec.autoscaling
    if signals.writer_of_child and live_replicas is not None:
        return Following(live_replicas, writer=signals.writer_of_child)
    if autoscaling is None:
        return Following(spec.replicas)
    if autoscaling.mode is AutoscalingMode.EXTERNAL or signals.writer:
        return _follow_other(spec, autoscaling, before, live_replicas, signals.writer, now)
    if autoscaling.policy is DecisionPolicy.RECOMMEND:
        return Following(spec.replicas, _make_status(AutoscalingMode.OPERATOR, None, spec.replicas, before))
    replicas = before.get("desiredReplicas")
    if replicas is None:
        found = live_replicas if live_replicas is not None else spec.replicas
        replicas = _within(autoscaling, found)
    return Following(replicas, _make_status(AutoscalingMode.OPERATOR, replicas, spec.replicas, before))


def scale(
    spec: LLMDeploymentSpec,
    following: Following,
    signals: Signals,
    scene: Scene,
    previous: Mapping[str, Any],
    now: datetime,
) -> Scaling:
    """What is decided, and what is told of who decides."""
    autoscaling = spec.autoscaling
    if following.writer:
        return _tell_of_writer(spec, following)
    if autoscaling is None:
        return Scaling(
            _condition(FALSE, Reason.FIXED_REPLICAS, "spec.replicas says how many; spec.autoscaling is not there.")
        )
    if spec.suspend:
        return Scaling(_condition(FALSE, Reason.SUSPENDED, "Suspended: nothing is decided."), following.status)
    if autoscaling.mode is AutoscalingMode.EXTERNAL:
        return _tell_of_external(spec, autoscaling, following)
    if autoscaling.policy is DecisionPolicy.PAUSE:
        message = f"Paused at {following.replicas} replicas, until spec.autoscaling.policy is Apply."
        return Scaling(_condition(FALSE, Reason.SCALING_PAUSED, message), following.status)
    windows = make_windows(autoscaling)
    policy = make_policy(autoscaling, floor_of(windows, now))
    situation = Situation(
        now=now,
        replicas=following.replicas,
        ready=scene.ready,
        starting_since=scene.starting_since,
        samples=signals.samples,
        recommendations=signals.recommendations,
        changes=read_changes(previous),
        capacity=_find_capacity(signals, scene, read_changes(previous), now),
        held=signals.held,
        startup_s=STARTUP_S if scene.startup_s is None else scene.startup_s,
        is_urgent=signals.is_urgent,
        idle_since=signals.idle_since,
    )
    decision = _take_back(autoscaling, following, scene) or decide(policy, situation)
    scaling = Scaling(
        _tell_of_decision(spec, autoscaling, following, scene, signals, decision, previous),
        following.status,
        _find_ignored(spec, autoscaling, previous),
        remembered_recommendations(signals.recommendations, decision, policy, now),
        is_measured=True,
        due_s=_find_due(decision, windows, now),
    )
    if autoscaling.policy is DecisionPolicy.RECOMMEND:
        return replace(scaling, status=(following.status or {}) | {"recommendedReplicas": decision.replicas})
    if decision.replicas == following.replicas:
        return scaling
    changes = _add_change(situation, following.replicas, decision, policy)
    status = (following.status or {}) | {"desiredReplicas": decision.replicas, "decisions": changes}
    events = (*scaling.events, _make_event(decision))
    goes_down = decision.replicas < following.replicas
    return replace(scaling, status=status, events=events, is_decided=True, goes_down=goes_down)


def stand_still(previous: Mapping[str, Any]) -> Condition:
    """Of a spec that cannot be carried out: the pods stay as they are, and so does their number."""
    if previous.get("scaling"):
        return _condition(FALSE, Reason.INVALID_SPEC, "The spec is refused, see Stalled: the number of replicas stays.")
    return _condition(UNKNOWN, Reason.INVALID_SPEC, "The spec is refused, see Stalled.")


def check_schedules(spec: LLMDeploymentSpec) -> None:
    """Raises RenderError for times that do not exist."""
    for number, window in enumerate(make_windows(spec.autoscaling)) if spec.autoscaling is not None else ():
        for name, why in why_not(window).items():
            field = "timeZone" if name == "time_zone" else name
            raise RenderError(f"spec.autoscaling.schedules[{number}].{field}", why)


def make_windows(autoscaling: AutoscalingSpec) -> tuple[Window, ...]:
    """The schedules."""
    return tuple(Window(one.start, one.min_replicas, one.end, time_zone=one.time_zone) for one in autoscaling.schedules)


def make_policy(autoscaling: AutoscalingSpec, floor: int = 0) -> Policy:
    """What the user wants, in numbers. `floor`: what the schedules ask for now."""
    behavior = autoscaling.behavior
    return Policy(
        minimum=min(autoscaling.max_replicas, max(autoscaling.min_replicas, floor)),
        maximum=autoscaling.max_replicas,
        targets=_read_targets(autoscaling),
        scale_up=_make_behavior(behavior.scale_up if behavior else None, _UP),
        scale_down=_make_behavior(behavior.scale_down if behavior else None, _DOWN),
        idle_s=IDLE_S if autoscaling.idle_timeout is None else parse_duration_s(autoscaling.idle_timeout),
    )


def read_changes(previous: Mapping[str, Any]) -> tuple[Change, ...]:
    """The decisions that status remembers, oldest first."""
    return tuple(_read_change(one) for one in (previous.get("scaling") or {}).get("decisions") or ())


def _read_change(one: Mapping[str, Any]) -> Change:
    return Change(
        at=_read_time(one["time"]),
        before=int(one["from"]),
        after=int(one["to"]),
        reason=str(one["reason"]),
        message=str(one["message"]),
        load=None if one.get("requests") is None else float(one["requests"]),
    )


def _take_back(autoscaling: AutoscalingSpec, following: Following, scene: Scene) -> Decision | None:
    """Pods that nothing fits serve nobody, and take what comes free from those who were promised it."""
    wanted = following.replicas
    if scene.fitting is None or not autoscaling.min_replicas < wanted or scene.fitting >= wanted:
        return None
    after = max(autoscaling.min_replicas, scene.fitting)
    message = f"{wanted} replicas wanted, {scene.fitting} found a node: {wanted} -> {after} replicas"
    return Decision(after, None, Reason.CAPACITY_BLOCKED, message, is_healthy=False)


def _find_due(decision: Decision, windows: Sequence[Window], now: datetime) -> float | None:
    change = next_change(windows, now)
    due_s = (decision.due_s, (change - now).total_seconds() if change is not None else None)
    return min((one for one in due_s if one is not None), default=None)


def _find_capacity(signals: Signals, scene: Scene, changes: Sequence[Change], now: datetime) -> int | None:
    """How many replicas find a node: by the nodes, by pods that have found none, or by those that had found none a while ago."""
    blocked = [
        change.after
        for change in changes
        if change.reason == Reason.CAPACITY_BLOCKED and timedelta(0) <= now - change.at < CAPACITY_REMEMBERED
    ]
    known = (signals.capacity, scene.fitting, min(blocked, default=None))
    return min((one for one in known if one is not None), default=None)


def _follow_other(
    spec: LLMDeploymentSpec,
    autoscaling: AutoscalingSpec,
    before: Mapping[str, Any],
    live_replicas: int | None,
    writer: str,
    now: datetime,
) -> Following:
    """spec.replicas counts. Who begins to write it found another number, and is given time to write its own."""
    asked = _within(autoscaling, spec.replicas)
    is_new = before.get("mode") != AutoscalingMode.EXTERNAL
    until = now + HAND_OVER if is_new else _read_until(before)
    kept = before.get("desiredReplicas", live_replicas) if is_new else before.get("desiredReplicas")
    changed = before.get("specReplicas") not in (None, spec.replicas)
    if kept is None or kept == asked or changed or until is None or not now < until:
        return Following(asked, _make_status(AutoscalingMode.EXTERNAL, asked, spec.replicas, before), writer)
    kept = _within(autoscaling, kept)
    status = _make_status(AutoscalingMode.EXTERNAL, kept, spec.replicas, before) | {"heldUntil": _format_time(until)}
    return Following(kept, status, writer, held_s=(until - now).total_seconds())


def _make_status(mode: AutoscalingMode, desired: int | None, spec_replicas: int, before: Mapping[str, Any]) -> Json:
    status: Json = {"mode": mode.value, "specReplicas": spec_replicas}
    if desired is not None:
        status["desiredReplicas"] = desired
    if before.get("decisions"):
        status["decisions"] = list(before["decisions"])
    return status


def _tell_of_writer(spec: LLMDeploymentSpec, following: Following) -> Scaling:
    message = f"{following.writer} decides how many replicas there are."
    if spec.autoscaling is not None and spec.autoscaling.mode is AutoscalingMode.OPERATOR:
        message += " Nothing is decided here while it does. Next: delete it, or say autoscaling.mode: External."
    return Scaling(
        _condition(TRUE, Reason.EXTERNALLY_MANAGED, message), following.status, due_s=following.held_s or None
    )


def _tell_of_external(spec: LLMDeploymentSpec, autoscaling: AutoscalingSpec, following: Following) -> Scaling:
    if following.held_s:
        message = (
            f"{following.replicas} replicas as before the hand-over: spec.replicas is still {spec.replicas}."
            " It counts when somebody changes it, or after five minutes."
        )
        return Scaling(_condition(TRUE, Reason.REPLICAS_HELD, message), following.status, due_s=following.held_s)
    bounds = f"between {autoscaling.min_replicas} and {autoscaling.max_replicas}"
    return Scaling(
        _condition(TRUE, Reason.EXTERNALLY_MANAGED, f"Whoever writes spec.replicas decides, {bounds}."),
        following.status,
    )


def _tell_of_decision(
    spec: LLMDeploymentSpec,
    autoscaling: AutoscalingSpec,
    following: Following,
    scene: Scene,
    signals: Signals,
    decision: Decision,
    previous: Mapping[str, Any],
) -> Condition:
    suffix = " Only recommended: spec.replicas counts." if autoscaling.policy is DecisionPolicy.RECOMMEND else ""
    if not suffix and spec.replicas != 1:
        suffix = f" spec.replicas ({spec.replicas}) is not read with autoscaling.mode Operator."
    if not following.replicas and autoscaling.min_replicas == 0:
        return _condition(TRUE, Reason.SCALED_TO_ZERO, "Nothing runs until a gateway has a request for it." + suffix)
    if not scene.ready and following.replicas and not signals.samples:
        message = "No pod is ready, so there is nothing to measure."
        return _condition(UNKNOWN, Reason.PODS_PENDING, message + suffix)
    if not decision.is_healthy:
        told = _condition(FALSE, Reason(decision.reason), decision.message + suffix)
        return _keep_words(told, previous)
    if decision.reason in _NOT_KNOWN and (pause := _tell_of_pause(decision, suffix, previous)) is not None:
        return pause
    by = ", ".join(measure.value for measure in make_policy(autoscaling).targets) or "what is asked for"
    message = f"{autoscaling.min_replicas} to {autoscaling.max_replicas} replicas by {by}."
    return _condition(TRUE, Reason.SIGNALS_READY, message + suffix)


def _tell_of_pause(decision: Decision, suffix: str, previous: Mapping[str, Any]) -> Condition | None:
    """One look that failed, or the first one that is still to come after a start, is no news: what was told stays. None: that is that
    signals are there."""
    before = find_condition(previous, ConditionType.SCALING_ACTIVE)
    reason = before.get("reason")
    if reason == Reason.SIGNALS_READY:
        return None
    said = str(before.get("message", ""))
    if before.get("status") == FALSE and reason in _HINDRANCES and said.endswith(suffix):
        return _condition(FALSE, Reason(reason), said)
    return _condition(FALSE, Reason(decision.reason), decision.message + suffix)


def _keep_words(condition: Condition, previous: Mapping[str, Any]) -> Condition:
    """Numbers that move with each look are no news."""
    before = find_condition(previous, condition.type)
    if (before.get("status"), before.get("reason")) != (condition.status, condition.reason.value):
        return condition
    said = str(before.get("message", ""))
    return (
        replace(condition, message=said) if _without_numbers(said) == _without_numbers(condition.message) else condition
    )


def _without_numbers(text: str) -> str:
    return re.sub(r"\d[\d.]*", "#", text)


def _find_ignored(
    spec: LLMDeploymentSpec, autoscaling: AutoscalingSpec, previous: Mapping[str, Any]
) -> tuple[PlannedEvent, ...]:
    """Somebody set spec.replicas, by kubectl scale perhaps, where it is not read."""
    before = previous.get("scaling") or {}
    is_read = autoscaling.policy is DecisionPolicy.RECOMMEND or before.get("mode") != AutoscalingMode.OPERATOR
    if is_read or before.get("specReplicas") in (None, spec.replicas):
        return ()
    message = (
        f"spec.replicas was set to {spec.replicas} and is not read with autoscaling.mode Operator."
        " Next: set autoscaling.minReplicas, or policy: Pause, or mode: External."
    )
    return (PlannedEvent("Warning", Reason.SCALE_IGNORED.value, message, action="Scale"),)


def _make_event(decision: Decision) -> PlannedEvent:
    return PlannedEvent("Normal", decision.reason, decision.message, action="Scale")


def _add_change(situation: Situation, before: int, decision: Decision, policy: Policy) -> list[Json]:
    message = truncate(decision.message, MAX_MESSAGE_LENGTH)
    made = Change(situation.now, before, decision.replicas, str(decision.reason), message, decision.load)
    kept = remembered_changes((*situation.changes, made), policy, situation.now)
    return [_write_change(one) for one in kept[-DECISIONS_KEPT:]]


def _write_change(change: Change) -> Json:
    written: Json = {"time": _format_time(change.at), "from": change.before, "to": change.after}
    if change.load is not None:
        written["requests"] = round(change.load)
    return written | {"reason": change.reason, "message": change.message}


def _read_targets(autoscaling: AutoscalingSpec) -> dict[Measure, float]:
    wanted = autoscaling.targets.model_dump(by_alias=True, exclude_none=True) if autoscaling.targets else {}
    return {
        Measure(name): parse_duration_s(value) if isinstance(value, str) else float(value)
        for name, value in wanted.items()
    }


def _make_behavior(rules: ScalingRulesSpec | None, default: Behavior) -> Behavior:
    if rules is None:
        return default
    window = rules.stabilization_window_seconds
    limits = default.limits
    if rules.policies is not None:
        limits = tuple(
            Limit(float(one.period_seconds), pods=one.value)
            if one.type is LimitType.PODS
            else Limit(float(one.period_seconds), percent=one.value)
            for one in rules.policies
        )
    return Behavior(
        window_s=default.window_s if window is None else float(window),
        limits=limits,
        takes_least=rules.select_policy is SelectPolicy.MIN,
        is_disabled=rules.select_policy is SelectPolicy.DISABLED,
    )


def _within(autoscaling: AutoscalingSpec, replicas: int) -> int:
    return max(autoscaling.min_replicas, min(autoscaling.max_replicas, replicas))


def _condition(status: str, reason: Reason, message: str) -> Condition:
    return Condition(ConditionType.SCALING_ACTIVE, status, reason, message)


def _read_until(before: Mapping[str, Any]) -> datetime | None:
    return _read_time(before["heldUntil"]) if before.get("heldUntil") else None


def _read_time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _format_time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
