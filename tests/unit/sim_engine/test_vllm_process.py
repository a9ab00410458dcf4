"""The life of a `vllm serve` process: refused while loading, drained or aborted at SIGTERM, dead with its engine."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from tests.unit.sim_engine.servers import Simulator, Spawn, bare_environment, free_port, status_of

MODEL = ("vllm", "serve", "org/tiny-1B", "--host", "127.0.0.1", "--served-model-name", "tiny")


def start(spawn: Spawn, *arguments: str, **environment: str) -> Simulator:
    port = free_port()
    return spawn(*MODEL, "--port", str(port), *arguments, port=port, **environment)


class Stream(threading.Thread):
    """A chat stream held open by a client of its own; its events and how it ended."""

    def __init__(self, simulator: Simulator, max_tokens: int) -> None:
        super().__init__(daemon=True)
        self._url, self._max_tokens = simulator.url + "/v1/chat/completions", max_tokens
        self.events: list[str] = []
        self.error: Exception | None = None
        self.ended_s = 0.0
        self.start()
        while not self.events and self.is_alive():
            time.sleep(0.01)

    def run(self) -> None:
        body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": self._max_tokens, "stream": True}
        try:
            with (
                httpx.Client(trust_env=False, timeout=30) as client,
                client.stream("POST", self._url, json=body) as response,
            ):
                for line in response.iter_lines():
                    if line:
                        self.events.append(line.removeprefix("data: "))
        except httpx.HTTPError as error:
            self.error = error
        self.ended_s = time.monotonic()


def test_nobody_listens_until_the_model_is_loaded(spawn: Spawn) -> None:
    simulator = start(spawn, FAIRLEAD_SIM_LOAD_SECONDS="0.7")
    refused_for_s = 0.0
    while "Loading model" not in simulator.said:
        time.sleep(0.01)
    assert status_of(simulator.url + "/health") == 0
    refused_for_s = simulator.wait_until("/health", 200)
    assert refused_for_s > 0.3
    assert status_of(simulator.url + "/v1/models") == 200
    code, seconds = simulator.end()
    assert (code, seconds < 2) == (0, True)


def test_sigterm_without_a_timeout_aborts_streams_with_an_error_event(spawn: Spawn) -> None:
    simulator = start(spawn)
    simulator.wait_until("/health", 200)
    stream = Stream(simulator, max_tokens=1000)
    sent_s = time.monotonic()
    code, _seconds = simulator.end()
    stream.join(5)
    assert code == 0
    assert stream.events[-1] == "[DONE]"
    assert json.loads(stream.events[-2])["error"]["code"] == 500
    assert stream.ended_s - sent_s < 1.0
    assert stream.error is None


def test_sigterm_with_a_timeout_lets_streams_finish_and_refuses_new_requests(spawn: Spawn) -> None:
    simulator = start(spawn, "--shutdown-timeout", "20")
    simulator.wait_until("/health", 200)
    stream = Stream(simulator, max_tokens=75)
    simulator.process.send_signal(signal.SIGTERM)
    while "mode=drain" not in simulator.said:
        time.sleep(0.01)
    assert status_of(simulator.url + "/health") == 200, "health stays green while draining"
    body = {"messages": [{"role": "user", "content": "x"}]}
    refused = httpx.Client(trust_env=False).post(simulator.url + "/v1/chat/completions", json=body)
    assert refused.status_code == 500
    assert refused.json()["error"]["message"] == "cannot schedule new futures after shutdown"
    assert simulator.process.poll() is None
    stream.join(10)
    assert stream.events[-1] == "[DONE]"
    assert json.loads(stream.events[-2])["choices"][0]["finish_reason"] == "length"
    assert simulator.process.wait(5) == 0
    assert time.monotonic() - stream.ended_s < 3, "it ends soon after the last token"


def test_a_drain_ends_when_its_time_is_over(spawn: Spawn) -> None:
    simulator = start(spawn, "--shutdown-timeout", "1")
    simulator.wait_until("/health", 200)
    stream = Stream(simulator, max_tokens=2000)
    code, seconds = simulator.end()
    stream.join(5)
    assert code == 0
    assert 1.0 <= seconds < 4
    assert json.loads(stream.events[-2])["error"]["code"] == 500


def test_sigterm_while_loading_ends_at_once(spawn: Spawn) -> None:
    simulator = start(spawn, FAIRLEAD_SIM_LOAD_SECONDS="60")
    while "Loading model" not in simulator.said:
        time.sleep(0.01)
    code, seconds = simulator.end()
    assert code == 130
    assert seconds < 2
    assert "KeyboardInterrupt: terminated" in simulator.said


def test_a_dead_engine_takes_the_server_along_with_exit_code_0(spawn: Spawn) -> None:
    simulator = start(spawn)
    simulator.wait_until("/health", 200)
    died_s = time.monotonic()
    simulator.process.send_signal(signal.SIGUSR1)
    simulator.wait_until("/health", 503)
    assert simulator.process.wait(7) == 0
    assert time.monotonic() - died_s < 7
    assert "EngineDeadError" in simulator.said


def test_a_dead_engine_can_be_kept(spawn: Spawn) -> None:
    simulator = start(spawn, FAIRLEAD_SIM_ENGINE_DEATH_AFTER_SECONDS="0.1", VLLM_KEEP_ALIVE_ON_ENGINE_DEATH="1")
    simulator.wait_until("/health", 503)
    code, _seconds = simulator.end()
    assert code == 0


def run(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fairlead_sim", *arguments],
        env=bare_environment(tmp_path, **environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_an_unknown_flag_ends_with_exit_code_2(tmp_path: Path) -> None:
    ended = run(tmp_path, *MODEL, "--swap-space", "4")
    assert ended.returncode == 2
    assert "vllm: error: unrecognized arguments: --swap-space 4" in ended.stderr


@pytest.mark.parametrize(
    ("model", "environment", "words"),
    [
        ("org/m", {"FAIRLEAD_SIM_HUB_STATUS": "401"}, ["GatedRepoError", "401 Client Error", "Please log in"]),
        ("org/m", {"FAIRLEAD_SIM_HUB_STATUS": "401", "HF_TOKEN": "hf_s3cret"}, ["RepositoryNotFoundError", "Invalid credentials"]),
        ("org/m", {"FAIRLEAD_SIM_HUB_STATUS": "403", "HF_TOKEN": "hf_s3cret"}, ["GatedRepoError", "403 Client Error"]),
        ("org/m", {"FAIRLEAD_SIM_HUB_STATUS": "404"}, ["RepositoryNotFoundError", "is not a local folder"]),
        ("org/m", {"FAIRLEAD_SIM_HUB_STATUS": "503"}, ["HfHubHTTPError", "503"]),
        ("org/gated-8B", {}, ["GatedRepoError"]),
        ("org/forbidden-8B", {"HF_TOKEN": "hf_s3cret"}, ["GatedRepoError", "not in the authorized list"]),
        ("org/missing-8B", {}, ["RepositoryNotFoundError"]),
        ("a/b/c", {}, ["HFValidationError"]),
        ("/no/such/folder", {}, ["Invalid repository ID or local directory"]),
    ],
)  # fmt: skip
def test_a_hub_that_refuses_ends_the_start(
    tmp_path: Path, model: str, environment: dict[str, str], words: list[str]
) -> None:
    ended = run(tmp_path, "vllm", "serve", model, "--host", "127.0.0.1", "--port", str(free_port()), **environment)
    assert ended.returncode == 1
    for word in words:
        assert word in ended.stderr
    assert "hf_s3cret" not in ended.stderr + ended.stdout, "a token is never logged"


def test_a_gated_model_starts_with_a_token_and_a_folder_with_a_config(tmp_path: Path, spawn: Spawn) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    for model, environment in (("org/gated-8B", {"HF_TOKEN": "hf_s3cret"}), (str(folder), {})):
        port = free_port()
        simulator = spawn("vllm", "serve", model, "--host", "127.0.0.1", "--port", str(port), port=port, **environment)
        simulator.wait_until("/health", 200)
        assert "hf_s3cret" not in simulator.said
        assert simulator.end()[0] == 0


def test_a_port_that_is_taken_ends_the_start(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        ended = run(tmp_path, *MODEL, "--port", str(holder.getsockname()[1]))
    assert ended.returncode == 1
    assert "OSError: [Errno" in ended.stderr


def test_a_mistyped_setting_is_refused(tmp_path: Path) -> None:
    ended = run(tmp_path, *MODEL, FAIRLEAD_SIM_LOAD_SECOND="1")
    assert ended.returncode == 2
    assert "FAIRLEAD_SIM_LOAD_SECOND is not a setting" in ended.stderr


def test_flags_of_another_version_can_be_imitated(tmp_path: Path) -> None:
    flags = {
        "version": "9.9.9",
        "quantization": [],
        "flags": [{"names": ["--only-flag"], "values": "one", "type": "str"}],
    }
    (tmp_path / "flags.json").write_text(json.dumps(flags))
    ended = run(tmp_path, "vllm", "serve", "m", "--port", "1", FAIRLEAD_SIM_VLLM_FLAGS=str(tmp_path / "flags.json"))
    assert ended.returncode == 2
    assert "unrecognized arguments: --port 1" in ended.stderr
    version = run(tmp_path, "vllm", "--version", FAIRLEAD_SIM_VLLM_FLAGS=str(tmp_path / "flags.json"))
    assert version.stdout.strip() == "9.9.9"


def test_without_an_engine_it_says_how_to_use_it(tmp_path: Path) -> None:
    assert run(tmp_path).returncode == 2
    shown = run(tmp_path, "--help")
    assert shown.returncode == 0
    assert "fairlead-sim vllm serve MODEL" in shown.stdout


def test_a_link_called_vllm_is_vllm(tmp_path: Path) -> None:
    script = tmp_path / "vllm"
    script.write_text("from fairlead_sim.__main__ import main\nmain()\n")
    ended = subprocess.run(
        [sys.executable, str(script), "--version"],
        env=bare_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert ended.stdout.strip() == "0.33.0"
