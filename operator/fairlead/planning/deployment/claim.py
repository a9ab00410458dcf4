"""The PersistentVolumeClaim that keeps weights and compile caches.

What a claim once got it keeps: class and access modes cannot change, the size can only grow. A spec that asks for that is
not sent (it would be refused for ever); the live values stay and the CR says what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.api.llmdeployment import StorageType
from fairlead.api.names import ANNOTATION_STORAGE_CLASS, cache_claim_name
from fairlead.api.quantity import parse_live_quantity
from fairlead.errors import RenderError
from fairlead.hardware.quantity import canonical
from fairlead.planning.deployment.metadata import make_metadata
from fairlead.planning.deployment.serving import Serving

__all__ = ["find_immutable_changes", "has_claim", "make_claim"]


def has_claim(serving: Serving) -> bool:
    """True when fairlead makes the claim: a claim that the user names is the user's."""
    storage = serving.spec.storage
    return storage is not None and storage.type is StorageType.PERSISTENT_VOLUME_CLAIM and not storage.claim_name


def make_claim(serving: Serving, live: Mapping[str, Any] | None) -> dict[str, Any]:
    """`live` is our own claim as it exists, or None. Its immutable fields are kept whatever the spec says."""
    storage = serving.spec.storage
    if storage is None or storage.size is None:
        raise RenderError("spec.storage.size", "a new claim needs a size", "for instance 100Gi")
    modes = [str(mode) for mode in storage.access_modes] or ["ReadWriteOnce"]
    size, storage_class = canonical(storage.size), storage.storage_class_name
    annotations = {ANNOTATION_STORAGE_CLASS: storage_class} if storage_class else {}
    if live is not None:
        modes = list(live["spec"].get("accessModes") or modes)
        live_size = _size_of(live)
        if live_size and parse_live_quantity(live_size) > parse_live_quantity(size):
            size = live_size
        live_class = live["spec"].get("storageClassName")
        if live_class:
            # Dropping a field that we once sent would ask the server to clear it: the annotation says whether we did.
            recorded = (live["metadata"].get("annotations") or {}).get(ANNOTATION_STORAGE_CLASS)
            storage_class = live_class if storage_class or recorded else None
            annotations = {ANNOTATION_STORAGE_CLASS: recorded} if recorded else {}
    spec: dict[str, Any] = {"accessModes": modes, "resources": {"requests": {"storage": size}}}
    if storage_class:
        spec["storageClassName"] = storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": make_metadata(serving.resource.metadata, cache_claim_name(serving.name), annotations),
        "spec": spec,
    }


def find_immutable_changes(serving: Serving, live: Mapping[str, Any]) -> list[str]:
    """One sentence per field of `spec.storage` that a live claim can no longer follow: field, live value, next step."""
    storage = serving.spec.storage
    if storage is None:
        return []
    step = f"set it back, or delete PersistentVolumeClaim {cache_claim_name(serving.name)} and its pods to start with an empty one"
    live_class, live_modes, live_size = (
        live["spec"].get("storageClassName"),
        live["spec"].get("accessModes"),
        _size_of(live),
    )
    changes = []
    if storage.storage_class_name and live_class and storage.storage_class_name != live_class:
        changes.append(
            f"spec.storage.storageClassName cannot change from {live_class} to {storage.storage_class_name}: {step}"
        )
    wanted_modes = [str(mode) for mode in storage.access_modes] or ["ReadWriteOnce"]
    if live_modes and sorted(wanted_modes) != sorted(live_modes):
        changes.append(
            f"spec.storage.accessModes cannot change from {', '.join(live_modes)} to {', '.join(wanted_modes)}: {step}"
        )
    if storage.size and live_size and parse_live_quantity(storage.size) < parse_live_quantity(live_size):
        changes.append(f"spec.storage.size cannot shrink from {live_size} to {canonical(storage.size)}: {step}")
    return changes


def _size_of(live: Mapping[str, Any]) -> str | None:
    size = ((live["spec"].get("resources") or {}).get("requests") or {}).get("storage")
    return str(size) if size else None
