"""Volumes of the pod: the cache that `spec.storage` describes, /dev/shm, the claim of a pvc:// model, the user's files."""

from __future__ import annotations

from posixpath import basename, dirname, normpath
from typing import Any

from fairlead.api.llmdeployment import FileSpec, StorageType
from fairlead.api.names import cache_claim_name
from fairlead.errors import RenderError
from fairlead.hardware.quantity import canonical
from fairlead.planning.deployment.serving import Serving

__all__ = ["make_volume_mounts", "make_volumes"]

Json = dict[str, Any]
CACHE, MODEL, SHM = "fairlead-cache", "fairlead-model", "fairlead-shm"


def make_volumes(serving: Serving) -> list[Json]:
    """All volumes that some mount uses, the user's last."""
    provided = {
        CACHE: _make_cache_source(serving),
        MODEL: {"persistentVolumeClaim": {"claimName": serving.source.claim, "readOnly": True}},
        SHM: _make_shm_source(serving),
    }
    mounted = {mount.get("name") for mount in serving.rendered.volume_mounts}
    volumes = list(serving.rendered.volumes)
    volumes += [{"name": name, **source} for name, source in provided.items() if name in mounted]
    volumes += [
        {"name": f"fairlead-files-{index}", "projected": {"sources": [_make_projection(file) for file in files]}}
        for index, (_, files) in enumerate(_group_files(serving))
    ]
    return volumes + (list(serving.spec.pod.extra_volumes) if serving.spec.pod else [])


def make_volume_mounts(serving: Serving) -> list[Json]:
    """Mounts of the engine container. Raises RenderError when a file or the user's mount hides one of the engine's."""
    mounts = list(serving.rendered.volume_mounts)
    taken = {normpath(mount["mountPath"]) for mount in mounts}
    for index, (directory, files) in enumerate(_group_files(serving)):
        if directory == "/" or directory in taken:
            position = next(i for i, file in enumerate(serving.spec.files) if file.path == files[0].path)
            raise RenderError(
                f"spec.files[{position}].path",
                f"a file cannot lie directly in {directory}, which {'is the root' if directory == '/' else 'the engine uses'}",
                f"use a directory of its own, such as /etc/fairlead/{basename(files[0].path)}",
            )
        mounts.append({"name": f"fairlead-files-{index}", "mountPath": directory, "readOnly": True})
        taken.add(directory)
    for index, mount in enumerate(serving.spec.pod.extra_volume_mounts if serving.spec.pod else []):
        if normpath(mount["mountPath"]) in taken:
            path = f"spec.pod.extraVolumeMounts[{index}].mountPath"
            raise RenderError(path, f"{mount['mountPath']} is mounted already", "use another path")
        mounts.append(mount)
    return mounts


def _make_cache_source(serving: Serving) -> Json:
    storage = serving.spec.storage
    if storage is not None and storage.type is StorageType.PERSISTENT_VOLUME_CLAIM:
        return {"persistentVolumeClaim": {"claimName": storage.claim_name or cache_claim_name(serving.name)}}
    return {"emptyDir": {"sizeLimit": canonical(storage.size)} if storage is not None and storage.size else {}}


def _make_shm_source(serving: Serving) -> Json:
    shared_memory = serving.rendered.shared_memory
    return {"emptyDir": {"medium": "Memory", **({"sizeLimit": canonical(shared_memory.size)} if shared_memory else {})}}


def _group_files(serving: Serving) -> list[tuple[str, list[FileSpec]]]:
    """Files by directory: whole directories are mounted, since a single file (subPath) would never be updated."""
    groups: dict[str, list[FileSpec]] = {}
    for file in serving.spec.files:
        groups.setdefault(normpath(dirname(file.path)), []).append(file)
    return sorted(groups.items())


def _make_projection(file: FileSpec) -> Json:
    kind, reference = ("configMap", file.config_map_ref) if file.config_map_ref else ("secret", file.secret_ref)
    if reference is None:
        raise RenderError("spec.files", f"{file.path} has neither configMapRef nor secretRef", "give exactly one")
    return {kind: {"name": reference.name, "items": [{"key": reference.key, "path": basename(file.path)}]}}
