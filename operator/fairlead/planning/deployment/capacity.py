"""How many pods of one LLMDeployment the nodes that exist hold at most: what the scheduler asks of a node by itself, for each node.

An upper bound: what other pods have on these nodes is not counted, nor memory, volumes or how pods are to be spread. So whatever is not
understood here lets a pod in. Read from the template of the live Deployment, since older revisions may ask for something else than this
release would.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairlead.api.quantity import parse_live_quantity
from fairlead.facts.nodes import Capacity, NodeFacts, Taint, is_extended_resource

__all__ = ["Demand", "Room", "count_capacity", "find_room", "holds", "read_demand"]

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Requirement:
    """One of matchExpressions, or with `is_field` of matchFields."""

    key: str
    operator: str
    values: tuple[str, ...] = ()
    is_field: bool = False


@dataclass(frozen=True, slots=True)
class Toleration:
    """As pods have it. An empty key tolerates all taints, an empty effect all effects."""

    key: str
    operator: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Demand:
    """What a pod asks of its node. `resource`: the accelerator, one of `counts`, which are all extended resources of the pod; `terms`:
    alternatives, () where there is no required affinity."""

    resource: str
    counts: tuple[tuple[str, int], ...]
    selector: tuple[tuple[str, str], ...] = ()
    terms: tuple[tuple[Requirement, ...], ...] = ()
    tolerations: tuple[Toleration, ...] = ()

    @property
    def per_replica(self) -> int:
        """Accelerators that one pod has."""
        return dict(self.counts)[self.resource]


@dataclass(frozen=True, slots=True)
class Room:
    """Replicas that the nodes hold at most, and `words` of that with its numbers. `replicas` None: they are to be counted, for pods
    that are not made yet."""

    replicas: int | None
    words: str


def read_demand(template: Json, resource: str, admitted: Sequence[Json] = ()) -> Demand | None:
    """Of a pod template. `admitted`: tolerations of a pod that was made by it, to which admission may have added some. None
    where no container asks for that resource: then no node is too small."""
    spec = template.get("spec") or {}
    counts: dict[str, int] = {}
    for container in (*(spec.get("containers") or ()), *filter(_is_sidecar, spec.get("initContainers") or ())):
        for name, value in ((container.get("resources") or {}).get("limits") or {}).items():
            if is_extended_resource(name):
                counts[name] = counts.get(name, 0) + int(parse_live_quantity(str(value)))
    counts = {name: count for name, count in counts.items() if count > 0}
    if resource not in counts:
        return None
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    return Demand(
        resource=resource,
        counts=tuple(sorted(counts.items())),
        selector=tuple(sorted((spec.get("nodeSelector") or {}).items())),
        terms=tuple(_read_term(term) for term in required.get("nodeSelectorTerms") or ()),
        tolerations=tuple(_read_toleration(one) for one in (*(spec.get("tolerations") or ()), *admitted)),
    )


def count_capacity(demand: Demand, nodes: Iterable[NodeFacts]) -> Capacity:
    """Over all nodes that there are."""
    replicas = available = used = 0
    grows = False
    for node in nodes:
        if not (node.resources or {}).get(demand.resource) or not _is_meant(demand, node):
            continue
        grows = grows or node.is_of_growing_pool
        if _lets_in(demand, node):
            used += 1
            available += (node.resources or {})[demand.resource]
            replicas += _fit(demand, node)
    return Capacity(replicas, demand.resource, demand.per_replica, available, used, grows)


def holds(demand: Demand, node: NodeFacts | None) -> tuple[int, int, int, bool]:
    """What one node, None for one that is not there, adds to the count: where this is as it was, so is the whole."""
    counted = count_capacity(demand, () if node is None else (node,))
    return counted.replicas, counted.available, counted.nodes, counted.grows


def find_room(capacity: Capacity | None, products: Sequence[str]) -> Room | None:
    """None where nothing binds."""
    if capacity is None or capacity.grows:
        return None
    named = f"{capacity.resource} ({', '.join(products)})" if products else capacity.resource
    if not capacity.nodes:
        return Room(capacity.replicas, f"{capacity.replicas} fit: no node that takes its pods has {named}")
    nodes = f"{capacity.nodes} node{'s' if capacity.nodes != 1 else ''}"
    words = f"{capacity.replicas} fit: {capacity.available} {named} on {nodes}, {capacity.per_replica} per replica"
    return Room(capacity.replicas, words)


def _is_sidecar(container: Json) -> bool:
    """Init containers that go on beside the others; the rest has given back what it had."""
    return container.get("restartPolicy") == "Always"


def _read_term(term: Json) -> tuple[Requirement, ...]:
    return tuple(
        Requirement(str(one.get("key")), str(one.get("operator")), tuple(one.get("values") or ()), is_field)
        for field, is_field in (("matchExpressions", False), ("matchFields", True))
        for one in term.get(field) or ()
    )


def _read_toleration(one: Json) -> Toleration:
    read = {name: str(one.get(name) or "") for name in ("key", "value", "effect")}
    return Toleration(operator=str(one.get("operator") or "Equal"), **read)


def _is_meant(demand: Demand, node: NodeFacts) -> bool:
    """By selector and affinity: a term without requirements is fulfilled by none."""
    if any(node.labels.get(key) != value for key, value in demand.selector):
        return False
    return not demand.terms or any(term and all(_is_met(one, node) for one in term) for term in demand.terms)


def _is_met(requirement: Requirement, node: NodeFacts) -> bool:
    found = node.name if requirement.is_field else node.labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return found in requirement.values
        case "NotIn":
            return found not in requirement.values
        case "Exists":
            return found is not None
        case "DoesNotExist":
            return found is None
        case "Gt" | "Lt":
            return _is_beyond(requirement, found)
    return True


def _is_beyond(requirement: Requirement, found: str | None) -> bool:
    try:
        number, bound = int(found or ""), int(requirement.values[0])
    except (ValueError, IndexError):
        return False
    return number > bound if requirement.operator == "Gt" else number < bound


def _lets_in(demand: Demand, node: NodeFacts) -> bool:
    return node.is_ready and not node.is_deleted and all(_is_tolerated(taint, demand) for taint in node.taints)


def _is_tolerated(taint: Taint, demand: Demand) -> bool:
    return any(_tolerates(one, taint) for one in demand.tolerations)


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect not in ("", taint.effect) or toleration.key not in ("", taint.key):
        return False
    return toleration.operator != "Equal" or (toleration.key == taint.key and toleration.value == taint.value)


def _fit(demand: Demand, node: NodeFacts) -> int:
    resources = node.resources or {}
    return min(resources.get(name, 0) // count for name, count in demand.counts)
