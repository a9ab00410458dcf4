"""What a route's plan may know of the world around it, frozen for one pass: the deployments that it names, which Secrets exist and
consent, who may call, and what its gateways say.

Values of providers' Secrets are not read at all; those of the clients' Secret pass through without being shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

__all__ = ["Carrier", "ClientsSecret", "GatewayPod", "KeySet", "LocalDeployment", "RouteFacts", "SecretFacts"]


@dataclass(frozen=True, slots=True)
class LocalDeployment:
    """An LLMDeployment of the route's namespace, as far as a gateway must know it.

    `served_model`: what its engine calls the model; `port`: the pods' own, None until its headless Service is there and ours;
    `ready` and `desired` count replicas; `can_wake`: it goes to zero replicas, and comes back for a request;
    `is_asleep`: it has none now, and waits for one; `hindrance`: it has none and would get none, for this reason of its conditions;
    `is_confidential`: it keeps what it is sent (image, environment, egress), `why_not`
    says what is against that; `is_tls`: its pods serve TLS, with a certificate that the authorities
    in `certificate_secret` have signed; `is_encrypted`: its spec demands that, and nothing writes what it is sent into a log,
    `why_not_encrypted` says what is against that.
    """

    name: str
    served_model: str
    port: int | None
    ready: int = 0
    desired: int = 1
    is_confidential: bool = False
    why_not: str = ""
    is_tls: bool = False
    certificate_secret: str = ""
    is_encrypted: bool = False
    why_not_encrypted: str = ""
    can_wake: bool = False
    is_asleep: bool = False
    hindrance: str = ""


@dataclass(frozen=True, slots=True)
class Carrier:
    """An LLMDeployment whose pods carry the route's gateway. `certificate_secret`: whose authorities they mount, "" without encryption;
    `is_closed`: they reach nothing but what its NetworkPolicy names."""

    name: str
    replicas: int = 1
    certificate_secret: str = ""
    is_closed: bool = False


@dataclass(frozen=True, slots=True)
class SecretFacts:
    """What is known of a Secret without its values: what it may be used for, where to, and its keys (None: not known). `is_tls`: it has
    a certificate and its key, as those of type kubernetes.io/tls do."""

    name: str
    use: str = ""
    hosts: frozenset[str] = frozenset()
    keys: frozenset[str] | None = None
    is_tls: bool = False


@dataclass(frozen=True, slots=True)
class ClientsSecret:
    """The Secret with the clients' keys. `data`: consumer -> its keys as they are, one per line; `version` changes with it."""

    name: str
    use: str
    version: str
    data: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The Secret or ConfigMap with the public keys of an issuer. `text`: the value that the route names, None where it is not there."""

    kind: str
    name: str
    use: str
    text: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class GatewayPod:
    """One pod of the gateway. `loaded`: its answer to GET /generation as it is, None when it did not
    answer; `last`: its last answer, None if it has never answered this operator; `nudge`: the annotation
    by which its kubelet was last told to look at its volumes again; `certificate`: the Secret with whose certificate it serves, ""
    without TLS; `created`: when the API server took it in; `carrier`: the LLMDeployment in whose pod it runs, "" in a pod of its
    own; `interface`: which routing one in an engine pod can carry out."""

    name: str
    uid: str
    is_ready: bool
    nudge: str = ""
    loaded: Mapping[str, Any] | None = None
    last: Mapping[str, Any] | None = None
    certificate: str = ""
    created: datetime | None = None
    carrier: str = ""
    interface: str = ""


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """Everything that a route refers to. A name that is missing here does not exist."""

    deployments: Mapping[str, LocalDeployment] = field(default_factory=dict)
    secrets: Mapping[str, SecretFacts] = field(default_factory=dict)
    clients: ClientsSecret | None = None
    key_set: KeySet | None = None
    gateways: tuple[GatewayPod, ...] = ()
    carriers: tuple[Carrier, ...] = ()
