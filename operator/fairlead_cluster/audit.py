"""The API server's audit log as typed records: the judge of who sent which request, and how many.

Counting in the client would trust the code under test; the API server's own log does not. With stage RequestReceived
left out, a request has one record (ResponseComplete), a watch two (ResponseStarted, and ResponseComplete at its end).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

WRITE_VERBS = frozenset({"create", "update", "patch", "delete", "deletecollection"})
READ_VERBS = frozenset({"get", "list", "watch"})


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One request, as the API server saw it. Times are UTC, with microseconds."""

    audit_id: str
    stage: str  # ResponseStarted (watches), ResponseComplete, Panic
    verb: str
    user: str
    user_agent: str
    uri: str
    group: str
    resource: str  # plural, with the subresource: `deployments`, `llmdeployments/status`; empty for other URLs
    namespace: str
    name: str
    code: int
    received_at: datetime
    stage_at: datetime
    lacks_right: bool = (
        False  # refused by the authorizer; a 403 without it is of an admission plug-in, a quota, a dying namespace
    )

    @property
    def is_write(self) -> bool:
        """Whether the request could change an object (dry runs included: they cost as much)."""
        return self.verb in WRITE_VERBS

    @property
    def duration_s(self) -> float:
        """Seconds from the request's arrival to this stage."""
        return (self.stage_at - self.received_at).total_seconds()

    def __str__(self) -> str:
        where = "/".join(part for part in (self.namespace, self.name) if part)
        return f"{self.verb} {self.resource or self.uri} {where} by {self.user}: {self.code}"


def parse_record(line: str | bytes) -> AuditRecord:
    """Parse one line of the log. KeyError or ValueError if it is not an audit event."""
    event: dict[str, Any] = json.loads(line)
    ref: dict[str, Any] = event.get("objectRef") or {}
    subresource = ref.get("subresource")
    resource = str(ref.get("resource", ""))
    return AuditRecord(
        audit_id=event["auditID"],
        stage=event["stage"],
        verb=event["verb"],
        user=(event.get("user") or {}).get("username", ""),
        user_agent=event.get("userAgent", ""),
        uri=event["requestURI"],
        group=ref.get("apiGroup", ""),
        resource=f"{resource}/{subresource}" if subresource else resource,
        namespace=ref.get("namespace", ""),
        name=ref.get("name", ""),
        code=(event.get("responseStatus") or {}).get("code", 0),
        received_at=datetime.fromisoformat(event["requestReceivedTimestamp"]),
        stage_at=datetime.fromisoformat(event["stageTimestamp"]),
        lacks_right=(event.get("annotations") or {}).get("authorization.k8s.io/decision") == "forbid",
    )


def _matches(value: str, wanted: str | Collection[str] | None) -> bool:
    if wanted is None:
        return True
    return value == wanted if isinstance(wanted, str) else value in wanted


@dataclass(frozen=True, slots=True)
class AuditMark:
    """A place in the log: `AuditLog.mark()` before an action, `records(since=mark)` after it."""

    offset_bytes: int


class AuditLog:
    """Reads one audit log file. Nothing is kept in memory between calls."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def mark(self) -> AuditMark:
        """The end of the log now. Requests that are on their way have their record after it."""
        return AuditMark(self.path.stat().st_size if self.path.exists() else 0)

    def records(
        self,
        *,
        user: str | Collection[str] | None = None,
        verb: str | Collection[str] | None = None,
        resource: str | Collection[str] | None = None,
        namespace: str | None = None,
        name: str | None = None,
        since: AuditMark | datetime | None = None,
        until: datetime | None = None,
    ) -> list[AuditRecord]:
        """One record per request that matches everything given, in the log's order.

        A finished watch appears once (its last stage). `since` and `until` as times are about the request's arrival,
        `since` included, `until` not. `resource` is `plural` or `plural/subresource`, exactly.
        """
        found: dict[str, AuditRecord] = {}
        for record in self._read(since.offset_bytes if isinstance(since, AuditMark) else 0):
            if (
                _matches(record.user, user)
                and _matches(record.verb, verb)
                and _matches(record.resource, resource)
                and _matches(record.namespace, namespace)
                and _matches(record.name, name)
                and not (isinstance(since, datetime) and record.received_at < since)
                and not (until is not None and record.received_at >= until)
            ):
                found[record.audit_id] = record
        return list(found.values())

    def wait_for(
        self, read: Callable[[], list[AuditRecord]], at_least: int = 1, timeout_s: float = 5.0
    ) -> list[AuditRecord]:
        """Call `read` until it returns `at_least` records; the last answer then, or when the time is over.

        A response can reach its client a moment before its record reaches the file.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            records = read()
            if len(records) >= at_least or time.monotonic() >= deadline:
                return records
            time.sleep(0.05)

    def _read(self, offset_bytes: int) -> Iterator[AuditRecord]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(offset_bytes)
            for line in file:
                if line.endswith(b"\n"):  # the API server is still writing the last one
                    yield parse_record(line)
