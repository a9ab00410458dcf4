"""kstatus' verdict on a custom resource, written anew from its published algorithm (cli-utils pkg/kstatus, README and
`status.Compute`), so that the planner is not judged by its own idea of it. Flux, Helm 4 and kapp-like tools run the original.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def compute_kstatus(resource: Mapping[str, Any]) -> str:
    """Terminating, InProgress, Failed or Current."""
    metadata, status = resource["metadata"], resource.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    observed = status.get("observedGeneration")
    if observed is not None and observed != metadata.get("generation"):
        return "InProgress"
    conditions = status.get("conditions") or []
    for condition in conditions:  # the first that speaks, in list order
        if condition["type"] == "Reconciling" and condition["status"] == "True":
            return "InProgress"
        if condition["type"] == "Stalled" and condition["status"] == "True":
            return "Failed"
    for condition in conditions:
        if condition["type"] == "Ready":
            return "Current" if condition["status"] == "True" else "InProgress"
    return "Current"


def kubectl_wait_ready(resource: Mapping[str, Any]) -> bool:
    """What `kubectl wait --for=condition=Ready` says: a condition of an older generation does not count."""
    status = resource.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition["type"] == "Ready":
            observed = condition.get("observedGeneration", status.get("observedGeneration"))
            fresh = observed is None or observed >= resource["metadata"]["generation"]
            return bool(fresh and condition["status"] == "True")
    return False
