"""The operator's rights: what manifests/base grants is what the operator needs, and not a bit more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead.api import names
from fairlead.kube import access
from fairlead.kube.access import ACCESS, Scope, make_policy_rules
from fairlead.kube.resources import CHILD_RESOURCES, ROUTE_CHILD_RESOURCES

ACCOUNT = {"kind": "ServiceAccount", "name": "fairlead", "namespace": "fairlead-system"}
EVERYWHERE = "some-namespace"
OWN = "fairlead-system"

# (verb, group, resource, namespace, name): what the operator does, and next to it what nobody should be able to do as it.
ALLOWED = [
    ("list", "fairlead.dev", "llmdeployments", EVERYWHERE, ""),
    ("watch", "fairlead.dev", "llmdeployments", EVERYWHERE, ""),
    ("patch", "fairlead.dev", "llmdeployments/status", EVERYWHERE, "m"),
    ("create", "apps", "deployments", EVERYWHERE, "m"),
    ("patch", "apps", "deployments", EVERYWHERE, "m"),
    ("delete", "", "persistentvolumeclaims", EVERYWHERE, "m"),
    ("patch", "", "persistentvolumeclaims", EVERYWHERE, "m"),
    ("watch", "policy", "poddisruptionbudgets", EVERYWHERE, ""),
    ("create", "networking.k8s.io", "networkpolicies", EVERYWHERE, "m"),
    ("watch", "", "pods", EVERYWHERE, ""),
    ("patch", "", "pods", EVERYWHERE, "assistants-gateway-0"),
    ("patch", "fairlead.dev", "llmroutes/status", EVERYWHERE, "m"),
    ("patch", "", "configmaps", EVERYWHERE, "assistants-gateway-routes"),
    ("watch", "", "secrets", EVERYWHERE, ""),
    ("patch", "", "secrets", EVERYWHERE, "assistants-gateway-clients"),
    ("create", "events.k8s.io", "events", EVERYWHERE, ""),
    ("list", "", "nodes", "", ""),
    ("watch", "", "nodes", "", ""),
    ("watch", "", "configmaps", OWN, ""),
    ("create", "coordination.k8s.io", "leases", OWN, ""),
    ("delete", "", "pods", EVERYWHERE, "m"),
    ("update", "coordination.k8s.io", "leases", OWN, "fairlead"),
]
DENIED = [
    ("patch", "fairlead.dev", "llmdeployments", EVERYWHERE, "m"),
    ("update", "fairlead.dev", "llmdeployments", EVERYWHERE, "m"),
    ("delete", "fairlead.dev", "llmdeployments", EVERYWHERE, "m"),
    ("patch", "fairlead.dev", "llmroutes", EVERYWHERE, "m"),
    ("delete", "fairlead.dev", "llmroutes", EVERYWHERE, "m"),
    ("get", "", "secrets", EVERYWHERE, "hf-token"),
    ("delete", "", "secrets", EVERYWHERE, "hf-token"),
    ("update", "", "secrets", EVERYWHERE, "hf-token"),
    ("delete", "", "configmaps", EVERYWHERE, "m"),
    ("patch", "", "pods/status", EVERYWHERE, "m"),
    ("create", "", "pods", EVERYWHERE, "m"),
    ("deletecollection", "", "pods", EVERYWHERE, ""),
    ("create", "", "pods/eviction", EVERYWHERE, "m"),
    ("create", "", "pods/exec", EVERYWHERE, "m"),
    ("get", "", "pods/log", EVERYWHERE, "m"),
    ("create", "", "serviceaccounts/token", EVERYWHERE, "m"),
    ("update", "coordination.k8s.io", "leases", OWN, "kube-scheduler"),
    ("get", "", "secrets", OWN, "fairlead-ca"),
    ("delete", "", "secrets", OWN, "fairlead-ca"),
    ("delete", "", "secrets", EVERYWHERE, "m-pods-tls"),
    ("create", "coordination.k8s.io", "leases", EVERYWHERE, ""),
    ("delete", "coordination.k8s.io", "leases", OWN, "fairlead"),
    ("delete", "apps", "deployments", EVERYWHERE, "m"),
    ("delete", "", "services", EVERYWHERE, "m"),
    ("deletecollection", "apps", "deployments", EVERYWHERE, ""),
    ("get", "", "nodes", "", "a"),
    ("patch", "", "nodes", "", "a"),
    ("patch", "", "nodes/status", "", "a"),
    ("list", "", "namespaces", "", ""),
    ("list", "apiextensions.k8s.io", "customresourcedefinitions", "", ""),
    ("bind", "rbac.authorization.k8s.io", "clusterroles", "", "cluster-admin"),
]


@pytest.fixture(scope="module")
def objects(root: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((root / "manifests/base/rbac.yaml").read_text()))


def is_granted(objects: list[dict[str, Any]], verb: str, group: str, resource: str, namespace: str, name: str) -> bool:
    """RBAC as the API server evaluates it, for the operator's account."""
    for binding in objects:
        if not binding["kind"].endswith("Binding") or ACCOUNT not in binding["subjects"]:
            continue
        if binding["kind"] == "RoleBinding" and binding["metadata"]["namespace"] != namespace:
            continue
        role = next(
            one
            for one in objects
            if one["kind"] == binding["roleRef"]["kind"] and one["metadata"]["name"] == binding["roleRef"]["name"]
        )
        for rule in role["rules"]:
            names = rule.get("resourceNames")
            if (
                group in rule["apiGroups"]
                and resource in rule["resources"]
                and verb in rule["verbs"]
                and (not names or name in names)
            ):
                return True
    return False


