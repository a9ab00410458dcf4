"""What it runs on: accelerators, how the model is spread over them, CPU, memory, and the volume that keeps weights."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from fairlead.api.base import ApiModel, Atomic, Bool, Int, QuantityOrInt


class StorageType(StrEnum):
    """Where weights and caches live."""

    EMPTY_DIR = "EmptyDir"
    PERSISTENT_VOLUME_CLAIM = "PersistentVolumeClaim"


class AccessMode(StrEnum):
    """How many nodes and pods may mount the volume at the same time. Read-only modes cannot hold a cache that is written."""

    READ_WRITE_ONCE = "ReadWriteOnce"
    READ_WRITE_MANY = "ReadWriteMany"
    READ_WRITE_ONCE_POD = "ReadWriteOncePod"


class AcceleratorSpec(ApiModel):
    """Accelerators per replica. Absent: the model runs on CPU."""

    count: Annotated[Int, Field(ge=1, le=1024)] = 1
    """Accelerators that each replica gets, in whole devices. vLLM spreads the model over all of them. Default: 1. For
    CPU leave the whole accelerator section out."""
    resource_name: Annotated[str, Field(min_length=3, max_length=253)] = "nvidia.com/gpu"
    """Extended resource under which the device plugin offers the accelerators, such as nvidia.com/gpu, amd.com/gpu or
    nvidia.com/mig-1g.10gb. It also chooses the image (ROCm for amd.com/gpu) and the tolerations. Default:
    nvidia.com/gpu."""
    products: Annotated[list[Annotated[str, Field(min_length=1, max_length=63)]], Atomic, Field(max_length=16)] = Field(
        default_factory=list
    )
    """Products that will do, as node labels name them (NVIDIA-H100-80GB-HBM3, NVIDIA-L4); pods go only to nodes with
    one of them. Matched over the label keys of GPU feature discovery and of the clouds. Default: any product."""
    memory_utilization_percent: Annotated[Int | None, Field(ge=1, le=100)] = None
    """Share of each accelerator's memory that vLLM takes for weights and KV cache, in percent. Only for vLLM. Absent:
    vLLM's own default (92 in recent versions)."""


class ParallelismSpec(ApiModel):
    """How one replica is spread over its accelerators: tensor × pipeline × data = accelerator.count."""

    tensor: Annotated[Int | None, Field(ge=1, le=1024)] = None
    """Accelerators over which each layer is split (tensor parallelism); it must divide the model's attention heads.
    Absent: accelerator.count divided by pipeline and data; 1 without accelerators."""
    pipeline: Annotated[Int, Field(ge=1, le=1024)] = 1
    """Stages into which the layers are cut, one after the other (pipeline parallelism). Default: 1, no stages."""
    data: Annotated[Int, Field(ge=1, le=1024)] = 1
    """Copies of the model inside one replica that share its accelerators (data parallelism); vLLM does it for mixture-
    of-experts models, others take more replicas. Default: 1."""
    expert: Bool = False
    """Spreads whole experts instead of slices of each over the accelerators (expert parallelism), for mixture-of-
    experts models. Default: false."""


class ResourcesSpec(ApiModel):
    """CPU, memory and shared memory of the engine container, beside the accelerator."""

    requests: Annotated[dict[str, QuantityOrInt], Field(max_length=16)] = Field(default_factory=dict)
    """What the scheduler reserves for the engine container, by resource: cpu (cores), memory (bytes), ephemeral-
    storage, hugepages or extended resources such as network devices. Accelerators belong to spec.accelerator. Absent:
    the engine's defaults for cpu and memory."""
    limits: Annotated[dict[str, QuantityOrInt], Field(max_length=16)] = Field(default_factory=dict)
    """What the engine container may use at most, by resource; at least as much as requests. Shared memory counts
    against memory. Absent: memory is limited to what is requested, cpu is not limited."""
    shared_memory: Annotated[str | None, Field(min_length=1, max_length=32)] = None
    """Size of /dev/shm in the engine container, as a quantity of bytes such as 2Gi; it counts against the memory limit.
    Absent: the engine's default (vLLM needs more than the 64 MiB that containers get)."""


class StorageSpec(ApiModel):
    """Where weights and compile caches are kept."""

    type: StorageType = StorageType.EMPTY_DIR
    """EmptyDir: on the node's disk, downloaded again by every new pod. PersistentVolumeClaim: on a volume that outlives
    pods, made by fairlead or named by claimName. Default: EmptyDir."""
    size: Annotated[str | None, Field(min_length=1, max_length=32)] = None
    """Size as a quantity of bytes such as 200Gi: what a new claim asks for (required there), or what an EmptyDir may
    grow to before the pod is evicted. Absent with EmptyDir: no limit. Not with claimName."""
    storage_class_name: Annotated[str | None, Field(min_length=1, max_length=253)] = None
    """StorageClass of a new claim; it cannot be changed later. Absent: the cluster's default class. Not with
    claimName."""
    access_modes: Annotated[list[AccessMode], Atomic, Field(max_length=3)] = Field(default_factory=list)
    """How the new claim may be mounted: ReadWriteOnce (one node), ReadWriteMany (many nodes, for several replicas) or
    ReadWriteOncePod (one pod). It cannot be changed later. Default: ReadWriteOnce. Not with claimName."""
    claim_name: Annotated[str | None, Field(min_length=1, max_length=253)] = None
    """An existing PersistentVolumeClaim of the same namespace to use instead of a new one; fairlead never changes or
    deletes it. Only with type PersistentVolumeClaim. Absent: fairlead makes a claim of its own."""
