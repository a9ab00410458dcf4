"""The route and the faults of the chaos matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.gateway.world import World, backend_entries

from fairlead_cluster.providers import Fault, Kind

__all__ = ["BEGUN", "FAULTS", "IDLE_S", "ORDER", "REQUEST_S", "RESPONSE_HEADERS_S", "SPEC", "break_backends"]

RESPONSE_HEADERS_S, IDLE_S, REQUEST_S = 0.5, 1.0, 3.0
_CHAT: Mapping[str, Any] = {
    "targets": [
        {"backend": "alpha", "weight": 60},
        {"backend": "beta", "weight": 40},
        {"backend": "openai", "model": "gpt", "weight": 20},
        {"backend": "gamma", "priority": 1},
        {"backend": "trusted", "model": "big", "priority": 1},
        {"backend": "loose", "priority": 1},
        {"backend": "delta", "priority": 2},
        {"backend": "groq", "model": "llama", "weight": 0, "priority": 2},
    ],
    "timeouts": {"responseHeaders": "500ms", "idle": "1s", "request": "3s"},
}
SPEC: Mapping[str, Any] = {
    "backends": backend_entries(),
    "models": [
        {"name": "chat", **_CHAT},
        # For what fails after the response has begun: on a busy machine headers may take longer than half a second, and are then
        # rightly awaited elsewhere.
        {"name": "patient", **_CHAT, "timeouts": {"responseHeaders": "2s", "idle": "1s", "request": "3s"}},
        # One that says how long a backend may take for a request without stream.
        {"name": "divided", **_CHAT, "timeouts": {"idle": "1s", "request": "30s", "attempt": "500ms"}},
        {
            "name": "ordered",
            "targets": [{"backend": "alpha"}, {"backend": "gamma", "priority": 1}],
            "timeouts": {"responseHeaders": "500ms", "idle": "1s", "request": "3s"},
        },
    ],
    "authentication": {"anonymous": {"role": "all"}},
    "roles": [
        {
            "name": "all",
            "llmAccess": ["Local", "Cloud"],
            "dataAccess": ["Public", "Internal", "Confidential"],
            "mayDeclare": ["Public"],
        }
    ],
}
#: Class -> who may take it, by priority; written down apart from what is tested.
ORDER: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "Public": (("alpha", "beta", "openai"), ("gamma", "trusted", "loose"), ("delta", "groq")),
    "Internal": (("alpha", "beta"), ("gamma", "trusted", "loose"), ("delta",)),
    "Confidential": (("alpha", "beta"), ("gamma",), ("delta",)),
}
#: What ends before the response has begun -> how it is done; None: nobody listens.
FAULTS: Mapping[str, Fault | None] = {
    "refuse": None,
    "reset": Fault(Kind.RESET),
    "429": Fault(Kind.STATUS, code=429, headers={"retry-after": "60"}),
    "500": Fault(Kind.STATUS, code=500),
    "503": Fault(Kind.STATUS, code=503),
    "529": Fault(Kind.STATUS, code=529),
    "garbage": Fault(Kind.GARBAGE),
    "slow": Fault(Kind.SLOW, delay_s=20.0),
}
#: What ends after it has begun.
BEGUN: Mapping[str, Fault] = {
    "stall": Fault(Kind.STALL),
    "stall-at-once": Fault(Kind.STALL, after_chunks=0),
    "cut": Fault(Kind.CUT),
    "garbled": Fault(Kind.GARBLED),
}


def break_backends(world: World, fault: Fault | None, names: tuple[str, ...]) -> None:
    """From now on these fail so, and nobody has seen anything yet."""
    world.reset()
    for name in names:
        if fault is None:
            world[name].refuse()
        else:
            world[name].fail(fault)
