"""Rate limits: one file for requests and one for tokens, each the configuration of one filter, which Envoy gets by itself (ECDS).

They are apart from the routes because the buckets live as long as this configuration: a route that changes, or a backend that comes
and goes, must not fill them again. Envoy leaves a filter alone whose file says what it said before.

Each consumer that a role names with limits has a bucket of its own; all others, whose names only their Secret knows, get one when
they come. Callers without a key have one together. Envoy's buckets fill evenly, and hold a minute's worth at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from fairlead.gateway.envoy.words import NAMESPACE, Json, set_header, typed
from fairlead.gateway.table import Limits, RouteTable

__all__ = ["CONSUMER_HEADER", "LIMITED", "LIMIT_TYPE", "TOKENS", "Measure", "limit_file", "make_limit"]

CONSUMER_HEADER: Final = "x-fairlead-consumer"
LIMIT_TYPE: Final = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
#: What a request is charged with, as the classifier writes it: absent where the caller's tokens are not limited.
TOKENS: Final = "tokens"
#: "true" beside it: `hits_addend` of a request without tokens would be a warning in the log.
LIMITED: Final = "limited"
#: Consumers whose buckets are kept, so that nobody gets a full one by being forgotten. The Secret with the clients' keys has room for half
#: as many; an issuer of tokens with more subjects than that gives whoever was forgotten a full bucket again.
_MAX_CONSUMERS: Final = 65_536
_MINUTE: Final = "60s"
_ALWAYS: Final = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}


class Measure(StrEnum):
    """What is limited; also the names of the filters."""

    REQUESTS = "limit_requests"
    TOKENS = "limit_tokens"


#: Envoy says when the bucket has one more, which is enough for a request, but not for its tokens: those will be there when as many
#: have been filled in as it asks for.
_RETRY_AFTER: Final[Mapping[Measure, Json]] = {
    Measure.REQUESTS: {"enable_retry_after_header": True},
    Measure.TOKENS: {
        "response_headers_to_add": [set_header("retry-after", f"%DYNAMIC_METADATA({NAMESPACE}:wait)%")],
    },
}


def limit_file(measure: Measure) -> str:
    """Where its configuration is, beside the routes."""
    return f"{measure.value.replace('_', '-')}.json"


def make_limit(table: RouteTable, measure: Measure) -> Json:
    """The extension: name and configuration. Without limits it lets everything through, and costs nothing."""
    word = measure.value.removeprefix("limit_")
    descriptors = _make_descriptors(table, measure)
    limits: Json = {}
    if descriptors:
        limits = {
            "filter_enabled": _ALWAYS,
            "filter_enforced": _ALWAYS,
            "always_consume_default_token_bucket": False,
            "max_dynamic_descriptors": _MAX_CONSUMERS,
            "rate_limits": [_make_rule(measure, action) for action in (_CONSUMER, _ANONYMOUS)],
            "descriptors": descriptors,
            **_RETRY_AFTER[measure],
        }
    return {"name": measure.value, "typed_config": typed(LIMIT_TYPE, stat_prefix=word, **limits)}


_CONSUMER: Final[Json] = {"request_headers": {"header_name": CONSUMER_HEADER, "descriptor_key": "consumer"}}
_ANONYMOUS: Final[Json] = {
    "header_value_match": {
        "descriptor_key": "caller",
        "descriptor_value": "anonymous",
        "expect_match": False,
        "headers": [{"name": CONSUMER_HEADER, "present_match": True}],
    }
}


def _make_rule(measure: Measure, action: Json) -> Json:
    """Whose bucket is charged, and with how much. Envoy tells of the bucket only where there is one."""
    rule: Json = {"actions": [action], "x_ratelimit_option": "DRAFT_VERSION_03"}
    if measure is Measure.REQUESTS:
        return rule
    charged = {
        "metadata": {
            "descriptor_key": LIMITED,
            "metadata_key": {"key": NAMESPACE, "path": [{"key": LIMITED}]},
            "source": "DYNAMIC",
        }
    }
    hits = {"format": f"%DYNAMIC_METADATA({NAMESPACE}:{TOKENS})%"}
    return {**rule, "actions": [action, charged], "hits_addend": hits}


def _make_descriptors(table: RouteTable, measure: Measure) -> list[Json]:
    limits = {profile.id: _number_of(profile.limits, measure) for profile in table.profiles}
    usual = limits[table.known]
    named = [(name, limits[profile]) for name, profile in sorted(table.consumers.items())]
    found = [
        _make_descriptor(table, measure, number, key="consumer", value=name)
        for name, number in named
        if number is not None and number != usual
    ]
    if usual is not None and table.has_keys:
        found.append(_make_descriptor(table, measure, usual, key="consumer"))
    anonymous = limits[table.anonymous] if table.anonymous is not None else None
    if anonymous is not None:
        found.append(_make_descriptor(table, measure, anonymous, key="caller", value="anonymous"))
    return found


def _number_of(limits: Limits, measure: Measure) -> int | None:
    return limits.requests if measure is Measure.REQUESTS else limits.tokens


def _make_descriptor(table: RouteTable, measure: Measure, number: int, **entry: str) -> Json:
    share = table.share(number)
    entries: list[Json] = [dict(entry)]
    if measure is Measure.TOKENS:
        entries.append({"key": LIMITED, "value": "true"})
    bucket = {"max_tokens": share, "tokens_per_fill": share, "fill_interval": _MINUTE}
    return {"entries": entries, "token_bucket": bucket}
