"""What is shipped, on the real API server: installed by kustomize and by Helm, with just the rights that the operator needs."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hack.tools import build
from tests.cluster.keda import AUTOSCALING, KIND, install
from tests.cluster.routelife import NOT_LIVED, live_a_route
from tests.witness import ONLY_ELSEWHERE

from fairlead.kube.access import ACCESS, Access, Scope
from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.errors import CommandFailedError
from fairlead_cluster.kubectl import Kubectl

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
OPERATOR = "system:serviceaccount:fairlead-system:fairlead"
FORBIDDEN = (
    ("get", "", "secrets"),
    ("delete", "", "secrets"),
    ("create", "", "pods"),
    ("deletecollection", "", "pods"),
    ("create", "", "pods/eviction"),
    ("create", "", "pods/exec"),
    ("get", "", "pods/log"),
    ("create", "", "serviceaccounts/token"),
    ("update", "fairlead.dev", "llmdeployments"),
    ("patch", "fairlead.dev", "llmdeployments"),
    ("delete", "fairlead.dev", "llmdeployments"),
    ("patch", "fairlead.dev", "llmroutes"),
    ("delete", "fairlead.dev", "llmroutes"),
    ("deletecollection", "apps", "deployments"),
    ("create", "rbac.authorization.k8s.io", "clusterrolebindings"),
    ("get", "", "nodes"),
    ("patch", "", "nodes"),
    ("patch", "", "nodes/status"),
    ("list", "", "namespaces"),
    ("list", "apiextensions.k8s.io", "customresourcedefinitions"),
)


@pytest.fixture(scope="module")
def helm() -> Path:
    """The real Helm; built in CI, elsewhere skipped where it was never built."""
    found = build.find() or (build.find_or_build(print) if os.environ.get("CI") else None)
    if found is None:
        pytest.skip("helm is not in the cache: `python -m hack.tools` builds it once")
    return found.helm


def can(kubectl: Kubectl, user: str, verb: str, group: str, resource: str, namespace: str, name: str = "") -> bool:
    """Whether RBAC lets `user` do this, by a SubjectAccessReview, which is what the API server itself asks."""
    plain, _, subresource = resource.partition("/")
    attributes = {"verb": verb, "group": group, "resource": plain, "namespace": namespace, "name": name}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": user,
            "resourceAttributes": attributes | ({"subresource": subresource} if subresource else {}),
        },
    }
    answer = json.loads(kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(review)))
    return bool(answer["status"]["allowed"])


def operator_may(kubectl: Kubectl, access: Access, verb: str, namespace: str, user: str = OPERATOR) -> bool:
    """One verb of one row of the table."""
    return can(kubectl, user, verb, access.group, access.resource, namespace, *access.names)


def where_of(access: Access, own: str, watched: str) -> str:
    """The namespace in which a right holds, "" for what is in none."""
    return {Scope.OPERATOR: own, Scope.WATCHED: watched, Scope.CLUSTER: ""}[access.scope]


@pytest.mark.parametrize("access", ACCESS, ids=lambda a: f"{'+'.join(a.verbs)} {a.resource}")
def test_the_operator_may_do_what_the_table_says(control_plane: LocalCluster, namespace: str, access: Access) -> None:
    where = where_of(access, "fairlead-system", namespace)
    for verb in access.verbs:
        assert operator_may(control_plane.kubectl, access, verb, where)


@pytest.mark.parametrize(("verb", "group", "resource"), FORBIDDEN)
def test_the_operator_may_do_no_more(
    control_plane: LocalCluster, namespace: str, verb: str, group: str, resource: str
) -> None:
    for where in (namespace, "fairlead-system", ""):
        assert not can(control_plane.kubectl, OPERATOR, verb, group, resource, where)


def test_rights_of_the_operators_namespace_end_there(control_plane: LocalCluster, namespace: str) -> None:
    everywhere = {(a.group, a.resource, verb) for a in ACCESS if a.scope is Scope.WATCHED for verb in a.verbs}
    for access in ACCESS:
        if access.scope is Scope.OPERATOR:
            own = [verb for verb in access.verbs if (access.group, access.resource, verb) not in everywhere]
            assert not any(operator_may(control_plane.kubectl, access, verb, namespace) for verb in own)


def test_only_its_own_lease(control_plane: LocalCluster) -> None:
    lease = ("coordination.k8s.io", "leases", "fairlead-system")
    assert can(control_plane.kubectl, OPERATOR, "update", *lease, "fairlead")
    assert not can(control_plane.kubectl, OPERATOR, "update", *lease, "somebody-elses")


def test_a_server_side_apply_needs_create_as_well_as_patch(control_plane: LocalCluster, namespace: str) -> None:
    """Why the table has `create`: with patch alone an object that is not there yet cannot be applied."""
    kubectl, user = control_plane.kubectl, f"system:serviceaccount:{namespace}:default"
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "patcher", "namespace": namespace},
        "rules": [{"apiGroups": [""], "resources": ["services"], "verbs": ["patch", "get"]}],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "patcher", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "patcher"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s", "namespace": namespace},
        "spec": {"ports": [{"port": 80, "protocol": "TCP"}]},
    }
    apply = ("apply", "--server-side", "-f", "-", f"--as={user}")
    kubectl.apply(role, binding)
    with pytest.raises(CommandFailedError, match=r"(?s)cannot create|forbidden"):
        kubectl(*apply, stdin=json.dumps(service))
    role["rules"][0]["verbs"].append("create")  # type: ignore[index]
    kubectl.apply(role)
    kubectl(*apply, stdin=json.dumps(service))


@pytest.mark.parametrize(
    ("role", "allowed", "denied"),
    [
        ("view", [("get", "llmdeployments"), ("list", "llmdeployments")], [("create", "llmdeployments")]),
        (
            "edit",
            [("create", "llmdeployments"), ("update", "llmdeployments/scale")],
            [("patch", "llmdeployments/status")],
        ),
        ("admin", [("delete", "llmdeployments")], [("patch", "llmdeployments/status")]),
    ],
)
def test_users_get_rights_by_the_built_in_roles(
    control_plane: LocalCluster,
    namespace: str,
    role: str,
    allowed: list[tuple[str, str]],
    denied: list[tuple[str, str]],
) -> None:
    user = f"somebody-who-may-{role}"
    control_plane.kubectl("-n", namespace, "create", "rolebinding", user, f"--clusterrole={role}", f"--user={user}")

    def may(verb: str, resource: str) -> bool:
        return can(control_plane.kubectl, user, verb, "fairlead.dev", resource, namespace)

    assert all(may(*right) for right in allowed)
    assert not any(may(*right) for right in denied)


def test_the_operator_uses_every_right_that_it_has_and_misses_none(control_plane: LocalCluster, namespace: str) -> None:
    """A life of one LLMDeployment with everything, judged by the audit log: what was asked is what the table grants."""
    kubectl, audit = control_plane.kubectl, control_plane.audit
    # Another test's operator may have made the Lease; this one must be seen making it.
    kubectl("-n", "fairlead-system", "delete", "lease", "fairlead", "--ignore-not-found")
    mark = audit.mark()
    name = "rights"
    install(kubectl)
    control_plane.start_operator(["--metrics-port=0", "--prometheus-url=http://127.0.0.1:9"], name=name)
    try:
        storage = {"type": "PersistentVolumeClaim", "size": "1Gi"}
        kubectl.apply(make_model(namespace, replicas=2, storage=storage, autoscaling=AUTOSCALING))
        wait_for(lambda: children_of(kubectl, namespace) == {"deploy": 1, "svc": 2, "pvc": 1, "pdb": 1, "netpol": 1})
        wait_for(lambda: kubectl("-n", namespace, "get", KIND, "-o=name").strip())
        # A status event to tell of: something that a person must act on.
        kubectl.apply(make_model(namespace, engine={"type": "NoSuchEngine"}))
        wait_for(lambda: "EngineNotFound" in kubectl("-n", namespace, "get", "events", "-o=jsonpath={..reason}"))
        kubectl.apply(make_model(namespace, replicas=1, networkPolicy={"mode": "Disabled"}))
        wait_for(lambda: children_of(kubectl, namespace) == {"deploy": 1, "svc": 2, "pvc": 0, "pdb": 0, "netpol": 0})
        wait_for(lambda: not kubectl("-n", namespace, "get", KIND, "-o=name").strip())
        live_a_route(control_plane, namespace)
    finally:
        control_plane.stop_operator(name)
        kubectl.run("delete", "crd", KIND, "--ignore-not-found")
    records = audit.records(user=OPERATOR, since=mark)
    assert [str(record) for record in records if record.code == 403] == []
    used = {(record.verb, record.group, record.resource) for record in records if record.resource}
    # A patch that makes an object was asked for both rights.
    used |= {
        ("create", record.group, record.resource) for record in records if (record.verb, record.code) == ("patch", 201)
    }
    granted = {(verb, one.group, one.resource) for one in ACCESS for verb in one.verbs}
    assert used - granted == set()
    assert granted - used - ONLY_ELSEWHERE - NOT_LIVED == set()


def make_model(namespace: str, **spec: Any) -> Json:
    """An LLMDeployment `m` for `kubectl apply`."""
    return {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": "m", "namespace": namespace},
        "spec": {"model": {"source": "hf://org/model-8b"}, "engine": {"type": "vLLM"}} | spec,
    }


def children_of(kubectl: Kubectl, namespace: str) -> dict[str, int]:
    """How many objects of each kind of child there are, those that are on their way out left aside."""
    counts = {}
    for kind in ("deploy", "svc", "pvc", "pdb", "netpol"):
        items = kubectl.json("-n", namespace, "get", kind)["items"]
        counts[kind] = len([one for one in items if "deletionTimestamp" not in one["metadata"]])
    return counts


def wait_for(holds: Callable[[], bool], timeout_s: float = 40.0) -> None:
    """Until it holds; fails the test when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.2)


