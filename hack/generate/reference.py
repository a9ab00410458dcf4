"""docs/reference.md: every field of the custom resources, as the CRD has them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from fairlead.api.crd import make_crds
from fairlead.api.rules.beyond import BEYOND_CEL
from hack.generate import GENERATED_NOTICE

Json = dict[str, Any]


def generate() -> dict[str, str]:
    """The page."""
    parts = [f"<!-- {GENERATED_NOTICE} -->\n\n# Field reference\n"]
    for crd in make_crds():
        kind, group = crd["spec"]["names"]["kind"], crd["spec"]["group"]
        for version in crd["spec"]["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            parts.append(f"\n## {kind} ({group}/{version['name']})\n\n{schema['description']}\n")
            parts.append(f"\n`kubectl explain` shows the same texts. Examples are in the [guide]({kind.lower()}.md).\n")
            for section in ("spec", "status"):
                parts.append(f"\n### {section}\n\n{schema['properties'][section].get('description', '')}\n\n")
                parts.append("| Field | Type | Default | Meaning |\n| --- | --- | --- | --- |\n")
                parts += (row(*field) for field in walk(section, schema["properties"][section]))
            rules = list(list_rules("", schema))
            parts.append("\n### Rules between fields\n\nThe API server refuses an object that breaks one of these.\n\n")
            parts.append("| Where | What is refused; what would work |\n| --- | --- |\n")
            parts += (f"| `{path}` | {escape(message)} |\n" for path, message in rules)
    parts.append(
        "\n## What the API server lets pass\n\nThese mistakes cannot be refused by the CRD; somebody else tells of them.\n\n"
    )
    parts.append("| Mistake | Told by | Why not by the CRD |\n| --- | --- | --- |\n")
    parts += (f"| {escape(row.what)} | {escape(row.told_by)} | {escape(row.why)} |\n" for row in BEYOND_CEL)
    return {"docs/reference.md": "".join(parts)}


def walk(path: str, schema: Json) -> Iterator[tuple[str, Json, bool]]:
    """(path, schema, required) of every field below, depth first; `[]` stands for an item, `{}` for a value of a map."""
    required = set(schema.get("required", ()))
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        yield here, field, name in required
        yield from walk(here, field)
        if field.get("items", {}).get("properties"):
            yield from walk(f"{here}[]", field["items"])


def row(path: str, schema: Json, required: bool) -> str:
    """One field in Markdown."""
    default = f"`{json.dumps(schema['default'])}`" if "default" in schema else "required" if required else ""
    return f"| `{path}` | {escape(describe_type(schema))} | {default} | {escape(schema.get('description', ''))} |\n"


def describe_type(schema: Json) -> str:
    """The type in a few words, with the values of an enum and the bounds of a number."""
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity"
    kind = schema.get("type", "any")
    if kind == "integer":
        return f"integer {schema.get('minimum', '')}…{schema.get('maximum', '')}"
    if kind == "array":
        return f"list of {describe_type(schema['items'])}"
    if kind == "object" and "additionalProperties" in schema:
        return f"map of {describe_type(schema['additionalProperties'])}"
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return "object as Kubernetes has it"
    return str(kind)


def list_rules(path: str, schema: Json) -> Iterator[tuple[str, str]]:
    """(field, message) of every validation rule, in the order of the fields."""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield f"{path}{rule.get('fieldPath', '')}".removeprefix("."), rule["message"]
    for name, field in schema.get("properties", {}).items():
        yield from list_rules(f"{path}.{name}", field)
    for key, suffix in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(schema.get(key), dict):
            yield from list_rules(f"{path}{suffix}", schema[key])


def escape(text: str) -> str:
    """Text in a Markdown table: pipes and angle brackets mean something there."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")
