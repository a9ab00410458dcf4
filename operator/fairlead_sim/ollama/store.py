"""Models on disk in Ollama's own layout: `manifests/<host>/<namespace>/<model>/<tag>` and `blobs/sha256-<digest>`.

A volume filled by the simulator could be read by a real Ollama and the other way round; a model that was pulled
survives a restart on the same volume.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fairlead_sim.ollama import gguf
from fairlead_sim.ollama.names import ModelName

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.ollama.image."

_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")


class StoreError(Exception):
    """Something on disk that cannot be used; the message is for the client."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One blob as a manifest names it."""

    media_type: str
    digest: str
    size_bytes: int

    def as_json(self) -> dict[str, Any]:
        """The manifest's entry."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size_bytes}


@dataclass(frozen=True)
class Model:
    """A model that is on disk."""

    name: ModelName
    #: sha256 of the manifest, in hex.
    digest: str
    modified_s: float
    config: dict[str, Any]
    layers: tuple[Layer, ...]
    config_layer: Layer | None
    blobs: Path = field(repr=False)

    @property
    def size_bytes(self) -> int:
        """Bytes of all layers."""
        return sum(layer.size_bytes for layer in self.layers) + (
            self.config_layer.size_bytes if self.config_layer else 0
        )

    def path(self, kind: str) -> Path | None:
        """The blob of the first layer of a kind (`model`, `template`, …)."""
        found = next((layer for layer in self.layers if layer.media_type == LAYER_TYPE + kind), None)
        return None if found is None else blob_path(self.blobs, found.digest)

    def text(self, kind: str) -> str:
        """The text of a layer; empty without one."""
        path = self.path(kind)
        return path.read_text(errors="replace") if path is not None and path.exists() else ""

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """Options of the Modelfile."""
        found: dict[str, Any] = json.loads(self.text("params") or "{}")
        return found

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """GGUF metadata of the weights. Raises StoreError when they are missing or no GGUF file."""
        path = self.path("model")
        try:
            return {} if path is None else gguf.read_metadata(path)
        except (gguf.NotGGUFError, OSError) as error:
            raise StoreError(f"unable to load model: {path}: {error}") from error

    @property
    def details(self) -> dict[str, Any]:
        """`details` as /api/tags shows them."""
        return {
            "parent_model": "",
            "format": self.config.get("model_format", ""),
            "family": self.config.get("model_family", ""),
            "families": self.config.get("model_families"),
            "parameter_size": self.config.get("model_type", ""),
            "quantization_level": self.config.get("file_type", ""),
        }

    @property
    def capabilities(self) -> list[str]:
        """completion or embedding, by the weights; tools, by the template."""
        architecture = self.metadata.get("general.architecture", "")
        if f"{architecture}.pooling_type" in self.metadata:
            return ["embedding"]
        return ["completion", "tools"] if ".Tools" in self.text("template") else ["completion"]


def blob_path(blobs: Path, digest: str) -> Path:
    """Where a blob lies. Raises StoreError for what is no digest."""
    if not _DIGEST.fullmatch(digest):
        raise StoreError("invalid digest format")
    return blobs / digest.replace(":", "-")


class Store:
    """The folder OLLAMA_MODELS."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifests = root / "manifests"
        self.blobs = root / "blobs"
        self.manifests.mkdir(parents=True, exist_ok=True)
        self.blobs.mkdir(parents=True, exist_ok=True)

    def resolve(self, name: ModelName) -> ModelName:
        """The name with the upper and lower case of a model that exists, where there is one."""
        wanted = [part.lower() for part in name.parts]
        for existing in self.names():
            if [part.lower() for part in existing.parts] == wanted:
                return existing
        return name

    def names(self) -> Iterator[ModelName]:
        """All manifests, in the order of their paths."""
        for path in sorted(self.manifests.glob("*/*/*/*")):
            if path.is_file():
                yield ModelName(*path.relative_to(self.manifests).parts)

    def find(self, name: ModelName) -> Model | None:
        """The model with this very name. Raises StoreError if its manifest is broken."""
        path = self.manifests.joinpath(*name.parts)
        try:
            raw = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        try:
            manifest = json.loads(raw)
            layers = tuple(_layer(entry) for entry in manifest.get("layers") or [])
            config_layer = _layer(manifest["config"]) if manifest.get("config") else None
            config = {} if config_layer is None else json.loads(blob_path(self.blobs, config_layer.digest).read_bytes())
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise StoreError(f"bad manifest of {name.short}: {error}") from error
        modified_s = path.stat().st_mtime
        return Model(name, hashlib.sha256(raw).hexdigest(), modified_s, config, layers, config_layer, self.blobs)

    def models(self) -> list[Model]:
        """Every readable model, the most recently modified first."""
        found = []
        for name in self.names():
            try:
                model = self.find(name)
            except StoreError:
                continue
            if model is not None:
                found.append(model)
        return sorted(found, key=lambda model: -int(model.modified_s))

    def add_blob(self, data: bytes, media_type: str) -> Layer:
        """Store bytes."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        path = blob_path(self.blobs, digest)
        if not path.exists():
            write_atomically(path, data)
        return Layer(media_type, digest, len(data))

    def add_model(self, name: ModelName, config: Layer, layers: list[Layer]) -> None:
        """Write the manifest."""
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config.as_json(),
            "layers": [layer.as_json() for layer in layers],
        }
        self.write_manifest(name, json.dumps(manifest, separators=(",", ":")).encode())

    def write_manifest(self, name: ModelName, raw: bytes) -> None:
        """Write a manifest as it is."""
        path = self.manifests.joinpath(*name.parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, raw)

    def copy(self, source: ModelName, destination: ModelName) -> bool:
        """Give a model one more name; False when there is no such model."""
        path = self.manifests.joinpath(*source.parts)
        if not path.is_file():
            return False
        if source.parts != destination.parts:
            self.write_manifest(destination, path.read_bytes())
        return True

    def delete(self, model: Model) -> None:
        """Remove a name, and the blobs that no other model uses."""
        path = self.manifests.joinpath(*model.name.parts)
        path.unlink()
        for folder in list(path.parents)[:3]:
            if any(folder.iterdir()):
                break
            folder.rmdir()
        used = self._used_digests()
        for layer in [*model.layers, *filter(None, [model.config_layer])]:
            if layer.digest not in used:
                blob_path(self.blobs, layer.digest).unlink(missing_ok=True)

    def prune(self) -> int:
        """Remove blobs that no model uses, and half-finished downloads; how many went."""
        used = {digest.replace(":", "-") for digest in self._used_digests()}
        unused = [path for path in self.blobs.iterdir() if path.name not in used]
        for path in unused:
            path.unlink(missing_ok=True)
        return len(unused)

    def _used_digests(self) -> set[str]:
        return {
            layer.digest for model in self.models() for layer in [*model.layers, *filter(None, [model.config_layer])]
        }


class Upload:
    """A blob that is being received; it gets its name when its digest is known."""

    def __init__(self, blobs: Path) -> None:
        self._blobs = blobs
        descriptor, temporary = tempfile.mkstemp(dir=blobs, prefix="sha256-")
        self._file = os.fdopen(descriptor, "wb")
        self._temporary = Path(temporary)
        self._digest = hashlib.sha256()

    def write(self, chunk: bytes) -> None:
        """Add bytes."""
        self._digest.update(chunk)
        self._file.write(chunk)

    def finish(self) -> str:
        """Keep the blob under its digest, which is returned."""
        self._file.close()
        digest = f"sha256:{self._digest.hexdigest()}"
        self._temporary.chmod(0o644)
        self._temporary.replace(blob_path(self._blobs, digest))
        return digest

    def discard(self) -> None:
        """Forget what was not finished."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Nobody sees half of it: several pods may share the volume."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:20]}")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _layer(entry: dict[str, Any]) -> Layer:
    return Layer(str(entry["mediaType"]), str(entry["digest"]), int(entry["size"]))
