"""The kubelet's HTTPS endpoint, as far as `kubectl logs` and `kubectl exec` need it.

It listens on each node's own loopback address, where the API server finds it by the node's status. Its certificate is
self-signed and nobody is asked who he is: whoever can reach it may already do what he likes on this host.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fairlead_cluster.node.container import Container
from fairlead_cluster.node.execsession import PROTOCOL, ExecRequest, serve_exec
from fairlead_cluster.node.guardian import Guardian
from fairlead_cluster.node.pod import PodRunner

PORT = 10250

_CHUNK_SIZE_BYTES = 64 * 1024
_POLL_S = 0.1
_NOT_KEPT = ("sinceSeconds", "sinceTime", "timestamps")


class KubeletServer:
    """Answers for all nodes of a stand-in. `find` gives the pod of a namespace and name, if it runs processes."""

    def __init__(self, find: Callable[[str, str], PodRunner | None], guardian: Guardian) -> None:
        self._find = find
        self._guardian = guardian

    @contextlib.asynccontextmanager
    async def serving(self, addresses: Iterable[str], directory: Path) -> AsyncIterator[None]:
        """Serve on these addresses while inside; key and certificate are written to `directory`."""
        application = web.Application()
        application.router.add_get("/healthz", _healthz)
        application.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        application.router.add_route("*", "/exec/{namespace}/{pod}/{container}", self._exec)
        for path in ("attach", "portForward"):
            application.router.add_route("*", f"/{path}/{{rest:.*}}", _unsupported)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        try:
            tls = await asyncio.to_thread(_make_tls, directory)
            for address in addresses:
                await web.TCPSite(runner, address, PORT, ssl_context=tls).start()
            yield
        finally:
            await runner.cleanup()

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        """Plain text of one run. Lines have no times here, so nothing can be asked by time."""
        container = self._container(request)
        for option in _NOT_KEPT:
            if request.query.get(option, "false") not in ("false", ""):
                raise web.HTTPBadRequest(text=f"the node stand-in keeps no times of log lines, so no {option}")
        path = _log_path(request, container)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        tail, limit = _number(request, "tailLines"), _number(request, "limitBytes")
        follow = request.query.get("follow") == "true" and request.query.get("previous") != "true"
        sent_bytes = 0
        with path.open("rb") as file:
            if tail is not None:
                file.seek(_start_of_tail(file.read(), tail))
            while True:
                has_ended = _has_ended(container, path)  # asked before reading, so that nothing is missed
                data = file.read(_CHUNK_SIZE_BYTES if limit is None else min(_CHUNK_SIZE_BYTES, limit - sent_bytes))
                if data:
                    sent_bytes += len(data)
                    await response.write(data)
                elif not follow or has_ended or sent_bytes == limit:
                    return response
                else:
                    await asyncio.sleep(_POLL_S)

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        container = self._container(request)
        if container.process is None:
            raise web.HTTPBadRequest(text=f"container {container.state.name} is not running")
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise web.HTTPNotImplemented(text=f"the node stand-in speaks {PROTOCOL} only (WebSocket), not SPDY")
        wanted = ExecRequest(
            request.query.getall("command"),
            stdin=request.query.get("input") == "1",
            stdout=request.query.get("output") == "1",
            stderr=request.query.get("error") == "1",
            terminal=request.query.get("tty") == "1",
        )
        socket = web.WebSocketResponse(protocols=(PROTOCOL,))
        await socket.prepare(request)
        await serve_exec(socket, container.launch.exec_command(wanted.command), wanted, container, self._guardian)
        return socket

    def _container(self, request: web.Request) -> Container:
        match = request.match_info
        pod = self._find(match["namespace"], match["pod"])
        container = None if pod is None else pod.containers.get(match["container"])
        if container is None:
            raise web.HTTPNotFound(text=f"{match['namespace']}/{match['pod']}: no process of {match['container']} here")
        return container


async def _healthz(_request: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _unsupported(request: web.Request) -> web.Response:
    raise web.HTTPNotImplemented(text=f"the node stand-in cannot do {request.path.split('/')[1]}")


def _log_path(request: web.Request, container: Container) -> Path:
    state = container.state
    name, pod = state.name, request.match_info["pod"]
    run = state.restart_count
    if request.query.get("previous") == "true":
        if state.last is None:
            raise web.HTTPBadRequest(text=f'previous terminated container "{name}" in pod "{pod}" not found')
        # While it waits to be restarted, the run that ended is still the newest.
        run -= 0 if state.waiting is not None else 1
    path = container.logs.path(run)
    if not path.exists():
        reason = state.waiting.reason if state.waiting is not None else "ContainerCreating"
        raise web.HTTPBadRequest(text=f'container "{name}" in pod "{pod}" is waiting to start: {reason}')
    return path


def _has_ended(container: Container, path: Path) -> bool:
    is_current = container.logs.path(container.state.restart_count) == path
    return container.process is None or not is_current


def _start_of_tail(data: bytes, lines: int) -> int:
    """Where the last lines of the data begin."""
    kept = data.splitlines(keepends=True)[-lines:] if lines else []
    return len(data) - sum(len(line) for line in kept)


def _number(request: web.Request, name: str) -> int | None:
    value = request.query.get(name)
    if value is None:
        return None
    if not value.isdigit():
        raise web.HTTPBadRequest(text=f"{name} must be a number that is not negative")
    return int(value)


def _make_tls(directory: Path) -> ssl.SSLContext:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fairlead-node-stand-in")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = directory / "kubelet.pem"
    path.touch(mode=0o600)
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + pem)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(path)
    return tls
