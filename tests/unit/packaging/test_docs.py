"""The documents are alive: their YAML is valid, their links lead somewhere, and what they claim is so."""

from __future__ import annotations

import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from tests.kubernetes_schemas import validate
from tests.unit.packaging.restricted import violations

from fairlead.api.resource import LLMDeployment, LLMRoute
from fairlead.api.validation import parse_llmdeployment, parse_llmroute
from fairlead.config import OperatorConfig
from fairlead.engines.loader import EngineCatalog
from fairlead.facts.observed import Observed, OperatorFacts
from fairlead.facts.route import RouteFacts, SecretFacts
from fairlead.kube.access import LEASE_NAME
from fairlead.planning.deployment import plan_deployment
from fairlead.planning.plan import Plan
from fairlead.planning.route import plan_route
from fairlead.planning.route.carriers import is_carried
from fairlead.planning.route.certificate import certificate_secret
from fairlead.providers.loader import ProviderCatalog
from fairlead.runtime.decide import ENGINE_KEY

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("charts/**/*.md")])
SAMPLES = sorted(path for path in (ROOT / "manifests/samples").glob("**/*.yaml") if path.name != "kustomization.yaml")
_BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def yaml_blocks() -> list[tuple[str, str]]:
    """(where, text) of every YAML block in the documents."""
    return [
        (f"{name_of(page)}:{page.read_text()[: match.start()].count(chr(10)) + 1}", match[1])
        for page in PAGES
        for match in _BLOCK.finditer(page.read_text())
    ]


def examples() -> list[tuple[str, Json]]:
    """Every Kubernetes object that is shown to users, in documents and samples."""
    found = [(where, one) for where, text in yaml_blocks() for one in yaml.safe_load_all(text)]
    return found + [(name_of(path), one) for path in SAMPLES for one in yaml.safe_load_all(path.read_text())]


EXAMPLES = examples()
MODELS = [(where, one) for where, one in EXAMPLES if one["kind"] == "LLMDeployment"]


ROUTES = [(where, one) for where, one in EXAMPLES if one["kind"] == "LLMRoute"]


def catalog() -> EngineCatalog:
    """The built-in engines and those that the documents show."""
    shown = {
        one["metadata"]["labels"]["fairlead.dev/engine"]: (where, one["data"][ENGINE_KEY])
        for where, one in EXAMPLES
        if one["kind"] == "ConfigMap" and "fairlead.dev/engine" in one["metadata"].get("labels", {})
    }
    assert shown, "the guide shows an engine of one's own"
    return EngineCatalog.builtin().with_overrides(shown)


def plan(resource: Json) -> Plan:
    """What the operator would make of it."""
    parsed = parse_llmdeployment(resource)
    assert isinstance(parsed, LLMDeployment), [str(finding) for finding in parsed]
    return plan_deployment(parsed, Observed(), catalog(), OperatorFacts(), datetime(2026, 11, 25, tzinfo=UTC))


def test_there_are_examples() -> None:
    assert len(MODELS) >= 15


@pytest.mark.parametrize(("where", "resource"), MODELS, ids=[where for where, _ in MODELS])
def test_every_llmdeployment_that_is_shown_is_planned(where: str, resource: Json) -> None:
    children = plan(resource).children
    for child in children:
        validate(child.body, "1.37")
    (deployment,) = [child.body for child in children if child.key.kind == "Deployment"]
    assert violations(deployment["spec"]["template"]["spec"]) == []


