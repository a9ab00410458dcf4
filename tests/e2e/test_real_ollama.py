"""The pods that fairlead plans for Ollama, run with the real Ollama, a real model file and a stand-in for its registry.

What the engine file believes about `ollama` (exit codes, last words, what is downloaded when) is true here or nowhere.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import APIError, OpenAI
from tests.e2e.ollama_pod import Ended, OllamaPod, plan_pod_template

from fairlead.api.conditions import Reason
from fairlead.planning.deployment.trouble import diagnose_container
from fairlead_cluster.engines import find_ollama
from fairlead_cluster.ports import free_ports
from fairlead_cluster.processes import wait_until
from fairlead_cluster.registry import Registry
from fairlead_cluster.tinymodel import TinyModel, write_tiny_model

pytestmark = [pytest.mark.long, pytest.mark.alone]

PLAIN_HTTP = {"name": "FAIRLEAD_PULL_INSECURE", "value": "1"}
MEGABYTE = 1_000_000
#: For what takes a second or two on an idle machine.
READY_S = 60.0
#: What ends at once; what waited instead would wait for a download, for a stream, or until it is killed.
AT_ONCE_S = 8.0


@pytest.fixture(scope="module")
def binaries() -> Path:
    """The folder of the real `ollama`. Skips where it is not built; CI has to build it."""
    ollama = find_ollama()
    if ollama is None:
        message = "the real Ollama is not built: run `make engines` (about 4 minutes)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return ollama.parent


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model files: tiny and another tiny one, one that embeds, one of some megabytes, and a broken one."""
    folder = tmp_path_factory.mktemp("models")
    write_tiny_model(folder / "tiny.gguf")
    write_tiny_model(folder / "other.gguf", TinyModel("other", seed=1))
    write_tiny_model(folder / "embed.gguf", TinyModel("tiny-embed", embeds=True))
    write_tiny_model(folder / "slow.gguf", TinyModel("tiny-slow", embedding_length=512, blocks=4))
    damaged = (folder / "tiny.gguf").read_bytes().replace(b"blk.1.ffn_up.weight", b"blk.1.fxx_up.weight")
    (folder / "broken.gguf").write_bytes(damaged)
    return folder


@pytest.fixture
def registry(models: Path) -> Iterator[Registry]:
    """The registry stand-in with every model as `library/NAME:latest`."""
    with Registry() as registry:
        for file in models.glob("*.gguf"):
            registry.publish(f"library/{file.stem}:latest", file)
        yield registry


PodMaker = Callable[..., OllamaPod]


@pytest.fixture
def make_pod(tmp_path: Path, binaries: Path, models: Path) -> Iterator[PodMaker]:
    """Makes pods of an LLMDeployment: `make_pod(source, cache="a", task="Embed")`; same cache, same volume."""
    pods: list[OllamaPod] = []
    numbers = itertools.count()

    def make(source: str, cache: str = "cache", env: list[dict[str, str]] | None = None, **model: Any) -> OllamaPod:
        spec = {
            "model": {"source": source, "name": "some/tiny-model.v1", **model},
            "engine": {"type": "Ollama", "env": [PLAIN_HTTP] if env is None else env},
            "context": {"maxLength": 2048, "maxSequences": 2},
            "rollout": {"drainTimeout": "20s"},
        }
        (port,) = free_ports(1)
        folder = tmp_path / f"pod-{next(numbers)}"
        pod = OllamaPod(plan_pod_template(spec), folder, port, binaries, tmp_path / cache, models)
        pods.append(pod)
        return pod

    yield make
    for pod in pods:
        pod.close()


def source(registry: Registry, name: str = "tiny") -> str:
    return f"ollama://{registry.address}/library/{name}:latest"


def serve(pod: OllamaPod) -> Any:
    """Run the init container and the engine until the pod is ready."""
    ended = pod.run_init()
    assert ended.code == 0, ended
    engine = pod.start_engine()
    assert wait_until(pod.is_ready, READY_S, interval_s=0.1), engine.log.read_text()
    return engine


