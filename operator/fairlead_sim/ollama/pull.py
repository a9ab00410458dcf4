"""Pulling a model: progress as Ollama streams it, from a made-up registry or from a real one that is named.

A name with a registry of its own (`127.0.0.1:5000/library/tiny`) is really fetched from there over HTTP. All other
names stand for the public registry, which the simulator never talks to: their models are made up (`synthetic`), in
simulated time. What was downloaded is counted in a file beside the models, so that tests can say "pulled once".
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import AsyncGenerator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp

from fairlead_sim.ollama.names import DEFAULT_HOST, ModelName
from fairlead_sim.ollama.store import MANIFEST_TYPE, Layer, Store, blob_path
from fairlead_sim.ollama.synthetic import Blob, make_model
from fairlead_sim.settings import Settings

#: One JSON line for each pull that downloaded something: `{"model": ..., "bytes": ...}`.
PULL_LOG = "fairlead-sim-pulls.jsonl"
TRIES = 6
_CHUNK_BYTES = 64 * 1024
_PROGRESS_S = 0.06

Progress = dict[str, Any]


class PullError(Exception):
    """The pull failed; the message is what Ollama says."""


def is_made_up(name: ModelName) -> bool:
    """Whether the name stands for a public registry, which the simulator does not talk to."""
    host = name.host.partition(":")[0]
    return name.host == DEFAULT_HOST or (":" not in name.host and host != "localhost")


async def pull(
    store: Store, name: ModelName, settings: Settings, *, insecure: bool, user_agent: str
) -> AsyncGenerator[Progress]:
    """Pull a model into the store; progress as it comes. Raises PullError."""
    yield {"status": "pulling manifest"}
    if is_made_up(name):
        source = _pull_made_up(store, name, settings)
    else:
        source = _pull_from_registry(store, name, insecure=insecure, user_agent=user_agent)
    async for progress in source:
        yield progress
    yield {"status": "success"}


def count(store: Store, name: ModelName, size_bytes: int) -> None:
    """Note a download."""
    with (store.root / PULL_LOG).open("a") as file:
        file.write(json.dumps({"model": name.short, "bytes": size_bytes}) + "\n")


def _layer_progress(digest: str, total: int, completed: int) -> Progress:
    progress: Progress = {"status": f"pulling {digest[7:19]}", "digest": digest, "total": total}
    return progress | {"completed": completed} if completed else progress


async def _pull_made_up(store: Store, name: ModelName, settings: Settings) -> AsyncGenerator[Progress]:
    _refuse_if_told(name, settings)
    config, layers = await asyncio.to_thread(
        make_model, name, size_bytes=settings.pull_bytes, dimensions=settings.embedding_dimensions
    )
    blobs = [*layers, config]
    missing = [blob for blob in blobs if not blob_path(store.blobs, blob.digest).exists()]
    total = sum(len(blob.data) for blob in missing)
    for blob in blobs:
        size = len(blob.data)
        if blob not in missing:
            yield _layer_progress(blob.digest, size, size)
            continue
        async for completed in _simulated_download(size, settings.pull_seconds * size / total):
            yield _layer_progress(blob.digest, size, completed)
        store.add_blob(blob.data, blob.media_type)
    yield {"status": "verifying sha256 digest"}
    yield {"status": "writing manifest"}
    store.add_model(name, store.add_blob(config.data, config.media_type), [_stored(store, blob) for blob in layers])
    if missing:
        count(store, name, total)


def _stored(store: Store, blob: Blob) -> Layer:
    return store.add_blob(blob.data, blob.media_type)


def _refuse_if_told(name: ModelName, settings: Settings) -> None:
    status = settings.registry_status
    if "missing" in name.model.lower() or status == HTTPStatus.NOT_FOUND:
        raise PullError("pull model manifest: file does not exist")
    if status is None or status < HTTPStatus.BAD_REQUEST:
        return
    if status == HTTPStatus.UNAUTHORIZED:
        raise PullError("pull model manifest: unauthorized: access denied")
    raise PullError(f"pull model manifest: {status}: {HTTPStatus(status).phrase.lower()}")


async def _simulated_download(size_bytes: int, duration_s: float) -> AsyncGenerator[int]:
    """Completed bytes over time, the last one being all."""
    steps = max(1, math.ceil(duration_s / _PROGRESS_S))
    yield 0
    for step in range(1, steps + 1):
        await asyncio.sleep(duration_s / steps)
        yield size_bytes * step // steps


async def _pull_from_registry(
    store: Store, name: ModelName, *, insecure: bool, user_agent: str
) -> AsyncGenerator[Progress]:
    scheme = "http" if insecure else "https"
    base = f"{scheme}://{name.host}/v2/{name.namespace}/{name.model}"
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=30)
    async with aiohttp.ClientSession(timeout=timeout, headers={"User-Agent": user_agent}) as session:
        raw = await _fetch_manifest(session, f"{base}/manifests/{name.tag}")
        manifest = json.loads(raw)
        layers = [*manifest.get("layers", []), *([manifest["config"]] if manifest.get("config") else [])]
        downloaded = 0
        for layer in layers:
            digest, size = layer["digest"], layer["size"]
            path = blob_path(store.blobs, digest)
            if path.exists():
                yield _layer_progress(digest, size, size)
                continue
            async for completed in _download(session, f"{base}/blobs/{digest}", path, size):
                yield _layer_progress(digest, size, completed)
            downloaded += size
        yield {"status": "verifying sha256 digest"}
        for layer in layers:
            await asyncio.to_thread(_verify, blob_path(store.blobs, layer["digest"]), layer["digest"])
    yield {"status": "writing manifest"}
    store.write_manifest(name, json.dumps(manifest, separators=(",", ":")).encode())
    if downloaded:
        count(store, name, downloaded)


async def _fetch_manifest(session: aiohttp.ClientSession, url: str) -> bytes:
    try:
        async with session.get(url, headers={"Accept": MANIFEST_TYPE}) as response:
            body = await response.read()
            if response.status == HTTPStatus.NOT_FOUND:
                raise PullError("pull model manifest: file does not exist")
            if response.status == HTTPStatus.UNAUTHORIZED:
                raise PullError("pull model manifest: unauthorized: access denied")
            if response.status >= HTTPStatus.BAD_REQUEST:
                raise PullError(f"pull model manifest: {response.status}: {body.decode(errors='replace')}")
            return body
    except (aiohttp.ClientError, TimeoutError) as error:
        raise PullError(f'pull model manifest: Get "{url}": {_in_go_words(error)}') from error


def _in_go_words(error: Exception) -> str:
    """Why no answer came, as Go's HTTP client says it: operators read these words in a pod's last lines."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"dial tcp: lookup {error.host}: no such host"
        case aiohttp.ClientSSLError():
            return "tls: first record does not look like a TLS handshake"
        case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
            return f"dial tcp {error.host}:{error.port}: connect: connection refused"
        case TimeoutError():
            return "context deadline exceeded"
        case _:
            return str(error) or type(error).__name__


