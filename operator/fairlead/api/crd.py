"""The CustomResourceDefinition of LLMDeployment, from the types and the table of rules."""

from __future__ import annotations

from typing import Any

from fairlead.api.llmdeployment import LLMDeploymentSpec, LLMDeploymentStatus
from fairlead.api.names import GROUP, LLMDEPLOYMENT, LLMDEPLOYMENTS, VERSION
from fairlead.api.rules import RULES, Rule
from fairlead.api.schema import structural_schema

__all__ = ["make_llmdeployment_crd"]

_COLUMNS = (
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', 0, "Whether the model answers requests."),
    ("Replicas", "string", ".status.readyOfDesired", 0, "Ready and desired replicas."),
    ("Model", "string", ".spec.model.source", 0, "Where the weights come from."),
    ("Engine", "string", ".spec.engine.type", 0, "The engine that serves the model."),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', 1, "Why it is ready or not."),
    ("Accelerator", "string", ".status.accelerator.summary", 1, "Accelerators per replica."),
    ("Endpoint", "string", ".status.endpoint", 1, "Base URL of the OpenAI-compatible API."),
    ("Age", "date", ".metadata.creationTimestamp", 0, "How long the object exists."),
)


def make_llmdeployment_crd() -> dict[str, Any]:
    """The whole CustomResourceDefinition as a manifest. Raises NotStructuralError or LookupError when the types are wrong."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{LLMDEPLOYMENTS}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": LLMDEPLOYMENT,
                "listKind": f"{LLMDEPLOYMENT}List",
                "plural": LLMDEPLOYMENTS,
                "singular": LLMDEPLOYMENT.lower(),
                "shortNames": ["llmdep"],
                "categories": ["llm"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _make_schema()},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [_make_column(*column) for column in _COLUMNS],
                }
            ],
        },
    }


def _make_column(name: str, kind: str, path: str, priority: int, description: str) -> dict[str, Any]:
    column = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return {**column, "priority": priority} if priority else column


def _make_schema() -> dict[str, Any]:
    spec = structural_schema(LLMDeploymentSpec)
    status = structural_schema(LLMDeploymentStatus)
    # An object that no operator has seen must not look finished to Helm, Flux and kubectl wait.
    status["default"] = {"observedGeneration": -1}
    schema: dict[str, Any] = {
        "type": "object",
        "description": "One model on one engine, served: pods, Service, cache volume, probes, drain, and a status that tells the truth.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"Group and version of the resource: {GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"Kind of the resource: {LLMDEPLOYMENT}."},
            # The name must be declared for a rule to point at it.
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": spec,
            "status": status,
        },
    }
    for rule in RULES:
        if rule.pattern:
            find_node(schema, rule.at)["pattern"] = f"^({rule.pattern})$"
        elif rule.cel:
            find_node(schema, rule.at).setdefault("x-kubernetes-validations", []).append(_make_validation(rule))
    return schema


def find_node(schema: dict[str, Any], path: str) -> dict[str, Any]:
    """The schema node at `path` (`spec.files[*].path`; `[*]` goes into items or values). Raises LookupError."""
    node = schema
    for segment in path.replace("[*]", ".*").split(".") if path else []:
        below = (
            node.get("items", node.get("additionalProperties"))
            if segment == "*"
            else node.get("properties", {}).get(segment)
        )
        if not isinstance(below, dict):
            raise LookupError(f"{path} is not in the schema")
        node = below
    return node


def _make_validation(rule: Rule) -> dict[str, str]:
    validation = {"rule": rule.cel, "message": f"{rule.message}; {rule.remedy}"}
    if rule.cel_message:
        validation["messageExpression"] = rule.cel_message
    if rule.field:
        validation["fieldPath"] = rule.field
    return validation
