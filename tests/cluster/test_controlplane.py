"""The control plane is a real one: what a user of Kubernetes relies on holds, and nothing of it is left afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairlead_cluster.audit import AuditLog
from fairlead_cluster.build import Binaries
from fairlead_cluster.cluster import OPERATOR_USER, LocalCluster
from fairlead_cluster.controlplane import ControlPlane
from fairlead_cluster.errors import CommandFailedError, ComponentDiedError
from fairlead_cluster.kubectl import Kubectl
from fairlead_cluster.processes import wait_until

pytestmark = pytest.mark.cluster

Json = dict[str, Any]


def deployment(namespace: str, name: str, replicas: int = 2) -> Json:
    """A Deployment that passes Pod Security restricted."""
    container = {
        "name": "main",
        "image": "example.invalid/app:1",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}},
        },
    }


def eventually(read: Callable[[], Any], holds: Callable[[Any], bool], timeout_s: float = 20.0) -> Any:
    """Read until it holds; the last value read."""
    deadline = time.monotonic() + timeout_s
    while not holds(value := read()):
        assert time.monotonic() < deadline, f"still {value}"
        time.sleep(0.1)
    return value


def test_server_and_client_say_their_version(kubectl: Kubectl) -> None:
    """A server that calls itself v0.0.0 breaks kubectl's skew check and charts with `kubeVersion`."""
    version = json.loads(kubectl("version", "-o", "json"))
    assert version["serverVersion"]["gitVersion"].startswith("v1.")
    assert version["serverVersion"]["gitVersion"] != "v1.0.0"
    assert int(version["serverVersion"]["minor"].rstrip("+")) >= 30


def test_new_namespace_gets_service_account_and_root_ca(kubectl: Kubectl, namespace: str) -> None:
    """Both come from controllers; pods are refused without the first and cannot mount tokens without the second."""
    kubectl("wait", "--for=create", "configmap/kube-root-ca.crt", "-n", namespace, "--timeout=20s")
    accounts = kubectl.json("get", "serviceaccounts", "-n", namespace)
    assert [account["metadata"]["name"] for account in accounts["items"]] == ["default"]


def test_deployment_becomes_replica_set_and_pending_pods(kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply(deployment(namespace, "app", replicas=2))
    pods = eventually(
        lambda: kubectl.json("get", "pods", "-n", namespace)["items"],
        lambda items: len(items) == 2 and all(item["status"].get("conditions") for item in items),
    )
    owners = {owner["kind"] for pod in pods for owner in pod["metadata"]["ownerReferences"]}
    assert owners == {"ReplicaSet"}
    conditions = [condition for pod in pods for condition in pod["status"]["conditions"]]
    # The real scheduler looked at them; there is no node.
    assert {(one["type"], one["reason"]) for one in conditions} == {("PodScheduled", "Unschedulable")}


def test_garbage_collector_deletes_what_a_deleted_object_owns(kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply(deployment(namespace, "app", replicas=1))
    eventually(lambda: kubectl.json("get", "pods", "-n", namespace)["items"], lambda items: len(items) == 1)
    kubectl("delete", "deployment", "app", "-n", namespace, "--wait=false")
    kinds = "replicasets,pods"
    eventually(lambda: kubectl.json("get", kinds, "-n", namespace)["items"], lambda items: not items)


def test_quota_is_enforced(kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "quota", "few", "--hard=services=0", "-n", namespace)
    # The quota controller must have counted before admission knows the limit.
    eventually(
        lambda: kubectl.json("get", "quota", "few", "-n", namespace)["status"], lambda status: "services" in str(status)
    )
    with pytest.raises(CommandFailedError, match="exceeded quota"):
        kubectl("create", "service", "clusterip", "one", "--tcp=80", "-n", namespace)


def test_pod_security_is_enforced_by_the_namespace_label(control_plane: LocalCluster) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    with control_plane.namespace(labels=labels) as namespace:
        with pytest.raises(CommandFailedError, match="violates PodSecurity"):
            control_plane.kubectl("run", "privileged", "--image=example.invalid/app:1", "--privileged", "-n", namespace)
        spec = deployment(namespace, "app")["spec"]["template"]["spec"]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "good", "namespace": namespace}, "spec": spec}
        control_plane.kubectl.apply(pod)


def test_services_get_loopback_cluster_ips(kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "service", "clusterip", "one", "--tcp=80:8000", "-n", namespace)
    service = kubectl.json("get", "service", "one", "-n", namespace)
    assert service["spec"]["clusterIP"].startswith("127.96.")


def test_audit_log_tells_who_did_what(kubectl: Kubectl, namespace: str, audit: AuditLog) -> None:
    before = audit.mark()
    kubectl("create", "configmap", "seen", "--from-literal=key=value", "-n", namespace)

    def read() -> list[Any]:
        return audit.records(since=before, user="admin", resource="configmaps", namespace=namespace)

    (record,) = audit.wait_for(read)
    assert (record.verb, record.name, record.code) == ("create", "seen", 201)
    assert record.is_write
    assert record.user_agent.startswith("kubectl/")
    assert 0 <= record.duration_s < 10
    assert "value" not in Path(audit.path).read_text().split(record.audit_id)[1].splitlines()[0]


