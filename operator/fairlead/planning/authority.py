"""The operator's certificate authority: one Secret in its own namespace, which signs the certificates of engine pods.

It is made once and never overwritten by another one, unless it is renewed: then the certificate before stays among those that are trusted,
and only its key goes. Somebody's change that leaves no usable authority is told, not undone.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from fairlead.api.names import AUTHORITY_SECRET, COMPONENT_AUTHORITY, LABEL_COMPONENT, LABEL_NAME, MANAGED_BY
from fairlead.facts.certificates import Authority, KeyPair, WantedAuthority
from fairlead.planning.x509 import is_valid, read_all, read_pair, to_pem

__all__ = ["BACKDATED", "AuthorityPlan", "decode", "make_authority_secret", "plan_authority"]

Json = dict[str, Any]
LIFE: Final = timedelta(days=3650)
#: A certificate holds from a little before it was made: clocks differ, and jump.
BACKDATED: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class AuthorityPlan:
    """`authority`: what may be used now; `wanted`: what must be made first, in the place of what is there."""

    authority: Authority
    wanted: WantedAuthority | None = None


def plan_authority(data: Mapping[str, str] | None, now: datetime, namespace: str) -> AuthorityPlan:
    """What becomes of the Secret with this data, decoded; None: there is none. Renewed when less than a third of its life is left."""
    if data is None:
        return AuthorityPlan(Authority(), _want(now))
    current = read_pair(data)
    if current is None or not _may_sign(current):
        problem = (
            f"Secret {AUTHORITY_SECRET} in namespace {namespace} holds no certificate authority with its key in tls.crt and tls.key."
            f" Next: restore it, or have a new one made: kubectl delete secret {AUTHORITY_SECRET} -n {namespace}."
        )
        return AuthorityPlan(Authority(problem=problem))
    earlier = [one for one in read_all(data.get("ca.crt", "")) if one != current and now < one.not_valid_after_utc]
    life = current.not_valid_after_utc - current.not_valid_before_utc
    if not is_valid(current, now) or current.not_valid_after_utc - now < life / 3:
        kept = [current, *earlier] if now < current.not_valid_after_utc else earlier
        return AuthorityPlan(Authority(), _want(now, to_pem(kept)))
    return AuthorityPlan(Authority(to_pem([current, *earlier])))


def make_authority_secret(namespace: str, pair: KeyPair, retired: tuple[str, ...]) -> Json:
    """The Secret. It is labelled as ours, but not as managed: what is managed is cached, and this key is needed seldom."""
    data = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": "".join((pair.certificate, *retired))}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": AUTHORITY_SECRET,
            "namespace": namespace,
            "labels": {LABEL_NAME: MANAGED_BY, LABEL_COMPONENT: COMPONENT_AUTHORITY},
        },
        "type": "kubernetes.io/tls",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }


def decode(secret: Mapping[str, Any]) -> dict[str, str]:
    """The values of a Secret as text; what is none is left out."""
    found: dict[str, str] = {}
    for key, value in (secret.get("data") or {}).items():
        try:
            found[str(key)] = base64.b64decode(str(value), validate=True).decode()
        except ValueError:
            continue
    return found


def _want(now: datetime, retired: tuple[str, ...] = ()) -> WantedAuthority:
    start = now.replace(microsecond=0) - BACKDATED
    return WantedAuthority(start, start + LIFE, retired)


def _may_sign(certificate: x509.Certificate) -> bool:
    if not isinstance(certificate.public_key(), ec.EllipticCurvePublicKey):
        return False
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
