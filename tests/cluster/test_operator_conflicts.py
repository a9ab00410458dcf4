"""Law 2 on the real API server: what is not ours is neither written nor deleted, and nobody fights over a name."""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.operator_world import QUIET_S, World, make_cr, until
from tests.cluster.upgrade.builds import Edit, make_build

from fairlead_cluster.cluster import OPERATOR_USER, LocalCluster

pytestmark = pytest.mark.cluster

Json = dict[str, Any]


@pytest.fixture(scope="module")
def operated(control_plane: LocalCluster) -> Iterator[LocalCluster]:
    control_plane.start_operator()
    control_plane.wait_for_operator()
    yield control_plane
    control_plane.stop_operator()


@pytest.fixture
def world(operated: LocalCluster, namespace: str) -> World:
    return World(operated, namespace)


def users_service(namespace: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "m", "namespace": namespace},
        "spec": {"selector": {"app": "mine"}, "ports": [{"port": 80, "protocol": "TCP"}]},
    }


def test_a_users_service_of_that_name_is_neither_taken_nor_deleted(world: World) -> None:
    world.apply(users_service(world.namespace))
    before = world.get("service/m")
    mark = world.mark()
    world.apply(make_cr(world.namespace, "m"))
    stalled = world.wait_stalled("m", "NameConflict")
    assert "Service/m" in stalled["message"]
    assert "Next: rename this LLMDeployment, or remove the other object." in stalled["message"]
    world.quiet_writes(mark, 5)
    assert world.get("service/m") == before
    assert world.names("deployments") == ["m"], "the other children do not wait"
    again = world.mark()
    time.sleep(QUIET_S)
    assert world.writes(again) == []
    world.kubectl("delete", "llmdeployment", "m")
    # A garbage collector that is new to the kind looks for it twice a minute.
    until(lambda: world.names("deployments") == [], "our children are collected", 60)
    time.sleep(QUIET_S)
    assert world.get("service/m") == before


def test_an_object_that_agrees_with_ours_in_every_field_is_not_joined(world: World) -> None:
    """A merely unforced apply would find no conflict here, put our owner reference on it, and let it be deleted with us."""
    with world.cluster.namespace() as elsewhere:
        twin = World(world.cluster, elsewhere)
        twin.apply(make_cr(elsewhere, "m"))
        ours = until(lambda: twin.get("service/m"), "a Service of ours to copy")
    copied = copy.deepcopy(ours)
    copied["metadata"] = {
        "name": "m",
        "namespace": world.namespace,
        "labels": ours["metadata"]["labels"],
        "annotations": ours["metadata"]["annotations"],
    }
    for assigned in ("clusterIP", "clusterIPs"):
        copied["spec"].pop(assigned)
    copied.pop("status")
    world.apply(copied)
    before = world.get("service/m")
    world.apply(make_cr(world.namespace, "m"))
    world.wait_stalled("m", "NameConflict")
    time.sleep(QUIET_S)
    assert world.get("service/m") == before
    world.kubectl("delete", "llmdeployment", "m")
    # A garbage collector that is new to the kind looks for it twice a minute.
    until(lambda: world.names("deployments") == [], "our children are collected", 60)
    time.sleep(QUIET_S)
    assert world.get("service/m") == before


@pytest.mark.long
def test_a_name_that_becomes_free_is_taken_without_anybody_touching_the_resource(world: World) -> None:
    world.apply(users_service(world.namespace))
    world.apply(make_cr(world.namespace, "m"))
    world.wait_stalled("m", "NameConflict")
    world.kubectl("delete", "service", "m")
    until(lambda: world.condition("m", "Stalled")["status"] == "False", "healed", 45)
    service = world.get("service/m")
    assert service is not None
    assert service["metadata"]["ownerReferences"][0]["name"] == "m"


