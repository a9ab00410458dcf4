"""Every golden case on the real API server: accepted as it stands, covered by what comes back, and stable after that.

What the planner's unit tests cannot see: defaults and normal forms. A field that the API server writes differently from us
would be applied again for ever.
"""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.keda import installed

from fairlead.api.names import FIELD_MANAGER_LLMDEPLOYMENT
from fairlead.api.resource import LLMDeployment
from fairlead.api.validation import parse_llmdeployment
from fairlead.engines.loader import EngineCatalog
from fairlead.facts.observed import ObjectKey, Observed, OperatorFacts
from fairlead.kube.compare import first_difference
from fairlead.planning.deployment import plan_deployment
from fairlead.planning.plan import Plan
from fairlead_cluster.kubectl import Kubectl

pytestmark = pytest.mark.cluster

CASES = Path(__file__).parents[1] / "golden" / "cases"
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
Json = dict[str, Any]


def decide(raw: Json, children: dict[ObjectKey, Json]) -> Plan:
    parsed = parse_llmdeployment(raw)
    assert isinstance(parsed, LLMDeployment), parsed
    return plan_deployment(parsed, Observed(children=children), EngineCatalog.builtin(), OperatorFacts(), NOW)


def read(kubectl: Kubectl, namespace: str, plan: Plan) -> dict[ObjectKey, Json]:
    return {
        child.key: kubectl.json("get", f"{child.key.kind}/{child.key.name}", f"--namespace={namespace}")
        for child in plan.children
    }


@pytest.mark.parametrize("case", sorted(path.stem for path in CASES.glob("*.yaml")))
def test_a_golden_case_settles_at_once(case: str, kubectl: Kubectl, namespace: str) -> None:
    raw: Json = yaml.safe_load((CASES / f"{case}.yaml").read_text())
    raw["metadata"] = {"name": raw["metadata"]["name"], "namespace": namespace}
    kubectl.apply(raw)
    # Defaults of the CRD and a real uid: what the operator would see.
    raw = kubectl.json("get", f"llmdep/{raw['metadata']['name']}", f"--namespace={namespace}")
    plan = decide(raw, {})
    bodies = [dict(child.body) for child in plan.children]
    with ExitStack() as stack:
        if any(body["kind"] == "ScaledObject" for body in bodies):
            stack.enter_context(installed(kubectl))
        _settle(kubectl, namespace, raw, plan, bodies)


def _settle(kubectl: Kubectl, namespace: str, raw: Json, plan: Plan, bodies: list[Json]) -> None:
    kubectl.apply(*bodies, field_manager=FIELD_MANAGER_LLMDEPLOYMENT)
    live = read(kubectl, namespace, plan)
    for child in plan.children:
        assert first_difference(child.body, live[child.key]) is None, f"{child.key} looks changed for ever"
    again = decide(raw, live)
    assert [dict(child.body) for child in again.children] == bodies
    assert again.deletes == ()
    kubectl.apply(*[dict(child.body) for child in again.children], field_manager=FIELD_MANAGER_LLMDEPLOYMENT)
    unchanged = read(kubectl, namespace, plan)
    for key, before in live.items():
        assert unchanged[key]["metadata"].get("generation") == before["metadata"].get("generation"), key
