"""Leader election by a Lease: one replica works, the others stand by with warm caches.

How old a Lease is counts by this process's own monotonic clock since it last saw the Lease change, never by the times in
it: clocks of nodes differ and jump. A leader that could not renew within the deadline stops leading before anybody else
may start; and since a process can be frozen between two instructions, `is_leader` asks the clock each time it is called.

People touch the Lease too. Whoever deletes it, or erases the holder, does not stop the holder, which hears of it at its next
renewal: the others wait as if nothing had been done. Only a Lease that its holder gave away is free at once.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from fairlead.errors import ApiError, Conflict, NotFound
from fairlead.kube.client import ApiClient
from fairlead.kube.resources import LEASE

logger = logging.getLogger(__name__)

FIELD_MANAGER: Final = "fairlead-leader-election"
RELEASE_TIMEOUT_S: Final = 3.0
_DEFAULT_LEASE_DURATION_S: Final = 15.0
#: A Lease without a holder that lasts so long was given away by its holder (client-go marks it in the same way).
_GIVEN_AWAY_S: Final = 1


@dataclass(frozen=True, slots=True)
class LeaseTimings:
    """In seconds: a silent leader is replaced after `duration_s`; it stops itself after `deadline_s`; all try every `retry_s`."""

    duration_s: float = 15.0
    deadline_s: float = 10.0
    retry_s: float = 2.0


@dataclass(frozen=True, slots=True)
class LeaseView:
    """What a replica knows of the Lease, for people: who holds it ("": nobody), how often it changed hands, and how many seconds ago
    it was renewed, by this process's own clock."""

    holder: str
    transitions: int
    renewed_ago_s: float


