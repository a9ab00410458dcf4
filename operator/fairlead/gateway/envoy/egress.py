"""The egress routes: one virtual host per attempt. The second wall: endpoint and class are checked again, per backend.

What the public side decided comes as a header that it sets itself. A request for a backend that may not take its class is refused
here, whatever led it here.
"""

from __future__ import annotations

from typing import Final

from fairlead.api.route import LLMAccess
from fairlead.gateway.envoy.clusters import attempt_host, attempts_of, upstream_cluster
from fairlead.gateway.envoy.replies import make_error_response
from fairlead.gateway.envoy.settings import GatewaySettings
from fairlead.gateway.envoy.words import Json, set_header
from fairlead.gateway.lookup import ENDPOINTS
from fairlead.gateway.table import Attempt, RouteTable, Upstream

__all__ = ["BACKEND_HEADER", "CLASS_HEADER", "SKIP_HEADER", "make_egress_routes"]

CLASS_HEADER: Final = "x-fairlead-class"
BACKEND_HEADER: Final = "x-fairlead-backend"
#: On the answer that a backend does not have an endpoint: try the next one. Never taken from a backend.
SKIP_HEADER: Final = "x-fairlead-skip"
_LUA: Final = "envoy.filters.http.lua"


def make_egress_routes(table: RouteTable, settings: GatewaySettings) -> Json:
    """The whole route configuration."""
    upstreams = {upstream.name: upstream for upstream in table.upstreams}
    hosts = [_make_host(attempt, upstreams[attempt.backend], settings) for attempt in attempts_of(table)]
    return {"name": "egress", "virtual_hosts": sorted(hosts, key=lambda host: str(host["name"]))}


def _make_host(attempt: Attempt, upstream: Upstream, settings: GatewaySettings) -> Json:
    host = attempt_host(attempt)
    return {
        "name": host,
        "domains": [host],
        "request_body_buffer_limit": settings.max_body_bytes,
        "response_headers_to_add": [set_header(BACKEND_HEADER, upstream.name)],
        "routes": [
            *(_make_route(path, to, attempt, upstream) for path, to in sorted(upstream.paths.items())),
            *(_make_missing(path) for path in ENDPOINTS if path not in upstream.paths),
            {
                "match": {"prefix": "/"},
                # Not retried: what is refused here is refused for good.
                **make_error_response(
                    403, "This backend may not take this request.", "permission_error", "backend_denied"
                ),
            },
        ],
    }


def _make_route(path: str, to: str, attempt: Attempt, upstream: Upstream) -> Json:
    classes = [{"exact": data_class.value} for data_class in upstream.classes]
    action: Json = {
        "cluster": upstream_cluster(upstream),
        "timeout": "0s",
        "host_rewrite_literal": upstream.authority or upstream.host,
        "prefix_rewrite": to,
    }
    if upstream.access is LLMAccess.LOCAL:
        # Another pod of the same deployment, when one has just gone.
        action["retry_policy"] = {
            "retry_on": "connect-failure,refused-stream,reset-before-request",
            "num_retries": 2,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                    },
                }
            ],
            "host_selection_retry_max_attempts": 3,
        }
    route: Json = {
        "match": {
            "path": path,
            "headers": [
                {"name": ":method", "string_match": {"exact": "POST"}},
                {"name": CLASS_HEADER, "string_match": _any_of(classes)},
            ],
        },
        "metadata": {"filter_metadata": {_LUA: _lua_data(attempt, upstream)}},
        "route": action,
        "request_headers_to_remove": [CLASS_HEADER],
        "response_headers_to_remove": [SKIP_HEADER],
    }
    if upstream.headers:
        route["request_headers_to_add"] = [set_header(name, value) for name, value in upstream.headers]
    return route


def _make_missing(path: str) -> Json:
    """For an endpoint that the gateway has and this backend has not."""
    message = "No backend of this model has this endpoint."
    route = make_error_response(404, message, "invalid_request_error", "unsupported_endpoint")
    headers = [*route.pop("response_headers_to_add"), set_header(SKIP_HEADER, "endpoint")]
    return {"match": {"path": path}, **route, "response_headers_to_add": headers}


def _any_of(classes: list[Json]) -> Json:
    return {"safe_regex": {"regex": "|".join(entry["exact"] for entry in classes) or "[^\\s\\S]"}}


def _lua_data(attempt: Attempt, upstream: Upstream) -> Json:
    return {
        "model": attempt.model,
        "usage": "true" if upstream.has_stream_usage else "false",
        "access": upstream.access.value,
    }