def diagnose(ended: Ended) -> tuple[Reason, str]:
    """What fairlead would put into status for an init container that ended so."""
    terminated = {"exitCode": ended.code, "message": ended.last_words, "reason": "Error"}
    status = {"name": "model", "ready": False, "restartCount": 3, "lastState": {"terminated": terminated}}
    trouble = diagnose_container("tiny-0", status, 1800)
    assert trouble is not None
    return trouble.reason, trouble.message


def client(pod: OllamaPod) -> OpenAI:
    return OpenAI(base_url=pod.base_url + "/v1", api_key="none", max_retries=0, timeout=60)


def say(pod: OllamaPod, max_tokens: int, connected: OpenAI | None = None) -> Any:
    return (connected or client(pod)).chat.completions.create(
        model="some/tiny-model.v1",
        messages=[{"role": "user", "content": "hello"}],
        max_tokens=max_tokens,
        seed=7,
        stream=True,
        stream_options={"include_usage": True},
    )


def post(pod: OllamaPod, path: str, body: dict[str, Any]) -> str:
    request = urllib.request.Request(pod.base_url + path, json.dumps(body).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())


def test_a_pod_pulls_loads_and_streams_under_the_name_that_clients_use(registry: Registry, make_pod: PodMaker) -> None:
    pod = make_pod(source(registry))
    ended = pod.run_init()
    assert (ended.code, "pulling" in ended.last_words) == (0, True)
    engine = pod.start_engine()
    assert wait_until(pod.is_alive, READY_S)
    assert wait_until(pod.is_ready, READY_S), engine.log.read_text()
    assert "some/tiny-model.v1" in pod.ollama("ps")

    chunks = list(say(pod, max_tokens=40))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert len([piece for piece in pieces if piece]) > 10, "the answer must come in pieces"
    assert chunks[-1].usage.completion_tokens == 40
    assert "some/tiny-model.v1" in [model.id.removesuffix(":latest") for model in client(pod).models.list()]


def test_the_same_seed_gives_the_same_answer(registry: Registry, make_pod: PodMaker) -> None:
    pod = make_pod(source(registry))
    serve(pod)
    answers = {"".join(c.choices[0].delta.content or "" for c in say(pod, 20) if c.choices) for _ in range(2)}
    assert len(answers) == 1


def test_it_is_not_ready_before_the_model_is_loaded(registry: Registry, make_pod: PodMaker) -> None:
    pod = make_pod(source(registry))
    assert pod.run_init().code == 0
    assert not pod.is_ready()
    # An engine that has no such model: alive, and never ready.
    empty = make_pod(source(registry), cache="empty")
    engine = empty.start_engine()
    ended = engine.wait()
    assert ended.code == 1
    assert "cannot load model some/tiny-model.v1" in ended.last_words
    assert registry.blob_bytes_sent() < 2 * MEGABYTE, "the engine container must not pull"


def test_an_embedding_model_becomes_ready_and_answers(registry: Registry, make_pod: PodMaker) -> None:
    pod = make_pod(source(registry, "embed"), task="Embed")
    serve(pod)
    answer = client(pod).embeddings.create(model="some/tiny-model.v1", input=["a", "b"])
    assert [len(item.embedding) for item in answer.data] == [64, 64]


def test_a_volume_is_filled_once_also_by_three_pods_at_a_time(registry: Registry, make_pod: PodMaker) -> None:
    pods = [make_pod(source(registry, "slow")) for _ in range(3)]
    registry.throttle(10 * MEGABYTE)
    ended = [container.wait() for container in [pod.start_init() for pod in pods]]
    assert [end.code for end in ended] == [0, 0, 0], ended
    digests = [request.path for request in registry.requests if request.is_blob_data]
    assert len(digests) == len(set(digests)) == 4, "every layer once"
    assert sum("pulling" in end.last_words for end in ended) == 1
    assert sum("is on the volume already" in end.last_words for end in ended) == 2


