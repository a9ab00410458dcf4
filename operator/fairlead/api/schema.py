"""From the pydantic types to a structural OpenAPI schema, as a CustomResourceDefinition wants it.

pydantic writes JSON Schema with references, titles and nullable unions; the API server takes only structural schemas.
What cannot be said structurally raises here, when the CRD is generated, and not later in somebody's cluster.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Hashable, Mapping
from functools import cache
from itertools import pairwise
from typing import Any, cast

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

_DROPPED = {"title", "examples"}
_KEPT = {
    "type", "description", "enum", "default", "pattern", "format", "minimum", "maximum", "minLength", "maxLength",
    "minItems", "maxItems", "minProperties", "maxProperties", "required", "anyOf",
    "x-kubernetes-int-or-string", "x-kubernetes-list-map-keys", "x-kubernetes-list-type", "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations",
}  # fmt: skip


class NotStructuralError(Exception):
    """A type cannot be said in a structural schema; the message names the path and the keyword."""


@cache
def field_docs(cls: Hashable) -> Mapping[str, str]:
    """The docstring under each field of `cls`, by Python name, as one line of text."""
    tree = ast.parse(inspect.getsource(cast("type", cls)))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    docs: dict[str, str] = {}
    for field, doc in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(doc, ast.Expr):
            docs[field.target.id] = " ".join(str(ast.literal_eval(doc.value)).split())
    return docs


class _Generator(GenerateJsonSchema):
    """Absent and null are the same to the API server, so optional fields have the schema of their value."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        json_schema = super().default_schema(schema)
        if json_schema.get("default") is None:
            json_schema.pop("default", None)
        return json_schema

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False

    def sort(self, value: JsonSchemaValue, parent_key: str | None = None) -> JsonSchemaValue:  # noqa: ARG002
        return value


class _DocumentedGenerator(_Generator):
    """The same with descriptions, which need the source files: for the CRD, not for the operator."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        json_schema = super().model_schema(schema)
        cls: type[BaseModel] = schema["cls"]
        docs = field_docs(cast("Hashable", cls))
        names = {(field.alias or name): name for name, field in cls.model_fields.items()}
        _describe(json_schema, {alias: docs[name] for alias, name in names.items() if name in docs})
        return json_schema

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> JsonSchemaValue:
        json_schema = super().typed_dict_schema(schema)
        if (cls := schema.get("cls")) is not None:
            _describe(json_schema, field_docs(cast("Hashable", cls)))
        return json_schema


def _describe(json_schema: JsonSchemaValue, docs: Mapping[str, str]) -> None:
    for name, doc in docs.items():
        json_schema["properties"][name]["description"] = doc


def structural_schema(model: type[BaseModel], *, documented: bool = True) -> dict[str, Any]:
    """The structural schema of `model`, without references; with descriptions if `documented`.

    Raises NotStructuralError where there is none.
    """
    generator = _DocumentedGenerator if documented else _Generator
    root = model.model_json_schema(by_alias=True, schema_generator=generator, mode="validation")
    return _inline(root, root.get("$defs", {}), model.__name__)


def _inline(node: Mapping[str, Any], definitions: Mapping[str, Any], path: str) -> dict[str, Any]:
    """One node and all below it: references resolved, JSON Schema's words put into Kubernetes' words."""
    merged = dict(node)
    reference = merged.pop("$ref", None)
    if reference is not None:
        merged = {**definitions[reference.rsplit("/", 1)[-1]], **merged}
    merged = {key: value for key, value in merged.items() if key not in _DROPPED and key != "$defs"}
    properties, additional, items = (merged.pop(key, None) for key in ("properties", "additionalProperties", "items"))
    unknown = set(merged) - _KEPT
    if unknown:
        raise NotStructuralError(f"{path}: {', '.join(sorted(unknown))} cannot be said in a structural schema")
    if merged.get("x-kubernetes-int-or-string"):
        merged.pop("type", None)
    elif "anyOf" in merged or "type" not in merged:
        raise NotStructuralError(f"{path}: a structural schema has exactly one type")
    if additional is True:
        merged["x-kubernetes-preserve-unknown-fields"] = True
    elif isinstance(additional, Mapping):
        merged["additionalProperties"] = _inline(additional, definitions, f"{path}[*]")
    if properties:
        merged["properties"] = {
            name: _inline(value, definitions, f"{path}.{name}") for name, value in properties.items()
        }
    if items is not None:
        merged["items"] = _inline(items, definitions, f"{path}[]")
    return {key: merged[key] for key in sorted(merged, key=_position)}


def _position(key: str) -> tuple[int, str]:
    """Type and description first, what is below last: the order in which a person reads a schema."""
    order = ("type", "description", "enum", "default")
    return (
        (order.index(key), "")
        if key in order
        else (9 if key in ("items", "properties", "additionalProperties") else 5, key)
    )
