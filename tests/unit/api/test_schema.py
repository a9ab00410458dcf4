"""The generated schema: small, described, bounded, structural, and each rule proved by an object that breaks it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field
from tests.unit.api.cases import DEPLOYMENTS, ROUTES, TABLES, Table

from fairlead.api.crd import find_node, make_crds
from fairlead.api.rules import ROUTE_RULES, RULES, Rule
from fairlead.api.rules.table import quote
from fairlead.api.schema import NotStructuralError, structural_schema
from fairlead.api.validation import _check_rules as check_rules  # the rules alone, to see which of them speaks
from fairlead.api.validation import check_structure

Json = dict[str, Any]
CRDS: dict[str, Json] = {crd["spec"]["names"]["kind"]: crd for crd in make_crds()}
SCHEMAS: dict[str, Json] = {kind: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for kind, crd in CRDS.items()}
RULES_OF: dict[str, tuple[Rule, ...]] = {DEPLOYMENTS.kind: RULES, ROUTES.kind: ROUTE_RULES}
EVERY_RULE = [(kind, rule) for kind, rules in RULES_OF.items() for rule in rules]


def nodes(schema: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """All nodes with their paths."""
    yield path, schema
    for name, below in schema.get("properties", {}).items():
        yield from nodes(below, f"{path}.{name}".removeprefix("."))
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[*]")


SPEC = [
    (f"{kind}:{path}", node)
    for kind, schema in SCHEMAS.items()
    for path, node in nodes(schema)
    if path.startswith("spec")
]
FIELDS = [
    (f"{kind}:{path}", node)
    for kind, schema in SCHEMAS.items()
    for path, node in nodes(schema)
    if re.match(r"(spec|status)\.", path) and not path.endswith("[*]")
]


def test_both_kinds_are_here() -> None:
    assert set(CRDS) == {table.kind for table in TABLES} == set(RULES_OF)


@pytest.mark.parametrize("crd", CRDS.values(), ids=CRDS)
def test_crd_is_small_enough_for_a_client_side_apply(crd: Json) -> None:
    assert len(json.dumps(crd)) < 200_000


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
    if ":spec." in path:
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
            assert node.get("x-kubernetes-list-type") in ("atomic", "map", "set"), path
            # Whoever may add to a set needs no conflict for it, so it is for lists of names that several people keep.
            is_set = node["x-kubernetes-list-type"] == "set"
            assert is_set == (path == "LLMRoute:spec.roles[*].consumers"), path


def test_scale_has_something_to_read() -> None:
    schema = SCHEMAS[DEPLOYMENTS.kind]
    assert find_node(schema, "spec.replicas")["default"] == 1
    assert find_node(schema, "status.selector")["type"] == "string"


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_an_unseen_object_is_not_current(schema: Json) -> None:
    assert find_node(schema, "status")["default"] == {"observedGeneration": -1}


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
        find_node(SCHEMAS[DEPLOYMENTS.kind], "spec.modell.source")


# --- rules


@pytest.mark.parametrize("rules", RULES_OF.values(), ids=RULES_OF)
def test_rules_have_names_of_their_own(rules: tuple[Rule, ...]) -> None:
    assert len({rule.id for rule in rules}) == len(rules)


@pytest.mark.parametrize(("kind", "rule"), EVERY_RULE, ids=[f"{kind}:{rule.id}" for kind, rule in EVERY_RULE])
def test_rule_is_in_the_crd(kind: str, rule: Rule) -> None:
    node = find_node(SCHEMAS[kind], rule.at)
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


def _broken_rules(table: Table) -> dict[str, list[str]]:
    """Rule to the cases that break it."""
    rules = RULES_OF[table.kind]
    broken: dict[str, list[str]] = {rule.id: [] for rule in rules}
    for case in table.rows("invalid"):
        spec = check_structure(case.resource)
        if isinstance(spec, tuple):
            continue
        name = case.resource["metadata"]["name"]
        told = list(check_rules(name, spec))
        whole = {finding.path for finding in told}
        for rule in rules:
            without = list(check_rules(name, spec, [r for r in rules if r is not rule]))
            if {f.path for f in without} != whole or len(without) < len(told):
                broken[rule.id].append(case.name)
    return broken


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_every_rule_is_broken_by_an_object_of_the_table(table: Table) -> None:
    unproved = sorted(rule for rule, cases in _broken_rules(table).items() if not cases)
    assert unproved == []


@pytest.mark.parametrize(
    ("table", "base", "path"),
    [
        (DEPLOYMENTS, "vllm", "spec.network_policy"),
        (DEPLOYMENTS, "vllm", "spec.model.secret_ref"),
        (ROUTES, "local", "spec.data_policy"),
        (ROUTES, "local", "spec.gateway.drain_timeout"),
        (ROUTES, "local", "spec.authentication.api_keys"),
    ],
)
def test_unknown_field_is_a_field_of_the_python_name_too(table: Table, base: str, path: str) -> None:
    """Python names are not a second spelling of the API."""
    *parents, last = path.split(".")[1:]
    nested: Json = {last: {}}
    for parent in reversed(parents):
        nested = {parent: nested}
    findings = check_structure(table.make(base, {"spec": nested}))
    assert isinstance(findings, tuple)
    assert [finding.path for finding in findings] == [path]
