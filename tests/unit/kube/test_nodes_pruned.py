"""What is kept of a node: nothing that its kubelet writes again and again, and little of one that no model with accelerators runs on."""

from __future__ import annotations

import copy
from typing import Any

from fairlead.kube.cache import Cache, make_entry
from fairlead.kube.informer import Selection
from fairlead.kube.resources import NODE

Json = dict[str, Any]


def make_live(version: int = 1, **allocatable: str) -> Json:
    """As a kubelet, its cloud and GPU feature discovery leave it."""
    resources = {"cpu": "96", "memory": "1056Gi", "pods": "110", "hugepages-2Mi": "0", "attachable-volumes-x": "39"}
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-11-25T12:00:00Z", "message": "is posting"}
    return {
        "metadata": {
            "name": "a",
            "uid": "u",
            "resourceVersion": str(version),
            "labels": {"zone": "a", "karpenter.sh/capacity-type": "spot"},
            "annotations": {"csi.volume.kubernetes.io/nodeid": "{}"},
            "managedFields": [{}],
        },
        "spec": {
            "podCIDR": "10.0.0.0/24",
            "taints": [
                {"key": "nvidia.com/gpu", "effect": "NoSchedule", "timeAdded": "2026-11-25T12:00:00Z"},
                {"key": "soft", "effect": "PreferNoSchedule"},
                {"key": "karpenter.sh/disrupted", "effect": "NoSchedule"},
            ],
        },
        "status": {
            "allocatable": resources | allocatable,
            "capacity": resources,
            "conditions": [{"type": "DiskPressure", "status": "False"}, ready],
            "images": [{"names": ["x"] * 50}] * 50,
        },
    }


def load(live: Json) -> Json:
    loaded = make_entry(live, NODE.kind).load()
    del loaded["metadata"]["resourceVersion"]
    return loaded


def test_of_a_node_with_accelerators_what_decides_who_may_run_there() -> None:
    kept = load(make_live(**{"nvidia.com/gpu": "8"}))
    assert kept["metadata"] == {
        "name": "a",
        "uid": "u",
        "labels": {"zone": "a", "karpenter.sh/capacity-type": "spot"},
    }
    keys = [{"key": key, "effect": "NoSchedule"} for key in ("nvidia.com/gpu", "karpenter.sh/disrupted")]
    assert kept["spec"] == {"taints": keys}
    ready = [{"type": "Ready", "status": "True"}]
    assert kept["status"] == {"allocatable": {"nvidia.com/gpu": "8"}, "conditions": ready}


def test_of_another_node_whether_it_may_be_taken_back_or_goes() -> None:
    kept = load(make_live())
    assert kept["metadata"]["labels"] == {"karpenter.sh/capacity-type": "spot"}
    assert kept["spec"] == {"taints": [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]}
    assert "status" not in kept
    assert len(make_entry(make_live(), NODE.kind).body) < 300


def test_a_cordon_is_kept() -> None:
    live = make_live(**{"nvidia.com/gpu": "8"})
    live["spec"]["unschedulable"] = True
    assert load(live)["spec"]["unschedulable"] is True


def test_a_heartbeat_is_no_change() -> None:
    cache = Cache()
    live = make_live(**{"nvidia.com/gpu": "8"})
    assert cache.put(live, NODE.kind).is_meaningful
    later = copy.deepcopy(live)
    later["metadata"]["resourceVersion"] = "2"
    later["status"]["conditions"][1]["lastHeartbeatTime"] = "2026-11-25T12:05:00Z"
    later["status"]["allocatable"]["memory"] = "1055Gi"
    later["status"]["images"] = []
    assert not cache.put(later, NODE.kind).is_meaningful
    later["metadata"]["resourceVersion"] = "3"
    later["status"]["conditions"][1]["status"] = "Unknown"
    assert cache.put(later, NODE.kind).is_meaningful


def test_nodes_are_of_the_cluster() -> None:
    assert NODE.path(None) == "/api/v1/nodes"
    assert str(Selection(NODE, is_needed=False)) == "nodes"
