"""The gateway's Service, its PodDisruptionBudget and its NetworkPolicy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from fairlead.api.names import gateway_name, make_carrier_selector, make_engine_selector, make_gateway_selector
from fairlead.api.resource import LLMRoute
from fairlead.api.route import GatewayServiceSpec, GatewaySpec, LLMAccess
from fairlead.facts.observed import OperatorFacts
from fairlead.gateway.envoy import GatewaySettings
from fairlead.planning.gateway import SIDECAR_PORT_NAME
from fairlead.planning.route.backends import Resolved
from fairlead.planning.route.carriers import is_carried
from fairlead.planning.route.certificate import certificate_secret
from fairlead.planning.route.metadata import make_metadata
from fairlead.planning.route.pod import public_port

__all__ = [
    "has_disruption_budget",
    "make_disruption_budget",
    "make_endpoint",
    "make_network_policy",
    "make_service",
    "service_port",
]

Json = dict[str, Any]
#: Of the cluster's DNS pods: CoreDNS everywhere, and OpenShift's.
_DNS_PORTS: Final = (53, 5353)
#: Set by the API server on every namespace, so that a selector can name one.
_NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"


def make_service(route: LLMRoute, settings: GatewaySettings) -> Json:
    """Ready gateways behind one address."""
    service = _service_of(route)
    name = public_port(settings)
    selector, target = make_gateway_selector(route.metadata.name), name
    if is_carried(route):
        selector, target = make_carrier_selector(route.metadata.name), SIDECAR_PORT_NAME
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": make_metadata(route.metadata, gateway_name(route.metadata.name), service.annotations),
        "spec": {
            "type": service.type.value,
            "selector": selector,
            "ports": [{"name": name, "port": service_port(route), "targetPort": target, "protocol": "TCP"}],
        },
    }


def make_endpoint(route: LLMRoute) -> str:
    """Base URL of the OpenAI-compatible API inside the cluster."""
    scheme, usual = ("https", 443) if certificate_secret(route) is not None else ("http", 80)
    port = service_port(route)
    host = f"{gateway_name(route.metadata.name)}.{route.metadata.namespace}.svc"
    return f"{scheme}://{host}{'' if port == usual else f':{port}'}/v1"


def has_disruption_budget(route: LLMRoute) -> bool:
    """From two replicas on: with one, a budget could only forbid every drain of its node. Engine pods have their own."""
    return not is_carried(route) and (route.spec.gateway or GatewaySpec()).replicas >= 2


def make_disruption_budget(route: LLMRoute) -> Json:
    """At most one gateway may be evicted at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": make_metadata(route.metadata, gateway_name(route.metadata.name)),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": make_gateway_selector(route.metadata.name)},
        },
    }


def make_network_policy(
    route: LLMRoute, resolved: Iterable[Resolved], operator: OperatorFacts, settings: GatewaySettings
) -> Json:
    """In: requests from anywhere, status and metrics for the operator and monitoring. Out: names, the engines of this route's
    deployments, and the ports of its providers if it has any."""
    namespaces = dict.fromkeys([operator.namespace, *operator.monitoring_namespaces])
    watchers = [{"namespaceSelector": {"matchLabels": {_NAMESPACE_NAME: namespace}}} for namespace in namespaces]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": make_metadata(route.metadata, gateway_name(route.metadata.name)),
        "spec": {
            "podSelector": {"matchLabels": make_gateway_selector(route.metadata.name)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                # By number: pods of before and after a change between HTTP and HTTPS call the same port differently.
                {"ports": [{"protocol": "TCP", "port": settings.port}]},
                {"from": watchers, "ports": [{"protocol": "TCP", "port": "status"}]},
            ],
            "egress": [
                {"ports": [{"protocol": protocol, "port": port} for port in _DNS_PORTS for protocol in ("UDP", "TCP")]},
                *_make_egress(route, tuple(resolved)),
            ],
        },
    }


def _make_egress(route: LLMRoute, resolved: tuple[Resolved, ...]) -> list[Json]:
    deployments = {backend.name: backend.deployment.name for backend in route.spec.backends if backend.deployment}
    local = [
        {
            "to": [{"podSelector": {"matchLabels": make_engine_selector(deployments[backend.name])}}],
            "ports": [{"protocol": "TCP", "port": backend.upstream.port}],
        }
        for backend in resolved
        if backend.upstream is not None and backend.upstream.access is LLMAccess.LOCAL
    ]
    ports = sorted(
        {
            backend.upstream.port
            for backend in resolved
            if backend.upstream is not None and backend.upstream.access is LLMAccess.CLOUD
        }
    )
    outside = [{"ports": [{"protocol": "TCP", "port": port} for port in ports]}] if ports else []
    return [*local, *outside]


def service_port(route: LLMRoute) -> int:
    """Of the Service in front of the gateway."""
    return _service_of(route).port or (443 if certificate_secret(route) is not None else 80)


def _service_of(route: LLMRoute) -> GatewayServiceSpec:
    gateway = route.spec.gateway or GatewaySpec()
    return gateway.service or GatewayServiceSpec()
