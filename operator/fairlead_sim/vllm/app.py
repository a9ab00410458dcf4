"""The routes of the simulated `vllm serve`, with its authentication, error form and counters."""

from __future__ import annotations

import hmac
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from fairlead_sim.vllm import chat, completions, pooling, responses, tokenization
from fairlead_sim.vllm.adapters import Adapter
from fairlead_sim.vllm.config import ServeConfig
from fairlead_sim.vllm.errors import APIError
from fairlead_sim.vllm.http import json_response
from fairlead_sim.vllm.service import Service

Handler = Callable[[web.Request, Service], Awaitable[web.StreamResponse]]

SERVICE = web.AppKey("service", Service)
LOG = logging.getLogger("fairlead_sim.vllm")

#: What --api-key guards; the rest stays open, as in vLLM.
GUARDED = ("/v1", "/v2", "/inference", "/cohere")
MAX_BODY_BYTES = 64 * 1024 * 1024


def make_app(service: Service) -> web.Application:
    """The application for one service."""
    app = web.Application(middlewares=[observe, guard], client_max_size=MAX_BODY_BYTES)
    app[SERVICE] = service
    root = service.config.root_path
    for method, path, handler in PLAIN_ROUTES:
        app.router.add_route(method, root + path, _bind(handler, service))
    for path, handler in (POOLING_ROUTES if service.config.pooling else GENERATE_ROUTES).items():
        app.router.add_post(root + path, _bind(_counting_load(handler), service))
    return app


def _bind(handler: Handler, service: Service) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def bound(request: web.Request) -> web.StreamResponse:
        return await handler(request, service)

    return bound


def _counting_load(handler: Handler) -> Handler:
    async def counting(request: web.Request, service: Service) -> web.StreamResponse:
        service.load += service.config.track_load
        try:
            return await handler(request, service)
        finally:
            service.load -= service.config.track_load

    return counting


@web.middleware
async def observe(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Errors in vLLM's form, HTTP counters, the access log and the request id header."""
    service = request.app[SERVICE]
    began_s = time.monotonic()
    try:
        response = await handler(request)
    except APIError as error:
        response = error.response()
    except web.HTTPException as error:
        kind = HTTPStatus(error.status).phrase
        response = APIError(kind, status=HTTPStatus(error.status), kind=kind).response()
    resource = request.match_info.route.resource
    path = resource.canonical if resource is not None else "none"
    metrics = service.metrics
    metrics.http_requests.labels(handler=path, method=request.method, status=f"{response.status // 100}xx").inc()
    metrics.http_duration.labels(handler=path, method=request.method).observe(time.monotonic() - began_s)
    if service.config.request_id_headers and not response.prepared:
        response.headers["X-Request-Id"] = request.headers.get("X-Request-Id") or uuid.uuid4().hex
    LOG.info('%s - "%s %s HTTP/1.1" %d', request.remote, request.method, request.path, response.status)
    return response


@web.middleware
async def guard(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """API keys, on the guarded prefixes only."""
    config = request.app[SERVICE].config
    path = request.path.removeprefix(config.root_path)
    if config.api_keys and request.method != "OPTIONS" and path.startswith(GUARDED):
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        matches = [hmac.compare_digest(key.encode(), known.encode()) for known in config.api_keys]
        if scheme.lower() != "bearer" or not any(matches):
            return json_response({"error": "Unauthorized"}, status=401)
    return await handler(request)


async def health(_request: web.Request, service: Service) -> web.StreamResponse:
    """200 unless the engine is dead; also while draining."""
    return web.Response(status=503 if service.dead else 200)


async def show_load(_request: web.Request, service: Service) -> web.StreamResponse:
    """Requests at work; 0 without --enable-server-load-tracking."""
    return json_response({"server_load": service.load})


async def show_version(_request: web.Request, service: Service) -> web.StreamResponse:
    """The version that is imitated."""
    return json_response({"version": service.config.version})


async def show_metrics(_request: web.Request, service: Service) -> web.StreamResponse:
    """Prometheus text."""
    return web.Response(body=service.metrics.render(service.engine), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def list_models(_request: web.Request, service: Service) -> web.StreamResponse:
    """The served names, and the adapters with the name that they belong to."""
    config = service.config
    created = int(time.time())
    cards = [model_card(name, config.model, config.max_model_len, created) for name in config.served_names]
    cards += [adapter_card(adapter, config, created) for adapter in config.adapters]
    return json_response({"object": "list", "data": cards})


def adapter_card(adapter: Adapter, config: ServeConfig, created: int) -> dict[str, Any]:
    """The entry of an adapter: with a parent, and without a length."""
    parent = adapter.base if adapter.base in config.served_names else config.name
    return model_card(adapter.name, adapter.path, None, created) | {"parent": parent}


def model_card(name: str, root: str, max_model_len: int | None, created: int) -> dict[str, Any]:
    """One entry of /v1/models."""
    permission = {
        "id": f"modelperm-{uuid.uuid4().hex}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "vllm",
        "root": root,
        "parent": None,
        "max_model_len": max_model_len,
        "permission": [permission],
    }


PLAIN_ROUTES: list[tuple[str, str, Handler]] = [
    ("GET", "/health", health),
    ("GET", "/ping", health),
    ("POST", "/ping", health),
    ("GET", "/load", show_load),
    ("GET", "/version", show_version),
    ("GET", "/metrics", show_metrics),
    ("GET", "/v1/models", list_models),
    ("GET", "/v1/responses/{response}", responses.retrieve),
    ("POST", "/tokenize", tokenization.tokenize),
    ("POST", "/detokenize", tokenization.detokenize),
]
#: POST routes whose requests --enable-server-load-tracking counts. A model has those of its kind only.
GENERATE_ROUTES: dict[str, Handler] = {
    "/v1/chat/completions": chat.handle,
    "/v1/completions": completions.handle,
    "/v1/responses": responses.handle,
}
POOLING_ROUTES: dict[str, Handler] = {
    "/v1/embeddings": pooling.embeddings,
    "/score": pooling.score,
    "/v1/score": pooling.score,
    "/rerank": pooling.rerank,
    "/v1/rerank": pooling.rerank,
    "/v2/rerank": pooling.rerank,
}
