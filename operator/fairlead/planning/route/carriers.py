"""Gateways beside engines (`gateway.mode: Sidecar`): whose pods carry them, what these can reach, and to whom the Service leads.

Pods of both modes may be there at the same time, and both are kept up to date. The Service goes over to the wanted ones when the first
of them has loaded everything, and only then the others end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fairlead.api.conditions import Reason
from fairlead.api.names import LABEL_LLMROUTE, gateway_name
from fairlead.api.resource import LLMRoute, Metadata
from fairlead.api.route import GatewayMode, GatewaySpec
from fairlead.facts.observed import ObjectKey, Observed
from fairlead.facts.route import Carrier, GatewayPod, RouteFacts
from fairlead.gateway.envoy.files import ROUTING_INTERFACE
from fairlead.planning.ownership import find_ours
from fairlead.planning.route.backends import UNRESOLVED, Resolved
from fairlead.planning.route.gateways import Gateways
from fairlead.planning.route.status import Fault

__all__ = [
    "count_gateways",
    "find_carrier_fault",
    "find_relevant",
    "has_own_pods",
    "is_carried",
    "is_held_back",
    "restrict",
]

Json = Mapping[str, Any]


def is_carried(route: LLMRoute) -> bool:
    """Whether its gateways run beside engines."""
    return (route.spec.gateway or GatewaySpec()).mode is GatewayMode.SIDECAR


def count_gateways(route: LLMRoute, carriers: Sequence[Carrier]) -> int:
    """Gateways that are meant to run."""
    if is_carried(route):
        return sum(carrier.replicas for carrier in carriers)
    return (route.spec.gateway or GatewaySpec()).replicas


def restrict(route: LLMRoute, resolved: Sequence[Resolved], carriers: Sequence[Carrier]) -> tuple[Resolved, ...]:
    """The backends as gateways beside engines can use them: those of which each gateway can verify the certificate."""
    if not is_carried(route):
        return tuple(resolved)
    deployments = {backend.name: backend.deployment.name for backend in route.spec.backends if backend.deployment}
    return tuple(_restrict_one(backend, deployments.get(backend.name, ""), carriers) for backend in resolved)


def _restrict_one(backend: Resolved, deployment: str, carriers: Sequence[Carrier]) -> Resolved:
    """Which pods mount what, and what their network lets them reach, is the same for all backends of a route; so one gateway that cannot
    use a backend is enough, rather than an answer that depends on where a request ends up."""
    if backend.upstream is None:
        return backend
    wanted = backend.certificate_secret if backend.upstream.is_tls else ""
    blind = [one.name for one in carriers if wanted and one.certificate_secret != wanted]
    closed = [one.name for one in carriers if one.is_closed and one.name != deployment]
    if blind:
        message = (
            f"The gateways in pods of LLMDeployment {blind[0]} do not mount Secret {wanted}, by which {deployment} is verified."
            f" Next: name in spec.encryption.certificate of both one Secret with a certificate that is made out to"
            f" {deployment} and {blind[0]}, or spec.gateway.mode: Deployment."
        )
    elif closed and backend.not_confidential:
        message = (
            f"{backend.not_confidential}, and pods of LLMDeployment {closed[0]}, which keep what they are sent, may not reach such a one;"
            f" the gateways in them neither. Next: mend that, take spec.gateway out of LLMDeployment {closed[0]}, or"
            " spec.gateway.mode: Deployment."
        )
    else:
        return backend
    return replace(backend, upstream=None, state=UNRESOLVED, message=message)


def find_carrier_fault(route: LLMRoute, facts: RouteFacts) -> Fault | None:
    """Why nobody could be led to a gateway beside an engine."""
    if not is_carried(route):
        return None
    name = route.metadata.name
    if not facts.carriers:
        message = (
            f"No LLMDeployment of this namespace carries this gateway. Next: spec.gateway: {{routeRef: {{name: {name}}}}} in one that"
            " does, or spec.gateway.mode: Deployment here."
        )
        return Fault(Reason.GATEWAY_NOT_CARRIED, message, terminal=False)
    old = [pod for pod in facts.gateways if pod.carrier and pod.is_ready and not _is_current(pod)]
    if old and not any(pod.carrier and pod.is_ready and _is_current(pod) for pod in facts.gateways):
        message = (
            f"The gateways in pods of LLMDeployment {old[0].carrier} are of an earlier release, which could not carry out this routing,"
            " so that nobody is led to them. Next: rollout.revision: Latest there, which replaces the pods."
        )
        return Fault(Reason.GATEWAY_NOT_CARRIED, message, terminal=True)
    return None


def find_relevant(route: LLMRoute, facts: RouteFacts, observed: Observed) -> tuple[GatewayPod, ...]:
    """Gateways that requests may reach: those of the wanted mode, and those to which the Service still leads."""
    modes = {is_carried(route), _leads_to_carriers(observed, route.metadata)} - {None}
    return tuple(pod for pod in facts.gateways if bool(pod.carrier) in modes and (not pod.carrier or _is_current(pod)))


def is_held_back(route: LLMRoute, observed: Observed, gateways: Gateways) -> bool:
    """Whether the Service still leads to the gateways of the other mode, since none of the wanted ones is up to date yet."""
    leads = _leads_to_carriers(observed, route.metadata)
    return leads is not None and leads is not is_carried(route) and gateways.current == 0


def has_own_pods(route: LLMRoute, observed: Observed) -> bool:
    """Whether gateways in pods of their own are planned: of a route that had some before a Deployment without pods is left, since the
    operator may not delete any (kube/access.py)."""
    owner = route.metadata
    key = ObjectKey("Deployment", owner.namespace, gateway_name(owner.name))
    return not is_carried(route) or find_ours(observed, key, owner) is not None


def _leads_to_carriers(observed: Observed, owner: Metadata) -> bool | None:
    """Of the Service as it is; None: there is none."""
    live = find_ours(observed, ObjectKey("Service", owner.namespace, gateway_name(owner.name)), owner)
    return None if live is None else LABEL_LLMROUTE in (live["spec"].get("selector") or {})


def _is_current(pod: GatewayPod) -> bool:
    return pod.interface == str(ROUTING_INTERFACE)
