"""The CustomResourceDefinitions, from the types and the tables of rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from fairlead.api.llmdeployment import LLMDeploymentSpec, LLMDeploymentStatus
from fairlead.api.names import GROUP, LLMDEPLOYMENT, LLMDEPLOYMENTS, LLMROUTE, LLMROUTES, VERSION
from fairlead.api.route import LLMRouteSpec
from fairlead.api.routestatus import LLMRouteStatus
from fairlead.api.rules import ROUTE_RULES, RULES, Rule
from fairlead.api.schema import structural_schema

__all__ = ["make_crds", "make_llmdeployment_crd", "make_llmroute_crd"]

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Kind:
    """What differs from one kind to the other."""

    name: str
    plural: str
    short: str
    description: str
    spec: type[BaseModel]
    status: type[BaseModel]
    rules: tuple[Rule, ...]
    columns: tuple[tuple[str, str, str, int, str], ...]
    subresources: Json


_READY: Final = '.status.conditions[?(@.type=="Ready")]'
_AGE: Final = ("Age", "date", ".metadata.creationTimestamp", 0, "How long the object exists.")

_DEPLOYMENT: Final = _Kind(
    name=LLMDEPLOYMENT,
    plural=LLMDEPLOYMENTS,
    short="llmdep",
    description="One model on one engine, served: pods, Service, cache volume, probes, drain, and a status that tells the truth.",
    spec=LLMDeploymentSpec,
    status=LLMDeploymentStatus,
    rules=RULES,
    columns=(
        ("Ready", "string", f"{_READY}.status", 0, "Whether the model answers requests."),
        ("Replicas", "string", ".status.readyOfDesired", 0, "Ready and desired replicas."),
        ("Model", "string", ".spec.model.source", 0, "Where the weights come from."),
        ("Engine", "string", ".spec.engine.type", 0, "The engine that serves the model."),
        ("Reason", "string", f"{_READY}.reason", 1, "Why it is ready or not."),
        ("Accelerator", "string", ".status.accelerator.summary", 1, "Accelerators per replica."),
        ("Endpoint", "string", ".status.endpoint", 1, "Base URL of the OpenAI-compatible API."),
        _AGE,
    ),
    subresources={
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    },
)
_ROUTE: Final = _Kind(
    name=LLMROUTE,
    plural=LLMROUTES,
    short="llmrt",
    description="One OpenAI-compatible gateway over local deployments and cloud providers, which sends no request where it may not go.",
    spec=LLMRouteSpec,
    status=LLMRouteStatus,
    rules=ROUTE_RULES,
    columns=(
        ("Ready", "string", f"{_READY}.status", 0, "Whether the gateway serves this route as it is written."),
        (
            "Gateways",
            "string",
            ".status.gateways",
            0,
            "Gateway pods that have loaded this generation, of those wanted.",
        ),
        ("Models", "integer", ".status.modelCount", 0, "How many models clients may ask for."),
        ("Endpoint", "string", ".status.endpoint", 0, "Base URL of the OpenAI-compatible API."),
        ("Reason", "string", f"{_READY}.reason", 1, "Why it is ready or not."),
        _AGE,
    ),
    subresources={"status": {}},
)


def make_crds() -> tuple[Json, ...]:
    """All of them."""
    return make_llmdeployment_crd(), make_llmroute_crd()


def make_llmdeployment_crd() -> Json:
    """The whole CustomResourceDefinition as a manifest. Raises NotStructuralError or LookupError when the types are wrong."""
    return _make_crd(_DEPLOYMENT)


def make_llmroute_crd() -> Json:
    """As `make_llmdeployment_crd`."""
    return _make_crd(_ROUTE)


def _make_crd(kind: _Kind) -> Json:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short],
                "categories": ["llm"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _make_schema(kind)},
                    "subresources": kind.subresources,
                    "additionalPrinterColumns": [_make_column(*column) for column in kind.columns],
                }
            ],
        },
    }


def _make_column(name: str, kind: str, path: str, priority: int, description: str) -> dict[str, Any]:
    column = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return {**column, "priority": priority} if priority else column


def _make_schema(kind: _Kind) -> dict[str, Any]:
    spec = structural_schema(kind.spec)
    status = structural_schema(kind.status)
    # An object that no operator has seen must not look finished to Helm, Flux and kubectl wait.
    status["default"] = {"observedGeneration": -1}
    schema: dict[str, Any] = {
        "type": "object",
        "description": kind.description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"Group and version of the resource: {GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"Kind of the resource: {kind.name}."},
            # The name must be declared for a rule to point at it.
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": spec,
            "status": status,
        },
    }
    for rule in kind.rules:
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