def test_two_owners_of_one_name_do_not_flap(world: World) -> None:
    """The other owner is a custom resource of ours, too: both would write with the same field manager."""
    world.apply(make_cr(world.namespace, "other"))
    world.wait_observed("other")
    other = world.get("llmdeployment/other")
    assert other is not None
    service = users_service(world.namespace)
    service["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "fairlead", "fairlead.dev/llmdeployment": "other"}
    service["metadata"]["ownerReferences"] = [
        {
            "apiVersion": other["apiVersion"],
            "kind": other["kind"],
            "name": "other",
            "uid": other["metadata"]["uid"],
            "controller": True,
        }
    ]
    world.apply(service)
    mark = world.mark()
    world.apply(make_cr(world.namespace, "m"))
    world.quiet_writes(mark, 4)
    for name in ("m", "other"):
        until(lambda name=name: world.status(name).get("replicas") == 1, f"the pods of {name} are told of")
    again = world.mark()
    time.sleep(QUIET_S)
    assert world.writes(again) == []
    held = world.get("service/m")
    assert held is not None
    assert held["metadata"]["ownerReferences"][0]["name"] == "other"
    assert world.condition("other", "Stalled")["status"] == "False", "what it did not make is none of its business"
    asked = world.cluster.audit.records(since=mark, user=OPERATOR_USER)
    assert [str(one) for one in asked if one.lacks_right] == []
    world.kubectl("delete", "service", "m")
    until(
        lambda: (
            ((world.get("service/m") or {}).get("metadata") or {}).get("ownerReferences", [{}])[0].get("name") == "m"
        ),
        "the name is taken once it is free",
        45,
    )


def test_a_typo_in_a_raw_field_stalls_in_the_resources_own_words(world: World) -> None:
    world.apply(make_cr(world.namespace, "m", pod={"affinity": {"nodeAffinty": {}}}))
    mark = world.mark()
    stalled = world.wait_stalled("m", "InvalidChild")
    assert "spec.pod.affinity.nodeAffinty" in stalled["message"]
    assert "field not declared in schema" in stalled["message"]
    world.quiet_writes(mark, 1)
    again = world.mark()
    time.sleep(QUIET_S)
    assert world.writes(again) == [], "a typo is no outage: nothing is repeated"
    world.patch("llmdeployment/m", '{"spec": {"pod": null}}')
    until(lambda: world.names("deployments") == ["m"], "healed")
    until(lambda: world.condition("m", "Stalled")["status"] == "False", "no longer stalled")


def test_a_quota_is_told_and_one_child_does_not_hold_up_the_others(world: World) -> None:
    world.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "none", "namespace": world.namespace},
            "spec": {"hard": {"count/services": "0"}},
        }
    )
    until(lambda: "used" in ((world.get("resourcequota/none") or {}).get("status") or {}), "the quota is in force")
    world.apply(make_cr(world.namespace, "m"))
    until(lambda: world.condition("m", "Ready").get("reason") == "ChildRefused", "the refusal is told")
    assert "exceeded quota" in world.condition("m", "Ready")["message"]
    assert world.names("deployments") == ["m"]
    assert world.names("services") == []
    world.kubectl("delete", "resourcequota", "none")
    until(lambda: world.names("services") == ["m", "m-pods"], "healed without anybody touching the resource", 60)


def test_a_dying_namespace_is_left_in_peace(operated: LocalCluster) -> None:
    with operated.namespace() as name:
        world = World(operated, name)
        world.apply(make_cr(name, "m"))
        world.wait_observed("m")
        # A foreign finalizer keeps the namespace dying for as long as we look.
        world.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "hold", "namespace": name, "finalizers": ["example.com/hold"]},
            }
        )
        world.patch("llmdeployment/m", '{"metadata": {"finalizers": ["example.com/hold"]}}')
        mark = world.mark()
        operated.kubectl("delete", "namespace", name, "--wait=false")
        until(lambda: world.names("services") == [], "the namespace controller deletes our children")
        time.sleep(8)
        # A refused child is tried when its end is heard of, two seconds later and fifteen seconds later: more would be hammering.
        tried = Counter(world.writes(mark))
        print(tried)
        assert max((count for write, count in tried.items() if "/status" not in write), default=0) <= 3
        assert sum(count for write, count in tried.items() if "/status" in write) <= 4
        assert not [write for write in tried if write.endswith(": 201")]
        world.patch("configmap/hold", '{"metadata": {"finalizers": null}}')
        world.patch("llmdeployment/m", '{"metadata": {"finalizers": null}}')


def test_an_immutable_field_is_told_and_not_tried_for_ever(world: World) -> None:
    storage = {"type": "PersistentVolumeClaim", "size": "1Gi"}
    world.apply(make_cr(world.namespace, "m", storage=storage))
    world.wait_observed("m")
    mark = world.mark()
    world.patch("llmdeployment/m", '{"spec": {"storage": {"accessModes": ["ReadWriteMany"]}}}')
    world.wait_stalled("m", "ImmutableField")
    world.quiet_writes(mark, 1)
    again = world.mark()
    time.sleep(QUIET_S)
    assert world.writes(again) == []
    world.patch("llmdeployment/m", '{"spec": {"storage": {"accessModes": null}}}')
    until(lambda: world.condition("m", "Stalled")["status"] == "False", "rolled back")


