"""Shapes of OpenAI's Responses API: one response, and the events of a streamed one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]
#: Input and output tokens.
Usage = tuple[int, int]


def response(identity: str, model: str, text: str, usage: Usage, created: int) -> Json:
    """A completed response."""
    return {
        **_common(identity, model, created),
        "status": "completed",
        "output": [_item(identity, text)],
        "usage": {
            "input_tokens": usage[0],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage[1],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": sum(usage),
        },
    }


def events(identity: str, model: str, words: Sequence[str], usage: Usage, created: int) -> list[Json]:
    """From `response.created` to `response.completed`."""
    text = "".join(words)
    started = {**_common(identity, model, created), "status": "in_progress", "output": [], "usage": None}
    where = {"item_id": f"msg_{identity}", "output_index": 0, "content_index": 0}
    empty_item = {**_item(identity, ""), "status": "in_progress", "content": []}
    found: list[Json] = [
        {"type": "response.created", "response": started},
        {"type": "response.in_progress", "response": started},
        {"type": "response.output_item.added", "output_index": 0, "item": empty_item},
        {"type": "response.content_part.added", **where, "part": _part("")},
        *({"type": "response.output_text.delta", **where, "delta": word, "logprobs": []} for word in words),
        {"type": "response.output_text.done", **where, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **where, "part": _part(text)},
        {"type": "response.output_item.done", "output_index": 0, "item": _item(identity, text)},
        {"type": "response.completed", "response": response(identity, model, text, usage, created)},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(found)]


def _common(identity: str, model: str, created: int) -> Json:
    return {
        "id": f"resp_{identity}",
        "object": "response",
        "created_at": created,
        "model": model,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "store": False,
    }


def _item(identity: str, text: str) -> Json:
    content = [_part(text)]
    return {"id": f"msg_{identity}", "type": "message", "status": "completed", "role": "assistant", "content": content}


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
