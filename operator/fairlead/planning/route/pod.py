"""The gateway's Deployment: Envoy, its files, and the Secrets that it reads by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

from fairlead.api.names import (
    ANNOTATION_TLS,
    GROUP,
    gateway_name,
    gateway_part_name,
    make_gateway_labels,
    make_gateway_selector,
)
from fairlead.api.quantity import parse_duration_s
from fairlead.api.resource import LLMRoute
from fairlead.api.route import GatewaySpec
from fairlead.facts.observed import OperatorFacts
from fairlead.gateway.envoy import GatewaySettings
from fairlead.planning.gateway import BOOTSTRAP, CLIENTS, ROUTING_PARTS, make_gateway_container
from fairlead.planning.route.backends import AUTHORITIES_KEY
from fairlead.planning.route.carriers import is_carried
from fairlead.planning.route.certificate import CERTIFICATE_VOLUME, certificate_secret
from fairlead.planning.route.metadata import make_metadata
from fairlead.providers.loader import ProviderCatalog

__all__ = [
    "ANNOTATION_BOOTSTRAP",
    "digest_bootstrap",
    "find_authorities",
    "make_deployment",
    "make_template",
    "make_template_inputs",
    "mounted_authorities",
    "public_port",
]

Json = dict[str, Any]
Authorities = Mapping[str, Sequence[str]]
#: On the pod template: digest of what a gateway starts with, so that pods are replaced when it changes.
ANNOTATION_BOOTSTRAP: Final = f"{GROUP}/bootstrap"
#: Of Envoy's image.
_USER: Final = 65532
#: For Envoy's own end after the drain, seconds.
_EXIT_S: Final = 10


def public_port(settings: GatewaySettings) -> str:
    """Name of the port for clients. With TLS it is another one, so that the Service never leads to a pod that has none."""
    return "https" if settings.is_tls else "http"


def make_deployment(route: LLMRoute, template: Json, annotations: Mapping[str, str]) -> Json:
    """A new pod is ready before an old one ends, and an old one goes on with its streams for the drain timeout."""
    name, gateway = route.metadata.name, route.spec.gateway or GatewaySpec()
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": make_metadata(route.metadata, gateway_name(name), annotations),
        "spec": {
            "replicas": 0 if is_carried(route) else gateway.replicas,
            "selector": {"matchLabels": make_gateway_selector(name)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 3,
            "template": template,
        },
    }


def make_template(
    route: LLMRoute,
    operator: OperatorFacts,
    settings: GatewaySettings,
    bootstrap: Mapping[str, str],
    authorities: Authorities,
) -> Json:
    """The PodTemplateSpec of a gateway that starts with these files. `authorities`: Secrets that it mounts, and the keys of them that
    hold certificates."""
    name, drain_s = route.metadata.name, _drain_s(route)
    certificate = certificate_secret(route)
    started = {ANNOTATION_BOOTSTRAP: digest_bootstrap(bootstrap)}
    started |= {ANNOTATION_TLS: certificate} if certificate is not None else {}
    return {
        "metadata": {"labels": make_gateway_labels(name), "annotations": started},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _USER,
                "runAsGroup": _USER,
                "fsGroup": _USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "terminationGracePeriodSeconds": drain_s + _EXIT_S,
            "containers": [_make_container(route, operator, settings, drain_s, authorities)],
            "volumes": _make_volumes(route, authorities),
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": make_gateway_selector(name)},
                }
            ],
        },
    }


def make_template_inputs(route: LLMRoute, authorities: Authorities) -> Json:
    """What of the spec shapes the pods. What is not said does not stand in it, so that a field of a later release changes nothing."""
    certificate = certificate_secret(route)
    return {
        "drain": _drain_s(route),
        "keys": _provider_keys(route),
        "authorities": authorities,
        **({"certificate": certificate} if certificate is not None else {}),
        # Gateways of releases before tokens refuse a file that has some.
        **({"tokens": True} if route.spec.authentication.jwt is not None else {}),
    }


def digest_bootstrap(files: Mapping[str, str]) -> str:
    """One word for the files with which a gateway starts."""
    return blake2b("\0".join(files[file] for file in sorted(files)).encode(), digest_size=8).hexdigest()


def _drain_s(route: LLMRoute) -> int:
    return round(parse_duration_s((route.spec.gateway or GatewaySpec()).drain_timeout))


def _make_container(
    route: LLMRoute, operator: OperatorFacts, settings: GatewaySettings, drain_s: int, authorities: Authorities
) -> Json:
    # The public port, not Envoy's own idea of being ready: it calls itself live without a listener.
    readiness = {
        "httpGet": {
            "path": "/healthz",
            "port": public_port(settings),
            **({"scheme": "HTTPS"} if settings.is_tls else {}),
        },
        "periodSeconds": 2,
        "timeoutSeconds": 2,
        "failureThreshold": 3,
    }
    mounts = _make_mounts(route, settings, authorities)
    return make_gateway_container(
        operator.gateway_image, settings, public_port(settings), mounts, drain_s=drain_s, readiness=readiness
    )


def _make_mounts(route: LLMRoute, settings: GatewaySettings, authorities: Authorities) -> list[Json]:
    def mount(name: str, path: str, *, writable: bool = False) -> Json:
        return {"name": name, "mountPath": path, **({} if writable else {"readOnly": True})}

    mounts = [
        mount("bootstrap", settings.bootstrap_directory),
        mount("routing", settings.routing_directory),
        mount("clients", settings.clients_directory),
        mount("run", settings.admin_socket.rpartition("/")[0], writable=True),
    ]
    if certificate_secret(route) is not None:
        mounts.append(mount(CERTIFICATE_VOLUME, settings.certificate_directory))
    mounts += [mount(_volume_name("key", name), settings.key_directory(name)) for name in _provider_keys(route)]
    mounts += [mount(_volume_name("ca", name), settings.authorities_directory_of(name)) for name in authorities]
    return mounts


def _make_volumes(route: LLMRoute, authorities: Authorities) -> list[Json]:
    """Secrets of providers are optional: a route whose Secret is missing serves what it can. That with the certificate is not."""
    name = route.metadata.name
    sources = [{"configMap": {"name": gateway_part_name(name, part)}} for part in ROUTING_PARTS]
    volumes: list[Json] = [
        {"name": "bootstrap", "configMap": {"name": gateway_part_name(name, BOOTSTRAP)}},
        {"name": "routing", "projected": {"sources": sources}},
        {"name": "clients", "secret": {"secretName": gateway_part_name(name, CLIENTS), "defaultMode": 0o440}},
        {"name": "run", "emptyDir": {"sizeLimit": "16Mi"}},
    ]
    certificate = certificate_secret(route)
    if certificate is not None:
        items = [{"key": key, "path": key} for key in ("tls.crt", "tls.key")]
        source = {"secretName": certificate, "defaultMode": 0o440, "items": items}
        volumes.append({"name": CERTIFICATE_VOLUME, "secret": source})
    for what, secrets in (("key", _provider_keys(route)), ("ca", authorities)):
        for secret, keys in secrets.items():
            items = [{"key": key, "path": key} for key in keys]
            source = {"secretName": secret, "optional": True, "defaultMode": 0o440, "items": items}
            volumes.append({"name": _volume_name(what, secret), "secret": source})
    return volumes


def _provider_keys(route: LLMRoute) -> dict[str, list[str]]:
    """Secret -> the keys of it that some backend may be opened with."""
    found: dict[str, set[str]] = {}
    for backend in route.spec.backends:
        if backend.provider is not None:
            reference = backend.provider.secret_ref
            more = ProviderCatalog.builtin().get(backend.provider.type.value).authentication.additional
            found.setdefault(reference.name, set()).update({reference.key, *(item.secret_key for item in more)})
    return {name: sorted(keys) for name, keys in sorted(found.items())}


def find_authorities(route: LLMRoute, certificates: Iterable[str]) -> Authorities:
    """Secret -> the keys of it that hold certificates of those who may sign. `certificates`: Secrets of deployments that serve TLS."""
    found: dict[str, set[str]] = {secret: {AUTHORITIES_KEY} for secret in certificates if secret}
    for backend in route.spec.backends:
        tls = backend.provider.tls if backend.provider is not None else None
        if tls is not None and tls.ca_secret_ref is not None:
            found.setdefault(tls.ca_secret_ref.name, set()).add(tls.ca_secret_ref.key)
    return {name: sorted(keys) for name, keys in sorted(found.items())}


def mounted_authorities(deployment: Mapping[str, Any] | None) -> set[str]:
    """Secrets of which a gateway's live Deployment mounts the authorities as cert-manager writes them."""
    spec = (((deployment or {}).get("spec") or {}).get("template") or {}).get("spec") or {}
    secrets = [volume.get("secret") or {} for volume in spec.get("volumes") or ()]
    wanted = [{"key": AUTHORITIES_KEY, "path": AUTHORITIES_KEY}]
    return {str(secret["secretName"]) for secret in secrets if secret.get("items") == wanted}


def _volume_name(what: str, secret: str) -> str:
    """Stable under reordering, and within the 63 characters that a volume's name may have."""
    return f"{what}-{blake2b(secret.encode(), digest_size=6).hexdigest()}"
