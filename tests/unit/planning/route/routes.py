"""Routes and their world, for the tests of planning: small, and all of it valid."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import yaml

from fairlead.api.resource import LLMRoute
from fairlead.api.validation import parse_llmroute
from fairlead.facts.observed import ObjectKey, Observed, OperatorFacts
from fairlead.facts.route import ClientsSecret, LocalDeployment, RouteFacts, SecretFacts
from fairlead.planning.plan import Plan
from fairlead.planning.route import plan_route
from fairlead.providers.loader import ProviderCatalog

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
OPERATOR = OperatorFacts()
PROVIDERS = ProviderCatalog.builtin()
UID = "0f9d2c1e-0000-4000-8000-000000000001"

SPEC = """
backends:
- {name: local, deployment: {name: llama-70b}}
- {name: openai, provider: {type: OpenAI, secretRef: {name: openai, key: apiKey}}}
models:
- name: chat
  targets:
  - {backend: local, weight: 90}
  - {backend: openai, model: gpt-5.6, weight: 10}
authentication:
  apiKeys: {secretRef: {name: clients}}
  anonymous: {role: analyst}
roles:
- {name: developer, consumers: [team-a], llmAccess: [Local, Cloud], dataAccess: [Public, Internal], mayDeclare: [Public]}
- {name: analyst, consumers: [team-b], llmAccess: [Local], dataAccess: [Public, Internal, Confidential]}
dataPolicy:
  detectors:
  - {name: cards, class: Confidential, builtin: PaymentCard}
"""


def make_spec(text: str = SPEC) -> dict[str, Any]:
    """A spec as YAML has it, to be changed at will."""
    return dict(yaml.safe_load(text))


def make_route(spec: Mapping[str, Any] | None = None, *, generation: int = 1, status: Any = None) -> LLMRoute:
    """A valid route. AssertionError with the findings for any other."""
    raw = {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "LLMRoute",
        "metadata": {"name": "assistants", "namespace": "ml", "uid": UID, "generation": generation},
        "spec": spec if spec is not None else make_spec(),
        "status": status or {},
    }
    parsed = parse_llmroute(raw)
    assert isinstance(parsed, LLMRoute), parsed
    return parsed


def make_facts(**more: Any) -> RouteFacts:
    """Everything that SPEC refers to is there."""
    facts: dict[str, Any] = {
        "deployments": {
            "llama-70b": LocalDeployment("llama-70b", "llama-3.1-70b", 8000, ready=2, desired=2, is_confidential=True)
        },
        "secrets": {"openai": SecretFacts("openai", "provider", frozenset({"api.openai.com"}))},
        "clients": ClientsSecret(
            "clients", "clients", "uid/7", {"team-a": b"key-of-team-a", "team-b": b"key-of-team-b\n"}
        ),
    }
    return RouteFacts(**{**facts, **more})


def plan(
    route: LLMRoute | None = None,
    facts: RouteFacts | None = None,
    observed: Observed | None = None,
    now: datetime = NOW,
) -> Plan:
    """The plan, by default for SPEC in a world that has nothing yet."""
    return plan_route(route or make_route(), observed or Observed(), facts or make_facts(), OPERATOR, PROVIDERS, now)


def carry_out(planned: Plan, observed: Observed | None = None) -> Observed:
    """What is observed after the plan's children were applied, and the Deployment's pods were made."""
    children = dict(observed.children) if observed is not None else {}
    for child in planned.children:
        children[child.key] = dict(child.body)
        if child.key.kind == "Deployment":
            replicas = child.body["spec"]["replicas"]
            children[child.key]["status"] = {"replicas": replicas, "updatedReplicas": replicas}
    for delete in planned.deletes:
        children.pop(delete.key, None)
    return Observed(children=children)


def condition(planned: Plan, kind: str) -> Mapping[str, Any]:
    """One condition of the plan's status."""
    return next(c for c in planned.status["conditions"] if c["type"] == kind)


def child(planned: Plan, kind: str, name: str) -> Mapping[str, Any]:
    """The body of one child."""
    key = ObjectKey(kind, "ml", name)
    return next(c.body for c in planned.children if c.key == key)
