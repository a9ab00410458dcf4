"""The registry stand-in speaks the registry protocol, and its log tells the truth."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import gguf
import httpx
import pytest

from fairlead_cluster.registry import Registry
from fairlead_cluster.tinymodel import TinyModel, write_tiny_model


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as running:
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(range(256)) * 1000)
    return path


@pytest.fixture
def client(registry: Registry) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{registry.address}", trust_env=False) as client:
        yield client


def model_digest(client: httpx.Client, name: str = "library/tiny") -> str:
    layers = client.get(f"/v2/{name}/manifests/latest").json()["layers"]
    return str(next(layer["digest"] for layer in layers if layer["mediaType"].endswith(".model")))


def test_every_blob_of_a_manifest_has_the_digest_and_size_that_it_names(
    registry: Registry, client: httpx.Client, file: Path
) -> None:
    assert registry.publish("library/tiny:latest", file) == f"{registry.address}/library/tiny:latest"
    manifest = client.get("/v2/library/tiny/manifests/latest").json()
    for part in [manifest["config"], *manifest["layers"]]:
        url = f"/v2/library/tiny/blobs/{part['digest']}"
        assert int(client.head(url).headers["Content-Length"]) == part["size"]
        redirect = client.get(url)
        assert redirect.status_code == 307
        assert httpx.URL(redirect.headers["Location"]).host != httpx.URL(f"http://{registry.address}").host
        data = httpx.get(redirect.headers["Location"], headers={"Range": f"bytes=0-{part['size'] - 1}"}).content
        assert "sha256:" + hashlib.sha256(data).hexdigest() == part["digest"]


@pytest.mark.parametrize(("asked", "expected"), [("bytes=10-19", (10, 20)), ("bytes=255990-", (255990, 256000))])
def test_a_range_gives_these_bytes_and_no_others(
    registry: Registry, client: httpx.Client, file: Path, asked: str, expected: tuple[int, int]
) -> None:
    registry.publish("library/tiny:latest", file)
    answer = client.get(f"/v2/library/tiny/blobs/{model_digest(client)}", headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == file.read_bytes()[slice(*expected)]
    assert answer.headers["Content-Range"] == f"bytes {expected[0]}-{expected[1] - 1}/256000"
    assert registry.blob_bytes_sent() == expected[1] - expected[0]


def test_a_range_behind_the_end_is_refused(registry: Registry, client: httpx.Client, file: Path) -> None:
    registry.publish("library/tiny:latest", file)
    answer = client.get(f"/v2/library/tiny/blobs/{model_digest(client)}", headers={"Range": "bytes=999999-"})
    assert (answer.status_code, answer.headers["Content-Range"]) == (416, "bytes */256000")


@pytest.mark.parametrize("path", ["/v2/library/tiny/manifests/none", f"/v2/x/y/blobs/sha256:{'0' * 64}", "/v2/", "/"])
def test_what_it_does_not_have_is_404(registry: Registry, client: httpx.Client, file: Path, path: str) -> None:
    registry.publish("library/tiny:latest", file)
    assert client.get(path).status_code == 404


def test_a_fault_hits_what_it_names_and_only_so_often(registry: Registry, client: httpx.Client, file: Path) -> None:
    registry.publish("library/tiny:latest", file)
    registry.fail("GET .*/manifests/", 503, times=2)
    assert client.head("/v2/library/tiny/manifests/latest").status_code == 200
    codes = [client.get("/v2/library/tiny/manifests/latest").status_code for _ in range(3)]
    assert codes == [503, 503, 200]
    assert [request.status for request in registry.requests] == [200, 503, 503, 200]
    registry.forget_requests()
    assert registry.requests == []


def test_a_throttled_blob_takes_its_time(registry: Registry, client: httpx.Client, file: Path) -> None:
    registry.publish("library/tiny:latest", file)
    url = f"/v2/library/tiny/blobs/{model_digest(client)}"
    registry.throttle(512_000)
    started_s = time.monotonic()
    assert len(client.get(url, headers={"Range": "bytes=0-255999"}).content) == 256_000
    assert time.monotonic() - started_s > 0.4


def test_a_download_that_is_given_up_counts_what_was_sent(registry: Registry, client: httpx.Client, file: Path) -> None:
    registry.publish("library/tiny:latest", file)
    url = f"/v2/library/tiny/blobs/{model_digest(client)}"
    registry.forget_requests()
    registry.throttle(100_000)
    with client.stream("GET", url, headers={"Range": "bytes=0-255999"}) as answer:
        next(answer.iter_bytes())
    logged = threading.Event()
    deadline_s = time.monotonic() + 10
    while not registry.requests and time.monotonic() < deadline_s:
        logged.wait(0.05)
    (request,) = registry.requests
    assert 0 < request.bytes_sent < 256_000


def test_the_same_tiny_model_is_the_same_file_and_readable(tmp_path: Path) -> None:
    first, again = write_tiny_model(tmp_path / "a.gguf"), write_tiny_model(tmp_path / "b.gguf")
    other = write_tiny_model(tmp_path / "c.gguf", TinyModel(seed=1, embeds=True))
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
    reader = gguf.GGUFReader(first)
    assert reader.fields["llama.block_count"].contents() == 2
    assert "llama.pooling_type" not in reader.fields
    assert gguf.GGUFReader(other).fields["llama.pooling_type"].contents() == gguf.PoolingType.MEAN
    manifest_bytes = json.dumps([str(tensor.name) for tensor in reader.tensors])
    assert "blk.1.ffn_down.weight" in manifest_bytes
