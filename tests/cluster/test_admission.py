"""The shipped admission policies at a real API server: what an editor of the namespace, and the operator's own account, may not do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hack.generate.admission import ACCOUNT
from tests.cluster.operator_world import make_cr, until
from tests.cluster.test_privileges import MANAGES

from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.kubectl import CommandFailedError

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
EDITOR = "an-editor"
NAME = "guarded"
ENGINE_LABELS = {
    "app.kubernetes.io/managed-by": "fairlead",
    "app.kubernetes.io/component": "engine",
    "app.kubernetes.io/instance": "m",
}
CONTAINER = {"name": "x", "image": "example.com/x:1"}


@dataclass
class Guarded:
    """A namespace with a route and a deployment, the operator under an account of its own, and the policies in force."""

    cluster: LocalCluster
    namespace: str
    account: str

    def run(self, *arguments: str, user: str = "", stdin: str | None = None) -> str:
        """kubectl in this namespace, as somebody. Whoever is the operator has all rights here: kubectl reads before it patches, and what
        RBAC lets the operator do is not asked."""
        group = "masters" if user == self.account else "authenticated"
        impersonated = (f"--as={user}", f"--as-group=system:{group}") if user else ()
        return str(self.cluster.kubectl("-n", self.namespace, *impersonated, *arguments, stdin=stdin))

    def refuses(self, *arguments: str, user: str = EDITOR) -> bool:
        """Whether it is refused."""
        try:
            self.run(*arguments, user=user)
        except CommandFailedError:
            return True
        return False

    def refused(self, *arguments: str, user: str = EDITOR, stdin: str | None = None) -> str:
        """Why it is refused; fails the test if it is not."""
        with pytest.raises(CommandFailedError) as raised:
            self.run(*arguments, user=user, stdin=stdin)
        return str(raised.value)


@pytest.fixture(scope="module")
def guarded(control_plane: LocalCluster) -> Iterator[Guarded]:
    """Policies are in force in all of the test cluster: they are part of the shipped manifests."""
    cluster = control_plane
    rbac = "rbac.authorization.k8s.io"
    with cluster.namespace("guarded") as namespace:
        cluster.kubectl.apply(
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "RoleBinding",
                "metadata": {"name": EDITOR, "namespace": namespace},
                "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "edit"},
                "subjects": [{"kind": "User", "name": EDITOR}],
            },
        )
        cluster.start_operator(name=NAME)
        cluster.wait_for_operator(NAME)
        try:
            found = Guarded(cluster, namespace, ACCOUNT)
            _wait_in_force(found)
            _live(found)
            yield found
        finally:
            cluster.stop_operator(NAME)


def _wait_in_force(guarded: Guarded) -> None:
    """The API server needs a moment to take in a policy: until the last one of them refuses."""

    def refuses(labels: Json) -> bool:
        try:
            guarded.run("apply", "--dry-run=server", "-f", "-", user=EDITOR, stdin=json.dumps(labels))
        except CommandFailedError:
            return True
        return False

    until(
        lambda: all(map(refuses, (make_map(), make_pod(), make_workload("Deployment"), make_service()))), "in force", 60
    )


def _live(guarded: Guarded) -> None:
    route: Json = {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "LLMRoute",
        "metadata": {"name": "guarded", "namespace": guarded.namespace},
        "spec": {
            "backends": [{"name": "local", "deployment": {"name": "m"}}],
            "models": [{"name": "chat", "targets": [{"backend": "local"}]}],
            "authentication": {"anonymous": {}},
        },
    }
    guarded.cluster.kubectl.apply(make_cr(guarded.namespace, "m"), route)
    until(lambda: len(guarded.run("get", "pods", "-o", "name").split()) == 3, "two gateways and an engine", 60)


def make_map() -> Json:
    labels = {"app.kubernetes.io/managed-by": "fairlead", "fairlead.dev/llmroute": "guarded"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "forged", "labels": labels}, "data": {}}


def make_service() -> Json:
    ports = [{"port": 80}]
    spec = {"selector": {"app": "mine"}, "ports": ports}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "forged", "labels": ENGINE_LABELS},
        "spec": spec,
    }


def make_pod() -> Json:
    metadata = {"name": "forged", "labels": ENGINE_LABELS}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [CONTAINER]}}


def make_workload(kind: str, labels: Json | None = None) -> Json:
    """One of somebody's own, whose pods would have these labels."""
    wanted = labels or ENGINE_LABELS
    template = {"metadata": {"labels": wanted}, "spec": {"containers": [CONTAINER]}}
    spec = {"replicas": 1, "selector": {"matchLabels": wanted}, "template": template}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "forged"}, "spec": spec}


