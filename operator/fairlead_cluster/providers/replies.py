"""What a provider answers when nothing is wrong: pure, from a request to status, headers and pieces of a body.

Answers are short and always the same for the same request. Paths are told by their ends, so that a provider may be
mounted at any prefix (`/v1`, `/openai/v1`, `/api/v1`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fairlead_cluster.providers import anthropic, responses
from fairlead_cluster.providers.http1 import Request

Json = dict[str, Any]

_CREATED = 1_790_000_000
_JSON = {"content-type": "application/json"}
_EVENTS = {"content-type": "text/event-stream", "cache-control": "no-cache"}


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one provider is.

    text: of its answers; its name and the model by default.
    models: that it has; empty for any.
    api_keys: that it takes, by `authorization: Bearer`, `x-api-key` or `api-key`; empty for any or none.
    gap_s: between two pieces of a stream.
    headers: of each answer.
    """

    text: str = ""
    models: tuple[str, ...] = ()
    api_keys: tuple[str, ...] = ()
    gap_s: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """A body of several pieces is a stream, sent in chunks; of one it has a content-length."""

    status: int
    headers: Mapping[str, str]
    pieces: tuple[bytes, ...]
    is_stream: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A request that will be answered."""

    body: Json
    model: str
    text: str
    prompt_tokens: int

    @property
    def words(self) -> list[str]:
        """The answer's tokens; together they are the text."""
        first, *others = self.text.split(" ")
        return [first, *(f" {word}" for word in others)]

    @property
    def id(self) -> str:
        """Always the same for the same request."""
        return hashlib.sha256(json.dumps(self.body, sort_keys=True).encode()).hexdigest()[:24]


def make_reply(request: Request, provider: str, behaviour: Behaviour) -> Reply:
    """The answer to any request, errors of the client's included."""
    reply = _reply(request, provider, behaviour)
    return Reply(reply.status, {**reply.headers, **behaviour.headers}, reply.pieces, reply.is_stream)


def _reply(request: Request, provider: str, behaviour: Behaviour) -> Reply:
    if behaviour.api_keys and _api_key(request) not in behaviour.api_keys:
        return _error(401, "invalid_request_error", "Incorrect API key provided", "invalid_api_key")
    if request.method == "GET" and request.path.endswith("/models"):
        names = behaviour.models or (f"{provider}-model",)
        data = [{"id": name, "object": "model", "created": _CREATED, "owned_by": provider} for name in names]
        return _json({"object": "list", "data": data})
    operation = next((one for end, one in _OPERATIONS.items() if request.path.endswith(end)), None)
    if operation is None or request.method != "POST":
        return _error(404, "invalid_request_error", f"Invalid URL ({request.method} {request.path})", None)
    body = request.json
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        return _error(400, "invalid_request_error", "you must provide a model parameter", None)
    model: str = body["model"]
    if behaviour.models and model not in behaviour.models:
        return _error(404, "invalid_request_error", f"The model `{model}` does not exist", "model_not_found")
    text = behaviour.text or f"{provider} answers as {model} : 1 2 3"
    return operation(Call(body, model, text, len(request.body.split())))


def _api_key(request: Request) -> str | None:
    bearer = request.header("authorization") or ""
    if bearer.startswith("Bearer "):
        return bearer.removeprefix("Bearer ")
    return request.header("x-api-key") or request.header("api-key")


def _json(body: Json, status: int = 200) -> Reply:
    return Reply(status, _JSON, (json.dumps(body).encode(),))


def _error(status: int, kind: str, message: str, code: str | None) -> Reply:
    return _json({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)


def _events(events: list[Json | str], *, named: bool = False) -> Reply:
    pieces = []
    for event in events:
        data = event if isinstance(event, str) else json.dumps(event)
        name = f"event: {event['type']}\n" if named and isinstance(event, dict) else ""
        pieces.append(f"{name}data: {data}\n\n".encode())
    return Reply(200, _EVENTS, tuple(pieces), is_stream=True)


def _usage(call: Call) -> Json:
    count = len(call.words)
    return {
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": count,
        "total_tokens": call.prompt_tokens + count,
    }


def _chat(call: Call) -> Reply:
    common = {"id": f"chatcmpl-{call.id}", "created": _CREATED, "model": call.model}
    if not call.body.get("stream"):
        message = {"role": "assistant", "content": call.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return _json({**common, "object": "chat.completion", "choices": [choice], "usage": _usage(call)})

    def chunk(delta: Json, finish: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {"choices": [choice]}

    deltas = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": word}) for word in call.words)]
    return _stream(call, {**common, "object": "chat.completion.chunk"}, [*deltas, chunk({}, "stop")])


def _completion(call: Call) -> Reply:
    common = {"id": f"cmpl-{call.id}", "object": "text_completion", "created": _CREATED, "model": call.model}

    def choice(text: str, finish: str | None) -> Json:
        return {"choices": [{"text": text, "index": 0, "logprobs": None, "finish_reason": finish}]}

    if not call.body.get("stream"):
        return _json({**common, **choice(call.text, "stop"), "usage": _usage(call)})
    return _stream(call, common, [*(choice(word, None) for word in call.words), choice("", "stop")])


def _stream(call: Call, common: Json, chunks: list[Json]) -> Reply:
    """With the usage at the end where the client has asked for it, and then a null in each chunk before."""
    wants_usage = bool((call.body.get("stream_options") or {}).get("include_usage"))
    extra: Json = {"usage": None} if wants_usage else {}
    last = [{**common, "choices": [], "usage": _usage(call)}] if wants_usage else []
    return _events([*({**common, **one, **extra} for one in chunks), *last, "[DONE]"])


def _embeddings(call: Call) -> Reply:
    given = call.body.get("input")
    inputs = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
    size = int(call.body.get("dimensions") or 8)
    data = []
    for index, one in enumerate(inputs):
        digest = hashlib.shake_256(json.dumps(one).encode()).digest(size)
        vector: Any = [byte / 256 for byte in digest]
        if call.body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    usage = {"prompt_tokens": call.prompt_tokens, "total_tokens": call.prompt_tokens}
    return _json({"object": "list", "data": data, "model": call.model, "usage": usage})


def _rerank(call: Call) -> Reply:
    documents = call.body.get("documents") or []
    top = int(call.body.get("top_n") or len(documents))
    results = [{"index": index, "relevance_score": 1 / (index + 1)} for index in range(len(documents))][:top]
    usage = {"total_tokens": call.prompt_tokens}
    return _json({"id": call.id, "model": call.model, "results": results, "usage": usage})


def _responses(call: Call) -> Reply:
    usage = (call.prompt_tokens, len(call.words))
    if not call.body.get("stream"):
        return _json(responses.response(call.id, call.model, call.text, usage, _CREATED))
    return _events([*responses.events(call.id, call.model, call.words, usage, _CREATED)], named=True)


def _messages(call: Call) -> Reply:
    usage = (call.prompt_tokens, len(call.words))
    if not call.body.get("stream"):
        return _json(anthropic.message(call.id, call.model, call.text, usage))
    return _events([*anthropic.events(call.id, call.model, call.words, usage)], named=True)


_OPERATIONS: Mapping[str, Callable[[Call], Reply]] = {
    "/chat/completions": _chat,  # before `/completions`, which is its end
    "/completions": _completion,
    "/embeddings": _embeddings,
    "/responses": _responses,
    "/messages": _messages,
    "/rerank": _rerank,
}
