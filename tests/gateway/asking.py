"""Clients of the gateway: one question, and all that can be said of how it ended."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

__all__ = ["Answer", "ask", "make_body"]

_COUNT = itertools.count(1)
#: Longer than anything here may take: what hangs is found by its time.
HANG_S = 30.0


@dataclass(frozen=True)
class Answer:
    """`status` 0: the connection broke before there was one; `broke`: how it broke, "" if the response came to its proper end."""

    id: str
    status: int
    backend: str
    data_class: str
    text: str
    broke: str
    begun_s: float
    first_s: float
    took_s: float
    is_stream: bool

    @property
    def is_success(self) -> bool:
        """All of an answer has come."""
        if self.status != 200 or self.broke:
            return False
        return self.text.endswith("data: [DONE]\n\n") if self.is_stream else '"choices"' in self.text


def make_body(model: str, *, stream: bool = False, text: str = "hello", **more: Any) -> dict[str, Any]:
    """A chat request whose `user` is an id of its own."""
    body = {"model": model, "user": f"r{next(_COUNT)}", "messages": [{"role": "user", "content": text}], **more}
    return {**body, "stream": True} if stream else body


async def ask(
    client: httpx.AsyncClient,
    url: str,
    body: dict[str, Any],
    *,
    data_class: str = "",
    key: str = "",
    path: str = "/v1/chat/completions",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Never raises for what the gateway does."""
    headers = {**(headers or {}), **({"x-data-classification": data_class} if data_class else {})}
    headers |= {"authorization": f"Bearer {key}"} if key else {}
    begun_s, started = time.time(), time.monotonic()
    status, backend, seen_class, parts, broke, first_s = 0, "", "", [], "", 0.0
    try:
        async with client.stream("POST", f"{url}{path}", json=body, headers=headers, timeout=HANG_S) as response:
            status = response.status_code
            backend = response.headers.get("x-fairlead-backend", "")
            seen_class = response.headers.get("x-fairlead-class", "")
            async for part in response.aiter_bytes():
                first_s = first_s or time.monotonic() - started
                parts.append(part)
    except httpx.HTTPError as error:
        broke = f"{type(error).__name__}: {error}"
    return Answer(
        id=body["user"],
        status=status,
        backend=backend,
        data_class=seen_class,
        text=b"".join(parts).decode(errors="replace"),
        broke=broke,
        begun_s=begun_s,
        first_s=first_s,
        took_s=time.monotonic() - started,
        is_stream=bool(body.get("stream")),
    )
