"""A deployment at zero replicas that a request wakes, as its route sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.planning.route.test_planner import condition, served

from fairlead.facts.route import LocalDeployment
from fairlead.planning.route.surroundings import describe_deployment


def test_a_deployment_at_zero_that_a_request_wakes_is_no_outage() -> None:
    asleep = LocalDeployment(
        "llama-70b", "llama-3.1-70b", 8000, ready=0, desired=1, is_confidential=True, can_wake=True, is_asleep=True
    )
    made, _ = served(deployments={"llama-70b": asleep}, secrets={})
    (row,) = [row for row in made.status["backends"] if row["name"] == "local"]
    assert row["state"] == "Asleep"
    assert row["message"] == "LLMDeployment llama-70b is at zero replicas, and a request wakes it."
    assert condition(made, "BackendsHealthy")["status"] == "True"
    assert condition(made, "Ready")["status"] == "True"
    starting, _ = served(deployments={"llama-70b": replace(asleep, is_asleep=False)}, secrets={})
    assert condition(starting, "BackendsHealthy")["status"] == "False"
    assert condition(starting, "Reconciling")["status"] == "True"


@pytest.mark.parametrize("hindrance", ["InvalidSpec", "CapacityBlocked"])
def test_one_that_cannot_start_is_an_outage_though_it_is_at_zero(hindrance: str) -> None:
    broken = LocalDeployment(
        "llama-70b", "llama-3.1-70b", 8000, is_confidential=True, can_wake=True, hindrance=hindrance
    )
    made, _ = served(deployments={"llama-70b": broken}, secrets={})
    (row,) = [row for row in made.status["backends"] if row["name"] == "local"]
    assert row["state"] == "NotReady"
    assert f"a request does not wake it: {hindrance}. Next: kubectl describe llmdep llama-70b -n " in row["message"]
    assert condition(made, "BackendsHealthy")["status"] == "False"


ZERO: dict[str, Any] = {
    "replicas": 0,
    "conditions": [
        {"type": "Ready", "status": "True", "reason": "ScaledToZero"},
        {"type": "Stalled", "status": "False", "reason": "NotStalled"},
        {"type": "ScalingActive", "status": "True", "reason": "ScaledToZero"},
    ],
}


def zero_but(kind: str, status: str, reason: str) -> dict[str, Any]:
    """At zero replicas, with another condition of that type."""
    others = [one for one in ZERO["conditions"] if one["type"] != kind]
    return {**ZERO, "conditions": [*others, {"type": kind, "status": status, "reason": reason}]}


@pytest.mark.parametrize(
    ("status", "is_asleep", "hindrance"),
    [
        (ZERO, True, ""),
        (zero_but("Stalled", "True", "InvalidSpec"), False, "InvalidSpec"),
        (zero_but("ScalingActive", "False", "CapacityBlocked"), False, "CapacityBlocked"),
        (zero_but("ScalingActive", "False", "SignalsMissing"), True, ""),
        (zero_but("Ready", "False", "Progressing"), False, ""),
        ({"replicas": 0}, False, ""),
        ({**zero_but("Stalled", "True", "Unschedulable"), "replicas": 1}, False, ""),
    ],
)
def test_one_at_zero_sleeps_only_if_it_is_there_on_purpose_and_can_start(
    status: Any, is_asleep: bool, hindrance: str
) -> None:
    raw = {"metadata": {"name": "a", "namespace": "ml"}, "spec": {"autoscaling": {"minReplicas": 0}}, "status": status}
    found = describe_deployment(raw, None, ())
    assert (found.can_wake, found.is_asleep, found.hindrance) == (True, is_asleep, hindrance)


@pytest.mark.parametrize(
    ("spec", "status", "can_wake", "is_asleep"),
    [
        ({"autoscaling": {"minReplicas": 0}}, {"replicas": 0}, True, True),
        ({"autoscaling": {"minReplicas": 0}}, {"replicas": 1}, True, False),
        ({"autoscaling": {"minReplicas": 0}}, {"replicas": None}, True, False),
        ({"autoscaling": {"minReplicas": 1}}, {"replicas": 0}, False, False),
        ({"autoscaling": {"minReplicas": 0, "mode": "External"}}, {"replicas": 0}, False, False),
        ({"autoscaling": {"minReplicas": 0, "policy": "Pause"}}, {"replicas": 0}, False, False),
        ({"autoscaling": {"minReplicas": 0}, "suspend": True}, {"replicas": 0}, False, False),
        ({"autoscaling": "nonsense"}, {"replicas": 0}, False, False),
        ({}, {"replicas": 0}, False, False),
    ],
)
def test_which_deployment_wakes_for_a_request(spec: Any, status: Any, can_wake: bool, is_asleep: bool) -> None:
    raw = {"metadata": {"name": "a", "namespace": "ml"}, "spec": spec, "status": {**ZERO, **status}}
    found = describe_deployment(raw, None, ())
    assert (found.can_wake, found.is_asleep) == (can_wake, is_asleep)
