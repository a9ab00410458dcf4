"""Whether one CRD can take another's place: everything that was valid stays valid, means the same, and nothing of it is lost.

There is no conversion webhook, and the CRDs are applied before the operator (docs/operations.md), so for a while the older
operator meets the newer CRD. Hence one rule more than usual: a new field brings no default, since the API server would put
it into every stored object, and the older operator would not know it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

Json = Mapping[str, Any]

_LOWER_BOUNDS: Final = ("minimum", "minLength", "minItems", "minProperties")
_UPPER_BOUNDS: Final = ("maximum", "maxLength", "maxItems", "maxProperties")
#: What may not come, go or change at all: there is no telling which of two is the wider.
_FIXED: Final = (
    "type", "format", "pattern", "default", "nullable", "anyOf", "oneOf", "allOf", "not", "exclusiveMinimum", "exclusiveMaximum",
    "multipleOf", "uniqueItems", "x-kubernetes-int-or-string", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type", "x-kubernetes-embedded-resource",
)  # fmt: skip
_RAW: Final = "x-kubernetes-preserve-unknown-fields"


def find_breaks(old: Json, new: Json, *, reviewed_rules: frozenset[str] = frozenset()) -> list[str]:
    """What could break for users of CRD `old` when `new` is applied, one line each; empty when nothing can.

    `reviewed_rules`: texts of CEL rules that are not in `old` and were found by a person to admit no less.
    """
    return [*_compare_crds(old["spec"], new["spec"], reviewed_rules)]


def _compare_crds(old: Json, new: Json, reviewed: frozenset[str]) -> Iterator[str]:
    for key in ("group", "scope"):
        if old[key] != new[key]:
            yield f"{key}: {old[key]} became {new[key]}"
    for key in ("kind", "plural", "singular", "listKind"):
        if old["names"].get(key) != new["names"].get(key):
            yield f"names.{key}: {old['names'].get(key)} became {new['names'].get(key)}"
    for key in ("shortNames", "categories"):
        for name in set(old["names"].get(key, ())) - set(new["names"].get(key, ())):
            yield f"names.{key}: {name} is gone"
    versions = {version["name"]: version for version in new["versions"]}
    for version in old["versions"]:
        successor = versions.get(version["name"])
        if successor is None or (version["served"] and not successor["served"]):
            yield f"version {version['name']} is not served any more"
            continue
        if version["storage"] and not successor["storage"]:
            yield f"version {version['name']} is not the stored one any more"
        if version.get("subresources") != successor.get("subresources"):
            yield f"version {version['name']}: its subresources changed"
        yield from _compare("", _schema(version), _schema(successor), reviewed)


def _schema(version: Json) -> Json:
    schema: Json = version["schema"]["openAPIV3Schema"]
    return schema


def _compare(path: str, old: Json, new: Json, reviewed: frozenset[str]) -> Iterator[str]:
    where = path.removeprefix(".") or "the object"
    for keyword in _FIXED:
        if old.get(keyword) != new.get(keyword):
            yield f"{where}: {keyword} was {old.get(keyword)!r} and is {new.get(keyword)!r}"
    yield from _compare_bounds(where, old, new)
    if added := set(new.get("required", ())) - set(old.get("required", ())):
        yield f"{where}: {', '.join(sorted(added))} became required"
    if "enum" in new and (gone := set(old.get("enum", ["any value"])) - set(new["enum"])):
        yield f"{where}: {', '.join(sorted(map(str, gone)))} is no value any more"
    if old.get(_RAW) and not new.get(_RAW):
        yield f"{where}: unknown fields are not kept any more"
    known = {rule["rule"] for rule in old.get("x-kubernetes-validations", ())} | reviewed
    for rule in new.get("x-kubernetes-validations", ()):
        if rule["rule"] not in known:
            yield f"{where}: a rule came or changed: {rule['rule']}"
    yield from _compare_below(path, where, old, new, reviewed)


def _compare_bounds(where: str, old: Json, new: Json) -> Iterator[str]:
    for keyword in _LOWER_BOUNDS:
        if new.get(keyword, float("-inf")) > old.get(keyword, float("-inf")):
            yield f"{where}: {keyword} rose from {old.get(keyword)} to {new[keyword]}"
    for keyword in _UPPER_BOUNDS:
        if new.get(keyword, float("inf")) < old.get(keyword, float("inf")):
            yield f"{where}: {keyword} fell from {old.get(keyword)} to {new[keyword]}"


def _compare_below(path: str, where: str, old: Json, new: Json, reviewed: frozenset[str]) -> Iterator[str]:
    before, after = old.get("properties", {}), new.get("properties", {})
    for name, schema in before.items():
        if name in after:
            yield from _compare(f"{path}.{name}", schema, after[name], reviewed)
        elif not new.get(_RAW):
            yield f"{where}: {name} is gone"
    for name in after.keys() - before.keys():
        if old.get(_RAW) or "additionalProperties" in old:
            yield f"{where}: {name} got a schema, and could be anything before"
        if default := find_default(after[name]):
            yield f"{where}: the new field {name} brings a default ({default}), which older operators do not know"
    for keyword, suffix in (("items", "[*]"), ("additionalProperties", ".*")):
        if (keyword in old) != (keyword in new):
            yield f"{where}: {keyword} came or went"
        elif isinstance(old.get(keyword), Mapping):
            yield from _compare(f"{path}{suffix}", old[keyword], new[keyword], reviewed)


def find_default(schema: Json) -> str:
    """What the API server would put into an object that does not have this field; empty: nothing.

    A default further down takes effect only where the field itself is there.
    """
    return repr(schema["default"]) if "default" in schema else ""