def test_a_killed_pod_comes_back_without_pulling_again(registry: Registry, make_pod: PodMaker) -> None:
    pod = make_pod(source(registry))
    serve(pod).kill()
    registry.forget_requests()
    serve(make_pod(source(registry)))
    assert registry.requests == []


def test_sigterm_ends_the_engine_with_success_and_cuts_streams(registry: Registry, make_pod: PodMaker) -> None:
    pod = make_pod(source(registry, "slow"))
    engine = serve(pod)
    stream = iter(say(pod, max_tokens=2000))
    next(stream)
    ended = engine.terminate()
    assert ended.code == 0, ended
    assert ended.took_s < AT_ONCE_S
    with pytest.raises((APIError, OSError, StopIteration, RuntimeError)) as caught:  # noqa: PT012
        while True:
            next(stream)
    assert caught.value is not None


def test_the_pre_stop_hook_waits_for_open_streams_and_no_longer(registry: Registry, make_pod: PodMaker) -> None:
    pod = make_pod(source(registry))
    serve(pod)
    assert pod.start_pre_stop(0, 120).wait(READY_S) == 0, "nobody is connected"
    streaming = threading.Event()
    ended_s: list[float] = []

    def consume() -> None:
        with client(pod) as connected:
            for _ in say(pod, 1500, connected):
                streaming.set()
        ended_s.append(time.monotonic())

    reader = threading.Thread(target=consume)
    reader.start()
    assert streaming.wait(READY_S)
    assert pod.start_pre_stop(0, 120).wait(120) == 0
    hook_ended_s = time.monotonic()
    reader.join()
    assert hook_ended_s > ended_s[0] - 0.5, "a stream was open"
    assert hook_ended_s < ended_s[0] + AT_ONCE_S, "nobody was connected any more"


def test_the_pre_stop_hook_gives_up_after_the_drain_time(registry: Registry, make_pod: PodMaker) -> None:
    pod = make_pod(source(registry))
    serve(pod)
    host, _, port = pod.base_url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))):
        started_s = time.monotonic()
        assert pod.start_pre_stop(1, 2).wait(READY_S) == 0
        assert time.monotonic() - started_s > 2.5, "delay and drain time"


def test_a_model_that_a_client_unloads_is_loaded_again(registry: Registry, make_pod: PodMaker) -> None:
    pod = make_pod(source(registry))
    serve(pod)
    post(pod, "/api/generate", {"model": "some/tiny-model.v1", "keep_alive": 0})
    assert not pod.is_ready()
    assert wait_until(pod.is_ready, READY_S, interval_s=0.2)


@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        (None, Reason.MODEL_NOT_FOUND, "file does not exist"),
        (403, Reason.MODEL_ACCESS_DENIED, "403"),
        (503, Reason.CRASH_LOOP, "503"),
    ],
)
def test_a_refused_pull_ends_with_words_that_status_can_use(
    registry: Registry, make_pod: PodMaker, fault: int | None, reason: Reason, words: str
) -> None:
    if fault is not None:
        registry.fail("GET .*/manifests/", fault)
    ended = make_pod(source(registry, "no-such" if fault is None else "tiny")).run_init()
    assert ended.code == 1
    assert words in ended.last_words
    assert diagnose(ended)[0] is reason
    assert words in diagnose(ended)[1]


def test_a_registry_that_is_not_there_is_named(make_pod: PodMaker) -> None:
    (port,) = free_ports(1)
    ended = make_pod(f"ollama://127.0.0.1:{port}/library/tiny:latest").run_init()
    assert ended.code == 1
    assert "connection refused" in ended.last_words
    reason, message = diagnose(ended)
    assert reason is Reason.CRASH_LOOP
    assert "connection refused" in message


def test_plain_http_is_only_spoken_when_the_deployment_says_so(registry: Registry, make_pod: PodMaker) -> None:
    ended = make_pod(source(registry), env=[]).run_init()
    assert ended.code == 1
    assert "tls" in ended.last_words
    assert registry.requests == []


