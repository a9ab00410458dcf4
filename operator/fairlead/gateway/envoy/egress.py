"""The egress routes: one virtual host per backend, with one domain for each of its models. The second wall: endpoint and class are
checked again, per backend.

What the public side decided comes as a header that it sets itself. A request for a backend that may not take its class is refused
here, whatever led it here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fairlead.api.route import LLMAccess
from fairlead.gateway.envoy.clusters import (
    attempt_host,
    attempts_of,
    egress_host,
    held_of,
    holding_cluster,
    pinned_cluster,
    pinned_places,
    upstream_cluster,
)
from fairlead.gateway.envoy.hold import (
    LOOKS_HEADER,
    make_empty_headers,
    make_hold_answers,
    make_hold_retry,
    make_looks_headers,
)
from fairlead.gateway.envoy.refusedkey import REFUSED_KEY, make_refused_key
from fairlead.gateway.envoy.replies import make_error_response
from fairlead.gateway.envoy.settings import GatewaySettings
from fairlead.gateway.envoy.words import Json, duration, set_header, typed
from fairlead.gateway.lookup import ENDPOINTS
from fairlead.gateway.table import GATEWAY, Attempt, RouteTable, Upstream

__all__ = [
    "AFFINITY",
    "AFFINITY_HEADER",
    "BACKEND_HEADER",
    "CLASS_HEADER",
    "IDLE_HEADER",
    "SKIP_HEADER",
    "make_egress_routes",
]

CLASS_HEADER: Final = "x-fairlead-class"
BACKEND_HEADER: Final = "x-fairlead-backend"
#: On the answer that a backend does not have an endpoint: try the next one. Never taken from a backend.
SKIP_HEADER: Final = "x-fairlead-skip"
#: On requests for a stream: how long it may pause. Envoy 1.40 drops a `per_try_idle_timeout` that is not shorter than the
#: `per_try_timeout`, so it cannot stand beside the public route's wait for the headers; and only what ends here counts against the host.
IDLE_HEADER: Final = "x-fairlead-idle"
#: On requests of a model with an affinity: what those have in common that belong on one pod.
AFFINITY_HEADER: Final = "x-fairlead-affinity"
#: The same as filter state: the header is gone when the pod is chosen.
AFFINITY: Final = "fairlead.affinity"
#: What backends say of limits of their own: a provider's are about the account that it has with us, not about the caller, and the first
#: would keep a 429 from being tried elsewhere.
_LIMIT_HEADERS: Final = (
    "x-envoy-ratelimited",
    *(f"x-ratelimit-{said}{of}" for said in ("limit", "remaining", "reset") for of in ("", "-requests", "-tokens")),
)
#: Endpoints whose answers may be streams.
_STREAMED: Final = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
LUA: Final = "envoy.filters.http.lua"


def make_egress_routes(table: RouteTable, settings: GatewaySettings) -> Json:
    """The whole route configuration."""
    upstreams = {upstream.name: upstream for upstream in table.upstreams}
    places: dict[str, list[Attempt]] = {}
    for attempt in attempts_of(table):
        places.setdefault(egress_host(attempt), []).append(attempt)
    idles: dict[str, set[float]] = {name: set() for name in places}
    for chain in table.chains.values():
        for attempt in (one for one in chain.attempts if one.backend != GATEWAY):
            idles[egress_host(attempt)].add(chain.timeouts.idle_s)
    pinned = pinned_places(table)
    waiting = {(one.backend, one.place) for one in held_of(table)}
    hosts = []
    for name, attempts in sorted(places.items()):
        upstream = upstreams[attempts[0].backend]
        is_pinned = (upstream.name, upstream.place) in pinned
        data = _lua_data(upstream, keeps=table.policy.allow_store)
        host = _make_host(name, attempts, upstream, settings, sorted(idles[name]), data, is_pinned=is_pinned)
        if (upstream.name, upstream.place) in waiting:
            host["response_headers_to_add"] += make_empty_headers()
        hosts.append(host)
    pools = len({holding_cluster(one) for one in held_of(table) if one.hold is not None and one.hold.tries})
    hosts += [_make_holding_host(one, upstreams[one.backend], settings, pools) for one in held_of(table)]
    hosts.sort(key=lambda host: str(host["name"]))
    return {"name": "egress", "response_headers_to_remove": list(_LIMIT_HEADERS), "virtual_hosts": hosts}


def _make_holding_host(attempt: Attempt, upstream: Upstream, settings: GatewaySettings, pools: int) -> Json:
    """Where requests wait, on their way to the virtual host of the same attempt: nothing but the class is looked at, and all is passed on
    as it came."""
    hold = attempt.hold
    assert hold is not None
    allowed = [
        {"name": ":method", "string_match": {"exact": "POST"}},
        {
            "name": CLASS_HEADER,
            "string_match": _any_of([{"exact": data_class.value} for data_class in upstream.classes]),
        },
    ]
    is_stream = [{"name": IDLE_HEADER, "present_match": True}]
    action: Json = {"cluster": holding_cluster(attempt), "auto_host_rewrite": True, "timeout": "0s"}
    return {
        "name": egress_host(attempt),
        "domains": [attempt_host(attempt)],
        # Of a larger one nothing is kept, so that it cannot wait; whoever is there gets it.
        "request_body_buffer_limit": min(hold.most_bytes(pools), settings.max_body_bytes),
        "response_headers_to_add": [set_header(BACKEND_HEADER, upstream.name), *make_looks_headers()],
        # The body is edited where the request leaves from.
        "typed_per_filter_config": {
            LUA: typed("envoy.extensions.filters.http.lua.v3.LuaPerRoute", disabled=True),
            **({REFUSED_KEY: make_hold_answers(hold)} if hold.wait_s is not None else {}),
        },
        "routes": [
            *(
                {
                    "match": {"prefix": "/", "headers": [*allowed, *more]},
                    "route": {**action, "retry_policy": make_hold_retry(hold, time_s)},
                }
                for more, time_s in ((is_stream, hold.headers_s), ([], hold.attempt_s))
            ),
            _make_denied(),
        ],
    }


def _make_host(
    name: str,
    attempts: Sequence[Attempt],
    upstream: Upstream,
    settings: GatewaySettings,
    idles: Sequence[float],
    data: Json,
    *,
    is_pinned: bool,
) -> Json:
    return {
        "name": name,
        "domains": sorted(attempt_host(attempt) for attempt in attempts),
        "request_body_buffer_limit": settings.max_body_bytes,
        "response_headers_to_add": [set_header(BACKEND_HEADER, upstream.name)],
        **(
            {"typed_per_filter_config": {REFUSED_KEY: make_refused_key()}} if upstream.access is LLMAccess.CLOUD else {}
        ),
        "routes": [
            *(
                _make_route(path, to, upstream, idle_s, data, is_pinned=pins)
                for path, to in sorted(upstream.paths.items())
                for idle_s in (*(idles if path in _STREAMED else ()), None)
                for pins in ((True, False) if is_pinned else (False,))
            ),
            *(_make_missing(path) for path in ENDPOINTS if path not in upstream.paths),
            _make_denied(),
        ],
    }


def _make_denied() -> Json:
    """Not retried: what is refused here is refused for good."""
    denied = make_error_response(403, "This backend may not take this request.", "permission_error", "backend_denied")
    return {"match": {"prefix": "/"}, **denied}


def _make_route(path: str, to: str, upstream: Upstream, idle_s: float | None, data: Json, *, is_pinned: bool) -> Json:
    """`idle_s`: of streams; None: for whatever else comes. `data`: of `_lua_data`. `is_pinned`: of requests that belong on one pod."""
    classes = [{"exact": data_class.value} for data_class in upstream.classes]
    action: Json = {
        "cluster": pinned_cluster(upstream) if is_pinned else upstream_cluster(upstream),
        "timeout": "0s",
        "host_rewrite_literal": upstream.authority or upstream.host,
        "prefix_rewrite": to,
    }
    retry = _make_retry(upstream, is_pinned=is_pinned) | (
        {} if idle_s is None else {"per_try_idle_timeout": duration(idle_s)}
    )
    if retry:
        action["retry_policy"] = retry
    if is_pinned:
        action["hash_policy"] = [{"filter_state": {"key": AFFINITY}}]
    pins = [{"name": AFFINITY_HEADER, "present_match": True}] if is_pinned else []
    streams = [] if idle_s is None else [{"name": IDLE_HEADER, "string_match": {"exact": duration(idle_s)}}]
    route: Json = {
        "match": {
            "path": path,
            "headers": [
                {"name": ":method", "string_match": {"exact": "POST"}},
                {"name": CLASS_HEADER, "string_match": _any_of(classes)},
                *streams,
                *pins,
            ],
        },
        "metadata": {"filter_metadata": {LUA: data}},
        "route": action,
        "request_headers_to_remove": [CLASS_HEADER, IDLE_HEADER, AFFINITY_HEADER],
        "response_headers_to_remove": [SKIP_HEADER, LOOKS_HEADER],
    }
    if upstream.headers:
        route["request_headers_to_add"] = [set_header(name, value) for name, value in upstream.headers]
    return route


def _make_retry(upstream: Upstream, *, is_pinned: bool) -> Json:
    """Another pod of the same deployment, when one has just gone. A provider's hosts are all the same to us."""
    if upstream.access is not LLMAccess.LOCAL:
        return {}
    return {
        "retry_on": "connect-failure,refused-stream,reset-before-request",
        "num_retries": 2,
        "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.025s"},
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": typed("envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
            }
        ],
        # The draws for a session are always the same ones: were they few, some sessions would never draw another of two pods.
        "host_selection_retry_max_attempts": 16 if is_pinned else 3,
    }


def _make_missing(path: str) -> Json:
    """For an endpoint that the gateway has and this backend has not."""
    message = "No backend of this model has this endpoint."
    route = make_error_response(404, message, "invalid_request_error", "unsupported_endpoint")
    headers = [*route.pop("response_headers_to_add"), set_header(SKIP_HEADER, "endpoint")]
    return {"match": {"path": path}, **route, "response_headers_to_add": headers}


def _any_of(classes: list[Json]) -> Json:
    return {"safe_regex": {"regex": "|".join(entry["exact"] for entry in classes) or "[^\\s\\S]"}}


def _lua_data(upstream: Upstream, *, keeps: bool) -> Json:
    """`keeps`: providers may keep what they are sent. What stays in the cluster may always."""
    return {
        "usage": "true" if upstream.has_stream_usage else "false",
        "access": upstream.access.value,
        **({} if keeps or upstream.access is LLMAccess.LOCAL else tell_to_forget(upstream.keeping_paths)),
    }


def tell_to_forget(paths: Sequence[str]) -> Json:
    """What a caller says of `store` is turned to false; at these endpoints, which keep unless they are told otherwise, it is added."""
    return {"store": "false", **({"unasked": " ".join(paths)} if paths else {})}
