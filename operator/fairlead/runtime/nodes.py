"""The nodes, as they are to each LLMDeployment that is scaled here: how many of its pods they hold, and which may be taken back.

There may be thousands, and each look at the pods asks. So a node is read once for each state of it, an answer is kept until a node with
the same accelerator has changed, and a change is heard only by those whose answer it moves.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from sys import intern
from typing import Any, Final

from fairlead.api.quantity import parse_live_quantity
from fairlead.facts.nodes import Capacity, NodeFacts, Surroundings, Taint
from fairlead.facts.observed import ObjectKey, Observed
from fairlead.kube.cache import Cache, Change, Entry
from fairlead.kube.resources import DEPLOYMENT, NODE
from fairlead.planning.deployment.capacity import Demand, count_capacity, holds, read_demand

__all__ = ["NodeDesk", "observe_node"]

Json = Mapping[str, Any]

logger = logging.getLogger(__name__)

_UNSCHEDULABLE: Final = Taint("node.kubernetes.io/unschedulable", "", "NoSchedule")
_NOTHING: Final = NodeFacts("", {})


@dataclass(slots=True)
class _Asker:
    """What one LLMDeployment was told last is of: its pods' demand, None where nodes are not counted, and the nodes under its pods."""

    template: str = ""
    demand: Demand | None = None
    places: frozenset[str] = field(default_factory=frozenset)


class NodeDesk:
    """`mode`: of the operator's option `nodes`. `changed` must be told of each change of the cache."""

    def __init__(self, cache: Cache, mode: str) -> None:
        self._cache = cache
        self._mode = mode
        self._nodes: dict[str, NodeFacts] = {}
        self._by_resource: dict[str, dict[str, NodeFacts]] = {}
        self._answers: dict[Demand, Capacity] = {}
        self._askers: dict[ObjectKey, _Asker] = {}

    def look(self, key: ObjectKey, raw: Json, observed: Observed) -> Surroundings | None:
        """For an LLMDeployment as the API server has it. None where nodes are not to be seen, or it is not the operator that scales it."""
        autoscaling = (raw.get("spec") or {}).get("autoscaling") or {}
        if autoscaling.get("mode", "Operator") != "Operator":
            self.forget(key)
            return None
        asker = self._askers.setdefault(key, _Asker())
        names = (str((pod.get("spec") or {}).get("nodeName") or "") for pod in observed.pods)
        asker.places = frozenset(name for name in names if name) if autoscaling.get("spot") else frozenset()
        is_counted = self._mode == "Counted"
        deployment = observed.children.get(ObjectKey(DEPLOYMENT.kind, key.namespace, key.name))
        newest = observed.pods[-1] if observed.pods else {}
        self._read_demand(asker, raw, deployment, (newest.get("spec") or {}).get("tolerations") or ())
        if self._mode == "Ignored" or not self._cache.is_served(NODE.kind, None):
            return None
        under = [self._nodes.get(name, _NOTHING) for name in asker.places]
        return Surroundings(
            spot=frozenset(node.name for node in under if node.is_spot),
            leaving=frozenset(node.name for node in under if node.is_leaving),
            capacity=self._count(asker.demand) if asker.demand is not None else None,
            is_counted=is_counted,
        )

    def changed(self, change: Change) -> list[ObjectKey]:
        """The LLMDeployments to which something else is true now."""
        entry = change.after or change.before
        if entry is None or entry.key.kind != NODE.kind:
            return []
        try:
            return list(self._change(entry, change))
        except Exception:
            # The watch of nodes is not to end because of one that cannot be read; what was known of it before stays.
            logger.exception("Node %s was not understood", entry.key.name)
            return []

    def _change(self, entry: Entry, change: Change) -> Iterator[ObjectKey]:
        name = entry.key.name
        before, after = self._nodes.get(name), observe_node(change.after) if change.after is not None else None
        self._keep(name, before, after)
        moved = {demand for demand in self._answers if holds(demand, before) != holds(demand, after)}
        for demand in moved:
            del self._answers[demand]
        was, now = ((one.is_spot, one.is_leaving) for one in (before or _NOTHING, after or _NOTHING))
        for key, asker in self._askers.items():
            if asker.demand in moved or (was != now and name in asker.places):
                yield key

    def forget(self, key: ObjectKey) -> None:
        """It is not scaled here any more."""
        self._askers.pop(key, None)

    def clear(self) -> None:
        """Another term begins. Nodes are remembered, as the cache is kept."""
        self._askers.clear()
        self._answers.clear()

    def _read_demand(self, asker: _Asker, raw: Json, deployment: Json | None, admitted: Sequence[Json]) -> None:
        """Of the pods as they are made now: read again where the template, or what admission adds to it, is another one."""
        accelerator = (raw.get("spec") or {}).get("accelerator")
        if self._mode != "Counted" or not accelerator or deployment is None:
            asker.template, asker.demand = "", None
            return
        resource = str(accelerator.get("resourceName") or "nvidia.com/gpu")
        template = (
            f"{resource} {deployment['metadata'].get('generation', 0)} {deployment['metadata'].get('uid')} {admitted}"
        )
        if asker.template != template:
            asker.template, asker.demand = template, read_demand(deployment["spec"]["template"], resource, admitted)

    def _count(self, demand: Demand) -> Capacity:
        known = self._answers.get(demand)
        if known is None:
            known = self._answers[demand] = count_capacity(demand, self._by_resource.get(demand.resource, {}).values())
            self._drop_unasked()
        return known

    def _drop_unasked(self) -> None:
        """Answers that nobody wants any more."""
        if len(self._answers) > 2 * len(self._askers):
            asked = {asker.demand for asker in self._askers.values()}
            self._answers = {demand: answer for demand, answer in self._answers.items() if demand in asked}

    def _keep(self, name: str, before: NodeFacts | None, after: NodeFacts | None) -> None:
        for resource in (before.resources or {}) if before is not None else ():
            self._by_resource[resource].pop(name, None)
        self._nodes.pop(name, None)
        if after is None or not (after.resources or after.is_spot or after.is_leaving):
            return
        self._nodes[name] = after
        for resource in after.resources or {}:
            self._by_resource.setdefault(resource, {})[name] = after


def observe_node(entry: Entry) -> NodeFacts:
    """A node of the cache."""
    live = entry.load()
    metadata, spec, status = live["metadata"], live.get("spec") or {}, live.get("status") or {}
    taints = tuple(
        Taint(intern(str(one["key"])), intern(str(one.get("value") or "")), intern(str(one["effect"])))
        for one in spec.get("taints") or ()
    )
    return NodeFacts(
        name=entry.key.name,
        labels={intern(key): intern(str(value)) for key, value in (metadata.get("labels") or {}).items()},
        taints=(*taints, _UNSCHEDULABLE) if spec.get("unschedulable") else taints,
        resources={
            intern(name): int(parse_live_quantity(str(value)))
            for name, value in (status.get("allocatable") or {}).items()
        },
        is_ready=any(one["status"] == "True" for one in status.get("conditions") or ()),
        is_deleted=bool(metadata.get("deletionTimestamp")),
    )
