"""Shapes of Anthropic's messages API: one message, and the events of a streamed one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]
#: Input and output tokens.
Usage = tuple[int, int]


def message(identity: str, model: str, text: str, usage: Usage) -> Json:
    """A finished message."""
    return {
        "id": f"msg_{identity}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": usage[0], "output_tokens": usage[1]},
    }


def events(identity: str, model: str, words: Sequence[str], usage: Usage) -> list[Json]:
    """From `message_start` to `message_stop`."""
    started = {**message(identity, model, "", (usage[0], 1)), "content": [], "stop_reason": None}
    deltas = [{"type": "text_delta", "text": word} for word in words]
    return [
        {"type": "message_start", "message": started},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": usage[1]},
        },
        {"type": "message_stop"},
    ]
