"""The audit log's reader counts requests, not lines."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fairlead_cluster.audit import AuditLog, AuditRecord, parse_record

T0 = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def line(audit_id: str, verb: str = "get", *, at_s: float = 0, stage: str = "ResponseComplete", **changes: Any) -> str:
    """A line as kube-apiserver 1.36 writes it."""
    received = (T0 + timedelta(seconds=at_s)).isoformat(timespec="microseconds").replace("+00:00", "Z")
    staged = (T0 + timedelta(seconds=at_s + 0.25)).isoformat(timespec="microseconds").replace("+00:00", "Z")
    event = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": audit_id,
        "stage": stage,
        "requestURI": "/apis/apps/v1/namespaces/ns/deployments/a",
        "verb": verb,
        "user": {"username": changes.get("user", "operator"), "groups": ["system:authenticated"]},
        "userAgent": "fairlead/0.1",
        "objectRef": {
            "resource": changes.get("resource", "deployments"),
            "subresource": changes.get("subresource"),
            "namespace": changes.get("namespace", "ns"),
            "name": "a",
            "apiGroup": "apps",
        },
        "responseStatus": {"code": changes.get("code", 200)},
        "requestReceivedTimestamp": received,
        "stageTimestamp": staged,
    }
    return json.dumps(event) + "\n"


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    """Five requests in six lines, and a line that is still being written."""
    path = tmp_path / "audit.log"
    path.write_text(
        line("1", "watch", at_s=0, stage="ResponseStarted")
        + line("2", "patch", at_s=1)
        + line("3", "patch", at_s=2, resource="llmdeployments", subresource="status")
        + line("4", "get", at_s=3, user="admin", namespace="other")
        + line("1", "watch", at_s=0, stage="ResponseComplete")
        + line("5", "delete", at_s=5, code=404)
        + line("6", "get")[:50]
    )
    return AuditLog(path)


def ids(records: list[AuditRecord]) -> list[str]:
    """Which requests."""
    return [record.audit_id for record in records]


def test_a_watch_with_two_stages_is_one_request(log: AuditLog) -> None:
    records = log.records()
    assert ids(records) == ["1", "2", "3", "4", "5"]
    assert records[0].stage == "ResponseComplete"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"user": "admin"}, ["4"]),
        ({"user": ["admin", "operator"]}, ["1", "2", "3", "4", "5"]),
        ({"user": "nobody"}, []),
        ({"verb": "patch"}, ["2", "3"]),
        ({"verb": {"get", "delete"}}, ["4", "5"]),
        ({"resource": "deployments"}, ["1", "2", "4", "5"]),
        ({"resource": "llmdeployments"}, []),
        ({"resource": "llmdeployments/status"}, ["3"]),
        ({"namespace": "other"}, ["4"]),
        ({"since": T0 + timedelta(seconds=2)}, ["3", "4", "5"]),
        ({"until": T0 + timedelta(seconds=2)}, ["1", "2"]),
        ({"since": T0 + timedelta(seconds=1), "until": T0 + timedelta(seconds=3), "verb": "patch"}, ["2", "3"]),
    ],
)
def test_filters(log: AuditLog, query: dict[str, Any], expected: list[str]) -> None:
    assert ids(log.records(**query)) == expected


def test_mark_separates_before_from_after(log: AuditLog) -> None:
    log.path.write_text(line("1"))
    mark = log.mark()
    with log.path.open("a") as file:
        file.write(line("2", "create", code=201))
    (record,) = log.records(since=mark)
    assert (record.audit_id, record.verb, record.code, record.is_write) == ("2", "create", 201, True)


def test_record_fields() -> None:
    record = parse_record(line("x", "patch", subresource="status"))
    assert record.user == "operator"
    assert record.resource == "deployments/status"
    assert (record.group, record.namespace, record.name) == ("apps", "ns", "a")
    assert record.duration_s == 0.25
    assert record.received_at == T0
    assert str(record) == "patch deployments/status ns/a by operator: 200"


def test_requests_without_object_or_user() -> None:
    event = json.loads(line("x"))
    del event["objectRef"], event["responseStatus"], event["user"]
    record = parse_record(json.dumps(event))
    assert (record.user, record.resource, record.name, record.code) == ("", "", "", 0)
    assert not record.is_write


def test_no_log_yet(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "absent.log")
    assert log.records(since=log.mark()) == []
    assert log.wait_for(log.records, timeout_s=0) == []
