"""The PodDisruptionBudget: node drains take one replica at a time, and pods that do not serve anyway never block them."""

from __future__ import annotations

from typing import Any

from fairlead.api.names import make_engine_selector
from fairlead.planning.deployment.metadata import make_metadata
from fairlead.planning.deployment.serving import Serving

__all__ = ["has_disruption_budget", "make_disruption_budget"]


def has_disruption_budget(serving: Serving) -> bool:
    """From two replicas on: with one, a budget could only forbid every drain of its node."""
    return not serving.spec.suspend and serving.resource.most_replicas >= 2


def make_disruption_budget(serving: Serving) -> dict[str, Any]:
    """At most one engine pod may be evicted at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": make_metadata(serving.resource.metadata, serving.name),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": make_engine_selector(serving.name)},
        },
    }
