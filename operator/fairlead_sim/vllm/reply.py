"""What all answers have in common: id, time, model, fingerprint and usage."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from fairlead_sim.vllm.service import Answer, Service, random_id


@dataclass(frozen=True, slots=True)
class Reply:
    """What every chunk or the whole answer carries."""

    id: str
    created: int
    model: str
    fingerprint: str | None

    def head(self, kind: str) -> dict[str, Any]:
        """The fields that come first."""
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def make_reply(request: web.Request, service: Service, prefix: str, model: str, request_id: str | None) -> Reply:
    """A reply with the id that the client chose (X-Request-Id), or a random one."""
    made_id = random_id(prefix, request.headers.get("X-Request-Id") or request_id)
    return Reply(made_id, int(time.time()), model, service.config.fingerprint)


def usage(started: list[Answer], prompt_tokens: int, service: Service) -> dict[str, Any]:
    """The usage of answers together."""
    output_tokens = sum(answer.output_tokens for answer in started)
    details = {"cached_tokens": started[0].cached_tokens} if service.config.prompt_tokens_details else None
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + output_tokens,
        "completion_tokens": output_tokens,
        "prompt_tokens_details": details,
    }