def test_a_storage_class_named_later_reaches_a_claim_that_has_none(world: World) -> None:
    """Without a default class a claim waits without one; naming one in the spec is what a person does about it."""
    storage = {"type": "PersistentVolumeClaim", "size": "1Gi"}
    world.apply(make_cr(world.namespace, "m", storage=storage))
    until(lambda: world.get("persistentvolumeclaim/m-cache"), "the claim is there")
    claim = world.get("persistentvolumeclaim/m-cache")
    assert claim is not None
    assert "storageClassName" not in claim["spec"]
    world.patch("llmdeployment/m", '{"spec": {"storage": {"storageClassName": "fast"}}}')
    until(
        lambda: (world.get("persistentvolumeclaim/m-cache") or {})["spec"].get("storageClassName") == "fast",
        "the class is set",
    )
    world.wait_observed("m")
    mark = world.mark()
    time.sleep(QUIET_S)
    assert world.writes(mark) == []


HOLD = "example.com/hold"
TOLD_AFTER_S, LEFT_BEHIND_S = 10.0, 6.0


@pytest.fixture
def hasty(world: World, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of an operator that tells after ten seconds, not after a minute, and looks again after six. It runs in place of the
    usual one. That the times are what they are is proved in fake time (tests/unit/runtime/test_left_behind.py)."""
    build = make_build(
        tmp_path / "hasty",
        Edit("runtime/leftbehind.py", "TOLD_AFTER_S: Final = 60.0", f"TOLD_AFTER_S: Final = {TOLD_AFTER_S}"),
        Edit("runtime/leftbehind.py", "LEFT_BEHIND_S: Final = 30.0", f"LEFT_BEHIND_S: Final = {LEFT_BEHIND_S}"),
    )
    environment = {"PYTHONPATH": str(build)}
    start_again(world, environment)
    yield environment
    start_again(world, {})


def start_again(world: World, environment: dict[str, str]) -> None:
    world.cluster.stop_operator()
    world.cluster.start_operator(env=environment)
    world.cluster.wait_for_operator()


@pytest.mark.long
def test_what_a_predecessor_left_behind_is_told_of_after_a_while_and_made_anew_when_it_goes(
    world: World, hasty: dict[str, str]
) -> None:
    """A finalizer holds two objects; of one nobody tells the operator when it goes, since its labels are gone."""
    leave_two_objects_behind(world)
    world.apply(make_cr(world.namespace, "m", replicas=0))
    world.wait_observed("m")
    assert world.condition("m", "Reconciling")["reason"] != "WaitingForDeletion"
    first = until(lambda: told_of(world, "Deployment/m "), "the time is over", 90)
    assert HOLD in first
    assert "Next: " in first
    assert world.condition("m", "Stalled")["status"] == "False"
    ready = world.condition("m", "Ready")
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", "WaitingForDeletion", first)
    mark = world.mark()
    time.sleep(2 * LEFT_BEHIND_S)  # it is looked at again within that time
    assert world.writes(mark) == [], "nothing changes, so nothing is written"

    world.patch("deployment/m", '{"metadata": {"finalizers": null}}')
    until(lambda: told_of(world, "Service/m-pods "), "the other one is told of")
    owner = world.get("llmdeployment/m")
    assert owner is not None
    assert owned_by(world, "deployment/m") == owner["metadata"]["uid"]
    world.cluster.stop_operator()
    mark = world.mark()
    start_again(world, hasty)
    time.sleep(QUIET_S)
    assert world.writes(mark) == ["patch services m-pods: 409"], "status is right as it is"

    world.patch("service/m-pods", '{"metadata": {"finalizers": null}}')
    until(lambda: owned_by(world, "service/m-pods") == owner["metadata"]["uid"], "it is asked for", 45)
    until(lambda: world.condition("m", "Reconciling")["reason"] != "WaitingForDeletion", "it is told of no more")


def leave_two_objects_behind(world: World) -> None:
    world.apply(make_cr(world.namespace, "m", replicas=0))  # there are no nodes: pods would stall it meanwhile
    world.wait_observed("m")
    for held in ("deployment/m", "service/m-pods"):
        world.patch(held, f'{{"metadata": {{"finalizers": ["{HOLD}"]}}}}')
    world.kubectl("delete", "llmdeployment", "m")
    for held in ("deployment/m", "service/m-pods"):
        until(
            lambda held=held: "deletionTimestamp" in (world.get(held) or {})["metadata"],
            f"{held} is collected",
            60,
        )
    until(lambda: world.names("services") == ["m-pods"], "so is the rest", 60)
    world.patch("service/m-pods", '{"metadata": {"labels": null}}')


def told_of(world: World, what: str) -> str:
    """The message of Reconciling, while it says that this object of a predecessor is waited for."""
    condition = world.condition("m", "Reconciling")
    message = str(condition.get("message", ""))
    waits = condition.get("reason") == "WaitingForDeletion" and condition.get("status") == "True"
    return message if waits and message.startswith(what) else ""


def owned_by(world: World, what: str) -> str:
    """The uid of an object's first owner."""
    found = world.get(what)
    return str(found["metadata"]["ownerReferences"][0]["uid"]) if found is not None else ""
