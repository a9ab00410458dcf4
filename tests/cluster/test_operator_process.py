"""The operator as a process on the real API server: restarts, two replicas, its probes and metrics, its own engines."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.operator_world import QUIET_S, World, make_cr, until
from tests.cluster.test_privileges import MANAGES

from fairlead.kube.access import Scope, make_policy_rules
from fairlead_cluster.cluster import OPERATOR_USER, LocalCluster

pytestmark = pytest.mark.cluster

WORKERS_IN_FLIGHT = 16
ENGINES = Path(__file__).parents[2] / "operator" / "fairlead" / "engines"


@pytest.fixture
def stopped(control_plane: LocalCluster) -> Iterator[LocalCluster]:
    """A cluster on which the test starts the operators; they are stopped after it."""
    yield control_plane
    for name in ("operator", "one", "two", "namespaced"):
        control_plane.stop_operator(name)


@pytest.fixture
def world(stopped: LocalCluster, namespace: str) -> World:
    return World(stopped, namespace)


def start(cluster: LocalCluster, name: str = "operator", *args: str) -> None:
    cluster.start_operator(["--log-level=debug", *args], name=name)
    cluster.wait_for_operator(name)
    until(lambda: read(cluster, "/debug/queue", name), f"{name} answers")


def read(cluster: LocalCluster, path: str, name: str = "operator") -> str:
    with urllib.request.urlopen(cluster.operator_url(name) + path, timeout=5) as response:
        return str(response.read().decode())


def leads(cluster: LocalCluster, name: str) -> bool:
    return bool(json.loads(read(cluster, "/debug/queue", name))["leading"])


def log_of(cluster: LocalCluster, name: str = "operator") -> list[dict[str, object]]:
    lines = (cluster.logs_dir / f"{name}.log").read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_a_restart_in_sync_writes_nothing_and_heals_just_what_changed_meanwhile(world: World) -> None:
    cluster = world.cluster
    start(cluster)
    mark = world.mark()
    world.apply(*(make_cr(world.namespace, name) for name in ("a", "b", "c")))
    world.quiet_writes(mark, 15)
    cluster.stop_operator()
    mark = world.mark()
    start(cluster)
    until(lambda: leads(cluster, "operator"), "leads")
    time.sleep(QUIET_S)
    assert world.writes(mark) == []
    cluster.stop_operator()
    world.patch("service/a", '{"spec": {"selector": {"app": "mine"}}}')
    world.kubectl("delete", "networkpolicy", "b")
    mark = world.mark()
    start(cluster)
    assert world.quiet_writes(mark, 2) == ["patch networkpolicies b: 201", "patch services a: 200"]


def test_a_crash_in_the_middle_is_finished_by_the_next_start(world: World) -> None:
    cluster = world.cluster
    start(cluster)
    names = [f"m{number}" for number in range(10)]
    mark = world.mark()
    world.apply(*(make_cr(world.namespace, name) for name in names))
    until(lambda: len(world.writes(mark)) >= 10, "half way")
    cluster.stop_operator(kill=True)
    start(cluster)
    for name in names:
        world.wait_observed(name)
    until(lambda: world.names("deployments") == sorted(names), "all Deployments")
    assert len(world.names("services")) == 20
    creates = [write for write in world.writes(mark) if write.endswith(": 201")]
    assert len(creates) == len(set(creates)), "nothing is made twice"
    # A create whose client was killed before the answer can have taken place and yet be logged with another code.
    assert 40 - WORKERS_IN_FLIGHT <= len(creates) <= 40


def test_of_two_replicas_one_works_and_the_other_takes_over_at_once_after_a_clean_stop(world: World) -> None:
    cluster = world.cluster
    start(cluster, "one")
    until(lambda: leads(cluster, "one"), "one leads")
    start(cluster, "two")
    world.apply(make_cr(world.namespace, "m"))
    world.wait_observed("m")
    assert not leads(cluster, "two")
    cluster.stop_operator("one")
    stopped_at = time.monotonic()
    until(lambda: leads(cluster, "two"), "two leads")
    assert time.monotonic() - stopped_at <= 8.0, "within a second on an idle machine; a Lease that runs out takes 15"
    mark = world.mark()
    time.sleep(QUIET_S)
    assert world.writes(mark) == [], "a change of leaders writes nothing"
    world.apply(make_cr(world.namespace, "n"))
    world.wait_observed("n")


@pytest.mark.alone
@pytest.mark.long
def test_after_a_crash_of_the_leader_the_other_takes_over_in_twenty_seconds(world: World) -> None:
    cluster = world.cluster
    start(cluster, "one")
    until(lambda: leads(cluster, "one"), "one leads")
    start(cluster, "two")
    cluster.stop_operator("one", kill=True)
    world.apply(make_cr(world.namespace, "m"))
    killed_at = time.monotonic()
    until(lambda: leads(cluster, "two"), "two leads", 40)
    assert time.monotonic() - killed_at <= 20.0
    world.wait_observed("m")


def test_sigterm_ends_cleanly_releases_the_lease_and_leaks_no_task(world: World) -> None:
    cluster = world.cluster
    process = cluster.start_operator(["--log-level=debug"])
    cluster.wait_for_operator()
    until(lambda: leads(cluster, "operator"), "leads")
    world.apply(make_cr(world.namespace, "m"))
    world.wait_observed("m")
    started = time.monotonic()
    process.stop()
    assert time.monotonic() - started < 10
    lease = cluster.kubectl.json("get", "lease", "fairlead", "--namespace=fairlead-system")
    assert lease["spec"].get("holderIdentity", "") == ""
    text = (cluster.logs_dir / "operator.log").read_text()
    assert "released" in text
    for complaint in ("Task was destroyed", "never awaited", "Unclosed", "Traceback"):
        assert complaint not in text


def test_probes_and_metrics_say_what_dashboards_know(world: World) -> None:
    cluster = world.cluster
    start(cluster)
    world.apply(make_cr(world.namespace, "m"))
    world.wait_observed("m")
    assert read(cluster, "/healthz") == "ok\n"
    assert read(cluster, "/readyz") == "ok\n"
    text = read(cluster, "/metrics")
    for expected in (
        r'controller_runtime_reconcile_total\{controller="llmdeployment",result="success"\} [1-9]',
        r'controller_runtime_max_concurrent_reconciles\{controller="llmdeployment"\} 16',
        r'workqueue_depth\{controller="llmdeployment",name="llmdeployment"\} 0',
        r'workqueue_adds_total\{controller="llmdeployment",name="llmdeployment"\} [1-9]',
        r'rest_client_requests_total\{code="201",host="127.0.0.1:\d+",method="PATCH"\} [1-9]',
        r'leader_election_master_status\{name="fairlead"\} 1',
        r'fairlead_llmdeployment_condition\{name="m",namespace="[^"]+",reason="[^"]+",status="False",type="Ready"\} 1',
        r'fairlead_cache_objects\{kind="Deployment"\} [1-9]',
    ):
        assert re.search(expected, text), expected
    world.kubectl("delete", "llmdeployment", "m")
    until(lambda: f'namespace="{world.namespace}"' not in read(cluster, "/metrics"), "its series are gone")


def test_each_change_is_one_log_line_that_says_what_it_is_about(world: World) -> None:
    start(world.cluster)
    world.apply(make_cr(world.namespace, "m"))
    world.wait_observed("m")
    lines = [
        line
        for line in log_of(world.cluster)
        if line.get("namespace") == world.namespace and str(line["msg"]).startswith("Reconciled")
    ]
    assert len(lines) == 2, "the children, and the status once they settled"
    assert "create Deployment/m" in str(lines[0]["msg"])
    for key in ("controller", "name", "uid", "reconcile_id", "generation", "ts", "level", "logger"):
        assert lines[0][key]


def test_an_engine_of_ones_own_and_a_broken_one_that_stalls_only_its_users(world: World) -> None:
    cluster = world.cluster
    start(cluster)
    text = (ENGINES / "vllm.yaml.j2").read_text().replace("name: vLLM", "name: Mine", 1)
    header = text.split("\n---\n", 1)[0]

    def publish(content: str) -> None:
        metadata = {"name": "mine", "namespace": "fairlead-system", "labels": {"fairlead.dev/engine": "Mine"}}
        cluster.kubectl.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"engine.yaml.j2": content}}
        )

    world.apply(make_cr(world.namespace, "theirs", engine={"type": "Mine"}), make_cr(world.namespace, "bystander"))
    world.wait_stalled("theirs", "EngineNotFound")
    world.wait_observed("bystander")
    try:
        publish(text)
        until(lambda: world.condition("theirs", "Stalled")["status"] == "False", "the engine is found")
        until(lambda: "theirs" in world.names("deployments"), "its Deployment is there")
        mark = world.mark()
        publish(header + "\n---\n{% if %}\n")
        message = world.wait_stalled("theirs", "EngineInvalid")["message"]
        assert "fairlead-system/mine" in message
        assert f":{len(header.splitlines()) + 2}:" in message
        assert all(" bystander" not in write for write in world.quiet_writes(mark, 1))
        assert "theirs" in world.names("deployments"), "what runs goes on running"
    finally:
        cluster.kubectl("delete", "configmap", "mine", "--namespace=fairlead-system")
    world.wait_stalled("theirs", "EngineNotFound")


def test_an_operator_of_one_namespace_needs_no_rights_elsewhere(world: World, tmp_path: Path) -> None:
    cluster, name = world.cluster, "namespaced"
    account = {"kind": "ServiceAccount", "name": name, "namespace": world.namespace}
    metadata = {"name": name, "namespace": world.namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    rules = [*make_policy_rules(Scope.WATCHED), *make_policy_rules(Scope.OPERATOR), MANAGES]
    cluster.kubectl.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": reference,
            "subjects": [account],
        },
    )
    kubeconfig = cluster.control_plane.write_service_account_kubeconfig(world.namespace, name, tmp_path / "kubeconfig")
    environment = {"KUBECONFIG": str(kubeconfig), "POD_NAMESPACE": world.namespace}
    cluster.start_operator([f"--watch-namespaces={world.namespace}", "--nodes=Ignored"], environment, name=name)
    cluster.wait_for_operator(name)
    with cluster.namespace() as elsewhere:
        mark = world.mark()
        world.apply(make_cr(elsewhere, "unseen"))
        world.apply(make_cr(world.namespace, "m"))
        world.wait_observed("m")
        user = f"system:serviceaccount:{world.namespace}:{name}"
        records = cluster.audit.records(user=user, since=mark)
        assert [str(record) for record in records if record.code == 403] == []
        assert World(cluster, elsewhere).names("deployments") == []
    assert user != OPERATOR_USER


def test_an_operator_that_starts_before_its_crd_waits_for_it(world: World) -> None:
    """With a right but without the kind the API server answers 404; here the kind is hidden by stopping its serving."""
    cluster = world.cluster
    crd = "llmdeployments.fairlead.dev"
    serve = '[{{"op": "replace", "path": "/spec/versions/0/served", "value": {value}}}]'
    cluster.kubectl("patch", "crd", crd, "--type=json", f"--patch={serve.format(value='false')}")
    try:
        cluster.start_operator()
        until(lambda: any("apply crds/" in str(line["msg"]) for line in log_of(cluster)), "it says what is missing")
    finally:
        cluster.kubectl("patch", "crd", crd, "--type=json", f"--patch={serve.format(value='true')}")
    cluster.wait_for_operator()
    world.apply(make_cr(world.namespace, "m"))
    world.wait_observed("m")
