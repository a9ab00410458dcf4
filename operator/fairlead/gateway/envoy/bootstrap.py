"""The bootstrap: what an Envoy process is started with. It depends on ports and paths only, and a change of it replaces pods.

Envoy's admin interface is a socket in a directory of the container's own. What others need of it, the versions that are
loaded, how many hosts of each backend are healthy, for whom requests wait, and the metrics, passes through a third listener that
serves exactly these paths.
"""

from __future__ import annotations

from typing import Final

from fairlead.api.patterns import MAX_PROGRAM
from fairlead.gateway.envoy.settings import GatewaySettings
from fairlead.gateway.envoy.words import Json, file_source, make_filter, typed

__all__ = ["DURATIONS_MS", "FIRST_TOKEN_MS", "HELD_STATS", "LOADED_STATS", "make_bootstrap", "make_status_listener"]

_HCM: Final = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER: Final = "envoy.extensions.filters.http.router.v3.Router"
#: Which stats say what is loaded and who can be reached, as an expression for the admin interface.
LOADED_STATS: Final = (
    "^(cluster_manager.cds|listener_manager.lds|http.(public|egress).rds.(public|egress)"
    "|extension_config_discovery.http_filter.(authentication|limit_requests|limit_tokens)|sds.*).(version_text|update_rejected|update_failure)$"
    "|^cluster.be~[^.]*.membership_healthy$"
)
#: Which say for whom requests wait: how many are under way by attempts that may wait, and how many found no pod so far.
HELD_STATS: Final = "^cluster.((be|pin)~[^.]*.upstream_cx_none_healthy|to~[0-9a-f]*.[0-9a-f]*-[0-9a-f]*.[^.]*.local.upstream_rq_active)$"
#: Buckets of the gateway's own histograms.
DURATIONS_MS: Final = [50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 120000, 300000, 600000]
FIRST_TOKEN_MS: Final = [10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000]


def make_bootstrap(settings: GatewaySettings) -> Json:
    """Node, admin, limits, and where listeners and clusters are read from."""
    return {
        "node": {"id": "fairlead-gateway", "cluster": "fairlead-gateway"},
        "admin": {"address": {"pipe": {"path": settings.admin_socket}}},
        "bootstrap_extensions": [
            {
                "name": "envoy.bootstrap.internal_listener",
                "typed_config": typed("envoy.extensions.bootstrap.internal_listener.v3.InternalListener"),
            }
        ],
        "static_resources": {
            "listeners": [make_status_listener(settings)],
            "clusters": [_make_admin_cluster(settings)],
        },
        "dynamic_resources": {
            "lds_config": file_source(settings.bootstrap_directory, settings.listeners_file),
            "cds_config": file_source(settings.routing_directory, "cds.json"),
        },
        # Envoy takes 100 instructions by default; how many users' patterns may have is said where they are refused.
        "layered_runtime": {
            "layers": [{"name": "fairlead", "static_layer": {"re2.max_program_size.error_level": 2 * MAX_PROGRAM}}]
        },
        "stats_config": {
            "histogram_bucket_settings": [
                {"match": {"prefix": "fairlead.time_to_first_token"}, "buckets": FIRST_TOKEN_MS},
                {"match": {"prefix": "fairlead.request_duration"}, "buckets": DURATIONS_MS},
            ]
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": typed(
                        "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                        max_active_downstream_connections=20_000,
                    ),
                }
            ]
        },
    }


def make_status_listener(settings: GatewaySettings) -> Json:
    """GET /generation: what is loaded. GET /held: for whom requests wait (not of sidecars: where one waits is the gateway). GET /metrics:
    Prometheus' text. Anything else is 404."""
    routes = [
        _make_admin_route("/generation", f"/stats?format=json&filter={LOADED_STATS}"),
        *([] if settings.is_sidecar else [_make_admin_route("/held", f"/stats?format=json&filter={HELD_STATS}")]),
        _make_admin_route("/metrics", "/stats/prometheus?usedonly"),
        {"match": {"prefix": "/"}, "direct_response": {"status": 404}},
    ]
    manager = typed(
        _HCM,
        stat_prefix="status",
        codec_type="HTTP1",
        normalize_path=True,
        route_config={"name": "status", "virtual_hosts": [{"name": "status", "domains": ["*"], "routes": routes}]},
        http_filters=[make_filter("envoy.filters.http.router", _ROUTER)],
    )
    return {
        "name": "status",
        "address": {"socket_address": {"address": settings.address, "port_value": settings.status_port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def _make_admin_route(path: str, admin_path: str) -> Json:
    return {
        "match": {
            "path": path,
            "headers": [{"name": ":method", "string_match": {"exact": "GET"}}],
        },
        "route": {
            "cluster": "admin",
            "timeout": "5s",
            # The whole of it is replaced, with a query if there was one: no other admin path can be asked for.
            "path_rewrite": admin_path,
        },
    }


def _make_admin_cluster(settings: GatewaySettings) -> Json:
    return {
        "name": "admin",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "admin",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": settings.admin_socket}}}}]}],
        },
    }
