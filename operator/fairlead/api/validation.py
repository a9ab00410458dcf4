"""The verdict on a custom resource: a valid one, or findings that say what is wrong, where, and what would work.

The same questions as the API server asks with the generated CRD, in the same order: first the structure, and only if that
holds, the rules. `fairlead render` and the operator both ask here, so a typo looks the same in a pipeline and in status.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fairlead.api.llmdeployment import LLMDeploymentSpec
from fairlead.api.names import API_VERSION, LLMDEPLOYMENT, LLMROUTE
from fairlead.api.resource import Finding, LLMDeployment, LLMRoute, Metadata
from fairlead.api.route import LLMRouteSpec
from fairlead.api.rules import ROUTE_RULES, RULES, Root, Rule
from fairlead.api.rules.table import choose, nearest
from fairlead.api.schema import structural_schema

__all__ = ["check_structure", "parse_llmdeployment", "parse_llmroute"]

_TOP_LEVEL: Final = ("apiVersion", "kind", "metadata", "spec", "status")
_METADATA: Final = (
    "name", "generateName", "namespace", "labels", "annotations", "finalizers", "ownerReferences", "uid", "resourceVersion",
    "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "selfLink",
)  # fmt: skip
_CONFIDENTIAL: Final = re.compile(r"spec\.engine\.(env\[\d+\]\.value|args\[\d+\])")
_TYPE_WORDS: Final = {
    "string": "text",
    "integer": "a whole number",
    "boolean": "true or false",
    "object": "a map",
    "array": "a list",
}


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of ours: its spec, its rules, and what a person who forgot something is told. Hashable by its name."""

    name: str
    spec: type[BaseModel]
    rules: tuple[Rule, ...]
    example: str
    least: str

    def __hash__(self) -> int:
        return hash(self.name)


_DEPLOYMENT: Final = _Kind(
    LLMDEPLOYMENT, LLMDeploymentSpec, RULES, "llama-8b", "at least spec.model.source and spec.engine.type"
)
_ROUTE: Final = _Kind(
    LLMROUTE, LLMRouteSpec, ROUTE_RULES, "assistants", "at least spec.backends, spec.models and spec.authentication"
)
_BY_SPEC: Final = {kind.spec: kind for kind in (_DEPLOYMENT, _ROUTE)}


def parse_llmdeployment(resource: Mapping[str, Any]) -> LLMDeployment | tuple[Finding, ...]:
    """A valid LLMDeployment with defaults applied, or at least one finding."""
    spec = _parse_spec(resource, _DEPLOYMENT)
    if isinstance(spec, tuple):
        return spec
    assert isinstance(spec, LLMDeploymentSpec)
    return LLMDeployment(metadata=Metadata.of(resource), spec=spec, status=dict(resource.get("status") or {}))


def parse_llmroute(resource: Mapping[str, Any]) -> LLMRoute | tuple[Finding, ...]:
    """A valid LLMRoute with defaults applied, or at least one finding."""
    spec = _parse_spec(resource, _ROUTE)
    if isinstance(spec, tuple):
        return spec
    assert isinstance(spec, LLMRouteSpec)
    return LLMRoute(metadata=Metadata.of(resource), spec=spec, status=dict(resource.get("status") or {}))


def _parse_spec(resource: Mapping[str, Any], kind: _Kind) -> BaseModel | tuple[Finding, ...]:
    """The spec, or findings."""
    spec = _check_structure(resource, kind)
    if isinstance(spec, tuple):
        return spec
    broken = (
        *_find_duplicates(spec),
        *_check_rules(str(resource["metadata"]["name"]), spec),
    )
    return broken or spec


def check_structure(resource: Mapping[str, Any]) -> BaseModel | tuple[Finding, ...]:
    """The first half of the verdict: fields, types, bounds and values of enums. The spec, which may still break rules, or findings.
    What is no LLMRoute is taken for an LLMDeployment."""
    return _check_structure(resource, _ROUTE if resource.get("kind") == LLMROUTE else _DEPLOYMENT)


def _check_structure(resource: Mapping[str, Any], kind: _Kind) -> BaseModel | tuple[Finding, ...]:
    envelope = tuple(_check_envelope(resource, kind))
    if resource.get("kind") != kind.name or not isinstance(resource.get("spec"), Mapping):
        return envelope
    normalised = normalise(resource["spec"], _spec_schema(kind))
    try:
        spec = kind.spec.model_validate(normalised, by_alias=True, by_name=False)
    except ValidationError as error:
        return envelope + tuple(_structural_finding(detail, kind) for detail in error.errors(include_url=False))
    return envelope or spec


@cache
def _spec_schema(kind: _Kind) -> dict[str, Any]:
    return structural_schema(kind.spec, documented=False)


