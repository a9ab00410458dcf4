"""The cache: one's own writes are read back, old news changes nothing, the dead stay dead, ownership is by controller."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.api import names
from fairlead.facts.observed import ObjectKey
from fairlead.kube.cache import NO_CHANGE, TOMBSTONES_KEPT, Cache, Change, make_entry

Json = dict[str, Any]
KEY = ObjectKey("Service", "ml", "web")


def service(
    version: int, *, uid: str = "u1", name: str = "web", port: int = 80, owner: str | None = "web", **metadata: Any
) -> Json:
    labels = {names.LABEL_LLMDEPLOYMENT: owner} if owner else {}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "ml", "uid": uid, "resourceVersion": str(version), "labels": labels}
        | metadata,
        "spec": {"ports": [{"port": port}]},
    }


def test_an_object_comes_back_as_it_was_less_what_is_pruned() -> None:
    cache = Cache()
    live = service(
        7,
        managedFields=[{"manager": "x"}],
        annotations={"kubectl.kubernetes.io/last-applied-configuration": "{}", "a": "b"},
    )
    cache.put(live)
    entry = cache.get(KEY)
    assert entry is not None
    expected = service(7, annotations={"a": "b"})
    assert entry.load() == expected


def test_an_older_version_does_not_overwrite_ones_own_write() -> None:
    cache = Cache()
    cache.put(service(10, port=81))
    assert cache.put(service(9, port=80)) is NO_CHANGE
    assert cache.put(service(10, port=81)) is NO_CHANGE
    assert cache.get(KEY).load()["spec"]["ports"][0]["port"] == 81  # type: ignore[union-attr]


def test_versions_are_compared_as_numbers() -> None:
    cache = Cache()
    cache.put(service(9, port=80))
    assert cache.put(service(10, port=81)).is_meaningful


def test_a_new_version_that_changes_nothing_we_keep_is_not_meaningful() -> None:
    cache = Cache()
    cache.put(service(1))
    assert not cache.put(service(2, managedFields=[{"manager": "somebody"}])).is_meaningful
    assert cache.get(KEY).resource_version == 2  # type: ignore[union-attr]


def test_an_item_of_a_list_equals_the_event_about_it() -> None:
    """Items of lists come without apiVersion and kind; a re-list must not look like a change of everything."""
    cache = Cache()
    cache.put(service(1))
    item = {key: value for key, value in service(2).items() if key not in ("apiVersion", "kind")}
    change = cache.put(item, "Service")
    assert not change.is_meaningful
    assert cache.get(KEY).load()["kind"] == "Service"  # type: ignore[union-attr]


def test_a_late_event_does_not_resurrect() -> None:
    cache = Cache()
    cache.put(service(5))
    assert cache.remove(KEY, "u1", 8).before is not None
    assert cache.put(service(7)) is NO_CHANGE
    assert cache.put(service(8)) is NO_CHANGE
    assert cache.get(KEY) is None


def test_a_successor_of_the_same_name_is_let_in() -> None:
    cache = Cache()
    cache.put(service(5))
    cache.remove(KEY, "u1", 8)
    assert cache.put(service(9, uid="u2")).is_meaningful


def test_late_news_of_a_predecessor_leaves_the_successor_alone() -> None:
    cache = Cache()
    cache.put(service(9, uid="u2"))
    assert cache.put(service(5, uid="u1")) is NO_CHANGE
    assert cache.remove(KEY, "u1", 8) is NO_CHANGE
    assert cache.get(KEY).uid == "u2"  # type: ignore[union-attr]


def test_an_object_that_left_the_selection_may_come_back() -> None:
    cache = Cache()
    cache.put(service(5))
    cache.remove(KEY, "u1", 6)
    assert cache.put(service(7)).is_meaningful


def test_news_of_a_stripped_label_does_not_undo_our_repair() -> None:
    """The watch says DELETED at 6; our apply that put the label back answered with 7 before that news arrived."""
    cache = Cache()
    cache.put(service(5))
    cache.put(service(7, port=81))
    assert cache.remove(KEY, "u1", 6) is NO_CHANGE
    assert cache.get(KEY) is not None


def test_a_list_drops_what_it_does_not_show_and_keeps_what_is_younger() -> None:
    cache = Cache()
    for name, version in (("old", 5), ("listed", 6), ("young", 20)):
        cache.put(service(version, name=name, uid=name))
    cache.put({**service(3, uid="other"), "kind": "Deployment", "apiVersion": "apps/v1"})
    changes = cache.retain("Service", None, {ObjectKey("Service", "ml", "listed")}, 10)
    assert [change.before.key.name for change in changes if change.before] == ["old"]
    assert [key.name for key in cache.keys("Service")] == ["listed", "young"]
    assert len(cache.keys("Deployment")) == 1


def test_a_list_of_one_namespace_says_nothing_about_others() -> None:
    cache = Cache()
    cache.put(service(5))
    assert cache.retain("Service", "other", set(), 10) == []


def test_ownership_is_by_controller_before_label() -> None:
    cache = Cache()
    reference = {
        "apiVersion": names.API_VERSION,
        "kind": names.LLMDEPLOYMENT,
        "name": "real",
        "uid": "cr1",
        "controller": True,
    }
    cache.put(service(1, owner="label", ownerReferences=[reference]))
    assert [entry.key for entry in cache.of_owner(ObjectKey(names.LLMDEPLOYMENT, "ml", "real"))] == [KEY]
    assert list(cache.of_owner(ObjectKey(names.LLMDEPLOYMENT, "ml", "label"))) == []
    assert cache.get(KEY).controller_uid == "cr1"  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", names.OWNER_LABELS)
def test_each_kind_owns_by_its_own_reference_and_label(kind: str) -> None:
    reference = {"apiVersion": names.API_VERSION, "kind": kind, "name": "a", "uid": "old", "controller": True}
    by_reference = make_entry(service(1, owner="other", ownerReferences=[reference]))
    assert by_reference.owner == ObjectKey(kind, "ml", "a")
    assert make_entry(service(1, labels={names.OWNER_LABELS[kind]: "a"})).owner == ObjectKey(kind, "ml", "a")
    assert by_reference.is_left_behind_for(ObjectKey(kind, "ml", "a"), "new")
    assert not by_reference.is_left_behind_for(ObjectKey(kind, "ml", "a"), "old")
    for other in set(names.OWNER_LABELS) - {kind}:
        assert not by_reference.is_left_behind_for(ObjectKey(other, "ml", "a"), "new")


def test_a_controller_of_the_same_kind_in_another_group_is_nobody_of_ours() -> None:
    reference = {
        "apiVersion": "example.com/v1",
        "kind": names.LLMDEPLOYMENT,
        "name": "a",
        "uid": "x",
        "controller": True,
    }
    entry = make_entry(service(1, owner="a", ownerReferences=[reference]))
    assert entry.owner == ObjectKey(names.LLMDEPLOYMENT, "ml", "a"), "by its label"
    assert entry.controller_uid == "x"
    assert not entry.is_left_behind_for(ObjectKey(names.LLMDEPLOYMENT, "ml", "a"), "new"), "it will not be collected"


def test_all_objects_of_one_owner_share_its_key() -> None:
    cache = Cache()
    for name in "abc":
        cache.put(service(1, name=name))
    cache.put(service(2, name="a", port=81))
    assert len({id(entry.owner) for entry in cache.of_owner(ObjectKey(names.LLMDEPLOYMENT, "ml", "web"))}) == 1


def test_whoever_listens_hears_of_each_change_once_and_of_nothing_else() -> None:
    heard: list[Change] = []
    cache = Cache(heard.append)
    changes = [cache.put(service(1)), cache.put(service(1)), cache.put(service(2)), cache.put(service(3, port=81))]
    changes += cache.retain("Service", None, set(), 9)
    assert [change.is_meaningful for change in changes] == [True, False, False, True, True]
    assert heard == [change for change in changes if change.is_meaningful]


def test_a_list_of_one_selection_leaves_what_is_anothers() -> None:
    cache = Cache()
    for name in ("mine", "another's"):
        cache.put(service(1, name=name))
    gone = cache.retain("Service", None, set(), 9, lambda entry: entry.key.name == "another's")
    assert [change.before.key.name for change in gone if change.before is not None] == ["mine"]
    assert [key.name for key in cache.keys("Service")] == ["another's"]


def test_an_object_whose_owner_changes_moves() -> None:
    cache = Cache()
    cache.put(service(1, owner="a"))
    change = cache.put(service(2, owner="b"))
    assert change.owners() == {ObjectKey(names.LLMDEPLOYMENT, "ml", "a"), ObjectKey(names.LLMDEPLOYMENT, "ml", "b")}
    assert list(cache.of_owner(ObjectKey(names.LLMDEPLOYMENT, "ml", "a"))) == []
    assert len(list(cache.of_owner(ObjectKey(names.LLMDEPLOYMENT, "ml", "b")))) == 1
    cache.put(service(3, owner=None))
    assert list(cache.of_owner(ObjectKey(names.LLMDEPLOYMENT, "ml", "b"))) == []


def test_settled_holds_for_this_wish_and_this_live_state_only() -> None:
    cache = Cache()
    live = service(1)
    cache.put(live)
    cache.settle(KEY, "h1", live)
    assert cache.is_settled(KEY, "h1", service(2, generation=4))
    assert not cache.is_settled(KEY, "h2", live)
    assert not cache.is_settled(KEY, "h1", service(1, port=81))
    assert not cache.is_settled(KEY, "h1", service(1, owner=None))


def test_tombstones_are_bounded() -> None:
    cache = Cache()
    for number in range(TOMBSTONES_KEPT + 10):
        cache.remove(ObjectKey("Service", "ml", str(number)), "u", 1)
    assert len(cache._tombstones) == TOMBSTONES_KEPT


def test_pods_are_pruned_to_what_planning_needs() -> None:
    cache = Cache()
    pod = {
        "metadata": {
            "name": "p",
            "namespace": "ml",
            "uid": "u",
            "resourceVersion": "1",
            "generateName": "x",
            "managedFields": [],
        },
        "spec": {
            "nodeName": "n1",
            "volumes": [{"name": "v"}],
            "containers": [
                {"name": "engine", "image": "i", "args": ["--x"], "env": [{"name": "SECRET", "value": "s"}]}
            ],
        },
        "status": {
            "phase": "Running",
            "hostIP": "1.2.3.4",
            "containerStatuses": [{"name": "engine", "ready": True, "containerID": "c", "state": {"running": {}}}],
        },
    }
    cache.put(pod, "Pod")
    assert cache.get(ObjectKey("Pod", "ml", "p")).load() == {  # type: ignore[union-attr]
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "ml", "uid": "u", "resourceVersion": "1"},
        "spec": {"nodeName": "n1", "containers": [{"name": "engine", "image": "i"}]},
        "status": {
            "phase": "Running",
            "containerStatuses": [{"name": "engine", "ready": True, "state": {"running": {}}}],
        },
    }


@given(st.permutations(range(1, 8)), st.integers(1, 7))
def test_any_order_of_arrival_ends_in_the_newest_state(order: list[int], deleted_after: int) -> None:
    """Events and answers of one object's life, in any order: alive with the newest state, or dead if it died."""
    cache = Cache()
    for version in order:
        if version == 7 and deleted_after == 7:
            cache.remove(KEY, "u1", 7)
        else:
            cache.put(service(version, port=version))
    entry = cache.get(KEY)
    if deleted_after == 7:
        assert entry is None
    else:
        assert entry is not None
        assert entry.load()["spec"]["ports"][0]["port"] == 7


