"""Who is let in: the one file of a gateway that holds secrets, made from the clients' Secret and kept in a Secret.

Keys and anonymous callers: with both, the key is asked for only where one is shown, and a wrong one is still wrong. Tokens: what has the
form of one is checked as one, and as nothing else; whatever else is shown is a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from fairlead.gateway.envoy.listeners import CONSUMER_HEADER
from fairlead.gateway.envoy.words import Json, json_body, make_discovery, typed

__all__ = ["AUTHENTICATION_FILE", "TokenIssuer", "render_authentication", "takes_back"]

AUTHENTICATION_FILE: Final = "authentication.json"
_EXTENSION: Final = "envoy.config.core.v3.TypedExtensionConfig"
_API_KEYS: Final = "envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth"
_HEADERS: Final = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
_JWT: Final = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
_RBAC: Final = "envoy.extensions.filters.http.rbac.v3.RBAC"
_WITH_MATCHER: Final = "envoy.extensions.common.matching.v3.ExtensionWithMatcher"
#: Three parts, of which `alg: none` leaves the last one empty.
_FORM: Final = r"Bearer [A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"
#: What may be the name of a consumer. A claim that is empty or cannot be one must not make its caller an anonymous one.
_CONSUMER: Final = "[!-~]+"
#: Envoy refuses a set of which it can use no key, and would go on with the one before. With this one it takes any. Its x is the SHA-256 of
#: "fairlead: a key that nobody has 0": it is a point of the curve of which nobody knows the private key.
_NOBODYS_KEY: Final = {
    "kty": "EC",
    "crv": "P-256",
    "alg": "ES256",
    "kid": "nobody",
    "x": "JOgdBGYm4RiLor22h_3vKFV5W-OLWTtRH9zT5qIrFEI",
    "y": "EO23DtAIeEIRsFqo4TcxsWAn5GQXC04WGaLpMU18-RA",
}
_KEY_HEADERS: Final = ("authorization", "x-api-key")


@dataclass(frozen=True, slots=True)
class TokenIssuer:
    """Whose tokens are let in: made out to one of `audiences`, with the consumer's name in `claim`. `keys`: its public ones,
    as a JWKS lists them."""

    issuer: str
    audiences: tuple[str, ...]
    claim: str
    keys: tuple[Json, ...]


def render_authentication(
    keys: Mapping[str, Sequence[str]] | None, version: str, *, anonymous: bool, tokens: TokenIssuer | None = None
) -> str:
    """The file's text. `keys`: consumer -> its keys; None: this route knows nobody by a key. Without keys, `tokens` and `anonymous`,
    all are refused. `version` is what Envoy tells once it has loaded it; whoever may read metrics can read it, so it must say nothing of
    keys."""
    if tokens is not None:
        config = _by_form(tokens, _check(keys or {}), anonymous=anonymous)
    elif keys is None:
        # Nobody looks at what is shown; the gateway sends it nowhere either.
        config = _nobody_is_known() if anonymous else _check({})
    elif anonymous:
        config = _only_where_shown(_check(keys))
    else:
        config = _check(keys)
    resource: Json = {"name": "authentication", "typed_config": config}
    return orjson.dumps(make_discovery(_EXTENSION, version, resource)).decode()


def takes_back(before: str, after: str) -> bool:
    """Whether somebody who is let in by the one text is not let in, or as somebody else, by the other. True where that is not plain."""
    try:
        old, new = (_split(orjson.loads(text)) for text in (before, after))
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        return True
    return old[0] != new[0] or not old[1] <= new[1]


def _split(file: Json) -> tuple[Json, set[tuple[str, str]]]:
    """Everything but its version and the keys; and these."""
    found: set[tuple[str, str]] = set()

    def walk(value: Any) -> Any:
        if isinstance(value, list):
            return [walk(item) for item in value]
        if not isinstance(value, dict):
            return value
        found.update((entry["key"], entry["client"]) for entry in value.get("credentials", ()))
        return {name: walk(item) for name, item in value.items() if name not in ("credentials", "version_info")}

    return walk(file), found


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
    skip = {
        "action": {
            "name": "skip",
            "typed_config": typed("envoy.extensions.filters.common.matcher.action.v3.SkipFilter"),
        }
    }
    matcher = {"matcher_list": {"matchers": [{"predicate": {"not_matcher": _is_shown()}, "on_match": skip}]}}
    return typed(_WITH_MATCHER, extension_config={"name": "api_key_auth", "typed_config": check}, xds_matcher=matcher)


def _by_form(tokens: TokenIssuer, check: Json, *, anonymous: bool) -> Json:
    """One filter or the other. Who shows neither token nor key meets none if anonymous callers are let in."""
    checked = _run({"typed_config": {"name": "api_key_auth", "typed_config": check}})
    matchers = [{"predicate": _has("authorization", _FORM), "on_match": _run(_make_token_chain(tokens))}]
    if anonymous:
        matchers.append({"predicate": _is_shown(), "on_match": checked})
    return typed(
        _WITH_MATCHER,
        extension_config={
            "name": "composite",
            "typed_config": typed("envoy.extensions.filters.http.composite.v3.Composite"),
        },
        xds_matcher={"matcher_list": {"matchers": matchers}, **({} if anonymous else {"on_no_match": checked})},
    )


def _make_token_chain(tokens: TokenIssuer) -> Json:
    provider = {
        "issuer": tokens.issuer,
        "audiences": list(tokens.audiences),
        "local_jwks": json_body({"keys": [*tokens.keys, _NOBODYS_KEY]}),
        "require_expiration": True,
        "forward": False,
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        "claim_to_headers": [{"header_name": CONSUMER_HEADER, "claim_name": tokens.claim}],
    }
    check = typed(
        _JWT,
        providers={"issuer": provider},
        rules=[{"match": {"prefix": "/"}, "requires": {"provider_name": "issuer"}}],
    )
    name = {"header": {"name": CONSUMER_HEADER, "string_match": {"safe_regex": {"regex": _CONSUMER}}}}
    policy = {"permissions": [{"any": True}], "principals": [name]}
    is_named = typed(_RBAC, rules={"action": "ALLOW", "policies": {"named": policy}})
    filters = [{"name": "jwt_authn", "typed_config": check}, {"name": "rbac", "typed_config": is_named}]
    return {"filter_chain": {"typed_config": filters}}


def _run(filters: Json) -> Json:
    action = typed("envoy.extensions.filters.http.composite.v3.ExecuteFilterAction", **filters)
    return {"action": {"name": "composite", "typed_config": action}}


def _is_shown() -> Json:
    return {"or_matcher": {"predicate": [_has(name, ".*") for name in _KEY_HEADERS]}}


def _has(name: str, regex: str) -> Json:
    return {
        "single_predicate": {
            "input": {
                "name": "header",
                "typed_config": typed("envoy.type.matcher.v3.HttpRequestHeaderMatchInput", header_name=name),
            },
            "value_match": {"safe_regex": {"google_re2": {}, "regex": regex}},
        }
    }
