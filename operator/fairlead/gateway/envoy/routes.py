"""The public routes: one look-up by chain, and the data that the classifier looks its answers up in.

A request without a chain matches nothing and is denied: whatever went wrong before, nothing is sent anywhere.
"""

from __future__ import annotations

from typing import Final

from fairlead.gateway.envoy.clusters import attempt_cluster
from fairlead.gateway.envoy.egress import CLASS_HEADER, SKIP_HEADER
from fairlead.gateway.envoy.listeners import KEY
from fairlead.gateway.envoy.replies import DIRECT_JSON, make_error_response
from fairlead.gateway.envoy.settings import GatewaySettings
from fairlead.gateway.envoy.words import NAMESPACE, Json, duration, json_body, set_header, typed
from fairlead.gateway.lookup import MODELS_CHAIN, make_lookup
from fairlead.gateway.lua import pack_lookup
from fairlead.gateway.table import Chain, Profile, RouteTable

__all__ = ["make_public_routes", "make_unavailable"]

_PRIORITY_GROUPS: Final = "envoy.extensions.router.cluster_specifiers.priority_group.v3.PriorityGroupClusterSpecifier"
_RETRY_ON: Final = (
    "gateway-error,connect-failure,refused-stream,reset-before-request,reset,retriable-status-codes,retriable-headers"
)
_RETRIED_STATUSES: Final = (408, 429, 500, 502, 503, 504, 529)


def make_public_routes(table: RouteTable, settings: GatewaySettings) -> Json:
    """The whole route configuration."""
    chains = {chain.id: chain for chain in table.chains.values()}
    actions: dict[str, Json] = {}
    for chain_id, chain in sorted(chains.items()):
        actions[f"{chain_id}|true"] = _act(_make_route(table, chain, is_stream=True))
        actions[f"{chain_id}|false"] = _act(_make_route(table, chain, is_stream=False))
    for profile in table.profiles:
        actions[f"{MODELS_CHAIN}|{profile.id}"] = _act(_make_models(table, profile))
    return {
        "name": "public",
        "max_direct_response_body_size_bytes": 1_048_576,
        "virtual_hosts": [
            {
                "name": "public",
                "domains": ["*"],
                "request_body_buffer_limit": settings.max_body_bytes,
                "response_headers_to_remove": [SKIP_HEADER],
                "typed_per_filter_config": {
                    "classify": typed(
                        "envoy.extensions.filters.http.lua.v3.LuaPerRoute",
                        filter_context=pack_lookup(make_lookup(table)),
                    )
                },
                "matcher": {
                    "matcher_tree": {
                        "input": {
                            "name": "key",
                            "typed_config": typed(
                                "envoy.extensions.matching.common_inputs.network.v3.FilterStateInput", key=KEY
                            ),
                        },
                        "exact_match_map": {"map": actions},
                    },
                    "on_no_match": _act(
                        {
                            "name": "denied",
                            **make_error_response(
                                403,
                                "This request may not be sent anywhere.",
                                "permission_error",
                                "not_classified",
                            ),
                        }
                    ),
                },
            }
        ],
    }


def _act(route: Json) -> Json:
    action = typed("envoy.config.route.v3.Route", match={"prefix": "/"}, **route)
    return {"action": {"name": "route", "typed_config": action}}


def _make_route(table: RouteTable, chain: Chain, *, is_stream: bool) -> Json:
    name = f"{chain.model}/{chain.data_class.value}"
    if not chain.groups:
        return _unavailable(name)
    groups = [
        {
            "name": f"attempt{number}",
            "clusters": [
                {"cluster_name": attempt_cluster(weighted.attempt), "weight": weighted.weight} for weighted in group
            ],
        }
        for number, group in enumerate(chain.groups, 1)
    ]
    timeouts = chain.timeouts
    idle = duration(timeouts.idle_s)
    route: Json = {
        "inline_cluster_specifier_plugin": {
            "extension": {
                "name": "envoy.router.cluster_specifier_plugin.priority_group",
                "typed_config": typed(_PRIORITY_GROUPS, priority_groups=groups),
            }
        },
        "auto_host_rewrite": True,
        "timeout": "0s" if is_stream else duration(timeouts.request_s),
        "idle_timeout": idle if is_stream else duration(timeouts.request_s),
        "retry_policy": _make_retry(table, chain, is_stream=is_stream),
    }
    return {
        "name": name,
        "route": route,
        "request_headers_to_add": [set_header(CLASS_HEADER, chain.data_class.value)],
        "response_headers_to_add": [set_header(CLASS_HEADER, chain.data_class.value)],
        "metadata": {"filter_metadata": {NAMESPACE: {"model": chain.model, "class": chain.data_class.value}}},
    }


def make_unavailable(name: str) -> Json:
    """The action for requests that are permitted and for which nobody is there."""
    return _act(_unavailable(name))


def _unavailable(name: str) -> Json:
    message = "No backend of this model that may take this request is there. Next: try again, or ask whoever runs the gateway."
    return {"name": name, **make_error_response(503, message, "server_error", "no_backend")}


def _make_retry(table: RouteTable, chain: Chain, *, is_stream: bool) -> Json:
    """One try per group. A stream is tried elsewhere when its headers do not come in time; after them nothing can be tried again."""
    tried = {attempt.backend for attempt in chain.attempts}
    own = {status for upstream in table.upstreams if upstream.name in tried for status in upstream.failing_statuses}
    retry: Json = {
        "retry_on": _RETRY_ON,
        "retriable_status_codes": sorted({*_RETRIED_STATUSES, *own}),
        # A backend that does not have this endpoint says so by it; another one of the chain may have it.
        "retriable_headers": [{"name": SKIP_HEADER, "present_match": True}],
        "num_retries": len(chain.groups) - 1,
        "refresh_cluster_on_retry": True,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
    }
    if is_stream:
        retry["per_try_timeout"] = duration(chain.timeouts.response_headers_s)
        retry["per_try_idle_timeout"] = duration(chain.timeouts.idle_s)
    return retry


def _make_models(table: RouteTable, profile: Profile) -> Json:
    """What GET /v1/models answers to callers of this profile: the models of which they may reach something."""
    permitted = set(profile.verdicts.values())
    names = [name for name in table.models if any((name, verdict) in table.chains for verdict in permitted)]
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "fairlead"} for name in names]
    return {
        "name": f"models/{profile.id}",
        "direct_response": {"status": 200, "body": json_body({"object": "list", "data": data})},
        "response_headers_to_add": DIRECT_JSON,
    }
