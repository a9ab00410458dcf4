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


def tell_of_keda(spec: LLMDeploymentSpec, following: Following, keda: KedaState) -> Condition:
    """By what is there now alone."""
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
    if not ready:
        return _condition(
            UNKNOWN, Reason.PROGRESSING, f"KEDA has not looked at {name} yet. If it lasts: is KEDA running?"
        )
    if ready.get("status") == FALSE:
        said = f"{ready.get('reason')}: {ready.get('message')}".rstrip(". ")
        text = f"KEDA says of {name}: {said}. The number of replicas stays. Next: kubectl describe scaledobject."
        return _condition(FALSE, Reason.KEDA_NOT_READY, text)
    if fallback.get("status") == TRUE:
        text = f"KEDA has no answer of Prometheus for {name}: there are no fewer replicas meanwhile. Next: are the engines scraped?"
        return _condition(FALSE, Reason.SIGNALS_MISSING, text)
    if not following.replicas:
        return _condition(TRUE, Reason.SCALED_TO_ZERO, "Nothing runs until a gateway has a request for it.")
    message = f"KEDA decides by {name}, between {autoscaling.min_replicas} and {autoscaling.max_replicas} replicas."
    return _condition(TRUE, Reason.EXTERNALLY_MANAGED, message)


def _condition(status: str, reason: Reason, message: str) -> Condition:
    return Condition(ConditionType.SCALING_ACTIVE, status, reason, message)
