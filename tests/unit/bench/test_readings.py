"""What the bench of reaction reads is what it says: the write that asked for replicas, the decision before it, the first start of a pod."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pytest
from tests.bench.reaction.breach import Scraper, _looks
from tests.bench.reaction.clients import Clients
from tests.bench.reaction.readings import PodTimes, _read_pod, read_writes

from fairlead_cluster.audit import AuditLog, AuditMark
from fairlead_cluster.cluster import OPERATOR_USER, LocalCluster

NAMESPACE = "reaction-x"


@dataclass
class Logged:
    """A cluster of which there is nothing but the audit log."""

    audit: AuditLog


def at(second: float) -> str:
    return f"2026-11-28T21:00:{second:09.6f}Z"


def epoch_s(second: float) -> float:
    return datetime.fromisoformat(at(second)).timestamp()


def log(folder: Path, *requests: tuple[float, float, str, int]) -> LocalCluster:
    """`plural[/subresource]` from one second to another, answered with a code."""
    path = folder / "audit.log"
    with path.open("w") as file:
        for number, (received, ended, resource, code) in enumerate(requests):
            plural, _, sub = resource.partition("/")
            event: dict[str, Any] = {
                "auditID": str(number),
                "stage": "ResponseComplete",
                "verb": "patch",
                "user": {"username": OPERATOR_USER},
                "requestURI": "/",
                "objectRef": {"resource": plural, "subresource": sub, "namespace": NAMESPACE, "name": "m"},
                "responseStatus": {"code": code},
                "requestReceivedTimestamp": at(received),
                "stageTimestamp": at(ended),
            }
            file.write(json.dumps(event) + "\n")
    return cast("LocalCluster", Logged(AuditLog(path)))


def test_the_decision_is_the_last_status_before_the_first_write_of_replicas(tmp_path: Path) -> None:
    cluster = log(
        tmp_path,
        (1.0, 1.1, "llmdeployments/status", 200),
        (2.0, 2.25, "llmdeployments/status", 200),
        (2.5, 2.6, "deployments", 409),
        (2.75, 3.0, "deployments", 200),
        (4.0, 4.1, "llmdeployments/status", 200),
        (5.0, 5.1, "deployments", 200),
    )
    found = read_writes(cluster, NAMESPACE, AuditMark(0))
    assert found is not None
    assert (found.status_sent, found.status_kept, found.replicas_kept) == (epoch_s(2.0), epoch_s(2.25), epoch_s(3.0))


def test_nothing_is_told_before_replicas_are_written(tmp_path: Path) -> None:
    cluster = log(tmp_path, (1.0, 1.1, "llmdeployments/status", 200))
    assert read_writes(cluster, NAMESPACE, AuditMark(0)) is None
    assert read_writes(cluster, "another", AuditMark(0)) is None


def test_replicas_without_a_decision_are_an_error(tmp_path: Path) -> None:
    cluster = log(tmp_path, (1.0, 1.1, "deployments", 200))
    with pytest.raises(RuntimeError, match="without a decision"):
        read_writes(cluster, NAMESPACE, AuditMark(0))


def test_a_breach_is_when_the_first_late_request_should_have_had_its_token() -> None:
    seen = Clients(seen=[(10.0, 12.0), (20.0, 20.4), (21.0, 24.0), (20.5, 21.1)])
    assert seen.breached(since=15.0, target_s=0.5) == 21.0
    assert seen.breached(since=15.0, target_s=5.0) is None


def test_a_pod_is_started_once_it_has_an_address_and_ready_by_its_condition() -> None:
    times = PodTimes()
    running = json.dumps([{"name": "engine", "state": {"running": {}}}])
    waiting = json.dumps([{"name": "engine", "state": {"waiting": {}}}])
    _read_pod("p|||\n", times)
    _read_pod(f"p|127.0.0.9|{waiting}|[]\n", times)
    assert (times.started, times.ready, times.address) == (0.0, 0.0, "127.0.0.9")
    _read_pod(f"p|127.0.0.9|{running}|" + json.dumps([{"type": "Ready", "status": "False"}]) + "\n", times)
    started = times.started
    assert started > 0.0
    assert times.ready == 0.0
    _read_pod(f"p|127.0.0.9|{running}|" + json.dumps([{"type": "Ready", "status": "True"}]) + "\n", times)
    assert times.started == started
    assert times.ready >= started


def test_only_the_operators_own_questions_about_a_namespace_count(tmp_path: Path) -> None:
    questions = tmp_path / "questions.log"
    asked = (
        ("21:00:01.5", f'sum(increase(x{{namespace="{NAMESPACE}"}}[60s]))'),
        ("21:00:02.5", f'up{{namespace="{NAMESPACE}"}}[300s]'),
        ("21:00:03.5", 'sum(increase(x{namespace="another"}[60s]))'),
    )
    lines = [json.dumps({"ts": f"2026-11-28T{ts}Z", "params": {"query": query}}) for ts, query in asked]
    questions.write_text("\n".join(lines) + "\n")
    assert Scraper("", 15, questions, tmp_path / "targets.json").asked(NAMESPACE) == [epoch_s(1.5)]


def test_between_the_first_look_and_the_last_before_what_followed_the_law_waits() -> None:
    seen = [1.0, 6.0, 11.0, 16.0]
    assert [moment.at for moment in _looks(seen, 1.5, 2.0, 12.0, "x")] == [6.0, 11.0]
    assert [moment.at for moment in _looks(seen, 1.5, 2.0, 6.0, "x")] == [6.0, 6.0]
    assert [moment.at for moment in _looks(seen, 1.5, 2.0, 10.9, "x")] == [6.0, 6.0], "it came after what followed"
    with pytest.raises(RuntimeError, match="nobody looked"):
        _looks(seen, 1.5, 2.0, 5.0, "x")


def test_a_line_that_is_read_late_is_the_look_from_which_it_followed() -> None:
    seen = [1.0, 6.0, 11.0, 16.0]
    assert [moment.at for moment in _looks(seen, 1.5, 2.0, 10.9, "x", late_s=1.0)] == [6.0, 10.9]


def test_a_look_at_the_load_before_anybody_was_late_is_no_time_after_the_breach() -> None:
    assert [moment.at for moment in _looks([1.0, 6.0, 11.0], 5.5, 6.5, 6.7, "x")] == [6.0, 6.0]