# --- kustomize


@pytest.fixture(scope="module")
def installed(control_plane: LocalCluster) -> Iterator[Kubectl]:
    """`kubectl apply -k manifests`, as a user does it; the Deployment goes again, so that other tests have no second operator."""
    control_plane.kubectl("apply", "-k", str(ROOT / "manifests"))
    yield control_plane.kubectl
    control_plane.kubectl("-n", "fairlead-system", "delete", "deployment,poddisruptionbudget", "fairlead")


def test_kustomize_installs_and_a_second_apply_changes_nothing(installed: Kubectl) -> None:
    # By resourceVersion, since kubectl says "configured" of a PodDisruptionBudget whatever happened: its selector is always sent.
    def versions() -> dict[str, str]:
        names = [path for path in (ROOT / "manifests/base").glob("*.yaml") if path.name != "kustomization.yaml"]
        files = [argument for path in names for argument in ("-f", str(path))]
        items = installed.json("get", *files)["items"]
        return {f"{one['kind']}/{one['metadata']['name']}": generation_of(one) for one in items}

    before = versions()
    installed("apply", "-k", str(ROOT / "manifests"))
    assert versions() == before
    assert len(before) >= 12


def generation_of(live: Json) -> str:
    """What changes with the spec only: the Deployment's own status moves meanwhile."""
    return str(live["metadata"].get("generation") or live["metadata"]["resourceVersion"])


