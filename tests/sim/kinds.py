"""The kinds that the simulated API serves and their addresses, written down anew: the operator's own table is under test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind, its group and version, and its plural."""

    api_version: str
    plural: str


KINDS = {
    "LLMDeployment": Kind("fairlead.dev/v1alpha1", "llmdeployments"),
    "Deployment": Kind("apps/v1", "deployments"),
    "ReplicaSet": Kind("apps/v1", "replicasets"),
    "Service": Kind("v1", "services"),
    "PersistentVolumeClaim": Kind("v1", "persistentvolumeclaims"),
    "Pod": Kind("v1", "pods"),
    "Secret": Kind("v1", "secrets"),
    "ConfigMap": Kind("v1", "configmaps"),
    "PodDisruptionBudget": Kind("policy/v1", "poddisruptionbudgets"),
    "NetworkPolicy": Kind("networking.k8s.io/v1", "networkpolicies"),
    "HorizontalPodAutoscaler": Kind("autoscaling/v2", "horizontalpodautoscalers"),
    "ScaledObject": Kind("keda.sh/v1alpha1", "scaledobjects"),
    "Lease": Kind("coordination.k8s.io/v1", "leases"),
    "Event": Kind("events.k8s.io/v1", "events"),
}
CHILD_KINDS = (
    "Deployment", "Service", "PersistentVolumeClaim", "PodDisruptionBudget", "NetworkPolicy", "Secret", "ScaledObject",
)  # fmt: skip
_BY_PLURAL = {(kind.api_version, kind.plural): name for name, kind in KINDS.items()}


class Key(NamedTuple):
    """One object."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Address:
    """What a URL names: a collection (`name` None; `namespace` None: of all) or an object, perhaps its subresource."""

    kind: str
    namespace: str | None
    name: str | None
    subresource: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.kind, self.namespace, self.name, self.subresource) if part)


def locate(path: str) -> Address | None:
    """The address behind a URL path; None when nothing is served there."""
    parts = path.strip("/").split("/")
    api_version, rest = ("v1", parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
    namespace = None
    if rest and rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    kind = _BY_PLURAL.get((api_version, rest[0])) if rest else None
    if kind is None:
        return None
    return Address(kind, namespace, rest[1] if len(rest) > 1 else None, rest[2] if len(rest) > 2 else "")
