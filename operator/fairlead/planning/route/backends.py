"""Backends of a route, resolved: what the law asks about each, how it is reached, and what is wrong with those that are not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from fairlead.api.names import ANNOTATION_HOSTS, LABEL_USE, USE_PROVIDER, headless_service_name
from fairlead.api.quantity import parse_duration_s
from fairlead.api.resource import LLMRoute
from fairlead.api.route import BackendSpec, DataClass, LLMAccess, ProviderSpec
from fairlead.errors import RenderError
from fairlead.facts.observed import OperatorFacts
from fairlead.facts.route import LocalDeployment, RouteFacts, SecretFacts
from fairlead.gateway.lookup import ENDPOINTS
from fairlead.gateway.table import Credential, Upstream
from fairlead.policy.law import CLASSES, Backend, permits_class
from fairlead.providers.definition import Operation
from fairlead.providers.endpoint import ProviderEndpoint, resolve
from fairlead.providers.hosts import is_trusted
from fairlead.providers.loader import ProviderCatalog

__all__ = [
    "ASLEEP",
    "AUTHORITIES_KEY",
    "NOT_READY",
    "READY",
    "UNRESOLVED",
    "Resolved",
    "find_wanted_hosts",
    "reachable",
    "resolve_backends",
    "see_through",
]

READY: Final = "Ready"
ASLEEP: Final = "Asleep"
NOT_READY: Final = "NotReady"
UNRESOLVED: Final = "Unresolved"
#: Of a Secret with a certificate, as cert-manager makes it.
AUTHORITIES_KEY: Final = "ca.crt"


@dataclass(frozen=True, slots=True)
class Resolved:
    """One backend. `upstream` None: nothing is sent there now, and `message` says why and what mends it; `refusal`: the spec itself
    is wrong (path, what, remedy), so that the route is not accepted."""

    name: str
    kind: str
    law: Backend
    upstream: Upstream | None
    served_model: str | None
    state: str
    message: str = ""
    refusal: str = ""
    not_confidential: str = ""  # why a deployment may not take Confidential requests
    not_encrypted: str = ""  # why it may not take Restricted ones, if it takes those
    certificate_secret: str = ""  # with the authorities of a deployment's own certificate

    def why_not(self, data_class: DataClass) -> str:
        """Why a deployment may not take requests of a class; "" where there is nothing to say of it."""
        return self.not_confidential or (self.not_encrypted if data_class is DataClass.RESTRICTED else "")


def resolve_backends(
    route: LLMRoute, facts: RouteFacts, operator: OperatorFacts, providers: ProviderCatalog
) -> tuple[Resolved, ...]:
    """All backends of the spec, in its order."""
    return tuple(
        _resolve_deployment(backend, route.metadata.namespace, facts, operator)
        if backend.deployment is not None
        else _resolve_provider(number, backend, facts, operator, providers)
        for number, backend in enumerate(route.spec.backends)
    )


def _resolve_deployment(backend: BackendSpec, namespace: str, facts: RouteFacts, operator: OperatorFacts) -> Resolved:
    assert backend.deployment is not None
    name = backend.deployment.name
    found = facts.deployments.get(name)
    # Nothing is sent to one that is not there, so what it would be does not matter to the law; it must not refuse the route.
    law = Backend(
        name=backend.name,
        access=LLMAccess.LOCAL,
        is_confidential=found is None or found.is_confidential,
        is_encrypted=found is None or found.is_encrypted,
    )
    if found is None:
        message = f"There is no LLMDeployment {name} in this namespace. Next: kubectl get llmdep -n {namespace}."
        return Resolved(backend.name, "Local", law, None, None, UNRESOLVED, message)
    resolved = Resolved(
        backend.name,
        "Local",
        law,
        None,
        found.served_model,
        NOT_READY,
        not_confidential=f"LLMDeployment {name}: {found.why_not}" if found.why_not else "",
        not_encrypted=f"LLMDeployment {name}: {found.why_not_encrypted}" if found.why_not_encrypted else "",
        certificate_secret=found.certificate_secret,
    )
    if found.port is None:
        message = (
            f"LLMDeployment {name} has no Service of its own yet. Next: kubectl describe llmdep {name} -n {namespace}."
        )
        return replace(resolved, message=message)
    if found.is_encrypted and not found.is_tls:
        message = f"LLMDeployment {name} does not serve TLS yet. Next: kubectl describe llmdep {name} -n {namespace}."
        return replace(resolved, message=message)
    resolved = replace(resolved, upstream=_make_local_upstream(backend, found, law, namespace, operator))
    if found.ready:
        return replace(resolved, state=READY)
    if found.is_asleep:
        message = f"LLMDeployment {name} is at zero replicas, and a request wakes it."
        return replace(resolved, state=ASLEEP, message=message)
    if found.hindrance:
        message = (
            f"LLMDeployment {name} is at zero replicas, and a request does not wake it: {found.hindrance}."
            f" Next: kubectl describe llmdep {name} -n {namespace}."
        )
        return replace(resolved, message=message)
    message = (
        f"LLMDeployment {name} has 0 replicas, so requests go to the next target."
        if not found.desired
        else f"No replica of LLMDeployment {name} serves yet. Next: kubectl describe llmdep {name} -n {namespace}."
    )
    return replace(resolved, message=message)


def _make_local_upstream(
    backend: BackendSpec, found: LocalDeployment, law: Backend, namespace: str, operator: OperatorFacts
) -> Upstream:
    assert backend.deployment is not None
    assert found.port is not None
    name = found.name
    upstream = Upstream(
        name=backend.name,
        access=LLMAccess.LOCAL,
        # With the dot at its end the resolver asks once, not in every search domain first.
        host=f"{headless_service_name(name)}.{namespace}.svc.{operator.cluster_domain}.",
        authority=f"{name}.{namespace}.svc",
        port=found.port,
        paths={path: path for path in ENDPOINTS},
        classes=_classes_of(law),
        slow_start_s=parse_duration_s(backend.deployment.slow_start) if backend.deployment.slow_start else 0,
        can_wake=found.can_wake,
    )
    if not found.is_tls:
        return upstream
    return replace(
        upstream, is_tls=True, server_name=upstream.authority, authorities=(found.certificate_secret, AUTHORITIES_KEY)
    )


def _resolve_provider(
    number: int, backend: BackendSpec, facts: RouteFacts, operator: OperatorFacts, providers: ProviderCatalog
) -> Resolved:
    spec = backend.provider
    assert spec is not None
    path = f"spec.backends[{number}].provider"
    untrusted = Backend(name=backend.name, access=LLMAccess.CLOUD)
    try:
        endpoint = _resolve_endpoint(spec, path, operator, providers)
    except RenderError as error:
        return Resolved(backend.name, spec.type.value, untrusted, None, None, UNRESOLVED, refusal=f"{error}")
    if spec.trusted and not is_trusted(endpoint.host, operator.trusted_hosts):
        refusal = (
            f"{path}.trusted: {endpoint.host} is not on the operator's list of trusted hosts;"
            " leave it out, or ask whoever runs fairlead to add the host to --trusted-hosts"
        )
        return Resolved(backend.name, spec.type.value, untrusted, None, None, UNRESOLVED, refusal=refusal)
    law = Backend(name=backend.name, access=LLMAccess.CLOUD, is_trusted=spec.trusted)
    problem = _find_secret_problem(spec, endpoint, facts)
    if problem:
        return Resolved(backend.name, spec.type.value, law, None, None, UNRESOLVED, problem)
    return Resolved(backend.name, spec.type.value, law, _make_upstream(backend.name, spec, endpoint, law), None, READY)


def find_wanted_hosts(
    route: LLMRoute, operator: OperatorFacts, providers: ProviderCatalog
) -> Mapping[str, frozenset[str]]:
    """For each Secret with a provider's key, the hosts that it must name. What has no address wants none."""
    wanted: dict[str, frozenset[str]] = {}
    for backend in route.spec.backends:
        if backend.provider is None:
            continue
        name = backend.provider.secret_ref.name
        hosts: frozenset[str] = frozenset()
        with suppress(RenderError):
            hosts = _hosts_of(backend.provider, _resolve_endpoint(backend.provider, "", operator, providers))
        wanted[name] = wanted.get(name, frozenset()) | hosts
    return wanted


