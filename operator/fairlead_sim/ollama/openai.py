"""Ollama's OpenAI-compatible API: the native answers in another dress (`fp_ollama`, `[DONE]`, OpenAI's errors)."""

from __future__ import annotations

import base64
import secrets
import struct
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import web

from fairlead_sim.ollama import native
from fairlead_sim.ollama.errors import OllamaError, bad_request
from fairlead_sim.ollama.names import parse_name
from fairlead_sim.ollama.service import Service, field_of, read_json
from fairlead_sim.ollama.wire import json_response, send_events

FINGERPRINT = "fp_ollama"


def error_response(error: OllamaError, *, from_middleware: bool) -> web.Response:
    """OpenAI's error form. What the native handler refused is always an `api_error` in Ollama."""
    kinds = {HTTPStatus.BAD_REQUEST: "invalid_request_error", HTTPStatus.NOT_FOUND: "not_found_error"}
    kind = kinds.get(error.status, "api_error") if from_middleware else "api_error"
    body = {"error": {"message": error.message, "type": kind, "param": None, "code": None}}
    return json_response(body, status=error.status.value)


async def chat_completions(request: web.Request, service: Service) -> web.StreamResponse:
    """POST /v1/chat/completions."""
    try:
        body = await read_json(request)
        translated = chat_request(body)
    except OllamaError as error:
        return error_response(error, from_middleware=True)
    return await _complete(request, service, body, native.chat_job(service, translated), "chat.completion")


async def completions(request: web.Request, service: Service) -> web.StreamResponse:
    """POST /v1/completions."""
    try:
        body = await read_json(request)
        prompt = field_of(body, "prompt", str) or ""
        translated = {"model": body.get("model"), "prompt": prompt, "options": options_of(body)}
    except OllamaError as error:
        return error_response(error, from_middleware=True)
    return await _complete(request, service, body, native.generate_job(service, translated), "text_completion")


def chat_request(body: dict[str, Any]) -> dict[str, Any]:
    """The native request. Raises OllamaError 400."""
    messages: list[dict[str, Any]] = []
    for message in field_of(body, "messages", list) or []:
        content = message.get("content")
        if isinstance(content, list):
            texts = [part.get("text") for part in content if part.get("type") == "text"]
            if len(texts) < len(content) or not all(isinstance(text, str) for text in texts):
                raise bad_request("invalid message format")
            messages += [{"role": message.get("role"), "content": text} for text in texts]
        elif isinstance(content, str) or message.get("tool_calls"):
            messages.append({"role": message.get("role"), "content": content or ""})
        else:
            raise bad_request(f"invalid message content type: {type(content).__name__}")
    wanted = body.get("response_format") or {}
    schema = (wanted.get("json_schema") or {}).get("schema")
    return {
        "model": body.get("model"),
        "messages": messages,
        "tools": body.get("tools"),
        "options": options_of(body),
        "format": {"json_object": "json", "json_schema": schema}.get(wanted.get("type", "text")),
    }


def options_of(body: dict[str, Any]) -> dict[str, Any]:
    """Sampling parameters as native options."""
    options: dict[str, Any] = {}
    if (wanted := field_of(body, "max_tokens", int)) is not None:
        options["num_predict"] = wanted
    if body.get("stop"):
        options["stop"] = body["stop"]
    if (seed := field_of(body, "seed", int)) is not None:
        options["seed"] = seed
    return options


async def _complete(
    request: web.Request, service: Service, body: dict[str, Any], job: native.Job, kind: str
) -> web.StreamResponse:
    prefix = "chatcmpl" if kind == "chat.completion" else "cmpl"
    made_id = f"{prefix}-{secrets.randbelow(999)}"
    if job.prompt is None:
        async with service.scheduler.use(job.model, job.num_ctx, job.keep_alive_s):
            return json_response(whole(made_id, kind, native.line(job, done="load")))
    lines = native.run(service, job)
    async with aclosing(lines):
        first = await anext(lines)
        if not body.get("stream"):
            return json_response(whole(made_id, kind, await native.gather(first, lines)))
        options = body.get("stream_options") or {}
        return await send_events(request, chunks(made_id, kind, first, lines, bool(options.get("include_usage"))))


