"""Ollama's API, asked with the official ollama client, with the official openai client, and with plain HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import time
from pathlib import Path
from typing import Any

import httpx
import ollama
import openai
import pytest
from tests.unit.sim_engine.servers import FAST, Ollama, StartOllama, openai_client

from fairlead_sim.ollama.pull import PULL_LOG
from fairlead_sim.settings import Settings

HI: Any = [{"role": "user", "content": "hi"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def client_of(server: Ollama) -> ollama.AsyncClient:
    return ollama.AsyncClient(host=server.url, trust_env=False)


@pytest.fixture
async def client(ollama_server: Ollama) -> ollama.AsyncClient:
    """The official client, and a model to ask."""
    made = client_of(ollama_server)
    await made.pull("llama3.2:1b")
    return made


async def post(server: Ollama, path: str, body: Any) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.post(server.url + path, json=body)


def pulls(server: Ollama) -> list[dict[str, Any]]:
    file = server.service.store.root / PULL_LOG
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


async def test_a_pull_tells_its_progress(ollama_server: Ollama) -> None:
    client = client_of(ollama_server)
    seen = [progress async for progress in await client.pull("llama3.2:1b", stream=True)]
    words = [progress.status for progress in seen]
    assert words[0] == "pulling manifest"
    assert words[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    big = [progress for progress in seen if (progress.total or 0) > 1_000_000]
    completed = [progress.completed or 0 for progress in big]
    assert completed == sorted(completed)
    assert completed[0] == 0
    assert completed[-1] == big[-1].total
    assert (big[0].digest or "").startswith("sha256:")


async def test_a_volume_is_filled_once_and_survives_a_restart(start_ollama: StartOllama) -> None:
    first = await start_ollama()
    await client_of(first).pull("llama3.2:1b")
    second = await start_ollama()
    again = client_of(second)
    assert [model.model for model in (await again.list()).models] == ["llama3.2:1b"]
    began = time.monotonic()
    await again.pull("llama3.2:1b")
    assert time.monotonic() - began < FAST.pull_seconds
    assert [pull["model"] for pull in pulls(second)] == ["llama3.2:1b"]
    await again.pull("llama3.2:3b")
    assert [pull["model"] for pull in pulls(second)] == ["llama3.2:1b", "llama3.2:3b"]


async def test_two_volumes_get_the_same_model(start_ollama: StartOllama, tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        client = client_of(await start_ollama(OLLAMA_MODELS=str(tmp_path / name)))
        await client.pull("llama3.2:1b")
        digests.append((await client.list()).models[0].digest)
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("missing-model", None, "pull model manifest: file does not exist"),
        ("llama3.2", 404, "pull model manifest: file does not exist"),
        ("llama3.2", 401, "pull model manifest: unauthorized: access denied"),
        ("llama3.2", 503, "pull model manifest: 503: service unavailable"),
    ],
)
async def test_a_registry_that_refuses(start_ollama: StartOllama, name: str, status: int | None, message: str) -> None:
    server = await start_ollama(settings=Settings(registry_status=status, pull_seconds=0.1))
    whole = await post(server, "/api/pull", {"model": name, "stream": False})
    assert (whole.status_code, whole.json()) == (500, {"error": message})
    streamed = await post(server, "/api/pull", {"model": name})
    assert json.loads(streamed.text.splitlines()[-1]) == {"error": message}
    with pytest.raises(ollama.ResponseError, match=message):
        async for _ in await client_of(server).pull(name, stream=True):
            pass
    assert pulls(server) == []


async def test_a_failed_pull_streams_http_200(ollama_server: Ollama) -> None:
    streamed = await post(ollama_server, "/api/pull", {"model": "missing-model"})
    assert streamed.status_code == 200, "the error comes behind the first line"
    assert streamed.headers["content-type"] == "application/x-ndjson"


async def test_chat_whole_and_streamed(client: ollama.AsyncClient) -> None:
    whole = await client.chat("llama3.2:1b", HI, options={"seed": 3})
    assert (whole.message.content or "").startswith('llama3.2:1b here, simulated. You said: "hi".')
    assert (whole.done, whole.done_reason) == (True, "stop")
    chunks = [chunk async for chunk in await client.chat("llama3.2:1b", HI, options={"seed": 3}, stream=True)]
    assert "".join(chunk.message.content or "" for chunk in chunks) == whole.message.content
    assert len(chunks) > 5
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].eval_count == whole.eval_count
    assert (chunks[-1].total_duration or 0) >= (chunks[-1].eval_duration or 0) > 0


async def test_generate_with_a_wish_for_length_and_a_stop(client: ollama.AsyncClient) -> None:
    cut = await client.generate("llama3.2:1b", "Tell me", options={"num_predict": 7})
    assert (cut.eval_count, cut.done_reason) == (7, "length")
    stopped = await client.generate("llama3.2:1b", "Tell me", options={"stop": [" here"]})
    assert (stopped.response, stopped.done_reason) == ("llama3.2:1b", "stop")


async def test_tools_and_json(client: ollama.AsyncClient) -> None:
    asked: Any = [{"role": "user", "content": "use get_weather"}]
    called = await client.chat("llama3.2:1b", asked, tools=[WEATHER])
    [call] = called.message.tool_calls or []
    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "simulated city"})
    plain = await client.chat("llama3.2:1b", HI, tools=[WEATHER])
    assert plain.message.tool_calls is None
    typed = await client.chat("llama3.2:1b", HI, format=WEATHER["function"]["parameters"])
    assert json.loads(typed.message.content or "") == {"city": "simulated city"}


async def test_embeddings(client: ollama.AsyncClient) -> None:
    await client.pull("nomic-embed-text")
    found = await client.embed("nomic-embed-text", ["a ship", "a ship", "tax"], dimensions=32)
    assert [len(vector) for vector in found.embeddings] == [32, 32, 32]
    assert found.embeddings[0] == found.embeddings[1] != found.embeddings[2]
    assert (found.prompt_eval_count or 0) >= 3
    old = await client.embeddings("nomic-embed-text", "a ship")
    assert len(old.embedding) == 384
    with pytest.raises(ollama.ResponseError, match='"nomic-embed-text" does not support chat') as refused:
        await client.chat("nomic-embed-text", HI)
    assert refused.value.status_code == 400


async def test_models_can_be_copied_shown_and_deleted(client: ollama.AsyncClient, ollama_server: Ollama) -> None:
    await client.copy("llama3.2:1b", "Llama-3.2-1B")
    listed = (await client.list()).models
    assert {model.model for model in listed} == {"llama3.2:1b", "Llama-3.2-1B:latest"}
    assert listed[0].digest == listed[1].digest
    shown = await client.show("llama-3.2-1b")
    assert shown.details is not None
    assert (shown.details.family, shown.details.parameter_size, shown.details.quantization_level) == (
        "llama",
        "1B",
        "Q4_K_M",
    )
    assert shown.capabilities == ["completion", "tools"]
    assert shown.modelinfo is not None
    assert shown.modelinfo["llama.context_length"] == 131_072
    await client.delete("llama3.2:1b")
    assert (await client.generate("llama-3.2-1b", "x")).done, "its blobs are still used"
    await client.delete("Llama-3.2-1B")
    assert list(ollama_server.service.store.blobs.iterdir()) == []
    assert list(ollama_server.service.store.manifests.iterdir()) == []


async def test_unknown_models(client: ollama.AsyncClient, ollama_server: Ollama) -> None:
    for call in (client.chat("nope", HI), client.generate("nope", "x"), client.show("nope")):
        with pytest.raises(ollama.ResponseError) as refused:
            await call
        assert (refused.value.status_code, refused.value.error) == (404, "model 'nope' not found")
    with pytest.raises(ollama.ResponseError, match='model "nope" not found, try pulling it first'):
        await client.embed("nope", "x")
    with pytest.raises(ollama.ResponseError, match='model "nope" not found'):
        await client.copy("nope", "other")
    assert (await client.delete("llama3.2:1b")).status == "success"
    with pytest.raises(ollama.ResponseError, match=r"model 'llama3\.2:1b' not found"):
        await client.delete("llama3.2:1b")
    invalid = await post(ollama_server, "/api/pull", {"model": "a/b/c/../d"})
    assert (invalid.status_code, invalid.json()) == (400, {"error": "invalid model name"})


async def test_a_preload_takes_its_time_and_then_the_model_is_running(start_ollama: StartOllama) -> None:
    settings = Settings(load_seconds=0.3, pull_seconds=0.05)
    client = client_of(await start_ollama(settings=settings, OLLAMA_KEEP_ALIVE="-1", OLLAMA_CONTEXT_LENGTH="8192"))
    await client.pull("llama3.2:1b")
    assert (await client.ps()).models == []
    began = time.monotonic()
    loaded = await client.generate("llama3.2:1b")
    assert loaded.done_reason == "load"
    assert 0.3 <= time.monotonic() - began < 2
    [running] = (await client.ps()).models
    assert (running.model, running.context_length, running.size_vram) == ("llama3.2:1b", 8192, 0)
    assert running.expires_at is not None
    assert running.expires_at.year > 2200, "for ever"
    again = await client.generate("llama3.2:1b", "x", options={"num_predict": 1})
    assert (again.load_duration or 0) < 0.1e9
    assert (await client.generate("llama3.2:1b", keep_alive=0)).done_reason == "unload"
    await asyncio.sleep(0.05)
    assert (await client.ps()).models == []


async def test_an_idle_model_goes_when_its_keep_alive_is_over(client: ollama.AsyncClient) -> None:
    await client.chat("llama3.2:1b", HI, keep_alive=0.2)
    assert len((await client.ps()).models) == 1
    await asyncio.sleep(0.5)
    assert (await client.ps()).models == []


async def test_a_keep_alive_does_not_cut_a_running_request(start_ollama: StartOllama) -> None:
    client = client_of(
        await start_ollama(settings=Settings(load_seconds=0, output_tokens_per_second=50, pull_seconds=0))
    )
    await client.pull("llama3.2:1b")
    answer = await client.chat("llama3.2:1b", HI, keep_alive="10ms", options={"num_predict": 30})
    assert answer.eval_count == 30


async def test_one_request_at_a_time_unless_told_otherwise(start_ollama: StartOllama, tmp_path: Path) -> None:
    settings = Settings(load_seconds=0, output_tokens_per_second=100, pull_seconds=0, prefill_overhead_seconds=0)

    async def duration_of_four(parallel: str) -> float:
        client = client_of(await start_ollama(settings=settings, OLLAMA_NUM_PARALLEL=parallel))
        await client.pull("llama3.2:1b")
        await client.generate("llama3.2:1b")
        began = time.monotonic()
        await asyncio.gather(*(client.generate("llama3.2:1b", "x", options={"num_predict": 20}) for _ in range(4)))
        return time.monotonic() - began

    assert await duration_of_four("1") > 2 * await duration_of_four("4")


async def test_a_full_queue_answers_503(start_ollama: StartOllama) -> None:
    settings = Settings(load_seconds=1.0, pull_seconds=0)
    client = client_of(await start_ollama(settings=settings, OLLAMA_MAX_QUEUE="1"))
    await client.pull("llama3.2:1b")
    waiting = asyncio.create_task(client.generate("llama3.2:1b"))
    await asyncio.sleep(0.2)
    with pytest.raises(ollama.ResponseError, match="maximum pending requests exceeded") as refused:
        await client.generate("llama3.2:1b")
    assert refused.value.status_code == 503
    assert (await waiting).done_reason == "load"


async def test_a_load_that_takes_too_long_fails(start_ollama: StartOllama) -> None:
    settings = Settings(load_seconds=5.0, pull_seconds=0)
    client = client_of(await start_ollama(settings=settings, OLLAMA_LOAD_TIMEOUT="100ms"))
    await client.pull("llama3.2:1b")
    with pytest.raises(ollama.ResponseError, match="timed out waiting for llama runner to start") as failed:
        await client.generate("llama3.2:1b")
    assert failed.value.status_code == 500


async def test_too_many_models_push_the_idle_one_out(start_ollama: StartOllama) -> None:
    client = client_of(await start_ollama(OLLAMA_MAX_LOADED_MODELS="1"))
    for name in ("llama3.2:1b", "qwen3:4b"):
        await client.pull(name)
        await client.generate(name)
    assert [model.model for model in (await client.ps()).models] == ["qwen3:4b"]


async def test_another_context_length_loads_the_model_anew(client: ollama.AsyncClient) -> None:
    await client.generate("llama3.2:1b")
    await client.generate("llama3.2:1b", "x", options={"num_ctx": 2048})
    assert [model.context_length for model in (await client.ps()).models] == [2048]


async def test_a_model_can_be_made_of_another(client: ollama.AsyncClient) -> None:
    await client.create("pirate", from_="llama3.2:1b", system="Arr.", parameters={"num_ctx": 1024})
    shown = await client.show("pirate")
    assert shown.modelfile is not None
    assert 'SYSTEM """Arr."""' in shown.modelfile
    assert "num_ctx" in (shown.parameters or "")
    await client.generate("pirate", "x")
    assert (await client.ps()).models[0].context_length == 1024


async def test_blobs_are_checked(client: ollama.AsyncClient, ollama_server: Ollama, tmp_path: Path) -> None:
    file = tmp_path / "not.gguf"
    file.write_bytes(b"no model")
    digest = await client.create_blob(str(file))
    with pytest.raises(ollama.ResponseError, match="invalid file magic"):
        await client.create("broken", files={"not.gguf": digest})
    wrong = "sha256:" + "0" * 64
    async with httpx.AsyncClient(trust_env=False) as http:
        refused = await http.post(f"{ollama_server.url}/api/blobs/{wrong}", content=b"x")
        assert (await http.head(f"{ollama_server.url}/api/blobs/{wrong}")).status_code == 404
    assert refused.status_code == 400
    assert "digest mismatch" in refused.json()["error"]


async def test_the_openai_api(client: ollama.AsyncClient, ollama_server: Ollama) -> None:
    async with openai_client(ollama_server.url) as openai_:
        whole = await openai_.chat.completions.create(model="llama3.2:1b", messages=HI, max_tokens=9, seed=1)
        assert (whole.system_fingerprint, whole.choices[0].finish_reason) == ("fp_ollama", "length")
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 9
        stream = await openai_.chat.completions.create(
            model="llama3.2:1b", messages=HI, max_tokens=9, seed=1, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert (
            "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
        )
        assert chunks[-1].usage == whole.usage
        assert chunks[-2].choices[0].finish_reason == "length"
        text = await openai_.completions.create(model="llama3.2:1b", prompt="x", max_tokens=3)
        assert text.choices[0].finish_reason == "length"
        assert [(model.id, model.owned_by) async for model in openai_.models.list()] == [("llama3.2:1b", "library")]
        assert (await openai_.models.retrieve("llama3.2:1b")).id == "llama3.2:1b"
        tool = await openai_.chat.completions.create(
            model="llama3.2:1b", messages=[{"role": "user", "content": "get_weather"}], tools=[WEATHER]
        )
        assert tool.choices[0].finish_reason == "tool_calls"


async def test_openai_embeddings(client: ollama.AsyncClient, ollama_server: Ollama) -> None:
    await client.pull("nomic-embed-text")
    async with openai_client(ollama_server.url) as openai_:
        found = await openai_.embeddings.create(model="nomic-embed-text", input=["a", "b"], dimensions=8)
        assert [len(item.embedding) for item in found.data] == [8, 8]
    raw = await post(
        ollama_server, "/v1/embeddings", {"model": "nomic-embed-text", "input": "a", "encoding_format": "base64"}
    )
    packed = base64.b64decode(raw.json()["data"][0]["embedding"])
    assert struct.unpack("<384f", packed)[:8] != ()


async def test_openai_errors(client: ollama.AsyncClient, ollama_server: Ollama) -> None:
    async with openai_client(ollama_server.url) as openai_:
        with pytest.raises(openai.NotFoundError) as unknown:
            await openai_.chat.completions.create(model="nope", messages=HI)
    assert unknown.value.body == {"message": "model 'nope' not found", "type": "api_error", "param": None, "code": None}
    bad = await post(ollama_server, "/v1/chat/completions", {"model": "llama3.2:1b", "messages": [{"role": "user"}]})
    assert (bad.status_code, bad.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_small_things(ollama_server: Ollama) -> None:
    async with httpx.AsyncClient(trust_env=False, base_url=ollama_server.url) as http:
        assert (await http.get("/")).text == "Ollama is running"
        assert (await http.head("/")).status_code == 200
        assert (await http.get("/api/version")).json() == {"version": "0.32.15"}
        assert (await http.get("/metrics")).status_code == 404
        assert (await http.get("/api/generate")).status_code == 405
        assert (await http.post("/api/chat", content=b"")).json() == {"error": "missing request body"}
        assert (await http.post("/api/chat", content=b"{")).status_code == 400
        assert (await http.post("/api/chat", json=[1])).status_code == 400
        assert (await http.post("/api/chat", json={"model": 5})).status_code == 400
        assert (await http.get("/v1/models")).json() == {"object": "list", "data": None}


async def test_a_stream_that_is_unloaded_ends_with_an_error_line(start_ollama: StartOllama) -> None:
    server = await start_ollama(settings=Settings(load_seconds=0, output_tokens_per_second=50, pull_seconds=0))
    client = client_of(server)
    await client.pull("llama3.2:1b")
    stream = await client.chat("llama3.2:1b", HI, options={"num_predict": 500}, stream=True)
    assert not (await anext(stream)).done
    await server.service.scheduler.close()
    with pytest.raises(ollama.ResponseError, match="unexpected EOF"):
        _rest = [chunk async for chunk in stream]
