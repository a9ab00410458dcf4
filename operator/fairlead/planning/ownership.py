"""Metadata of children of any kind of ours, and the question whose an object is (law 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fairlead.api.names import API_VERSION, LABEL_MANAGED_BY, MANAGED_BY, PRUNED_KINDS
from fairlead.api.resource import Metadata
from fairlead.facts.observed import ObjectKey, Observed
from fairlead.planning.plan import Child, Delete

__all__ = ["describe_taken", "find_deletes", "find_ours", "is_ours", "keep_ours", "make_owned_metadata"]


def make_owned_metadata(
    kind: str, owner: Metadata, name: str, labels: Mapping[str, str], annotations: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Name, namespace, our labels, and the controller reference by which the garbage collector deletes the child. The CR's own
    labels and annotations are never copied: they would make Argo CD and Helm take the child for theirs."""
    metadata: dict[str, Any] = {"name": name, "namespace": owner.namespace, "labels": dict(labels)}
    if annotations:
        metadata["annotations"] = dict(annotations)
    if owner.uid:  # a CR from a file has none; what is rendered offline then has no owner either
        metadata["ownerReferences"] = [
            {
                "apiVersion": API_VERSION,
                "kind": kind,
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
    return metadata


def is_ours(live: Mapping[str, Any], owner: Metadata) -> bool:
    """True when the object's controller is this very CR: by uid, since a name can come back as something else."""
    references = live.get("metadata", {}).get("ownerReferences") or []
    return any(bool(reference.get("controller")) and reference.get("uid") == owner.uid for reference in references)


def find_ours(observed: Observed, key: ObjectKey, owner: Metadata) -> Mapping[str, Any] | None:
    """The live child of that name, if it is this CR's."""
    live = observed.children.get(key)
    return live if live is not None and is_ours(live, owner) else None


def keep_ours(
    wanted: Sequence[Child], observed: Observed, owner: Metadata
) -> tuple[tuple[Child, ...], list[tuple[ObjectKey, Mapping[str, Any]]]]:
    """Children that may be written, and those whose name belongs to somebody else, with the object that has it."""
    children, taken = [], []
    for child in wanted:
        live = observed.children.get(child.key)
        if live is not None and not is_ours(live, owner):
            taken.append((child.key, live))
            continue
        children.append(child)
    return tuple(children), taken


def find_deletes(observed: Observed, planned: set[ObjectKey], owner: Metadata) -> tuple[Delete, ...]:
    """Objects of ours that the plan no longer holds, of the kinds that a plan may drop. (Another Service that names us as its
    controller was not made here, and goes with us.) A cache claim goes too when `spec.storage` no longer asks for it: what
    is on it can be downloaded again."""
    return tuple(
        Delete(
            key=key,
            uid=str(live["metadata"].get("uid", "")),
            resource_version=str(live["metadata"].get("resourceVersion", "")),
        )
        for key, live in sorted(observed.children.items())
        if key.kind in PRUNED_KINDS
        and key not in planned
        and is_ours(live, owner)
        and not live["metadata"].get("deletionTimestamp")
    )


def describe_taken(kind: str, key: ObjectKey, live: Mapping[str, Any]) -> str:
    """What status says of a child's name that an object of somebody else has, whoever found it out: whose it is, and the next step."""
    return (
        f"{key} exists and belongs to {_describe_owner(live)}, so it is left alone."
        f" Next: rename this {kind}, or remove the other object."
    )


def _describe_owner(live: Mapping[str, Any]) -> str:
    """Its controller, else what is known of who made it. The cache has no `managedFields`, so they come last: what else is
    known is told alike by who reads the cache and by who asked the API server."""
    metadata = live.get("metadata", {})
    for reference in metadata.get("ownerReferences") or []:
        if reference.get("controller"):
            return f"{reference.get('kind')}/{reference.get('name')}"
    manager = (metadata.get("labels") or {}).get(LABEL_MANAGED_BY)
    if manager and manager != MANAGED_BY:
        return f"somebody else (managed by {manager})"
    entries = metadata.get("managedFields") or []
    writers = sorted({str(entry.get("manager")) for entry in entries if entry.get("subresource") != "status"})
    return f"somebody else (written by {', '.join(writers)})" if writers else "somebody else (it has no controller)"
