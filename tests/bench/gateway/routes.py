"""Routes as a user would write them, through the real resolver and table to the gateway's files; only addresses are the backend's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final

from fairlead.api.resource import LLMRoute
from fairlead.api.validation import parse_llmroute
from fairlead.facts.observed import OperatorFacts
from fairlead.facts.route import LocalDeployment, RouteFacts
from fairlead.gateway.envoy import GatewaySettings, render_files
from fairlead.gateway.envoy.clients import AUTHENTICATION_FILE, render_authentication
from fairlead.gateway.table import make_table
from fairlead.planning.route.backends import resolve_backends
from fairlead.providers.loader import ProviderCatalog

__all__ = ["KEY", "Files", "make_files", "model_names"]

Json = dict[str, Any]
_CONSUMERS: Final = {
    f"team-{number}": (f"sk-{sha256(f'bench {number}'.encode()).hexdigest()}",) for number in range(10)
}
#: What the callers show: the key of the last consumer.
KEY: Final = _CONSUMERS["team-9"][0]
_BUILTIN: Final = ("Email", "IBAN", "PaymentCard", "Phone", "PrivateKey", "SSN", "Secrets")


@dataclass(frozen=True, slots=True)
class Files:
    """What a gateway pod mounts, by volume."""

    bootstrap: Mapping[str, str]
    routing: Mapping[str, str]
    clients: Mapping[str, str]


def model_names(count: int) -> list[str]:
    """What the models of a route of so many are called."""
    return [f"acme/some-model-{number}" for number in range(count)]


def make_files(
    settings: GatewaySettings,
    backend_port: int,
    models: int,
    backends: int,
    *,
    detectors: bool,
    affinity: Json | None = None,
) -> Files:
    """The files of a route with so many models, each with one of so many deployments as its target. `affinity`: of each model."""
    spec = _make_spec(models, backends, detectors=detectors)
    if affinity is not None:
        spec["models"] = [{**model, "affinity": affinity} for model in spec["models"]]
    route = parse_llmroute(
        {
            "apiVersion": "fairlead.dev/v1alpha1",
            "kind": "LLMRoute",
            "metadata": {"name": "assistants", "namespace": "ml", "uid": "u-1", "generation": 1},
            "spec": spec,
        }
    )
    assert isinstance(route, LLMRoute), route
    deployments = {
        backend["name"]: LocalDeployment(backend["name"], f"{backend['name']}-model", 8000, 1, 1, is_confidential=True)
        for backend in spec["backends"]
    }
    resolved = resolve_backends(route, RouteFacts(deployments=deployments), OperatorFacts(), ProviderCatalog.builtin())
    upstreams = {
        one.name: replace(one.upstream, host="127.0.0.1", port=backend_port, authority=one.upstream.host)
        for one in resolved
        if one.upstream is not None
    }
    assert len(upstreams) == len(resolved), resolved
    table = make_table(
        "assistants",
        "ml",
        route.spec,
        [one.law for one in resolved],
        upstreams,
        {one.name: one.served_model for one in resolved if one.served_model is not None},
    )
    files = render_files(table, settings)
    clients = {AUTHENTICATION_FILE: render_authentication(_CONSUMERS, "1", anonymous=False)}
    return Files(files.bootstrap, files.routing, clients)


def _make_spec(models: int, backends: int, *, detectors: bool) -> Json:
    names = [f"engine-{number}" for number in range(backends)]
    spec: Json = {
        "backends": [{"name": name, "deployment": {"name": name}} for name in names],
        "models": [
            {"name": name, "targets": [{"backend": names[number % backends]}]}
            for number, name in enumerate(model_names(models))
        ],
        "authentication": {"apiKeys": {"secretRef": {"name": "clients"}}},
        "roles": [
            {
                "name": "developer",
                "consumers": list(_CONSUMERS),
                "llmAccess": ["Local"],
                "dataAccess": ["Public", "Internal", "Confidential"],
            }
        ],
    }
    if detectors:
        found = [{"name": name.lower(), "class": "Confidential", "builtin": name} for name in _BUILTIN]
        spec["dataPolicy"] = {"detectors": found}
    return spec
