"""How many replicas the Deployment gets in this pass, and who said so: the last decision, spec.replicas, or another autoscaler.

Where one takes over from another, the new one finds a number that it has not chosen. What there is stays for some minutes then, so that
no pod goes before whoever decides now has looked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fairlead.api.autoscaling import AutoscalingMode, AutoscalingSpec, DecisionPolicy
from fairlead.api.llmdeployment import LLMDeploymentSpec
from fairlead.facts.scaling import Signals

__all__ = ["HAND_OVER", "RECOMMEND", "Following", "follow", "format_time", "read_time", "within"]

Json = dict[str, Any]

#: How long the number from before a hand-over stays while whoever takes over has not asked for as many: an autoscaler looks every 15
#: seconds, writes its own minimum first, and goes up from there step by step.
HAND_OVER: Final = timedelta(minutes=5)
#: What status.scaling.mode says beside the modes of the spec: what is decided is only recommended; spec.replicas counts.
RECOMMEND: Final = "Recommend"
FIXED: Final = "Fixed"


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
class _Before:
    """Status.scaling as last written, and what the Deployment has: nothing where it has none, since a suspended one does not say how many
    there were."""

    scaling: Mapping[str, Any]
    live: int | None

    @property
    def desired(self) -> int | None:
        found = self.scaling.get("desiredReplicas")
        return None if found is None else int(found)

    @property
    def most(self) -> int | None:
        """Of what was decided and what there is: either may be ahead of the other."""
        return max((one for one in (self.desired, self.live) if one is not None), default=None)


def follow(
    spec: LLMDeploymentSpec, previous: Mapping[str, Any], live_replicas: int | None, signals: Signals, now: datetime
) -> Following:
    """`previous`: status as last written; `live_replicas`: of our own Deployment, None where there is none."""
    before, autoscaling = _Before(previous.get("scaling") or {}, live_replicas or None), spec.autoscaling
    if signals.writer_of_child and live_replicas is not None:
        replicas = before.live or before.desired or spec.replicas
        status = _make_status(AutoscalingMode.EXTERNAL.value, replicas, spec.replicas, before)
        return Following(replicas, status, signals.writer_of_child)
    if autoscaling is None:
        held = _follow_spec(FIXED, spec, spec.replicas, before, now) if before.scaling else None
        return held if held is not None and held.held_s else Following(spec.replicas)
    if autoscaling.mode is not AutoscalingMode.OPERATOR or signals.writer:
        who = AutoscalingMode.EXTERNAL if signals.writer else autoscaling.mode
        return _follow_spec(who.value, spec, within(autoscaling, spec.replicas), before, now, signals.writer)
    if autoscaling.policy is DecisionPolicy.RECOMMEND:
        return _follow_spec(RECOMMEND, spec, within(autoscaling, spec.replicas), before, now)
    decided = before.desired if before.scaling.get("mode") == AutoscalingMode.OPERATOR else None
    replicas = decided if decided is not None else within(autoscaling, before.most or spec.replicas)
    if autoscaling.policy is DecisionPolicy.PAUSE:
        replicas = within(autoscaling, replicas)
    return Following(replicas, _make_status(AutoscalingMode.OPERATOR.value, replicas, spec.replicas, before))


def within(autoscaling: AutoscalingSpec, replicas: int) -> int:
    """The nearest number that the bounds permit."""
    return max(autoscaling.min_replicas, min(autoscaling.max_replicas, replicas))


def _follow_spec(
    who: str, spec: LLMDeploymentSpec, asked: int, before: _Before, now: datetime, writer: str = ""
) -> Following:
    """spec.replicas counts, as soon as it asks for no fewer than there were before, or the time for that is over. One that was changed
    together with who decides counts at once."""
    kept, until = _find_kept(who, spec, before, now)
    if kept is None or until is None or kept <= asked or not now < until:
        return Following(asked, _make_status(who, asked, spec.replicas, before), writer)
    status = _make_status(who, kept, spec.replicas, before) | {"heldUntil": format_time(until)}
    return Following(kept, status, writer, held_s=(until - now).total_seconds())


def _find_kept(who: str, spec: LLMDeploymentSpec, before: _Before, now: datetime) -> tuple[int | None, datetime | None]:
    """How many there were before a hand-over, and until when that counts."""
    latest = now + HAND_OVER
    if before.scaling.get("mode") == who:
        until = read_time(before.scaling.get("heldUntil"))
        return before.desired, min(until, latest) if until is not None else None
    if before.scaling.get("specReplicas") not in (None, spec.replicas):
        return None, None
    return before.most, latest


def _make_status(who: str, desired: int, spec_replicas: int, before: _Before) -> Json:
    status: Json = {"mode": who, "specReplicas": spec_replicas, "desiredReplicas": desired}
    if before.scaling.get("decisions"):
        status["decisions"] = list(before.scaling["decisions"])
    return status


def read_time(text: Any) -> datetime | None:
    """None for what is no time with an offset: status is the operator's, and others may write it all the same."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def format_time(at: datetime) -> str:
    """As status has times."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
