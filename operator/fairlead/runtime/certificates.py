"""Certificates of engine pods that the operator issues itself: what `planning` decides about them is carried out here, and what it made is
remembered until it is seen to be there, so that a write that fails is repeated and not made up anew."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from fairlead.api.names import issued_certificate_name
from fairlead.api.resource import Metadata
from fairlead.facts.certificates import Authority, KeyPair, WantedCertificate
from fairlead.facts.observed import ApplyFailure, ObjectKey, Observed
from fairlead.kube.resources import SECRET
from fairlead.planning.ownership import is_ours
from fairlead.planning.plan import Child, Plan

__all__ = ["Certificates", "Issuer", "Prepared", "is_issued_to"]

#: Enough for those that are being written at once.
_KEPT: Final = 256
#: After that long what was not taken is made anew: its life has begun.
_FRESH: Final = timedelta(hours=1)


class Issuer(Protocol):
    """The operator's certificate authority."""

    async def read(self, now: datetime) -> Authority:
        """What may sign now."""

    def issue(self, wanted: WantedCertificate) -> KeyPair:
        """By that, a certificate."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a plan is completed with. `has_live`: its Secret is there already."""

    child: Child | None = None
    failure: ApplyFailure | None = None
    next_s: float | None = None
    has_live: bool = False

    def show(self, observed: Observed) -> Observed:
        """What may be planned with: why there is no certificate, and no key of one."""
        children = {key: live for key, live in observed.children.items() if key.kind != SECRET.kind}
        failures = (*observed.failures, *([self.failure] if self.failure is not None else []))
        return replace(observed, children=children, failures=failures)

    def complete(self, plan: Plan) -> Plan:
        """The plan with the certificate, which pods need before anything else. Of a custom resource that cannot be carried out, what runs
        goes on running: its certificate is renewed, and none is made for it."""
        if self.child is None or not (plan.children or self.has_live):
            return self._again(plan)
        return self._again(replace(plan, children=(self.child, *plan.children)))

    def _again(self, plan: Plan) -> Plan:
        waits = [wait for wait in (self.next_s, plan.requeue_after_s) if wait is not None]
        return replace(plan, requeue_after_s=min(waits)) if waits else plan


@dataclass(frozen=True, slots=True)
class _Pending:
    plan: Any
    pair: KeyPair = field(repr=False)
    made_at: datetime


def is_issued_to(raw: Mapping[str, Any]) -> bool:
    """Whether this custom resource asks for TLS and names no certificate. It need not be valid."""
    spec = raw.get("spec")
    encryption = spec.get("encryption") if isinstance(spec, Mapping) else None
    return isinstance(encryption, Mapping) and encryption.get("certificate") is None


def _names(raw: Mapping[str, Any], secret: str) -> bool:
    """Whether it names this one as if it were its own: what was issued before goes on being renewed."""
    spec = raw.get("spec")
    encryption = spec.get("encryption") if isinstance(spec, Mapping) else None
    certificate = encryption.get("certificate") if isinstance(encryption, Mapping) else None
    return isinstance(certificate, Mapping) and certificate.get("secretName") == secret


class Certificates:
    """For all LLMDeployments. The issuer is made, and what reads certificates imported, with the first that needs it: that takes some
    megabytes, which most installations need not spend."""

    def __init__(self, make_issuer: Callable[[], Issuer]) -> None:
        self._make_issuer = make_issuer
        self._made: Issuer | None = None
        self._pending: OrderedDict[str, _Pending] = OrderedDict()

    async def prepare(self, raw: Mapping[str, Any], observed: Observed, now: datetime) -> Prepared:
        """What this pass writes and tells of the certificate. Raises ApiError when the authority cannot be read now."""
        metadata = Metadata.of(raw)
        key = ObjectKey(SECRET.kind, metadata.namespace, issued_certificate_name(metadata.name))
        live = observed.children.get(key)
        has_live = live is not None and is_ours(live, metadata)
        is_wanted = is_issued_to(raw) or (has_live and _names(raw, key.name))
        if not is_wanted or metadata.deletion_timestamp:
            return Prepared()
        from fairlead.planning.deployment.issuing import make_certificate_child, plan_certificate

        plan = plan_certificate(metadata, live, await self._issuer().read(now), now)
        pair = plan.kept
        if plan.is_change:
            pending = self._recall(metadata.uid, plan, now)
            plan, pair = replace(pending.plan, next_s=plan.next_s), pending.pair
        else:
            self._pending.pop(metadata.uid, None)
        child = make_certificate_child(metadata, plan, pair) if pair is not None else None
        return Prepared(child, plan.failure, plan.next_s, has_live)

    def _issuer(self) -> Issuer:
        if self._made is None:
            self._made = self._make_issuer()
        return self._made

    def _recall(self, uid: str, plan: Any, now: datetime) -> _Pending:
        known = self._pending.pop(uid, None)
        if known is None or not _is_same(known, plan) or not timedelta() <= now - known.made_at < _FRESH:
            known = _Pending(plan, plan.kept or self._issuer().issue(plan.wanted), now)
        self._pending[uid] = known
        if len(self._pending) > _KEPT:
            self._pending.popitem(last=False)
        return known


def _is_same(known: _Pending, plan: Any) -> bool:
    """Whether what was made is what is wanted, whenever that was said."""
    is_made = (known.plan.wanted is None, known.plan.kept) == (plan.wanted is None, plan.kept)
    return is_made and known.plan.trusted == plan.trusted
