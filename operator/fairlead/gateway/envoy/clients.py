"""Who is let in: the one file of a gateway that holds secrets, made from the clients' Secret and kept in a Secret.

Keys and anonymous callers: with both, the key is asked for only where one is shown, and a wrong one is still wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import orjson

from fairlead.gateway.envoy.listeners import CONSUMER_HEADER
from fairlead.gateway.envoy.words import Json, make_discovery, typed

__all__ = ["AUTHENTICATION_FILE", "render_authentication"]

AUTHENTICATION_FILE: Final = "authentication.json"
_EXTENSION: Final = "envoy.config.core.v3.TypedExtensionConfig"
_API_KEYS: Final = "envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth"
_HEADERS: Final = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
_KEY_HEADERS: Final = ("authorization", "x-api-key")


def render_authentication(keys: Mapping[str, Sequence[str]] | None, version: str, *, anonymous: bool) -> str:
    """The file's text. `keys`: consumer -> its keys; None: this route knows nobody by a key. Without keys and `anonymous`, all are
    refused. `version` is what Envoy tells once it has loaded it; whoever may read metrics can read it, so it must say nothing of keys."""
    if keys is None:
        # Nobody looks at what is shown; the gateway sends it nowhere either.
        config = _nobody_is_known() if anonymous else _check({})
    elif anonymous:
        config = _only_where_shown(_check(keys))
    else:
        config = _check(keys)
    resource: Json = {"name": "authentication", "typed_config": config}
    return orjson.dumps(make_discovery(_EXTENSION, version, resource)).decode()


def _check(keys: Mapping[str, Sequence[str]]) -> Json:
    credentials = [{"key": key, "client": consumer} for consumer, own in sorted(keys.items()) for key in own]
    return typed(
        _API_KEYS,
        credentials=credentials,
        key_sources=[{"header": name} for name in _KEY_HEADERS],
        forwarding={"header": CONSUMER_HEADER, "hide_credentials": True},
    )


def _nobody_is_known() -> Json:
    return typed(_HEADERS, mutations={"request_mutations": [{"remove": name} for name in _KEY_HEADERS]})


def _only_where_shown(check: Json) -> Json:
    """The filter is left out for requests that have none of the headers."""
    shown: list[Json] = [
        {
            "single_predicate": {
                "input": {
                    "name": "header",
                    "typed_config": typed("envoy.type.matcher.v3.HttpRequestHeaderMatchInput", header_name=name),
                },
                "value_match": {"safe_regex": {"google_re2": {}, "regex": ".*"}},
            }
        }
        for name in _KEY_HEADERS
    ]
    skip = {
        "action": {
            "name": "skip",
            "typed_config": typed("envoy.extensions.filters.common.matcher.action.v3.SkipFilter"),
        }
    }
    matcher = {
        "matcher_list": {
            "matchers": [{"predicate": {"not_matcher": {"or_matcher": {"predicate": shown}}}, "on_match": skip}]
        }
    }
    return typed(
        "envoy.extensions.common.matching.v3.ExtensionWithMatcher",
        extension_config={"name": "api_key_auth", "typed_config": check},
        xds_matcher=matcher,
    )