def _check_envelope(resource: Mapping[str, Any], kind: _Kind) -> Iterator[Finding]:
    """What stands around the spec."""
    for key, expected in (("apiVersion", API_VERSION), ("kind", kind.name)):
        if resource.get(key) != expected:
            yield Finding(key, f"is {resource.get(key)!r}", f"{expected} would work")
    yield from _unknown_keys("", resource, _TOP_LEVEL)
    metadata = resource.get("metadata")
    if not isinstance(metadata, Mapping):
        yield Finding("metadata", "is required", f"metadata: {{name: {kind.example}}} would work")
    else:
        yield from _unknown_keys("metadata.", metadata, _METADATA)
        if not isinstance(metadata.get("name"), str) or not metadata["name"]:
            yield Finding("metadata.name", "is required", f"for instance {kind.example}")
    spec = resource.get("spec")
    if spec is None:
        yield Finding("spec", "is required", kind.least)
    elif not isinstance(spec, Mapping):
        yield Finding("spec", "must be a map", kind.least)


def _unknown_keys(prefix: str, found: Mapping[str, Any], known: tuple[str, ...]) -> Iterator[Finding]:
    for key in found:
        if key not in known:
            yield Finding(f"{prefix}{key}", "is not a field", _nearest_field(key, known))


def normalise(value: Any, schema: Mapping[str, Any]) -> Any:
    """What the API server makes of a value before it looks at it: null means absent, 2.0 is the integer 2.

    In raw Kubernetes objects null means absent, too.
    """
    if isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, Mapping):
        properties, additional = schema.get("properties", {}), schema.get("additionalProperties", {})
        drops_all = bool(additional) or _is_raw(schema)
        return {
            key: normalise(item, properties.get(key, additional))
            for key, item in value.items()
            if item is not None or not (drops_all or key in properties)
        }
    if isinstance(value, list):
        items = schema.get("items", {})
        return [normalise(item, items) for item in value]
    if isinstance(value, float) and value.is_integer() and (schema.get("type") == "integer" or _takes_integers(schema)):
        return int(value)
    return value


def _is_raw(schema: Mapping[str, Any]) -> bool:
    # Below a raw object the schema is empty.
    return not schema or bool(schema.get("x-kubernetes-preserve-unknown-fields"))


def _takes_integers(schema: Mapping[str, Any]) -> bool:
    return bool(schema.get("x-kubernetes-int-or-string"))


# --- structure ---------------------------------------------------------------------------------------------------------


def _structural_finding(error: ErrorDetails, kind: _Kind) -> Finding:
    location = error["loc"]
    path, schema, parent = _locate(location, _spec_schema(kind))
    wrong = error["type"]
    if wrong == "extra_forbidden":
        return Finding(path, "is not a field", _nearest_field(str(location[-1]), tuple(parent.get("properties", ()))))
    if wrong == "missing":
        return Finding(path, "is required", _example(schema))
    if "enum" in schema and isinstance(error["input"], str):
        return Finding(path, f"{error['input']!r} is not one of the values", choose(error["input"], schema["enum"]))
    if wrong == "string_type" and _CONFIDENTIAL.fullmatch(path):
        # What stands here may be a secret that is in the wrong place: it is not repeated.
        return Finding(path, "is not text", "in quotes it would be")
    return Finding(path, *_explain_bounds(error, schema))


def _locate(
    location: tuple[int | str, ...], whole: Mapping[str, Any]
) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
    """The path of an error in the CR's own terms, the schema there and the schema one level above."""
    path, schema, parent = "spec", whole, whole
    for step in location:
        parent = schema
        if isinstance(step, int):
            path, schema = f"{path}[{step}]", schema.get("items", {})
        elif "additionalProperties" in schema:
            path, schema = f"{path}[{step}]", schema["additionalProperties"]
        else:
            path, schema = f"{path}.{step}", schema.get("properties", {}).get(step, {})
    return path, schema, parent


def _nearest_field(name: str, known: tuple[str, ...]) -> str:
    near = nearest(name, known)
    return f"did you mean {near}?" if near else f"known are {', '.join(known)}"


def _example(schema: Mapping[str, Any]) -> str:
    required = schema.get("required")
    if required:
        return f"it holds {' and '.join(required)}"
    return f"set it to {_TYPE_WORDS.get(schema.get('type', ''), 'a value')}"


