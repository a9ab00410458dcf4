"""Routes whose backends are fake providers on loopback: specs go through the real resolver and table, only addresses are replaced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from tests.gateway.gateway import Gateway, running_gateway

from fairlead.api.resource import LLMRoute
from fairlead.api.validation import parse_llmroute
from fairlead.facts.observed import OperatorFacts
from fairlead.facts.route import LocalDeployment, RouteFacts, SecretFacts
from fairlead.gateway.table import RouteTable, make_table
from fairlead.planning.route.backends import Resolved, resolve_backends
from fairlead.providers.loader import ProviderCatalog
from fairlead.rendering.routes import RenderedRoute
from fairlead_cluster.providers import FakeProvider, FakeProviders

__all__ = ["World", "make_route_table", "make_world", "parse_route", "rendered_of"]

Json = dict[str, Any]
CATALOG = ProviderCatalog.builtin()
TRUSTED_HOST = "llm.trusted.example"
#: Backends as they are named here -> the hosts of the providers among them (none: a deployment).
BACKENDS: Mapping[str, tuple[str, ...]] = {
    "alpha": (),
    "beta": (),
    "gamma": (),
    "delta": (),
    "loose": (),
    "openai": ("api.openai.com",),
    "groq": ("api.groq.com",),
    "trusted": (TRUSTED_HOST,),
}
SECRETS = {name: {"apiKey": f"key-of-{name}"} for name, hosts in BACKENDS.items() if hosts}
#: May not take Confidential: its image is somebody's own.
NOT_CONFIDENTIAL = frozenset({"loose"})

ENTRIES = """
alpha: {name: alpha, deployment: {name: alpha}}
beta: {name: beta, deployment: {name: beta}}
gamma: {name: gamma, deployment: {name: gamma}}
delta: {name: delta, deployment: {name: delta}}
loose: {name: loose, deployment: {name: loose}}
openai: {name: openai, provider: {type: OpenAI, secretRef: {name: openai, key: apiKey}}}
groq: {name: groq, provider: {type: Groq, secretRef: {name: groq, key: apiKey}}}
trusted:
  name: trusted
  provider: {type: OpenAICompatible, baseURL: "https://llm.trusted.example/v1", trusted: true, secretRef: {name: trusted, key: apiKey}}
"""


def backend_entries(*names: str) -> list[Json]:
    """Entries of spec.backends."""
    entries = yaml.safe_load(ENTRIES)
    return [entries[name] for name in names or entries]


@dataclass
class World:
    """Fake providers under the names of BACKENDS, and a gateway in front of them."""

    providers: FakeProviders
    gateway: Gateway

    def __getitem__(self, name: str) -> FakeProvider:
        return self.providers.by_name[name]

    def table(self, spec: Json, waking: frozenset[str] = frozenset()) -> RouteTable:
        """The route table of a spec, in this world. `waking`: deployments that go to zero replicas and come back for a request."""
        return table_of(spec, self.providers, waking)

    def reset(self) -> None:
        """Everybody is well and has seen nothing."""
        for provider in self.providers.by_name.values():
            provider.accept()
            provider.fail()
            provider.clear()

    def seen(self) -> dict[str, list[str]]:
        """Who was sent which requests, by the ids that clients give them as `user`; those that saw nothing are left out."""
        found = {
            name: [str((r.request.json or {}).get("user")) for r in one.recorded]
            for name, one in self.providers.by_name.items()
        }
        return {name: ids for name, ids in found.items() if ids}


def table_of(spec: Json, providers: FakeProviders, waking: frozenset[str] = frozenset()) -> RouteTable:
    """As planner.plan_route makes it, with each backend at its fake's address."""
    route = parse_route(spec)
    return make_route_table(route, _resolve(route, providers, waking))


def rendered_of(spec: Json, providers: FakeProviders, letting_in: frozenset[str]) -> RenderedRoute:
    """What `fairlead explain` explains, of the same route in the same world; `letting_in`: consumers with a key."""
    route = parse_route(spec)
    resolved = tuple(_resolve(route, providers))
    return RenderedRoute(route, _facts(), resolved, make_route_table(route, resolved), (), (), (), (), letting_in)


def _resolve(route: LLMRoute, providers: FakeProviders, waking: frozenset[str] = frozenset()) -> list[Resolved]:
    operator = OperatorFacts(trusted_hosts=frozenset({TRUSTED_HOST}))
    return [_move(one, providers) for one in resolve_backends(route, _facts(waking), operator, CATALOG)]


def make_route_table(route: LLMRoute, resolved: Sequence[Resolved]) -> RouteTable:
    """The table of a route whose backends are all there."""
    assert all(one.upstream is not None for one in resolved), resolved
    return make_table(
        "assistants",
        "ml",
        route.spec,
        [one.law for one in resolved],
        {one.name: one.upstream for one in resolved if one.upstream is not None},
        {one.name: one.served_model for one in resolved if one.served_model is not None},
    )


def parse_route(spec: Json) -> LLMRoute:
    """The route assistants in the namespace ml."""
    metadata = {"name": "assistants", "namespace": "ml", "uid": "u-1", "generation": 1}
    parsed = parse_llmroute(
        {"apiVersion": "fairlead.dev/v1alpha1", "kind": "LLMRoute", "metadata": metadata, "spec": spec}
    )
    assert isinstance(parsed, LLMRoute), parsed
    return parsed


def _facts(waking: frozenset[str] = frozenset()) -> RouteFacts:
    return RouteFacts(
        deployments={
            name: LocalDeployment(
                name,
                f"{name}-model",
                8000,
                1,
                1,
                is_confidential=name not in NOT_CONFIDENTIAL,
                can_wake=name in waking,
            )
            for name, hosts in BACKENDS.items()
            if not hosts
        },
        secrets={name: SecretFacts(name, "provider", frozenset(hosts)) for name, hosts in BACKENDS.items() if hosts},
    )


def _move(one: Resolved, providers: FakeProviders) -> Resolved:
    assert one.upstream is not None, one
    upstream = one.upstream
    host, port = providers.by_name[one.name].address
    return replace(one, upstream=replace(upstream, host=host, port=port, authority=upstream.authority or upstream.host))


@contextmanager
def make_world(
    spec: Json, directory: Path, keys: Mapping[str, tuple[str, ...]] | None = None, **settings: Any
) -> Iterator[World]:
    """All fakes, and a gateway with this route."""
    with FakeProviders(directory / "providers") as providers:
        for name, hosts in BACKENDS.items():
            providers.add(name, hosts or [f"{name}.ml.svc"], tls=bool(hosts))
            if hosts:
                providers.by_name[name].behave(api_keys=(f"key-of-{name}",))
        table = table_of(spec, providers)
        with running_gateway(table, SECRETS, providers.ca_cert, keys, **settings) as gateway:
            yield World(providers, gateway)
