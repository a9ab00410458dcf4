"""`ollama serve`: routes, start and end. On SIGTERM all connections are cut at once, as Ollama does; nothing drains."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from fairlead_sim.ollama import manage, native, openai
from fairlead_sim.ollama.environment import Environment, read_environment
from fairlead_sim.ollama.errors import OllamaError
from fairlead_sim.ollama.service import Service
from fairlead_sim.ollama.wire import json_response
from fairlead_sim.settings import SettingsError, read_settings

Handler = Callable[[web.Request, Service], Awaitable[web.StreamResponse]]

LOG = logging.getLogger("fairlead_sim.ollama")
MAX_BODY_BYTES = 256 * 1024 * 1024


async def root(_request: web.Request, _service: Service) -> web.StreamResponse:
    """GET /."""
    return web.Response(text="Ollama is running")


async def version(_request: web.Request, service: Service) -> web.StreamResponse:
    """GET /api/version."""
    return json_response({"version": service.version})


async def status(_request: web.Request, service: Service) -> web.StreamResponse:
    """GET /api/status."""
    disabled = service.environment.no_cloud
    return json_response({"cloud": {"disabled": disabled, "source": "env" if disabled else "none"}})


ROUTES: list[tuple[str, str, Handler]] = [
    ("GET", "/", root),
    ("GET", "/api/version", version),
    ("GET", "/api/status", status),
    ("GET", "/api/tags", manage.tags),
    ("GET", "/api/ps", manage.ps),
    ("POST", "/api/show", manage.show),
    ("POST", "/api/pull", manage.pull_model),
    ("POST", "/api/push", manage.push_model),
    ("POST", "/api/copy", manage.copy),
    ("POST", "/api/create", manage.create),
    ("DELETE", "/api/delete", manage.delete),
    ("HEAD", "/api/blobs/{digest}", manage.head_blob),
    ("POST", "/api/blobs/{digest}", manage.put_blob),
    ("POST", "/api/generate", native.generate),
    ("POST", "/api/chat", native.chat),
    ("POST", "/api/embed", native.embed),
    ("POST", "/api/embeddings", native.embeddings),
    ("POST", "/v1/chat/completions", openai.chat_completions),
    ("POST", "/v1/completions", openai.completions),
    ("POST", "/v1/embeddings", openai.embeddings),
    ("GET", "/v1/models", openai.list_models),
    ("GET", "/v1/models/{model:.+}", openai.show_model),
]


def make_app(service: Service) -> web.Application:
    """The application for one service."""
    app = web.Application(middlewares=[observe], client_max_size=MAX_BODY_BYTES)
    for method, path, handler in ROUTES:
        app.router.add_route(method, path, _bind(handler, service))
        if method == "GET":
            app.router.add_route("HEAD", path, _bind(handler, service))
    return app


def _bind(handler: Handler, service: Service) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def bound(request: web.Request) -> web.StreamResponse:
        return await handler(request, service)

    return bound


@web.middleware
async def observe(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Errors in Ollama's form, or OpenAI's below /v1; a log line for each request."""
    began_s = time.monotonic()
    try:
        response = await handler(request)
    except OllamaError as error:
        openai_form = request.path.startswith("/v1/")
        response = openai.error_response(error, from_middleware=False) if openai_form else error.response()
    except web.HTTPNotFound:
        response = web.Response(status=404, text="404 page not found")
    except web.HTTPMethodNotAllowed:
        response = web.Response(status=405, text="405 method not allowed")
    duration_s = time.monotonic() - began_s
    LOG.info(
        "[GIN] | %d | %.6fs | %s | %s %s", response.status, duration_s, request.remote, request.method, request.path
    )
    return response


def main() -> int:
    """Serve until a signal comes; the exit code."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="time=%(asctime)s level=%(levelname)s source=fairlead-sim %(message)s",
    )
    try:
        settings = read_settings(os.environ)
    except SettingsError as error:
        print(f"fairlead-sim: {error}", file=sys.stderr)
        return 2
    environment = read_environment(os.environ)
    try:
        listener = _listen(environment)
    except OSError as error:
        print(
            f"Error: listen tcp {environment.host.address}: bind: {(error.strerror or str(error)).lower()}",
            file=sys.stderr,
        )
        return 1
    try:
        service = Service(environment, settings)
    except OSError as error:
        print(f"Error: {error.filename}: {error.strerror}: ensure path elements are traversable", file=sys.stderr)
        return 1
    import uvloop

    return uvloop.run(serve(service, listener))


def _listen(environment: Environment) -> socket.socket:
    name = environment.host.name
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((name, environment.host.port))
    except OSError:
        listener.close()
        raise
    return listener


async def serve(service: Service, listener: socket.socket) -> int:
    """Serve on a bound socket until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    if not service.environment.no_prune:
        LOG.info('msg="total unused blobs removed: %d"', service.store.prune())
    runner = web.AppRunner(make_app(service), access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.SockSite(runner, listener, backlog=1024)
    await site.start()
    address, port = listener.getsockname()[:2]
    LOG.info('msg="Listening on %s:%d (version %s)"', address, port, service.version)
    await stop.wait()
    await site.stop()
    server = runner.server
    for connection in list(server.connections) if server is not None else []:
        if connection.transport is not None:
            connection.transport.abort()
    await service.scheduler.close()
    await runner.cleanup()
    return 0
