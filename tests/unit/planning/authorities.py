"""A certificate authority without an API server, and the Secrets that pods' certificates live in, for tests of what is decided."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from fairlead.api.resource import Metadata
from fairlead.facts.certificates import Authority, KeyPair, WantedAuthority, WantedCertificate
from fairlead.planning.authority import BACKDATED, LIFE
from fairlead.planning.deployment.issuing import CertificatePlan, make_certificate_child, plan_certificate
from fairlead.runtime.issuing import issue_certificate, make_authority

Json = dict[str, Any]


class LocalAuthority:
    """Made when it is first asked; `renew` and `lose` make another one, which trusts the one before or does not know of it."""

    def __init__(self, now: datetime | None = None) -> None:
        self.pairs: list[KeyPair] = []
        self.problem = ""
        if now is not None:
            self.make(now)

    def make(self, now: datetime) -> KeyPair:
        """One more, the newest first."""
        start = now - BACKDATED
        self.pairs.insert(0, make_authority(WantedAuthority(start, start + LIFE)))
        return self.pairs[0]

    def lose(self, now: datetime) -> None:
        """The Secret is gone, and a new one was made."""
        self.pairs.clear()
        self.make(now)

    @property
    def now(self) -> Authority:
        """As decisions see it."""
        if self.problem:
            return Authority(problem=self.problem)
        return Authority(tuple(pair.certificate for pair in self.pairs))

    async def read(self, now: datetime) -> Authority:
        """As the operator's."""
        if not self.pairs:
            self.make(now)
        return self.now

    def issue(self, wanted: WantedCertificate) -> KeyPair:
        """By the newest."""
        return issue_certificate(wanted, self.pairs[0])


def carry_out(owner: Metadata, plan: CertificatePlan, authority: LocalAuthority) -> Json | None:
    """The Secret after the plan, as the API server would have it."""
    pair = authority.issue(plan.wanted) if plan.wanted is not None else plan.kept
    return dict(make_certificate_child(owner, plan, pair).body) if pair is not None else None


def live_for(
    owner: Metadata,
    live: Mapping[str, Any] | None,
    authority: LocalAuthority,
    start: datetime,
    duration: timedelta,
    step: timedelta = timedelta(minutes=1),
) -> list[tuple[datetime, Json]]:
    """Every Secret from then on, and since when, if passes come in steps."""
    seen: list[tuple[datetime, Json]] = []
    now = start
    while now < start + duration:
        body = carry_out(owner, plan_certificate(owner, live, authority.now, now), authority)
        assert body is not None
        if body != live:
            seen.append((now, body))
            live = body
        now += step
    return seen
