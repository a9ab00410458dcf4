"""The part of the pod that is the user's own, passed on as Kubernetes has it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from fairlead.api.base import ApiModel, Atomic, AtomicMap, ListMap, RawItem, RawObject


class Volume(TypedDict):
    """One volume as Kubernetes has it (core/v1 Volume): a name and one source."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """Name of the volume; unique in this list. Required: mounts refer to it."""


class VolumeMount(TypedDict):
    """One volume mount as Kubernetes has it (core/v1 VolumeMount)."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """Name of the volume in extraVolumes that is mounted here. Required."""
    mountPath: Annotated[str, Field(min_length=1, max_length=512)]
    """Absolute path in the engine container; unique in this list. Required: it identifies the entry."""


class PodSpec(ApiModel):
    """Everything about the pod that is the user's own: passed on as Kubernetes has it."""

    node_selector: Annotated[dict[str, Annotated[str, Field(max_length=63)]], AtomicMap, Field(max_length=32)] = Field(
        default_factory=dict
    )
    """Node labels that a node must carry, all of them, beside what spec.accelerator asks for. Default: any node."""
    tolerations: Annotated[list[RawObject], Atomic, Field(max_length=64)] = Field(default_factory=list)
    """Tolerations as Kubernetes has them (core/v1 Toleration), beside the one for the accelerator's resource name that
    fairlead adds. Default: none."""
    affinity: RawObject | None = None
    """Affinity as Kubernetes has it (core/v1 Affinity). Every required node term is joined by AND with
    accelerator.products. Absent: only what the accelerator demands."""
    topology_spread_constraints: Annotated[list[RawObject], Atomic, Field(max_length=16)] = Field(default_factory=list)
    """How pods are spread over zones or nodes, as Kubernetes has it (core/v1 TopologySpreadConstraint). One without a
    labelSelector gets the selector of the engine pods. Default: none."""
    labels: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=64)] = Field(
        default_factory=dict
    )
    """Further labels of the engine pods. The keys app.kubernetes.io/name, component, instance and managed-by and all
    under fairlead.dev/ belong to fairlead and are refused. Default: none."""
    annotations: Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=64)] = Field(
        default_factory=dict
    )
    """Further annotations of the engine pods. Keys under fairlead.dev/ belong to fairlead and are refused. Default:
    none."""
    priority_class_name: Annotated[str | None, Field(min_length=1, max_length=253)] = None
    """PriorityClass of the engine pods. Absent: the cluster's default priority."""
    runtime_class_name: Annotated[str | None, Field(min_length=1, max_length=253)] = None
    """RuntimeClass of the engine pods, such as nvidia where the cluster needs it. Absent: the nodes' default
    runtime."""
    scheduler_name: Annotated[str | None, Field(min_length=1, max_length=253)] = None
    """Scheduler that places the engine pods. Absent: the cluster's default scheduler."""
    service_account_name: Annotated[str | None, Field(min_length=1, max_length=253)] = None
    """ServiceAccount of the engine pods, for image pull secrets and policies; its token is not mounted. Absent: the
    namespace's default account."""
    image_pull_secrets: Annotated[list[RawObject], Atomic, Field(max_length=16)] = Field(default_factory=list)
    """Secrets with registry credentials, as Kubernetes has them (core/v1 LocalObjectReference: name). Default: those of
    the ServiceAccount."""
    security_context: RawObject | None = None
    """Pod security context as Kubernetes has it (core/v1 PodSecurityContext); its fields replace the engine's defaults,
    which pass Pod Security restricted. Absent: the defaults."""
    container_security_context: RawObject | None = None
    """Security context of the engine container as Kubernetes has it (core/v1 SecurityContext); its fields replace the
    engine's defaults, which pass Pod Security restricted. Absent: the defaults."""
    extra_volumes: Annotated[
        list[Annotated[dict[str, Any], RawItem(Volume)]], ListMap("name"), Field(max_length=64)
    ] = Field(default_factory=list)
    """Further volumes of the engine pods as Kubernetes has them (core/v1 Volume). Names that begin with fairlead-
    belong to fairlead. Default: none."""
    extra_volume_mounts: Annotated[
        list[Annotated[dict[str, Any], RawItem(VolumeMount)]], ListMap("mountPath"), Field(max_length=64)
    ] = Field(default_factory=list)
    """Where the extra volumes are mounted in the engine container, as Kubernetes has it (core/v1 VolumeMount). Each
    names a volume of extraVolumes. Default: none."""
