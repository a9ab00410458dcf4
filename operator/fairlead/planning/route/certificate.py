"""TLS between clients and gateway: which Secret has the certificate, and what holds while it cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from fairlead.api.conditions import Reason
from fairlead.api.names import ANNOTATION_TLS, LABEL_USE, USE_GATEWAY_TLS
from fairlead.api.resource import LLMRoute
from fairlead.facts.route import RouteFacts
from fairlead.gateway.envoy import GatewaySettings
from fairlead.planning.route.status import Fault

__all__ = ["CERTIFICATE_VOLUME", "Certificate", "certificate_secret", "make_settings", "read_certificate"]

CERTIFICATE_VOLUME: Final = "certificate"


@dataclass(frozen=True, slots=True)
class Certificate:
    """`problem`: why the Secret cannot be used, and what mends it; "" if it can, or if there is no TLS. `fault`: the same for a route
    whose gateway does not run with it yet."""

    problem: str = ""
    fault: Fault | None = None


def certificate_secret(route: LLMRoute) -> str | None:
    """Its name; None without TLS."""
    tls = route.spec.gateway.tls if route.spec.gateway is not None else None
    return tls.secret_name if tls is not None else None


def make_settings(route: LLMRoute, settings: GatewaySettings) -> GatewaySettings:
    """The same, with or without TLS."""
    return replace(settings, is_tls=certificate_secret(route) is not None)


def read_certificate(route: LLMRoute, facts: RouteFacts, deployment: Mapping[str, Any] | None) -> Certificate:
    """`deployment`: the gateway's as it is. One that has the certificate goes on with it when the Secret is taken away; without, no
    gateway is started and none is changed, so that nothing is served in the open where TLS is asked for."""
    name = certificate_secret(route)
    secret = facts.secrets.get(name) if name is not None else None
    label = f"kubectl label secret {name} {LABEL_USE}={USE_GATEWAY_TLS}"
    if name is None:
        return Certificate()
    if secret is None or secret.use != USE_GATEWAY_TLS:
        problem = (
            f"spec.gateway.tls: Secret {name} is not there, or is not labelled {LABEL_USE}={USE_GATEWAY_TLS}. Next: create it, then"
            f" {label}; with cert-manager the label goes into spec.secretTemplate.labels of the Certificate."
        )
    elif not secret.is_tls:
        problem = (
            f"spec.gateway.tls: Secret {name} is not of type kubernetes.io/tls with tls.crt and tls.key. Next: delete it, then"
            f" kubectl create secret tls {name} --cert=… --key=… && {label}."
        )
    else:
        return Certificate()
    if _has(deployment, name):
        return Certificate(problem)
    # Objects of one apply come in any order, and an issuer needs a moment; the type of a Secret that is there cannot change.
    return Certificate(
        problem, Fault(Reason.REF_NOT_RESOLVED, problem, terminal=secret is not None and not secret.is_tls)
    )


def _has(deployment: Mapping[str, Any] | None, secret: str) -> bool:
    template = ((deployment or {}).get("spec") or {}).get("template") or {}
    return bool(((template.get("metadata") or {}).get("annotations") or {}).get(ANNOTATION_TLS) == secret)
