"""The `ollama` command as init containers, probes and people use it: output, exit codes, restart, SIGTERM."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from tests.unit.sim_engine.servers import Simulator, Spawn, bare_environment, free_port

from fairlead_sim.ollama.human import human_bytes, human_duration, human_time
from fairlead_sim.ollama.modelfile import ModelfileError, read_modelfile
from fairlead_sim.ollama.names import parse_name
from fairlead_sim.ollama.pull import PULL_LOG
from fairlead_sim.ollama.synthetic import make_model


class Pod:
    """A server on a volume, and the command that finds it."""

    def __init__(self, spawn: Spawn, tmp_path: Path, **environment: str) -> None:
        self.environment = {"OLLAMA_HOST": f"127.0.0.1:{free_port()}", **environment}
        self._spawn, self._tmp_path = spawn, tmp_path

    def serve(self) -> Simulator:
        """Start the server and wait for it."""
        port = int(self.environment["OLLAMA_HOST"].rpartition(":")[2])
        simulator = self._spawn("ollama", "serve", port=port, **self.environment)
        simulator.wait_until("/", 200)
        return simulator

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """`ollama ARGUMENTS`."""
        return subprocess.run(
            [sys.executable, "-m", "fairlead_sim", "ollama", *arguments],
            env=bare_environment(self._tmp_path, **self.environment),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def ok(self, *arguments: str, stdin: str = "") -> str:
        """stdout of a command that must succeed."""
        ended = self.run(*arguments, stdin=stdin)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout


@pytest.fixture
def pod(spawn: Spawn, tmp_path: Path) -> Pod:
    """One whose server is not started yet."""
    return Pod(spawn, tmp_path)


def test_without_a_server(pod: Pod) -> None:
    for arguments in (["ps"], ["list"], ["pull", "x"], ["show", "x"], ["run", "x"]):
        ended = pod.run(*arguments)
        assert ended.returncode == 1
        assert ended.stderr == "Error: could not connect to ollama server, run 'ollama serve' to start it\n"
    version = pod.ok("--version")
    assert version == "Warning: could not connect to a running Ollama instance\nWarning: client version is 0.32.15\n"


def test_what_a_pod_does(pod: Pod) -> None:
    """Init container: pull and name; main container: load; probe: look; and all of it again after a restart."""
    server = pod.serve()
    assert pod.ok("--version") == "ollama version is 0.32.15\n"
    missing = pod.run("show", "llama3.2:1b")
    assert (missing.returncode, missing.stderr) == (1, "Error: model 'llama3.2:1b' not found\n")
    pulled = pod.run("pull", "llama3.2:1b")
    assert (pulled.returncode, pulled.stdout) == (0, "")
    assert pulled.stderr.splitlines()[0] == "pulling manifest"
    assert pulled.stderr.splitlines()[-1] == "success"
    assert pod.ok("cp", "llama3.2:1b", "llama-3.2-1b") == "copied 'llama3.2:1b' to 'llama-3.2-1b'\n"
    assert server.end()[0] == 0

    server = pod.serve()
    assert "architecture" in pod.ok("show", "llama-3.2-1b")
    assert pod.ok("ps").split() == ["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"]
    assert pod.ok("run", "llama-3.2-1b", "") == ""
    header, line = pod.ok("ps").splitlines()
    assert re.fullmatch(
        r"llama-3\.2-1b:latest    [0-9a-f]{12}    [\d.]+ [KMG]B    100% CPU     4096       4 minutes from now\s+", line
    )
    assert header.index("UNTIL") == line.index("4 minutes from now")
    assert server.end()[0] == 0
    volume = Path(pod._tmp_path / ".ollama" / "models")
    assert [json.loads(entry)["model"] for entry in (volume / PULL_LOG).read_text().splitlines()] == ["llama3.2:1b"]
    assert (volume / "manifests/registry.ollama.ai/library/llama-3.2-1b/latest").is_file()


def test_run_answers_prompts_and_pulls_what_is_missing(pod: Pod) -> None:
    pod.serve()
    assert pod.ok("run", "qwen3:4b", "Who are you?").startswith('qwen3:4b here, simulated. You said: "Who are you?".')
    assert '"from stdin now"' in pod.ok("run", "qwen3:4b", "now", stdin="from stdin")
    assert pod.ok("list").splitlines()[1].startswith("qwen3:4b ")
    vector = json.loads(pod.ok("run", "nomic-embed-text", "ready"))
    assert len(vector) == 384
    empty = pod.run("run", "nomic-embed-text", "")
    assert empty.returncode == 1
    assert "embedding models require input text" in empty.stderr


def test_errors_end_with_exit_code_1(pod: Pod) -> None:
    pod.serve()
    for arguments, message in (
        (["pull", "missing-model"], "Error: pull model manifest: file does not exist"),
        (["run", "missing-model", ""], "Error: pull model manifest: file does not exist"),
        (["cp", "nope", "other"], 'Error: model "nope" not found'),
        (["rm", "nope"], "Error: model 'nope' not found"),
        (["stop", "nope"], 'Error: couldn\'t find model "nope" to stop'),
        (["create", "x", "-f", "nowhere"], "Error: specified Modelfile wasn't found"),
        (["push", "nope"], "Error: couldn't retrieve manifest, please check the model name"),
        (["pull"], "Error: the following arguments are required: model"),
        (["dance"], "Error: argument COMMAND: invalid choice: 'dance'"),
    ):
        ended = pod.run(*arguments)
        assert ended.returncode == 1, arguments
        assert message in ended.stderr


def test_a_load_that_fails_ends_with_exit_code_1_and_the_reason(spawn: Spawn, tmp_path: Path) -> None:
    pod = Pod(spawn, tmp_path, FAIRLEAD_SIM_LOAD_SECONDS="5", OLLAMA_LOAD_TIMEOUT="50ms")
    pod.serve()
    pod.ok("pull", "llama3.2:1b")
    failed = pod.run("run", "llama3.2:1b", "")
    assert failed.returncode == 1
    assert "Error: 500 Internal Server Error: timed out waiting for llama runner to start" in failed.stderr
    assert not failed.stderr.startswith("Error"), "the spinner comes first, and no newline behind it"


def test_stop_and_rm(pod: Pod) -> None:
    pod.serve()
    pod.ok("run", "llama3.2:1b", "")
    assert "llama3.2:1b" in pod.ok("ps")
    pod.ok("stop", "llama3.2:1b")
    assert "llama3.2:1b" not in pod.ok("ps")
    assert pod.ok("rm", "llama3.2:1b") == "deleted 'llama3.2:1b'\n"
    assert pod.ok("ls").split() == ["NAME", "ID", "SIZE", "MODIFIED"]


def test_a_gguf_file_becomes_a_model(pod: Pod, tmp_path: Path) -> None:
    pod.serve()
    _config, [weights, *_rest] = make_model(parse_name("mine:1b"), size_bytes=2048, dimensions=16)
    (tmp_path / "mine.gguf").write_bytes(weights.data)
    (tmp_path / "Modelfile").write_text('# mine\nFROM ./mine.gguf\nPARAMETER num_ctx 512\nSYSTEM """Be\nbrief."""\n')
    assert pod.run("create", "mine", "-f", str(tmp_path / "Modelfile")).returncode == 0
    assert pod.ok("show", "mine", "--system") == "Be\nbrief."
    pod.ok("run", "mine", "")
    assert re.search(r"mine:latest .* 512 ", pod.ok("ps"))


def test_sigterm_cuts_open_streams(pod: Pod) -> None:
    server = pod.serve()
    pod.ok("pull", "llama3.2:1b")
    body = {"model": "llama3.2:1b", "prompt": "x", "options": {"num_predict": 2000}}
    with (
        httpx.Client(trust_env=False, timeout=10) as client,
        client.stream("POST", server.url + "/api/generate", json=body) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        code, _ = server.end()
        with pytest.raises(httpx.HTTPError):
            list(lines)
    assert code == 0


def test_a_restart_clears_half_finished_downloads_unless_told_otherwise(spawn: Spawn, tmp_path: Path) -> None:
    blobs = tmp_path / ".ollama" / "models" / "blobs"
    blobs.mkdir(parents=True)
    partial = blobs / ("sha256-" + "a" * 64 + "-partial")
    for environment, kept in (({"OLLAMA_NOPRUNE": "1"}, True), ({}, False)):
        partial.write_bytes(b"half")
        Pod(spawn, tmp_path, **environment).serve().end()
        assert partial.exists() is kept


def test_a_volume_that_cannot_be_written_and_a_port_that_is_taken(spawn: Spawn, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    first = spawn("ollama", "serve", OLLAMA_HOST=f"127.0.0.1:{free_port()}", OLLAMA_MODELS=str(tmp_path / "file" / "x"))
    assert first.process.wait(10) == 1
    assert first.said.startswith("Error: ")
    pod = Pod(spawn, tmp_path)
    pod.serve()
    second = spawn("ollama", "serve", **pod.environment)
    assert second.process.wait(10) == 1
    assert "bind: address already in use" in second.said


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_300, "1.3 KB"),
        (2_000_000, "2 MB"),
        (15_600_000, "15 MB"),
        (4_920_000_000, "4.9 GB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert human_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (61, "About a minute"), (299, "4 minutes"), (3600, "About an hour"),
     (7200, "2 hours"), (3 * 86400, "3 days"), (20 * 86400, "2 weeks"), (90 * 86400, "3 months"), (800 * 86400, "2 years")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_times() -> None:
    now = datetime(2026, 11, 25, tzinfo=UTC)
    assert human_time((now + timedelta(minutes=5)).isoformat(), now) == "5 minutes from now"
    assert human_time((now - timedelta(days=3)).isoformat(), now) == "3 days ago"
    assert human_time("2261-07-24T00:00:00Z", now) == "Forever"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("PARAMETER x 1\n", "no FROM line"),
        ("FROM ./nowhere.gguf\n", "no such file"),
        ("FROM x\nADAPTER y\n", "does not know"),
    ],
)
def test_modelfiles_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "Modelfile").write_text(text)
    with pytest.raises(ModelfileError, match=message):
        read_modelfile(tmp_path / "Modelfile")


def test_a_modelfile(tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text(
        "FROM llama3.2:1b\n"
        'PARAMETER stop "a"\nPARAMETER stop b\nPARAMETER temperature 0.5\nPARAMETER use_mmap true\nTEMPLATE "{{ .Prompt }}"\n'
    )
    request, files = read_modelfile(tmp_path / "Modelfile")
    assert files == []
    assert request == {
        "from": "llama3.2:1b",
        "template": "{{ .Prompt }}",
        "parameters": {"stop": ["a", "b"], "temperature": 0.5, "use_mmap": True},
    }
