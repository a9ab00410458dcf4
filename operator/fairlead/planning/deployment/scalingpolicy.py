"""What spec.autoscaling asks for, as the control law takes it."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Final

from fairlead.api.autoscaling import AutoscalingSpec, LimitType, ScalingRulesSpec, SelectPolicy
from fairlead.api.llmdeployment import LLMDeploymentSpec
from fairlead.api.quantity import parse_duration_s
from fairlead.errors import RenderError
from fairlead.facts.scaling import Measure
from fairlead.planning.deployment.spotfloor import NO_SPOT_FLOOR, SpotFloor
from fairlead.scaling.decision import Behavior, Limit, Policy
from fairlead.scaling.schedule import Window, floor_of, next_change, why_not

__all__ = [
    "IDLE_S",
    "check_schedules",
    "find_floor",
    "find_next_change",
    "make_behaviors",
    "make_policy",
    "read_targets",
]

#: Without any request, before the last replica goes.
IDLE_S: Final = 300.0
#: What gives most for least in the simulated world (tests/world): half a minute more before going up costs more than it saves.
_UP: Final = Behavior(0.0, (Limit(60.0, pods=4), Limit(60.0, percent=100)))
_DOWN: Final = Behavior(180.0, (Limit(60.0, pods=1),))

_Windows = tuple[Window, ...]


def check_schedules(spec: LLMDeploymentSpec) -> None:
    """Raises RenderError for times that do not exist."""
    windows = _make_windows(spec.autoscaling) if spec.autoscaling is not None else ()
    for number, field, why in _find_faults(windows):
        raise RenderError(f"spec.autoscaling.schedules[{number}].{field}", why)


def make_policy(autoscaling: AutoscalingSpec, now: datetime, spot: SpotFloor = NO_SPOT_FLOOR) -> Policy:
    """What the user wants now, in numbers."""
    up, down = make_behaviors(autoscaling)
    floor = find_floor(autoscaling, now)
    minimum = min(autoscaling.max_replicas, max(floor, spot.replicas) + spot.leaving)
    return Policy(
        minimum=minimum,
        maximum=autoscaling.max_replicas,
        targets=read_targets(autoscaling),
        scale_up=up,
        scale_down=down,
        idle_s=IDLE_S if autoscaling.idle_timeout is None else parse_duration_s(autoscaling.idle_timeout),
        why_minimum=spot.words if minimum > floor else "",
    )


def find_floor(autoscaling: AutoscalingSpec, now: datetime) -> int:
    """The fewest replicas that the user asks for now, wherever they run."""
    scheduled = _look_at_schedules(_make_windows(autoscaling), now.replace(second=0, microsecond=0))[0]
    return min(autoscaling.max_replicas, max(autoscaling.min_replicas, scheduled))


def find_next_change(autoscaling: AutoscalingSpec, now: datetime) -> float | None:
    """Seconds until a schedule begins or ends; None where that is far away."""
    at = _look_at_schedules(_make_windows(autoscaling), now.replace(second=0, microsecond=0))[1]
    return (at - now).total_seconds() if at is not None else None


def _make_windows(autoscaling: AutoscalingSpec) -> _Windows:
    return tuple(Window(one.start, one.min_replicas, one.end, time_zone=one.time_zone) for one in autoscaling.schedules)


@lru_cache(maxsize=1024)
def _look_at_schedules(windows: _Windows, minute: datetime) -> tuple[int, datetime | None]:
    """The floor of that minute, and the next change after it: cron knows nothing shorter, and a look costs as much as a plan."""
    return (floor_of(windows, minute), next_change(windows, minute)) if windows else (0, None)


@lru_cache(maxsize=1024)
def _find_faults(windows: _Windows) -> tuple[tuple[int, str, str], ...]:
    return tuple(
        (number, "timeZone" if field == "time_zone" else field, why)
        for number, window in enumerate(windows)
        for field, why in why_not(window).items()
    )


def read_targets(autoscaling: AutoscalingSpec) -> dict[Measure, float]:
    """In seconds, requests and percent."""
    wanted = autoscaling.targets.model_dump(by_alias=True, exclude_none=True) if autoscaling.targets else {}
    return {
        Measure(name): parse_duration_s(value) if isinstance(value, str) else float(value)
        for name, value in wanted.items()
    }


def make_behaviors(autoscaling: AutoscalingSpec) -> tuple[Behavior, Behavior]:
    """For more and for fewer."""
    behavior = autoscaling.behavior
    up, down = (behavior.scale_up, behavior.scale_down) if behavior is not None else (None, None)
    return _make_behavior(up, _UP), _make_behavior(down, _DOWN)


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
        is_firm=bool(window),
    )