def test_a_registry_that_stumbles_is_asked_again(registry: Registry, make_pod: PodMaker) -> None:
    registry.fail("GET .*/blobs/", 503, times=2)
    assert make_pod(source(registry)).run_init().code == 0


def test_a_pull_ends_at_once_on_sigterm_and_goes_on_where_it_was(
    registry: Registry, make_pod: PodMaker, models: Path
) -> None:
    registry.throttle(2 * MEGABYTE)
    pulling = make_pod(source(registry, "slow")).start_init()
    assert wait_until(lambda: any("/blobs/" in r.path for r in registry.requests), READY_S)
    time.sleep(3)
    ended = pulling.terminate()
    assert ended.code == 143
    assert ended.took_s < AT_ONCE_S
    assert wait_until(lambda: registry.blob_bytes_sent() > 2 * MEGABYTE, READY_S), "the aborted part is in the log"
    registry.throttle(None)
    registry.forget_requests()
    assert make_pod(source(registry, "slow")).run_init().code == 0
    assert MEGABYTE < registry.blob_bytes_sent() < models.joinpath("slow.gguf").stat().st_size - 2 * MEGABYTE


def test_a_pod_that_waits_for_its_turn_ends_at_once_on_sigterm(registry: Registry, make_pod: PodMaker) -> None:
    registry.throttle(MEGABYTE)
    first = make_pod(source(registry, "slow")).start_init()
    first.wait_for_log("pulling")
    second = make_pod(source(registry, "slow")).start_init()
    time.sleep(1)
    assert second.process.poll() is None
    ended = second.terminate()
    assert ended.code == 143
    assert ended.took_s < AT_ONCE_S
    first.kill()


def test_a_file_on_a_volume_is_imported_once_and_again_when_it_changes(
    make_pod: PodMaker, models: Path, tmp_path: Path
) -> None:
    volume = tmp_path / "claim"
    volume.mkdir()
    (volume / "model.gguf").write_bytes((models / "tiny.gguf").read_bytes())

    def make() -> OllamaPod:
        pod = make_pod("pvc://claim/model.gguf", env=[])
        pod._volumes["fairlead-model"] = volume
        return pod

    first = make()
    serve(first)
    said = "".join(c.choices[0].delta.content or "" for c in say(first, 20) if c.choices)
    assert "importing" not in make().run_init().last_words
    (volume / "model.gguf").write_bytes((models / "other.gguf").read_bytes() + b"\0" * 32)
    again = make()
    ended = again.run_init()
    assert "importing" in ended.last_words, ended
    again.start_engine()
    assert wait_until(again.is_ready, READY_S, interval_s=0.1)
    assert "".join(c.choices[0].delta.content or "" for c in say(again, 20) if c.choices) != said


def test_a_file_that_is_not_there_or_no_model_is_refused_in_so_many_words(make_pod: PodMaker, models: Path) -> None:
    ended = make_pod("pvc://claim/missing.gguf", env=[]).run_init()
    assert ended.code == 1
    assert diagnose(ended)[0] is Reason.MODEL_NOT_FOUND
    (models / "junk.gguf").write_bytes(b"no model at all" * 100)
    ended = make_pod("pvc://claim/junk.gguf", env=[], name="junk").run_init()
    assert ended.code == 1
    assert "not in GGUF format" in ended.last_words


def test_a_model_that_cannot_be_loaded_is_quoted(make_pod: PodMaker) -> None:
    pod = make_pod("pvc://claim/broken.gguf", env=[])
    assert pod.run_init().code == 0, "only loading finds a missing tensor"
    engine = pod.start_engine()
    ended = engine.wait()
    assert ended.code == 1
    quoted, tensor = ended.last_words.splitlines()[-1], "missing tensor 'blk.1.ffn_up.weight'"
    # A runner of Ollama's that dies before it has answered leaves it without a reason: it then points to its own log, which is this one.
    assert tensor in quoted or "check ollama server logs" in quoted, ended
    assert tensor in engine.log.read_text()
