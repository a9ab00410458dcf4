"""The volumes of one pod as directories, and what a container's mounts of them are on the host."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from fairlead_cluster.api import Api, ApiError
from fairlead_cluster.node.atomicwriter import read_files, write_atomically
from fairlead_cluster.node.expansion import expand
from fairlead_cluster.node.options import Options, VolumeSync
from fairlead_cluster.node.podfields import PodContext
from fairlead_cluster.node.projections import Projection, UnsupportedVolumeError
from fairlead_cluster.node.references import MissingReferenceError, Reference, References
from fairlead_cluster.node.storage import Claims, MountError
from fairlead_cluster.node.views import View

Json = dict[str, Any]

_log = logging.getLogger(__name__)
_SYNC_JITTER = 0.5  # a kubelet's next sync of a pod comes after 1 to 1.5 periods


class PodVolumes:
    """Makes the volumes of a pod below `directory`, keeps them current, and removes them (not those of claims)."""

    def __init__(self, api: Api, references: References, claims: Claims, directory: Path, options: Options) -> None:
        self._api = api
        self._references = references
        self._claims = claims
        self._directory = directory
        self._options = options
        self._paths: dict[str, Path] = {}
        self._projections: dict[str, Projection] = {}
        self._views: dict[Path, View] = {}
        self._poke = asyncio.Event()
        self._watched: list[Reference] = []

    async def set_up(self, context: PodContext) -> None:
        """Make all volumes; may be called again after MountError, and then goes on with what is missing."""
        for volume in context.pod["spec"].get("volumes") or []:
            if volume["name"] not in self._paths:
                self._paths[volume["name"]] = await self._set_up_one(context, volume)

    async def keep_current(self, context: Callable[[], PodContext]) -> None:
        """Write changed ConfigMaps, Secrets, fields and tokens into the files until cancelled."""
        self._watch(context().namespace)
        try:
            while self._projections:
                period_s = self._options.volume_sync_period_s * (1 + random.random() * _SYNC_JITTER)  # noqa: S311
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._poke.wait(), period_s)
                self._poke.clear()
                await self._update(context())
        finally:
            for reference in self._watched:
                self._references.unsubscribe(reference, self._poke.set)

    def poke(self) -> None:
        """The pod itself has changed: look again now, as a kubelet does."""
        self._poke.set()

    def show(self, view: View) -> None:
        """Keep a container's copies of the volumes made of files in step with them, in place of those it had before."""
        self._views[view.directory] = view
        for name in self._projections:
            view.write(name, read_files(self._directory / name))

    def is_projected(self, mount: Json) -> bool:
        """Whether a volumeMount shows a volume made of files, as a whole."""
        return mount["name"] in self._projections and not (mount.get("subPath") or mount.get("subPathExpr"))

    def path(self, mount: Json, env: Mapping[str, str], scratch: Path) -> Path:
        """Where a volumeMount is on the host. A file by subPath is pinned as it is now, as a bind mount would be.

        `scratch` is a directory for such pins. MountError if subPath leads out of the volume.
        """
        root = self._paths[mount["name"]]
        sub_path = str(mount.get("subPath") or expand(mount.get("subPathExpr") or "", env))
        if not sub_path:
            return root
        target = (root / sub_path).resolve()
        if not target.is_relative_to(root.resolve()):
            raise MountError(f'subPath "{sub_path}" leads out of volume "{mount["name"]}"')
        if target.is_file():
            return _pin(target, scratch / mount["mountPath"].strip("/").replace("/", "~"))
        target.mkdir(parents=True, exist_ok=True)
        return target

    def tear_down(self, pod_uid: str) -> None:
        """Remove what lived only as long as the pod."""
        self._claims.detach(pod_uid)
        shutil.rmtree(self._directory, ignore_errors=True)

    async def _set_up_one(self, context: PodContext, volume: Json) -> Path:
        name: str = volume["name"]
        path = self._directory / name
        try:
            if Projection.covers(volume):
                projection = Projection(self._api, self._references, volume)
                write_atomically(path, await projection.collect(context))
                self._projections[name] = projection
                return path
            return await self._directory_of(context, volume, path)
        except MountError:
            raise
        except (MissingReferenceError, UnsupportedVolumeError, ApiError, OSError) as error:
            raise MountError(f'MountVolume.SetUp failed for volume "{name}" : {error}') from error

    async def _directory_of(self, context: PodContext, volume: Json, path: Path) -> Path:
        if "emptyDir" in volume:
            return _empty_directory(path)
        if claim := volume.get("persistentVolumeClaim"):
            return await self._claims.attach(context.pod, claim["claimName"])
        if "ephemeral" in volume:
            return await self._claims.attach(context.pod, f"{context.pod['metadata']['name']}-{volume['name']}")
        if host_path := volume.get("hostPath"):
            return _host_directory(host_path)
        kind = next(key for key in volume if key != "name")
        raise UnsupportedVolumeError(f"the node stand-in does not make volumes of kind {kind}")

    def _watch(self, namespace: str) -> None:
        if self._options.volume_sync is VolumeSync.QUICK:
            self._watched = [one for each in self._projections.values() for one in each.watched(namespace)]
            for reference in self._watched:
                self._references.subscribe(reference, self._poke.set)
            self._poke.set()  # what changed between set_up and now

    async def _update(self, context: PodContext) -> None:
        for name, projection in self._projections.items():
            try:
                files = await projection.collect(context)
                write_atomically(self._directory / name, files)
                for view in self._views.values():
                    view.write(name, files)
            except (MissingReferenceError, ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                # The files stay as they are, as with a kubelet.
                _log.info("volume %s of %s is not updated: %s", name, context.description, error)


def _empty_directory(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o777)
    return path


def _host_directory(host_path: Json) -> Path:
    path = Path(host_path["path"])
    kind = host_path.get("type") or ""
    if kind == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True)
    elif kind == "FileOrCreate":
        path.touch()
    elif (kind == "Directory" and not path.is_dir()) or (kind == "File" and not path.is_file()):
        raise MountError(f"hostPath type check failed: {path} is not a {kind.lower()}")
    return path


def _pin(target: Path, pin: Path) -> Path:
    """A name for exactly this file, which a later swap of the volume does not change."""
    pin.parent.mkdir(parents=True, exist_ok=True)
    pin.unlink(missing_ok=True)
    try:
        os.link(target, pin)
    except OSError:  # another file system (a claim's): there files are not swapped either
        pin.symlink_to(target)
    return pin
