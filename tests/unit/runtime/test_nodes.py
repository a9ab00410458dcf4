"""Whom a change of a node concerns, and what each LLMDeployment is told of the nodes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from tests.unit.kube.fake_api import FakeApi, Fault
from tests.unit.planning.world import make_pod
from tests.unit.runtime.test_main import running, until

from fairlead.api import names
from fairlead.facts.nodes import Surroundings
from fairlead.facts.observed import ObjectKey, Observed
from fairlead.kube.cache import Cache, Change
from fairlead.kube.resources import NODE
from fairlead.runtime import nodes as module
from fairlead.runtime.nodes import NodeDesk

Json = dict[str, Any]
GPU = "nvidia.com/gpu"
SPOT = {"karpenter.sh/capacity-type": "spot"}


class Desk:
    """A cache that tells the desk of each change, and who is concerned by it."""

    def __init__(self, mode: str = "Counted") -> None:
        self.version = 0
        self.concerned: list[str] = []
        self.cache = Cache(self._hear)
        self.nodes = NodeDesk(self.cache, mode)

    def _hear(self, change: Change) -> None:
        self.concerned += sorted(key.name for key in self.nodes.changed(change))

    def put(
        self, name: str, gpus: int | None = 4, resource: str = GPU, labels: Json | None = None, **spec: Any
    ) -> list[str]:
        """A node, and whom it concerns."""
        self.version += 1
        metadata = {"name": name, "uid": name, "resourceVersion": str(self.version), "labels": labels or {}}
        allocatable = {} if gpus is None else {resource: str(gpus)}
        ready = {"type": "Ready", "status": spec.pop("ready", "True")}
        status = {"allocatable": allocatable | {"cpu": str(self.version)}, "conditions": [ready]}
        self.concerned.clear()
        self.cache.put({"metadata": metadata, "spec": spec, "status": status}, NODE.kind)
        return list(self.concerned)

    def remove(self, name: str) -> list[str]:
        self.version += 1
        self.concerned.clear()
        self.cache.remove(ObjectKey(NODE.kind, "", name), name, self.version)
        return list(self.concerned)

    def look(
        self,
        name: str,
        *,
        count: int = 4,
        resource: str = GPU,
        on: Iterable[str] = (),
        generation: int = 1,
        **spec: Any,
    ) -> Surroundings | None:
        """What an LLMDeployment is told whose Deployment there is."""
        autoscaling = {"mode": "Operator", "maxReplicas": 8} | spec.pop("autoscaling", {})
        raw = {"spec": {"accelerator": {"count": count, "resourceName": resource}, "autoscaling": autoscaling} | spec}
        limits = {"limits": {resource: str(count)}} if count else {}
        template = {"spec": {"containers": [{"name": "engine", "resources": limits}]}}
        deployment = {"metadata": {"uid": name, "generation": generation}, "spec": {"template": template}}
        admitted = {"tolerations": spec.pop("admitted", [])}
        pods = [make_pod(f"{name}-{node}", ready=True) | {"spec": {"nodeName": node} | admitted} for node in on]
        key = ObjectKey(names.LLMDEPLOYMENT, "ml", name)
        observed = Observed(children={ObjectKey("Deployment", "ml", name): deployment}, pods=pods)
        return self.nodes.look(key, raw, observed)

    def replicas(self, name: str, **what: Any) -> int:
        seen = self.look(name, **what)
        assert seen is not None
        assert seen.capacity is not None
        return seen.capacity.replicas


def test_nodes_are_counted_as_they_come_change_and_go() -> None:
    desk = Desk()
    desk.put("a")
    desk.put("b", 8)
    assert desk.replicas("m") == 3
    desk.put("b", 8, unschedulable=True)
    assert desk.replicas("m") == 1
    desk.put("a", ready="Unknown")
    assert desk.replicas("m") == 0
    desk.put("c", 12)
    assert desk.replicas("m") == 3
    desk.remove("c")
    assert desk.replicas("m") == 0


def test_what_admission_lets_pods_tolerate_counts_as_soon_as_there_is_one() -> None:
    """A RuntimeClass adds tolerations to pods, not to their template."""
    desk = Desk()
    taint = {"key": "dedicated", "value": "gpu", "effect": "NoSchedule"}
    desk.put("a", 8, taints=[taint])
    assert desk.replicas("m") == 0
    assert desk.replicas("m", on=["a"], admitted=[taint | {"operator": "Equal"}]) == 2
    assert desk.replicas("m", on=["a"], admitted=[]) == 0


def test_a_node_that_cannot_be_read_is_as_it_was_and_ends_nothing() -> None:
    desk = Desk()
    desk.put("a")
    assert desk.replicas("m") == 1
    assert desk.put("a", "many") == []  # type: ignore[arg-type]
    assert desk.replicas("m") == 1
    assert desk.put("b") == ["m"]
    assert desk.replicas("m") == 2


def test_only_those_are_concerned_whose_answer_moves() -> None:
    desk = Desk()
    desk.put("a")
    assert desk.replicas("four") == 1
    assert desk.replicas("other", resource="amd.com/gpu") == 0
    assert desk.look("unbound", autoscaling={"mode": "External"}) is None
    assert desk.put("b", 4) == ["four"]
    assert desk.replicas("four") == 2
    assert desk.put("b", 4, labels={"rack": "7"}) == [], "nobody asks for it"
    assert desk.put("b", 4) == []
    assert desk.put("c", None) == []
    assert desk.put("d", 2, resource="amd.com/gpu") == ["other"], "no replica more, but other numbers to tell"
    assert desk.replicas("other", resource="amd.com/gpu") == 0
    assert desk.put("e", 8, resource="amd.com/gpu") == ["other"]
    assert desk.remove("b") == ["four"]


def test_many_ask_and_one_count_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[object] = []
    count = module.count_capacity
    monkeypatch.setattr(module, "count_capacity", lambda demand, nodes: counted.append(demand) or count(demand, nodes))
    desk = Desk()
    desk.put("a")
    for name in ("a", "b", "a"):
        assert desk.replicas(name) == 1
    assert len(counted) == 1
    assert desk.put("b") == ["a", "b"]
    assert desk.replicas("a") == desk.replicas("b") == 2
    assert len(counted) == 2


def test_another_template_is_another_demand() -> None:
    desk = Desk()
    desk.put("a", 8)
    assert desk.replicas("m", count=4) == 2
    assert desk.replicas("m", count=8, generation=2) == 1


def test_what_pods_run_on_is_looked_at_where_spot_is_asked_for() -> None:
    desk = Desk()
    desk.put("a", None, labels=SPOT)
    wish = {"spot": {"minReplicas": 2}}
    assert desk.look("plain", on=["a"]) == desk.look("plain", on=[])
    seen = desk.look("m", on=["a", "b"], autoscaling=wish)
    assert seen is not None
    assert (seen.spot, seen.leaving) == ({"a"}, set())
    taint = {"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}
    assert desk.put("a", None, labels=SPOT, taints=[taint]) == ["m"]
    seen = desk.look("m", on=["a", "b"], autoscaling=wish)
    assert seen is not None
    assert seen.leaving == {"a"}
    assert desk.put("b", None, labels=SPOT) == ["m"], "it was not known before"
    assert desk.put("elsewhere", None, labels=SPOT) == []


def test_without_the_right_nothing_is_told() -> None:
    desk = Desk()
    desk.put("a")
    desk.cache.set_served(NODE.kind, None, is_served=False)
    assert desk.look("m") is None
    desk.cache.set_served(NODE.kind, None, is_served=True)
    assert desk.replicas("m") == 1


def test_on_demand_nothing_is_counted_and_ignored_nothing_is_seen() -> None:
    desk = Desk("OnDemand")
    desk.put("a", labels=SPOT)
    assert desk.look("m", on=["a"], autoscaling={"spot": {"minReplicas": 2}}) == Surroundings(spot=frozenset({"a"}))
    assert desk.put("b") == []
    assert Desk("Ignored").look("m") is None


def test_whoever_is_gone_is_forgotten() -> None:
    desk = Desk()
    assert desk.replicas("m") == 0
    desk.nodes.forget(ObjectKey(names.LLMDEPLOYMENT, "ml", "m"))
    assert desk.put("a") == []
    assert desk.replicas("m") == 1
    desk.nodes.clear()
    assert desk.put("b") == []
    assert desk.replicas("m") == 2


NODES = "/api/v1/nodes"


def count_lists(requests: list[Any]) -> int:
    return sum(1 for _, path, query in requests if path == NODES and "watch" not in query)


async def test_the_operator_serves_without_the_right_to_see_nodes() -> None:
    api = FakeApi()
    api.faults.append(Fault(lambda request: request.path == NODES, 403, "nodes is forbidden"))
    async with running(api) as run:
        run.put_cr("m", x=1)
        await until(lambda: run.has_children("m") and run.observed("m") == 1, "it serves")
        assert not run.operator.cache.is_served(NODE.kind, None)
        assert run.operator.health.readiness() == run.operator.health.liveness() == []
        assert count_lists(run.api.requests) == 1


async def test_ignored_nodes_are_not_asked_for() -> None:
    async with running(nodes="Ignored") as run:
        run.put_cr("m", x=1)
        await until(lambda: run.has_children("m") and run.observed("m") == 1, "it serves")
        assert count_lists(run.api.requests) == 0
