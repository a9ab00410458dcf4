"""The Envoy of an application pod: what it starts with, what it answers while its route is not there, and its route's files.

It starts with arguments and annotations of its pod alone, so that a pod starts whatever is published. All that a release may change,
listeners included, comes in the route's ConfigMaps: `SIDECAR_INTERFACE` is in their names and says what they take for granted of the
pod (its Envoy, its bootstrap, its ports, the names of its files). Whoever changes that publishes under both numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import orjson

from fairlead.gateway.envoy.bootstrap import make_bootstrap
from fairlead.gateway.envoy.clients import AUTHENTICATION_FILE, render_authentication
from fairlead.gateway.envoy.clusters import GATEWAY_AUTHORITIES
from fairlead.gateway.envoy.files import CLUSTERS_FILE, LIMIT_FILES, render_files
from fairlead.gateway.envoy.replies import make_error_response
from fairlead.gateway.envoy.settings import GatewaySettings
from fairlead.gateway.envoy.words import Json, make_discovery, make_filter, swapped_path, typed
from fairlead.gateway.table import RouteTable

__all__ = [
    "LISTENERS_FILE",
    "SIDECAR_INTERFACE",
    "SIDECAR_SETTINGS",
    "make_fallback_files",
    "make_sidecar_bootstrap",
    "render_sidecar_files",
]

SIDECAR_INTERFACE: Final = 1
_DIRECTORY: Final = "/etc/fairlead/gateway"
#: Only the pod itself reaches it. Ports that hardly any application has.
SIDECAR_SETTINGS: Final = GatewaySettings(
    address="127.0.0.1",
    port=4285,
    status_port=4286,
    bootstrap_directory=_DIRECTORY,
    routing_directory=_DIRECTORY,
    clients_directory=_DIRECTORY,
    admin_socket="/run/fairlead/admin.sock",
    is_sidecar=True,
)
LISTENERS_FILE: Final = SIDECAR_SETTINGS.listeners_file
_LISTENER: Final = "envoy.config.listener.v3.Listener"
_CLUSTER: Final = "envoy.config.cluster.v3.Cluster"
_SDS: Final = "envoy.extensions.transport_sockets.tls.v3.Secret"
_HCM: Final = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def make_sidecar_bootstrap(settings: GatewaySettings = SIDECAR_SETTINGS) -> str:
    """What its --config-yaml says. Its status port is that of the pod, for monitoring."""
    return _dump(make_bootstrap(replace(settings, address="0.0.0.0")))  # noqa: S104


def render_sidecar_files(table: RouteTable, settings: GatewaySettings = SIDECAR_SETTINGS) -> dict[str, str]:
    """What the ConfigMaps hold. `table`: of `make_sidecar_table`."""
    files = render_files(table, settings)
    routing = {name: text for name, text in files.routing.items() if name not in LIMIT_FILES}
    return {**routing, settings.listeners_file: files.bootstrap[settings.listeners_file]}


def make_fallback_files(
    route: str, settings: GatewaySettings = SIDECAR_SETTINGS, *, has_authorities: bool
) -> Mapping[str, str]:
    """The files without which Envoy does not start, as they are without the route, and who may sign for the gateway: whoever stands in
    ca.crt beside it, or whom the image trusts."""
    return {
        LISTENERS_FILE: _dump(make_discovery(_LISTENER, "none", _make_unavailable(route, settings))),
        CLUSTERS_FILE: _dump(make_discovery(_CLUSTER, "none")),
        AUTHENTICATION_FILE: render_authentication({}, "none", anonymous=False),
        f"{GATEWAY_AUTHORITIES}.json": _make_authorities(settings, has_authorities=has_authorities),
    }


def _make_authorities(settings: GatewaySettings, *, has_authorities: bool) -> str:
    directory = settings.routing_directory
    context: Json = {"trusted_ca": {"filename": settings.default_authorities}}
    if has_authorities:
        trusted = {"filename": swapped_path(directory, "ca.crt")}
        context = {"trusted_ca": trusted, "watched_directory": {"path": directory}}
    secret = {"name": GATEWAY_AUTHORITIES, "validation_context": context}
    return _dump(make_discovery(_SDS, "1", secret))


def _make_unavailable(route: str, settings: GatewaySettings) -> Json:
    """The public listener, which answers 503 to everything. It has the name of the real one, which takes its place."""
    message = (
        f"LLMRoute {route} is not there, or not published for sidecars (spec.gateway.applicationSidecars)."
        f" Next: kubectl get llmrt {route}."
    )
    answer = make_error_response(503, message, "server_error", "no_route")
    routes = [{"match": {"prefix": "/"}, **answer}]
    manager = typed(
        _HCM,
        stat_prefix="public",
        route_config={"name": "none", "virtual_hosts": [{"name": "none", "domains": ["*"], "routes": routes}]},
        http_filters=[make_filter("router", "envoy.extensions.filters.http.router.v3.Router")],
    )
    return {
        "name": "public",
        "address": {"socket_address": {"address": settings.address, "port_value": settings.port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def _dump(value: Json) -> str:
    return orjson.dumps(value).decode()
