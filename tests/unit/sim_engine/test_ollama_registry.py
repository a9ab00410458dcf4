"""Pulling from a registry that is really asked: progress, resuming, retries, and a model of real weights."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import ollama
import pytest
from tests.unit.sim_engine.servers import Ollama, StartOllama

from fairlead_cluster.registry import Registry
from fairlead_sim.ollama import gguf as simulated_gguf
from fairlead_sim.ollama import pull as pull_module
from fairlead_sim.ollama.names import parse_name
from fairlead_sim.ollama.synthetic import make_model


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A GGUF file that the gguf library wrote, with 200 KB of tensors."""
    import numpy as np

    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(48)
    writer.add_token_list([f"t{number}" for number in range(100)])
    writer.add_token_scores([0.0] * 100)
    writer.add_tensor("x", np.zeros((50_000,), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def client_of(server: Ollama) -> ollama.AsyncClient:
    return ollama.AsyncClient(host=server.url, trust_env=False)


async def test_a_model_of_a_real_registry(start_ollama: StartOllama, weights: Path) -> None:
    with Registry() as registry:
        name = registry.publish("library/tiny:latest", weights)
        client = client_of(await start_ollama())
        await client.pull(name, insecure=True)
        assert registry.blob_bytes_sent() >= weights.stat().st_size
        registry.forget_requests()
        await client_of(await start_ollama()).pull(name, insecure=True)
        assert registry.blob_bytes_sent() == 0, "once per volume"
    await client.copy(name, "tiny")
    shown = await client.show("tiny")
    assert shown.modelinfo is not None
    assert (shown.modelinfo["llama.context_length"], shown.modelinfo["llama.embedding_length"]) == (2048, 48)
    assert shown.modelinfo["tokenizer.ggml.tokens"] == []
    assert (await client.generate("tiny", "x")).response.startswith("tiny here, simulated.")


async def test_a_pull_goes_on_where_it_stopped(
    start_ollama: StartOllama, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_module, "_PROGRESS_S", 0.0)
    size = weights.stat().st_size
    with Registry() as registry:
        registry.throttle(100_000)  # so that even a slow reader stops it before its end
        name = registry.publish("library/tiny:latest", weights)
        client = client_of(await start_ollama())
        async for progress in await client.pull(name, insecure=True, stream=True):
            if (progress.completed or 0) > 100_000:
                break
        registry.throttle(None)
        await client.pull(name, insecure=True)
        sent = [request.bytes_sent for request in registry.requests if request.is_blob_data]
    assert max(sent) < size, "neither pull carried the whole file"
    assert (await client.show(name)).details is not None


async def test_a_registry_that_fails_for_a_while(
    start_ollama: StartOllama, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def no_sleep(seconds: float) -> None:
        waited.append(seconds)

    server = await start_ollama()
    monkeypatch.setattr(pull_module.asyncio, "sleep", no_sleep)
    with Registry() as registry:
        name = registry.publish("library/tiny:latest", weights)
        registry.fail(r"GET .*/blobs/", 503, times=2)
        await client_of(server).pull(name, insecure=True)
    assert [seconds for seconds in waited if seconds >= 1] == [1, 2]


@pytest.mark.parametrize(("status", "message"), [(404, "file does not exist"), (401, "unauthorized"), (500, "500: ")])
async def test_a_registry_that_refuses_the_manifest(
    start_ollama: StartOllama, weights: Path, status: int, message: str
) -> None:
    with Registry() as registry:
        name = registry.publish("library/tiny:latest", weights)
        registry.fail(r"/manifests/", status)
        with pytest.raises(ollama.ResponseError, match="pull model manifest: .*" + message):
            await client_of(await start_ollama()).pull(name, insecure=True)


async def test_a_registry_that_is_not_there(start_ollama: StartOllama) -> None:
    with pytest.raises(ollama.ResponseError, match="pull model manifest: "):
        await client_of(await start_ollama()).pull("127.0.0.1:9/library/tiny", insecure=True)


async def test_changed_bytes_are_noticed(start_ollama: StartOllama, weights: Path) -> None:
    server = await start_ollama()
    with Registry() as registry:
        name = registry.publish("library/tiny:latest", weights)
        raw = bytearray(weights.read_bytes())
        raw[-1] ^= 1
        weights.write_bytes(raw)
        with pytest.raises(ollama.ResponseError, match="digest mismatch, file must be downloaded again"):
            await client_of(server).pull(name, insecure=True)
    assert list(server.service.store.names()) == []


def test_made_up_weights_are_a_gguf_file_for_the_gguf_library_too(tmp_path: Path) -> None:
    config, [weights, *_rest] = make_model(parse_name("qwen3:4b-q8_0"), size_bytes=4096, dimensions=64)
    path = tmp_path / "made-up.gguf"
    path.write_bytes(weights.data)
    reader = gguf.GGUFReader(path)
    assert reader.fields["general.architecture"].contents() == "qwen"
    assert reader.fields["qwen.embedding_length"].contents() == 64
    assert path.stat().st_size == 4096
    assert simulated_gguf.read_metadata(path)["qwen.context_length"] == 131_072
    described = json.loads(config.data)
    assert (described["model_type"], described["file_type"]) == ("4B", "Q8_0")


@pytest.mark.parametrize(
    "raw", [b"", b"GGML....", b"GGUF", b"GGUF\x01\0\0\0" + b"\0" * 16, b"GGUF\x03\0\0\0" + b"\xff" * 32]
)
def test_what_is_no_gguf_file(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(raw)
    with pytest.raises(simulated_gguf.NotGGUFError):
        simulated_gguf.read_metadata(path)


@pytest.mark.parametrize(
    ("text", "short", "valid"),
    [
        ("llama3.2", "llama3.2:latest", True),
        ("llama3.2:1b", "llama3.2:1b", True),
        ("me/llama", "me/llama:latest", True),
        ("127.0.0.1:5000/library/tiny", "127.0.0.1:5000/library/tiny:latest", True),
        ("hf.co/org/Model-GGUF:Q4_K_M", "hf.co/org/Model-GGUF:Q4_K_M", True),
        ("registry.ollama.ai/library/x:y", "x:y", True),
        ("a b", "a b:latest", False),
        ("", ":latest", False),
        ("x:", "x:?", False),
        ("../x", "../x:latest", False),
    ],
)
def test_names(text: str, short: str, valid: bool) -> None:
    name = parse_name(text)
    assert name.is_valid is valid
    assert name.short == short


@pytest.mark.parametrize(
    ("insecure", "port", "words"),
    [
        (True, 9, "dial tcp 127.0.0.3:9: connect: connection refused"),
        (False, None, "tls: first record does not look like a TLS handshake"),
    ],
)
async def test_a_registry_that_cannot_be_asked_is_named_in_the_real_ones_words(
    start_ollama: StartOllama, insecure: bool, port: int | None, words: str
) -> None:
    client = client_of(await start_ollama())
    with Registry() as registry:
        host = registry.address if port is None else f"127.0.0.3:{port}"
        with pytest.raises(ollama.ResponseError, match=f'pull model manifest: Get "https?://{host}/.*": {words}'):
            await client.pull(f"{host}/library/tiny:latest", insecure=insecure)
