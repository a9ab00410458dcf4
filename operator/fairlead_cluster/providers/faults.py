"""How a provider fails, and for which requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Self

from fairlead_cluster.providers.http1 import Request

Json = dict[str, Any]


class Kind(StrEnum):
    """What happens to a request. (That nobody listens at all is `FakeProvider.refuse`.)"""

    RESET = "reset"  # the connection is reset when the request was read
    STATUS = "status"  # `code` with `headers` and `body`
    SLOW = "slow"  # the usual answer, its headers after `delay_s`
    STALL = "stall"  # headers and `after_chunks` pieces, then nothing until the client goes
    CUT = "cut"  # headers and `after_chunks` pieces, then the end of the connection without the end of the body
    GARBAGE = "garbage"  # bytes that are not HTTP
    GARBLED = "garbled"  # headers and `after_chunks` pieces, then such bytes


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to fail. All conditions that are given must hold: `path` (its end), `model`, `contains` (of the body).

    times: how often; 0 for ever. Of several faults the first that matches is taken.
    """

    kind: Kind
    code: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None  # by default an error as the provider's API has it
    delay_s: float = 5.0
    after_chunks: int = 2
    times: int = 0
    path: str = ""
    model: str = ""
    contains: str = ""

    @classmethod
    def from_json(cls, data: Json) -> Self:
        """ValueError for names or kinds that do not exist."""
        unknown = data.keys() - {one.name for one in fields(cls)}
        if unknown or "kind" not in data:
            raise ValueError(f"a fault has a kind and no {sorted(unknown)}")
        return cls(**{**data, "kind": Kind(data["kind"])})

    def matches(self, request: Request) -> bool:
        """Whether it is for this request."""
        body = request.json
        model = body.get("model") if isinstance(body, dict) else None
        return (
            request.path.endswith(self.path)
            and (not self.model or model == self.model)
            and self.contains.encode() in request.body
        )

    def error_body(self, request: Request) -> bytes:
        """The body of a STATUS."""
        if self.body is not None:
            return self.body.encode()
        kind = {429: "rate_limit_error", 529: "overloaded_error"}.get(self.code, "server_error")
        error = {"type": kind, "message": f"injected {self.code}"}
        if request.path.endswith("/messages"):
            return json.dumps({"type": "error", "error": error}).encode()
        return json.dumps({"error": {**error, "param": None, "code": None}}).encode()


class Faults:
    """The faults of one provider, and how often each is still to happen."""

    def __init__(self) -> None:
        self._active: list[tuple[Fault, int]] = []

    @property
    def active(self) -> list[Fault]:
        """In the order in which they are tried."""
        return [fault for fault, _ in self._active]

    def set(self, *faults: Fault) -> None:
        """Replace all (by none, if none is given)."""
        self._active = [(fault, fault.times) for fault in faults]

    def take(self, request: Request) -> Fault | None:
        """The fault of a request; it counts as one time."""
        active = self._active  # another thread may replace it meanwhile
        for index, (fault, left) in enumerate(active):
            if fault.matches(request):
                if left == 1:
                    del active[index]
                elif left > 1:
                    active[index] = (fault, left - 1)
                return fault
        return None