def _resolve_endpoint(
    spec: ProviderSpec, path: str, operator: OperatorFacts, providers: ProviderCatalog
) -> ProviderEndpoint:
    parameters = {**spec.parameters, **({"region": spec.region} if spec.region is not None else {})}
    return resolve(
        providers.get(spec.type.value),
        path=path,
        base_url=spec.base_url,
        parameters=parameters,
        trusted_hosts=operator.trusted_hosts,
    )


def _make_upstream(name: str, spec: ProviderSpec, endpoint: ProviderEndpoint, law: Backend) -> Upstream:
    tls = spec.tls
    authorities = tls.ca_secret_ref if tls is not None else None
    server_name = (tls.server_name if tls is not None else None) or endpoint.server_name or endpoint.host
    secret = spec.secret_ref
    return Upstream(
        name=name,
        access=LLMAccess.CLOUD,
        host=endpoint.host,
        port=endpoint.port,
        paths={operation.path: to for operation, to in endpoint.paths.items() if operation is not Operation.MODELS},
        classes=_classes_of(law),
        authority=endpoint.authority,
        is_tls=True,
        server_name=server_name,
        authorities=(authorities.name, authorities.key) if authorities is not None else None,
        credentials=tuple(
            Credential(credential.header, credential.prefix, secret.name, credential.secret_key or secret.key)
            for credential in endpoint.credentials
        ),
        headers=endpoint.headers,
        has_stream_usage=endpoint.stream_usage,
        keeping_paths=tuple(operation.path for operation in endpoint.stores_by_default if operation in endpoint.paths),
        failing_statuses=tuple(sorted({*endpoint.exhausted_statuses, *endpoint.overload_statuses})),
    )


