"""What the audit log says about several replicas: who wrote when, who took over when, and what should not have happened."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fairlead_cluster.audit import AuditLog, AuditMark, AuditRecord
from fairlead_cluster.operators import OPERATOR_NAMESPACE

#: How late a replica may hear of a deletion, and still have made something after it without fault.
HEARING_S = 2.0
FAR = datetime.max.replace(tzinfo=UTC)
_CHILDREN = ("deployments", "services", "networkpolicies", "poddisruptionbudgets", "persistentvolumeclaims")


@dataclass(frozen=True)
class Turn:
    """An unbroken run of writes by one replica, by the arrival of its requests."""

    user: str
    first: datetime
    last: datetime
    writes: int

    def __str__(self) -> str:
        who = self.user.rpartition(":")[2]
        return f"{who}: {self.writes} writes {self.first:%H:%M:%S.%f} to {self.last:%H:%M:%S.%f}"


@dataclass(frozen=True)
class Judge:
    """The audit log since `since`, for the writes of `users` in `namespace`."""

    audit: AuditLog
    since: AuditMark
    namespace: str
    users: Collection[str]

    def writes(self) -> list[AuditRecord]:
        """All writes in the namespace, Events included, by arrival."""
        records = self.audit.records(user=self.users, namespace=self.namespace, since=self.since)
        return sorted((record for record in records if record.is_write), key=lambda record: record.received_at)

    def effects_on_children(self) -> list[AuditRecord]:
        """The writes that changed a child, or could have: those that were not refused."""
        return [record for record in self.writes() if record.resource in _CHILDREN and record.code < 300]

    def turns(self, *, frozen: bool = False) -> list[Turn]:
        """Who wrote from when to when.

        `frozen`: a leader was frozen and thawed. No process can ask the clock and send a request in one instant, so what was
        between the two comes late; then only what changed a child counts. The server refuses it unless nothing has happened.
        """
        turns: list[Turn] = []
        for record in self.effects_on_children() if frozen else self.writes():
            if turns and turns[-1].user == record.user:
                turns[-1] = Turn(record.user, turns[-1].first, record.received_at, turns[-1].writes + 1)
            else:
                turns.append(Turn(record.user, record.received_at, record.received_at, 1))
        return turns

    def lease_writes(self, user: str) -> list[AuditRecord]:
        """When this replica got or renewed the Lease (also when it gave it away)."""
        records = self.audit.records(
            user=user, namespace=OPERATOR_NAMESPACE, resource="leases", verb=("create", "update"), since=self.since
        )
        return sorted((r for r in records if r.code in (200, 201)), key=lambda record: record.received_at)

    def took_over_s(self, user: str, since: datetime) -> float | None:
        """Seconds from `since` until this replica had the Lease; None as long as it has not."""
        times = [record.received_at for record in self.lease_writes(user) if record.received_at >= since]
        return (times[0] - since).total_seconds() if times else None

    def writes_beyond_lease(self, user: str, duration_s: float, *, frozen: bool = False) -> list[str]:
        """Writes of a replica that arrived when its last renewal before them was older than the Lease lasts."""
        renewals = [record.received_at for record in self.lease_writes(user)]
        late = []
        for record in self.effects_on_children() if frozen else self.writes():
            if record.user != user:
                continue
            before = [time for time in renewals if time <= record.received_at]
            age_s = (record.received_at - before[-1]).total_seconds() if before else float("inf")
            if age_s > duration_s:
                late.append(f"{record} {age_s:.1f} s after its last renewal")
        return late

    def made_after_deletion(self) -> list[str]:
        """Children made when their LLMDeployment had been deleted long enough for everybody to know."""
        records = self.audit.records(namespace=self.namespace, since=self.since)
        lives = _lives_of([record for record in records if record.resource == "llmdeployments"])
        late = []
        for record in records:
            if record.user in self.users and record.resource in _CHILDREN and record.code == 201:
                name = record.name.removesuffix("-pods").removesuffix("-cache")
                if not _is_alive(lives.get(name, []), record.received_at):
                    late.append(f"{record} at {record.received_at:%H:%M:%S.%f}")
        return late

    def unexplained_refusals(self) -> list[str]:
        """Writes to children that were answered with 409 although nobody else had touched the object just before.

        Every write carries what it was decided from, so a refusal is the price of being a moment late. One without such a
        moment is a replica that does not know what is there: it makes a child a second time.
        """
        touched: dict[tuple[str, str], list[datetime]] = {}
        refused = []
        for record in self.audit.records(namespace=self.namespace, since=self.since):
            resource = record.resource.removesuffix("/status")
            if not record.is_write or resource not in _CHILDREN:
                continue
            if record.code < 300:
                touched.setdefault((resource, record.name), []).append(record.stage_at)
            elif record.code == 409 and record.user in self.users:
                refused.append(record)
        slack = timedelta(seconds=HEARING_S)
        return [
            f"{record} at {record.received_at:%H:%M:%S.%f}"
            for record in refused
            if not any(
                record.received_at - slack <= at <= record.stage_at + slack
                for at in touched.get((record.resource, record.name), ())
            )
        ]


def _lives_of(records: Sequence[AuditRecord]) -> dict[str, list[tuple[datetime, datetime]]]:
    """Per name of an LLMDeployment: from when to when there was one."""
    lives: dict[str, list[tuple[datetime, datetime]]] = {}
    for record in sorted(records, key=lambda record: record.stage_at):
        spans = lives.setdefault(record.name, [])
        if record.verb in ("create", "patch") and record.code == 201:
            spans.append((record.received_at, FAR))
        elif record.verb == "delete" and record.code == 200 and spans:
            spans[-1] = (spans[-1][0], record.stage_at)
    return lives


def _is_alive(spans: Sequence[tuple[datetime, datetime]], at: datetime) -> bool:
    slack = timedelta(seconds=HEARING_S)
    return any(begin <= at <= (end if end == FAR else end + slack) for begin, end in spans)
