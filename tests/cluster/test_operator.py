"""The operator on a real API server, with the rights that manifests/ grant: what it writes, counted by the audit log."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tests.cluster.operator_world import QUIET_S, World, make_cr, until

from fairlead_cluster.cluster import LocalCluster

pytestmark = pytest.mark.cluster

CHILDREN = ("deployments", "services", "networkpolicies", "poddisruptionbudgets", "persistentvolumeclaims")
CONDITIONS = ["Ready", "Reconciling", "Stalled", "ModelReady", "PodsScheduled", "Available", "ScalingActive"]


@pytest.fixture(scope="module")
def operated(control_plane: LocalCluster) -> Iterator[LocalCluster]:
    control_plane.start_operator(["--log-level=debug"])
    control_plane.wait_for_operator()
    yield control_plane
    control_plane.stop_operator()


@pytest.fixture
def world(operated: LocalCluster, namespace: str) -> World:
    return World(operated, namespace)


@pytest.fixture
def served(world: World) -> World:
    """A world in which `m` is settled: Deployment, two Services, NetworkPolicy."""
    mark = world.mark()
    world.apply(make_cr(world.namespace, "m"))
    world.wait_observed("m")
    world.quiet_writes(mark, 5)
    return world


def test_a_new_resource_costs_its_children_and_one_status(world: World) -> None:
    time.sleep(1.0)  # one that is made in the second in which the operator began to lead is asked for once more
    mark = world.mark()
    world.apply(make_cr(world.namespace, "m", replicas=2, storage={"type": "PersistentVolumeClaim", "size": "1Gi"}))
    world.wait_observed("m")
    assert world.quiet_writes(mark, 7) == [
        "patch deployments m: 201",
        "patch llmdeployments/status m: 200",
        "patch networkpolicies m: 201",
        "patch persistentvolumeclaims m-cache: 201",
        "patch poddisruptionbudgets m: 201",
        "patch services m-pods: 201",
        "patch services m: 201",
    ]
    assert [str(r) for r in world.records(mark) if not r.is_write] == []
    status = world.status("m")
    assert [condition["type"] for condition in status["conditions"]] == CONDITIONS
    assert {condition["observedGeneration"] for condition in status["conditions"]} == {1}


def test_a_spec_change_costs_one_child_and_one_status(served: World) -> None:
    mark = served.mark()
    served.patch("llmdeployment/m", '{"spec": {"context": {"maxLength": 4096}}}')
    assert served.quiet_writes(mark, 2) == ["patch deployments m: 200", "patch llmdeployments/status m: 200"]
    assert served.status("m")["observedGeneration"] == 2


def test_a_child_edited_by_hand_is_put_right_by_one_write(served: World) -> None:
    mark = served.mark()
    served.patch("service/m", '{"spec": {"selector": {"app": "mine"}}}')
    assert served.quiet_writes(mark, 1) == ["patch services m: 200"]
    service = served.get("service/m")
    assert service is not None
    assert "app" not in service["spec"]["selector"]


def test_a_port_that_was_renumbered_by_hand_is_put_right(served: World) -> None:
    """The merge takes port 81 for another entry than our port 80, and both have one name: an apply alone cannot mend it."""
    ports = '[{"name": "http", "port": 81, "protocol": "TCP", "targetPort": "http"}]'
    served.patch("service/m", f'{{"spec": {{"ports": {ports}}}}}')
    until(lambda: [p["port"] for p in (served.get("service/m") or {})["spec"]["ports"]] == [80], "port 80 is back")
    mark = served.mark()
    time.sleep(QUIET_S)
    assert served.writes(mark) == []
    assert "True/InvalidChild" not in [
        f"{c['status']}/{c['reason']}" for c in (served.get("llmdeployment/m") or {})["status"]["conditions"]
    ]


def test_a_deleted_service_costs_one_write(served: World) -> None:
    mark = served.mark()
    served.kubectl("delete", "service", "m")
    assert served.quiet_writes(mark, 1) == ["patch services m: 201"]


def test_a_deleted_deployment_costs_at_most_two_writes(served: World) -> None:
    mark = served.mark()
    served.kubectl("delete", "deployment", "m")
    writes = served.quiet_writes(mark, 1)
    assert "patch deployments m: 201" in writes
    assert len(writes) <= 2


def test_a_hundred_events_that_mean_nothing_cost_nothing(served: World) -> None:
    mark = served.mark()
    for number in range(100):
        kind = ("deployment", "service")[number % 2]
        served.cluster.kubectl.run(
            "annotate", kind, "m", f"example.com/n={number}", "--overwrite", f"--namespace={served.namespace}"
        )
    time.sleep(QUIET_S)
    assert served.records(mark) == []


def test_a_stripped_label_comes_back_and_nothing_is_made_twice(served: World) -> None:
    before = served.get("service/m")
    assert before is not None
    served.kubectl("label", "service", "m", "app.kubernetes.io/managed-by-")
    until(
        lambda: "app.kubernetes.io/managed-by" in (served.get("service/m") or {})["metadata"]["labels"], "label is back"
    )
    after = served.get("service/m")
    assert after is not None
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    mark = served.mark()
    time.sleep(QUIET_S)
    assert served.writes(mark) == []


def test_what_a_user_adds_to_a_child_stays(served: World) -> None:
    """Fields that we do not set are not ours: other controllers and people may own them."""
    served.kubectl("annotate", "service", "m", "example.com/team=a")
    served.patch("llmdeployment/m", '{"spec": {"service": {"port": 8080}}}')
    until(lambda: (served.get("service/m") or {})["spec"]["ports"][0]["port"] == 8080, "the port changed")
    service = served.get("service/m")
    assert service is not None
    assert service["metadata"]["annotations"]["example.com/team"] == "a"
    assert len(service["spec"]["ports"]) == 1


def test_a_child_that_is_asked_for_no_more_goes(served: World) -> None:
    served.patch("llmdeployment/m", '{"spec": {"networkPolicy": {"mode": "Disabled"}}}')
    until(lambda: served.names("networkpolicies") == [], "the NetworkPolicy is gone")
    assert served.names("services") == ["m", "m-pods"]


def test_a_deleted_resource_leaves_nothing_and_nothing_is_written(served: World) -> None:
    mark = served.mark()
    served.kubectl("delete", "llmdeployment", "m")
    until(lambda: not any(served.names(kind) for kind in CHILDREN), "children are collected")
    time.sleep(QUIET_S)
    assert served.writes(mark) == []
    assert not any(served.names(kind) for kind in CHILDREN)


def test_a_resource_that_waits_for_a_finalizer_gets_nothing_new(served: World) -> None:
    served.patch("llmdeployment/m", '{"metadata": {"finalizers": ["example.com/wait"]}}')
    served.kubectl("delete", "llmdeployment", "m", "--wait=false")
    until(lambda: (served.get("llmdeployment/m") or {})["metadata"].get("deletionTimestamp"), "it is being deleted")
    mark = served.mark()
    served.kubectl("delete", "service", "m")
    time.sleep(QUIET_S)
    assert served.writes(mark) == []
    assert "m" not in served.names("services")
    served.patch("llmdeployment/m", '{"metadata": {"finalizers": null}}')


def test_a_successor_of_the_same_name_gets_children_of_its_own(served: World) -> None:
    old = served.get("deployment/m")
    assert old is not None
    served.kubectl("delete", "llmdeployment", "m")
    served.apply(make_cr(served.namespace, "m"))
    new = served.get("llmdeployment/m")
    assert new is not None

    def succeeded() -> bool:
        deployment = served.get("deployment/m")
        return deployment is not None and deployment["metadata"]["ownerReferences"][0]["uid"] == new["metadata"]["uid"]

    until(succeeded, "the Deployment belongs to the new one", 60)
    served.wait_observed("m")
    assert served.condition("m", "Stalled")["status"] == "False"


def test_scale_is_one_spec_change(served: World) -> None:
    served.kubectl("scale", "llmdeployment", "m", "--replicas=3")
    until(lambda: (served.get("deployment/m") or {})["spec"]["replicas"] == 3, "scaled")
    assert served.names("poddisruptionbudgets") == ["m"]


def test_an_invalid_resource_keeps_what_runs_and_says_why(served: World) -> None:
    """What the CRD cannot refuse: it was stored by an older one. Here the rule is passed by going around admission."""
    before = served.get("deployment/m")
    served.patch("llmdeployment/m", '{"spec": {"engine": {"type": "NoSuchEngine"}}}')
    stalled = served.wait_stalled("m", "EngineNotFound")
    assert "NoSuchEngine" in stalled["message"]
    after = served.get("deployment/m")
    assert before is not None
    assert after is not None
    assert after["spec"] == before["spec"]
    served.patch("llmdeployment/m", '{"spec": {"engine": {"type": "vLLM"}}}')
    until(lambda: served.condition("m", "Stalled")["status"] == "False", "no longer stalled")


def test_many_at_once_go_quiet(world: World) -> None:
    count = 30
    mark = world.mark()
    world.apply(*(make_cr(world.namespace, f"m{number}") for number in range(count)))
    until(lambda: len(world.writes(mark)) >= count * 5, "all are there", 120)
    until(
        lambda: all(
            item["status"].get("observedGeneration") == 1
            for item in world.cluster.kubectl.json("get", "llmdeployments", f"--namespace={world.namespace}")["items"]
        ),
        "all are observed",
        60,
    )

    def quiet() -> bool:
        since = world.mark()
        time.sleep(3)
        return world.writes(since) == []

    until(quiet, "nothing is written any more", 60)
    creates = [w for w in world.writes(mark) if w.endswith("201")]
    assert len(creates) == len(set(creates)) == count * 4
