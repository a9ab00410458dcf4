"""Least privilege of an operator that watches some namespaces only: a whole life with nothing but the chart's roles, judged scope by
scope by the audit log. (The operator of all namespaces is judged over the whole test run, see `tests/witness.py`.)"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.keda import AUTOSCALING as KEDA
from tests.cluster.keda import KIND, install
from tests.cluster.operator_world import World, make_cr, until
from tests.cluster.routelife import NOT_LIVED, live_a_route
from tests.witness import ONLY_ELSEWHERE, Right, granted_by, rights_of

from fairlead_cluster.audit import AuditMark
from fairlead_cluster.cluster import LocalCluster

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
FILES = Path(__file__).resolve().parents[2] / "charts/fairlead/files"
NAME = "scoped"
#: For operators under other accounts than the installed one, whose admission policies are in force in the whole cluster.
MANAGES = {"apiGroups": ["fairlead.dev"], "resources": ["children"], "verbs": ["manage"]}
PRUNED = ("persistentvolumeclaims", "poddisruptionbudgets", "networkpolicies", KIND)
CHILDREN = ("deployments", "services", "secrets", *PRUNED)


@dataclass
class Installation:
    """An operator with an account of its own that watches two namespaces from a third."""

    cluster: LocalCluster
    own: str
    watched: tuple[str, str]
    since: AuditMark

    @property
    def user(self) -> str:
        """Its name in the audit log."""
        return f"system:serviceaccount:{self.own}:{NAME}"

    def used_in(self, *namespaces: str) -> set[Right]:
        """The rights that it used in these."""
        records = self.cluster.audit.records(user=self.user, since=self.since)
        return rights_of(record for record in records if record.namespace in namespaces)


def rules_of(file: str) -> list[Json]:
    """The chart's rules, as a release named like our Lease has them."""
    text = (FILES / file).read_text().replace('{{ include "fairlead.fullname" . }}', "fairlead")
    rules: list[Json] = yaml.safe_load(text)
    return rules


def grant(cluster: LocalCluster, namespace: str, rules: list[Json], own: str, name: str) -> None:
    metadata = {"name": name, "namespace": namespace}
    rbac = "rbac.authorization.k8s.io"
    cluster.kubectl.apply(
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": [*rules, MANAGES]},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": own}],
        },
    )


def grant_nodes(cluster: LocalCluster, own: str) -> str:
    """The chart's right beside Roles. Returns the name of role and binding, which are in no namespace."""
    metadata = {"name": f"{own}-nodes"}
    rbac = "rbac.authorization.k8s.io"
    cluster.kubectl.apply(
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": rules_of("rbac-nodes.yaml")},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": metadata["name"]},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": own}],
        },
    )
    return metadata["name"]


@pytest.fixture
def installation(control_plane: LocalCluster, tmp_path: Path) -> Iterator[Installation]:
    cluster = control_plane
    with cluster.namespace("own") as own, cluster.namespace("watched") as first, cluster.namespace("watched") as second:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": own}}
        cluster.kubectl.apply(account)
        grant(cluster, own, rules_of("rbac-own-namespace.yaml"), own, "fairlead-own")
        for namespace in (first, second):
            grant(cluster, namespace, rules_of("rbac-watched.yaml"), own, "fairlead-watched")
        nodes = grant_nodes(cluster, own)
        install(cluster.kubectl)
        kubeconfig = cluster.control_plane.write_service_account_kubeconfig(own, NAME, tmp_path / "kubeconfig")
        mark = cluster.audit.mark()
        environment = {"KUBECONFIG": str(kubeconfig), "POD_NAMESPACE": own}
        options = [f"--watch-namespaces={first},{second}", "--prometheus-url=http://127.0.0.1:9"]
        cluster.start_operator(options, environment, name=NAME)
        cluster.wait_for_operator(NAME)
        try:
            yield Installation(cluster, own, (first, second), mark)
        finally:
            cluster.stop_operator(NAME)
            cluster.kubectl("delete", f"clusterrole/{nodes}", f"clusterrolebinding/{nodes}", f"crd/{KIND}")


def test_what_the_chart_grants_for_watched_namespaces_is_what_a_whole_life_needs(installation: Installation) -> None:
    cluster = installation.cluster
    worlds = [World(cluster, namespace) for namespace in installation.watched]
    storage = {"type": "PersistentVolumeClaim", "size": "1Gi"}
    for world in worlds:
        more = {"storage": storage, "pod": {"schedulerName": "frozen"}, "encryption": {}, "autoscaling": KEDA}
        world.apply(make_cr(world.namespace, "m", replicas=2, **more))
    for world in worlds:
        until(lambda world=world: all(world.names(kind) for kind in CHILDREN), "every kind of child")
        world.patch("service/m", '{"spec": {"selector": {"app": "mine"}}}')
        world.apply(make_cr(world.namespace, "m", engine={"type": "NoSuchEngine"}))
        until(
            lambda world=world: "EngineNotFound" in world.kubectl("get", "events", "-o=jsonpath={..reason}"), "an Event"
        )
        world.apply(make_cr(world.namespace, "m", replicas=1, networkPolicy={"mode": "Disabled"}))
        until(
            lambda world=world: not any(_alive(world, kind) for kind in PRUNED), "what is no longer asked for is gone"
        )
        live_a_route(cluster, world.namespace)
    cluster.stop_operator(NAME)
    records = cluster.audit.records(user=installation.user, since=installation.since)
    assert [str(record) for record in records if record.code == 403] == []
    places = {record.namespace for record in records if record.resource}
    assert places == {installation.own, *installation.watched, ""}
    of_cluster = granted_by(rules_of("rbac-nodes.yaml"))
    assert installation.used_in("") == of_cluster, "nothing else was asked of the whole cluster"
    watched = granted_by(rules_of("rbac-watched.yaml"))
    for namespace in installation.watched:
        assert installation.used_in(namespace) == watched - ONLY_ELSEWHERE - NOT_LIVED
    assert installation.used_in(installation.own) == granted_by(rules_of("rbac-own-namespace.yaml"))


def _alive(world: World, kind: str) -> list[str]:
    items = json.loads(world.kubectl("get", kind, "-o", "json"))["items"]
    return [one["metadata"]["name"] for one in items if "deletionTimestamp" not in one["metadata"]]
