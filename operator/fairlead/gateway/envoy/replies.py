"""Errors in the shape that OpenAI's clients understand, for what Envoy itself answers."""

from __future__ import annotations

from typing import Any, Final

from fairlead.gateway.envoy.words import NAMESPACE, Json, json_body, set_header, typed

__all__ = ["DIRECT_JSON", "make_error", "make_error_response", "make_local_replies", "make_unavailable"]

_UNAVAILABLE: Final = "No backend of this model answered. Next: try again, or ask whoever runs the gateway."

#: Headers of a direct response that is JSON.
DIRECT_JSON: Final = [set_header("content-type", "application/json")]


def make_error(message: str, error_type: str, code: str | None, param: str | None = None) -> Json:
    """The error object."""
    return {"error": {"message": message, "type": error_type, "param": param, "code": code}}


def make_error_response(status: int, message: str, error_type: str, code: str) -> Json:
    """A direct response of a route."""
    return {
        "direct_response": {"status": status, "body": json_body(make_error(message, error_type, code))},
        "response_headers_to_add": DIRECT_JSON,
    }


def make_unavailable() -> Json:
    """The error of a model of which no backend answered."""
    return make_error(_UNAVAILABLE, "server_error", "service_unavailable")


def make_local_replies(*first: Json) -> Json:
    """What Envoy's own answers look like: as `first` says, and then by status. There is no default format: it would wrap direct
    responses, too."""
    return {
        "mappers": [
            *first,
            _make_token_mapper(),
            _mapper(401, "Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
            _mapper(408, "The request took too long to arrive.", "invalid_request_error", "request_timeout"),
            _mapper(413, "The body of the request is too large.", "invalid_request_error", "request_too_large"),
            _limited("tokens", f", requested %DYNAMIC_METADATA({NAMESPACE}:tokens)%", _is_charged()),
            _limited("requests", ""),
            _mapper(500, "The gateway could not handle this request.", "server_error", "gateway_error"),
            _mapper(502, _UNAVAILABLE, "server_error", "bad_gateway"),
            _mapper(503, _UNAVAILABLE, "server_error", "service_unavailable"),
            _mapper(504, "The model took too long to answer.", "server_error", "gateway_timeout"),
        ]
    }


def _is_charged() -> Json:
    matcher = {"filter": NAMESPACE, "path": [{"key": "tokens"}], "value": {"present_match": True}}
    return {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": False}}


def _limited(kind: str, why: str, condition: Json | None = None) -> Json:
    """Of a caller who has used up a limit; the words are OpenAI's. Nobody else here answers 429."""
    message = f"Rate limit reached for {kind} per minute{why}. Next: try again in %RESP(retry-after)%s."
    mapper = _mapper(429, message, kind, "rate_limit_exceeded")
    if condition is None:
        return mapper
    return {**mapper, "filter": {"and_filter": {"filters": [mapper["filter"], condition]}}}


def _mapper(status: int, message: str, error_type: str, code: str) -> Json:
    comparison: dict[str, Any] = {
        "op": "EQ",
        "value": {"default_value": status, "runtime_key": f"fairlead.unset.{status}"},
    }
    return {
        "filter": {"status_code_filter": {"comparison": comparison}},
        "body_format_override": {"json_format": make_error(message, error_type, code)},
    }


def _make_token_mapper() -> Json:
    """A token that is not let in is 401 whatever is wrong with it: Envoy says 403 of one for another audience, or without the claim."""
    refused = "response.code_details.startsWith('jwt_authn_access_denied') || response.code_details.startsWith('rbac_access_denied')"
    cel = typed("envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter", expression=refused)
    message = (
        "This token is not let in: its signature, issuer, audience, time or claims are not what this gateway takes."
    )
    return {
        "filter": {"extension_filter": {"name": "cel", "typed_config": cel}},
        "status_code": 401,
        "body_format_override": {"json_format": make_error(message, "invalid_request_error", "invalid_api_key")},
    }
