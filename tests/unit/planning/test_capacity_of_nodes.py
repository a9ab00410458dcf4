"""What nodes hold, by the rules of the scheduler that need nothing but the node."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.planning.nodes import GPU, make_node

from fairlead.facts.nodes import GROWING_LABELS, LEAVING_TAINTS, SPOT_LABELS, NodeFacts, Taint
from fairlead.planning.deployment.capacity import Room, count_capacity, find_room, holds, read_demand

Json = dict[str, Any]
H100 = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "zone": "a", "generation": "9"}
OURS = {"key": GPU, "operator": "Exists", "effect": "NoSchedule"}


def make_template(count: int = 4, *, expressions: list[Json] | None = None, **spec: Any) -> Json:
    """A pod template as the planner makes them."""
    if expressions is not None:
        terms = {"nodeSelectorTerms": [{"matchExpressions": expressions}]}
        spec["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    container = {"name": "engine", "resources": {"limits": {"memory": "64Gi", GPU: str(count)}}}
    return {"spec": {"containers": [container], **spec}}


def count(template: Json, *nodes: NodeFacts) -> int:
    demand = read_demand(template, GPU)
    assert demand is not None
    return count_capacity(demand, nodes).replicas


def test_each_node_holds_whole_replicas() -> None:
    assert count(make_template(4), make_node("a", 4), make_node("b", 4)) == 2
    assert count(make_template(8), make_node("a", 4), make_node("b", 4)) == 0, "a pod is on one node"
    assert count(make_template(3), make_node("a", 8), make_node("b", 2)) == 2
    assert count(make_template(1)) == 0


def test_a_node_whose_devices_have_gone_is_none() -> None:
    """A device plugin that went leaves a 0."""
    demand = read_demand(make_template(4), GPU)
    assert demand is not None
    room = find_room(count_capacity(demand, [make_node("a", 0)]), ())
    assert room is not None
    assert room.words == "0 fit: no node that takes its pods has nvidia.com/gpu"


def test_other_devices_of_the_pod_count_too() -> None:
    template = make_template(1)
    template["spec"]["containers"][0]["resources"]["limits"]["rdma/hca"] = "1"
    assert count(template, make_node("a", 4)) == 0
    assert count(template, NodeFacts("b", {}, resources={GPU: 4, "rdma/hca": 2})) == 2


def test_without_an_accelerator_nothing_is_counted() -> None:
    assert read_demand({"spec": {"containers": [{"name": "engine"}]}}, GPU) is None
    assert read_demand(make_template(0), GPU) is None


def expression(key: str, operator: str, *values: str) -> Json:
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ([expression("zone", "In", "a", "b")], True),
        ([expression("zone", "In", "b")], False),
        ([expression("other", "In", "a")], False),
        ([expression("zone", "NotIn", "b")], True),
        ([expression("zone", "NotIn", "a")], False),
        ([expression("other", "NotIn", "a")], True),
        ([expression("zone", "Exists")], True),
        ([expression("other", "Exists")], False),
        ([expression("other", "DoesNotExist")], True),
        ([expression("zone", "DoesNotExist")], False),
        ([expression("generation", "Gt", "8")], True),
        ([expression("generation", "Gt", "9")], False),
        ([expression("generation", "Lt", "10")], True),
        ([expression("generation", "Lt", "9")], False),
        ([expression("zone", "Gt", "1")], False),
        ([expression("other", "Lt", "1")], False),
        ([expression("zone", "In", "a"), expression("other", "Exists")], False),
        ([], False),
    ],
    ids=str,
)
def test_required_affinity(wanted: list[Json], fits: bool) -> None:
    assert count(make_template(expressions=wanted), make_node(labels=H100)) == int(fits)


def test_terms_are_alternatives_and_fields_count() -> None:
    template = make_template(expressions=[expression("zone", "In", "b")])
    required = template["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    required["nodeSelectorTerms"].append({"matchFields": [expression("metadata.name", "In", "one")]})
    assert count(template, make_node("one"), make_node("two"), make_node("three", labels={"zone": "b"})) == 2


def test_the_selector_is_anded() -> None:
    template = make_template(expressions=[expression("zone", "In", "a")], nodeSelector={"pool": "gpu"})
    assert count(template, make_node(labels=H100)) == 0
    assert count(template, make_node(labels=H100 | {"pool": "gpu"})) == 1


def test_preferences_bind_nobody() -> None:
    preferred = [{"weight": 1, "preference": {"matchExpressions": [expression("zone", "In", "b")]}}]
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    assert count(make_template(affinity=affinity), make_node(labels=H100)) == 1


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        (OURS, True),
        ({"key": GPU, "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": GPU, "value": "present", "effect": "NoSchedule"}, True),
        ({"key": GPU, "operator": "Equal", "value": "absent"}, False),
        ({"key": GPU, "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"key": GPU, "operator": "Gt", "value": "7"}, True),
    ],
    ids=str,
)
def test_taints(toleration: Json, fits: bool) -> None:
    """What is not understood lets a pod in: the bound is an upper one."""
    node = make_node(taints=(Taint(GPU, "present", "NoSchedule"),))
    assert count(make_template(tolerations=[toleration]), node) == int(fits)


def test_every_taint_must_be_tolerated() -> None:
    node = make_node(taints=(Taint(GPU, "", "NoSchedule"), Taint("maintenance", "", "NoExecute")))
    assert count(make_template(tolerations=[OURS]), node) == 0


def test_nodes_that_are_not_ready_or_go_hold_none() -> None:
    template = make_template()
    assert count(template, make_node(is_ready=False), make_node("b", is_deleted=True)) == 0


def test_a_pool_to_which_nodes_are_added_binds_nothing() -> None:
    demand = read_demand(make_template(nodeSelector={"pool": "gpu"}), GPU)
    assert demand is not None
    [label] = GROWING_LABELS
    full = make_node("a", 4, labels={"pool": "gpu", label: "gpus"}, is_ready=False)
    assert find_room(count_capacity(demand, [full]), []) is None
    others = make_node("b", 4, labels={"pool": "others", label: "others"})
    assert find_room(count_capacity(demand, [others, make_node("c", 4, labels={"pool": "gpu"})]), []) == Room(
        1, "1 fit: 4 nvidia.com/gpu on 1 node, 4 per replica"
    )


def test_words_have_the_numbers() -> None:
    demand = read_demand(make_template(8), GPU)
    assert demand is not None
    room = find_room(count_capacity(demand, [make_node(str(one), 8) for one in range(3)]), ["NVIDIA-H100-80GB-HBM3"])
    assert room == Room(3, "3 fit: 24 nvidia.com/gpu (NVIDIA-H100-80GB-HBM3) on 3 nodes, 8 per replica")
    assert find_room(count_capacity(demand, []), []) == Room(0, "0 fit: no node that takes its pods has nvidia.com/gpu")


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.sampled_from(["", "tainted", "other"])), max_size=6),
)
def test_the_whole_is_the_sum_of_what_each_node_holds(per_replica: int, drawn: list[tuple[int, bool, str]]) -> None:
    """So a change is worth a pass just where one node holds something else."""
    demand = read_demand(make_template(per_replica, nodeSelector={"pool": ""}), GPU)
    assert demand is not None
    nodes = [
        make_node(
            str(number),
            gpus,
            labels={"pool": "" if word != "other" else word},
            is_ready=ready,
            taints=(Taint("x", "", "NoExecute"),) if word == "tainted" else (),
        )
        for number, (gpus, ready, word) in enumerate(drawn)
    ]
    whole = count_capacity(demand, nodes)
    parts = [holds(demand, node) for node in nodes]
    assert whole.replicas == sum(part[0] for part in parts) <= sum(gpus for gpus, _, _ in drawn) // per_replica
    assert (whole.available, whole.nodes) == (sum(part[1] for part in parts), sum(part[2] for part in parts))
    assert holds(demand, None) == (0, 0, 0, False)


@pytest.mark.parametrize(("label", "value"), SPOT_LABELS.items())
def test_spot_nodes(label: str, value: str) -> None:
    assert make_node(labels={label: value}).is_spot
    assert not make_node(labels={label: "on-demand"}).is_spot
    assert not make_node().is_spot


@pytest.mark.parametrize("key", sorted(LEAVING_TAINTS))
def test_nodes_that_go(key: str) -> None:
    assert make_node(taints=(Taint(key, "x", "NoSchedule"),)).is_leaving
    assert not make_node(taints=(Taint("DeletionCandidateOfClusterAutoscaler", "", "NoSchedule"),)).is_leaving
