"""Objects that break one bound each, made from the schema: whatever it bounds, somebody has tried to get past it.

The tables say what people get wrong; these say that nothing was left out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from tests.unit.api.cases import Case, Table, grow

from fairlead.api.crd import find_node, make_crds

Json = dict[str, Any]
Steps = tuple[str, ...]
Change = Callable[[Json], str]
#: Objects that have every field together: of some fields an object may have only one.
_BASES = {"LLMDeployment": ("full", "carrier"), "LLMRoute": ("full", "own")}
_WRONG_TYPE = {"string": 5, "integer": "x", "boolean": "x", "array": "x", "object": "x"}


def spec_schema(table: Table) -> Json:
    """The schema of a kind's spec."""
    [crd] = [crd for crd in make_crds() if crd["spec"]["names"]["kind"] == table.kind]
    schema: Json = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return find_node(schema, "spec")


def bound_cases(table: Table) -> list[Case]:
    """One case for each bound, type, enum, required field and closed object of the spec, as far as the objects of `_BASES` go."""
    found: list[Case] = []
    for base, steps, schema, parent in _nodes(table):
        path = "".join(f"[{step[1:]}]" if step.startswith("=") else f".{step}" for step in steps).removeprefix(".")
        for what, change in _breaks(schema, parent, steps):
            resource = table.make(base, {})
            found.append(Case(f"{path}: {what}", resource, (f"{path}{change(resource)}",)))
    return found


def walked(table: Table) -> set[str]:
    """Paths of the schema that the cases reach, with `[*]` for any index or key."""
    return {_general(steps) for _, steps, _, _ in _nodes(table)}


def _nodes(table: Table) -> Iterator[tuple[str, Steps, Json, Json]]:
    """(base, steps, schema, schema above): all of the first base, and of the next ones what those before do not have."""
    seen: set[str] = set()
    for base in _BASES[table.kind]:
        nodes = [*_walk(spec_schema(table), {}, table.make(base, {})["spec"], ("spec",))]
        yield from ((base, *node) for node in nodes if _general(node[0]) not in seen)
        seen |= {_general(node[0]) for node in nodes}


def _general(steps: Steps) -> str:
    return "".join("[*]" if step.startswith("=") else f".{step}" for step in steps).removeprefix(".")


def _walk(schema: Json, parent: Json, value: Any, steps: Steps) -> Iterator[tuple[Steps, Json, Json]]:
    """(steps, schema, schema above) of all nodes; the first entry of a list that has a field stands for all. Steps that begin with
    = are indices, or keys of free maps. Scalars that `full` does not have are there, too, but not as required ones."""
    yield steps, schema, parent
    for name, below in schema.get("properties", {}).items():
        if isinstance(value, dict) and name in value:
            yield from _walk(below, schema, value[name], (*steps, name))
        elif below.get("type") in ("string", "integer", "boolean"):
            yield (*steps, name), below, {}
    entries: list[tuple[Any, Any]] = []
    if isinstance(value, list):
        entries = list(enumerate(value))
    elif isinstance(value, dict) and isinstance(schema.get("additionalProperties"), dict):
        entries = list(value.items())[:1]
    seen: set[str] = set()
    for key, item in entries:
        below = schema["items"] if isinstance(value, list) else schema["additionalProperties"]
        for found in _walk(below, schema, item, (*steps, f"={key}")):
            if _general(found[0]) not in seen:
                seen.add(_general(found[0]))
                yield found


def _breaks(schema: Json, parent: Json, steps: Steps) -> Iterator[tuple[str, Change]]:
    """What can be wrong with a value of this schema, and how to make it so; the change says what is told below the path."""
    *above, last = (step.removeprefix("=") for step in steps)

    def remove(resource: Json) -> str:
        del _at(resource, above)[last]
        return ""

    def add(resource: Json) -> str:
        _at(_at(resource, above), [last])["unheardOf"] = 1
        return ".unheardOf"

    for what, value in _wrong_values(schema):
        yield what, partial(_put, above, last, value)
    for most in ("maxItems", "maxProperties"):
        if most in schema:
            yield "too many", partial(_enlarge, above, last, schema[most] + 1)
    if last in parent.get("required", ()):
        yield "missing", remove
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        yield "an unknown field", add


def _wrong_values(schema: Json) -> Iterator[tuple[str, Any]]:
    """Values beside each bound, and of another type; quantities, which have two types, are left to the tables."""
    kind = schema.get("type", "")
    if kind in _WRONG_TYPE:
        yield "another type", _WRONG_TYPE[kind]
    if kind == "integer":
        yield from (
            (f"beside {key}", schema[key] + by) for key, by in (("minimum", -1), ("maximum", 1)) if key in schema
        )
    if kind == "string":
        lengths = [(key, schema[key] + by) for key, by in (("minLength", -1), ("maxLength", 1)) if schema.get(key)]
        yield from ((f"beside {key}", "a" * length) for key, length in lengths)
    if schema.get("minItems"):
        yield "too few", []
    if "enum" in schema:
        yield "no value", "Nonsense"


def _put(above: list[str], last: str, value: Any, resource: Json) -> str:
    node = _at(resource, above)
    node[int(last) if isinstance(node, list) else last] = copy.deepcopy(value)
    return ""


def _enlarge(above: list[str], last: str, count: int, resource: Json) -> str:
    grow(_at(_at(resource, above), [last]), count)
    return ""


def _at(resource: Any, parts: list[str]) -> Any:
    for part in parts:
        resource = resource[int(part) if isinstance(resource, list) else part]
    return resource
