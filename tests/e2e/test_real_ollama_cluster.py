"""The real Ollama in the local cluster: from `kubectl apply` to real tokens, a killed pod, a drain, and words for failures.

Everything is real but the nodes: API server, controllers, scheduler, operator, Ollama, the model file, its download.
"""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import NotFoundError, OpenAI, OpenAIError
from tests.cluster.operator_world import World, until

from fairlead_cluster.build import find
from fairlead_cluster.certificates import Authority
from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.engines import find_ollama
from fairlead_cluster.node.options import Engines, Options
from fairlead_cluster.registry import Registry
from fairlead_cluster.tinymodel import TinyModel, write_tiny_model

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.alone]

Json = dict[str, Any]
READY_S = 90.0
SERVED = "acme/tiny.v1"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A cluster whose pods run the real Ollama, with the operator."""
    binaries = find()
    missing = []
    if binaries is None:
        missing.append("the control plane (`make control-plane`)")
    if find_ollama() is None:
        missing.append("the real Ollama (`make engines`)")
    if missing:
        message = f"not built: {' and '.join(missing)}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    options = Options(engines=Engines.REAL, crash_back_off_s=1.0)
    directory = tmp_path_factory.mktemp("real-ollama")
    with LocalCluster(directory, node_options=options, operator=True, binaries=binaries) as running:
        yield running


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and a bigger one."""
    folder = tmp_path_factory.mktemp("models")
    write_tiny_model(folder / "tiny.gguf")
    write_tiny_model(folder / "bigger.gguf", TinyModel("bigger", embedding_length=256, blocks=4))
    return folder


@pytest.fixture
def registry(models: Path) -> Iterator[Registry]:
    """The registry stand-in."""
    with Registry() as registry:
        for file in models.glob("*.gguf"):
            registry.publish(f"library/{file.stem}:latest", file)
        yield registry


@pytest.fixture
def world(cluster: LocalCluster) -> Iterator[World]:
    """A fresh namespace."""
    with cluster.namespace("ollama") as name:
        yield World(cluster, name)


def make_cr(world: World, registry: Registry, model: str = "tiny", **spec: Any) -> Json:
    """An Ollama model on CPU from the stand-in."""
    base: Json = {
        "model": {"source": f"ollama://{registry.address}/library/{model}:latest", "name": SERVED},
        "engine": {"type": "Ollama", "env": [{"name": "FAIRLEAD_PULL_INSECURE", "value": "1"}]},
        "context": {"maxLength": 2048, "maxSequences": 4},
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
        "rollout": {"drainTimeout": "30s"},
    }
    metadata = {"name": "tiny", "namespace": world.namespace}
    return {"apiVersion": "fairlead.dev/v1alpha1", "kind": "LLMDeployment", "metadata": metadata, "spec": base | spec}


def wait_ready(world: World) -> None:
    """As a user waits."""
    world.kubectl("wait", "llmdeployment/tiny", "--for=condition=Ready", f"--timeout={READY_S:.0f}s")


def pods(world: World) -> list[str]:
    return world.names("pods")


def client(world: World) -> OpenAI:
    """The official client, at the Service; a connection for each request, as independent clients have."""
    url = world.cluster.service_url(world.namespace, "tiny", 80)
    http = httpx2.Client(limits=httpx2.Limits(max_keepalive_connections=0), trust_env=False, timeout=60)
    return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, http_client=http)


def stream(world: World, max_tokens: int) -> tuple[str, int, str | None]:
    """Text, number of pieces and the finish reason of one streamed answer."""
    pieces: list[str] = []
    finish: str | None = None
    with client(world) as connected:
        chunks = connected.chat.completions.create(
            model=SERVED, messages=[{"role": "user", "content": "hello"}], max_tokens=max_tokens, stream=True, seed=1
        )
        for chunk in chunks:
            for choice in chunk.choices:
                pieces += [choice.delta.content] if choice.delta.content else []
                finish = choice.finish_reason or finish
    return "".join(pieces), len(pieces), finish


def test_from_yaml_to_real_tokens_and_a_killed_pod_does_not_pull_again(
    world: World, registry: Registry, models: Path
) -> None:
    storage = {"type": "PersistentVolumeClaim", "size": "1Gi"}
    world.apply(make_cr(world, registry, storage=storage))
    wait_ready(world)
    text, count, finish = stream(world, 40)
    assert (finish, count > 10, bool(text.strip())) == ("length", True, True)
    assert registry.blob_bytes_sent() > (models / "tiny.gguf").stat().st_size
    status = world.status("tiny")
    assert status["model"]["name"] == SERVED
    assert status["readyReplicas"] == 1

    registry.forget_requests()
    (old,) = pods(world)
    world.kubectl("delete", "pod", old, "--grace-period=0", "--force")
    until(lambda: old not in pods(world) and len(pods(world)) == 1, "a new pod")
    world.kubectl("wait", "pod", pods(world)[0], "--for=condition=Ready", f"--timeout={READY_S:.0f}s")
    wait_ready(world)
    assert registry.requests == [], "the model is on the volume"
    assert stream(world, 10)[2] == "length"


