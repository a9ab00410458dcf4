"""What is measured: processes that take the same requests to the same backend, by ways that cost more or less.

Each gateway is the real Envoy with the files that fairlead renders, in directories as a pod mounts them, with the command line of the
pod. The plain proxy is the same binary with as many workers.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from tests.bench.gateway import litellm_proxy
from tests.bench.gateway.routes import KEY, Files, make_files, model_names
from tests.gateway.mounts import Mount
from tests.unit.gateway.envoy_process import envoy_binary

from fairlead.gateway.envoy import GatewaySettings
from fairlead.gateway.envoy.words import make_filter, typed
from fairlead_cluster.errors import ComponentDiedError
from fairlead_cluster.operators import python_environment
from fairlead_cluster.ports import free_ports
from fairlead_cluster.processes import ManagedProcess, spawn, wait_until

__all__ = ["BODY_BYTES", "Patch", "Stand", "Subject"]

Json = dict[str, Any]
#: A change of the rendered files.
Patch = Callable[[Files], Files]
BODY_BYTES: Final = 2048
_START_TIMEOUT_S: Final = 120.0
_WORKERS: Final = 2  # as planning/gateway.py starts it
_LINES: Final = (
    "The northern basin is dredged every other spring, which keeps the larger berths open for deep ships. ",
    "Please look through the notes from last week and tell me which of the open questions still matter. ",
    "Nobody has decided whether the second crane will be moved before the season begins in earnest. ",
)


@dataclass(frozen=True, slots=True)
class Subject:
    """`pid` 0: the backend itself, whose CPU nobody counts. `requests` are whole HTTP requests, sent in turn."""

    name: str
    port: int
    requests: tuple[str, ...]
    streams: tuple[str, ...]
    pid: int = 0


class Stand:
    """All processes of a run, in one directory with a short path (a socket's has 107 bytes). They end with it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = ExitStack()
        (self._backend_port,) = free_ports(1)

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.bench.gateway.backend", str(self._backend_port)]
        backend = spawn("backend", command, self._directory / "backend.log", env=python_environment())
        self._stack.callback(backend.stop)
        self._wait(backend, self._backend_port)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def backend(self) -> Subject:
        """Nothing between."""
        return _subject("direct", self._backend_port, 0, 1)

    def plain(self) -> Subject:
        """The least that proxies: one listener, one route, one cluster."""
        (port,) = free_ports(1)
        directory = self._directory / "plain"
        directory.mkdir()
        (directory / "bootstrap.json").write_text(json.dumps(_make_plain(port, self._backend_port)))
        process = self._start_envoy("plain", directory / "bootstrap.json", port)
        return _subject("plain", port, process.pid, 1)

    def gateway(
        self,
        name: str,
        models: int = 1,
        backends: int = 1,
        *,
        detectors: bool = True,
        affinity: Json | None = None,
        patch: Patch | None = None,
    ) -> Subject:
        """A route's gateway; `patch` changes its files first."""
        directory = self._directory / name.replace(" ", "-")
        port, status_port = free_ports(2)
        settings = replace(
            GatewaySettings(),
            address="127.0.0.1",
            port=port,
            status_port=status_port,
            bootstrap_directory=f"{directory}/bootstrap",
            routing_directory=f"{directory}/routing",
            clients_directory=f"{directory}/clients",
            admin_socket=f"{directory}/admin.sock",
        )
        files = make_files(settings, self._backend_port, models, backends, detectors=detectors, affinity=affinity)
        files = patch(files) if patch is not None else files
        Mount(Path(settings.bootstrap_directory)).write(files.bootstrap)
        Mount(Path(settings.routing_directory)).write(files.routing)
        Mount(Path(settings.clients_directory)).write(files.clients)
        process = self._start_envoy(name, Path(settings.bootstrap_directory) / "bootstrap.json", port)
        return _subject(name, port, process.pid, models)

    def litellm(self) -> Subject:
        """Raises litellm_proxy.Unavailable."""
        command = litellm_proxy.install()
        directory = self._directory / "litellm"
        process, port = litellm_proxy.start(command, directory, self._backend_port, model_names(1)[0])
        self._stack.callback(process.stop)
        try:
            self._wait(process, port)
        except ComponentDiedError as error:
            raise litellm_proxy.Unavailable(str(error)) from error
        return _subject("litellm", port, process.pid, 1)

    def _start_envoy(self, name: str, bootstrap: Path, port: int) -> ManagedProcess:
        command: list[str | Path] = [
            envoy_binary(),
            "--config-path",
            bootstrap,
            "--concurrency",
            str(_WORKERS),
            "--disable-hot-restart",
        ]
        command += ["--reject-unknown-dynamic-fields", "--log-level", "warning"]
        process = spawn(name, command, self._directory / f"{name.replace(' ', '-')}.log")
        self._stack.callback(process.stop)
        self._wait(process, port)
        return process

    def _wait(self, process: ManagedProcess, port: int) -> None:
        def listens() -> bool:
            process.check()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        if not wait_until(listens, _START_TIMEOUT_S, 0.1):
            raise RuntimeError(f"{process.name} does not listen; see {process.log_path}")


def _subject(name: str, port: int, pid: int, models: int) -> Subject:
    names = model_names(models)
    requests = tuple(_make_request(model, stream=False) for model in names)
    return Subject(name, port, requests, tuple(_make_request(model, stream=True) for model in names), pid)


def _make_request(model: str, *, stream: bool) -> str:
    """A chat as clients send it, of BODY_BYTES, in which no detector finds anything."""
    messages = [{"role": "system", "content": "You are an assistant of the harbour office."}]
    body: Json = {"model": model, "messages": messages, "temperature": 0.2, "max_tokens": 400}
    if stream:
        body |= {"stream": True}
    number = 0
    while len(_dump(body)) < BODY_BYTES - 400:
        role = "assistant" if number % 2 else "user"
        messages.append({"role": role, "content": _LINES[number % 3] + _LINES[(number + 1) % 3]})
        number += 1
    messages.append({"role": "user", "content": ""})
    missing = BODY_BYTES - len(_dump(body))
    messages[-1]["content"] = (_LINES[0] * 5)[:missing]
    text = _dump(body)
    assert len(text) == BODY_BYTES, len(text)
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: assistants\r\nauthorization: Bearer {KEY}\r\n"
        "accept: application/json\r\ncontent-type: application/json\r\nuser-agent: OpenAI/Python 2.9.0\r\n"
        f"content-length: {len(text)}\r\n\r\n{text}"
    )


def _dump(body: Json) -> str:
    return json.dumps(body, separators=(",", ":"))


def _make_plain(port: int, backend_port: int) -> Json:
    manager = typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="plain",
        route_config={
            "name": "plain",
            "virtual_hosts": [
                {
                    "name": "plain",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "backend", "timeout": "0s"}}],
                }
            ],
        },
        http_filters=[
            make_filter("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router"),
        ],
    )
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "plain",
                    "address": _address(port),
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                {
                    "name": "backend",
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "load_assignment": {
                        "cluster_name": "backend",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(backend_port)}}]}],
                    },
                }
            ],
        }
    }


def _address(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
