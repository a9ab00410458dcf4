"""The book of causes: whatever the soak does to the cluster is entered before it is done, and every write of the operator must be
explained by an entry of the same round, or it is a write that nobody can explain.

A round ends only when the cluster is as it should be and the operator is quiet, so nothing that one round caused can be written in
the next. How much an entry explains is limited too: an operator that writes an edited child ten times is not excused by one edit.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tests.soak.fleet import owner_name

from fairlead_cluster.audit import AuditRecord

RESOURCES = "llmdeployments"
CHILDREN = ("deployments", "services", "persistentvolumeclaims", "poddisruptionbudgets", "networkpolicies")
#: Writes of one child that one cause may explain: a list that was edited by hand is put back by two (replace, then apply).
WRITES_PER_CAUSE = 2
#: Statuses that one cause may explain: pods leave, come, are ready, and each may be told once.
STATUSES_PER_CAUSE = 6
#: Stamps of the API server and of this process are of one clock, but taken at the two ends of a request.
SKEW_S = 0.25


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that was done to one object: `resource` is the plural, `pods` for pods (then `name` is the model's)."""

    at: datetime
    resource: str
    namespace: str
    name: str
    what: str
    harmless: bool = (
        False  # a note on a child: it explains nothing but a status that a cut network left in the middle of it
    )

    @property
    def owner(self) -> tuple[str, str]:
        """The model that it concerns."""
        return (
            self.namespace,
            self.name if self.resource in (RESOURCES, "pods") else owner_name(self.resource, self.name),
        )

    def __str__(self) -> str:
        return f"{self.at:%H:%M:%S.%f} {self.what} {self.resource} {self.namespace}/{self.name}"


@dataclass
class Ledger:
    """The entries of one round.

    `disturbances` are kills and faults: each may have one more attempt per object for its own. `api_away` are times in which an API
    server that starts refuses whom it will know a moment later. `standing` are children whose name a stranger has, from earlier
    rounds too: the attempts that end in 409 are theirs.
    """

    causes: list[Cause] = field(default_factory=list)
    disturbances: int = 0
    standing: set[tuple[str, str, str]] = field(default_factory=set)  # namespace, plural, name
    api_away: Sequence[tuple[datetime, datetime]] = ()

    def enter(self, cause: Cause) -> None:
        """Before it is done."""
        self.causes.append(cause)

    def judge(self, records: Iterable[AuditRecord]) -> list[str]:
        """What cannot be explained among the operator's requests: one line each. Empty: all is well."""
        return list(_Judgement(self).of([record for record in records if record.is_write]))


class _Judgement:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._by_owner: defaultdict[tuple[str, str], list[Cause]] = defaultdict(list)
        for cause in ledger.causes:
            self._by_owner[cause.owner].append(cause)
        self._done: Counter[tuple[str, str, str]] = Counter()
        self._statuses: Counter[str] = Counter()

    def of(self, records: Sequence[AuditRecord]) -> Iterable[str]:
        events: Counter[str] = Counter()
        for record in records:
            if record.resource == "leases":
                if (record.namespace, record.name) != ("fairlead-system", "fairlead") and record.verb != "create":
                    yield f"{record}: a Lease that is not the operator's"
            elif record.resource == "events":
                events[record.namespace] += record.code < 300
            elif complaint := self._explain(record):
                yield f"{record.received_at:%H:%M:%S.%f} {record}: {complaint}"
        for namespace, count in events.items():
            if count > self._statuses[namespace]:
                yield f"{count} Events in {namespace}, where only {self._statuses[namespace]} statuses were written"

    def _explain(self, record: AuditRecord) -> str:
        if any(began <= record.received_at <= ended for began, ended in self._ledger.api_away) and record.code >= 400:
            return ""
        if record.lacks_right:
            return "forbidden: a right is missing, or something is asked for that should not be"
        if record.resource == f"{RESOURCES}/status":
            return self._explain_status(record)
        if record.resource not in CHILDREN or "/" in record.resource:
            return "a kind that the operator has no business with"
        where = (record.namespace, record.resource, record.name)
        if record.code == 409 and where in self._ledger.standing:
            return ""
        owner = (record.namespace, owner_name(record.resource, record.name))
        causes = [cause for cause in self._before(record, owner) if self._concerns(cause, record)]
        if not causes:
            return self._complain(record, owner)
        if record.code < 300:
            self._done[where] += 1
            limit = len(causes) * WRITES_PER_CAUSE + self._ledger.disturbances
            if self._done[where] > limit:
                return f"written {self._done[where]} times for {len(causes)} causes"
        return ""

    def _explain_status(self, record: AuditRecord) -> str:
        owner = (record.namespace, record.name)
        causes = self._before(record, owner)
        if all(cause.harmless for cause in causes) and not (causes and self._ledger.disturbances):
            return self._complain(record, owner)
        if record.code < 300:
            self._statuses[record.namespace] += 1
            where = (record.namespace, record.resource, record.name)
            self._done[where] += 1
            limit = len(causes) * STATUSES_PER_CAUSE + self._ledger.disturbances
            if self._done[where] > limit:
                return f"written {self._done[where]} times for {len(causes)} causes"
        return ""

    def _before(self, record: AuditRecord, owner: tuple[str, str]) -> list[Cause]:
        return [cause for cause in self._by_owner[owner] if (cause.at - record.received_at).total_seconds() <= SKEW_S]

    def _concerns(self, cause: Cause, record: AuditRecord) -> bool:
        """The custom resource's own edits concern all of its children; what is done to one child concerns that child."""
        if cause.harmless:
            return False
        if cause.resource == RESOURCES:
            return True
        if record.verb == "delete":
            return False  # nothing but a spec takes a child away
        return (cause.resource, cause.name) == (record.resource, record.name)

    def _complain(self, record: AuditRecord, owner: tuple[str, str]) -> str:
        others = [str(cause) for cause in self._by_owner[owner]]
        return "nothing caused it" + (f"; of this model's the book has only: {'; '.join(others)}" if others else "")
