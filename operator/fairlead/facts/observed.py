"""What the planner may know of the world: the cached children and pods of one custom resource, frozen for one pass.

Objects are plain JSON dicts as the API server returned them (pruned of `managedFields`); the planner only reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairlead.facts.prometheus import PodLabels, PrometheusFacts
from fairlead.facts.scaling import Signals

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class ObjectKey:
    """Kind, namespace and name: what a child is called in plans, caches and messages."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class ApplyFailure:
    """What the API server said when a child was applied in the last pass, and why (None in `Observed` = all went well).

    `reason` is a value of `fairlead.api.conditions.Reason`; `path` is in the CR's terms where it is known. `terminal`: trying
    again without a change is of no use. `is_sentence`: the message is fairlead's own, and names the object and the next step.
    """

    key: ObjectKey
    reason: str
    message: str
    terminal: bool
    path: str = ""
    is_sentence: bool = False


@dataclass(frozen=True, slots=True)
class CarriedGateway:
    """The LLMRoute whose gateway an LLMDeployment's pods carry. `mode`: its spec.gateway.mode, "" where there is no such route;
    `peers`: those of its deployments whose engines its gateways may reach wherever they run, and the ports of their pods."""

    route: str
    mode: str = ""
    peers: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Observed:
    """One custom resource's surroundings.

    `children` are the live objects that carry our labels for this CR or one of the planned names (also foreign ones: the
    planner and the applier decide ownership by uid). `pods` are the engine pods, oldest first, whatever owns them.
    `failures` are left over from the last apply of the same generation, so that status can tell of them. `gateway`: of an
    LLMDeployment whose pods carry one. `signals`: of an LLMDeployment that is scaled. `has_keda`: the cluster knows ScaledObjects, and the
    operator sees them.
    """

    children: Mapping[ObjectKey, Json] = field(default_factory=dict)
    pods: Sequence[Json] = ()
    failures: Sequence[ApplyFailure] = ()
    gateway: CarriedGateway | None = None
    signals: Signals = field(default_factory=Signals)
    has_keda: bool = True


@dataclass(frozen=True, slots=True)
class OperatorFacts:
    """What the installation itself adds to a decision: never read from the environment inside the core.

    `namespace` is the operator's own (NetworkPolicies admit it); `monitoring_namespaces` may scrape engines;
    `download_bytes_per_s` is the assumed bandwidth of model downloads, bytes per second, for start-up budgets. `gateway_image` is
    Envoy; `trusted_hosts` are those of providers that may be called trusted, `local_images` patterns of engine images that
    keep what they are sent; `cluster_domain` ends the names of Services; `prometheus`: one scrapes the engines, and is asked in
    their place.
    """

    namespace: str = "fairlead-system"
    monitoring_namespaces: tuple[str, ...] = ("monitoring",)
    download_bytes_per_s: int = 50_000_000
    gateway_image: str = "envoyproxy/envoy:distroless-v1.40.0"
    trusted_hosts: frozenset[str] = frozenset()
    local_images: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    prometheus: PrometheusFacts | None = None

    @property
    def pod_labels(self) -> PodLabels:
        """By which labels series name their pods."""
        return self.prometheus.labels if self.prometheus is not None else PodLabels()
