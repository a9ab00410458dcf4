"""What nodes say of themselves: the hardware on them, who may run there, and whether they stay.

The labels and taints of clouds and autoscalers that mean something here are named in this one place. docs/scaling.md has the same table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = [
    "GROWING_LABELS",
    "LEAVING_TAINTS",
    "SPOT_LABELS",
    "Capacity",
    "NodeFacts",
    "Surroundings",
    "Taint",
    "is_extended_resource",
]

#: On nodes that their cloud may take back at any time: label -> its value there.
SPOT_LABELS: Final[Mapping[str, str]] = {
    "karpenter.sh/capacity-type": "spot",
    "eks.amazonaws.com/capacityType": "SPOT",
    "cloud.google.com/gke-spot": "true",
    "cloud.google.com/gke-preemptible": "true",
    "kubernetes.azure.com/scalesetpriority": "spot",
}
#: On nodes whose end is decided, by those who empty them.
LEAVING_TAINTS: Final = frozenset({
    "karpenter.sh/disrupted",
    "aws-node-termination-handler/spot-itn",
    "cloud.google.com/impending-node-termination",
    "ToBeDeletedByClusterAutoscaler",
})  # fmt: skip
#: On nodes of a pool to which more are added when pods wait. The cluster-autoscaler and its kin label none.
GROWING_LABELS: Final = frozenset({"karpenter.sh/nodepool"})


def is_extended_resource(name: str) -> bool:
    """What devices are asked for by: `nvidia.com/gpu`. What Kubernetes itself counts has no domain, or its own."""
    domain, slash, _ = name.partition("/")
    return bool(slash) and domain != "kubernetes.io" and not domain.endswith(".kubernetes.io")


@dataclass(frozen=True, slots=True)
class Taint:
    """Keeps pods away that do not tolerate it. `effect`: NoSchedule or NoExecute."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node. `resources`: how many of each extended resource pods may have; `is_ready`: its kubelet says so. Labels, taints and
    readiness are known of nodes with such resources only, but for those that the tables above name."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...] = ()
    resources: Mapping[str, int] | None = None
    is_ready: bool = True
    is_deleted: bool = False

    @property
    def is_spot(self) -> bool:
        """Whether its cloud may take it back at any time."""
        return any(self.labels.get(label) == value for label, value in SPOT_LABELS.items())

    @property
    def is_leaving(self) -> bool:
        """Whether its end is decided."""
        return self.is_deleted or any(taint.key in LEAVING_TAINTS for taint in self.taints)

    @property
    def is_of_growing_pool(self) -> bool:
        """Whether more like it are made when pods wait."""
        return any(label in self.labels for label in GROWING_LABELS)


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the nodes on which the pods of one LLMDeployment may run hold at most, others' pods not counted. `replicas`: that many pods;
    `available`: accelerators that are a `resource` on these `nodes`, `per_replica` of which each pod has. `grows`: nodes are added when
    pods wait, so that nothing is at most."""

    replicas: int
    resource: str
    per_replica: int
    available: int = 0
    nodes: int = 0
    grows: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The nodes, as they are to one LLMDeployment. `spot`, `leaving`: names of those under its pods that may be taken back, or that go;
    `capacity`: by its Deployment as it is, None where that has no accelerator; `is_counted`: replicas are bound to nodes that exist."""

    spot: frozenset[str] = frozenset()
    leaving: frozenset[str] = frozenset()
    capacity: Capacity | None = None
    is_counted: bool = False
