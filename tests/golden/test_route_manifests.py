"""Whole manifests of gateways: one LLMRoute in `routes/cases/`, its children in the file of the same name in `routes/`. Envoy's files in
ConfigMaps and Secrets are left out; other tests judge them."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from tests.unit.packaging.restricted import violations

from fairlead.api.names import ANNOTATION_REVISION, ANNOTATION_TEMPLATE
from fairlead.api.resource import LLMRoute
from fairlead.api.validation import parse_llmroute
from fairlead.facts.observed import Observed, OperatorFacts
from fairlead.facts.route import Carrier, ClientsSecret, LocalDeployment, RouteFacts, SecretFacts
from fairlead.planning.route import plan_route
from fairlead.planning.route.pod import ANNOTATION_BOOTSTRAP
from fairlead.providers.loader import ProviderCatalog

FOLDER = Path(__file__).parent / "routes"
CASES = sorted(path.stem for path in (FOLDER / "cases").glob("*.yaml"))
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
#: Everything that the cases refer to.
FACTS = RouteFacts(
    deployments={
        "llama-8b": LocalDeployment("llama-8b", "llama-8b", 8000, ready=1, is_confidential=True),
        "asleep": LocalDeployment("asleep", "llama-8b", 8000, desired=0, is_confidential=True, can_wake=True),
        "encrypted": LocalDeployment(
            "encrypted",
            "llama-8b",
            8443,
            ready=1,
            is_confidential=True,
            is_tls=True,
            certificate_secret="own",
            is_encrypted=True,
        ),
    },
    secrets={
        "openai": SecretFacts("openai", "provider", frozenset({"api.openai.com"})),
        "own": SecretFacts("own", "provider", frozenset({"llm.example.com", "llm.internal"})),
        "assistants-tls": SecretFacts("assistants-tls", "gateway-tls", is_tls=True),
    },
    carriers=(Carrier("llama-8b", 2, is_closed=True),),
    clients=ClientsSecret("clients", "clients", "1", {"team-a": b"key-of-team-a"}),
)


def render(case: str) -> str:
    raw = yaml.safe_load((FOLDER / "cases" / f"{case}.yaml").read_text())
    route = parse_llmroute(raw)
    assert isinstance(route, LLMRoute), [str(finding) for finding in route]
    plan = plan_route(route, Observed(), FACTS, OperatorFacts(), ProviderCatalog.builtin(), NOW)
    documents = [_without_files(dict(child.body)) for child in plan.children]
    documents.append({"status": {key: plan.status[key] for key in ("endpoint", "gateways", "modelCount", "backends")}})
    return yaml.safe_dump_all(json.loads(json.dumps(documents)), sort_keys=False, width=160, allow_unicode=True)


def _without_files(body: dict[str, Any]) -> dict[str, Any]:
    body = copy.deepcopy(body)
    if "data" in body:
        body["data"] = dict.fromkeys(body["data"], "PGZpbGU+" if body["kind"] == "Secret" else "<file>")
    if body["kind"] == "Deployment":
        annotations = body["metadata"]["annotations"]
        annotations |= {key: f"<{key.rpartition('/')[2]}>" for key in (ANNOTATION_REVISION, ANNOTATION_TEMPLATE)}
        body["spec"]["template"]["metadata"]["annotations"][ANNOTATION_BOOTSTRAP] = "<bootstrap>"
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
    assert len(objects) == {"sidecar": 6, "sidecars": 14}.get(case, 10)
    for body in objects:
        kubernetes_validate.validate(body, version, strict=True)


@pytest.mark.parametrize("case", sorted(set(CASES) - {"sidecar"}))
def test_every_pod_passes_pod_security_restricted(case: str) -> None:
    (deployment,) = (body for body in yaml.safe_load_all(render(case)) if body.get("kind") == "Deployment")
    assert violations(deployment["spec"]["template"]["spec"]) == []
