"""Callers with signed tokens (JWT): whose signatures count, from the Secret or ConfigMap with the issuer's public keys (JWKS)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from fairlead.api.names import LABEL_USE, USE_JWKS
from fairlead.api.resource import LLMRoute
from fairlead.api.route import JWKSSpec
from fairlead.facts.route import RouteFacts
from fairlead.gateway.envoy.clients import TokenIssuer

__all__ = ["Tokens", "locate_keys", "read_tokens"]

Json = dict[str, Any]
_MAX_BYTES: Final = 64 * 1024
_MAX_KEYS: Final = 64
#: Kind of a key -> members that it must have. Symmetric keys (oct) are none: whoever checks with them could sign.
_NEEDED: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
#: Curve -> the algorithm that goes with it, and the characters of a coordinate.
_CURVES: Final = {
    "EC": {"P-256": ("ES256", 43), "P-384": ("ES384", 64), "P-521": ("ES512", 88)},
    "OKP": {"Ed25519": ("EdDSA", 43)},
}
_RSA_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
#: Of a modulus of 2,048 bits, in characters.
_MIN_MODULUS: Final = 342
#: What the gateway is given of a key. Private members are left out, should somebody have put them there.
_PUBLIC: Final = ("kty", "kid", "alg", "use", "crv", "x", "y", "n", "e")
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]{3,2048}")


@dataclass(frozen=True, slots=True)
class Tokens:
    """`issuer` None: this route takes no tokens. `version` changes with what is let in; `problem`: why no or not every signature counts,
    and what mends it."""

    issuer: TokenIssuer | None = None
    version: str = ""
    problem: str = ""


def locate_keys(jwks: JWKSSpec) -> tuple[str, str, str]:
    """Kind and name of the object, and the key of its data."""
    if jwks.secret_ref is not None:
        return "Secret", jwks.secret_ref.name, jwks.secret_ref.key
    assert jwks.config_map_ref is not None
    return "ConfigMap", jwks.config_map_ref.name, jwks.config_map_ref.key


def read_tokens(route: LLMRoute, facts: RouteFacts) -> Tokens:
    """Whose tokens are let in. With keys that are missing or cannot be read nobody's are (law 5)."""
    spec = route.spec.authentication.jwt
    if spec is None:
        return Tokens()
    keys, problem = _find_keys(spec.jwks, facts)
    issuer = TokenIssuer(spec.issuer, tuple(sorted(spec.audiences)), spec.consumer_claim, tuple(keys))
    words = json.dumps([issuer.issuer, issuer.audiences, issuer.claim, keys])
    return Tokens(issuer, blake2b(words.encode(), digest_size=8).hexdigest(), problem)


def _find_keys(jwks: JWKSSpec, facts: RouteFacts) -> tuple[list[Json], str]:
    kind, name, key = locate_keys(jwks)
    found = facts.key_set
    label = f"kubectl label {kind.lower()} {name} {LABEL_USE}={USE_JWKS}"
    if found is None or (found.kind, found.name) != (kind, name) or found.use != USE_JWKS:
        what = f"is not there, or is not labelled {LABEL_USE}={USE_JWKS}, so no token is let in"
        return [], f"{kind} {name} {what}. Next: create it, then {label}."
    if found.text is None:
        return [], f"{kind} {name} has no key {key}, so no token is let in. Next: add it, or correct the reference."
    keys, wrong = _read_keys(found.text)
    if not keys:
        return [], f"{kind} {name}, key {key}: {wrong}, so no token is let in. Next: put the issuer's JWKS there."
    return keys, f"{kind} {name}, key {key}: {wrong}. Next: correct it." if wrong else ""


def _read_keys(text: bytes) -> tuple[list[Json], str]:
    """Usable keys, and what is wrong with the others."""
    if len(text) > _MAX_BYTES:
        return [], f"has more than {_MAX_BYTES // 1024} KiB"
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return [], "is no JSON"
    listed = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(listed, list) or not listed:
        return [], "is no JWKS, which has a list called keys"
    if len(listed) > _MAX_KEYS:
        return [], f"has more than {_MAX_KEYS} keys"
    keys = [_public_part(key) for key in listed if _is_usable(key)]
    wrong = len(listed) - len(keys)
    return keys, f"{wrong} of {len(listed)} keys cannot be used (RSA, EC and Ed25519 can)" if wrong else ""


def _is_usable(key: Any) -> bool:
    kind = key.get("kty") if isinstance(key, Mapping) else None
    if not isinstance(kind, str) or kind not in _NEEDED or key.get("use", "sig") != "sig":
        return False
    if not all(_is_plain(key.get(name, "")) for name in _PUBLIC):
        return False
    if not all(_BASE64URL.fullmatch(key.get(name, "")) for name in _NEEDED[kind] if name != "crv"):
        return False
    if kind == "RSA":
        return len(key["n"]) >= _MIN_MODULUS and key.get("alg", "RS256") in _RSA_ALGORITHMS
    algorithm, size = _CURVES[kind].get(key.get("crv", ""), ("", 0))
    return key.get("alg", algorithm) == algorithm and all(len(key[name]) == size for name in _NEEDED[kind][1:])


def _is_plain(value: Any) -> bool:
    """What Envoy's file can hold: half of a surrogate pair, for one, is no text."""
    return isinstance(value, str) and value.isascii() and (value.isprintable() or not value)


def _public_part(key: Mapping[str, Any]) -> Json:
    return {name: key[name] for name in _PUBLIC if name in key}