@pytest.mark.parametrize(
    ("what", "patch"),
    [
        ("configmap/guarded-gateway-routes", {"data": {"rds-public.json": "{}"}}),
        ("configmap/guarded-gateway-routes", {"metadata": {"annotations": {"fairlead.dev/publications": None}}}),
        ("configmap/guarded-gateway-clusters", {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}}),
        ("secret/guarded-gateway-clients", {"stringData": {"authentication.json": "{}"}}),
        ("service/m-pods", {"spec": {"selector": {"app": "mine"}}}),
        ("service/guarded-gateway", {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}}),
        ("networkpolicy/m", {"spec": {"egress": [{}]}}),
        ("deployment/guarded-gateway", {"spec": {"template": {"spec": {"dnsPolicy": "Default"}}}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_editor_changes_no_child(guarded: Guarded, what: str, patch: Json) -> None:
    refused = guarded.refused("patch", what, "--type=merge", "-p", json.dumps(patch))
    assert "only fairlead changes" in refused or "only fairlead makes pods" in refused


@pytest.mark.parametrize("what", ["configmap/guarded-gateway-routes", "networkpolicy/m", "service/m"])
def test_nor_deletes_one(guarded: Guarded, what: str) -> None:
    assert "only fairlead changes" in guarded.refused("delete", what)


@pytest.mark.parametrize(
    "forged",
    [make_map(), make_service(), make_pod(), make_workload("Deployment"), make_workload("ReplicaSet")],
    ids=lambda one: str(one["kind"]),
)
def test_nor_makes_what_looks_like_one(guarded: Guarded, forged: Json) -> None:
    assert "only fairlead" in guarded.refused(
        "create", "-f", "-", stdin=json.dumps(forged)
    ) or "only pods of" in guarded.refused("create", "-f", "-", stdin=json.dumps(forged))


def test_nor_gives_a_pod_of_its_own_the_labels(guarded: Guarded) -> None:
    own = make_pod() | {"metadata": {"name": "own", "labels": {"app": "mine"}}}
    guarded.run("create", "-f", "-", user=EDITOR, stdin=json.dumps(own))
    labels = json.dumps({"metadata": {"labels": ENGINE_LABELS}})
    assert "only pods of fairlead's own" in guarded.refused("patch", "pod/own", "--type=merge", "-p", labels)
    # Nor a workload of its own afterwards.
    plain = make_workload("Deployment", {"app": "mine"})
    guarded.run("create", "-f", "-", user=EDITOR, stdin=json.dumps(plain))
    patch = json.dumps({"spec": {"template": {"metadata": {"labels": ENGINE_LABELS}}}})
    assert "only fairlead makes" in guarded.refused("patch", "deployment/forged", "--type=merge", "-p", patch)
    guarded.run("delete", "pod/own", "deployment/forged", "--wait=false", user=EDITOR)


@pytest.mark.parametrize(
    "patch",
    [
        [{"op": "replace", "path": "/metadata/labels/app.kubernetes.io~1instance", "value": "another"}],
        [{"op": "replace", "path": "/metadata/labels/app.kubernetes.io~1component", "value": "gateway"}],
        [{"op": "replace", "path": "/spec/containers/0/image", "value": "example.com/other:1"}],
    ],
    ids=["of another", "a gateway", "another image"],
)
def test_nor_makes_another_one_of_a_pod_of_ours(guarded: Guarded, patch: Json) -> None:
    pod = guarded.run("get", "pods", "-l", "app.kubernetes.io/component=engine", "-o", "name").split()[-1]
    assert "stay as they are" in guarded.refused("patch", pod, "--type=json", "-p", json.dumps(patch))
    guarded.run("annotate", pod, "--overwrite", "example.com/a=b", user=EDITOR)


def test_what_others_need_is_left_to_them(guarded: Guarded) -> None:
    """Annotations of children, the scale of an LLMDeployment, pods to be deleted, and whatever is not ours."""
    guarded.run("annotate", "service/guarded-gateway", "example.com/load-balancer=internal", user=EDITOR)
    guarded.run("scale", "llmdeployment/m", "--replicas=2", user=EDITOR)
    until(lambda: len(guarded.run("get", "pods", "-o", "name").split()) == 4, "the operator carries it out", 60)
    guarded.run("create", "configmap", "own", "--from-literal=a=b", user=EDITOR)
    guarded.run("delete", "configmap", "own", user=EDITOR)
    pod = guarded.run("get", "pods", "-l", "app.kubernetes.io/component=engine", "-o", "name").split()[0]
    guarded.run("delete", pod, "--wait=false", user=EDITOR)


def test_an_administrator_may_do_what_he_must(guarded: Guarded) -> None:
    """With a right that administrators of the cluster have, and that can be given to others."""
    patch = ("patch", "configmap/guarded-gateway-routes", "--type=merge", "-p", '{"data": {"rds-public.json": "{}"}}')
    guarded.run(*patch)
    until(
        lambda: len(guarded.run("get", "configmap/guarded-gateway-routes", "-o=jsonpath={.data}")) > 1000,
        "it is mended",
        30,
    )
    grant_to_editor(guarded, MANAGES)
    until(lambda: not guarded.refuses(*patch), "the right counts", 30)
    guarded.run("delete", "rolebinding/manager")
    until(lambda: guarded.refuses(*patch), "and is gone", 30)


def grant_to_editor(guarded: Guarded, rule: Json) -> None:
    rbac = "rbac.authorization.k8s.io"
    metadata = {"name": "manager", "namespace": guarded.namespace}
    guarded.cluster.kubectl.apply(
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": [rule]},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "manager"},
            "subjects": [{"kind": "User", "name": EDITOR}],
        },
    )


def test_the_operator_itself_only_annotates_pods_and_deletes_gateways_only(guarded: Guarded) -> None:
    pods = {
        component: guarded.run("get", "pods", "-l", f"app.kubernetes.io/component={component}", "-o", "name").split()[
            -1
        ]
        for component in ("engine", "gateway")
    }
    user = guarded.account
    for pod in pods.values():
        guarded.run(
            "patch", pod, "--type=merge", "-p", '{"metadata": {"annotations": {"fairlead.dev/x": "y"}}}', user=user
        )
        label = '{"metadata": {"labels": {"a": "b"}}}'
        refused = guarded.refused("patch", pod, "--type=merge", "-p", label, user=user)
        assert "changes nothing of a pod but its annotations" in refused
        image = json.dumps([{"op": "replace", "path": "/spec/containers/0/image", "value": "example.com/other:1"}])
        assert "changes nothing of a pod" in guarded.refused("patch", pod, "--type=json", "-p", image, user=user)
    # An engine's pod is taken out of a route's Service, and nobody but a ReplicaSet puts one in.
    assert "only pods of" in guarded.refused("label", pods["engine"], "fairlead.dev/llmroute=guarded")
    guarded.run("label", pods["engine"], "fairlead.dev/llmroute=guarded")
    more = '{"metadata": {"labels": {"fairlead.dev/llmroute": null, "a": "b"}}}'
    assert "changes nothing of a pod" in guarded.refused("patch", pods["engine"], "--type=merge", "-p", more, user=user)
    less = '{"metadata": {"labels": {"fairlead.dev/llmroute": null}}}'
    guarded.run("patch", pods["engine"], "--type=merge", "-p", less, user=user)
    assert "deletes pods of gateways only" in guarded.refused("delete", pods["engine"], "--wait=false", user=user)
    guarded.run("delete", pods["gateway"], "--wait=false", user=user)


def test_deletion_of_the_resources_takes_the_children_along(guarded: Guarded) -> None:
    """Last: the garbage collector is not kept from anything."""
    guarded.run("delete", "llmroute/guarded", "llmdeployment/m", user=EDITOR)
    kinds = "configmap,secret,service,networkpolicy,deployment,replicaset"
    until(
        lambda: not guarded.run("get", kinds, "-l", "app.kubernetes.io/managed-by=fairlead", "-o", "name").split(),
        "nothing is left",
        90,
    )
