"""The control law: how many replicas, from what was measured, what was decided before, and what the cluster has room for. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fairlead.api.conditions import Reason
from fairlead.scaling.decision import Decision, Policy, Situation
from fairlead.scaling.judging import Judgement, judge
from fairlead.scaling.pace import covers, limited_down, limited_up, seconds_until_free, stabilized
from fairlead.scaling.signals import Trouble, interval_s
from fairlead.scaling.tuning import DEFAULT, Tuning
from fairlead.scaling.zero import idle_for_s

__all__ = ["decide"]


@dataclass(frozen=True, slots=True)
class Frame:
    """What is decided within: `now`: replicas after the bounds are kept, whatever the signals say."""

    policy: Policy
    situation: Situation
    tuning: Tuning
    now: int
    gap_s: float

    @property
    def least(self) -> int:
        """The fewest replicas while there is any request."""
        return max(self.policy.minimum, 1)

    @property
    def room(self) -> float:
        """The most replicas that there are accelerators for; never fewer than there are already."""
        capacity = self.situation.capacity
        return math.inf if capacity is None else max(capacity, self.situation.replicas)

    @property
    def why_no_room(self) -> str:
        """What there are accelerators for."""
        return self.situation.capacity_words or f"{self.situation.capacity} is all that accelerators permit"


def decide(policy: Policy, situation: Situation, tuning: Tuning = DEFAULT) -> Decision:
    """How many replicas there shall be now, and why. The same input gives the same decision, and deciding anew with what came of it
    changes nothing."""
    gap_s = min(max(3 * interval_s(situation.samples), tuning.gap_s), tuning.stale_s)
    if policy.minimum <= 0:
        decision = _at_zero(policy, situation) if situation.replicas == 0 else _to_zero(policy, situation, gap_s)
        if decision is not None:
            return decision
    frame = Frame(policy, situation, tuning, _within_bounds(policy, situation), gap_s)
    if situation.ready == 0:
        return _without_pods(frame)
    judgement = judge(policy, situation, frame.now, tuning)
    wanted = judgement.wanted
    if wanted is not None and wanted > frame.now:
        return _up(frame, judgement, wanted)
    if judgement.trouble is not None:
        return _held(frame, judgement, judgement.trouble)
    if wanted is not None and wanted < frame.now:
        return _down(frame, judgement, wanted)
    return _same(frame, judgement)


def _within_bounds(policy: Policy, situation: Situation) -> int:
    """The bounds hold at once and without signals; a minimum only as far as there are accelerators."""
    capacity = math.inf if situation.capacity is None else max(situation.capacity, situation.replicas)
    least = max(policy.minimum, 1)
    raised = max(situation.replicas, min(least, capacity))
    return int(min(raised, policy.maximum))


def _at_zero(policy: Policy, situation: Situation) -> Decision:
    held = situation.held or 0
    inputs = _held_input(situation)
    if held <= 0:
        text = "no replica runs, and no request waits for one"
        return Decision(0, None, Reason.SCALED_TO_ZERO, text, inputs=inputs)
    words = f"{held} {'request waits' if held == 1 else 'requests wait'} for a replica"
    after = min(1, policy.maximum) if situation.capacity is None else min(1, policy.maximum, situation.capacity)
    if after < 1:
        text = f"{words}: 1 wanted, {situation.capacity} is all that accelerators permit"
        return Decision(0, None, Reason.CAPACITY_BLOCKED, text, is_healthy=False, inputs=inputs)
    return Decision(after, None, Reason.WAKING_UP, f"{words}: 0 -> {after} replicas", inputs=inputs)


def _to_zero(policy: Policy, situation: Situation, gap_s: float) -> Decision | None:
    if situation.held or policy.scale_down.is_disabled or situation.replicas > 1:
        return None
    idle_s = idle_for_s(situation.samples, situation.now, gap_s, situation.idle_since)
    if idle_s < policy.idle_s:
        return None
    text = f"no request for {idle_s:.0f} s, {policy.idle_s:.0f} s are enough: {situation.replicas} -> 0 replicas"
    return Decision(0, None, Reason.SCALED_TO_ZERO, text, inputs=_held_input(situation))


def _without_pods(frame: Frame) -> Decision:
    """Nobody can be asked. More pods would load no faster, so nothing but the bounds counts."""
    starting = len(frame.situation.starting_since)
    text = f"no pod is ready yet, {starting} start" if starting else "no pod is ready"
    return _decision(frame, frame.now, Reason.WAKING_UP, text, Judgement(None))


def _held(frame: Frame, judgement: Judgement, trouble: Trouble) -> Decision:
    is_healthy = trouble.reason in {Reason.TOO_FEW_REQUESTS, Reason.STABILIZING} or not trouble.is_lasting
    what = "nothing is changed" if trouble.stops_all else "nothing goes down"
    return _decision(frame, frame.now, trouble.reason, f"{trouble.message}; {what}", judgement, is_healthy=is_healthy)


def _up(frame: Frame, judgement: Judgement, wanted: int) -> Decision:
    policy, situation = frame.policy, frame.situation
    calm = wanted
    firm = policy.scale_up.is_firm
    if firm or (not judgement.is_sure and not situation.is_urgent):
        calm = stabilized(policy, frame.now, wanted, situation.recommendations, situation.now)
    if firm and covers(situation.recommendations, situation.now, policy.scale_up.window_s, frame.gap_s) > 0:
        calm = frame.now  # after a start nobody knows what was asked for before
    if calm <= frame.now:
        text = f"{judgement.text}: {wanted} replicas wanted, waiting until that has lasted {policy.scale_up.window_s:.0f} s"
        return _decision(frame, frame.now, Reason.STABILIZING, text, judgement)
    bounded = min(calm, policy.maximum)
    if bounded <= frame.now:
        text = f"{judgement.text}: {wanted} replicas wanted, the maximum is {policy.maximum}"
        is_missed = judgement.is_missed or judgement.is_sure
        return _decision(frame, frame.now, Reason.AT_MAXIMUM, text, judgement, is_healthy=not is_missed)
    permitted = min(bounded, limited_up(policy.scale_up, frame.now, situation.changes, situation.now))
    after = int(min(permitted, frame.room))
    if after < bounded and bounded > frame.room:
        text = f"{judgement.text}: {bounded} replicas wanted, {frame.why_no_room}"
        return _decision(frame, after, Reason.CAPACITY_BLOCKED, text, judgement, is_healthy=False)
    if after <= frame.now:
        return _limited(frame, judgement, f"{wanted} replicas wanted", "up", Reason.RATE_LIMITED)
    bound = f", the maximum is {policy.maximum}" if after == policy.maximum else ", this is what the limits permit now"
    more = f", {wanted} wanted{bound}" if after < wanted else ""
    return _decision(frame, after, Reason.SCALED_UP, f"{judgement.text}{more}", judgement)


def _down(frame: Frame, judgement: Judgement, enough: int) -> Decision:
    policy, situation = frame.policy, frame.situation
    wanted = max(enough, min(frame.least, frame.now))
    if wanted >= frame.now:
        return _decision(
            frame, frame.now, Reason.TARGETS_MET, f"{judgement.text}, with the minimum of replicas", judgement
        )
    missing_s = covers(situation.recommendations, situation.now, policy.scale_down.window_s, frame.gap_s)
    calm = stabilized(policy, frame.now, wanted, situation.recommendations, situation.now)
    if missing_s > 0 or calm >= frame.now:
        window = f"waiting until that has lasted {policy.scale_down.window_s:.0f} s"
        text = f"{judgement.text}: {wanted} replicas would do, {window}"
        return _decision(frame, frame.now, Reason.TARGETS_MET, text, judgement, due_s=missing_s or None)
    permitted = limited_down(policy.scale_down, frame.now, situation.changes, situation.now)
    after = int(max(calm, permitted, wanted))
    if after >= frame.now:
        return _limited(frame, judgement, f"{wanted} replicas would do", "down", Reason.TARGETS_MET)
    more = f", {wanted} would do" if after > wanted else ""
    return _decision(frame, after, Reason.SCALED_DOWN, f"{judgement.text}{more}", judgement)


def _same(frame: Frame, judgement: Judgement) -> Decision:
    if not judgement.is_missed:
        reason = Reason.TOO_FEW_REQUESTS if judgement.is_few else Reason.TARGETS_MET
        return _decision(frame, frame.now, reason, judgement.text, judgement)
    return _decision(frame, frame.now, Reason.TARGETS_MISSED, judgement.text + _loading_words(frame), judgement)


def _loading_words(frame: Frame) -> str:
    """What is counted on already."""
    situation = frame.situation
    loading = max(frame.now - situation.ready, 0)
    if not loading:
        return ""
    words = f", {loading} more {'replica loads' if loading == 1 else 'replicas load'}"
    if not situation.starting_since:
        return words
    age_s = max((situation.now - min(situation.starting_since)).total_seconds(), 0.0)
    return f"{words}, for {age_s:.0f} s of some {situation.startup_s:.0f} s"


def _limited(frame: Frame, judgement: Judgement, wish: str, way: str, reason: Reason) -> Decision:
    behavior = frame.policy.scale_up if way == "up" else frame.policy.scale_down
    due_s = None if behavior.is_disabled else seconds_until_free(behavior, frame.situation.changes, frame.situation.now)
    why = f"scaling {way} is disabled" if behavior.is_disabled else f"the limits of scaling {way} permit none now"
    return _decision(frame, frame.now, reason, f"{judgement.text}: {wish}, {why}", judgement, due_s=due_s)


def _decision(
    frame: Frame,
    after: int,
    reason: Reason,
    text: str,
    judgement: Judgement,
    *,
    is_healthy: bool = True,
    due_s: float | None = None,
) -> Decision:
    """The decision; where the bounds changed something by themselves, that is told first."""
    situation = frame.situation
    before = situation.replicas
    if frame.now != before and after == frame.now:
        reason = Reason.SCALED_UP if frame.now > before else Reason.SCALED_DOWN
        least = f"the minimum is {frame.least}{frame.policy.why_minimum}"
        bound = least if frame.now > before else f"the maximum is {frame.policy.maximum}"
        text = f"{bound}; {text}"
    if frame.now < min(frame.least, frame.policy.maximum):
        reason, is_healthy = Reason.CAPACITY_BLOCKED, False
        text = f"the minimum is {frame.least}, {frame.why_no_room}; {text}"
    change = f": {before} -> {after} replicas" if after != before else ""
    inputs = dict(judgement.inputs) | _held_input(situation)
    recommended = None if judgement.trouble is not None and judgement.wanted == frame.now else judgement.wanted
    load = None if judgement.load is None else judgement.load * before
    return Decision(after, recommended, reason, f"{text}{change}", is_healthy, inputs, due_s, load)


def _held_input(situation: Situation) -> dict[str, str]:
    return {} if situation.held is None else {"held": str(situation.held)}
