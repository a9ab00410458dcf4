"""What a gateway beside an engine has until the files of its route are there: all it answers is 503, and nothing reaches anybody.

Envoy does not start without the files that it subscribes to, and an engine must not wait for a route. Each of these files is closed by
itself, since the route's come one volume after the other.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from fairlead.gateway.envoy.files import CLUSTERS_FILE, EGRESS_FILE, PUBLIC_FILE, dump_resources, version_of
from fairlead.gateway.envoy.limits import LIMIT_TYPE, Measure, limit_file
from fairlead.gateway.envoy.loaded import AUTHENTICATION
from fairlead.gateway.envoy.replies import make_error_response
from fairlead.gateway.envoy.words import Json, make_discovery, typed

__all__ = ["is_unrouted", "render_unrouted_authentication", "render_unrouted_routing"]

#: Of who is let in.
_VERSION = "unrouted"
_ROUTES = "envoy.config.route.v3.RouteConfiguration"
_EXTENSION = "envoy.config.core.v3.TypedExtensionConfig"


def is_unrouted(loaded: Mapping[str, str]) -> bool:
    """Whether a gateway that has loaded these versions (file -> version) sends nothing anywhere."""
    return loaded.get(AUTHENTICATION) == _VERSION or loaded.get(PUBLIC_FILE) == version_of(
        render_unrouted_routing()[PUBLIC_FILE]
    )


def render_unrouted_routing() -> dict[str, str]:
    """By name, the files that a route's ConfigMaps replace."""
    public: Json = {
        "name": "public",
        "virtual_hosts": [{"name": "public", "domains": ["*"], "routes": [_make_refusal()]}],
    }
    files = {
        PUBLIC_FILE: dump_resources(_ROUTES, [public]),
        EGRESS_FILE: dump_resources(_ROUTES, [{"name": "egress", "virtual_hosts": []}]),
        CLUSTERS_FILE: dump_resources("envoy.config.cluster.v3.Cluster", []),
    }
    return files | {limit_file(measure): dump_resources(_EXTENSION, [_make_no_limit(measure)]) for measure in Measure}


def render_unrouted_authentication() -> str:
    """The file that a route's Secret replaces. Whoever asks is told to try again, not that his key is wrong."""
    abort = typed(
        "envoy.extensions.filters.http.fault.v3.HTTPFault",
        abort={"http_status": 503, "percentage": {"numerator": 100, "denominator": "HUNDRED"}},
    )
    action = typed(
        "envoy.extensions.filters.http.composite.v3.ExecuteFilterAction",
        typed_config={"name": "fault", "typed_config": abort},
    )
    config = typed(
        "envoy.extensions.common.matching.v3.ExtensionWithMatcher",
        extension_config={
            "name": "composite",
            "typed_config": typed("envoy.extensions.filters.http.composite.v3.Composite"),
        },
        xds_matcher={"on_no_match": {"action": {"name": "composite", "typed_config": action}}},
    )
    resource: Json = {"name": "authentication", "typed_config": config}
    return orjson.dumps(make_discovery(_EXTENSION, _VERSION, resource)).decode()


def _make_refusal() -> Json:
    message = "The route of this gateway is not there. Next: try again, or ask whoever runs the gateway."
    off = typed("envoy.extensions.filters.http.lua.v3.LuaPerRoute", disabled=True)
    return {
        "match": {"prefix": "/"},
        # They would look for tables that are not there.
        "typed_per_filter_config": {"classify": off, "settle": off},
        **make_error_response(503, message, "server_error", "service_unavailable"),
    }


def _make_no_limit(measure: Measure) -> Json:
    word = measure.value.removeprefix("limit_")
    return {"name": measure.value, "typed_config": typed(LIMIT_TYPE, stat_prefix=word)}
