"""What is known beside the cluster's own objects when replicas of an LLMDeployment are decided, and what is remembered between decisions.

What must outlive the process is in status. Here is the rest: what was measured, what the signals asked for lately, and which other
autoscalers there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from fairlead.api.autoscaling import AutoscalingMode
from fairlead.api.names import LABEL_SCALED_OBJECT
from fairlead.facts.alerts import ActiveAlert
from fairlead.facts.observed import ObjectKey, Observed
from fairlead.facts.scaling import Recommendation, Signals
from fairlead.kube.cache import Cache, Change
from fairlead.kube.resources import DEPLOYMENT, HORIZONTAL_POD_AUTOSCALER, LLMDEPLOYMENT
from fairlead.planning.plan import Plan
from fairlead.runtime.nodes import NodeDesk
from fairlead.runtime.signals import Collector

__all__ = ["ScalingDesk", "find_scaled", "is_scaled"]

_NOTHING: Final = Signals()
_SCALED: Final = {(LLMDEPLOYMENT.group, LLMDEPLOYMENT.kind), (DEPLOYMENT.group, DEPLOYMENT.kind)}


class ScalingDesk:
    """Gathers before a plan is made, and remembers after. Without a collector nothing is measured, without `nodes` none is seen; `held`:
    how many requests gateways hold for one, None where none is asked."""

    def __init__(
        self,
        cache: Cache,
        collector: Collector | None = None,
        alerts_of: Callable[[Mapping[str, Any]], tuple[ActiveAlert, ...]] = lambda _: (),
        held_for: Callable[[ObjectKey], int | None] = lambda _: None,
        nodes: NodeDesk | None = None,
    ) -> None:
        self._cache = cache
        self._collector = collector
        self._alerts_of = alerts_of
        self._held_for = held_for
        self._nodes = nodes
        self._recommendations: dict[ObjectKey, tuple[Recommendation, ...]] = {}
        self._verdicts: dict[ObjectKey, tuple[str, datetime]] = {}
        self._targets: dict[ObjectKey, tuple[int, _Target]] = {}

    def gather(self, key: ObjectKey, raw: Mapping[str, Any], observed: Observed) -> Signals:
        """For this custom resource, as the API server has it, and its children and pods."""
        if key.kind != LLMDEPLOYMENT.kind:
            return _NOTHING
        writers = dict(self._find_writers(key, is_by_keda=_is_by_keda(raw)))
        if not is_scaled(raw):
            self._forget_nodes(key)
            if not writers:
                return _NOTHING
        alerts = self._alerts_of(raw)
        return Signals(
            samples=self._collector.samples(key) if self._collector is not None else (),
            recommendations=self._recommendations.get(key, ()),
            verdict=self._verdicts.get(key),
            held=self._held_for(key),
            idle_since=self._collector.idle_since(key) if self._collector is not None else None,
            alerts=alerts,
            is_urgent=bool(alerts),
            writer=writers.get(LLMDEPLOYMENT.kind, ""),
            writer_of_child=writers.get(DEPLOYMENT.kind, ""),
            nodes=self._nodes.look(key, raw, observed) if self._nodes is not None and is_scaled(raw) else None,
        )

    def remember(self, key: ObjectKey, plan: Plan) -> None:
        """What the signals asked for, for the next decision; and look at the pods from now on as the plan wishes."""
        if plan.recommendations:
            self._recommendations[key] = plan.recommendations
        else:
            self._recommendations.pop(key, None)
        if plan.verdict is not None:
            self._verdicts[key] = plan.verdict
        else:
            self._verdicts.pop(key, None)
        if self._collector is None:
            return
        if plan.wish is not None:
            self._collector.watch(key, plan.wish)
        else:
            self._collector.forget(key)

    def forget(self, key: ObjectKey) -> None:
        """There is no such custom resource any more."""
        self._recommendations.pop(key, None)
        self._verdicts.pop(key, None)
        self._forget_nodes(key)
        if self._collector is not None:
            self._collector.forget(key)

    def clear(self) -> None:
        """Another term begins. What the last one recommended is too old to be of use; whoever measures forgets by itself."""
        self._recommendations.clear()
        self._verdicts.clear()
        self._targets.clear()
        if self._nodes is not None:
            self._nodes.clear()

    def _forget_nodes(self, key: ObjectKey) -> None:
        if self._nodes is not None:
            self._nodes.forget(key)

    def _find_writers(self, key: ObjectKey, *, is_by_keda: bool) -> Iterator[tuple[str, str]]:
        """The kind of what another autoscaler scales, and how people call it. Each is read once: there may be a thousand in a
        namespace. The one that KEDA makes at fairlead's word is none."""
        autoscalers = self._cache.keys(HORIZONTAL_POD_AUTOSCALER.kind, key.namespace)
        for gone in [one for one in self._targets if one.namespace == key.namespace and self._cache.get(one) is None]:
            del self._targets[gone]
        for autoscaler in autoscalers:
            entry = self._cache.get(autoscaler)
            if entry is None:
                continue
            known = self._targets.get(autoscaler)
            if known is None or known[0] != entry.resource_version:
                known = self._targets[autoscaler] = (entry.resource_version, _read_target(entry.load()))
            target = known[1]
            if target.name != key.name or (target.group, target.kind) not in _SCALED:
                continue
            kind = target.kind
            if not (is_by_keda and target.scaled_object == key.name and kind == LLMDEPLOYMENT.kind):
                yield kind, f"{HORIZONTAL_POD_AUTOSCALER.kind} {autoscaler.name}"


def is_scaled(raw: Mapping[str, Any]) -> bool:
    """Whether its spec, which need not be valid, says how the number of replicas is decided."""
    spec = raw.get("spec")
    return isinstance(spec, Mapping) and bool(spec.get("autoscaling"))


def _is_by_keda(raw: Mapping[str, Any]) -> bool:
    autoscaling = (raw.get("spec") or {}).get("autoscaling")
    return isinstance(autoscaling, Mapping) and autoscaling.get("mode") == AutoscalingMode.KEDA


def find_scaled(change: Change) -> Iterator[ObjectKey]:
    """The LLMDeployments that an autoscaler which changed scales, or scaled before, itself or by its Deployment."""
    for entry in (change.before, change.after):
        if entry is None or entry.key.kind != HORIZONTAL_POD_AUTOSCALER.kind:
            continue
        yield ObjectKey(LLMDEPLOYMENT.kind, entry.key.namespace, _read_target(entry.load()).name)


@dataclass(frozen=True, slots=True)
class _Target:
    """What an autoscaler scales; `scaled_object`: for which of KEDA's it was made."""

    group: str
    kind: str
    name: str
    scaled_object: str


def _read_target(autoscaler: Mapping[str, Any]) -> _Target:
    target = (autoscaler.get("spec") or {}).get("scaleTargetRef") or {}
    group = str(target.get("apiVersion", "")).partition("/")[0]
    labels = autoscaler["metadata"].get("labels") or {}
    made_for = str(labels.get(LABEL_SCALED_OBJECT, ""))
    return _Target(group, str(target.get("kind", "")), str(target.get("name", "")), made_for)
