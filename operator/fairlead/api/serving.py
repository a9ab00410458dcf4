"""How it is reached and kept up: Service, probes, rollout and NetworkPolicy."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from fairlead.api.base import ApiModel, Atomic, Int, RawObject


class RolloutStrategy(StrEnum):
    """How pods are replaced on a change."""

    AUTO = "Auto"
    SURGE = "Surge"
    IN_PLACE = "InPlace"


class RevisionPolicy(StrEnum):
    """Whether a newer revision of the engine file or pod builder is taken without a spec change."""

    PINNED = "Pinned"
    LATEST = "Latest"


class NetworkPolicyMode(StrEnum):
    """Whether fairlead writes a NetworkPolicy for the engine pods."""

    MANAGED = "Managed"
    DISABLED = "Disabled"


class ServiceType(StrEnum):
    """How the Service is published."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


class ServiceSpec(ApiModel):
    """The Service in front of the engine pods."""

    type: ServiceType = ServiceType.CLUSTER_IP
    """How the Service is published: ClusterIP (inside the cluster), NodePort or LoadBalancer. The engine does not
    authenticate callers, so think before you publish it. Default: ClusterIP."""
    port: Annotated[Int, Field(ge=1, le=65535)] = 80
    """TCP port of the Service; the pods keep the engine's own port behind it. Default: 80, with spec.encryption, too."""
    annotations: Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=64)] = Field(
        default_factory=dict
    )
    """Annotations of the Service, for load balancers and meshes. Keys under fairlead.dev/ belong to fairlead and are
    refused. Default: none."""


class RouteReference(ApiModel):
    """An LLMRoute of the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the LLMRoute, in the namespace of this LLMDeployment. Required: without it nothing is referred to."""


class CarriedGatewaySpec(ApiModel):
    """The gateway of a route, beside the engine."""

    route_ref: RouteReference
    """The LLMRoute, which says gateway.mode: Sidecar. It need not be there yet, nor have this LLMDeployment as a backend.
    The pods depend on its name only: what is edited in it replaces none of them. Required."""


class InTransit(StrEnum):
    """Whether requests to the engine pods are encrypted."""

    REQUIRED = "Required"


class CertificateSpec(ApiModel):
    """A certificate of one's own for the engine pods."""

    secret_name: Annotated[str, Field(min_length=1, max_length=253)]
    """A Secret of this namespace with tls.crt, tls.key and ca.crt, as cert-manager makes it, for the DNS name
    <name>.<namespace>.svc. The pods mount it, gateways mount its ca.crt; the operator never reads it. What is renewed
    in it is taken without a restart. Required."""


class EncryptionSpec(ApiModel):
    """TLS up to the engine pods."""

    in_transit: InTransit = InTransit.REQUIRED
    """Required: an Envoy beside the engine ends TLS, and the engine listens on the loopback address alone. Default:
    Required."""
    certificate: CertificateSpec | None = None
    """The certificate that the pods show. Absent: the operator issues one for the DNS name <name>.<namespace>.svc into the
    Secret <name>-pods-tls, for 90 days, and renews it in time; the Secret's ca.crt verifies it."""


class ProbeSpec(ApiModel):
    """Timing of one probe; what it asks is the engine's business."""

    period_seconds: Annotated[Int | None, Field(ge=1, le=3600)] = None
    """How often the kubelet asks, in seconds. Absent: the engine's default for this probe."""
    timeout_seconds: Annotated[Int | None, Field(ge=1, le=3600)] = None
    """How long the kubelet waits for an answer, in seconds. Absent: the engine's default for this probe."""
    failure_threshold: Annotated[Int | None, Field(ge=1, le=1000)] = None
    """How many failures in a row count as failed. Absent: the engine's default for this probe."""


class ProbesSpec(ApiModel):
    """Timing of the three probes."""

    startup_timeout: Annotated[str | None, Field(min_length=2, max_length=32)] = None
    """How long a pod may take to download and load the model before it is restarted, as a duration such as 20m or 1h30m
    (10s to 24h). Absent: computed from the size of the model, 30m if that is unknown; status.model.startupTimeout shows
    it."""
    readiness: ProbeSpec | None = None
    """Timing of the readiness probe, which takes a pod out of the Service. Absent: the engine's defaults."""
    liveness: ProbeSpec | None = None
    """Timing of the liveness probe, which restarts a pod that hangs. Absent: the engine's defaults."""


class RolloutSpec(ApiModel):
    """How a change reaches the pods."""

    strategy: RolloutStrategy = RolloutStrategy.AUTO
    """Surge: a new pod is ready before an old one ends (needs free accelerators). InPlace: an old pod ends first. Auto:
    InPlace with accelerators or a ReadWriteOnce volume, Surge otherwise. Default: Auto."""
    drain_timeout: Annotated[str, Field(min_length=2, max_length=32)] = "2m"
    """How long a pod that ends may go on with the requests it has, as a duration such as 2m (0s to 6h); requests that
    take longer are cut. Default: 2m."""
    revision: RevisionPolicy = RevisionPolicy.PINNED
    """What an upgrade of fairlead does to running pods. Pinned: nothing, the pods keep the templates with which they
    were planned until the spec changes. Latest: they are rolled to the new templates. Default: Pinned."""


class NetworkPolicySpec(ApiModel):
    """Who may reach the engine pods."""

    mode: NetworkPolicyMode = NetworkPolicyMode.MANAGED
    """Managed: fairlead writes a NetworkPolicy that admits the pod's own namespace, gateways, the operator and
    monitoring. Disabled: it writes none. Default: Managed."""
    from_: Annotated[list[RawObject], Atomic, Field(max_length=32)] = Field(default_factory=list, alias="from")
    """Further peers that may reach the engine, as Kubernetes has them (networking.k8s.io/v1 NetworkPolicyPeer). Only
    with mode Managed. Default: none."""
