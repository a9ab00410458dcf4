"""ConfigMaps that sidecars in application pods read: the route as they serve it.

They are written in one step and confirmed by nobody: application pods are neither asked nor touched, and their kubelets project a change
within a minute or so. Listeners stay as they are as long as those of the gateways do, since another one ends streams (law 8).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from fairlead.api.names import ANNOTATION_REVISION, gateway_name, gateway_part_name
from fairlead.api.resource import LLMRoute
from fairlead.api.route import GatewaySpec
from fairlead.facts.observed import ObjectKey, Observed, OperatorFacts
from fairlead.gateway.envoy.files import CLUSTERS_FILE, EGRESS_FILE, PUBLIC_FILE, ROUTING_INTERFACE, is_untouched
from fairlead.gateway.envoy.sidecar import LISTENERS_FILE, SIDECAR_INTERFACE, render_sidecar_files
from fairlead.gateway.sidecar import make_gateway_upstream, make_sidecar_table
from fairlead.gateway.table import RouteTable
from fairlead.planning.ownership import find_ours
from fairlead.planning.route.certificate import certificate_secret
from fairlead.planning.route.files import fits
from fairlead.planning.route.metadata import make_metadata
from fairlead.planning.route.network import service_port

__all__ = [
    "SIDECAR_PARTS",
    "make_for_sidecars",
    "make_sidecar_maps",
    "narrow_sidecar_maps",
    "serves_sidecars",
    "sidecar_part_name",
]

Json = dict[str, Any]
Files = Mapping[str, str]
#: Part -> the file that it holds, in the order in which they are applied: listeners need the others.
SIDECAR_PARTS: Final = {
    "clusters": CLUSTERS_FILE,
    "egress": EGRESS_FILE,
    "routes": PUBLIC_FILE,
    "listeners": LISTENERS_FILE,
}


def sidecar_part_name(route: str, part: str) -> str:
    """Name of a ConfigMap. The number says what its files take for granted of the pods that read them."""
    return gateway_part_name(route, f"sidecar{SIDECAR_INTERFACE}-{part}")


def serves_sidecars(route: LLMRoute) -> bool:
    """Whether it is published for them."""
    return (route.spec.gateway or GatewaySpec()).application_sidecars


def make_for_sidecars(
    route: LLMRoute, table: RouteTable, operator: OperatorFacts, *, heeds_limits: bool = True
) -> RouteTable:
    """As `make_sidecar_table`, with this route's gateway."""
    name = f"{gateway_name(route.metadata.name)}.{route.metadata.namespace}.svc"
    # With the dot at its end the resolver asks once, not in every search domain first.
    host, is_tls = f"{name}.{operator.cluster_domain}.", certificate_secret(route) is not None
    gateway = make_gateway_upstream(host, service_port(route), name, is_tls=is_tls)
    return make_sidecar_table(table, gateway, heeds_limits=heeds_limits)


def make_sidecar_maps(route: LLMRoute, table: RouteTable, observed: Observed, *, is_pinned: bool) -> list[Json]:
    """`table`: of `make_for_sidecars`; `is_pinned`: gateways keep an earlier release's listeners. For a route that serves no sidecars any
    more the ConfigMaps become empty: the operator may delete none."""
    if not serves_sidecars(route):
        return [_make_map(route, part, {}) for part in SIDECAR_PARTS if _find(route, part, observed) is not None]
    files = render_sidecar_files(table)
    recorded = _find(route, "listeners", observed)
    if is_pinned and recorded is not None and _is_understood(recorded):
        files[LISTENERS_FILE] = recorded["data"][LISTENERS_FILE]
    return [_make_map(route, part, {file: files[file]}) for part, file in SIDECAR_PARTS.items()]


def narrow_sidecar_maps(route: LLMRoute, narrow: Callable[..., str], observed: Observed) -> list[Json]:
    """What runs, less what a spec that is not accepted no longer permits; nothing where nothing runs."""
    live = _find(route, "routes", observed)
    text = str(((live or {}).get("data") or {}).get(PUBLIC_FILE, ""))
    if not text or not is_untouched(text):
        return []
    left = {PUBLIC_FILE: narrow(text)}
    return [_make_map(route, "routes", left if fits(left) else {PUBLIC_FILE: narrow(text, shorten=False)})]


def _find(route: LLMRoute, part: str, observed: Observed) -> Mapping[str, Any] | None:
    owner = route.metadata
    return find_ours(observed, ObjectKey("ConfigMap", owner.namespace, sidecar_part_name(owner.name, part)), owner)


def _is_understood(listeners: Mapping[str, Any]) -> bool:
    """Whether they are as a release wrote them, and can carry out what this one publishes."""
    said = (listeners["metadata"].get("annotations") or {}).get(ANNOTATION_REVISION)
    text = (listeners.get("data") or {}).get(LISTENERS_FILE)
    return said == str(ROUTING_INTERFACE) and isinstance(text, str) and is_untouched(text)


def _make_map(route: LLMRoute, part: str, files: Files) -> Json:
    annotations = {ANNOTATION_REVISION: str(ROUTING_INTERFACE)} if part == "listeners" and files else None
    name = sidecar_part_name(route.metadata.name, part)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": make_metadata(route.metadata, name, annotations),
        "data": dict(files),
    }
