"""The two listeners of the data path. They depend on fairlead's version, ports and paths, on whether there is TLS, and on nothing else
that a user edits.

Public: who calls, what is in it, which chain. Egress: in the same process, one request per attempt, seen by one provider only.
"""

from __future__ import annotations

from typing import Final

from fairlead.gateway.envoy.certificate import make_transport
from fairlead.gateway.envoy.clusters import SHOWN_HEADERS
from fairlead.gateway.envoy.egress import AFFINITY, AFFINITY_HEADER, BACKEND_HEADER, CLASS_HEADER, IDLE_HEADER
from fairlead.gateway.envoy.hold import make_hold_replies
from fairlead.gateway.envoy.limits import CONSUMER_HEADER, LIMIT_TYPE, Measure, limit_file
from fairlead.gateway.envoy.logs import make_access_logs
from fairlead.gateway.envoy.patterns import make_patterns_filter
from fairlead.gateway.envoy.refusedkey import CUSTOM_RESPONSE, REFUSED_KEY, make_refused_key_reply
from fairlead.gateway.envoy.replies import make_local_replies
from fairlead.gateway.envoy.settings import GatewaySettings
from fairlead.gateway.envoy.words import NAMESPACE, Json, file_source, make_filter, set_header, typed
from fairlead.gateway.lua import load_classifier, load_egress, load_settler

__all__ = ["CONSUMER_HEADER", "KEY", "make_listeners"]

#: Filter state by which the route is found: `<chain>|<stream>`.
KEY: Final = "fairlead.key"
_HCM: Final = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_LUA: Final = "envoy.extensions.filters.http.lua.v3.Lua"
_ROUTER: Final = "envoy.extensions.filters.http.router.v3.Router"
_FILTER_STATE: Final = "envoy.extensions.filters.http.set_filter_state.v3.Config"
_JSON_TYPES: Final = {"regex": r"(?i)^application/json\s*(;.*)?$"}
#: Usage of a response -> our word for it.
_USAGE: Final = (("prompt_tokens", "prompt_tokens"), ("completion_tokens", "completion_tokens"))


def make_listeners(settings: GatewaySettings) -> list[Json]:
    """All of LDS."""
    return [_make_public(settings), _make_egress(settings)]


def _make_public(settings: GatewaySettings) -> Json:
    manager = typed(
        _HCM,
        stat_prefix="public",
        rds={
            "route_config_name": "public",
            "config_source": file_source(settings.routing_directory, "rds-public.json"),
        },
        local_reply_config=make_local_replies(),
        use_remote_address=True,
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="REJECT_REQUEST",
        server_header_transformation="PASS_THROUGH",
        stream_idle_timeout="300s",
        request_headers_timeout="10s",
        common_http_protocol_options={"headers_with_underscores_action": "REJECT_REQUEST"},
        early_header_mutation_extensions=[_make_stripping(settings)],
        http_filters=_make_public_filters(settings),
        access_log=make_access_logs(),
    )
    return {
        "name": "public",
        "address": {"socket_address": {"address": settings.address, "port_value": settings.port}},
        "per_connection_buffer_limit_bytes": 1_048_576,
        "filter_chains": [
            {
                "filters": [{"name": "http", "typed_config": manager}],
                **(make_transport(settings.bootstrap_directory, ["h2", "http/1.1"]) if settings.is_tls else {}),
            }
        ],
    }


def _make_stripping(settings: GatewaySettings) -> Json:
    """Headers of ours that only we may set. A sidecar keeps what its callers show beside what its own authentication takes away."""
    ours = (CONSUMER_HEADER, CLASS_HEADER, BACKEND_HEADER, IDLE_HEADER, AFFINITY_HEADER)
    shown = SHOWN_HEADERS.items() if settings.is_sidecar else ()
    return {
        "name": "strip",
        "typed_config": typed(
            "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            mutations=[
                *({"remove": name} for name in (*ours, *(kept for _, kept in shown))),
                *({"append": set_header(kept, f"%REQ({name})%")} for name, kept in shown),
            ],
        ),
    }