def test_pods_of_the_operator_are_admitted_by_pod_security_restricted(installed: Kubectl) -> None:
    installed(
        "-n", "fairlead-system", "wait", "deployment/fairlead", "--for=jsonpath={.status.replicas}=2", "--timeout=30s"
    )
    deployment = installed.json("-n", "fairlead-system", "get", "deployment", "fairlead")
    failures = [one for one in deployment["status"]["conditions"] if one["type"] == "ReplicaFailure"]
    assert failures == []


def test_samples_are_accepted_as_they_are(installed: Kubectl, namespace: str) -> None:
    installed("-n", namespace, "apply", "-k", str(ROOT / "manifests/samples"))
    names = installed("-n", namespace, "get", "llmdep", "-o", "name").split()
    assert len(names) == 3
    again = installed("-n", namespace, "apply", "-k", str(ROOT / "manifests/samples"))
    assert again.count(" unchanged") == 3
    assert installed.json("-n", namespace, "get", "llmdep")["items"][0]["status"] == {"observedGeneration": -1}


def test_a_typo_in_a_sample_is_refused(installed: Kubectl, namespace: str) -> None:
    sample = yaml.safe_load((ROOT / "manifests/samples/llama-1b.yaml").read_text())
    sample["spec"]["replica"] = 3
    with pytest.raises(CommandFailedError, match="unknown field"):
        installed("-n", namespace, "create", "--validate=strict", "-f", "-", stdin=json.dumps(sample))


# --- Helm


