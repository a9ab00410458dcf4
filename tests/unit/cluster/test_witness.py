"""The witness can fail: rights, refusals and leaks are told apart from what is well. And the shipped roles grant the same."""

from __future__ import annotations

import base64
import dataclasses
import json
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.canaries import MARK, find_marks, plant, search_files
from tests.witness import (
    ONLY_ELSEWHERE,
    Right,
    Witness,
    granted_by,
    granted_by_chart,
    granted_by_manifests,
    is_within,
    rights_of,
)

from fairlead_cluster.audit import AuditRecord, parse_record


def record(verb: str, group: str, resource: str, *, code: int = 200, decision: str = "allow") -> AuditRecord:
    """As the API server writes it."""
    plain, _, subresource = resource.partition("/")
    now = datetime.now(UTC).isoformat()
    event = {
        "auditID": "1",
        "stage": "ResponseComplete",
        "verb": verb,
        "requestURI": "/x",
        "objectRef": {"resource": plain, "apiGroup": group, "subresource": subresource},
        "responseStatus": {"code": code},
        "requestReceivedTimestamp": now,
        "stageTimestamp": now,
        "annotations": {"authorization.k8s.io/decision": decision},
    }
    return parse_record(json.dumps(event))


def test_an_apply_that_makes_an_object_uses_two_rights() -> None:
    used = rights_of([record("patch", "apps", "deployments", code=201), record("patch", "", "services", code=200)])
    assert used == {
        Right("patch", "apps", "deployments"), Right("create", "apps", "deployments"), Right("patch", "", "services"),
    }  # fmt: skip


def test_requests_for_no_resource_use_no_right() -> None:
    assert rights_of([record("get", "", "")]) == set()


def satisfied() -> Witness:
    witness = Witness(whole=True, clusters=1)
    witness.used = granted_by_manifests() - ONLY_ELSEWHERE
    return witness


def test_a_whole_run_that_used_everything_is_well() -> None:
    assert satisfied().judge() == []


def test_a_right_that_no_test_used_is_told_after_a_whole_run_without_failures_only() -> None:
    witness = satisfied()
    witness.used.remove(Right("delete", "policy", "poddisruptionbudgets"))
    assert witness.judge() == ["granted and used by no test: delete policy poddisruptionbudgets"]
    assert witness.judge(failed=True) == []
    witness.whole = False
    assert witness.judge() == []
    witness.whole, witness.clusters = True, 0
    assert witness.judge() == []


def test_a_right_that_was_used_and_is_not_granted_is_told_always() -> None:
    witness = Witness()
    witness.used.add(Right("get", "", "secrets"))
    assert witness.judge() == ["used and not granted: get  secrets"]


def test_refusals_and_leaks_are_told_always() -> None:
    witness = Witness(refusals=["get secrets"], leaks=["Deployment a/b"])
    assert len(witness.judge()) == 2


def test_what_several_saw_is_judged_together() -> None:
    whole = satisfied()
    halves = sorted(whole.used)[::2], sorted(whole.used)[1::2]
    workers = [Witness(used=set(half), whole=True, clusters=1) for half in halves]
    workers[1].leaks.append("Deployment a/b")
    together = Witness()
    for worker in workers:
        together.hear(json.loads(json.dumps(worker.testify())))
    together.hear(None)
    assert together.judge() == ["a planted secret got out: Deployment a/b"]
    alone = Witness()
    alone.hear(workers[0].testify())
    assert len(alone.judge()) == len(halves[1]), "what the other half used"


def test_a_refusal_that_a_test_planned_is_none() -> None:
    witness = Witness()
    with witness.planned_refusals():
        planned = record("patch", "", "services", code=403, decision="forbid")
    assert witness._is_planned(planned)
    assert not witness._is_planned(record("patch", "", "services", code=403, decision="forbid"))


def test_what_a_server_refuses_while_it_starts_is_told_from_what_it_refuses_later() -> None:
    starting = record("watch", "", "services", code=403, decision="forbid")
    ready = starting.received_at + timedelta(seconds=1)
    later = dataclasses.replace(starting, received_at=ready + timedelta(seconds=1))
    began = starting.received_at - timedelta(seconds=1)
    assert is_within(starting, [(began, ready)])
    assert is_within(later, [(began, None)])
    assert not is_within(later, [(began, ready)])
    assert not is_within(starting, [])


@pytest.mark.parametrize(("decision", "lacks"), [("forbid", True), ("allow", False)])
def test_a_missing_right_is_told_from_other_403s(decision: str, lacks: bool) -> None:
    assert record("create", "", "services", code=403, decision=decision).lacks_right is lacks


def test_chart_and_manifests_grant_the_same_and_no_wildcard() -> None:
    granted = granted_by_manifests()
    assert granted == granted_by_chart()
    assert not [right for right in granted if "*" in right]
    assert granted_by([{"apiGroups": ["a", "b"], "resources": ["x"], "verbs": ["get", "list"]}]) == {
        Right("get", "a", "x"), Right("list", "a", "x"), Right("get", "b", "x"), Right("list", "b", "x"),
    }  # fmt: skip


@pytest.mark.parametrize("before", ["", "a", "ab"])
@pytest.mark.parametrize("after", ["", "z", "yz"])
def test_a_canary_is_found_plain_and_encoded(before: str, after: str, tmp_path: Path) -> None:
    canary = plant()
    assert canary.startswith("hf_")
    assert MARK in canary
    said = f"{before}{canary}{after}"
    template = base64.b64encode(zlib.compress(json.dumps({"env": [said, *"abcdefghij" * 9]}).encode(), 9)).decode()
    for text in (said, base64.b64encode(said.encode()).decode(), f"template: {template} end"):
        assert list(find_marks(text)), text
        (tmp_path / "log").write_text(f"line\n{text}\n")
        assert search_files([tmp_path / "log"])
    assert not list(find_marks(said.replace(MARK, "canary")))
    assert list(find_marks("Bearer other", also=["other"])) == ["Bearer other"]
