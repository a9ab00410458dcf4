"""What the live Deployment says about the rollout, in the words of its controller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fairlead.planning.deployment.revision import ChosenTemplate

__all__ = ["PlannedPods", "Rollout", "read_rollout"]


@dataclass(frozen=True, slots=True)
class PlannedPods:
    """By what a live Deployment is known to have what this pass applies."""

    replicas: int
    template: ChosenTemplate


@dataclass(frozen=True, slots=True)
class Rollout:
    """`desired` is what the plan wants; the rest what the Deployment's status says. `complete`: its controller has seen the
    planned spec and every pod is of the newest template; `refusal`: why pods cannot be created; `deadline_exceeded`: the
    controller gave up waiting; `seen`: its controller has looked at the Deployment as it is."""

    desired: int
    replicas: int = 0
    updated: int = 0
    ready: int = 0
    available: int = 0
    complete: bool = False
    refusal: str = ""
    deadline_exceeded: bool = False
    seen: bool = True


def read_rollout(live: Mapping[str, Any] | None, planned: PlannedPods | None, desired: int) -> Rollout:
    """`live` is our own Deployment, or None; `planned` what is applied in this pass (None: nothing is).

    The live spec must already be the planned one: right after an edit the status still speaks of the old template.
    """
    if live is None:
        return Rollout(desired=desired)
    status = live.get("status") or {}
    replicas, updated = int(status.get("replicas", 0)), int(status.get("updatedReplicas", 0))
    conditions = {condition["type"]: condition for condition in status.get("conditions") or []}
    progressing, failure = conditions.get("Progressing", {}), conditions.get("ReplicaFailure", {})
    seen = int(status.get("observedGeneration", 0)) >= int(live["metadata"].get("generation", 0))
    current = planned is None or _is_current(live, planned)
    return Rollout(
        desired=desired,
        replicas=replicas,
        updated=updated,
        ready=int(status.get("readyReplicas", 0)),
        available=int(status.get("availableReplicas", 0)),
        complete=seen and current and updated == replicas == desired,
        refusal=str(failure.get("message", "")) if failure.get("status") == "True" else "",
        deadline_exceeded=progressing.get("reason") == "ProgressDeadlineExceeded" and seen and current,
        seen=seen,
    )


def _is_current(live: Mapping[str, Any], planned: PlannedPods) -> bool:
    """True when the live Deployment already has the planned replicas and template. Compared by what we recorded on it: the
    live template itself is full of the API server's defaults."""
    same_record = planned.template.is_recorded_in(live["metadata"].get("annotations") or {})
    restarts = live["spec"]["template"]["metadata"].get("annotations") or {}
    restarted = all(restarts.get(key) == value for key, value in planned.template.pod_annotations.items())
    return same_record and restarted and live["spec"].get("replicas") == planned.replicas