class Release:
    """A Helm release of the chart in a namespace of its own."""

    def __init__(self, helm: Path, cluster: LocalCluster, namespace: str, home: Path) -> None:
        self.namespace = namespace
        self._helm = helm
        self._chart = str(ROOT / "charts/fairlead")
        self._environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "KUBECONFIG": str(cluster.admin_kubeconfig)}

    def __call__(self, *arguments: str) -> str:
        """helm in this namespace; fails with its words."""
        command = [str(self._helm), *arguments, "--namespace", self.namespace]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=self._environment, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def install(self, **values: Any) -> str:
        """Install or upgrade release `second` (the CRDs are there already, made by somebody else)."""
        values = {"crds": {"enabled": False}, "rbac": {"aggregateClusterRoles": False}} | values
        assignments = [f"--set-json={key}={json.dumps(value)}" for key, value in values.items()]
        return self("upgrade", "--install", "second", self._chart, *assignments)

    @property
    def user(self) -> str:
        """The ServiceAccount of the release."""
        return f"system:serviceaccount:{self.namespace}:second-fairlead"


@pytest.fixture
def release(helm: Path, control_plane: LocalCluster, tmp_path: Path) -> Iterator[Release]:
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    with control_plane.namespace("helm", restricted) as namespace:
        release = Release(helm, control_plane, namespace, tmp_path)
        yield release
        release("uninstall", "second", "--ignore-not-found")


def test_helm_installs_upgrades_and_uninstalls(release: Release, control_plane: LocalCluster) -> None:
    kubectl = control_plane.kubectl
    assert "all namespaces" in release.install()
    release.install(replicas=3)
    deployment = kubectl.json("-n", release.namespace, "get", "deployment", "second-fairlead")
    assert deployment["spec"]["replicas"] == 3
    release("uninstall", "second")
    left = kubectl("-n", release.namespace, "get", "deployment,service,sa,role,rolebinding,pdb,netpol", "-o", "name")
    assert "second" not in left
    assert "second" not in kubectl("get", "clusterrole,clusterrolebinding", "-o", "name")


def test_helm_release_has_the_rights_of_the_table(
    release: Release, control_plane: LocalCluster, namespace: str
) -> None:
    release.install()
    for access in ACCESS:
        if access.names:
            continue
        where = where_of(access, release.namespace, namespace)
        assert all(operator_may(control_plane.kubectl, access, verb, where, release.user) for verb in access.verbs), (
            access
        )
    lease = ("update", "coordination.k8s.io", "leases", release.namespace)
    assert can(control_plane.kubectl, release.user, *lease, "second-fairlead")
    assert not can(control_plane.kubectl, release.user, *lease, "fairlead")


def test_watched_namespaces_and_no_others(release: Release, control_plane: LocalCluster, namespace: str) -> None:
    release.install(watchNamespaces=[namespace], nodes="Ignored")
    kubectl, right = control_plane.kubectl, ("patch", "apps", "deployments")
    assert can(kubectl, release.user, *right, namespace)
    assert not can(kubectl, release.user, *right, release.namespace)
    assert not can(kubectl, release.user, *right, "default")
    assert not can(kubectl, release.user, "list", "fairlead.dev", "llmdeployments", "")
    assert "second" not in kubectl("get", "clusterrole,clusterrolebinding", "-o", "name")


def test_helm_pods_are_admitted_by_pod_security_restricted(release: Release, control_plane: LocalCluster) -> None:
    release.install()
    control_plane.kubectl(
        "-n",
        release.namespace,
        "wait",
        "deployment/second-fairlead",
        "--for=jsonpath={.status.replicas}=2",
        "--timeout=30s",
    )


@pytest.fixture
def empty_cluster(control_plane: LocalCluster, tmp_path: Path) -> Iterator[LocalCluster]:
    """A control plane that has never heard of fairlead."""
    binaries = control_plane.control_plane.binaries
    with LocalCluster(tmp_path / "empty", nodes=(), binaries=binaries, install=False) as running:
        yield running


@pytest.mark.long
def test_helm_brings_the_crds_and_leaves_them_behind(helm: Path, empty_cluster: LocalCluster, tmp_path: Path) -> None:
    release = Release(helm, empty_cluster, "fairlead", tmp_path)
    release("install", "second", str(ROOT / "charts/fairlead"), "--create-namespace")
    kubectl = empty_cluster.kubectl
    kubectl("wait", "--for=condition=Established", "crd/llmdeployments.fairlead.dev", "--timeout=30s")
    kubectl("apply", "-k", str(ROOT / "manifests/samples"))
    release("uninstall", "second")
    assert len(kubectl("get", "llmdep", "-o", "name").split()) == 3, "models outlive the operator's release"
