"""Roles of the operator, from the one table in fairlead.kube.access: for the kustomize base and for the chart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import yaml

from fairlead.api.names import GROUP, LLMDEPLOYMENTS, LLMROUTES
from fairlead.kube.access import ACCESS, LEASE_NAME, Access, Scope, make_policy_rules
from hack.generate import GENERATED_NOTICE

NAME = "fairlead"
NAMESPACE = "fairlead-system"
LABELS = {
    "app.kubernetes.io/name": NAME,
    "app.kubernetes.io/instance": NAME,
    "app.kubernetes.io/component": "operator",
}
RBAC_GROUP = "rbac.authorization.k8s.io"
OWN_NAMESPACE = f"{NAME}-own-namespace"
NODES = f"{NAME}-nodes"
NOTICE = f"# {GENERATED_NOTICE} Source: operator/fairlead/kube/access.py\n"
#: The chart evaluates it with `tpl`.
CHART_LEASE_NAME = '{{ include "fairlead.fullname" . }}'
READ = ("get", "list", "watch")
WRITE = ("create", "update", "patch", "delete", "deletecollection")
#: What people with view, edit or admin in a namespace may do with the custom resources there: role, built-in roles that
#: take it up by aggregation, resources, verbs.
USER_ROLES = (
    (
        "view",
        ("view", "edit", "admin"),
        (LLMDEPLOYMENTS, f"{LLMDEPLOYMENTS}/status", LLMROUTES, f"{LLMROUTES}/status"),
        READ,
    ),
    ("edit", ("edit", "admin"), (LLMDEPLOYMENTS, LLMROUTES), WRITE),
    ("scale", ("edit", "admin"), (f"{LLMDEPLOYMENTS}/scale",), ("get", "update", "patch")),
)


def generate() -> dict[str, str]:
    """Roles and bindings of the kustomize base, and the rules that the chart's templates take in."""
    users = {
        role: {"aggregateTo": list(targets), "rules": make_user_rules(resources, verbs)}
        for role, targets, resources, verbs in USER_ROLES
    }
    return {
        "manifests/base/rbac.yaml": NOTICE + dump_all(make_cluster_objects()),
        "charts/fairlead/files/rbac-watched.yaml": dump(make_policy_rules(Scope.WATCHED)),
        "charts/fairlead/files/rbac-nodes.yaml": dump(make_policy_rules(Scope.CLUSTER)),
        "charts/fairlead/files/rbac-own-namespace.yaml": dump(make_policy_rules(Scope.OPERATOR, make_chart_access())),
        "charts/fairlead/files/rbac-users.yaml": NOTICE + dump(users),
    }


def make_chart_access() -> list[Access]:
    """The table with the Lease's name as a template: in a chart it follows the release's name."""
    return [
        replace(access, names=tuple(CHART_LEASE_NAME if name == LEASE_NAME else name for name in access.names))
        for access in ACCESS
    ]


def dump(value: Any) -> str:
    """YAML in the order of the code, without anchors."""
    return yaml.dump(value, Dumper=PlainDumper, sort_keys=False, width=120)


def dump_all(values: list[dict[str, Any]]) -> str:
    """YAML documents."""
    return yaml.dump_all(values, Dumper=PlainDumper, sort_keys=False, width=120)


class PlainDumper(yaml.SafeDumper):
    """No anchors and aliases: people read these files."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Always."""
        return True


def make_cluster_objects() -> list[dict[str, Any]]:
    """ClusterRole for the watched namespaces (all) and one for nodes, Role for the operator's own, their bindings, users' roles."""
    return [
        make_role("ClusterRole", NAME, None, Scope.WATCHED),
        make_binding("ClusterRole", NAME, None),
        make_role("ClusterRole", NODES, None, Scope.CLUSTER),
        make_binding("ClusterRole", NODES, None),
        make_role("Role", OWN_NAMESPACE, NAMESPACE, Scope.OPERATOR),
        make_binding("Role", OWN_NAMESPACE, NAMESPACE),
        *(make_user_role(*role) for role in USER_ROLES),
    ]


def make_user_role(
    role: str, targets: tuple[str, ...], resources: tuple[str, ...], verbs: tuple[str, ...]
) -> dict[str, Any]:
    """One row of USER_ROLES as a ClusterRole."""
    metadata = make_metadata(f"{NAME}-{role}", None)
    metadata["labels"] |= {f"{RBAC_GROUP}/aggregate-to-{target}": "true" for target in targets}
    return {
        "apiVersion": f"{RBAC_GROUP}/v1",
        "kind": "ClusterRole",
        "metadata": metadata,
        "rules": make_user_rules(resources, verbs),
    }


def make_user_rules(resources: tuple[str, ...], verbs: tuple[str, ...]) -> list[dict[str, list[str]]]:
    """The one rule of a user's role."""
    return [{"apiGroups": [GROUP], "resources": list(resources), "verbs": list(verbs)}]


def make_role(kind: str, name: str, namespace: str | None, scope: Scope) -> dict[str, Any]:
    """A Role, or without `namespace` a ClusterRole, with all rights of one scope."""
    return {
        "apiVersion": f"{RBAC_GROUP}/v1",
        "kind": kind,
        "metadata": make_metadata(name, namespace),
        "rules": make_policy_rules(scope),
    }


def make_binding(role_kind: str, name: str, namespace: str | None) -> dict[str, Any]:
    """Bind the role of that name to the operator's ServiceAccount, in a namespace or (None) everywhere."""
    return {
        "apiVersion": f"{RBAC_GROUP}/v1",
        "kind": "ClusterRoleBinding" if namespace is None else "RoleBinding",
        "metadata": make_metadata(name, namespace),
        "roleRef": {"apiGroup": RBAC_GROUP, "kind": role_kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}],
    }


def make_metadata(name: str, namespace: str | None) -> dict[str, Any]:
    """Name, labels and, if given, namespace."""
    return {"name": name, **({"namespace": namespace} if namespace else {}), "labels": dict(LABELS)}


def describe(access: Access) -> str:
    """One line of the RBAC table in docs/operations.md."""
    verbs = ", ".join(access.verbs)
    group = access.group or "core"
    named = f" named {', '.join(f'`{name}`' for name in access.names)}" if access.names else ""
    return f"| `{access.resource}` ({group}){named} | {verbs} | {access.scope.value} | {access.why} |"


def make_table() -> str:
    """The RBAC table in Markdown."""
    header = "| Resource | Verbs | Where | Why |\n| --- | --- | --- | --- |\n"
    return header + "".join(f"{describe(access)}\n" for access in ACCESS)
