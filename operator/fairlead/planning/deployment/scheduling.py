"""Where the pods may run: the user's own wishes, ANDed with what the accelerator demands."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from fairlead.api.names import make_engine_selector
from fairlead.hardware.accelerators import find_vendor, make_product_terms
from fairlead.planning.deployment.serving import Serving

__all__ = ["make_affinity", "make_node_selector", "make_spread_constraints", "make_tolerations"]

#: Where a vendor's nodes are tainted with another key than the resource that a pod asks for (MIG slices).
_VENDOR_TAINTS = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu"}


def make_node_selector(serving: Serving) -> dict[str, str]:
    """The engine's demands (an image for one architecture), overruled by the user's selector."""
    user = serving.spec.pod.node_selector if serving.spec.pod else {}
    return {**serving.rendered.node_selector, **user}


def make_tolerations(serving: Serving) -> list[dict[str, Any]]:
    """Accelerator nodes are tainted with the name of their resource so that nothing else runs there."""
    user = list(serving.spec.pod.tolerations) if serving.spec.pod else []
    accelerator = serving.spec.accelerator
    if accelerator is None:
        return user
    vendor_taint = _VENDOR_TAINTS.get(find_vendor(accelerator.resource_name))
    keys = dict.fromkeys([accelerator.resource_name, *([vendor_taint] if vendor_taint else [])])
    own = [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in keys]
    return [toleration for toleration in own if toleration not in user] + user


def make_affinity(serving: Serving) -> dict[str, Any]:
    """The user's affinity with `accelerator.products` in every required term.

    Terms are alternatives and so are the label keys under which a product may stand, so the result is their product:
    (a or b) and (x or y) = ax or ay or bx or by.
    """
    affinity = deepcopy(serving.spec.pod.affinity) if serving.spec.pod and serving.spec.pod.affinity else {}
    accelerator = serving.spec.accelerator
    if accelerator is None or not accelerator.products:
        return affinity
    products = make_product_terms(accelerator.resource_name, accelerator.products)
    node_affinity = affinity.setdefault("nodeAffinity", {})
    required = node_affinity.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
    terms = required.get("nodeSelectorTerms") or [{}]
    required["nodeSelectorTerms"] = [
        {**term, "matchExpressions": [*(term.get("matchExpressions") or []), product]}
        for term in terms
        for product in products
    ]
    return affinity


def make_spread_constraints(serving: Serving) -> list[dict[str, Any]]:
    """The user's constraints; one that does not say which pods it counts counts this deployment's."""
    constraints = serving.spec.pod.topology_spread_constraints if serving.spec.pod else []
    selector = {"matchLabels": make_engine_selector(serving.name)}
    return [
        constraint if constraint.get("labelSelector") else {**constraint, "labelSelector": selector}
        for constraint in constraints
    ]
