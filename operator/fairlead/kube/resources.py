"""The kinds that fairlead reads or writes, and their addresses on the API server: one table, so that no path is ever spelled twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fairlead.api import names


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind. `api_version` as in a manifest (`v1`, `apps/v1`), `plural` as in URLs and RBAC rules."""

    kind: str
    api_version: str
    plural: str

    @property
    def group(self) -> str:
        """The API group as RBAC and controller references spell it: "" for the core group."""
        return self.api_version.rpartition("/")[0]

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path below the server; without `namespace` all namespaces, without `name` the collection."""
        parts = ["/apis" if "/" in self.api_version else "/api", self.api_version]
        if namespace is not None:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part is not None]
        return "/".join(parts)


LLMDEPLOYMENT: Final = Resource(names.LLMDEPLOYMENT, names.API_VERSION, names.LLMDEPLOYMENTS)
LLMROUTE: Final = Resource(names.LLMROUTE, names.API_VERSION, names.LLMROUTES)
DEPLOYMENT: Final = Resource("Deployment", "apps/v1", "deployments")
SERVICE: Final = Resource("Service", "v1", "services")
PERSISTENT_VOLUME_CLAIM: Final = Resource("PersistentVolumeClaim", "v1", "persistentvolumeclaims")
POD_DISRUPTION_BUDGET: Final = Resource("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets")
NETWORK_POLICY: Final = Resource("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies")
POD: Final = Resource("Pod", "v1", "pods")
CONFIG_MAP: Final = Resource("ConfigMap", "v1", "configmaps")
SECRET: Final = Resource("Secret", "v1", "secrets")
HORIZONTAL_POD_AUTOSCALER: Final = Resource("HorizontalPodAutoscaler", "autoscaling/v2", "horizontalpodautoscalers")
SCALED_OBJECT: Final = Resource("ScaledObject", "keda.sh/v1alpha1", "scaledobjects")
#: Of the cluster, in no namespace.
NODE: Final = Resource("Node", "v1", "nodes")
LEASE: Final = Resource("Lease", "coordination.k8s.io/v1", "leases")
EVENT: Final = Resource("Event", "events.k8s.io/v1", "events")

#: Kinds that the plan of an LLMDeployment may hold as children: they are applied, watched and deleted.
CHILD_RESOURCES: Final = (
    DEPLOYMENT, SERVICE, PERSISTENT_VOLUME_CLAIM, POD_DISRUPTION_BUDGET, NETWORK_POLICY, SECRET, SCALED_OBJECT,
)  # fmt: skip
#: Of the children, those whose kind a cluster may lack.
OPTIONAL_RESOURCES: Final = frozenset({SCALED_OBJECT})
#: The same of an LLMRoute.
ROUTE_CHILD_RESOURCES: Final = (CONFIG_MAP, SECRET, SERVICE, NETWORK_POLICY, DEPLOYMENT, POD_DISRUPTION_BUDGET)
BY_KIND: Final = {
    resource.kind: resource
    for resource in (
        *CHILD_RESOURCES,
        *ROUTE_CHILD_RESOURCES,
        LLMDEPLOYMENT,
        LLMROUTE,
        POD,
        HORIZONTAL_POD_AUTOSCALER,
        NODE,
        LEASE,
        EVENT,
    )
}