@pytest.mark.parametrize("request_", ALLOWED, ids=" ".join)
def test_allowed(objects: list[dict[str, Any]], request_: tuple[str, str, str, str, str]) -> None:
    assert is_granted(objects, *request_)


@pytest.mark.parametrize("request_", DENIED, ids=" ".join)
def test_denied(objects: list[dict[str, Any]], request_: tuple[str, str, str, str, str]) -> None:
    assert not is_granted(objects, *request_)


def all_rules(root: Path) -> list[dict[str, Any]]:
    """Rules of all roles that are shipped, in manifests and chart, the users' roles too."""
    rules = [
        rule
        for document in yaml.safe_load_all((root / "manifests/base/rbac.yaml").read_text())
        for rule in document.get("rules", ())
    ]
    chart = root / "charts/fairlead/files"
    rules += yaml.safe_load((chart / "rbac-watched.yaml").read_text())
    rules += yaml.safe_load((chart / "rbac-own-namespace.yaml").read_text())
    rules += yaml.safe_load((chart / "rbac-nodes.yaml").read_text())
    rules += [
        rule for role in yaml.safe_load((chart / "rbac-users.yaml").read_text()).values() for rule in role["rules"]
    ]
    return rules


def test_no_role_has_a_wildcard(root: Path) -> None:
    for rule in all_rules(root):
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], rule
        # The clients of gateways need them; RBAC cannot say which.
        is_about_secrets = any(resource.startswith("secrets") for resource in rule["resources"])
        assert not is_about_secrets or set(rule["verbs"]) <= {"list", "watch", "create", "patch"}, rule
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"]), rule


def test_no_right_is_listed_twice() -> None:
    rights = [(a.group, a.resource, verb, a.scope) for a in ACCESS for verb in a.verbs]
    assert len(rights) == len(set(rights))


def test_every_right_says_why() -> None:
    assert all(len(entry.why) >= 10 for entry in ACCESS)


def test_every_child_kind_can_be_applied_and_watched_and_pruned_where_a_spec_can_drop_it() -> None:
    for child in {*CHILD_RESOURCES, *ROUTE_CHILD_RESOURCES}:
        verbs = {v for a in ACCESS if (a.group, a.resource) == (child.group, child.plural) for v in a.verbs}
        assert verbs - {"delete"} == {"list", "watch", "create", "patch"}, child
        assert ("delete" in verbs) == (child.kind in names.PRUNED_KINDS), child


def test_merging_keeps_every_right_and_adds_none() -> None:
    for scope in Scope:
        merged = {
            (group, resource, verb, tuple(rule.get("resourceNames", ())))
            for rule in make_policy_rules(scope)
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }
        wanted = {(a.group, a.resource, verb, a.names) for a in ACCESS if a.scope is scope for verb in a.verbs}
        assert merged == wanted


def test_names_never_limit_verbs_that_cannot_be_limited() -> None:
    # RBAC never grants create by a rule with names (create has no name yet), so such a rule would be void. It grants list and watch
    # where the request asks for one name by a field selector: that is so for the certificate authority.
    named = [(entry.resource, verb) for entry in access.ACCESS if entry.names for verb in entry.verbs]
    assert ("secrets", "create") not in named
    assert {one for one in named if one[1] in ("create", "list", "watch")} == {
        ("secrets", "list"),
        ("secrets", "watch"),
    }
