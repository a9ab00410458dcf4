"""What a provider answers to a key that it does not take stays here: the text often holds the key, or most of it, and would tell callers
that it is about theirs. They get 502, and before that somebody else is asked, as after any other failure.
"""

from __future__ import annotations

from typing import Final

from fairlead.gateway.envoy.replies import make_error
from fairlead.gateway.envoy.words import Json, typed

__all__ = ["CUSTOM_RESPONSE", "REFUSED_KEY", "make_refused_key", "make_refused_key_reply"]

REFUSED_KEY: Final = "refused_key"
CUSTOM_RESPONSE: Final = "envoy.extensions.filters.http.custom_response.v3.CustomResponse"
_POLICY: Final = "envoy.extensions.http.custom_response.local_response_policy.v3.LocalResponsePolicy"
_STATUS: Final = "envoy.type.matcher.v3.HttpResponseStatusCodeMatchInput"
_MESSAGE: Final = (
    "A provider of this model does not take the gateway's key."
    " Next: whoever runs the gateway renews it in the provider's Secret."
)


def make_refused_key() -> Json:
    """For routes to a provider: the filter's configuration."""
    answer = typed(_POLICY, status_code=502)
    is_refused = {"single_predicate": {
        "input": {"name": "status", "typed_config": typed(_STATUS)}, "value_match": {"exact": "401"}}}  # fmt: skip
    matched = {"action": {"name": "refused", "typed_config": answer}}
    matcher = {"matcher_list": {"matchers": [{"predicate": is_refused, "on_match": matched}]}}
    return typed(CUSTOM_RESPONSE, custom_response_matcher=matcher)


def make_refused_key_reply() -> Json:
    """What that looks like: Envoy's answers to its own failures all say why, and this one does not."""
    is_ours = typed(
        "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
        expression="response.code == 502 && (!has(response.code_details) || response.code_details == '')",
    )
    return {
        "filter": {"extension_filter": {"name": "cel", "typed_config": is_ours}},
        "body_format_override": {"json_format": make_error(_MESSAGE, "server_error", "provider_refused_key")},
    }
