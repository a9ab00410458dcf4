"""Answers of the simulated API server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """HTTP code, body and headers."""

    code: int
    body: Json
    headers: Mapping[str, str] = field(default_factory=dict)


def refuse(
    code: int, reason: str, message: str, causes: Sequence[Json] = (), headers: Mapping[str, str] | None = None
) -> Answer:
    """A Status object as the API server sends it."""
    details = {"causes": list(causes)} if causes else {}
    status = {
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message,
        "details": details,
    }  # fmt: skip
    return Answer(code, status, headers or {})
