"""The table of valid and invalid LLMDeployments, read from tests/data/llmdeployments."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]
_DIRECTORY = Path(__file__).parents[2] / "data" / "llmdeployments"


@dataclass(frozen=True)
class Case:
    """One row: the object, and for an invalid one where the findings must point to and what they must say."""

    name: str
    resource: Json
    paths: tuple[str, ...] = ()
    says: str = ""

    def __str__(self) -> str:
        return self.name


@cache
def _read(name: str) -> Any:
    return yaml.safe_load((_DIRECTORY / f"{name}.yaml").read_text(encoding="utf-8"))


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Json:
    """`base` with `changes` put in, maps into maps; lists and scalars replace."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def make_resource(base: str, changes: Mapping[str, Any], drop: Sequence[str] = ()) -> Json:
    """A whole object: one of bases.yaml, changed."""
    envelope = {"apiVersion": "fairlead.dev/v1alpha1", "kind": "LLMDeployment"}
    resource = merge({**envelope, **_read("bases")[base]}, changes)
    for path in drop:
        *parents, last = path.split(".")
        node = resource
        for part in parents:
            node = node[part]
        del node[last]
    return resource


def _make_case(row: Mapping[str, Any]) -> Case:
    changes = {key: row[key] for key in ("metadata", "spec") if key in row}
    resource = make_resource(row["base"], changes, row.get("drop", ()))
    return Case(row["case"], resource, tuple(row.get("paths", ())), row.get("says", ""))


def valid_cases() -> list[Case]:
    """Objects that everybody accepts."""
    return [_make_case(row) for row in _read("valid")]


def invalid_cases() -> list[Case]:
    """Objects that everybody refuses, for the same field."""
    return [_make_case(row) for row in _read("invalid")]


def raw_cases() -> list[Case]:
    """Objects with mistakes in raw Kubernetes fields, which the CRD lets pass."""
    return [_make_case(row) for row in _read("raw")]
