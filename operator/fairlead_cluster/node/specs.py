"""The machines that the local cluster pretends to have: what a node is worth to the scheduler and says by its labels.

The default set has one node per kind that placement must tell apart: two accelerator products with the labels that
NVIDIA's GPU feature discovery sets, and one node without any. Their sizes are those of common machines, not of the host:
the scheduler counts requests, while the processes share what the host really has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from fairlead_cluster.errors import LocalClusterError

Json = dict[str, Any]

KUBELET_VERSION = "v1.36.3"
GPU = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One node. `extended_resources` are accelerators and the like (`nvidia.com/gpu: 8`).

    simulated: its pods get no processes; they become Running and Ready after a delay (cheap, for a thousand of them).
    """

    name: str
    cpu: str = "64"
    memory: str = "256Gi"
    ephemeral_storage: str = "512Gi"
    max_pods: int = 110
    extended_resources: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, str], ...] = ()
    simulated: bool = False

    @classmethod
    def from_json(cls, data: Json) -> Self:
        """From the same names as JSON. LocalClusterError for a name that does not exist."""
        try:
            return cls(**{**data, "taints": tuple(data.get("taints", ()))})
        except TypeError as error:
            raise LocalClusterError(f"node {data.get('name', '?')}: {error}") from error

    def resources(self) -> dict[str, str]:
        """Capacity; allocatable is the same, since nothing is reserved for a system that is not there."""
        basic = {
            "cpu": self.cpu,
            "memory": self.memory,
            "ephemeral-storage": self.ephemeral_storage,
            "pods": str(self.max_pods),
        }
        return basic | {name: str(count) for name, count in self.extended_resources.items()}


@dataclass(frozen=True, slots=True)
class _Gpu:
    """Facts that GPU feature discovery reads from the driver. Memory in MiB, as nvidia-smi shows it."""

    product: str
    memory_mib: int
    family: str
    compute_capability: tuple[int, int]
    machine: str


_L4 = _Gpu("NVIDIA-L4", 23034, "ada-lovelace", (8, 9), "Google-Compute-Engine")
_H100 = _Gpu("NVIDIA-H100-80GB-HBM3", 81559, "hopper", (9, 0), "DGXH100")


def _gpu_labels(gpu: _Gpu, count: int) -> dict[str, str]:
    """As gpu-feature-discovery sets them (no MIG, no time slicing)."""
    major, minor = gpu.compute_capability
    return {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": gpu.product,
        "nvidia.com/gpu.memory": str(gpu.memory_mib),
        "nvidia.com/gpu.count": str(count),
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.family": gpu.family,
        "nvidia.com/gpu.machine": gpu.machine,
        "nvidia.com/gpu.mode": "compute",
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/gpu.compute.major": str(major),
        "nvidia.com/gpu.compute.minor": str(minor),
        "nvidia.com/mig.capable": "true" if gpu is _H100 else "false",
        "nvidia.com/mig.strategy": "single",
        "nvidia.com/mps.capable": "false",
        "nvidia.com/cuda.driver-version.full": "580.82.07",
        "nvidia.com/cuda.driver-version.major": "580",
        "nvidia.com/cuda.driver-version.minor": "82",
        "nvidia.com/cuda.driver-version.revision": "07",
        "nvidia.com/cuda.driver.major": "580",
        "nvidia.com/cuda.driver.minor": "82",
        "nvidia.com/cuda.driver.rev": "07",
        "nvidia.com/cuda.runtime-version.full": "13.0",
        "nvidia.com/cuda.runtime-version.major": "13",
        "nvidia.com/cuda.runtime-version.minor": "0",
        "nvidia.com/cuda.runtime.major": "13",
        "nvidia.com/cuda.runtime.minor": "0",
    }


DEFAULT_NODES = (
    NodeSpec("gpu-l4", cpu="96", memory="384Gi", extended_resources={GPU: 8}, labels=_gpu_labels(_L4, 8)),
    NodeSpec("gpu-h100", cpu="208", memory="1872Gi", extended_resources={GPU: 8}, labels=_gpu_labels(_H100, 8)),
    NodeSpec("cpu", cpu="64", memory="256Gi"),
)
