"""The CRD of this tree against those of every release, and the comparison itself against changes that it must find."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.releases.compatibility import find_breaks

from fairlead.api.crd import make_llmdeployment_crd

Json = dict[str, Any]

RELEASES = sorted(path for path in (Path(__file__).parents[2] / "data" / "releases").iterdir() if path.is_dir())
#: CEL rules that a release does not have, and why everything that was valid before passes them too.
REVIEWED_RULES: dict[str, str] = {
    "!has(self.autoscaling) || self.autoscaling.maxReplicas <= 1 || !has(self.storage) || !has(self.storage.accessModes)"
    " || !('ReadWriteOncePod' in self.storage.accessModes)": "asks only those with spec.autoscaling, which came after 0.1",
    "!has(self.gateway) || !has(self.autoscaling) || self.autoscaling.mode == 'External'"
    " || self.autoscaling.minReplicas > 0": "the same",
}


def read_crd(release: Path) -> Json:
    crd: Json = yaml.safe_load((release / "crd.yaml").read_text())
    return crd


OLDEST = read_crd(RELEASES[0])


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_the_crd_takes_the_place_of_every_released_one(release: Path) -> None:
    assert find_breaks(read_crd(release), make_llmdeployment_crd(), reviewed_rules=frozenset(REVIEWED_RULES)) == []


def test_releases_take_the_place_of_each_other_in_order() -> None:
    crds = [read_crd(release) for release in RELEASES]
    for older, newer in pairwise(crds):
        assert find_breaks(older, newer, reviewed_rules=frozenset(REVIEWED_RULES)) == []


def test_reviewed_rules_are_in_use() -> None:
    text = json.dumps(make_llmdeployment_crd(), ensure_ascii=False)
    assert [rule for rule in REVIEWED_RULES if rule not in text] == []


# --- the comparison finds what breaks ------------------------------------------------------------------------------------


def schema_of(crd: Json) -> Json:
    schema: Json = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def at(crd: Json, path: str) -> Json:
    node = schema_of(crd)
    for name in path.split("."):
        node = node["items"] if name == "*" else node["properties"][name]
    return node


def changed(change: Callable[[Json], object]) -> Json:
    crd = copy.deepcopy(OLDEST)
    change(crd)
    return crd


BREAKS: dict[str, tuple[Callable[[Json], object], str]] = {
    "a field removed": (lambda c: at(c, "spec")["properties"].pop("suspend"), "spec: suspend is gone"),
    "a field of status removed": (lambda c: at(c, "status")["properties"].pop("endpoint"), "status: endpoint is gone"),
    "a field renamed": (
        lambda c: at(c, "spec")["properties"].update(paused=at(c, "spec")["properties"].pop("suspend")),
        "spec: suspend is gone",
    ),
    "another type": (lambda c: at(c, "spec.replicas").update(type="string"), "spec.replicas: type was"),
    "a value of an enum removed": (
        lambda c: at(c, "spec.storage.type")["enum"].remove("EmptyDir"),
        "spec.storage.type: EmptyDir is no value any more",
    ),
    "an enum where there was none": (
        lambda c: at(c, "spec.engine.type").update(enum=["vLLM"]),
        "spec.engine.type: any value is no value any more",
    ),
    "a field required": (lambda c: at(c, "spec").update(required=["model", "engine", "replicas"]), "replicas became required"),
    "a lower maximum": (lambda c: at(c, "spec.replicas").update(maximum=10), "spec.replicas: maximum fell"),
    "a higher minimum": (lambda c: at(c, "spec.replicas").update(minimum=1), "spec.replicas: minimum rose"),
    "a maximum where there was none": (
        lambda c: at(c, "status.replicas").update(maximum=10),
        "status.replicas: maximum fell from None",
    ),
    "shorter text": (lambda c: at(c, "spec.model.name").update(maxLength=10), "spec.model.name: maxLength fell"),
    "fewer items": (lambda c: at(c, "spec.files").update(maxItems=1), "spec.files: maxItems fell"),
    "a pattern": (lambda c: at(c, "spec.model.name").update(pattern="^[a-z]+$"), "spec.model.name: pattern was None"),
    "another default": (lambda c: at(c, "spec.replicas").update(default=2), "spec.replicas: default was 1 and is 2"),
    "a default removed": (lambda c: at(c, "spec.replicas").pop("default"), "spec.replicas: default was 1 and is None"),
    "a default where there was none": (lambda c: at(c, "spec.model.name").update(default="x"), "default was None and is 'x'"),
    "a new field with a default": (
        lambda c: at(c, "spec")["properties"].update(mood={"type": "string", "default": "good"}),
        "spec: the new field mood brings a default ('good')",
    ),
    "a new rule": (
        lambda c: at(c, "spec").setdefault("x-kubernetes-validations", []).append({"rule": "!self.suspend"}),
        "spec: a rule came or changed: !self.suspend",
    ),
    "another merge of a list": (
        lambda c: at(c, "spec.files").update({"x-kubernetes-list-type": "atomic"}),
        "spec.files: x-kubernetes-list-type was 'map'",
    ),
    "raw fields that are pruned": (
        lambda c: at(c, "spec.engine.env.*").pop("x-kubernetes-preserve-unknown-fields"),
        "spec.engine.env[*]: unknown fields are not kept any more",
    ),
    "a shape for what was raw": (
        lambda c: at(c, "spec.engine.env.*")["properties"].update(mood={"type": "string"}),
        "spec.engine.env[*]: mood got a schema",
    ),
    "a version that is not served": (
        lambda c: c["spec"]["versions"][0].update(served=False),
        "version v1alpha1 is not served any more",
    ),
    "a version renamed": (lambda c: c["spec"]["versions"][0].update(name="v1"), "version v1alpha1 is not served any more"),
    "another group": (lambda c: c["spec"].update(group="example.org"), "group: fairlead.dev became example.org"),
    "another scope": (lambda c: c["spec"].update(scope="Cluster"), "scope: Namespaced became Cluster"),
    "another plural": (lambda c: c["spec"]["names"].update(plural="llms"), "names.plural: llmdeployments became llms"),
    "a short name gone": (lambda c: c["spec"]["names"].update(shortNames=[]), "names.shortNames: llmdep is gone"),
    "no scale subresource": (
        lambda c: c["spec"]["versions"][0]["subresources"].pop("scale"),
        "version v1alpha1: its subresources changed",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "finding"), BREAKS.values(), ids=BREAKS)
def test_what_breaks_users_is_found(change: Callable[[Json], object], finding: str) -> None:
    breaks = find_breaks(OLDEST, changed(change))
    assert any(finding in line for line in breaks), breaks


GOOD: dict[str, Callable[[Json], object]] = {
    "nothing": lambda c: c,
    "a new optional field": lambda c: at(c, "spec")["properties"].update(mood={"type": "string", "enum": ["good"]}),
    "a new section whose fields have defaults": lambda c: at(c, "spec")["properties"].update(
        mood={"type": "object", "properties": {"kind": {"type": "string", "default": "good"}}}
    ),
    "a new field of status": lambda c: at(c, "status")["properties"].update(mood={"type": "string"}),
    "a new value of an enum": lambda c: at(c, "spec.storage.type")["enum"].append("Image"),
    "a higher maximum": lambda c: at(c, "spec.replicas").update(maximum=5000),
    "no maximum": lambda c: at(c, "spec.replicas").pop("maximum"),
    "a lower minimum": lambda c: at(c, "spec.accelerator.count").update(minimum=0),
    "a required field that is optional": lambda c: at(c, "spec").update(required=["model"]),
    "a rule less": lambda c: at(c, "spec")["x-kubernetes-validations"].pop(),
    "a rule's other message": lambda c: at(c, "spec")["x-kubernetes-validations"][0].update(message="Otherwise."),
    "another description": lambda c: at(c, "spec.replicas").update(description="How many."),
    "another column": lambda c: c["spec"]["versions"][0]["additionalPrinterColumns"].pop(),
    "a second version": lambda c: c["spec"]["versions"].append(
        {**copy.deepcopy(c["spec"]["versions"][0]), "name": "v1beta1", "storage": False}
    ),
}


@pytest.mark.parametrize("change", GOOD.values(), ids=GOOD)
def test_what_breaks_nobody_is_let_through(change: Callable[[Json], object]) -> None:
    assert find_breaks(OLDEST, changed(change)) == []


# --- everywhere, not just in the examples above --------------------------------------------------------------------------


def every_node(node: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    yield path, node
    for name, below in node.get("properties", {}).items():
        yield from every_node(below, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if isinstance(node.get(keyword), dict):
            yield from every_node(node[keyword], f"{path}.{keyword}")


def narrowings(node: Json) -> Iterator[tuple[str, Json]]:
    """Every way to narrow one node by one keyword: what it is, and the node afterwards."""
    for name in node.get("properties", {}):
        yield f"without {name}", {**node, "properties": {k: v for k, v in node["properties"].items() if k != name}}
    for name in set(node.get("properties", {})) - set(node.get("required", ())):
        yield f"{name} required", {**node, "required": [*node.get("required", ()), name]}
    for value in node.get("enum", ()):
        yield f"without the value {value}", {**node, "enum": [one for one in node["enum"] if one != value]}
    for keyword in ("maximum", "maxLength", "maxItems", "maxProperties"):
        if keyword in node:
            yield f"less {keyword}", {**node, keyword: node[keyword] - 1}
    for keyword in ("minimum", "minLength", "minItems", "minProperties"):
        if keyword in node:
            yield f"more {keyword}", {**node, keyword: node[keyword] + 1}
    if "default" in node:
        yield "no default", {key: value for key, value in node.items() if key != "default"}
    if "type" in node:
        yield "another type", {**node, "type": "boolean" if node["type"] != "boolean" else "string"}
    yield "one rule more", {**node, "x-kubernetes-validations": [{"rule": "false"}]}


def test_a_narrowing_is_found_wherever_it_is() -> None:
    crd = copy.deepcopy(OLDEST)
    tried, missed = 0, []
    for path, node in every_node(schema_of(crd)):
        raw = node.get("x-kubernetes-preserve-unknown-fields")
        whole = dict(node)
        for what, narrow in narrowings(whole):
            if raw and what.startswith("without") and "enum" not in whole:
                continue  # where unknown fields are kept, a field without a schema is still kept
            node.clear()
            node.update(narrow)
            tried += 1
            if not find_breaks(OLDEST, crd):
                missed.append(f"{path}: {what}")
        node.clear()
        node.update(whole)
    assert missed == []
    assert tried > 500