def test_a_rollout_drains_open_streams(world: World, registry: Registry) -> None:
    world.apply(make_cr(world, registry, "bigger"))
    wait_ready(world)
    results: list[tuple[str, int, str | None] | OpenAIError] = []

    def ask() -> None:
        try:
            results.append(stream(world, 1200))
        except OpenAIError as error:
            results.append(error)

    readers = [threading.Thread(target=ask) for _ in range(3)]
    for reader in readers:
        reader.start()
    time.sleep(0.5)
    (old,) = pods(world)
    world.patch("llmdeployment/tiny", '{"spec": {"context": {"maxLength": 1024}}}')
    until(lambda: (world.get(f"pod/{old}") or {}).get("metadata", {}).get("deletionTimestamp"), "the old pod is going")
    assert results == [], "the streams must outlast the edit, or this test says nothing"
    until(lambda: old not in pods(world) and len(pods(world)) == 1, "the old pod is gone", timeout_s=READY_S)
    for reader in readers:
        reader.join(60)
    assert [result if isinstance(result, OpenAIError) else result[2] for result in results] == ["length"] * 3
    wait_ready(world)
    assert stream(world, 10)[2] == "length"


def test_three_replicas_on_one_shared_volume_pull_once(world: World, registry: Registry, models: Path) -> None:
    storage = {"type": "PersistentVolumeClaim", "size": "1Gi", "accessModes": ["ReadWriteMany"]}
    world.apply(make_cr(world, registry, "bigger", storage=storage, replicas=3))
    wait_ready(world)
    layers = [request.path for request in registry.requests if request.is_blob_data]
    assert len(layers) == len(set(layers)) == 4
    assert len(pods(world)) == 3


def test_a_model_that_the_registry_does_not_have_is_named_in_status(world: World, registry: Registry) -> None:
    world.apply(make_cr(world, registry, "no-such"))
    condition = world.wait_stalled("tiny", "ModelNotFound")
    assert "file does not exist" in condition["message"]
    assert world.condition("tiny", "Ready")["status"] == "False"


def test_a_registry_that_denies_access_is_named_in_status(world: World, registry: Registry) -> None:
    registry.fail("GET .*/manifests/", 403, times=1000)
    world.apply(make_cr(world, registry))
    assert "403" in world.wait_stalled("tiny", "ModelAccessDenied")["message"]


def test_a_registry_that_comes_back_heals_without_a_person(world: World, registry: Registry) -> None:
    registry.fail("GET .*/manifests/", 503, times=2)
    world.apply(make_cr(world, registry))
    wait_ready(world)
    assert world.condition("tiny", "Stalled")["status"] == "False"


def make_route(world: World) -> Json:
    """Everything that comes is Restricted, so that it goes to the engine by TLS or nowhere."""
    everything = ["Public", "Internal", "Confidential", "Restricted"]
    return {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "LLMRoute",
        "metadata": {"name": "assistants", "namespace": world.namespace},
        "spec": {
            "gateway": {"replicas": 1, "drainTimeout": "1s"},
            "backends": [{"name": "local", "deployment": {"name": "tiny"}}],
            "models": [{"name": "chat", "targets": [{"backend": "local"}], "affinity": {"promptPrefix": {}}}],
            "authentication": {"anonymous": {"role": "all"}},
            "roles": [{"name": "all", "llmAccess": ["Local"], "dataAccess": everything}],
            "dataPolicy": {"default": "Restricted"},
        },
    }


def test_a_route_in_front_of_it_serves_the_official_client_by_tls(world: World, registry: Registry) -> None:
    """The real engine, on the loopback address behind its TLS, behind the gateway."""
    authority = Authority("engines-ca")
    issued = authority.issue("tiny", [f"tiny.{world.namespace}.svc"])
    data = {"tls.crt": issued.cert, "tls.key": issued.key, "ca.crt": authority.cert}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "tiny-tls", "namespace": world.namespace},
        "data": {name: base64.b64encode(value).decode() for name, value in data.items()},
    }
    # A variable of the test's own speaks for no engine that keeps what it is sent; this operator trusts the image.
    world.apply(
        secret, make_cr(world, registry, encryption={"certificate": {"secretName": "tiny-tls"}}), make_route(world)
    )
    wait_ready(world)
    world.kubectl("wait", "llmroute/assistants", "--for=condition=Ready", f"--timeout={READY_S:.0f}s")
    url = world.cluster.service_url(world.namespace, "assistants-gateway", 80)
    http = httpx2.Client(trust_env=False, timeout=60)
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, http_client=http) as connected:
        hello = [{"role": "user", "content": "hello"}]
        assert [model.id for model in connected.models.list()] == ["chat"]
        raw = connected.chat.completions.with_raw_response.create(model="chat", messages=hello, max_tokens=12)  # type: ignore[call-overload]
        assert (raw.headers["x-fairlead-class"], raw.headers["x-fairlead-backend"]) == ("Restricted", "local")
        answer = raw.parse()
        assert answer.choices[0].message.content
        assert answer.usage.completion_tokens > 0
        pieces, usage = [], None
        for chunk in connected.chat.completions.create(  # type: ignore[call-overload]
            model="chat", messages=hello, max_tokens=40, stream=True, stream_options={"include_usage": True}
        ):
            pieces += [choice.delta.content for choice in chunk.choices if choice.delta.content]
            usage = chunk.usage or usage
        assert len(pieces) > 10
        assert usage is not None
        assert usage.completion_tokens >= len(pieces)
        assert connected.completions.create(model="chat", prompt="hello", max_tokens=8).choices[0].text
        with pytest.raises(NotFoundError):
            connected.chat.completions.create(model=SERVED, messages=hello)  # type: ignore[call-overload]