async def _download(session: aiohttp.ClientSession, url: str, path: Path, size: int) -> AsyncGenerator[int]:
    """Fetch a blob, going on where an earlier pull stopped; six tries, 1, 2, 4, ... seconds apart."""
    partial = path.with_name(path.name + "-partial")
    yield 0
    last: Exception | None = None
    for attempt in range(TRIES):
        try:
            async for completed in _download_rest(session, url, partial, size):
                yield completed
            partial.replace(path)
            return
        except (aiohttp.ClientError, TimeoutError) as error:
            last = error
            if attempt < TRIES - 1:
                await asyncio.sleep(2.0**attempt)
    raise PullError(f"max retries exceeded: {last}")


async def _download_rest(session: aiohttp.ClientSession, url: str, partial: Path, size: int) -> AsyncGenerator[int]:
    completed = _size_so_far(partial)
    if completed >= size:
        yield completed
        return
    location = await _direct_url(session, url)
    headers = {"Range": f"bytes={completed}-{size - 1}"}
    reported_s = 0.0
    loop = asyncio.get_running_loop()
    async with session.get(location, headers=headers) as response:
        response.raise_for_status()
        if response.status != HTTPStatus.PARTIAL_CONTENT:
            completed = 0
        with partial.open("ab" if completed else "wb") as file:
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                file.write(chunk)
                completed += len(chunk)
                if loop.time() - reported_s >= _PROGRESS_S:
                    reported_s = loop.time()
                    yield completed
    if completed < size:
        raise aiohttp.ClientPayloadError(f"{completed} of {size} bytes came")
    yield completed


def _size_so_far(partial: Path) -> int:
    """Bytes that an earlier try or an earlier pull left."""
    return partial.stat().st_size if partial.exists() else 0


async def _direct_url(session: aiohttp.ClientSession, url: str) -> str:
    """Where a registry redirects a plain GET of a blob to; the URL itself if it does not."""
    async with session.get(url, allow_redirects=False) as response:
        if response.status == HTTPStatus.NOT_FOUND:
            raise PullError("file does not exist")
        response.raise_for_status()
        return response.headers.get("Location", url)


def _verify(path: Path, digest: str) -> None:
    with path.open("rb") as file:
        found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        path.unlink()
        raise PullError(f"digest mismatch, file must be downloaded again: want {digest}, got {found}")
