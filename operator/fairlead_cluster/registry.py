"""A stand-in for Ollama's model registry, on loopback: what `ollama pull` asks of a registry, and a log of what it asked.

It proves what cannot be seen from inside a pod: that a volume is filled once and not once per pod, that a pull resumes,
and what the operator says when a registry is slow, failing or does not know the model.

A real registry answers a plain GET of a blob with a redirect to another host, and Ollama insists: it follows redirects to
the same host name silently and then misses the `Location`. So this one has two addresses. Neither is 127.0.0.1: pods of
the local cluster take that for their own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from fairlead_cluster.ports import free_ports

_MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
_LAYER_TYPE = "application/vnd.ollama.image."
_ADDRESS, _BLOB_ADDRESS = "127.0.0.3", "127.0.0.4"
_CHUNK_BYTES = 64 * 1024
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_MANIFEST_PATH = re.compile(r"/v2/(?P<name>.+)/manifests/(?P<tag>[^/]+)")
_BLOB_PATH = re.compile(r"/v2/(?P<name>.+)/blobs/(?P<digest>sha256:[0-9a-f]{64})")

#: The template of models that have none of their own; Ollama's name for it is chatml.
CHAT_TEMPLATE = (
    "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
)
#: One thread: two that wait for each other in a loop make tiny models crawl on a busy machine.
_PARAMETERS = {"stop": ["<|im_start|>", "<|im_end|>"], "num_thread": 1}


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request as it was answered. `bytes_sent` counts the body."""

    method: str
    path: str
    status: int
    bytes_sent: int
    user_agent: str

    @property
    def is_blob_data(self) -> bool:
        """Whether this request carried bytes of a layer."""
        return self.method == "GET" and "/blobs/" in self.path and self.bytes_sent > 0


@dataclass(slots=True)
class Fault:
    """The next `times` requests whose `METHOD path` matches `pattern` are answered with `status`."""

    pattern: str
    status: int
    times: int = 1
    message: str = "the stand-in was told to fail"


@dataclass(slots=True)
class _Content:
    """What is served. Guarded by `lock`."""

    manifests: dict[tuple[str, str], bytes] = field(default_factory=dict)
    blobs: dict[str, Path | bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[LoggedRequest] = field(default_factory=list)
    bytes_per_s: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Registry:
    """The stand-in as a context manager: serves on a port of two loopback addresses while it is entered."""

    def __init__(self, port: int = 0) -> None:
        """Listen on `port` (default: a free one). OSError if it is taken."""
        self._content = _Content()
        self.port = port or free_ports(1, _ADDRESS)[0]
        self._servers = [_Server((address, self.port), self._content) for address in (_ADDRESS, _BLOB_ADDRESS)]
        self._threads = [
            threading.Thread(target=server.serve_forever, name="registry", daemon=True) for server in self._servers
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()

    @property
    def address(self) -> str:
        """`HOST:PORT`, as it stands in front of a model's name."""
        return f"{_ADDRESS}:{self.port}"

    def publish(self, name: str, gguf: Path, parameters: dict[str, Any] | None = None) -> str:
        """Serve the GGUF file as `name` (`library/tiny:latest`); returns what to pull: the name behind the address.

        The file is read when it is asked for: it must stay.
        """
        repository, _, tag = name.partition(":")
        layers = [
            self._add_layer("model", gguf),
            self._add_layer("template", CHAT_TEMPLATE.encode()),
            self._add_layer("params", json.dumps(_PARAMETERS if parameters is None else parameters).encode()),
        ]
        config = json.dumps(
            {
                "model_format": "gguf",
                "model_family": "llama",
                "model_families": ["llama"],
                "model_type": "122K",
                "file_type": "F32",
                "architecture": "amd64",
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
            }
        ).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "config": self._add_blob(_CONFIG_TYPE, config),
            "layers": layers,
        }
        with self._content.lock:
            self._content.manifests[repository, tag or "latest"] = json.dumps(manifest).encode()
        return f"{self.address}/{name}"

    def fail(self, pattern: str, status: int, times: int = 1) -> None:
        """Answer the next `times` requests whose `METHOD path` matches the regular expression with `status`."""
        with self._content.lock:
            self._content.faults.append(Fault(pattern, status, times))

    def throttle(self, bytes_per_s: float | None) -> None:
        """Send blobs at most this fast, each connection for itself; None: as fast as they go."""
        with self._content.lock:
            self._content.bytes_per_s = bytes_per_s

    @property
    def requests(self) -> list[LoggedRequest]:
        """Everything that was asked so far, oldest first."""
        with self._content.lock:
            return list(self._content.requests)

    def blob_bytes_sent(self) -> int:
        """Bytes of layers that were sent so far: equal to the model's size after one pull, twice that after two."""
        return sum(request.bytes_sent for request in self.requests if request.is_blob_data)

    def forget_requests(self) -> None:
        """Empty the log."""
        with self._content.lock:
            self._content.requests.clear()

    def _add_layer(self, kind: str, data: Path | bytes) -> dict[str, Any]:
        return self._add_blob(_LAYER_TYPE + kind, data)

    def _add_blob(self, media_type: str, data: Path | bytes) -> dict[str, Any]:
        digest, size_bytes = _digest(data)
        with self._content.lock:
            self._content.blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": size_bytes}


def _digest(data: Path | bytes) -> tuple[str, int]:
    if isinstance(data, bytes):
        return f"sha256:{hashlib.sha256(data).hexdigest()}", len(data)
    with data.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}", data.stat().st_size


