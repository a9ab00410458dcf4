"""The generated schema: small, described, bounded, structural, and each rule proved by an object that breaks it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field
from tests.unit.api.cases import invalid_cases, make_resource

from fairlead.api.crd import find_node, make_llmdeployment_crd
from fairlead.api.rules import RULES, Rule
from fairlead.api.rules.table import quote
from fairlead.api.schema import NotStructuralError, structural_schema
from fairlead.api.validation import _check_rules as check_rules  # the rules alone, to see which of them speaks
from fairlead.api.validation import check_structure

Json = dict[str, Any]
CRD = make_llmdeployment_crd()
SCHEMA: Json = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def nodes(schema: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """All nodes with their paths."""
    yield path, schema
    for name, below in schema.get("properties", {}).items():
        yield from nodes(below, f"{path}.{name}".removeprefix("."))
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[*]")


SPEC = [(path, node) for path, node in nodes(SCHEMA) if path.startswith("spec")]
FIELDS = [
    (path, node) for path, node in nodes(SCHEMA) if re.match(r"(spec|status)\.", path) and not path.endswith("[*]")
]


def test_crd_is_small_enough_for_a_client_side_apply() -> None:
    assert len(json.dumps(CRD)) < 200_000


@pytest.mark.parametrize(("path", "node"), FIELDS, ids=[path for path, _ in FIELDS])
def test_description_says_more_than_the_name(path: str, node: Json) -> None:
    description = node.get("description", "")
    assert len(description) >= 30
    name = path.rsplit(".", 1)[-1]
    words = re.sub("[^a-z]", "", description.lower())
    assert words.removeprefix("the") != name.lower()
    assert description.rstrip().endswith((".", ")"))


@pytest.mark.parametrize(("path", "node"), FIELDS, ids=[path for path, _ in FIELDS])
def test_description_of_a_spec_field_says_what_absence_means(path: str, node: Json) -> None:
    if path.startswith("spec."):
        assert re.search(r"\b(Default|Absent|Required|absent|Absent or empty)\b", node["description"]), node[
            "description"
        ]


@pytest.mark.parametrize(("path", "node"), FIELDS, ids=[path for path, _ in FIELDS])
def test_default_in_the_description_is_the_schemas(path: str, node: Json) -> None:
    if "default" in node:
        value = str(node["default"]).lower() if isinstance(node["default"], bool) else str(node["default"])
        assert re.search(rf"\bDefault: {re.escape(value)}\b", node["description"]), node["description"]


@pytest.mark.parametrize(("path", "node"), SPEC, ids=[path for path, _ in SPEC])
def test_everything_in_a_spec_is_bounded(path: str, node: Json) -> None:
    """Without bounds CEL's estimated cost is beyond its budget, and a spec could be as large as a request."""
    bounds = {"string": "maxLength", "array": "maxItems", "integer": "maximum"}
    if node.get("type") in bounds and "enum" not in node:
        assert bounds[node["type"]] in node
    if "additionalProperties" in node:
        assert "maxProperties" in node


def test_lists_say_how_they_merge() -> None:
    for path, node in SPEC:
        if node.get("type") == "array":
            assert node.get("x-kubernetes-list-type") in ("atomic", "map"), path


def test_scale_has_something_to_read() -> None:
    assert find_node(SCHEMA, "spec.replicas")["default"] == 1
    assert find_node(SCHEMA, "status.selector")["type"] == "string"
    assert find_node(SCHEMA, "status")["default"] == {"observedGeneration": -1}


def test_enums_are_camel_case() -> None:
    for path, node in SPEC:
        for value in node.get("enum", ()):
            assert re.fullmatch("[A-Z][A-Za-z0-9]*", value), path


class _Union(BaseModel):
    value: int | str


class _Tuple(BaseModel):
    value: tuple[int, str]


class _Exclusive(BaseModel):
    value: Annotated[int, Field(gt=3)]


@pytest.mark.parametrize("model", [_Union, _Tuple, _Exclusive])
def test_what_is_not_structural_is_refused(model: type[BaseModel]) -> None:
    with pytest.raises(NotStructuralError, match="value"):
        structural_schema(model)


def test_node_that_is_not_there_is_refused() -> None:
    with pytest.raises(LookupError, match=r"spec\.modell"):
        find_node(SCHEMA, "spec.modell.source")


# --- rules


def test_rules_have_names_of_their_own() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_rule_is_in_the_crd(rule: Rule) -> None:
    node = find_node(SCHEMA, rule.at)
    if rule.pattern:
        assert node["pattern"] == f"^({rule.pattern})$"
    else:
        found = [v for v in node["x-kubernetes-validations"] if v["rule"] == rule.cel]
        assert len(found) == 1
        assert found[0].get("fieldPath", "") == rule.field
    assert rule.message
    assert rule.remedy


@pytest.mark.parametrize("text", ["it's", "a\\b"])
def test_text_that_would_break_an_expression_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="literal"):
        quote(text)


def _broken_rules() -> dict[str, list[str]]:
    """Rule to the cases that break it."""
    broken: dict[str, list[str]] = {rule.id: [] for rule in RULES}
    for case in invalid_cases():
        spec = check_structure(case.resource)
        if isinstance(spec, tuple):
            continue
        name = case.resource["metadata"]["name"]
        whole = {finding.path for finding in check_rules(name, spec)}
        for rule in RULES:
            without = list(check_rules(name, spec, [r for r in RULES if r is not rule]))
            if {f.path for f in without} != whole or len(without) < len(list(check_rules(name, spec))):
                broken[rule.id].append(case.name)
    return broken


def test_every_rule_is_broken_by_an_object_of_the_table() -> None:
    unproved = sorted(rule for rule, cases in _broken_rules().items() if not cases)
    assert unproved == []


def test_unknown_field_is_a_field_of_the_python_name_too() -> None:
    """Python names are not a second spelling of the API."""
    for path in ("spec.network_policy", "spec.model.secret_ref"):
        *parents, last = path.split(".")[1:]
        nested: Json = {last: {}}
        for parent in reversed(parents):
            nested = {parent: nested}
        findings = check_structure(make_resource("vllm", {"spec": nested}))
        assert isinstance(findings, tuple)
        assert [finding.path for finding in findings] == [path]
