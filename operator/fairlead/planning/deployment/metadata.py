"""Metadata of children, and the question whose an object is (law 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.api.names import API_VERSION, LABEL_MANAGED_BY, LLMDEPLOYMENT, MANAGED_BY, make_engine_labels
from fairlead.api.resource import Metadata
from fairlead.facts.observed import ObjectKey

__all__ = ["describe_taken", "is_ours", "make_metadata"]


def make_metadata(owner: Metadata, name: str, annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Name, namespace, our labels, and the controller reference by which the garbage collector deletes the child. The CR's own
    labels and annotations are never copied: they would make Argo CD and Helm take the child for theirs."""
    metadata: dict[str, Any] = {"name": name, "namespace": owner.namespace, "labels": make_engine_labels(owner.name)}
    if annotations:
        metadata["annotations"] = dict(annotations)
    if owner.uid:  # a CR from a file has none; what is rendered offline then has no owner either
        metadata["ownerReferences"] = [
            {
                "apiVersion": API_VERSION,
                "kind": LLMDEPLOYMENT,
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


def describe_taken(key: ObjectKey, live: Mapping[str, Any]) -> str:
    """What status says of a child's name that an object of somebody else has, whoever found it out: whose it is, and the next step."""
    return (
        f"{key} exists and belongs to {_describe_owner(live)}, so it is left alone."
        " Next: rename this LLMDeployment, or remove the other object."
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