def _make_public_filters(settings: GatewaySettings) -> list[Json]:
    return [
        make_filter(
            "envoy.filters.http.health_check",
            "envoy.extensions.filters.http.health_check.v3.HealthCheck",
            pass_through_mode=False,
            headers=[{"name": ":path", "string_match": {"exact": "/healthz"}}],
        ),
        {
            # From the clients' Secret, so that keys come and go without a new listener.
            "name": "authentication",
            "config_discovery": {
                "config_source": file_source(settings.clients_directory, "authentication.json"),
                "type_urls": [
                    "type.googleapis.com/envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth",
                    "type.googleapis.com/envoy.extensions.common.matching.v3.ExtensionWithMatcher",
                    "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
                    "type.googleapis.com/envoy.extensions.filters.http.composite.v3.Composite",
                ],
            },
        },
        make_filter(
            "envoy.filters.http.buffer",
            "envoy.extensions.filters.http.buffer.v3.Buffer",
            max_request_bytes=settings.max_body_bytes,
        ),
        # Before the classifier, which costs most. Not before the body: while a client still sends a long one, it loses the answer.
        *_make_limit(settings, Measure.REQUESTS),
        make_filter(
            "usage",
            "envoy.extensions.filters.http.json_to_metadata.v3.JsonToMetadata",
            response_rules={"rules": _usage_rules(), "allow_content_types_regex": _JSON_TYPES},
        ),
        make_filter("classify", _LUA, default_source_code={"inline_string": load_classifier()}),
        make_patterns_filter(),
        make_filter("settle", _LUA, default_source_code={"inline_string": load_settler()}),
        *_make_limit(settings, Measure.TOKENS),
        make_filter(
            "key",
            _FILTER_STATE,
            clear_route_cache=True,
            on_request_headers=[
                {
                    "object_key": KEY,
                    "factory_key": "envoy.string",
                    "format_string": {
                        "text_format_source": {
                            "inline_string": f"%DYNAMIC_METADATA({NAMESPACE}:chain)%|%DYNAMIC_METADATA({NAMESPACE}:stream)%"
                        }
                    },
                }
            ],
        ),
        make_filter(
            "stream_usage",
            "envoy.extensions.filters.http.sse_to_metadata.v3.SseToMetadata",
            response_rules={
                "content_parser": {
                    "name": "envoy.content_parsers.json",
                    "typed_config": typed(
                        "envoy.extensions.content_parsers.json.v3.JsonContentParser",
                        rules=[{"rule": rule} for rule in _usage_rules()],
                    ),
                },
                "max_event_size": 65_536,
            },
        ),
        make_filter("envoy.filters.http.router", _ROUTER),
    ]


def _make_limit(settings: GatewaySettings, measure: Measure) -> list[Json]:
    """The filter, and before it one that calls its headers on the way back as OpenAI's clients know them. Not in sidecars: what
    is limited they pass on."""
    if settings.is_sidecar:
        return []
    word = measure.value.removeprefix("limit_")
    renamed = [
        change
        for said in ("limit", "remaining")
        for change in (
            {"append": set_header(f"x-ratelimit-{said}-{word}", f"%RESP(x-ratelimit-{said})%")},
            {"remove": f"x-ratelimit-{said}"},
        )
    ]
    return [
        make_filter(
            f"{measure.value}_headers",
            "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            mutations={"response_mutations": [*renamed, {"remove": "x-ratelimit-reset"}]},
        ),
        {
            "name": measure.value,
            "config_discovery": {
                "config_source": file_source(settings.routing_directory, limit_file(measure)),
                "type_urls": [f"type.googleapis.com/{LIMIT_TYPE}"],
            },
        },
    ]


def _usage_rules() -> list[Json]:
    return [
        {
            "selectors": [{"key": "usage"}, {"key": said}],
            "on_present": {"metadata_namespace": NAMESPACE, "key": ours, "type": "NUMBER"},
        }
        for said, ours in _USAGE
    ]


def _make_egress(settings: GatewaySettings) -> Json:
    manager = typed(
        _HCM,
        stat_prefix="egress",
        rds={
            "route_config_name": "egress",
            "config_source": file_source(settings.routing_directory, "rds-egress.json"),
        },
        local_reply_config=make_local_replies(make_refused_key_reply(), *make_hold_replies()),
        stream_idle_timeout="0s",
        # The peer is in this process: a response that breaks off need not linger for a second before the client hears of it.
        delayed_close_timeout="0s",
        generate_request_id=False,
        http_filters=[
            # Kept beside the headers, of which the next filter lets none of ours on, for the choice of a pod.
            make_filter(
                "affinity",
                _FILTER_STATE,
                on_request_headers=[
                    {
                        "object_key": AFFINITY,
                        "factory_key": "envoy.hashable_string",
                        "format_string": {"text_format_source": {"inline_string": f"%REQ({AFFINITY_HEADER})%"}},
                        "skip_if_empty": True,
                    }
                ],
            ),
            # It takes headers away, the mark among them by which the route was found: the route stays.
            make_filter(
                "envoy.filters.http.lua",
                _LUA,
                default_source_code={"inline_string": load_egress()},
                clear_route_cache=False,
            ),
            # Says something only where a route has it: what a provider answers to a key that it does not take.
            make_filter(REFUSED_KEY, CUSTOM_RESPONSE),
            make_filter("envoy.filters.http.router", _ROUTER, suppress_envoy_headers=True),
        ],
    )
    return {
        "name": "egress",
        "internal_listener": {},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
