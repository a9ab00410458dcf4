"""POST /v1/responses: one message as the whole response or as events. Nothing is stored, as in vLLM by default."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import Any

from aiohttp import web

from fairlead_sim.vllm.chat import last_user_text, render_prompt
from fairlead_sim.vllm.errors import APIError, bad_request, not_found
from fairlead_sim.vllm.http import json_response, send_events
from fairlead_sim.vllm.requests import ResponsesRequest, read
from fairlead_sim.vllm.service import Answer, Sampling, Service, random_id


async def handle(request: web.Request, service: Service) -> web.StreamResponse:
    """Answer one request. Raises APIError."""
    asked = await read(request, ResponsesRequest)
    model = service.check_model(asked.model)
    if asked.background:
        raise bad_request("background can only be used when `store` is true, and nothing is stored here", "background")
    if asked.previous_response_id is not None:
        raise not_found(f"Response with id '{asked.previous_response_id}' not found.")
    messages = messages_of(asked)
    said = last_user_text(messages)
    sampling = Sampling(max_tokens=asked.max_output_tokens, said=said, adapter=service.adapter(model))
    [answer] = service.start(render_prompt(messages), sampling)
    template = make_template(asked, model, service)
    if asked.stream:
        return await send_events(request, stream_events(template, answer), named=True)
    parts, reason = [], None
    async for delta in answer.deltas():
        parts.append(delta.text)
        reason = delta.finish_reason
    return json_response(finished(template, answer, "".join(parts), reason, random_id("msg")))


async def retrieve(request: web.Request, _service: Service) -> web.StreamResponse:
    """GET /v1/responses/ID: nothing is stored. Raises APIError."""
    raise not_found(f"Response with id '{request.match_info['response']}' not found.")


def messages_of(asked: ResponsesRequest) -> list[dict[str, Any]]:
    """Instructions and input as a conversation; parts are `input_text` or `output_text`."""
    messages: list[dict[str, Any]] = []
    if asked.instructions:
        messages.append({"role": "system", "content": asked.instructions})
    if isinstance(asked.input, str):
        return [*messages, {"role": "user", "content": asked.input}]
    return [*messages, *(item for item in asked.input if item.get("role"))]


def make_template(asked: ResponsesRequest, model: str, service: Service) -> dict[str, Any]:
    """The response object before anything was said."""
    return {
        "id": random_id("resp"),
        "created_at": int(time.time()),
        "incomplete_details": None,
        "instructions": asked.instructions,
        "metadata": asked.metadata,
        "model": model,
        "object": "response",
        "output": [],
        "parallel_tool_calls": True,
        "temperature": 1.0 if asked.temperature is None else asked.temperature,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "background": False,
        "max_output_tokens": asked.max_output_tokens or service.config.max_model_len,
        "max_tool_calls": None,
        "previous_response_id": None,
        "reasoning": None,
        "service_tier": "auto",
        "status": "in_progress",
        "text": None,
        "top_logprobs": None,
        "truncation": "disabled",
        "usage": None,
        "user": None,
    }


def message(item_id: str, status: str, text: str | None) -> dict[str, Any]:
    """The output item; without content while nothing was said."""
    content = [] if text is None else [part(text)]
    return {"id": item_id, "type": "message", "role": "assistant", "status": status, "content": content}


def part(text: str) -> dict[str, Any]:
    """The only part of the message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": None}


def finished(template: dict[str, Any], answer: Answer, text: str, reason: str | None, item_id: str) -> dict[str, Any]:
    """The response at its end."""
    status = "incomplete" if reason == "length" else "completed"
    return template | {
        "status": status,
        "incomplete_details": {"reason": "max_output_tokens"} if reason == "length" else None,
        "output": [message(item_id, status, text)],
        "usage": {
            "input_tokens": answer.prompt_tokens,
            "input_tokens_details": {"cached_tokens": answer.cached_tokens},
            "output_tokens": answer.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": answer.prompt_tokens + answer.output_tokens,
        },
    }


async def stream_events(template: dict[str, Any], answer: Answer) -> AsyncGenerator[dict[str, Any]]:
    """The events, numbered."""
    number = 0
    try:
        async for event in _events(template, answer):
            yield event | {"sequence_number": number}
            number += 1
    except APIError as error:
        failure = {"type": "error", "code": str(error.status.value), "message": error.message, "param": error.param}
        yield failure | {"sequence_number": number}
    finally:
        answer.cancel()


async def _events(template: dict[str, Any], answer: Answer) -> AsyncGenerator[dict[str, Any]]:
    item_id = random_id("msg")
    where = {"item_id": item_id, "output_index": 0, "content_index": 0}
    yield {"type": "response.created", "response": template}
    yield {"type": "response.in_progress", "response": template}
    parts: list[str] = []
    reason = None
    async for delta in answer.deltas():
        if not parts:
            yield {
                "type": "response.output_item.added",
                "output_index": 0,
                "item": message(item_id, "in_progress", None),
            }
            yield {"type": "response.content_part.added", "part": part("")} | where
        parts.append(delta.text)
        reason = delta.finish_reason
        yield {"type": "response.output_text.delta", "delta": delta.text, "logprobs": []} | where
    text = "".join(parts)
    response = finished(template, answer, text, reason, item_id)
    yield {"type": "response.output_text.done", "text": text, "logprobs": []} | where
    yield {"type": "response.content_part.done", "part": part(text)} | where
    yield {"type": "response.output_item.done", "output_index": 0, "item": response["output"][0]}
    yield {"type": f"response.{response['status']}", "response": response}
