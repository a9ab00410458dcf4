"""Who may reach the engine pods. Engines do not authenticate (or only half of their paths), so the network must.

Admitted: the deployment's own namespace, fairlead's gateways wherever they run, the operator, monitoring. `networkPolicy.from`
adds to these; it replaces nothing.

Egress: names, and HTTPS for a model that is downloaded. It is closed only for a deployment that keeps what it is sent otherwise, too
(`policy.locality`): with an image, a variable or an argument of the user's own nobody but he knows where it has to reach.

A gateway beside the engine (`spec.gateway`) is reached by anybody, as gateways are, and reaches the other engines of its route. Where
egress is closed it reaches those only that keep what they are sent, too: the engine has the same network.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fairlead.api.llmdeployment import NetworkPolicyMode
from fairlead.api.names import COMPONENT_GATEWAY, LABEL_COMPONENT, LABEL_MANAGED_BY, MANAGED_BY, make_engine_selector
from fairlead.facts.observed import OperatorFacts
from fairlead.planning.deployment.encryption import port_name
from fairlead.planning.deployment.metadata import make_metadata
from fairlead.planning.deployment.serving import Serving
from fairlead.planning.gateway import SIDECAR_SETTINGS
from fairlead.policy.locality import find_leak

__all__ = ["has_network_policy", "make_network_policy"]

#: Of the cluster's DNS pods: CoreDNS everywhere, and OpenShift's.
DNS_PORTS = (53, 5353)
#: Set by the API server on every namespace, so that a selector can name one.
_NAMESPACE_NAME = "kubernetes.io/metadata.name"


def has_network_policy(serving: Serving) -> bool:
    """Unless the user opted out."""
    policy = serving.spec.network_policy
    return policy is None or policy.mode is NetworkPolicyMode.MANAGED


def make_network_policy(
    serving: Serving, facts: OperatorFacts, peers: Iterable[tuple[str, int]] = ()
) -> dict[str, Any]:
    """Ingress to the port that is served only, the engine's or that of the TLS before it, and to a gateway beside it; everything else is
    denied. `peers`: LLMDeployments that this gateway may reach, and the ports of their pods."""
    gateways = {LABEL_COMPONENT: COMPONENT_GATEWAY, LABEL_MANAGED_BY: MANAGED_BY}
    namespaces = dict.fromkeys([facts.namespace, *facts.monitoring_namespaces])
    watchers = [{"namespaceSelector": {"matchLabels": {_NAMESPACE_NAME: namespace}}} for namespace in namespaces]
    callers: list[dict[str, Any]] = [
        {"podSelector": {}},
        {"namespaceSelector": {}, "podSelector": {"matchLabels": gateways}},
        *watchers,
    ]
    user = serving.spec.network_policy.from_ if serving.spec.network_policy else []
    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": make_engine_selector(serving.name)},
        "policyTypes": ["Ingress"],
        "ingress": [
            {"from": [*callers, *user], "ports": [{"protocol": "TCP", "port": port_name(serving)}]},
            *(_make_gateway_ingress(watchers) if serving.spec.gateway is not None else ()),
        ],
    }
    if not find_leak(serving.spec, facts.local_images):
        spec |= {"policyTypes": ["Ingress", "Egress"], "egress": [*_make_egress(serving), *map(_make_peer, peers)]}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": make_metadata(serving.resource.metadata, serving.name),
        "spec": spec,
    }


def _make_gateway_ingress(watchers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As the policy of gateways in pods of their own admits: who may call is settled by the gateway."""
    return [
        {"ports": [{"protocol": "TCP", "port": SIDECAR_SETTINGS.port}]},
        {"from": watchers, "ports": [{"protocol": "TCP", "port": SIDECAR_SETTINGS.status_port}]},
    ]


def _make_peer(peer: tuple[str, int]) -> dict[str, Any]:
    name, port = peer
    return {
        "to": [{"podSelector": {"matchLabels": make_engine_selector(name)}}],
        "ports": [{"protocol": "TCP", "port": port}],
    }


def _make_egress(serving: Serving) -> list[dict[str, Any]]:
    names = [{"protocol": protocol, "port": port} for port in DNS_PORTS for protocol in ("UDP", "TCP")]
    if serving.spec.model.source.startswith("pvc://"):
        return [{"ports": names}]
    return [{"ports": names}, {"ports": [{"protocol": "TCP", "port": 443}]}]
