"""The only door from these tests to fairlead: a route and a world, as plain mappings, through the real planner's path to files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from fairlead.api.resource import LLMRoute
from fairlead.api.validation import parse_llmroute
from fairlead.facts.observed import ObjectKey, Observed, OperatorFacts
from fairlead.facts.route import ClientsSecret, LocalDeployment, RouteFacts, SecretFacts
from fairlead.gateway.envoy import files as envoy_files
from fairlead.gateway.envoy import sidecar as envoy_sidecar
from fairlead.planning.plan import Plan
from fairlead.planning.route import backends as route_backends
from fairlead.planning.route import planner, sidecars
from fairlead.providers.loader import ProviderCatalog

__all__ = ["NAMESPACE", "plan", "render", "render_for_sidecars"]

Json = Mapping[str, Any]
NAMESPACE: Final = "ml"
NOW: Final = datetime(2026, 11, 27, tzinfo=UTC)
_FILES: Final = ("rds-public.json", "rds-egress.json", "cds.json", "limit-requests.json", "limit-tokens.json")


@dataclass(frozen=True, slots=True)
class Planned:
    """What plan_route decides. `files`: those of the ConfigMaps that it applies; None: it applies none."""

    plan: Plan
    files: Mapping[str, str] | None
    accepted: bool
    message: str


def render(route: Json, world: Json) -> Mapping[str, str]:
    """The routing files: resolve_backends, make_table, render_files."""
    parsed = _parse(route)
    resolved = route_backends.resolve_backends(
        parsed, _facts(route, world), _operator(world), ProviderCatalog.builtin()
    )
    return envoy_files.render_files(planner._make_table(parsed, resolved), planner.SETTINGS).routing


def render_for_sidecars(route: Json, world: Json) -> Mapping[str, str]:
    """The same for sidecars in application pods."""
    parsed, operator = _parse(route), _operator(world)
    resolved = route_backends.resolve_backends(parsed, _facts(route, world), operator, ProviderCatalog.builtin())
    table = sidecars.make_for_sidecars(parsed, planner._make_table(parsed, resolved), operator)
    return envoy_sidecar.render_sidecar_files(table)


def plan(route: Json, world: Json, live: Mapping[str, str] | None = None) -> Planned:
    """The whole of plan_route, once; `live`: the routing files that are there already."""
    observed = Observed(children=_config_maps(live or {}))
    decided = planner.plan_route(
        _parse(route), observed, _facts(route, world), _operator(world), ProviderCatalog.builtin(), NOW
    )
    maps = [child.body for child in decided.children if child.key.kind == "ConfigMap"]
    files = {
        name: text
        for body in maps
        for name, text in body["data"].items()
        if name in _FILES or name.startswith(("key-", "ca-"))
    }
    conditions = {condition["type"]: condition for condition in decided.status["conditions"]}
    accepted = conditions["Accepted"]
    return Planned(decided, files or None, accepted["status"] == "True", accepted["message"])


def _parse(route: Json) -> LLMRoute:
    parsed = parse_llmroute(
        {
            "apiVersion": "fairlead.dev/v1alpha1",
            "kind": "LLMRoute",
            "metadata": {"name": "assistants", "namespace": NAMESPACE, "uid": "u-1", "generation": 1},
            "spec": route,
        }
    )
    assert isinstance(parsed, LLMRoute), parsed
    return parsed


def _facts(route: Json, world: Json) -> RouteFacts:
    deployments = {
        name: LocalDeployment(
            name=name,
            served_model=found["servedModel"],
            port=found["port"] if found["ours"] else None,
            ready=found["ready"],
            is_confidential=found["confidential"],
            is_tls=found["tls"],
            is_encrypted=found["encrypted"],
            certificate_secret=f"tls-{name}" if found["tls"] else "",
            can_wake=found.get("wakes", False),
        )
        for name, found in world["deployments"].items()
    }
    secrets = {
        name: SecretFacts(
            name, found["use"], frozenset(found["hosts"]), None if found["keys"] is None else frozenset(found["keys"])
        )
        for name, found in world["secrets"].items()
    }
    named = route["authentication"].get("apiKeys", {}).get("secretRef", {}).get("name")
    clients = ClientsSecret(named, "clients", "1", {"somebody": b"a-key-of-somebody"}) if named else None
    return RouteFacts(deployments=deployments, secrets=secrets, clients=clients)


def _operator(world: Json) -> OperatorFacts:
    return OperatorFacts(trusted_hosts=frozenset(world["trustedHosts"]))


def _config_maps(files: Mapping[str, str]) -> dict[ObjectKey, Any]:
    parts: dict[str, dict[str, str]] = {}
    for name, text in files.items():
        part = {"rds-public.json": "routes", "rds-egress.json": "egress"}.get(name, "clusters")
        part = "limits" if name.startswith("limit-") else part
        parts.setdefault(part, {})[name] = text
    owner = {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "LLMRoute",
        "name": "assistants",
        "uid": "u-1",
        "controller": True,
    }
    bodies = {
        f"assistants-gateway-{part}": {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"assistants-gateway-{part}", "namespace": NAMESPACE, "ownerReferences": [owner]},
            "data": data,
        }
        for part, data in parts.items()
    }
    return {ObjectKey("ConfigMap", NAMESPACE, name): body for name, body in bodies.items()}
