"""What the API types are made of: the base model, and markers for what pydantic has no word for.

The API server and pydantic must give the same verdict, so a raw Kubernetes object keeps unknown fields in both, an integer
is strict in both. Markers stand in `Annotated[...]`, so that attribute types stay plain `str`, `int`, `dict[str, Any]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StrictBool,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic.types import Strict
from pydantic_core import CoreSchema


class ApiModel(BaseModel):
    """Base of all API types: camelCase in YAML, snake_case in Python, frozen, unknown fields refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")


@dataclass(frozen=True, eq=False)
class SchemaExtra:
    """Adds keywords to the JSON schema of the annotated type, and nothing to what pydantic checks."""

    keywords: Mapping[str, Any]

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        json_schema = handler(schema)
        json_schema.update(self.keywords)
        return json_schema


def ListMap(key: str) -> SchemaExtra:  # noqa: N802 - reads as a marker
    """A list whose items are told apart by `key`: two owners may each apply their own. Duplicates are refused (validation.py)."""
    return SchemaExtra({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]})


@dataclass(frozen=True)
class RawItem:
    """A raw Kubernetes object of which the TypedDict `shape` names the few fields that rules read; the rest is kept."""

    shape: Any

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler.generate_schema(self.shape)


def _quantity_text(value: Any) -> Any:
    """`cpu: 8` and `cpu: "8"` mean the same in every Kubernetes manifest."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


#: Every integer of a spec has an upper bound (a test asserts it), so none can leave the API server's 64 bits.
Int = Annotated[int, Strict()]
Bool = StrictBool
#: A Kubernetes quantity where manifests also write bare integers; text in Python.
QuantityOrInt = Annotated[
    str,
    BeforeValidator(_quantity_text),
    SchemaExtra(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "minimum": 0,
            "maxLength": 32,
        }
    ),
]
#: A raw Kubernetes object that fairlead passes on unread.
RawObject = Annotated[dict[str, Any], SchemaExtra({"x-kubernetes-preserve-unknown-fields": True})]
#: A list that one owner writes as a whole.
Atomic = SchemaExtra({"x-kubernetes-list-type": "atomic"})
#: A map that one owner writes as a whole (selectors: half of one of each means something else than either).
AtomicMap = SchemaExtra({"x-kubernetes-map-type": "atomic"})
