"""Persistent volumes: the provisioner of the default StorageClass, and how a pod's claims become directories.

A volume is a directory on this host, so every node could reach it. What a claim's access mode forbids on real storage
is therefore refused here by hand: a ReadWriteOnce volume that pods of another node still use is not attached.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from fairlead_cluster.api import (
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
    Api,
    ApiError,
    Store,
)
from fairlead_cluster.node.events import EventRecorder

Json = dict[str, Any]

PROVISIONER = "fairlead.dev/local"
DEFAULT_CLASS = "standard"

_log = logging.getLogger(__name__)
_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
_SELECTED_NODE = "volume.kubernetes.io/selected-node"
_SHARED_MODES = frozenset({"ReadWriteMany", "ReadOnlyMany"})


class MountError(Exception):
    """A volume cannot be used now; `reason` is that of the event a kubelet would write."""

    def __init__(self, message: str, reason: str = "FailedMount") -> None:
        super().__init__(message)
        self.reason = reason


class Provisioner:
    """Makes a PersistentVolume with a directory for each claim of our StorageClasses, and removes both.

    Of claims whose first pod is on a node, only those of `nodes` are served.
    """

    def __init__(self, api: Api, events: EventRecorder, directory: Path, nodes: Collection[str]) -> None:
        self._api = api
        self._events = events
        self._directory = directory
        self._nodes = nodes
        self._classes = Store(api, STORAGE_CLASSES)
        self._claims = Store(api, PERSISTENT_VOLUME_CLAIMS)
        self._volumes = Store(api, PERSISTENT_VOLUMES)
        self._changed = asyncio.Event()
        for store in (self._classes, self._claims, self._volumes):
            store.subscribe(self._on_change)
        self._volumes.subscribe(self._on_volume_change)

    async def run(self) -> None:
        """Create the default StorageClass, then serve claims until cancelled."""
        await self._api.apply(STORAGE_CLASSES, _default_class(), field_manager=PROVISIONER)
        async with asyncio.TaskGroup() as group:
            for store in (self._classes, self._claims, self._volumes):
                group.create_task(store.run())
            while True:
                await self._changed.wait()
                self._changed.clear()
                for claim in self._claims.values():
                    await self._serve(claim)
                for volume in self._volumes.values():
                    await self._reclaim(volume)

    def _on_change(self, _old: Json | None, _new: Json | None) -> None:
        self._changed.set()

    def _on_volume_change(self, old: Json | None, new: Json | None) -> None:
        if new is None and old is not None and _is_ours(old) and _is_deleted_with_its_claim(old):
            shutil.rmtree(self._directory / old["metadata"]["name"], ignore_errors=True)

    async def _serve(self, claim: Json) -> None:
        spec, annotations = claim["spec"], claim["metadata"].get("annotations") or {}
        storage_class = self._classes.get(spec.get("storageClassName") or "")
        if storage_class is None or storage_class["provisioner"] != PROVISIONER:
            return
        if spec.get("volumeName") or "deletionTimestamp" in claim["metadata"]:
            return
        node = annotations.get(_SELECTED_NODE)
        if node is None and storage_class.get("volumeBindingMode") == "WaitForFirstConsumer":
            return
        if node is not None and node not in self._nodes:
            return  # another stand-in's
        if refusal := _refusal(spec):
            self._events.emit(claim, "Warning", "ProvisioningFailed", refusal)
            return
        name = f"pvc-{claim['metadata']['uid']}"
        if self._volumes.get(name) is not None:
            return
        directory = self._directory / name
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o777)
        try:
            await self._api.create(PERSISTENT_VOLUMES, _make_volume(name, directory, claim, storage_class))
        except ApiError as error:
            if error.status != 409:  # else it exists already: the watch was behind
                _log.warning("cannot create volume %s: %s", name, error)

    async def _reclaim(self, volume: Json) -> None:
        released = (volume.get("status") or {}).get("phase") == "Released"
        if released and _is_ours(volume) and _is_deleted_with_its_claim(volume):
            name = volume["metadata"]["name"]
            shutil.rmtree(self._directory / name, ignore_errors=True)
            try:
                await self._api.delete(PERSISTENT_VOLUMES, name, uid=volume["metadata"]["uid"])
            except ApiError as error:
                _log.warning("cannot delete volume %s: %s", name, error)


class Claims:
    """Which pods of which nodes use which volumes, and where these are."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._users: dict[str, dict[str, tuple[str, str]]] = {}  # volume: {pod uid: (node, pod name)}

    async def attach(self, pod: Json, claim_name: str) -> Path:
        """The directory of a claim for this pod. MountError while it is not bound, or bound to another node's pods."""
        metadata, node = pod["metadata"], pod["spec"]["nodeName"]
        claim = await self._api.find(PERSISTENT_VOLUME_CLAIMS, claim_name, metadata["namespace"])
        if claim is None:
            raise MountError(f'persistentvolumeclaim "{claim_name}" not found')
        if (claim.get("status") or {}).get("phase") != "Bound":
            raise MountError(f'unbound immediate PersistentVolumeClaims: "{claim_name}"')
        volume = await self._api.get(PERSISTENT_VOLUMES, claim["spec"]["volumeName"])
        name, spec = volume["metadata"]["name"], volume["spec"]
        source = spec.get("hostPath") or spec.get("local")
        if source is None:
            raise MountError(
                f'volume "{name}" is of a kind that the node stand-in does not mount (only hostPath, local)'
            )
        users = self._users.setdefault(name, {})
        others = sorted(who for where, who in users.values() if where != node)
        if others and not _SHARED_MODES.intersection(spec["accessModes"]):
            raise MountError(
                f'Multi-Attach error for volume "{name}" Volume is already used by pod(s) {", ".join(others)}',
                "FailedAttachVolume",
            )
        users[metadata["uid"]] = (node, metadata["name"])
        return Path(source["path"])

    def detach(self, pod_uid: str) -> None:
        """The pod uses nothing any more."""
        for users in self._users.values():
            users.pop(pod_uid, None)


def _refusal(spec: Json) -> str | None:
    if spec.get("volumeMode", "Filesystem") != "Filesystem":
        return f"{PROVISIONER} makes file systems only, not volumeMode {spec['volumeMode']}"
    if spec.get("selector"):
        return f"{PROVISIONER} does not support claims with a selector"
    if spec.get("dataSource") or spec.get("dataSourceRef"):
        return f"{PROVISIONER} does not support data sources"
    return None


def _default_class() -> Json:
    return {
        "metadata": {"name": DEFAULT_CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def _make_volume(name: str, directory: Path, claim: Json, storage_class: Mapping[str, Any]) -> Json:
    metadata, spec = claim["metadata"], claim["spec"]
    reference = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "uid": metadata["uid"],
        "resourceVersion": metadata["resourceVersion"],
    }
    return {
        "metadata": {"name": name, "annotations": {_PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy", "Delete"),
            "storageClassName": storage_class["metadata"]["name"],
            "volumeMode": "Filesystem",
            "claimRef": reference,
            "hostPath": {"path": str(directory), "type": "DirectoryOrCreate"},
        },
    }


def _is_ours(volume: Json) -> bool:
    return bool((volume["metadata"].get("annotations") or {}).get(_PROVISIONED_BY) == PROVISIONER)


def _is_deleted_with_its_claim(volume: Json) -> bool:
    return bool(volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete")
