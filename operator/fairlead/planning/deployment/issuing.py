"""The certificate that the operator issues for an LLMDeployment's pods: whether the one that is there is good, and what must come next.

Pods and gateways take what the Secret holds minutes apart, each when its kubelet projects it. So a certificate is never shown before those
that check it can know who signed it: another authority comes into `ca.crt` first, the certificate by it `SETTLE` later, and the authority
before leaves when that has settled, too.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final

from cryptography import x509

from fairlead.api.conditions import Reason
from fairlead.api.names import ANNOTATION_TRUSTED_SINCE, issued_certificate_name
from fairlead.api.resource import Metadata
from fairlead.facts.certificates import Authority, KeyPair, WantedCertificate
from fairlead.facts.observed import ApplyFailure, ObjectKey
from fairlead.planning.authority import BACKDATED, decode
from fairlead.planning.deployment.metadata import is_ours, make_metadata
from fairlead.planning.plan import Child
from fairlead.planning.x509 import is_issued_by, is_valid, names_of, read_all, read_pair, to_pem

__all__ = ["SETTLE", "CertificatePlan", "make_certificate_child", "plan_certificate"]

Json = dict[str, Any]
LIFE: Final = timedelta(days=90)
#: In which every kubelet has projected a changed Secret: it looks each minute or two.
SETTLE: Final = timedelta(minutes=5)
_RETRY_S: Final = 60.0
#: Certificates that were made together are renewed over this part of their life.
_SPREAD: Final = 0.1


@dataclass(frozen=True, slots=True)
class CertificatePlan:
    """`wanted`: issue this first. Then the Secret holds it, else `kept`; without either there is none to write. `trusted` are the
    authorities in ca.crt, since `since`. `is_change`: not what is there. `next_s`: seconds until there is something to do again."""

    wanted: WantedCertificate | None = None
    kept: KeyPair | None = field(default=None, repr=False)
    trusted: tuple[str, ...] = ()
    since: str = ""
    is_change: bool = False
    next_s: float | None = None
    failure: ApplyFailure | None = None


@dataclass(frozen=True, slots=True)
class _Live:
    pair: KeyPair = field(repr=False)
    certificate: x509.Certificate
    issuer: x509.Certificate
    trusted: tuple[x509.Certificate, ...]
    since: datetime

    @property
    def spread(self) -> float:
        """From 0 to 1, another one for each certificate: so that not all of them are renewed at once."""
        number = str(self.certificate.serial_number).encode()
        return int.from_bytes(blake2b(number, digest_size=4).digest(), "big") / 2**32

    @property
    def due(self) -> datetime:
        """When it is renewed: at two thirds of its life, or a little earlier."""
        start, end = self.certificate.not_valid_before_utc, self.certificate.not_valid_after_utc
        return start + (end - start) * (2 / 3 - _SPREAD * self.spread)


def plan_certificate(
    owner: Metadata, live: Mapping[str, Any] | None, authority: Authority, now: datetime
) -> CertificatePlan:
    """`live`: the Secret as it is, whoever has it."""
    found = _read(owner, live) if live is not None and is_ours(live, owner) else None
    if not authority.certificates:
        return _without_authority(owner, found, authority, now)
    authorities = read_all("".join(authority.certificates))
    if found is None or not is_valid(found.certificate, now):
        trusted = authorities if found is None else _unite(authorities, [found.issuer, *found.trusted], now)
        return _issue(owner, trusted, now, _format(now))
    return _plan_next(owner, found, authorities, now)


def _plan_next(
    owner: Metadata, found: _Live, authorities: Sequence[x509.Certificate], now: datetime
) -> CertificatePlan:
    """For a certificate that is good: does what checks it know the authority of the next one, and is that one due?"""
    # A clock that was ahead when this was written must not stop everything until then.
    settles_at = found.since + SETTLE if found.since <= now + SETTLE else now
    others = [found.issuer, *(found.trusted if now < settles_at else ())]
    trusted = _unite(authorities, others, now)
    if authorities[0] not in found.trusted:
        return replace(_keep(found, trusted, _format(now), SETTLE), is_change=True)
    since = _format(found.since)
    if now < settles_at:
        return _keep(found, trusted, since, settles_at - now)
    if found.issuer not in authorities:  # its key is gone, and with it the way to renew anything
        due = settles_at + SETTLE * found.spread
        if now >= due:
            return _issue(owner, trusted, now, _format(now))
        return _keep(found, trusted, since, due - now)
    if now >= found.due:
        return _issue(owner, trusted, now, since)
    return _keep(found, trusted, since, found.due - now)


def make_certificate_child(owner: Metadata, plan: CertificatePlan, pair: KeyPair) -> Child:
    """The Secret. Its digest says no more of the key than the certificate does: it is over 256 random bits."""
    data = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": "".join(plan.trusted)}
    name = issued_certificate_name(owner.name)
    body: Json = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": make_metadata(owner, name, {ANNOTATION_TRUSTED_SINCE: plan.since}),
        "type": "kubernetes.io/tls",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }
    return Child.of(ObjectKey("Secret", owner.namespace, name), body)


def _without_authority(owner: Metadata, found: _Live | None, authority: Authority, now: datetime) -> CertificatePlan:
    is_good = found is not None and is_valid(found.certificate, now)
    failure = None
    if found is None or not is_good or now >= found.due:
        key = ObjectKey("Secret", owner.namespace, issued_certificate_name(owner.name))
        what = "cannot be renewed" if is_good else "is not issued"
        message = f"The certificate of the pods {what}: {authority.problem}"
        failure = ApplyFailure(
            key, Reason.CERTIFICATE_NOT_ISSUED.value, message, terminal=not is_good, is_sentence=True
        )
    if found is None:
        return CertificatePlan(next_s=_RETRY_S, failure=failure)
    next_s = _RETRY_S if failure is not None else (found.due - now).total_seconds()
    return CertificatePlan(
        None, found.pair, to_pem(found.trusted), _format(found.since), next_s=next_s, failure=failure
    )


def _read(owner: Metadata, live: Mapping[str, Any]) -> _Live | None:
    """What the Secret holds, if it is the pods' certificate, its key, and the authority that signed it."""
    data = decode(live)
    certificate, trusted = read_pair(data), read_all(data.get("ca.crt", ""))
    if certificate is None or not set(_names(owner)) <= names_of(certificate):
        return None
    issuer = next((one for one in trusted if is_issued_by(certificate, one)), None)
    if issuer is None:
        return None
    said = str((live["metadata"].get("annotations") or {}).get(ANNOTATION_TRUSTED_SINCE, ""))
    return _Live(KeyPair(data["tls.crt"], data["tls.key"]), certificate, issuer, trusted, _parse(said))


def _issue(owner: Metadata, trusted: Sequence[x509.Certificate], now: datetime, since: str) -> CertificatePlan:
    start = now.replace(microsecond=0) - BACKDATED
    wanted = WantedCertificate(_names(owner), start, start + LIFE)
    return CertificatePlan(wanted, None, to_pem(trusted), since, True, SETTLE.total_seconds())


def _keep(found: _Live, trusted: Sequence[x509.Certificate], since: str, wait: timedelta) -> CertificatePlan:
    return CertificatePlan(None, found.pair, to_pem(trusted), since, next_s=max(1.0, wait.total_seconds()))


def _names(owner: Metadata) -> tuple[str, ...]:
    """What gateways, and clients that call the Service, ask for."""
    return (f"{owner.name}.{owner.namespace}.svc",)


def _unite(
    authorities: Sequence[x509.Certificate], others: Sequence[x509.Certificate], now: datetime
) -> list[x509.Certificate]:
    more = {one for one in others if one not in authorities and now < one.not_valid_after_utc}
    return [*authorities, *sorted(more, key=lambda one: (one.not_valid_before_utc, one.serial_number))]


def _format(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parse(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return datetime(1970, 1, 1, tzinfo=UTC)
