"""Ollama's own inference API: /api/generate, /api/chat, /api/embed, /api/embeddings."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import web

from fairlead_sim import answers, tokens
from fairlead_sim.ollama.errors import OllamaError, bad_request
from fairlead_sim.ollama.service import Piece, Prompt, Service, field_of, keep_alive_of, read_json
from fairlead_sim.ollama.store import Model
from fairlead_sim.ollama.wire import json_response, send_lines, timestamp

_Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """A request that has been understood: its model, and what to do with it."""

    kind: str  # generate or chat
    asked_name: str
    model: Model
    prompt: Prompt | None
    num_ctx: int | None
    keep_alive_s: float | None
    tool: str | None = None

    @property
    def is_unload(self) -> bool:
        """Nothing to answer and nothing to keep."""
        return self.prompt is None and self.keep_alive_s == 0


async def generate(request: web.Request, service: Service) -> web.StreamResponse:
    """POST /api/generate."""
    body = await read_json(request)
    return await _answer(request, service, generate_job(service, body), body)


async def chat(request: web.Request, service: Service) -> web.StreamResponse:
    """POST /api/chat."""
    body = await read_json(request)
    return await _answer(request, service, chat_job(service, body), body)


def generate_job(service: Service, body: _Line) -> Job:
    """What /api/generate asks for. Raises OllamaError."""
    name = field_of(body, "model", str) or ""
    model = service.find(name)
    if "completion" not in model.capabilities:
        raise bad_request(f'"{name}" does not support generate')
    options = service.options(model, field_of(body, "options", dict))
    text = field_of(body, "prompt", str) or ""
    prompt = None
    if text:
        system = field_of(body, "system", str) or model.text("system")
        whole = text if body.get("raw") else f"{system}\n{text}".strip()
        prompt = Prompt(whole, text, options, script_for(body.get("format")))
    return Job("generate", name, model, prompt, options.get("num_ctx"), keep_alive_of(body))


def chat_job(service: Service, body: _Line) -> Job:
    """What /api/chat asks for. Raises OllamaError."""
    name = field_of(body, "model", str) or ""
    if not name:
        raise bad_request("model is required")
    model = service.find(name)
    if "completion" not in model.capabilities:
        raise bad_request(f'"{name}" does not support chat')
    options = service.options(model, field_of(body, "options", dict))
    messages = field_of(body, "messages", list) or []
    tools = field_of(body, "tools", list) or []
    if tools and "tools" not in model.capabilities:
        raise bad_request(
            f"{model.name.host}/{model.name.namespace}/{model.name.model}:{model.name.tag} does not support tools"
        )
    prompt, tool = None, None
    if messages:
        texts = [str(message.get("content") or "") for message in messages if message.get("role") == "user"]
        said = texts[-1] if texts else ""
        lines = [f"<|{message.get('role')}|>{message.get('content') or ''}" for message in messages]
        called = called_tool(tools, said)
        script = script_for(body.get("format"))
        if called is not None:
            tool, script = called["name"], answers.arguments_for(called.get("parameters") or {})
        prompt = Prompt("\n".join([model.text("system"), *lines]).strip(), said, options, script)
    return Job("chat", name, model, prompt, options.get("num_ctx"), keep_alive_of(body), tool)


def called_tool(tools: list[_Line], said: str) -> _Line | None:
    """The function that the simulated model calls: one that the user names."""
    functions = [tool.get("function") or {} for tool in tools]
    return next((function for function in functions if function.get("name") and function["name"] in said), None)


def script_for(wanted: Any) -> str | None:
    """JSON text for a `format`: "json", or a schema."""
    if not wanted:
        return None
    schema = wanted if isinstance(wanted, dict) else {"type": "object", "required": ["simulated"]}
    return answers.arguments_for(schema)


async def _answer(request: web.Request, service: Service, job: Job, body: _Line) -> web.StreamResponse:
    if job.is_unload:
        await service.scheduler.unload(job.model)
        return json_response(line(job, done="unload"))
    if job.prompt is None:
        async with service.scheduler.use(job.model, job.num_ctx, job.keep_alive_s):
            return json_response(line(job, done="load"))
    lines = run(service, job)
    # Errors before the first line (no runner, queue full) are HTTP errors, in a stream too.
    async with aclosing(lines):
        first = await anext(lines)
        if body.get("stream") is False:
            return json_response(await gather(first, lines))
        return await send_lines(request, resume(first, lines))


async def resume(first: _Line, rest: AsyncGenerator[_Line]) -> AsyncGenerator[_Line]:
    """The whole stream; an error in the middle of it is a line of its own."""
    yield first
    try:
        async for following in rest:
            yield following
    except OllamaError as error:
        yield {"error": error.message}


async def gather(first: _Line, rest: AsyncGenerator[_Line]) -> _Line:
    """All lines as one."""
    last, text, calls = first, [text_of(first)], list(calls_of(first))
    async for last in rest:
        text.append(text_of(last))
        calls += calls_of(last)
    if "message" in last:
        last["message"]["content"] = "".join(text)
        if calls:
            last["message"]["tool_calls"] = calls
    else:
        last["response"] = "".join(text)
    return last


def text_of(entry: _Line) -> str:
    """A line's text."""
    return str(entry["message"]["content"] if "message" in entry else entry["response"])


