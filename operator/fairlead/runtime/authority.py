"""The operator's certificate authority as its Secret has it: read when it is another one than before, and made when it is not there.

Only who leads comes here, since only who leads plans. Should a leader be replaced between the question and the write, nothing is lost by
it: the Secret is made only where there is none, and renewed only in the very state that was read. Whoever comes second reads what
the first has made.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from fairlead.api.names import AUTHORITY_SECRET, FIELD_MANAGER_AUTHORITY
from fairlead.errors import ApiError, Conflict
from fairlead.facts.certificates import Authority, KeyPair, WantedAuthority, WantedCertificate
from fairlead.facts.observed import ObjectKey
from fairlead.kube.cache import Cache
from fairlead.kube.client import CREATE_ONLY_RESOURCE_VERSION, ApiClient
from fairlead.kube.resources import SECRET
from fairlead.planning.authority import decode, make_authority_secret, plan_authority
from fairlead.runtime.issuing import issue_certificate, make_authority
from fairlead.runtime.refusals import is_transient

__all__ = ["CertificateAuthority"]

logger = logging.getLogger(__name__)

#: How long a refusal by the API server is taken for its answer.
REFUSED_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class _Known:
    version: str
    data: Mapping[str, str] = field(repr=False)


class CertificateAuthority:
    """Of the operator in this namespace. The cache holds no more of the Secret than its metadata."""

    def __init__(self, namespace: str, cache: Cache, client: ApiClient) -> None:
        self._namespace = namespace
        self._key = ObjectKey(SECRET.kind, namespace, AUTHORITY_SECRET)
        self._cache = cache
        self._client = client
        self._lock = asyncio.Lock()
        self._known: _Known | None = None
        self._refused: tuple[datetime, str] | None = None

    async def read(self, now: datetime) -> Authority:
        """What may sign now; made or renewed before, if it must be. Raises ApiError for what passes by itself; what does not is told."""
        async with self._lock:
            if self._refused is not None and 0.0 <= (now - self._refused[0]).total_seconds() < REFUSED_S:
                return Authority(problem=self._refused[1])
            try:
                authority = await self._read(now)
            except ApiError as error:
                if is_transient(error):
                    raise
                problem = (
                    f"Secret {AUTHORITY_SECRET} in namespace {self._namespace} cannot be read or made: {error.message}."
                    " Next: give the operator the rights of its release there (docs/operations.md)."
                )
                self._refused = (now, problem)
                return Authority(problem=problem)
            self._refused = None
            return authority

    def issue(self, wanted: WantedCertificate) -> KeyPair:
        """A certificate by the authority that `read` has told of."""
        assert self._known is not None
        data = self._known.data
        return issue_certificate(wanted, KeyPair(data["tls.crt"], data["tls.key"]))

    async def _read(self, now: datetime) -> Authority:
        known = await self._find()
        plan = plan_authority(known.data if known is not None else None, now, self._namespace)
        if plan.wanted is None:
            return plan.authority
        try:
            known = await self._write(plan.wanted, known)
        except Conflict:
            known = await self._find(again=True)  # somebody was first
            if known is None:
                raise  # and is gone again
        return plan_authority(known.data, now, self._namespace).authority

    async def _find(self, *, again: bool = False) -> _Known | None:
        """The Secret as it is; read only when the cache knows of another version than the one that was read last."""
        entry = self._cache.get(self._key)
        version = f"{entry.uid}/{entry.resource_version}" if entry is not None else ""
        if not again and self._known is not None and self._known.version == version:
            return self._known
        live = await self._client.find(SECRET, self._namespace, AUTHORITY_SECRET)
        self._known = self._remember(live) if live is not None else None
        return self._known

    async def _write(self, wanted: WantedAuthority, known: _Known | None) -> _Known:
        body = make_authority_secret(self._namespace, make_authority(wanted), wanted.retired)
        if known is None:
            precondition = {"resourceVersion": CREATE_ONLY_RESOURCE_VERSION}
        else:
            uid, _, version = known.version.partition("/")
            precondition = {"uid": uid, "resourceVersion": version}
        body["metadata"] |= precondition
        applied = await self._client.apply(
            SECRET,
            self._namespace,
            AUTHORITY_SECRET,
            body,
            field_manager=FIELD_MANAGER_AUTHORITY,
            force=known is not None,
        )
        logger.info("A certificate authority was %s", "made" if known is None else "renewed")
        self._known = self._remember(applied.object)
        return self._known

    def _remember(self, live: Mapping[str, Any]) -> _Known:
        """Its metadata goes into the cache as the watch will bring it."""
        metadata = live["metadata"]
        self._cache.put({"kind": "PartialObjectMetadata", "metadata": metadata}, SECRET.kind)
        return _Known(f"{metadata['uid']}/{metadata['resourceVersion']}", decode(live))
