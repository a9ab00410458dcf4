"""One Ollama pod as processes: the containers of a planned pod template, run with the real binary.

Not a kubelet: it gives the containers their environment, their mounts (as folders) and an address of their own, runs what
the template says and nothing else. When a container's first process ends, the rest of it is killed, as in a container.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fairlead.api.resource import LLMDeployment
from fairlead.api.validation import parse_llmdeployment
from fairlead.engines.loader import EngineCatalog
from fairlead.facts.observed import Observed, OperatorFacts
from fairlead.planning.deployment import plan_deployment
from fairlead_cluster.processes import wait_until

Json = dict[str, Any]


def plan_pod_template(spec: Mapping[str, Any], name: str = "tiny") -> Json:
    """The pod template that fairlead plans for an LLMDeployment of this spec."""
    metadata = {"name": name, "namespace": "ml", "uid": "11111111-2222-3333-4444-555555555555", "generation": 1}
    raw = {"apiVersion": "fairlead.dev/v1alpha1", "kind": "LLMDeployment", "metadata": metadata, "spec": dict(spec)}
    resource = parse_llmdeployment(raw)
    assert isinstance(resource, LLMDeployment), resource
    plan = plan_deployment(resource, Observed(), EngineCatalog.builtin(), OperatorFacts(), datetime.now(UTC))
    bodies = [child.body for child in plan.children if child.key.kind == "Deployment"]
    assert bodies, plan.status
    return dict(bodies[0]["spec"]["template"])


@dataclass(frozen=True)
class Ended:
    """How a container ended. `last_words` is what the kubelet would quote: the end of its log."""

    code: int
    last_words: str
    took_s: float


class Container:
    """A running container: one process group and its log."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.log = log
        self.started_s = time.monotonic()
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                env=environment,
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, timeout_s: float = 60) -> Ended:
        """Wait for its end; subprocess.TimeoutExpired if it does not come."""
        code = self.process.wait(timeout_s)
        took_s = time.monotonic() - self.started_s
        self.kill()
        return Ended(code, self.log.read_text(errors="replace")[-2048:], took_s)

    def terminate(self, timeout_s: float = 20) -> Ended:
        """SIGTERM to its first process, as the kubelet does. `took_s` counts from the signal."""
        self.started_s = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL to everything in it."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            self.process.wait()

    def wait_for_log(self, words: str, timeout_s: float = 30) -> None:
        """Wait until the log holds `words`."""
        assert wait_until(lambda: words in self.log.read_text(errors="replace"), timeout_s), self.log.read_text()


class OllamaPod:
    """The containers of one pod. `cache` and `model` are the volumes that outlive it."""

    def __init__(
        self, template: Json, folder: Path, port: int, binaries: Path, cache: Path, model: Path | None
    ) -> None:
        self._spec: Json = template["spec"]
        self._folder = folder
        self._port = port
        self._binaries = binaries
        self._volumes = {"fairlead-cache": cache, "fairlead-model": model or folder / "no-model"}
        self._started: list[Container] = []
        for volume in ("fairlead-home", "fairlead-tmp"):
            self._volumes[volume] = folder / volume
            self._volumes[volume].mkdir(parents=True)
        cache.mkdir(parents=True, exist_ok=True)

    @property
    def base_url(self) -> str:
        """Where the engine answers."""
        return f"http://127.0.0.1:{self._port}"

    def start_init(self) -> Container:
        """Start the init container (there must be exactly one)."""
        (init,) = self._spec["initContainers"]
        return self._start(init)

    def run_init(self, timeout_s: float = 60) -> Ended:
        """Run the init container to its end."""
        return self.start_init().wait(timeout_s)

    def start_engine(self) -> Container:
        """Start the engine container."""
        return self._start(self._engine)

    def is_ready(self) -> bool:
        """What the readiness probe says now."""
        return self._exec(self._engine["readinessProbe"]["exec"]["command"]).returncode == 0

    def is_alive(self) -> bool:
        """What the liveness probe says now."""
        try:
            with urllib.request.urlopen(self.base_url + self._engine["livenessProbe"]["httpGet"]["path"], timeout=5):
                return True
        except (OSError, urllib.error.HTTPError):
            return False

    def start_pre_stop(self, delay_s: int, drain_s: int) -> subprocess.Popen[str]:
        """Start the preStop hook with other times than the planned ones: they are its last two words."""
        command = [*self._engine["lifecycle"]["preStop"]["exec"]["command"][:-2], str(delay_s), str(drain_s)]
        return self._exec_start(command)

    def ollama(self, *arguments: str) -> str:
        """Run the ollama command inside; its output."""
        done = self._exec(["ollama", *arguments])
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        """Kill everything that was started."""
        for container in self._started:
            container.kill()

    @property
    def _engine(self) -> Json:
        engine: Json = self._spec["containers"][0]
        return engine

    def _start(self, container: Json) -> Container:
        command = [self._place(word, container) for word in [*container["command"], *container.get("args", [])]]
        log = self._folder / f"{container['name']}-{len(self._started)}.log"
        started = Container(command, self._environment(container), log)
        self._started.append(started)
        return started

    def _exec(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        environment = self._environment(self._engine)
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, timeout=60
        )

    def _exec_start(self, command: list[str]) -> subprocess.Popen[str]:
        environment = self._environment(self._engine)
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, text=True)

    def _environment(self, container: Json) -> dict[str, str]:
        listed = {entry["name"]: self._place(entry["value"], container) for entry in container["env"]}
        host, _, port = listed["OLLAMA_HOST"].partition(":")
        assert (host, port) in (("0.0.0.0", "11434"), ("127.0.0.1", "11434"))
        return {"PATH": f"{self._binaries}:/usr/bin:/bin"} | listed | {"OLLAMA_HOST": f"127.0.0.1:{self._port}"}

    def _place(self, text: str, container: Json) -> str:
        """A path in the container as a path on this machine; everything else as it is."""
        for mount in container["volumeMounts"]:
            path = mount["mountPath"]
            if text == path or text.startswith(f"{path}/"):
                return str(self._volumes[mount["name"]]) + text.removeprefix(path)
        return text
