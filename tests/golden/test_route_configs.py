"""What Envoy is told, feature by feature: one small LLMRoute in `configs/cases/`; beside it all files of the plain one, and of each other
what it changes in them. A golden file is what we decided; the tests with a real Envoy judge whether it is right."""

from __future__ import annotations

import json
from difflib import unified_diff
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.golden.test_route_manifests import FACTS

from fairlead.api.resource import LLMRoute
from fairlead.api.validation import parse_llmroute
from fairlead.facts.observed import OperatorFacts
from fairlead.gateway.envoy import render_files
from fairlead.gateway.envoy.sidecar import render_sidecar_files
from fairlead.planning.route import planner, resolve_route
from fairlead.planning.route.certificate import make_settings
from fairlead.planning.route.sidecars import make_for_sidecars
from fairlead.providers.loader import ProviderCatalog

FOLDER = Path(__file__).parent / "configs"
CASES = sorted(path.stem for path in (FOLDER / "cases").glob("*.yaml"))
PLAIN = "plain"
#: What every case has, so that it need say no more than its feature.
BASE: dict[str, Any] = {
    "backends": [
        {"name": "local", "deployment": {"name": "llama-8b"}},
        {"name": "openai", "provider": {"type": "OpenAI", "secretRef": {"name": "openai", "key": "apiKey"}}},
    ],
    "models": [
        {"name": "chat", "targets": [{"backend": "local"}, {"backend": "openai", "model": "gpt-5.6", "priority": 1}]}
    ],
    "authentication": {"apiKeys": {"secretRef": {"name": "clients"}}},
}


def render(case: str) -> str:
    spec = {**BASE, **(yaml.safe_load((FOLDER / "cases" / f"{case}.yaml").read_text()) or {})}
    metadata = {"name": "assistants", "namespace": "ml", "uid": "u", "generation": 1}
    route = parse_llmroute(
        {"apiVersion": "fairlead.dev/v1alpha1", "kind": "LLMRoute", "metadata": metadata, "spec": spec}
    )
    assert isinstance(route, LLMRoute), [str(finding) for finding in route]
    _, table = resolve_route(route, FACTS, OperatorFacts(), ProviderCatalog.builtin())
    made = render_files(table, make_settings(route, planner.SETTINGS))
    found = {name: _readable(json.loads(text)) for name, text in sorted({**made.bootstrap, **made.routing}.items())}
    return yaml.safe_dump(found, sort_keys=False, width=160, allow_unicode=True)


def render_sidecar() -> str:
    """What a sidecar reads of a route that lets some requests go to the cloud, without the listeners, which are the gateway's."""
    spec = {**BASE, **yaml.safe_load((FOLDER / "cases" / "roles.yaml").read_text())}
    metadata = {"name": "assistants", "namespace": "ml", "uid": "u", "generation": 1}
    route = parse_llmroute(
        {"apiVersion": "fairlead.dev/v1alpha1", "kind": "LLMRoute", "metadata": metadata, "spec": spec}
    )
    assert isinstance(route, LLMRoute)
    _, table = resolve_route(route, FACTS, OperatorFacts(), ProviderCatalog.builtin())
    made = render_sidecar_files(make_for_sidecars(route, table, OperatorFacts()))
    found = {name: _readable(json.loads(text)) for name, text in sorted(made.items()) if name != "lds.json"}
    return yaml.safe_dump(found, sort_keys=False, width=160, allow_unicode=True)


def _readable(value: Any) -> Any:
    """Without versions and Lua texts, and with the classifier's tables as such."""
    if isinstance(value, list):
        return [_readable(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "default_source_code" in value:
        value = {**value, "default_source_code": "<lua>"}
    if "filter_context" in value:
        value = {**value, "filter_context": {"policy": json.loads(value["filter_context"]["policy"])}}
    return {key: _readable(item) for key, item in value.items() if key != "version_info"}


def render_golden(case: str) -> str:
    """All of the plain one, and what others change."""
    if case == PLAIN:
        return render(case)
    lines = unified_diff(render(PLAIN).splitlines(), render(case).splitlines(), PLAIN, case, lineterm="", n=4)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, update_golden: bool) -> None:
    path = FOLDER / (f"{case}.yaml" if case == PLAIN else f"{case}.diff")
    rendered = render_golden(case)
    if update_golden:
        path.write_text(rendered)
    assert path.read_text() == rendered


def test_golden_of_a_sidecar(update_golden: bool) -> None:
    path, rendered = FOLDER / "sidecar.yaml", render_sidecar()
    if update_golden:
        path.write_text(rendered)
    assert path.read_text() == rendered


def test_each_case_says_something_of_its_own() -> None:
    assert len({render(case) for case in CASES}) == len(CASES) > 8