def calls_of(entry: _Line) -> list[_Line]:
    """A line's tool calls."""
    calls: list[_Line] = entry.get("message", {}).get("tool_calls") or []
    return calls


async def run(service: Service, job: Job) -> AsyncGenerator[_Line]:
    """The lines of an answer. Raises OllamaError."""
    assert job.prompt is not None
    began_s = time.monotonic()
    async with service.scheduler.use(job.model, job.num_ctx, job.keep_alive_s) as runner:
        load_s = time.monotonic() - began_s
        arguments: list[str] = []
        async with aclosing(service.answer(runner, job.prompt)) as pieces:
            async for piece in pieces:
                if job.tool is not None and piece.reason is None:
                    arguments.append(piece.text)
                elif piece.reason is None:
                    yield line(job, piece.text)
                else:
                    if job.tool is not None and (call := tool_call(job.tool, "".join(arguments))):
                        yield line(job, calls=[call])
                    ended = line(job, done=piece.reason) | timings(piece, time.monotonic() - began_s, load_s)
                    yield (
                        ended
                        if job.kind == "chat"
                        else ended | {"context": tokens.encode(job.prompt.text + piece.whole)}
                    )


def tool_call(name: str, arguments: str) -> _Line | None:
    """A complete call; None if the answer was too short for its arguments."""
    try:
        parsed = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return None
    call_id = "call_" + secrets.token_hex(4)
    return {"id": call_id, "function": {"index": 0, "name": name, "arguments": parsed}}


def line(job: Job, text: str = "", *, done: str | None = None, calls: list[_Line] | None = None) -> _Line:
    """One line of an answer."""
    made: _Line = {"model": job.asked_name, "created_at": timestamp(time.time())}
    if job.kind == "chat":
        made["message"] = {"role": "assistant", "content": text} | ({"tool_calls": calls} if calls else {})
    else:
        made["response"] = text
    made["done"] = done is not None
    return made | ({"done_reason": done} if done else {})


def timings(piece: Piece, total_s: float, load_s: float) -> _Line:
    """The counts of the last line; durations in nanoseconds."""
    return {
        "total_duration": int(total_s * 1e9),
        "load_duration": int(load_s * 1e9),
        "prompt_eval_count": piece.prompt_tokens,
        "prompt_eval_duration": int(piece.prompt_s * 1e9),
        "eval_count": piece.output_tokens,
        "eval_duration": int(piece.output_s * 1e9),
    }


async def embed(request: web.Request, service: Service) -> web.StreamResponse:
    """POST /api/embed."""
    return json_response(await run_embed(service, await read_json(request)))


async def run_embed(service: Service, body: _Line) -> _Line:
    """The answer of /api/embed. Raises OllamaError."""
    began_s = time.monotonic()
    given = body.get("input")
    texts = [given] if isinstance(given, str) and given else given or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise bad_request("invalid input type")
    name = field_of(body, "model", str) or ""
    model = find_to_embed(service, name)
    options = service.options(model, field_of(body, "options", dict))
    async with service.scheduler.use(model, options.get("num_ctx"), keep_alive_of(body)) as runner:
        load_s = time.monotonic() - began_s
        vectors, count = await service.embed(runner, texts, field_of(body, "dimensions", int))
    made: _Line = {"model": name, "embeddings": vectors}
    if not texts:
        return made
    return made | {
        "total_duration": int((time.monotonic() - began_s) * 1e9),
        "load_duration": int(load_s * 1e9),
        "prompt_eval_count": count,
    }


def find_to_embed(service: Service, name: str) -> Model:
    """As `find`, in the words that the embedding routes use."""
    try:
        return service.find(name)
    except OllamaError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        raise OllamaError(f'model "{name}" not found, try pulling it first', HTTPStatus.NOT_FOUND) from error


async def embeddings(request: web.Request, service: Service) -> web.StreamResponse:
    """POST /api/embeddings, the older form with one prompt."""
    body = await read_json(request)
    model = find_to_embed(service, field_of(body, "model", str) or "")
    text = field_of(body, "prompt", str) or ""
    options = service.options(model, field_of(body, "options", dict))
    async with service.scheduler.use(model, options.get("num_ctx"), keep_alive_of(body)) as runner:
        if not text:
            return json_response({"embedding": []})
        vectors, _count = await service.embed(runner, [text], None)
    return json_response({"embedding": vectors[0]})