def test_every_component_has_a_user_of_its_own(control_plane: LocalCluster) -> None:
    """Otherwise the audit log could not tell the administrator's requests from the controllers'."""
    users = {record.user for record in control_plane.audit.records()}
    assert {"admin", "system:kube-controller-manager", "system:kube-scheduler"} <= users


def test_operator_is_its_service_account_and_no_administrator(control_plane: LocalCluster) -> None:
    operator = control_plane.operator_kubectl
    who = json.loads(operator("auth", "whoami", "-o", "json"))["status"]["userInfo"]
    assert who["username"] == OPERATOR_USER
    assert set(who["groups"]) == {
        "system:serviceaccounts",
        "system:serviceaccounts:fairlead-system",
        "system:authenticated",
    }
    for verb, resource in (
        ("*", "*"),
        ("create", "clusterrolebindings"),
        ("delete", "nodes"),
        ("delete", "namespaces"),
    ):
        answer = operator.run("auth", "can-i", verb, resource, "--all-namespaces")
        assert answer.stdout.strip() == "no", f"the operator may {verb} {resource}"


def test_anonymous_and_wrong_tokens_are_refused(control_plane: LocalCluster) -> None:
    kubectl = control_plane.kubectl
    refused = kubectl.run("get", "pods", "--token=wrong")
    assert refused.returncode != 0
    assert "Unauthorized" in refused.stderr or "must be logged in" in refused.stderr


def test_servers_listen_on_loopback_only(control_plane: LocalCluster) -> None:
    own = {identity.pid for identity in control_plane.process_identities}
    listening = [address for pid in own for address in listening_addresses(pid)]
    assert len(listening) >= 5
    assert all(address.startswith("127.") for address in listening), listening


def listening_addresses(pid: int) -> list[str]:
    """IPv4 and IPv6 addresses on which a process accepts TCP connections."""
    import psutil

    connections = psutil.Process(pid).net_connections(kind="tcp")
    return [connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN]


def test_a_dead_component_is_named_with_its_last_words(binaries: Binaries, fresh_directory: Path) -> None:
    with ControlPlane(fresh_directory, binaries) as control_plane:
        control_plane.check()
        control_plane.process("kube-scheduler").kill()
        with pytest.raises(ComponentDiedError, match=r"(?s)kube-scheduler was killed by SIGKILL.*kube-scheduler\.log"):
            control_plane.check()


def test_stop_leaves_no_process(binaries: Binaries, fresh_directory: Path) -> None:
    control_plane = ControlPlane(fresh_directory, binaries)
    control_plane.start()
    identities = control_plane.process_identities
    assert {identity.name for identity in identities} == {
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
    }
    assert all(identity.is_alive() for identity in identities)
    control_plane.stop()
    control_plane.stop()
    assert wait_until(lambda: not any(identity.is_alive() for identity in identities), 1.0)


def test_secrets_of_the_cluster_are_readable_by_their_owner_only(control_plane: LocalCluster) -> None:
    private = [control_plane.admin_kubeconfig, control_plane.operator_kubeconfig]
    private += (control_plane.directory / "control-plane").rglob("*.key")
    private += (control_plane.directory / "control-plane").glob("tokens.csv")
    assert len(private) >= 6
    assert {path.stat().st_mode & 0o077 for path in private} == {0}


def test_the_garbage_collector_knows_our_kinds_from_the_first_second(binaries: Binaries, fresh_directory: Path) -> None:
    """It looks for new kinds every 30 s only: a CR deleted soon after the start would keep its children for so long."""
    with LocalCluster(fresh_directory, nodes=(), binaries=binaries, say=lambda _: None) as fresh:
        model = {"source": "hf://meta-llama/Llama-3.1-8B-Instruct"}
        resource = {
            "apiVersion": "fairlead.dev/v1alpha1",
            "kind": "LLMDeployment",
            "metadata": {"name": "m", "namespace": "default"},
            "spec": {"model": model, "engine": {"type": "vLLM"}, "accelerator": {"count": 1}},
        }
        fresh.kubectl.apply(resource)
        uid = fresh.kubectl("get", "llmdep", "m", "-n=default", "-o=jsonpath={.metadata.uid}")
        owner = {"apiVersion": "fairlead.dev/v1alpha1", "kind": "LLMDeployment", "name": "m", "uid": uid}
        metadata = {"name": "owned", "namespace": "default", "ownerReferences": [owner]}
        fresh.kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
        fresh.kubectl("delete", "llmdep", "m", "-n=default")
        fresh.kubectl("wait", "--for=delete", "configmap/owned", "-n=default", "--timeout=10s")
