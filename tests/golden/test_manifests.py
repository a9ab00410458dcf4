"""Whole manifests, as a reviewer wants to see them: one custom resource in `cases/`, all its children in the file of the same
name beside it. A golden file is what we decided, not proof that it is right: the API server, the engines and the other tests
judge that.
"""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.kubernetes_schemas import validate
from tests.unit.packaging.restricted import violations

from fairlead.api.names import ANNOTATION_REVISION, ANNOTATION_TEMPLATE, FILE_ANNOTATION_PREFIX
from fairlead.api.resource import LLMDeployment
from fairlead.api.validation import parse_llmdeployment
from fairlead.engines.loader import EngineCatalog
from fairlead.facts.observed import CarriedGateway, Observed, OperatorFacts
from fairlead.planning.deployment import plan_deployment

FOLDER = Path(__file__).parent
CASES = sorted(path.stem for path in (FOLDER / "cases").glob("*.yaml"))
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def render(case: str) -> str:
    raw = yaml.safe_load((FOLDER / "cases" / f"{case}.yaml").read_text())
    resource = parse_llmdeployment(raw)
    assert isinstance(resource, LLMDeployment), [str(finding) for finding in resource]
    carried = CarriedGateway("assistants", "Sidecar", (("llama-8b", 8443), ("other", 8000)))
    observed = Observed(gateway=carried if resource.spec.gateway is not None else None)
    plan = plan_deployment(resource, observed, EngineCatalog.builtin(), OperatorFacts(), NOW)
    documents = [_without_noise(dict(child.body)) for child in plan.children]
    documents.append(
        {
            "status": {key: value for key, value in plan.status.items() if key != "conditions"}
            | {"revision": "<revision>"}
        }
    )
    plain = json.loads(json.dumps(documents))
    return yaml.safe_dump_all(plain, sort_keys=False, width=160, allow_unicode=True)


def _without_noise(body: dict[str, Any]) -> dict[str, Any]:
    """Without what changes with every edit of an engine file; test_laws.py holds what these annotations mean."""
    body = copy.deepcopy(body)
    annotations = body["metadata"].get("annotations", {})
    for key in (ANNOTATION_REVISION, ANNOTATION_TEMPLATE):
        if key in annotations:
            annotations[key] = f"<{key.rpartition('/')[2]}>"
    pod = body["spec"].get("template", {}).get("metadata", {}).get("annotations", {})
    pod.update({key: "<file>" for key in pod if key.startswith(FILE_ANNOTATION_PREFIX)})
    return body


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, update_golden: bool) -> None:
    path = FOLDER / f"{case}.yaml"
    rendered = render(case)
    if update_golden:
        path.write_text(rendered)
    assert path.read_text() == rendered


@pytest.mark.parametrize("version", ["1.34", "1.35", "1.36", "1.37"])
@pytest.mark.parametrize("case", CASES)
def test_every_object_is_valid_kubernetes(case: str, version: str) -> None:
    objects = [body for body in yaml.safe_load_all(render(case)) if "kind" in body]
    assert len(objects) >= 3
    for body in objects:
        validate(body, version)


@pytest.mark.parametrize("case", sorted(set(CASES) - {"vllm-pod-options"}))
def test_every_pod_passes_pod_security_restricted(case: str) -> None:
    """Except where the user's own security context asks for more."""
    (deployment,) = (body for body in yaml.safe_load_all(render(case)) if body.get("kind") == "Deployment")
    assert violations(deployment["spec"]["template"]["spec"]) == []


def test_the_users_security_context_is_the_field_that_opts_out() -> None:
    (deployment,) = (
        body for body in yaml.safe_load_all(render("vllm-pod-options")) if body.get("kind") == "Deployment"
    )
    assert violations(deployment["spec"]["template"]["spec"]) == ["engine: capabilities are added"]


def test_every_golden_file_has_its_case() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(CASES)
    assert len(CASES) >= 10
