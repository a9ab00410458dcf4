"""The shell scripts of the Ollama engine file, run under /bin/sh with a stand-in for the `ollama` command.

The stand-in knows the command's own rules (real ones: `ollama` 0.17 and 0.33, cmd/cmd.go): `show` fails for what is not there,
`run` pulls what it does not find, errors are lines that begin with `Error`. The real engine runs these scripts in the cluster
tests; here every branch is reached, in seconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.engines.context import DrainContext, EngineContext, ModelContext
from fairlead.engines.definition import RenderedEngine
from fairlead.engines.loader import EngineCatalog
from fairlead.engines.version import Version

STAND_IN = r"""#!/bin/sh
# state of the server: $HOME; of the volume: $OLLAMA_MODELS
name=$(echo "$2" | tr / _)
up() { [ -e "$HOME/serving" ] && kill -0 "$(cat "$HOME/serving")" 2>/dev/null; }
need() { up || { echo "Error: could not connect to ollama server" >&2; exit 1; }; }
case $1 in
serve)
  [ -z "$FAIL_SERVE" ] || { echo "Error: listen tcp: address in use" >&2; exit 7; }
  echo $$ >"$HOME/serving"; rm -f "$HOME/loaded"
  trap 'echo term >>"$HOME/signals"; rm -f "$HOME/serving"; exit 0' TERM
  while :; do sleep 0.05; done ;;
ps) need; echo "NAME ID SIZE"; [ ! -e "$HOME/loaded" ] || echo "$(cat "$HOME/loaded"):latest abc" ;;
show) need; [ -e "$OLLAMA_MODELS/m-$name" ] || { echo "Error: model not found" >&2; exit 1; } ;;
pull)
  need; for last; do :; done; name=$(echo "$last" | tr / _)
  echo "$*" >>"$OLLAMA_MODELS/pulls"
  [ -z "$FAIL_PULL" ] || { printf 'pulling manifest \rError: %s\n' "$FAIL_PULL" >&2; exit 1; }
  sleep "${SLOW_PULL:-0.3}" 9>&- & wait; echo "$last" >"$OLLAMA_MODELS/m-$name" ;;
cp) need; cp "$OLLAMA_MODELS/m-$name" "$OLLAMA_MODELS/m-$(echo "$3" | tr / _)" ;;
create)
  need; echo "$2" >>"$OLLAMA_MODELS/creates"
  file=$(sed -n 's/^FROM //p' "$4"); grep -q GGUF "$file" || { echo "Error: not in GGUF format" >&2; exit 1; }
  cp "$file" "$OLLAMA_MODELS/m-$name" ;;
run)
  need; echo "run $2 [$3]" >>"$HOME/runs"; [ -z "$SLOW_LOAD" ] || { sleep "$SLOW_LOAD" & wait; }
  [ -e "$OLLAMA_MODELS/m-$name" ] || "$0" pull "$2" || exit 1
  [ -z "$FAIL_LOAD" ] || { echo "Error: 500 llama runner terminated" >&2; exit 1; }
  echo "$2" >"$HOME/loaded" ;;
