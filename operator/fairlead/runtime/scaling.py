"""What is known beside the cluster's own objects when replicas of an LLMDeployment are decided, and what is remembered between decisions.

What must outlive the process is in status. Here is the rest: what was measured, what the signals asked for lately, and which other
autoscalers there are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fairlead.api import names
from fairlead.facts.observed import ObjectKey
from fairlead.facts.scaling import Recommendation, Signals
from fairlead.kube.cache import Cache, Change
from fairlead.kube.resources import DEPLOYMENT, HORIZONTAL_POD_AUTOSCALER, LLMDEPLOYMENT
from fairlead.planning.plan import Plan

__all__ = ["ScalingDesk", "find_scaled"]

#: LLMDeployments that are remembered. Those that were planned longest ago go first: they are gone, or wait for a while as if new.
KEPT: Final = 4096
_GROUP: Final = names.API_VERSION.partition("/")[0]


class ScalingDesk:
    """Gathers before a plan is made, and remembers after."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._recommended: OrderedDict[str, tuple[Recommendation, ...]] = OrderedDict()

    def gather(self, raw: Mapping[str, Any]) -> Signals:
        """For this LLMDeployment, as the API server has it."""
        metadata = raw["metadata"]
        key = ObjectKey(LLMDEPLOYMENT.kind, str(metadata["namespace"]), str(metadata["name"]))
        writers = list(self._find_writers(key))
        return Signals(
            recommendations=self._recommended.get(str(metadata.get("uid")), ()),
            writer=next((name for name, kind in writers if kind == LLMDEPLOYMENT.kind), ""),
            writer_of_child=next((name for name, kind in writers if kind == DEPLOYMENT.kind), ""),
        )

    def remember(self, uid: str, plan: Plan) -> None:
        """What the signals asked for, for the next decision."""
        self._recommended.pop(uid, None)
        if plan.recommendations:
            self._recommended[uid] = plan.recommendations
        if len(self._recommended) > KEPT:
            self._recommended.popitem(last=False)

    def _find_writers(self, key: ObjectKey) -> Iterator[tuple[str, str]]:
        """Other autoscalers, as people call them, and the kind of what they scale."""
        for autoscaler in self._cache.keys(HORIZONTAL_POD_AUTOSCALER.kind, key.namespace):
            entry = self._cache.get(autoscaler)
            if entry is not None and (kind := _read_target(entry.load(), key.name)):
                yield f"{HORIZONTAL_POD_AUTOSCALER.kind} {autoscaler.name}", kind


def find_scaled(change: Change) -> Iterator[ObjectKey]:
    """The LLMDeployments that an autoscaler which changed scales, or scaled before, itself or by its Deployment."""
    for entry in (change.before, change.after):
        if entry is None or entry.key.kind != HORIZONTAL_POD_AUTOSCALER.kind:
            continue
        name = str(((entry.load().get("spec") or {}).get("scaleTargetRef") or {}).get("name", ""))
        yield ObjectKey(LLMDEPLOYMENT.kind, entry.key.namespace, name)


def _read_target(autoscaler: Mapping[str, Any], name: str) -> str:
    """LLMDeployment or Deployment, where one of that name is what it scales, or ""."""
    target = (autoscaler.get("spec") or {}).get("scaleTargetRef") or {}
    group = str(target.get("apiVersion", "")).partition("/")[0]
    found = (group, str(target.get("kind", "")))
    is_ours = found in ((_GROUP, LLMDEPLOYMENT.kind), (DEPLOYMENT.group, DEPLOYMENT.kind))
    return found[1] if is_ours and target.get("name") == name else ""
