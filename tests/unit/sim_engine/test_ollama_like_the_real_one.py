"""The same questions to the simulator and to a real Ollama: status, content type and shape of every answer must agree.

The real one is what `make engines` builds (CPU only, 0.17.4). Texts and numbers differ by nature; what is compared is
what clients depend on: HTTP status, content type, JSON keys and types, the words of errors, the command's exit codes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.unit.sim_engine.servers import bare_environment, free_port, status_of

from fairlead_cluster.engines import find_ollama
from fairlead_cluster.registry import Registry
from fairlead_cluster.tinymodel import write_tiny_model

REAL = find_ollama()
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(REAL is None, reason="no real Ollama: `make engines` builds one"),
]


@dataclass(frozen=True)
class Server:
    """A server, real or not, and its command."""

    url: str
    command: tuple[str, ...]
    environment: dict[str, str]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`ollama ARGUMENTS`."""
        return subprocess.run(
            [*self.command, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a tiny model in a registry on loopback."""
    weights = write_tiny_model(tmp_path_factory.mktemp("weights") / "tiny.gguf")
    with Registry() as served:
        yield served.publish("library/tiny:latest", weights)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, registry: str) -> Iterator[tuple[Server, Server]]:
    """The real server and the simulated one, each with the model as `tiny`."""
    servers, processes = [], []
    try:
        for command in ((str(REAL),), (sys.executable, "-m", "fairlead_sim", "ollama")):
            home = tmp_path_factory.mktemp("home")
            port = free_port()
            environment = bare_environment(
                home, OLLAMA_HOST=f"127.0.0.1:{port}", OLLAMA_NO_CLOUD="1", OLLAMA_KEEP_ALIVE="-1"
            )
            environment |= {"FAIRLEAD_SIM_OLLAMA_VERSION": "0.17.4", "OLLAMA_CONTEXT_LENGTH": "512"}
            processes.append(
                subprocess.Popen(
                    [*command, "serve"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            )
            servers.append(Server(f"http://127.0.0.1:{port}", command, environment))
        for server in servers:
            deadline = time.monotonic() + 60
            while status_of(server.url + "/") != 200:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert server.run("pull", "--insecure", registry).returncode == 0
            assert server.run("cp", registry, "tiny").returncode == 0
        yield servers[0], servers[1]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(20)


def shape(value: Any) -> Any:
    """Keys and types; of a list that of its first entry."""
    if isinstance(value, dict):
        return {key: shape(entry) for key, entry in sorted(value.items())}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def describe(response: httpx.Response) -> dict[str, Any]:
    """What two servers must agree on."""
    kind = response.headers.get("content-type", "").partition(";")[0]
    described: dict[str, Any] = {"status": response.status_code, "type": kind}
    if response.request.method == "HEAD":
        return described
    if kind == "application/json":
        body = response.json()
        described["body"] = body if response.status_code >= 400 else shape(body)
    elif kind == "application/x-ndjson":
        lines = [json.loads(line) for line in response.text.splitlines()]
        described |= {
            "first": shape(lines[0]),
            "last": shape(lines[-1]),
            "status words": [lines[0].get("status"), lines[-1].get("status")],
        }
    elif kind == "text/event-stream":
        events = [event.removeprefix("data: ") for event in response.text.split("\n\n") if event]
        described |= {
            "first": shape(json.loads(events[0])),
            "before the end": shape(json.loads(events[-2])),
            "end": events[-1],
        }
    else:
        described["text"] = response.text
    return described


MESSAGES = [{"role": "user", "content": "Hello there"}]
OPTIONS = {"num_predict": 5, "seed": 1, "temperature": 0}
CALLS: list[tuple[str, str, Any]] = [
    ("GET", "/", None),
    ("HEAD", "/", None),
    ("GET", "/api/version", None),
    ("GET", "/api/tags", None),
    ("GET", "/api/nothing", None),
    ("GET", "/api/generate", None),
    ("POST", "/api/generate", {"model": "tiny"}),
    ("GET", "/api/ps", None),
    ("POST", "/api/generate", {"model": "tiny", "prompt": "Hello", "options": OPTIONS}),
    ("POST", "/api/chat", {"model": "tiny", "messages": MESSAGES, "options": OPTIONS}),
    ("POST", "/api/chat", {"model": "tiny", "messages": MESSAGES, "options": OPTIONS, "stream": False}),
    ("POST", "/api/chat", {"model": "tiny"}),
    ("POST", "/api/chat", {"model": "nope", "messages": MESSAGES}),
    ("POST", "/api/chat", {"messages": MESSAGES}),
    ("POST", "/api/generate", {"model": "nope", "prompt": "x"}),
    ("POST", "/api/generate", {"model": "bad name!", "prompt": "x"}),
    ("POST", "/api/chat", {"model": "tiny", "messages": MESSAGES, "tools": [{"type": "function", "function": {"name": "f"}}]}),
    ("POST", "/api/show", {"model": "nope"}),
    ("POST", "/api/show", {}),
    ("POST", "/api/embed", {"model": "nope", "input": "x"}),
    ("POST", "/api/embed", {"model": "tiny", "input": 5}),
    ("POST", "/api/embeddings", {"model": "nope", "prompt": "x"}),
    ("POST", "/api/copy", {"source": "nope", "destination": "other"}),
    ("POST", "/api/copy", {"source": "tiny", "destination": "bad name!"}),
    ("POST", "/api/copy", {"source": "tiny", "destination": "other"}),
    ("DELETE", "/api/delete", {"model": "other"}),
    ("DELETE", "/api/delete", {"model": "other"}),
    ("POST", "/api/pull", {"model": "bad name!"}),
    ("POST", "/api/create", {"model": "made", "from": "tiny", "system": "Be brief."}),
    ("POST", "/api/create", {"model": "made"}),
    ("HEAD", "/api/blobs/sha256:" + "0" * 64, None),
    ("POST", "/v1/chat/completions", {"model": "tiny", "messages": MESSAGES, "max_tokens": 5}),
    ("POST", "/v1/chat/completions", {"model": "tiny", "messages": MESSAGES, "max_tokens": 5, "stream": True}),
    ("POST", "/v1/chat/completions", {"model": "tiny", "messages": MESSAGES, "max_tokens": 5, "stream": True,
                                      "stream_options": {"include_usage": True}}),
    ("POST", "/v1/chat/completions", {"model": "nope", "messages": MESSAGES}),
    ("POST", "/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": [{"type": "audio"}]}]}),
    ("POST", "/v1/completions", {"model": "tiny", "prompt": "Hello", "max_tokens": 5}),
    ("POST", "/v1/completions", {"model": "tiny", "prompt": "Hello", "max_tokens": 5, "stream": True,
                                 "stream_options": {"include_usage": True}}),
    ("POST", "/v1/embeddings", {"model": "nope", "input": "x"}),
    ("POST", "/v1/embeddings", {"model": "tiny", "input": ""}),
    ("POST", "/v1/embeddings", {"model": "tiny", "input": []}),
    ("POST", "/api/embed", {"model": "tiny", "input": ["a", "b"]}),
    ("POST", "/api/embed", {"model": "tiny", "input": []}),
    ("POST", "/api/embeddings", {"model": "tiny", "prompt": "a"}),
    ("POST", "/api/generate", {"model": "tiny", "prompt": "x", "options": OPTIONS, "stream": False}),
    ("POST", "/api/generate", {"model": "tiny", "prompt": "x", "options": OPTIONS, "stream": False, "format": "json"}),
    ("GET", "/v1/models", None),
    ("GET", "/v1/models/tiny", None),
    ("GET", "/v1/models/nope", None),
    ("POST", "/api/generate", {"model": "tiny", "keep_alive": 0}),
    ("GET", "/metrics", None),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body"), CALLS, ids=lambda value: json.dumps(value)[:70])
def test_answers_agree(both: tuple[Server, Server], method: str, path: str, body: Any) -> None:
    described = []
    for server in both:
        with httpx.Client(trust_env=False, timeout=60, base_url=server.url) as client:
            described.append(describe(client.request(method, path, json=body)))
    real, simulated = described
    assert simulated == real


def test_a_pull_of_what_does_not_exist_agrees(both: tuple[Server, Server], registry: str) -> None:
    name = registry.replace("/tiny", "/nothing")
    described = []
    for server in both:
        with httpx.Client(trust_env=False, timeout=60, base_url=server.url) as client:
            streamed = client.post("/api/pull", json={"model": name, "insecure": True})
            whole = client.post("/api/pull", json={"model": name, "insecure": True, "stream": False})
            described.append((streamed.status_code, streamed.text, whole.status_code, whole.json()))
    assert described[1] == described[0]


def words(text: str) -> list[str]:
    """A command's output without what differs by nature: numbers, digests, ages, the width of columns, the order."""
    text = re.sub(r"[0-9a-f]{12}", "DIGEST", text)
    text = re.sub(r"(\d+ \w+|Less than a second|About a minute) (ago|from now)", "TIME", text)
    text = re.sub(r"\d+(\.\d+)?", "N", re.sub(r" +", " ", text))
    return sorted(line.strip() for line in text.splitlines())


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["list"], ["ls"], ["ps"], ["show", "tiny"], ["show", "nope"], ["cp", "nope", "x"], ["cp", "tiny", "again"],
     ["rm", "again"], ["rm", "nope"], ["stop", "nope"], ["stop", "tiny"], ["run", "tiny", ""]],
    ids=" ".join,
)  # fmt: skip
def test_commands_agree(both: tuple[Server, Server], arguments: list[str]) -> None:
    ended = [server.run(*arguments) for server in both]
    real, simulated = ended
    assert simulated.returncode == real.returncode
    assert words(simulated.stdout) == words(real.stdout)
    # The real one shows its spinner even in a file, and no newline comes before the error then.
    errors = [re.findall(r"^.*Error: .*$", end.stderr, re.MULTILINE) for end in ended]
    assert errors[1] == errors[0]


def test_a_volume_filled_by_the_simulator_is_read_by_the_real_one(both: tuple[Server, Server], tmp_path: Path) -> None:
    assert REAL is not None
    simulated = both[1]
    port = free_port()
    environment = {**bare_environment(tmp_path), "OLLAMA_HOST": f"127.0.0.1:{port}", "OLLAMA_NOPRUNE": "1"}
    environment["OLLAMA_MODELS"] = str(Path(simulated.environment["HOME"]) / ".ollama" / "models")
    process = subprocess.Popen([REAL, "serve"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while status_of(f"http://127.0.0.1:{port}/") != 200:
            time.sleep(0.1)
        server = Server(f"http://127.0.0.1:{port}", (os.fspath(REAL),), environment)
        listed = server.run("list")
        assert re.search(r"^tiny:latest ", listed.stdout, re.MULTILINE), listed.stderr
        assert server.run("run", "tiny", "").returncode == 0
    finally:
        process.terminate()
        process.wait(20)