esac
"""


class Pod:
    """Directories of one pod, and its scripts as processes."""

    def __init__(self, folder: Path, rendered: RenderedEngine, models: Path, **env: str) -> None:
        self.rendered = rendered
        for name in ("home", "tmp"):
            (folder / name).mkdir(parents=True)
        self.home = folder / "home"
        self.env = {
            "PATH": f"{models.parent / 'bin'}:/usr/bin:/bin",
            "HOME": str(self.home),
            "TMPDIR": str(folder / "tmp"),
            "OLLAMA_MODELS": str(models),
            "OLLAMA_HOST": "127.0.0.1:11434",
            **env,
        }

    def start(self, argv: list[str], **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            argv,
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start_init(self) -> subprocess.Popen[str]:
        init = self.rendered.init_containers[0]
        return self.start([*init.command, *init.args])

    def init(self) -> tuple[int, str]:
        process = self.start_init()
        _, words = process.communicate(timeout=20)
        return process.returncode, words

    @contextlib.contextmanager
    def engine(self) -> Iterator[subprocess.Popen[str]]:
        process = self.start([*self.rendered.command, *(word for argument in self.rendered.args for word in argument)])
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.communicate(timeout=20)

    def is_ready(self) -> bool:
        command = self.rendered.probes.readiness.exec
        assert command
        return subprocess.run(command["command"], env=self.env, timeout=10).returncode == 0

    def drain(self, host: str) -> float:
        """Seconds that preStop took."""
        pre_stop = self.rendered.drain.pre_stop
        assert pre_stop
        begin = time.monotonic()
        subprocess.run(pre_stop["exec"]["command"], env=self.env | {"OLLAMA_HOST": host}, timeout=30, check=True)
        return time.monotonic() - begin


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    binary = tmp_path / "bin" / "ollama"
    binary.parent.mkdir()
    binary.write_text(STAND_IN)
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    return tmp_path / "models"


def render(model: ModelContext, drain: DrainContext | None = None) -> RenderedEngine:
    context = EngineContext("x", Version.parse("0.32.15"), model, drain=drain or DrainContext(0, 3))
    return EngineCatalog.builtin().get("Ollama").render(context)


PULLED = ModelContext("ollama", "library/qwen:1b", "acme/small")


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def wait_until(condition: Callable[[], Any], timeout_s: float = 10) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_three_pods_on_one_volume_pull_once(tmp_path: Path, volume: Path) -> None:
    pods = [Pod(tmp_path / str(number), render(PULLED), volume) for number in range(3)]
    processes = [pod.start_init() for pod in pods]
    for process in processes:
        _, words = process.communicate(timeout=20)
        assert process.returncode == 0, words
    assert lines(volume / "pulls") == ["pull library/qwen:1b"]
    assert (volume / "m-acme_small").exists(), "under the name that clients use"
    assert all(lines(pod.home / "signals") == ["term"] for pod in pods), "each ended its own server"


def test_a_restarted_init_container_pulls_nothing(tmp_path: Path, volume: Path) -> None:
    pod = Pod(tmp_path / "a", render(PULLED), volume)
    assert pod.init()[0] == 0
    code, words = pod.init()
    assert code == 0
    assert "is on the volume already" in words
    assert len(lines(volume / "pulls")) == 1


def test_a_failed_pull_ends_with_the_reason_as_its_last_words(tmp_path: Path, volume: Path) -> None:
    pod = Pod(tmp_path / "a", render(PULLED), volume, FAIL_PULL="pull model manifest: file does not exist")
    code, words = pod.init()
    assert code == 1
    assert words.splitlines()[-2:] == [
        "cannot pull library/qwen:1b:",
        "Error: pull model manifest: file does not exist",
    ]


def test_plain_http_registries_are_for_those_who_ask(tmp_path: Path, volume: Path) -> None:
    pod = Pod(tmp_path / "a", render(PULLED), volume, FAIRLEAD_PULL_INSECURE="1")
    assert pod.init()[0] == 0
    assert lines(volume / "pulls") == ["pull --insecure library/qwen:1b"]


def test_a_server_that_does_not_start_is_told(tmp_path: Path, volume: Path) -> None:
    pod = Pod(tmp_path / "a", render(PULLED), volume, FAIL_SERVE="1")
    code, words = pod.init()
    assert code == 1
    assert "address in use" in words
    with pod.engine() as engine:
        engine.wait(timeout=10)
        assert engine.returncode == 7


def test_a_file_is_imported_again_only_when_it_is_another(tmp_path: Path, volume: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_text("GGUF one")
    model = ModelContext("pvc", "claim/model.gguf", "mine", path=str(file))
    pod = Pod(tmp_path / "a", render(model), volume)
    assert pod.init()[0] == 0
    assert pod.init()[0] == 0
    assert lines(volume / "creates") == ["mine"]
    file.write_text("GGUF two, longer")
    assert pod.init()[0] == 0
    assert lines(volume / "creates") == ["mine", "mine"]
    assert (volume / "m-mine").read_text() == "GGUF two, longer"
    file.write_text("nonsense")
    code, words = pod.init()
    assert code == 1
    assert words.splitlines()[-1] == "Error: not in GGUF format"
    file.unlink()
    code, words = pod.init()
    assert code == 1
    assert f"cannot read {file} on the model volume" in words


def test_ready_only_with_the_model_loaded_and_sigterm_is_passed_on(tmp_path: Path, volume: Path) -> None:
    pod = Pod(tmp_path / "a", render(PULLED), volume)
    assert not pod.is_ready()
    assert pod.init()[0] == 0
    with pod.engine() as engine:
        wait_until(pod.is_ready)
        assert lines(pod.home / "runs") == ["run acme/small []"], "an empty prompt loads and answers nothing"
        (pod.home / "loaded").unlink()
        assert not pod.is_ready(), "unloaded means not ready"
        (pod.home / "signals").unlink(missing_ok=True)
        engine.terminate()
        engine.communicate(timeout=10)
        assert engine.returncode == 0
        assert lines(pod.home / "signals") == ["term"]


def test_a_model_that_a_client_unloads_is_loaded_again(tmp_path: Path, volume: Path) -> None:
    pod = Pod(tmp_path / "a", render(PULLED), volume)
    assert pod.init()[0] == 0
    with pod.engine():
        wait_until(pod.is_ready)
        (pod.home / "loaded").unlink()
        wait_until(pod.is_ready, timeout_s=20)
    assert len(lines(pod.home / "runs")) == 2


def test_sigterm_ends_a_pod_that_is_still_loading_or_pulling(tmp_path: Path, volume: Path) -> None:
    pod = Pod(tmp_path / "a", render(PULLED), volume, SLOW_LOAD="30", SLOW_PULL="30")
    init = pod.start_init()
    wait_until(lambda: (volume / "pulls").exists())
    begin = time.monotonic()
    init.terminate()
    init.wait(timeout=10)
    assert init.returncode == 143
    pod.env["SLOW_PULL"] = "0"
    assert pod.init()[0] == 0
    with pod.engine() as engine:
        wait_until(lambda: lines(pod.home / "runs"))
        engine.terminate()
        engine.wait(timeout=10)
    assert time.monotonic() - begin < 15


def test_an_embedding_model_is_loaded_with_a_text(tmp_path: Path, volume: Path) -> None:
    pod = Pod(tmp_path / "a", render(ModelContext("ollama", "library/nomic", "emb", task="Embed")), volume)
    assert pod.init()[0] == 0
    with pod.engine():
        wait_until(pod.is_ready)
    assert lines(pod.home / "runs") == ["run emb [ready]"]


def test_a_missing_alias_is_an_error_and_never_pulled_from_strangers(tmp_path: Path, volume: Path) -> None:
    volume.mkdir()
    pod = Pod(tmp_path / "a", render(PULLED), volume)
    with pod.engine() as engine:
        _, words = engine.communicate(timeout=10)
    assert engine.returncode == 1
    assert words.splitlines()[-2:] == ["cannot load model acme/small:", "Error: model not found"]
    assert not (volume / "pulls").exists()


def test_a_model_that_does_not_load_ends_the_container_with_the_reason(tmp_path: Path, volume: Path) -> None:
    pod = Pod(tmp_path / "a", render(PULLED), volume, FAIL_LOAD="1")
    assert pod.init()[0] == 0
    with pod.engine() as engine:
        _, words = engine.communicate(timeout=10)
    assert engine.returncode == 1
    assert words.splitlines()[-1] == "Error: 500 llama runner terminated"


def test_a_server_that_dies_ends_the_container(tmp_path: Path, volume: Path) -> None:
    pod = Pod(tmp_path / "a", render(PULLED), volume)
    assert pod.init()[0] == 0
    with pod.engine() as engine:
        wait_until(pod.is_ready)
        os.kill(int((pod.home / "serving").read_text()), signal.SIGKILL)
        engine.communicate(timeout=10)
        assert engine.returncode == 128 + signal.SIGKILL


@contextlib.contextmanager
def open_connection(host: str) -> Iterator[tuple[int, socket.socket]]:
    with socket.create_server((host, 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        with accepted, client:
            yield server.getsockname()[1], client


def test_the_drain_waits_for_open_connections_and_no_longer(tmp_path: Path, volume: Path) -> None:
    brief = Pod(tmp_path / "a", render(PULLED, DrainContext(0, 2)), volume)
    patient = Pod(tmp_path / "b", render(PULLED, DrainContext(0, 25)), volume)
    with open_connection("127.81.2.3") as (port, client):
        assert brief.drain(f"127.81.2.3:{port}") >= 2, "to the end of the drain time"
        assert brief.drain(f"0.0.0.0:{port}") >= 2
        assert patient.drain(f"127.81.2.4:{port}") < 15, "another pod's connections do not count"
        assert patient.drain(f"0.0.0.0:{port + 1}") < 15
        threading.Timer(1, client.close).start()
        assert patient.drain(f"127.81.2.3:{port}") < 15, "the last stream is over"


def test_the_drain_first_waits_for_the_endpoints(tmp_path: Path, volume: Path) -> None:
    pod = Pod(tmp_path / "a", render(PULLED, DrainContext(1, 25)), volume)
    assert 1 <= pod.drain("0.0.0.0:1") < 15
