"""What stands around a route in the same input: LLMDeployments and Secrets.

What does not stand there is assumed to be there and to consent, so that a route can be rendered alone; each assumption is told.
No value of a Secret gets out of here but those of the clients' keys, and those only into facts that do not show them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from fairlead.api.names import (
    ANNOTATION_HOSTS,
    LABEL_USE,
    USE_CLIENTS,
    USE_GATEWAY_TLS,
    USE_JWKS,
    USE_PROVIDER,
    find_route_ref,
)
from fairlead.api.resource import Finding, LLMDeployment, LLMRoute
from fairlead.api.route import DataClass, GatewayMode
from fairlead.api.validation import parse_llmdeployment
from fairlead.facts.observed import CarriedGateway, OperatorFacts
from fairlead.facts.route import Carrier, ClientsSecret, KeySet, LocalDeployment, RouteFacts, SecretFacts
from fairlead.planning.route.backends import find_wanted_hosts
from fairlead.planning.route.carriers import is_carried
from fairlead.planning.route.certificate import certificate_secret
from fairlead.planning.route.surroundings import (
    describe_carried,
    describe_carrier,
    describe_deployment,
    describe_secret,
)
from fairlead.planning.route.tokens import locate_keys
from fairlead.providers.loader import ProviderCatalog

__all__ = ["ASSUMED_PORT", "InputDeployment", "Surroundings", "find_named_secrets", "find_secret_findings"]

Json = Mapping[str, Any]
#: Namespace and name.
Identity = tuple[str, str]
#: The pods' port of a deployment that is not in the input: vLLM's.
ASSUMED_PORT: Final = 8000
#: Of an issuer whose keys are not in the input. They are not printed.
_ASSUMED_KEYS: Final = b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "' + b"A" * 43 + b'"}]}'


@dataclass(frozen=True, slots=True)
class InputDeployment:
    """An LLMDeployment of the input. `port`: that of the headless Service in its own plan; None: something is wrong with it."""

    body: Json
    port: Json | None

    def describe(self, local_images: Sequence[str]) -> LocalDeployment:
        """With all of its replicas ready, whatever a status in the file says."""
        is_valid = isinstance(parse_llmdeployment({**self.body, "status": {}}), LLMDeployment)
        spec = self.body["spec"] if is_valid else {}
        replicas = 0 if spec.get("suspend") else int(spec.get("replicas", 1))
        body = {"metadata": self.body["metadata"], "spec": spec, "status": {"readyReplicas": replicas}}
        envelope = {"apiVersion": self.body.get("apiVersion"), "kind": self.body.get("kind")}
        return describe_deployment(envelope | body, self.port, local_images)


def _assume_deployment(name: str, *, is_encrypted: bool) -> LocalDeployment:
    return LocalDeployment(
        name,
        served_model=name,
        port=ASSUMED_PORT,
        ready=1,
        is_confidential=True,
        is_encrypted=is_encrypted,
        is_tls=is_encrypted,
        certificate_secret=f"tls-{name}" if is_encrypted else "",
    )


@dataclass
class Surroundings:
    """The input beside its routes."""

    deployments: dict[Identity, InputDeployment] = field(default_factory=dict)
    secrets: dict[Identity, Json] = field(default_factory=dict)

    def make_facts(
        self, route: LLMRoute, operator: OperatorFacts, providers: ProviderCatalog
    ) -> tuple[RouteFacts, list[str]]:
        """What a route refers to, and what was assumed of it."""
        notes: list[str] = []
        facts = RouteFacts(
            deployments=dict(self._find_deployments(route, operator, notes)),
            secrets={
                **dict(self._find_secrets(route, operator, providers, notes)),
                **dict(self._find_certificate(route, notes)),
            },
            clients=self._find_clients(route, notes),
            key_set=self._find_key_set(route, notes),
        )
        facts = replace(facts, carriers=self._find_carriers(route, facts, operator, notes))
        self._note_authorities(route, notes)
        return facts, notes

    def _find_deployments(
        self, route: LLMRoute, operator: OperatorFacts, notes: list[str]
    ) -> Iterator[tuple[str, LocalDeployment]]:
        for name in dict.fromkeys(b.deployment.name for b in route.spec.backends if b.deployment is not None):
            found = self.deployments.get((route.metadata.namespace, name))
            if found is not None:
                yield name, found.describe(operator.local_images)
                continue
            # Where a route grants Restricted, what is meant to take it is.
            is_encrypted = any(DataClass.RESTRICTED in role.data_access for role in route.spec.roles)
            kept = "to be encrypted and to keep" if is_encrypted else "and to keep"
            takes = "Confidential, Restricted" if is_encrypted else "Confidential"
            notes.append(
                f"LLMDeployment {name} is not in the input: assumed to be ready on port {ASSUMED_PORT}, to serve the model"
                f" {name}, {kept} what it is sent ({takes})"
            )
            yield name, _assume_deployment(name, is_encrypted=is_encrypted)

    def _find_carriers(
        self, route: LLMRoute, facts: RouteFacts, operator: OperatorFacts, notes: list[str]
    ) -> tuple[Carrier, ...]:
        if not is_carried(route):
            return ()
        found = tuple(
            describe_carrier(one.body, operator.local_images)
            for (namespace, _), one in self.deployments.items()
            if namespace == route.metadata.namespace and find_route_ref(one.body.get("spec")) == route.metadata.name
        )
        if found:
            return found
        notes.append("No LLMDeployment in the input carries this gateway: assumed that its own do, in one pod each")
        return tuple(Carrier(one.name, 1, one.certificate_secret) for one in facts.deployments.values())

    def find_gateway(self, body: Json, route: Json | None, local_images: Sequence[str]) -> CarriedGateway | None:
        """The route whose gateway an LLMDeployment's pods carry, `route` if it is in the input; None: they carry none."""
        name = find_route_ref(body.get("spec"))
        if not name:
            return None
        if route is None:
            return CarriedGateway(name, GatewayMode.SIDECAR.value)
        namespace = str(body["metadata"].get("namespace"))

        def find(deployment: str) -> LocalDeployment | None:
            found = self.deployments.get((namespace, deployment))
            return found.describe(local_images) if found is not None else None

        return describe_carried(str(body["metadata"]["name"]), name, route, find)

    def _find_secrets(
        self, route: LLMRoute, operator: OperatorFacts, providers: ProviderCatalog, notes: list[str]
    ) -> Iterator[tuple[str, SecretFacts]]:
        for name, hosts in find_wanted_hosts(route, operator, providers).items():
            found = self.secrets.get((route.metadata.namespace, name))
            if found is not None:
                yield name, describe_secret(_metadata_of(found), set(_keys_of(found)))
                continue
            consent = f"{LABEL_USE}={USE_PROVIDER}, {ANNOTATION_HOSTS}={','.join(sorted(hosts))}"
            notes.append(f"Secret {name} is not in the input: assumed to hold the key, and to consent ({consent})")
            yield name, SecretFacts(name, USE_PROVIDER, hosts)

    def _find_certificate(self, route: LLMRoute, notes: list[str]) -> Iterator[tuple[str, SecretFacts]]:
        name = certificate_secret(route)
        if name is None:
            return
        found = self.secrets.get((route.metadata.namespace, name))
        if found is None:
            what = f"{LABEL_USE}={USE_GATEWAY_TLS}, of type kubernetes.io/tls"
            notes.append(f"Secret {name} is not in the input: assumed to be there ({what})")
            yield name, SecretFacts(name, USE_GATEWAY_TLS, is_tls=True)
            return
        keys = set(_keys_of(found))
        is_tls = found.get("type") == "kubernetes.io/tls" and {"tls.crt", "tls.key"} <= keys
        yield name, describe_secret(_metadata_of(found), keys, is_tls=is_tls)

    def _find_clients(self, route: LLMRoute, notes: list[str]) -> ClientsSecret | None:
        spec = route.spec.authentication.api_keys
        if spec is None:
            return None
        name = spec.secret_ref.name
        found = self.secrets.get((route.metadata.namespace, name))
        if found is None:
            notes.append(
                f"Secret {name} is not in the input: assumed to be there ({LABEL_USE}={USE_CLIENTS}), with a key for each"
                " consumer"
            )
            return ClientsSecret(name, USE_CLIENTS, "assumed", {})
        return ClientsSecret(name, describe_secret(_metadata_of(found)).use, "input", _read_values(found))

    def _find_key_set(self, route: LLMRoute, notes: list[str]) -> KeySet | None:
        spec = route.spec.authentication.jwt
        if spec is None:
            return None
        kind, name, key = locate_keys(spec.jwks)
        found = self.secrets.get((route.metadata.namespace, name)) if kind == "Secret" else None
        if found is None:
            notes.append(
                f"{kind} {name} is not in the input: assumed to hold the issuer's keys ({LABEL_USE}={USE_JWKS})"
            )
            return KeySet(kind, name, USE_JWKS, _ASSUMED_KEYS)
        return KeySet(kind, name, describe_secret(_metadata_of(found)).use, _read_values(found).get(key))

    def has_clients(self, route: LLMRoute) -> bool:
        """Whether the Secret with the clients' keys is in the input, so that it is known who has one."""
        spec = route.spec.authentication.api_keys
        return spec is not None and (route.metadata.namespace, spec.secret_ref.name) in self.secrets

    def _note_authorities(self, route: LLMRoute, notes: list[str]) -> None:
        for backend in route.spec.backends:
            tls = backend.provider.tls if backend.provider is not None else None
            reference = tls.ca_secret_ref if tls is not None else None
            if reference is not None and (route.metadata.namespace, reference.name) not in self.secrets:
                note = f"Secret {reference.name} is not in the input: assumed to hold {reference.key}"
                if note not in notes:
                    notes.append(note)


