"""What fairlead asks of the API server: the one statement from which the roles in manifests/ and charts/ are generated.

A right that is not listed here is not granted, and one that is listed has a reason beside it. There is no wildcard.

Secrets: RBAC cannot limit a right to labels or to metadata. What fairlead asks for is the metadata of Secrets that are labelled for
its use, its own ones, and by name the one that holds a route's clients and its own certificate authority. Pods get all others by reference.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fairlead.api.names import AUTHORITY_SECRET, PRUNED_KINDS
from fairlead.kube.resources import (
    CHILD_RESOURCES,
    CONFIG_MAP,
    EVENT,
    HORIZONTAL_POD_AUTOSCALER,
    LEASE,
    LLMDEPLOYMENT,
    LLMROUTE,
    NODE,
    POD,
    SECRET,
    Resource,
)

#: Name of the Lease by which replicas elect their leader; also the only Lease that the role allows to change.
LEASE_NAME: Final = "fairlead"


class Scope(StrEnum):
    """Where a right holds."""

    WATCHED = "watched namespaces"  # all namespaces of the cluster unless the installation names some
    OPERATOR = "the operator's namespace"
    CLUSTER = "the cluster"  # for what is in no namespace


@dataclass(frozen=True, slots=True)
class Access:
    """Verbs on one resource. `resource` is the plural as RBAC spells it, with a subresource behind a slash.

    `names` limits the rule to objects of these names: not possible for create, and for list and watch only where the request itself asks
    for one name.
    """

    group: str
    resource: str
    verbs: tuple[str, ...]
    scope: Scope
    why: str
    names: tuple[str, ...] = ()


def _access(
    resource: Resource, verbs: str, scope: Scope, why: str, *, subresource: str = "", names: tuple[str, ...] = ()
) -> Access:
    plural = f"{resource.plural}/{subresource}" if subresource else resource.plural
    return Access(resource.group, plural, tuple(verbs.split()), scope, why, names)


def _pruned(child: Resource) -> str:
    return ", deleted when the spec no longer asks for them" if child.kind in PRUNED_KINDS else ""


ACCESS: Final[tuple[Access, ...]] = (
    _access(LLMDEPLOYMENT, "list watch", Scope.WATCHED, "what users ask for; never written except for its status"),
    _access(LLMDEPLOYMENT, "patch", Scope.WATCHED, "status, by server-side apply", subresource="status"),
    _access(
        LLMDEPLOYMENT,
        "update",
        Scope.WATCHED,
        "owner references that block deletion, where OwnerReferencesPermissionEnforcement is on (OpenShift)",
        subresource="finalizers",
    ),
    _access(LLMROUTE, "list watch", Scope.WATCHED, "what users ask for; never written except for its status"),
    _access(LLMROUTE, "patch", Scope.WATCHED, "status, by server-side apply", subresource="status"),
    _access(
        LLMROUTE,
        "update",
        Scope.WATCHED,
        "owner references that block deletion, where OwnerReferencesPermissionEnforcement is on (OpenShift)",
        subresource="finalizers",
    ),
    _access(CONFIG_MAP, "list watch create patch", Scope.WATCHED, "children: the routing of gateways"),
    _access(
        SECRET,
        "list watch create patch",
        Scope.WATCHED,
        "children: who is let in by a gateway, and certificates that are issued; metadata of those labelled for fairlead's use, and the"
        " one with a route's clients",
    ),
    *(
        _access(
            child,
            "list watch create patch" + (" delete" if child.kind in PRUNED_KINDS else ""),
            Scope.WATCHED,
            f"children: cached, applied (a server-side apply that makes an object needs create too){_pruned(child)}",
        )
        for child in CHILD_RESOURCES
        if child is not SECRET
    ),
    _access(POD, "list watch", Scope.WATCHED, "why a model is not serving yet: scheduling, image pulls, crashes"),
    _access(
        POD,
        "patch",
        Scope.WATCHED,
        "an annotation on gateways' pods, so that changed routing reaches them at once; on engines' pods what they have to do, before there"
        " are fewer; a label of engines' pods whose gateway does not take it",
    ),
    _access(
        POD,
        "delete",
        Scope.WATCHED,
        "gateways' pods that go on doing what a route no longer permits, half a minute later",
    ),
    _access(
        HORIZONTAL_POD_AUTOSCALER,
        "list watch",
        Scope.WATCHED,
        "other autoscalers of a model, KEDA's too, to which its number of replicas is left",
    ),
    _access(EVENT, "create", Scope.WATCHED, "one Event per transition"),
    _access(
        NODE,
        "list watch",
        Scope.CLUSTER,
        "how many accelerators there are, and which nodes may be taken back; done without where it is not granted",
    ),
    _access(CONFIG_MAP, "list watch", Scope.OPERATOR, "engine definitions that add to or replace the built-in ones"),
    _access(
        SECRET,
        "list watch patch",
        Scope.OPERATOR,
        "the certificate authority by which engine pods get theirs, asked for by its name",
        names=(AUTHORITY_SECRET,),
    ),
    _access(SECRET, "create", Scope.OPERATOR, "the same; RBAC cannot limit create by name"),
    _access(LEASE, "create", Scope.OPERATOR, "leader election; RBAC cannot limit create by name"),
    _access(LEASE, "get update", Scope.OPERATOR, "leader election", names=(LEASE_NAME,)),
)


def make_policy_rules(scope: Scope, access: Iterable[Access] = ACCESS) -> list[dict[str, list[str]]]:
    """`rules` of a Role or ClusterRole for one scope; rights of equal group, verbs and names share a rule."""
    merged: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for entry in access:
        if entry.scope is scope:
            merged.setdefault((entry.group, entry.verbs, entry.names), []).append(entry.resource)
    return [
        {
            "apiGroups": [group],
            "resources": resources,
            **({"resourceNames": list(names)} if names else {}),
            "verbs": list(verbs),
        }
        for (group, verbs, names), resources in merged.items()
    ]