class LeaderElector:
    """Takes part in one election until `release`. `on_change` is called with True and False in turn, in the loop."""

    def __init__(
        self,
        client: ApiClient,
        *,
        namespace: str,
        name: str,
        identity: str,
        on_change: Callable[[bool], None],
        clock: Callable[[], float],
        timings: LeaseTimings | None = None,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._on_change = on_change
        self._clock = clock
        self._timings = timings or LeaseTimings()
        self._wall = wall
        self._jitter = jitter
        self._lease: dict[str, Any] | None = None  # as last seen, perhaps deleted since
        self._exists = False
        self._seen_at = float("-inf")  # when it last changed, by our clock
        self._renewed_at = float("-inf")
        self._leading = False

    @property
    def is_leader(self) -> bool:
        """Whether this replica may write at this very moment."""
        return self._leading and self._clock() - self._renewed_at < self._timings.deadline_s

    @property
    def view(self) -> LeaseView | None:
        """The Lease as last seen; None before the first look, or when there is none."""
        if self._lease is None or not self._exists:
            return None
        seen_at = self._renewed_at if self._leading else self._seen_at
        transitions = int(self._lease.get("spec", {}).get("leaseTransitions") or 0)
        return LeaseView(self._holder(), transitions, self._clock() - seen_at)

    async def run(self) -> None:
        """Try, renew, lose, try again; until cancelled."""
        while True:
            started_at = self._clock()
            try:
                async with asyncio.timeout(self._timeout_s()):
                    await self._try()
            except (ApiError, TimeoutError) as error:
                logger.warning("Lease %s/%s: %s", self._namespace, self._name, str(error) or "no answer in time")
            self._check_deadline()
            pause_s = self._timings.retry_s * (1 + 0.2 * self._jitter())
            if self._leading:
                # The next renewal must end before the deadline, however slow the last one was.
                pause_s = min(pause_s, max(0.05, self._renewed_at + self._timings.deadline_s - self._clock()))
            await asyncio.sleep(max(0.05, pause_s - (self._clock() - started_at)))

    async def release(self) -> None:
        """Stop leading and give the Lease away, so that the next leader need not wait for it to expire."""
        was_leading = self._leading
        self._set(False)
        if not was_leading or self._lease is None:
            return
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                await self._give_away()
            logger.info("Lease %s/%s released", self._namespace, self._name)
        except (ApiError, TimeoutError) as error:
            logger.warning("Lease %s/%s was not released and will expire: %s", self._namespace, self._name, error)

    async def _give_away(self) -> None:
        try:
            await self._replace(holder="", duration_s=_GIVEN_AWAY_S)
        except Conflict:
            # A renewal was still under way when the stop began: it took place, and its answer did not reach us.
            await self._look()
            if self._holder() != self._identity:
                raise
            await self._replace(holder="", duration_s=_GIVEN_AWAY_S)

    async def _replace(self, holder: str, duration_s: float) -> dict[str, Any]:
        body = self._make_lease(self._lease, holder, duration_s)
        return await self._client.replace(LEASE, self._namespace, self._name, body)

    def _timeout_s(self) -> float:
        if not self._leading:
            return self._timings.deadline_s
        return max(0.05, self._renewed_at + self._timings.deadline_s - self._clock())

    async def _try(self) -> None:
        if not self._leading:
            await self._look()
        if self._is_taken():
            return
        if self._exists:
            await self._renew()
        else:
            await self._make()

    async def _make(self) -> None:
        started_at = self._clock()
        body = self._make_lease(None, self._identity, self._timings.duration_s)
        try:
            self._take(await self._client.create(LEASE, self._namespace, body, field_manager=FIELD_MANAGER), started_at)
        except Conflict:
            logger.debug("Another replica made the Lease first")
            await self._look_again()

    async def _renew(self) -> None:
        # The time before the request counts: it may have reached the server at once and come back late.
        started_at = self._clock()
        try:
            self._take(await self._replace(self._identity, self._timings.duration_s), started_at)
        except NotFound:
            await self._make()
        except Conflict:
            await self._look_again()

    async def _look_again(self) -> None:
        """Somebody else wrote the Lease."""
        await self._look()
        if self._holder() not in ("", self._identity):
            self._set(False)

    async def _look(self) -> None:
        try:
            seen = await self._client.get(LEASE, self._namespace, self._name)
        except NotFound:
            self._exists = False
            return
        if self._lease is None or seen["metadata"]["resourceVersion"] != self._lease["metadata"]["resourceVersion"]:
            self._seen_at = self._clock()
        self._lease, self._exists = seen, True

    def _is_taken(self) -> bool:
        """Whether somebody else may be leading right now."""
        if self._lease is None or self._holder() == self._identity:
            return False
        if self._holder() == "" and (self._leading or self._duration_s() == _GIVEN_AWAY_S):
            return False
        return self._clock() - self._seen_at < self._duration_s()

    def _take(self, lease: dict[str, Any], started_at: float) -> None:
        self._lease, self._exists = lease, True
        self._seen_at = self._renewed_at = started_at
        self._set(True)

    def _check_deadline(self) -> None:
        if self._leading and self._clock() - self._renewed_at >= self._timings.deadline_s:
            logger.error("Lease %s/%s could not be renewed in time", self._namespace, self._name)
            self._set(False)

    def _set(self, leading: bool) -> None:
        if leading != self._leading:
            self._leading = leading
            logger.info("Leading" if leading else "No longer leading", extra={"identity": self._identity})
            self._on_change(leading)

    def _holder(self) -> str:
        return str((self._lease or {}).get("spec", {}).get("holderIdentity") or "")

    def _duration_s(self) -> float:
        spec = (self._lease or {}).get("spec", {})
        return float(spec.get("leaseDurationSeconds") or _DEFAULT_LEASE_DURATION_S)

    def _make_lease(self, current: dict[str, Any] | None, holder: str, duration_s: float) -> dict[str, Any]:
        now = self._wall().isoformat(timespec="microseconds").replace("+00:00", "Z")
        old = (current or {}).get("spec", {})
        same = old.get("holderIdentity") == holder
        metadata: dict[str, Any] = {"name": self._name, "namespace": self._namespace}
        if current is not None:
            metadata["resourceVersion"] = current["metadata"]["resourceVersion"]
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": metadata,
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": max(1, round(duration_s)),
                "acquireTime": old.get("acquireTime", now) if same else now,
                "renewTime": now,
                "leaseTransitions": int(old.get("leaseTransitions") or 0) + (0 if same or not holder else 1),
            },
        }
