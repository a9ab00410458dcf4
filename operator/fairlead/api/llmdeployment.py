"""The LLMDeployment: one model, on one engine, on some hardware, served.

The pydantic models here are the API: `fairlead crds` generates the CustomResourceDefinition from them, with the
docstrings as `kubectl explain` shows them. Only fields whose behaviour is built are declared. What fields alone
cannot say (that one excludes another, that numbers multiply) stands in `fairlead.api.rules`, for both verdicts at once.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fairlead.api.autoscaling import AutoscalingSpec
from fairlead.api.base import ApiModel, Bool, Int, ListMap
from fairlead.api.engine import EngineSpec, FileSpec, ImagePullPolicy
from fairlead.api.model import (
    ConfigMapKeyReference,
    ContextSpec,
    ModelSpec,
    ModelTask,
    QuantizationMode,
    QuantizationSpec,
    SecretKeyReference,
)
from fairlead.api.pod import PodSpec
from fairlead.api.resources import AcceleratorSpec, AccessMode, ParallelismSpec, ResourcesSpec, StorageSpec, StorageType
from fairlead.api.serving import (
    CarriedGatewaySpec,
    CertificateSpec,
    EncryptionSpec,
    InTransit,
    NetworkPolicyMode,
    NetworkPolicySpec,
    ProbeSpec,
    ProbesSpec,
    RevisionPolicy,
    RolloutSpec,
    RolloutStrategy,
    RouteReference,
    ServiceSpec,
    ServiceType,
)
from fairlead.api.status import LLMDeploymentStatus

__all__ = [
    "AcceleratorSpec",
    "AccessMode",
    "ApiModel",
    "AutoscalingSpec",
    "CarriedGatewaySpec",
    "CertificateSpec",
    "ConfigMapKeyReference",
    "ContextSpec",
    "EncryptionSpec",
    "EngineSpec",
    "FileSpec",
    "ImagePullPolicy",
    "InTransit",
    "LLMDeploymentSpec",
    "LLMDeploymentStatus",
    "ModelSpec",
    "ModelTask",
    "NetworkPolicyMode",
    "NetworkPolicySpec",
    "ParallelismSpec",
    "PodSpec",
    "ProbeSpec",
    "ProbesSpec",
    "QuantizationMode",
    "QuantizationSpec",
    "ResourcesSpec",
    "RevisionPolicy",
    "RolloutSpec",
    "RolloutStrategy",
    "RouteReference",
    "SecretKeyReference",
    "ServiceSpec",
    "ServiceType",
    "StorageSpec",
    "StorageType",
]


class LLMDeploymentSpec(ApiModel):
    """What the user wants."""

    model: ModelSpec
    """Which model is served, from where, and under which name clients ask for it. Required."""
    engine: EngineSpec
    """The inference engine that serves the model, its version, image, arguments and environment. Required."""
    files: Annotated[list[FileSpec], ListMap("path"), Field(max_length=64)] = Field(default_factory=list)
    """Files in the engine container that come from ConfigMaps or Secrets, such as chat templates. A change of their
    content reaches running pods within minutes, but engines read most files only when they start. Default: none."""
    quantization: QuantizationSpec | None = None
    """Number formats of weights and KV cache. Absent: what the checkpoint brings and the engine's defaults."""
    accelerator: AcceleratorSpec | None = None
    """Accelerators that each replica gets: how many, of which kind. Absent: the model runs on CPU."""
    parallelism: ParallelismSpec | None = None
    """How one replica is spread over its accelerators; tensor × pipeline × data must equal accelerator.count. Not for
    Ollama. Absent: tensor parallelism over all of them."""
    context: ContextSpec | None = None
    """Context window and concurrency of one replica. Absent: the model's and the engine's own limits."""
    resources: ResourcesSpec | None = None
    """CPU, memory and shared memory of the engine container. Absent: the engine's defaults."""
    replicas: Annotated[Int, Field(ge=0, le=1000)] = 1
    """Engine pods that serve the model, each with the whole model; also set by kubectl scale and autoscalers. 0 stops
    serving and keeps volumes. Not read where spec.autoscaling decides. Default: 1."""
    autoscaling: AutoscalingSpec | None = None
    """How many replicas by what is measured, or by somebody else. Absent: spec.replicas."""
    storage: StorageSpec | None = None
    """Where weights and compile caches are kept. Absent: an EmptyDir, so that every new pod downloads again."""
    service: ServiceSpec | None = None
    """The Service in front of the engine pods. Absent: a ClusterIP Service on port 80, or 443 with encryption."""
    encryption: EncryptionSpec | None = None
    """TLS up to the engine pods, without which a route sends no Restricted requests here. Absent: plain HTTP."""
    gateway: CarriedGatewaySpec | None = None
    """A route's gateway in each engine pod, as a sidecar on port 18080. Absent: none."""
    probes: ProbesSpec | None = None
    """Timing of the startup, readiness and liveness probes. Absent: computed or the engine's defaults."""
    rollout: RolloutSpec | None = None
    """How a change reaches the pods and how long they drain. Absent: strategy Auto, drainTimeout 2m, Pinned."""
    network_policy: NetworkPolicySpec | None = None
    """Who may reach the engine pods. Absent: a managed policy for the own namespace, gateways and monitoring."""
    pod: PodSpec | None = None
    """Scheduling, labels, security and volumes of the pods, as Kubernetes has them. Absent: fairlead's defaults."""
    suspend: Bool = False
    """Stops serving without touching replicas: all pods end, Service, volumes and settings stay. Default: false, the
    model is served."""