class _Server(ThreadingHTTPServer):
    """One thread per connection; they end with the process."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], content: _Content) -> None:
        super().__init__(address, _Handler)
        self.content = content

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle of a blob is what an aborted pull looks like: nothing to report."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """The three questions of a pull: manifest, size of a blob, bytes of a blob."""

    protocol_version = "HTTP/1.1"
    server: _Server
    _bytes_sent = 0

    def do_GET(self) -> None:
        """Manifest, redirect, or bytes."""
        self._answer()

    def do_HEAD(self) -> None:
        """The same without a body."""
        self._answer()

    def _answer(self) -> None:
        self._bytes_sent = 0
        fault = self._take_fault()
        if fault is not None:
            self._send(fault.status, json.dumps({"errors": [{"message": fault.message}]}).encode())
        elif manifest := _MANIFEST_PATH.fullmatch(self.path):
            self._answer_manifest(manifest["name"], manifest["tag"])
        elif blob := _BLOB_PATH.fullmatch(self.path):
            self._answer_blob(blob["digest"])
        else:
            self._send(HTTPStatus.NOT_FOUND, b'{"errors": [{"code": "NOT_FOUND"}]}')

    def _take_fault(self) -> Fault | None:
        with self.server.content.lock:
            for fault in self.server.content.faults:
                if fault.times > 0 and re.search(fault.pattern, f"{self.command} {self.path}"):
                    fault.times -= 1
                    return fault
        return None

    def _answer_manifest(self, name: str, tag: str) -> None:
        with self.server.content.lock:
            manifest = self.server.content.manifests.get((name, tag))
        if manifest is None:
            self._send(HTTPStatus.NOT_FOUND, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')
        else:
            self._send(HTTPStatus.OK, manifest, {"Content-Type": _MANIFEST_TYPE})

    def _answer_blob(self, digest: str) -> None:
        with self.server.content.lock:
            data = self.server.content.blobs.get(digest)
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        if data is None:
            self._send(HTTPStatus.NOT_FOUND, b'{"errors": [{"code": "BLOB_UNKNOWN"}]}')
        elif self.command == "HEAD":
            self._send_head(HTTPStatus.OK, {"Content-Length": str(_size(data)), "Accept-Ranges": "bytes"})
            self._log(HTTPStatus.OK)
        elif asked is None:
            self._send(HTTPStatus.TEMPORARY_REDIRECT, b"", {"Location": self._elsewhere()})
        else:
            self._send_range(data, int(asked[1]), int(asked[2]) if asked[2] else _size(data) - 1)

    def _elsewhere(self) -> str:
        """The same blob at the other address."""
        return f"http://{_BLOB_ADDRESS}:{self.server.server_address[1]}{self.path}"

    def _send_range(self, data: Path | bytes, first: int, last: int) -> None:
        size_bytes = _size(data)
        last = min(last, size_bytes - 1)
        if first > last:
            self._send(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"", {"Content-Range": f"bytes */{size_bytes}"})
            return
        headers = {"Content-Length": str(last - first + 1), "Content-Range": f"bytes {first}-{last}/{size_bytes}"}
        self._send_head(HTTPStatus.PARTIAL_CONTENT, headers)
        try:
            self._send_bytes(data, first, last + 1)
        finally:
            self._log(HTTPStatus.PARTIAL_CONTENT)

    def _send_bytes(self, data: Path | bytes, start: int, end: int) -> None:
        with self.server.content.lock:
            bytes_per_s = self.server.content.bytes_per_s
        chunk_bytes = _CHUNK_BYTES if bytes_per_s is None else max(1, min(_CHUNK_BYTES, int(bytes_per_s / 20)))
        position = start
        while position < end:
            chunk = _read(data, position, min(chunk_bytes, end - position))
            self.wfile.write(chunk)
            position += len(chunk)
            self._bytes_sent += len(chunk)
            if bytes_per_s is not None:
                time.sleep(len(chunk) / bytes_per_s)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._send_head(status, {"Content-Length": str(len(body)), **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(body)
            self._bytes_sent += len(body)
        self._log(status)

    def _send_head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _log(self, status: int) -> None:
        agent = self.headers.get("User-Agent", "")
        logged = LoggedRequest(self.command, self.path, int(status), self._bytes_sent, agent)
        with self.server.content.lock:
            self.server.content.requests.append(logged)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Nothing on stderr: `requests` has it."""


def _size(data: Path | bytes) -> int:
    return len(data) if isinstance(data, bytes) else data.stat().st_size


def _read(data: Path | bytes, position: int, length: int) -> bytes:
    if isinstance(data, bytes):
        return data[position : position + length]
    with data.open("rb") as file:
        file.seek(position)
        return file.read(length)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve GGUF files as models until Ctrl-C: `python -m fairlead_cluster.registry library/tiny:latest=tiny.gguf`."""
    parser = argparse.ArgumentParser(prog="python -m fairlead_cluster.registry", description=main.__doc__)
    parser.add_argument("models", nargs="+", metavar="NAME=FILE", help="a model's name and its GGUF file")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: a free one)")
    given = parser.parse_args(arguments)
    with Registry(given.port) as registry:
        for model in given.models:
            name, _, file = model.partition("=")
            print(registry.publish(name, Path(file)), flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