def _explain_bounds(error: ErrorDetails, schema: Mapping[str, Any]) -> tuple[str, str]:
    """Wrong types, and values outside of their bounds."""
    kind, value = error["type"], error["input"]
    if kind in ("greater_than_equal", "less_than_equal"):
        least, most = schema.get("minimum"), schema.get("maximum")
        near = least if kind == "greater_than_equal" else most
        return f"{value} is outside of {least} to {most}", f"{near} would work"
    if kind in ("string_too_long", "string_too_short"):
        return (
            f"has {len(str(value))} characters",
            f"{schema.get('minLength', 0)} to {schema.get('maxLength')} would work",
        )
    if kind in ("too_long", "too_short"):
        least, most = schema.get("minItems", 0), schema.get("maxItems", schema.get("maxProperties"))
        works = f"{least} to {most} would work" if least else f"at most {most} would work"
        return f"has {len(value)} entries", works
    if _takes_integers(schema):
        return f"is {_words_of(value)}, not a quantity", "for instance 8, 500m or 64Gi"
    wanted = _TYPE_WORDS.get(schema.get("type", ""), "of another type")
    return f"is {_words_of(value)}, not {wanted}", _conversion(value, schema)


def _words_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "a map"


def _conversion(value: Any, schema: Mapping[str, Any]) -> str:
    """The nearest value of the right type."""
    wanted = schema.get("type")
    if wanted == "string" and isinstance(value, bool | int | float):
        return f'"{str(value).lower() if isinstance(value, bool) else value}" in quotes would work'
    if wanted == "integer" and isinstance(value, str) and re.fullmatch("[0-9]+", value, re.ASCII):
        return f"{value} without quotes would work"
    if wanted == "boolean" and isinstance(value, str) and value.lower() in ("true", "false", "yes", "no"):
        return f"{'true' if value.lower() in ('true', 'yes') else 'false'} without quotes would work"
    if wanted == "array" and value is not None and not isinstance(value, list):
        return "write it as an item: - …"
    return f"write {_TYPE_WORDS.get(str(wanted), 'another type')}"


@cache
def _unique_lists(kind: _Kind) -> tuple[tuple[str, str], ...]:
    """Path and key of every list whose items are told apart by a key; the key is "" where they are by themselves."""

    def walk(path: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for key in schema.get("x-kubernetes-list-map-keys", ()):
            yield path, key
        if schema.get("x-kubernetes-list-type") == "set":
            yield path, ""
        for name, below in schema.get("properties", {}).items():
            yield from walk(f"{path}.{name}", below)
        if "items" in schema:
            yield from walk(f"{path}[*]", schema["items"])

    return tuple(walk("spec", _spec_schema(kind)))


def _find_duplicates(spec: BaseModel) -> Iterator[Finding]:
    """Entries that appear a second time in their list, or whose key does."""
    for at, key in _unique_lists(_BY_SPEC[type(spec)]):
        for path, items in _nodes(at, spec):
            seen: set[Any] = set()
            for index, item in enumerate(items):
                value = _key_of(item, key)
                if value in seen:
                    yield Finding(
                        f"{path}[{index}]", f"{key} {value} appears twice".lstrip(), "leave one of the two out"
                    )
                seen.add(value)


def _key_of(item: Any, key: str) -> Any:
    if not key:
        return item
    return item[key] if isinstance(item, dict) else getattr(item, _attributes(cast("Hashable", type(item)))[key])


# --- rules -------------------------------------------------------------------------------------------------------------


def _check_rules(name: str, spec: BaseModel, rules: Iterable[Rule] | None = None) -> Iterator[Finding]:
    nodes: dict[str, list[tuple[str, Any]]] = {"": [("", Root(name=name))]}
    for rule in _BY_SPEC[type(spec)].rules if rules is None else rules:
        found = nodes.get(rule.at)
        if found is None:
            found = nodes[rule.at] = list(_nodes(rule.at, spec))
        for path, node in found:
            if not rule.holds(node):
                message, remedy = rule.describe(node)
                yield Finding(f"{path}{rule.field}".removeprefix("."), message, remedy)


def _nodes(at: str, spec: BaseModel) -> Iterator[tuple[str, Any]]:
    """The nodes at a path of the schema that are present, with their own paths."""
    return _descend("spec", spec, _segments(at))


@cache
def _segments(at: str) -> tuple[str, ...]:
    return tuple(at.replace("[*]", ".*").split(".")[1:])


def _descend(path: str, node: Any, segments: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for position, head in enumerate(segments):
        if node is None:
            return
        if head == "*":
            for key, item in node.items() if isinstance(node, dict) else enumerate(node):
                yield from _descend(f"{path}[{key}]", item, segments[position + 1 :])
            return
        path = f"{path}.{head}"
        node = (
            node.get(head) if isinstance(node, dict) else getattr(node, _attributes(cast("Hashable", type(node)))[head])
        )
    if node is not None:
        yield path, node


@cache
def _attributes(model: Hashable) -> Mapping[str, str]:
    """Names in YAML to names in Python."""
    return {field.alias or name: name for name, field in cast("type[BaseModel]", model).model_fields.items()}
