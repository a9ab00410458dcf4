"""An issuer of tokens: keys, the JWKS that others check with, and tokens of any form."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

__all__ = ["AUDIENCE", "ISSUER", "SigningKey", "make_jwks", "make_token"]

Json = dict[str, Any]
ISSUER, AUDIENCE = "https://id.example.com", "assistants"


class SigningKey:
    """`alg`: ES256, RS256 or EdDSA."""

    def __init__(self, kid: str, alg: str = "ES256") -> None:
        self.kid, self.alg = kid, alg
        self._ec = ec.generate_private_key(ec.SECP256R1()) if alg == "ES256" else None
        self._rsa = rsa.generate_private_key(65537, 2048) if alg == "RS256" else None
        self._ed = ed25519.Ed25519PrivateKey.generate() if alg == "EdDSA" else None

    @property
    def public(self) -> Json:
        """As a JWKS lists it."""
        base = {"kid": self.kid, "alg": self.alg, "use": "sig"}
        if self._ec is not None:
            point = self._ec.public_key().public_numbers()
            return {**base, "kty": "EC", "crv": "P-256", "x": _number(point.x, 32), "y": _number(point.y, 32)}
        if self._rsa is not None:
            modulus = self._rsa.public_key().public_numbers()
            return {**base, "kty": "RSA", "n": _number(modulus.n, 256), "e": _number(modulus.e, 3)}
        assert self._ed is not None
        return {**base, "kty": "OKP", "crv": "Ed25519", "x": _text(self._ed.public_key().public_bytes_raw())}

    def sign(self, data: bytes) -> bytes:
        """The signature as a token carries it."""
        if self._ec is not None:
            r, s = decode_dss_signature(self._ec.sign(data, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        if self._rsa is not None:
            return self._rsa.sign(data, padding.PKCS1v15(), hashes.SHA256())
        assert self._ed is not None
        return self._ed.sign(data)


def make_jwks(*keys: SigningKey) -> str:
    """The text that an issuer publishes."""
    return json.dumps({"keys": [key.public for key in keys]})


def make_token(key: SigningKey, consumer: Any = "team-a", *, alg: str = "", secret: bytes = b"", **claims: Any) -> str:
    """For an hour. A claim that is None is left out; `alg` none leaves the signature away, HS256 signs with `secret`."""
    payload = {"iss": ISSUER, "aud": AUDIENCE, "sub": consumer, "exp": int(time.time()) + 3600, **claims}
    head = _json({"alg": alg or key.alg, "typ": "JWT", "kid": key.kid})
    body = _json({name: value for name, value in payload.items() if value is not None})
    signed = f"{head}.{body}".encode()
    if alg == "none":
        return f"{head}.{body}."
    if alg == "HS256":
        return f"{head}.{body}.{_text(hmac.new(secret, signed, hashlib.sha256).digest())}"
    return f"{head}.{body}.{_text(key.sign(signed))}"


def _json(value: Json) -> str:
    return _text(json.dumps(value).encode())


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _number(value: int, size: int) -> str:
    return _text(value.to_bytes(size, "big"))