def _find_secret_problem(spec: ProviderSpec, endpoint: ProviderEndpoint, facts: RouteFacts) -> str:
    """Why the key may not be sent there, and the command that mends it; "" if it may."""
    name = spec.secret_ref.name
    secret = facts.secrets.get(name)
    wanted = {credential.secret_key or spec.secret_ref.key for credential in endpoint.credentials}
    hosts = _hosts_of(spec, endpoint)
    consent = (
        f"kubectl label secret {name} {LABEL_USE}={USE_PROVIDER} &&"
        f" kubectl annotate secret {name} {ANNOTATION_HOSTS}={','.join(sorted(hosts))}"
    )
    if secret is None or secret.use != USE_PROVIDER:
        return f"Secret {name} is not there, or is not labelled {LABEL_USE}={USE_PROVIDER}. Next: create it, then {consent}."
    for host in sorted(hosts - secret.hosts):
        return (
            f"Secret {name} does not name {host} in {ANNOTATION_HOSTS}, so its key is not sent there. Next: {consent}."
        )
    return _find_missing_key(secret, wanted)


def _hosts_of(spec: ProviderSpec, endpoint: ProviderEndpoint) -> frozenset[str]:
    """Who answers there is who has the certificate: the owner of the key agrees to that name, too."""
    named = [spec.tls.server_name.lower()] if spec.tls is not None and spec.tls.server_name else []
    return frozenset({endpoint.host, *named})


def _find_missing_key(secret: SecretFacts, wanted: set[str]) -> str:
    missing = sorted(wanted - secret.keys) if secret.keys is not None else []
    if not missing:
        return ""
    has = ", ".join(sorted(secret.keys or ())) or "none"
    return f"Secret {secret.name} has no key {missing[0]} (it has {has}). Next: add it, or correct secretRef.key."


def _classes_of(law: Backend) -> tuple[DataClass, ...]:
    return tuple(data_class for data_class in CLASSES if permits_class(law, data_class))


def see_through(resolved: Sequence[Resolved], unseen: Collection[str]) -> tuple[Resolved, ...]:
    """The same, with those that are ready by themselves and not yet for some gateway: names need a moment, and hosts that fail are
    left out for a while."""
    return tuple(
        replace(
            backend,
            state=NOT_READY,
            message=f"A gateway knows no healthy host of {backend.name} at the moment; it goes on looking.",
        )
        if backend.state == READY and backend.name in unseen
        else backend
        for backend in resolved
    )


def reachable(resolved: Sequence[Resolved]) -> Mapping[str, Upstream]:
    """By name, those to which requests are sent."""
    return {backend.name: backend.upstream for backend in resolved if backend.upstream is not None}
