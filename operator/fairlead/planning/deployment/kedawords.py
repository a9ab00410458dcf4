"""What the condition ScalingActive says of KEDA: what its ScaledObject says of itself, in fairlead's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fairlead.api.autoscaling import DecisionPolicy
from fairlead.api.conditions import ConditionType, Reason
from fairlead.api.llmdeployment import LLMDeploymentSpec
from fairlead.planning.conditions import FALSE, TRUE, UNKNOWN, Condition, find_condition
from fairlead.planning.deployment.following import Following
from fairlead.planning.deployment.scalingwords import tell_of_hold

__all__ = ["OF_KEDA", "KedaState", "tell_of_keda"]

#: What lasts before it is told: a ScaledObject's conditions flip during ordinary rollouts (KEDA 2.20).
OF_KEDA: Final = frozenset({Reason.EXTERNALLY_MANAGED, Reason.KEDA_NOT_READY, Reason.SIGNALS_MISSING})


@dataclass(frozen=True, slots=True)
class KedaState:
    """`is_known`: the cluster has the kind, and the operator sees it; `live`: our ScaledObject, None where there is none yet."""

    is_known: bool
    live: Mapping[str, Any] | None = None

    @property
    def is_going(self) -> bool:
        """Whether it is being deleted."""
        return self.live is not None and bool(self.live["metadata"].get("deletionTimestamp"))


def tell_of_keda(spec: LLMDeploymentSpec, following: Following, keda: KedaState, *, has_ready: bool) -> Condition:
    """By what is there now alone. `has_ready`: some pod answers."""
    autoscaling = spec.autoscaling
    assert autoscaling is not None
    if not keda.is_known:
        message = (
            "This cluster has no ScaledObjects, or the operator may not see them, so nobody decides: spec.replicas counts,"
            f" between {autoscaling.min_replicas} and {autoscaling.max_replicas}. Next: install KEDA, or say autoscaling.mode: Operator."
        )
        return _condition(FALSE, Reason.KEDA_MISSING, message)
    if autoscaling.policy is DecisionPolicy.PAUSE:
        message = f"KEDA is paused at {following.replicas} replicas, until spec.autoscaling.policy is Apply."
        return _condition(FALSE, Reason.SCALING_PAUSED, message)
    if following.held_s:
        return tell_of_hold(spec, following)
    status = (keda.live or {}).get("status") or {}
    name = f"ScaledObject {keda.live['metadata']['name']}" if keda.live is not None else "the ScaledObject"
    ready, fallback = find_condition(status, "Ready"), find_condition(status, "Fallback")
    if keda.is_going:
        text = f"{name} is being deleted, and its finalizer waits for KEDA. Next: is KEDA running? If it is gone, remove the finalizer."
        return _condition(FALSE, Reason.KEDA_NOT_READY, text)
    if not ready or (ready.get("status") == UNKNOWN and not ready.get("reason")):
        return _condition(
            UNKNOWN, Reason.PROGRESSING, f"KEDA has not looked at {name} yet. If it lasts: is KEDA running?"
        )
    if ready.get("status") != TRUE:
        said = f"{ready.get('reason')}: {ready.get('message')}".rstrip(". ")
        text = f"KEDA says of {name}: {said}. The number of replicas stays. Next: kubectl describe scaledobject."
        return _condition(FALSE, Reason.KEDA_NOT_READY, text)
    if not following.replicas:
        return _condition(TRUE, Reason.SCALED_TO_ZERO, "Nothing runs until a gateway has a request for it.")
    if fallback.get("status") == TRUE:
        if not has_ready:  # nobody is there whom Prometheus could have asked
            return _condition(UNKNOWN, Reason.PODS_PENDING, "No pod is ready, so there is nothing to measure.")
        text = (
            f"KEDA has no answer of Prometheus for {name}: there are no fewer replicas meanwhile. Next: is the address right, does"
            " Prometheus want credentials (kubectl describe scaledobject), and does it scrape the engines?"
        )
        return _condition(FALSE, Reason.SIGNALS_MISSING, text)
    message = f"KEDA decides by {name}, between {autoscaling.min_replicas} and {autoscaling.max_replicas} replicas."
    return _condition(TRUE, Reason.EXTERNALLY_MANAGED, message)


def _condition(status: str, reason: Reason, message: str) -> Condition:
    return Condition(ConditionType.SCALING_ACTIVE, status, reason, message)
