"""The tables of valid and invalid custom resources, read from tests/data/llmdeployments and tests/data/llmroutes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]
_DATA = Path(__file__).parents[2] / "data"


@dataclass(frozen=True)
class Case:
    """One row: the object, and for an invalid one where the findings must point to and what they must say."""

    name: str
    resource: Json
    paths: tuple[str, ...] = ()
    says: str = ""

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Table:
    """The rows of one kind."""

    kind: str
    plural: str

    def __str__(self) -> str:
        return self.kind

    def bases(self) -> tuple[str, ...]:
        """Names of the objects that the rows change."""
        return tuple(_read(self.plural, "bases"))

    def make(self, base: str, changes: Mapping[str, Any], drop: Sequence[str] = ()) -> Json:
        """A whole object: one of bases.yaml, changed."""
        envelope = {"apiVersion": "fairlead.dev/v1alpha1", "kind": self.kind}
        resource = merge({**envelope, **_read(self.plural, "bases")[base]}, changes)
        for path in drop:
            *parents, last = path.split(".")
            del find(resource, ".".join(parents))[last]
        return resource

    def rows(self, name: str) -> list[Case]:
        """The rows of one file of this kind."""
        return [self._make_case(row) for row in _read(self.plural, name)]

    def _make_case(self, row: Mapping[str, Any]) -> Case:
        changes = {key: row[key] for key in ("metadata", "spec") if key in row}
        resource = self.make(row["base"], changes, row.get("drop", ()))
        for path, count in row.get("grow", {}).items():
            grow(find(resource, path), count)
        for path, length in row.get("stretch", {}).items():
            stretch(resource, path, length)
        return Case(row["case"], resource, tuple(row.get("paths", ())), row.get("says", ""))


DEPLOYMENTS = Table("LLMDeployment", "llmdeployments")
ROUTES = Table("LLMRoute", "llmroutes")
TABLES = (DEPLOYMENTS, ROUTES)


@cache
def _read(plural: str, name: str) -> Any:
    return yaml.safe_load((_DATA / plural / f"{name}.yaml").read_text(encoding="utf-8"))


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Json:
    """`base` with `changes` put in, maps into maps; lists and scalars replace."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def find(resource: Any, path: str) -> Any:
    """What stands at `spec.models.0.name`. LookupError where nothing does."""
    for part in path.split(".") if path else []:
        resource = resource[int(part) if isinstance(resource, list) else part]
    return resource


def grow(node: Any, count: int) -> None:
    """A list or a map of so many entries: like its last one, and each told apart from it."""
    if isinstance(node, dict):
        key, value = list(node.items())[-1]
        node.update({f"{key}{number}": copy.deepcopy(value) for number in range(count - len(node))})
        return
    last = node[-1]
    node += [_tell_apart(copy.deepcopy(last), number) for number in range(count - len(node))]


def _tell_apart(item: Any, number: int) -> Any:
    if not isinstance(item, dict):
        return f"{item}{number}"
    key = next((key for key in ("name", "path", "mountPath", "backend") if key in item), "name")
    if key == "backend":  # a target: the same backend with another model
        return {**item, "model": f"m{number}"}
    return {**item, key: f"{item.get(key, 'x')}{number}"}


def stretch(resource: Json, path: str, length: int) -> None:
    """The text at `path` with so many characters: cut, or with more of its last one."""
    parent, _, last = path.rpartition(".")
    node = find(resource, parent)
    key: Any = int(last) if isinstance(node, list) else last
    node[key] = node[key][:length].ljust(length, node[key][-1])


def make_resource(base: str, changes: Mapping[str, Any], drop: Sequence[str] = ()) -> Json:
    """A whole LLMDeployment: one of bases.yaml, changed."""
    return DEPLOYMENTS.make(base, changes, drop)


def make_route_resource(base: str, changes: Mapping[str, Any], drop: Sequence[str] = ()) -> Json:
    """A whole LLMRoute: one of bases.yaml, changed."""
    return ROUTES.make(base, changes, drop)


def valid_cases(table: Table = DEPLOYMENTS) -> list[Case]:
    """Objects that everybody accepts."""
    return table.rows("valid")


def invalid_cases(table: Table = DEPLOYMENTS) -> list[Case]:
    """Objects that everybody refuses, for the same field."""
    return table.rows("invalid")


def raw_cases() -> list[Case]:
    """LLMDeployments with mistakes in raw Kubernetes fields, which the CRD lets pass. An LLMRoute has no such fields."""
    return DEPLOYMENTS.rows("raw")


def both(rows: str) -> list[Case]:
    """The rows of a file, of all kinds."""
    return [case for table in TABLES for case in table.rows(rows)]


def case_id(case: Case) -> str:
    """As tests are called: kind and case."""
    return f"{case.resource.get('kind')}: {case}"