@pytest.mark.parametrize(("where", "resource"), MODELS, ids=[where for where, _ in MODELS])
def test_every_llmdeployment_that_is_shown_fits_the_crd(where: str, resource: Json) -> None:
    crd = yaml.safe_load((ROOT / "crds/llmdeployments.fairlead.dev.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    jsonschema.validate(resource, schema)
    assert unknown_fields(resource["spec"], schema["properties"]["spec"], "spec") == []


@pytest.mark.parametrize(("where", "resource"), ROUTES, ids=[where for where, _ in ROUTES])
def test_every_llmroute_that_is_shown_is_accepted(where: str, resource: Json) -> None:
    crd = yaml.safe_load((ROOT / "crds/llmroutes.fairlead.dev.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    jsonschema.validate(resource, schema)
    assert unknown_fields(resource["spec"], schema["properties"]["spec"], "spec") == []
    parsed = parse_llmroute(resource)
    assert isinstance(parsed, LLMRoute), [str(finding) for finding in parsed]
    now = datetime(2026, 11, 25, tzinfo=UTC)
    name = certificate_secret(parsed)
    facts = RouteFacts(secrets={name: SecretFacts(name, "gateway-tls", is_tls=True)} if name is not None else {})
    planned = plan_route(parsed, Observed(), facts, OperatorFacts(), ProviderCatalog.builtin(), now)
    accepted = next(c for c in planned.status["conditions"] if c["type"] == "Accepted")
    assert accepted["status"] == "True", accepted["message"]
    for child in planned.children:
        validate(child.body, "1.37")
    deployments = [child.body for child in planned.children if child.key.kind == "Deployment"]
    assert len(deployments) == (0 if is_carried(parsed) else 1)
    for deployment in deployments:
        assert violations(deployment["spec"]["template"]["spec"]) == []


def unknown_fields(value: Any, schema: Json, path: str) -> list[str]:
    """Fields that the API server would prune, or refuse under strict validation."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return []
    if isinstance(value, list):
        return [field for item in value for field in unknown_fields(item, schema["items"], f"{path}[]")]
    if not isinstance(value, dict) or "additionalProperties" in schema:
        return []
    known = schema.get("properties", {})
    found = [f"{path}.{key}" for key in value if key not in known]
    return found + [
        field
        for key in value.keys() & known.keys()
        for field in unknown_fields(value[key], known[key], f"{path}.{key}")
    ]


@pytest.mark.parametrize("where", [where for where, one in EXAMPLES if one["kind"] == "ConfigMap"])
def test_every_config_map_that_is_shown_is_valid(where: str) -> None:
    validate(dict(EXAMPLES)[where], "1.37")


def anchors(page: Path) -> set[str]:
    """Anchors of headings as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text()):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in anchors(linked), f"{target} is no heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_that_are_named_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|\$ )make ([a-z][a-z-]+)", page.read_text()))
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_that_are_named_exist(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    roots = r"(?:operator|tests|hack|docs|charts|manifests|crds|requirements)"
    for named in re.findall(rf"`({roots}/[\w./-]*)`", text):
        assert (ROOT / named).exists(), named


def test_the_supported_versions_are_those_of_the_code() -> None:
    readme = (ROOT / "README.md").read_text()
    for engine in ("vLLM", "Ollama"):
        versions = EngineCatalog.builtin().get(engine).definition.versions
        assert f"| {engine} | {versions.minimum} to {versions.newest}, {versions.default} by default |" in readme
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert f"| Python | {requires.removeprefix('>=')} and newer |" in readme


def test_every_dependency_has_its_reason_and_nothing_else_is_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"operator": project["dependencies"], **project["optional-dependencies"]}
    wanted = {
        heading: {re.match(r"[A-Za-z0-9_-]+", dependency)[0] for dependency in dependencies}  # type: ignore[index]
        for heading, dependencies in groups.items()
        if dependencies
    }
    page = (ROOT / "docs/dependencies.md").read_text()
    sections = re.split(r"^## .*?`(\w+)`.*$", page, flags=re.MULTILINE)
    listed = {
        heading: set(re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE))
        for heading, text in zip(sections[1::2], sections[2::2], strict=True)
    }
    assert listed == wanted
    for reason in re.findall(r"^\| `[\w-]+` \| (.*) \|$", page, re.MULTILINE):
        assert len(reason) > 30


def test_the_lease_that_the_role_names_is_the_one_that_the_operator_takes() -> None:
    assert OperatorConfig.model_fields["lease_name"].default == LEASE_NAME


def test_metrics_that_are_described_exist() -> None:
    from fairlead.runtime.metrics import ConditionCollector, Metrics

    metrics = Metrics()
    metrics.registry.register(
        ConditionCollector({"LLMDeployment": lambda: [("ml", "m", "Ready", "True", "Serving")]}, lambda: {"Pod": 1})
    )
    exposed = {sample for family in metrics.registry.collect() for sample in (family.name, f"{family.name}_total")}
    described = set(re.findall(r"\| `(fairlead_\w+)", (ROOT / "docs/operations.md").read_text()))
    ours = {name for name in exposed if name.startswith("fairlead_")}
    assert described <= exposed
    undescribed = {name for name in ours if name not in described and f"{name}_total" not in described}
    assert {name for name in undescribed if not name.endswith("_total")} == set()


def test_license_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_changelog_keeps_its_form() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\S*\] - \d{4}-\d\d-\d\d", heading) for heading in headings[1:])