@pytest.mark.parametrize("kind", ["Service", "Deployment"])
def test_counts_are_per_kind(kind: str) -> None:
    cache = Cache()
    cache.put({**service(1), "kind": kind}, kind)
    assert cache.counts() == {kind: 1}


def test_a_kept_body_takes_no_more_memory_than_its_length() -> None:
    """orjson's own bytes have the rest of its buffer behind them: 41 instead of 14 kB per custom resource."""
    cache, count = Cache(), 200
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(count):
            cache.put(service(number + 1, name=f"s{number}", uid=str(number)))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    length = sum(len(cache.get(key).body) for key in cache.keys("Service"))  # type: ignore[union-attr]
    assert after - before < length + count * 1500


def deployment(version: int, **status: Any) -> Json:
    return {
        "metadata": {
            "name": "m", "namespace": "ml", "uid": "d", "resourceVersion": str(version), "generation": version,
            "annotations": {"deployment.kubernetes.io/revision": str(version)},
        },
        "spec": {"replicas": 2},
        "status": status,
    }  # fmt: skip


def test_changes_are_told_apart_by_what_they_ask_for() -> None:
    cache = Cache()
    cache.put(deployment(1), "Deployment")
    moving = cache.put(deployment(2, replicas=1, unavailableReplicas=2), "Deployment")
    assert moving.is_meaningful
    assert moving.is_status_only
    assert not moving.is_news
    made = cache.put(deployment(3, replicas=2, unavailableReplicas=2), "Deployment")
    assert made.is_status_only
    assert made.is_news, "all its pods are there"
    assert not cache.put(deployment(4, replicas=2, unavailableReplicas=1), "Deployment").is_news
    ready = cache.put(deployment(5, replicas=2, readyReplicas=1), "Deployment")
    assert ready.is_status_only
    assert ready.is_news
    edited = deployment(6, replicas=2, readyReplicas=1)
    edited["spec"]["replicas"] = 5
    assert not cache.put(edited, "Deployment").is_status_only


def test_status_that_nothing_is_planned_with_is_no_change() -> None:
    cache = Cache()
    budget = {
        "metadata": {"name": "m", "namespace": "ml", "uid": "b", "resourceVersion": "1"},
        "spec": {},
        "status": {},
    }
    cache.put(budget, "PodDisruptionBudget")
    budget["metadata"] = {**budget["metadata"], "resourceVersion": "2"}  # type: ignore[dict-item]
    budget["status"] = {"expectedPods": 2}
    assert not cache.put(budget, "PodDisruptionBudget").is_meaningful