def find_named_secrets(route: LLMRoute) -> set[Identity]:
    """Secrets that a route refers to."""
    keys = route.spec.authentication.api_keys
    names = {keys.secret_ref.name} if keys is not None else set()
    certificate, tokens = certificate_secret(route), route.spec.authentication.jwt
    names |= {certificate} if certificate is not None else set()
    names |= {tokens.jwks.secret_ref.name} if tokens is not None and tokens.jwks.secret_ref is not None else set()
    for provider in (backend.provider for backend in route.spec.backends):
        if provider is not None:
            names.add(provider.secret_ref.name)
            if provider.tls is not None and provider.tls.ca_secret_ref is not None:
                names.add(provider.tls.ca_secret_ref.name)
    return {(route.metadata.namespace, name) for name in names}


def find_secret_findings(secret: Json) -> Iterator[Finding]:
    """What the API server would not take of a Secret. Its values are not repeated."""
    for part in ("data", "stringData"):
        if not isinstance(secret.get(part) or {}, Mapping):
            yield Finding(part, "is not a map", "write a map of keys and values")
    for key, value in _map_of(secret, "data").items():
        if _decode(value) is None:
            yield Finding(f"data.{key}", "is not base64", "encode the value, or write it into stringData")


def _metadata_of(secret: Json) -> Json:
    metadata = secret["metadata"]
    return {
        "name": metadata["name"],
        "labels": _map_of(metadata, "labels"),
        "annotations": _map_of(metadata, "annotations"),
    }


def _map_of(value: Json, name: str) -> Json:
    found = value.get(name)
    return found if isinstance(found, Mapping) else {}


def _keys_of(secret: Json) -> Iterator[str]:
    yield from (str(key) for key in _map_of(secret, "data"))
    yield from (str(key) for key in _map_of(secret, "stringData"))


def _read_values(secret: Json) -> dict[str, bytes]:
    """As the API server merges them: stringData wins."""
    decoded = {str(key): _decode(value) for key, value in _map_of(secret, "data").items()}
    values = {key: value for key, value in decoded.items() if value is not None}
    return values | {str(key): str(value).encode() for key, value in _map_of(secret, "stringData").items()}


def _decode(value: Any) -> bytes | None:
    if value is None:
        return b""
    try:
        return base64.b64decode("".join(str(value).split()), validate=True)
    except (binascii.Error, ValueError):
        return None