async def chunks(
    made_id: str, kind: str, first: dict[str, Any], rest: AsyncGenerator[dict[str, Any]], with_usage: bool
) -> AsyncGenerator[dict[str, Any]]:
    """The chunks of a stream; the last one has the usage if that was asked for."""
    chunk_kind = "chat.completion.chunk" if kind == "chat.completion" else kind
    called = False
    async for entry in native.resume(first, rest):
        if "error" in entry:
            yield {"error": {"message": entry["error"], "type": "api_error", "param": None, "code": None}}
            return
        called = called or bool(native.calls_of(entry))
        chunk = head(made_id, chunk_kind, entry) | {"choices": [choice(kind, entry, "delta", called=called)]}
        if with_usage and kind == "text_completion":
            chunk["usage"] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        yield chunk
        if entry["done"] and with_usage:
            yield chunk | {"choices": [], "usage": usage(entry)}


def head(made_id: str, kind: str, entry: dict[str, Any]) -> dict[str, Any]:
    """The fields that come first."""
    return {
        "id": made_id,
        "object": kind,
        "created": int(time.time()),
        "model": entry["model"],
        "system_fingerprint": FINGERPRINT,
    }


def whole(made_id: str, kind: str, entry: dict[str, Any]) -> dict[str, Any]:
    """A complete answer."""
    made = choice(kind, entry, "message", called=bool(native.calls_of(entry)))
    return head(made_id, kind, entry) | {"choices": [made], "usage": usage(entry)}


def choice(kind: str, entry: dict[str, Any], part: str, *, called: bool) -> dict[str, Any]:
    """The only choice."""
    reason = entry.get("done_reason")
    if reason is not None and called:
        reason = "tool_calls"
    if kind == "text_completion":
        return {"text": native.text_of(entry), "index": 0, "finish_reason": reason}
    message: dict[str, Any] = {"role": "assistant", "content": native.text_of(entry)}
    if calls := native.calls_of(entry):
        message["tool_calls"] = [
            {
                "id": call["id"],
                "index": call["function"]["index"],
                "type": "function",
                "function": {
                    "name": call["function"]["name"],
                    "arguments": orjson.dumps(call["function"]["arguments"]).decode(),
                },
            }
            for call in calls
        ]
    return {"index": 0, part: message, "finish_reason": reason}


def usage(entry: dict[str, Any]) -> dict[str, int]:
    """Token counts of the last line."""
    prompt_tokens, output_tokens = entry.get("prompt_eval_count", 0), entry.get("eval_count", 0)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
    }


async def embeddings(request: web.Request, service: Service) -> web.StreamResponse:
    """POST /v1/embeddings."""
    try:
        body = await read_json(request)
        if body.get("input") in (None, []):
            raise bad_request("invalid input")
        body["input"] = body["input"] or [""]
        form = body.get("encoding_format") or "float"
        if form not in ("float", "base64"):
            raise bad_request(f"Invalid value for 'encoding_format' = {form}. Supported values: ['float', 'base64'].")
    except OllamaError as error:
        return error_response(error, from_middleware=True)
    found = await native.run_embed(service, body)
    data = [
        {"object": "embedding", "embedding": packed(vector) if form == "base64" else vector, "index": index}
        for index, vector in enumerate(found["embeddings"])
    ]
    count = found.get("prompt_eval_count", 0)
    made = {"object": "list", "data": data, "model": found["model"]}
    return json_response(made | {"usage": {"prompt_tokens": count, "total_tokens": count}})


def packed(vector: list[float]) -> str:
    """Little-endian 32-bit floats in base64."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


async def list_models(_request: web.Request, service: Service) -> web.StreamResponse:
    """GET /v1/models."""
    data = [card(model.name.short, model.modified_s) for model in service.store.models()]
    return json_response({"object": "list", "data": data or None})


async def show_model(request: web.Request, service: Service) -> web.StreamResponse:
    """GET /v1/models/NAME."""
    name = request.match_info["model"]
    return json_response(card(name, service.find(name).modified_s))


def card(name: str, modified_s: float) -> dict[str, Any]:
    """One model."""
    return {"id": name, "object": "model", "created": int(modified_s), "owned_by": parse_name(name).namespace}
