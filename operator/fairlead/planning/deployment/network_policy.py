"""Who may reach the engine pods. Engines do not authenticate (or only half of their paths), so the network must.

Admitted: the deployment's own namespace, fairlead's gateways wherever they run, the operator, monitoring. `networkPolicy.from`
adds to these; it replaces nothing. Egress stays open in this release (models are downloaded by the pods).
"""

from __future__ import annotations

from typing import Any

from fairlead.api.llmdeployment import NetworkPolicyMode
from fairlead.api.names import LABEL_COMPONENT, LABEL_MANAGED_BY, MANAGED_BY, make_engine_selector
from fairlead.facts.observed import OperatorFacts
from fairlead.planning.deployment.metadata import make_metadata
from fairlead.planning.deployment.serving import Serving

__all__ = ["has_network_policy", "make_network_policy"]

#: Set by the API server on every namespace, so that a selector can name one.
_NAMESPACE_NAME = "kubernetes.io/metadata.name"
COMPONENT_GATEWAY = "gateway"


def has_network_policy(serving: Serving) -> bool:
    """Unless the user opted out."""
    policy = serving.spec.network_policy
    return policy is None or policy.mode is NetworkPolicyMode.MANAGED


def make_network_policy(serving: Serving, facts: OperatorFacts) -> dict[str, Any]:
    """Ingress to the engine's port only; everything else is denied."""
    gateways = {LABEL_COMPONENT: COMPONENT_GATEWAY, LABEL_MANAGED_BY: MANAGED_BY}
    namespaces = dict.fromkeys([facts.namespace, *facts.monitoring_namespaces])
    peers: list[dict[str, Any]] = [
        {"podSelector": {}},
        {"namespaceSelector": {}, "podSelector": {"matchLabels": gateways}},
        *({"namespaceSelector": {"matchLabels": {_NAMESPACE_NAME: namespace}}} for namespace in namespaces),
    ]
    user = serving.spec.network_policy.from_ if serving.spec.network_policy else []
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": make_metadata(serving.resource.metadata, serving.name),
        "spec": {
            "podSelector": {"matchLabels": make_engine_selector(serving.name)},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [*peers, *user], "ports": [{"protocol": "TCP", "port": "http"}]}],
        },
    }
