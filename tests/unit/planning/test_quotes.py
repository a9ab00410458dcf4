"""Law 6 for status: whoever is quoted in it, no credential is."""

from __future__ import annotations

import pytest
from tests.unit.planning.test_status import SECRET, started
from tests.unit.planning.world import NOW, VLLM, make_homeless_pod

from fairlead.api.conditions import Reason
from fairlead.facts.observed import ApplyFailure, ObjectKey


@pytest.mark.parametrize("who", ["scheduler", "quota", "api"])
def test_words_of_anybody_are_told_without_credentials(who: str) -> None:
    words = f"denied: token={SECRET}1"
    world = started(VLLM, *([make_homeless_pod("pod-0", words, since=NOW)] if who == "scheduler" else []))
    if who == "quota":
        refused = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": words}
        world.deployment["status"]["conditions"] = [refused]
    failure = ApplyFailure(ObjectKey("Service", "ml", "m"), Reason.CHILD_REFUSED.value, words, terminal=True)
    world.failures = [failure] if who == "api" else []
    plan = world.step()
    assert "denied: token=<redacted>" in str(plan.status)
    assert SECRET not in str(plan)
