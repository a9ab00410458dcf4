"""The public routes: one look-up by chain, and the data that the classifier looks its answers up in.

A request without a chain matches nothing and is denied: whatever went wrong before, nothing is sent anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

import orjson

from fairlead.gateway.envoy.clusters import attempt_cluster, held_of
from fairlead.gateway.envoy.egress import AFFINITY_HEADER, CLASS_HEADER, IDLE_HEADER, SKIP_HEADER
from fairlead.gateway.envoy.hold import HOLD_HEADERS
from fairlead.gateway.envoy.listeners import KEY
from fairlead.gateway.envoy.patterns import FILTER as PATTERNS
from fairlead.gateway.envoy.patterns import make_route_patterns
from fairlead.gateway.envoy.replies import DIRECT_JSON, make_error_response
from fairlead.gateway.envoy.settings import GatewaySettings
from fairlead.gateway.envoy.words import NAMESPACE, Json, duration, json_body, set_header, typed
from fairlead.gateway.lookup import MODELS_CHAIN, make_lookup
from fairlead.gateway.lua import pack_lookup
from fairlead.gateway.patterns import name_patterns
from fairlead.gateway.table import Chain, Profile, RouteTable

__all__ = ["make_plugins", "make_public_routes", "make_unavailable", "name_groups"]

_PRIORITY_GROUPS: Final = "envoy.extensions.router.cluster_specifiers.priority_group.v3.PriorityGroupClusterSpecifier"
#: "5xx" is whatever is no answer, too: refused, reset, too late.
_RETRY_ON: Final = "5xx,retriable-status-codes,retriable-headers"
_RETRIED_STATUSES: Final = (408, 429)
#: Short, since the next attempt goes to somebody else: over a dozen attempts long ones would add up to seconds.
_BACK_OFF_S: Final = 0.005
_MAX_BACK_OFF_S: Final = 10 * _BACK_OFF_S  # Envoy's default


def make_public_routes(table: RouteTable, settings: GatewaySettings) -> Json:
    """The whole route configuration."""
    chains = {chain.route: chain for chain in table.chains.values()}
    actions: dict[str, Json] = {}
    for name, chain in sorted(chains.items()):
        actions[f"{name}|true"] = _act(_make_route(table, chain, is_stream=True))
        actions[f"{name}|false"] = _act(_make_route(table, chain, is_stream=False))
    for profile in table.profiles:
        actions[f"{MODELS_CHAIN}|{profile.id}"] = _act(_make_models(table, profile))
    return {
        "name": "public",
        "max_direct_response_body_size_bytes": 1_048_576,
        "cluster_specifier_plugins": make_plugins(_groups_of(chain) for chain in chains.values() if chain.groups),
        "virtual_hosts": [
            {
                "name": "public",
                "domains": ["*"],
                "request_body_buffer_limit": settings.max_body_bytes,
                "response_headers_to_remove": [SKIP_HEADER, *(HOLD_HEADERS if held_of(table) else ())],
                # What the classifier found. Without it the class is empty or "-", which no backend takes, and the affinity not set.
                "request_headers_to_add": [
                    set_header(CLASS_HEADER, f"%DYNAMIC_METADATA({NAMESPACE}:class)%"),
                    set_header(AFFINITY_HEADER, f"%DYNAMIC_METADATA({NAMESPACE}:affinity)%"),
                ],
                "response_headers_to_add": [set_header(CLASS_HEADER, f"%REQ({CLASS_HEADER})%")],
                "typed_per_filter_config": _make_filters(table),
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


def _make_filters(table: RouteTable) -> Json:
    """What the filters know of this route: the classifier's tables, and the users' patterns if there are any."""
    per_route = "envoy.extensions.filters.http.lua.v3.LuaPerRoute"
    filters: Json = {"classify": typed(per_route, filter_context=pack_lookup(make_lookup(table)))}
    patterns = name_patterns(table.policy.detectors)
    return filters | ({PATTERNS: make_route_patterns(patterns)} if patterns else {})


def _act(route: Json) -> Json:
    action = typed("envoy.config.route.v3.Route", match={"prefix": "/"}, **route)
    return {"action": {"name": "route", "typed_config": action}}


def _make_route(table: RouteTable, chain: Chain, *, is_stream: bool) -> Json:
    if not chain.groups:
        return _unavailable(chain.model)
    timeouts = chain.timeouts
    route: Json = {
        "cluster_specifier_plugin": name_groups(_groups_of(chain)),
        "auto_host_rewrite": True,
        "timeout": "0s" if is_stream else duration(timeouts.request_s),
        "idle_timeout": duration(_longest_pause_s(chain) if is_stream else timeouts.request_s),
        "retry_policy": _make_retry(table, chain, is_stream=is_stream),
    }
    if not is_stream:
        return {"route": route}
    return {"route": route, "request_headers_to_add": [set_header(IDLE_HEADER, duration(timeouts.idle_s))]}


def _groups_of(chain: Chain) -> list[Json]:
    """Envoy draws one number per request and takes it in each group modulo the sum of its weights (PriorityGroupRouteEntry), so what
    `Chain` says of one draw holds."""
    return [
        {
            "name": str(number),
            "clusters": [
                {"cluster_name": attempt_cluster(weighted.attempt), "weight": weighted.weight} for weighted in group
            ],
        }
        for number, group in enumerate(chain.groups, 1)
    ]


def name_groups(groups: Sequence[Json]) -> str:
    """By what they are: both versions of a chain, and chains that differ by their class only, share them."""
    return blake2b(orjson.dumps(groups), digest_size=8).hexdigest()


def make_plugins(many: Iterable[Sequence[Json]]) -> list[Json]:
    """What chooses the cluster for each attempt, once for each different list of groups; routes refer to it by name."""
    by_name = {name_groups(groups): groups for groups in many}
    return [
        {"extension": {"name": name, "typed_config": typed(_PRIORITY_GROUPS, priority_groups=list(groups))}}
        for name, groups in sorted(by_name.items())
    ]


def _longest_pause_s(chain: Chain) -> float:
    """To the client a stream is idle while one backend after the other is tried, so this bounds all of that: were it `idle` itself, it
    would end the failover before the last backends have their turn. What one backend may be silent for is bounded by itself, before
    its headers per try, and after them on the egress side (IDLE_HEADER)."""
    timeouts = chain.timeouts
    return len(chain.groups) * (timeouts.response_headers_s + _MAX_BACK_OFF_S) + sum(chain.waits_s) + timeouts.idle_s


def make_unavailable(name: str) -> Json:
    """The action for requests that are permitted and for which nobody is there."""
    return _act(_unavailable(name))


def _unavailable(name: str) -> Json:
    message = "No backend of this model that may take this request is there. Next: try again, or ask whoever runs the gateway."
    return {"name": name, **make_error_response(503, message, "server_error", "no_backend")}


def _make_retry(table: RouteTable, chain: Chain, *, is_stream: bool) -> Json:
    """One try per group. A stream is tried elsewhere when its headers do not come in time; after them nothing can be tried again. What is
    no stream may take its time, unless the route says how much."""
    tried = {attempt.backend for attempt in chain.attempts}
    own = {status for upstream in table.upstreams if upstream.name in tried for status in upstream.failing_statuses}
    retry: Json = {
        "retry_on": _RETRY_ON,
        "retriable_status_codes": sorted({*_RETRIED_STATUSES, *own}),
        # A backend that does not have this endpoint says so by it; another one of the chain may have it.
        "retriable_headers": [{"name": SKIP_HEADER, "present_match": True}],
        "num_retries": len(chain.groups) - 1,
        "refresh_cluster_on_retry": True,
        "retry_back_off": {"base_interval": duration(_BACK_OFF_S)},
    }
    # Where a request may wait for a pod, what makes the attempt tells that from silence; here both are one time.
    wait_s = max(chain.waits_s, default=0)
    if is_stream:
        retry["per_try_timeout"] = duration(wait_s + chain.timeouts.response_headers_s)
    elif chain.timeouts.attempt_s is not None:
        retry["per_try_timeout"] = duration(wait_s + chain.timeouts.attempt_s)
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
