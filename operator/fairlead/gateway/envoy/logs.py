"""Access logs: counters and histograms for Prometheus, and one JSON line per request.

Labels come from the spec and from tokens that are let in: what else a client sent becomes a label only where the classifier knew it.
No body, query, user agent or error text of an upstream is logged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fairlead.gateway.envoy.hold import LOOKS_HEADER
from fairlead.gateway.envoy.limits import CONSUMER_HEADER
from fairlead.gateway.envoy.words import NAMESPACE, Json, typed

__all__ = ["make_access_logs"]

_MAX_COUNTERS: Final = 50_000
_MAX_HISTOGRAMS: Final = 10_000


def _from_metadata(key: str) -> str:
    return f"%DYNAMIC_METADATA({NAMESPACE}:{key})%"


#: Authentication's word: the name of a key of the clients' Secret, also of requests that come no further than a limit.
_CONSUMER: Final = f"%REQ({CONSUMER_HEADER})%"
_TAGS: Final = [
    {"name": "model", "value_format": _from_metadata("model")},
    {"name": "consumer", "value_format": _CONSUMER},
    {"name": "data_class", "value_format": _from_metadata("class")},
    {"name": "backend", "value_format": "%RESP(x-fairlead-backend)%"},
]
_NO_PROBE: Final[Json] = {"not_health_check_filter": {}}
_LINE: Final = {
    "time": "%START_TIME%",
    "id": "%REQ(x-request-id)%",
    "consumer": _CONSUMER,
    "model": _from_metadata("model"),
    "class": _from_metadata("class"),
    "rule": _from_metadata("rule"),
    "backend": "%RESP(x-fairlead-backend)%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "prompt_tokens": _from_metadata("prompt_tokens"),
    "completion_tokens": _from_metadata("completion_tokens"),
    "first_byte_ms": "%COMMON_DURATION(DS_RX_BEG:US_RX_BODY_BEG:ms)%",
    "ms": "%DURATION%",
}


def make_access_logs() -> list[Json]:
    """Requests and their duration always; tokens and time to first token only where there are any."""
    return [
        _stats(
            _NO_PROBE,
            counters=[_counter("requests", extra=[{"name": "code", "value_format": "%RESPONSE_CODE%"}])],
        ),
        _stats(_all_of(_NO_PROBE, _DID_NOT_WAIT), histograms=[_histogram("request_duration_ms", "%DURATION%")]),
        *(_stats(condition, counters=[_limited(kind)]) for kind, condition in _LIMITED.items()),
        _stats(_is_present("prompt_tokens"), counters=[_counter("prompt_tokens", _from_metadata("prompt_tokens"))]),
        _stats(
            _is_present("completion_tokens"),
            counters=[_counter("completion_tokens", _from_metadata("completion_tokens"))],
        ),
        _stats(
            _has_upstream(),
            counters=[_counter("attempts", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%")],
        ),
        _stats(
            _all_of(_has_upstream(), _DID_NOT_WAIT),
            histograms=[_histogram("time_to_first_token_ms", "%COMMON_DURATION(DS_RX_BEG:US_RX_BODY_BEG:ms)%")],
        ),
        {
            "name": "envoy.access_loggers.stdout",
            "filter": _NO_PROBE,
            "typed_config": typed(
                "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog", log_format={"json_format": _LINE}
            ),
        },
    ]


def _stats(condition: Json | None = None, **values: Any) -> Json:
    config = typed(
        "envoy.extensions.access_loggers.stats.v3.Config",
        stats_scope={"prefix": NAMESPACE, "max_counters": _MAX_COUNTERS, "max_histograms": _MAX_HISTOGRAMS},
        **values,
    )
    logger: Json = {"name": "envoy.access_loggers.stats", "typed_config": config}
    return {**logger, "filter": condition} if condition is not None else logger


def _counter(name: str, value: str | None = None, extra: list[Json] | None = None) -> Json:
    counted: Json = {"value_format": value} if value is not None else {"value_fixed": 1}
    return {"stat": {"name": name, "tags": [*_TAGS, *(extra or [])]}, **counted}


def _limited(kind: str) -> Json:
    tags = [{"name": "consumer", "value_format": _CONSUMER}, {"name": "limit", "value_format": kind}]
    return {"stat": {"name": "limited", "tags": tags}, "value_fixed": 1}


def _histogram(name: str, value: str) -> Json:
    return {"stat": {"name": name, "tags": _TAGS}, "unit": "Milliseconds", "value_format": value}


def _is_present(key: str) -> Json:
    matcher = {"filter": NAMESPACE, "path": [{"key": key}], "value": {"present_match": True}}
    return {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": False}}


def _is_absent(key: str) -> Json:
    """Nothing equals "", and here Envoy knows no inversion."""
    matcher = {"filter": NAMESPACE, "path": [{"key": key}], "value": {"string_match": {"exact": ""}}}
    return {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": True}}


def _has_upstream() -> Json:
    return _holds("has(upstream.address)")


def _holds(expression: str) -> Json:
    kind = "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"
    return {"extension_filter": {"name": "cel", "typed_config": typed(kind, expression=expression)}}


def _all_of(*conditions: Json) -> Json:
    return {"and_filter": {"filters": list(conditions)}}


#: Histograms tell how fast backends are; what waited for a deployment at zero replicas would say that of a model which loads.
_DID_NOT_WAIT: Final = _holds(
    f"!has(response.headers) || !('{LOOKS_HEADER}' in response.headers) || response.headers['{LOOKS_HEADER}'] == '1'"
)
_IS_LIMITED: Final = "response.code_details == 'local_rate_limited'"
#: Which limit answered. A 429 of a backend has other details.
_LIMITED: Final[Mapping[str, Json]] = {
    "requests": _all_of(_holds(_IS_LIMITED), _is_absent("tokens")),
    "tokens": _all_of(_holds(_IS_LIMITED), _is_present("tokens")),
}
