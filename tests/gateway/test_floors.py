"""Floors at a real Envoy: whatever a caller declares, a request has at least this class, and goes where that may go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from tests.gateway.asking import ask, make_body
from tests.gateway.world import backend_entries, make_world

from fairlead.planning.route.publishing import Phase

Json = dict[str, Any]
KEYS = {"free": ("sk-key-of-free-01",), "held": ("sk-key-of-held-01",)}


def make_spec(floor: str | None = None) -> Json:
    """Both may declare Public and use the cloud; requests of `held` are Internal at least."""
    role: Json = {"llmAccess": ["Local", "Cloud"], "dataAccess": ["Public", "Internal"], "mayDeclare": ["Public"]}
    return {
        "backends": backend_entries("alpha", "openai"),
        "models": [
            {"name": "chat", "targets": [{"backend": "openai", "model": "gpt"}, {"backend": "alpha", "priority": 1}]}
        ],
        "authentication": {"apiKeys": {"secretRef": {"name": "clients"}}},
        "roles": [
            {**role, "name": "free", "consumers": ["free"]},
            {**role, "name": "held", "consumers": ["held"], "floor": "Internal"},
        ],
        "dataPolicy": {"default": "Public", "floor": floor},
    }


async def test_floors_hold_whatever_is_declared_and_from_the_first_step_on(tmp_path: Path) -> None:
    with make_world(make_spec(), tmp_path, KEYS) as world:
        async with httpx.AsyncClient() as client:

            async def reach(
                consumer: str, declared: str = "Public", path: str = "/v1/chat/completions"
            ) -> tuple[int, str, str]:
                body = make_body("chat", input="hello", prompt="hello", max_tokens=8)
                (key,) = KEYS[consumer]
                answer = await ask(client, world.gateway.url, body, data_class=declared, key=key, path=path)
                if answer.status == 403:
                    assert "classified Confidential by a floor of this route" in answer.text
                return answer.status, answer.backend, answer.data_class

            for declared in ("", "Public"):
                assert await reach("free", declared) == (200, "openai", "Public")
                for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"):
                    assert await reach("held", declared, path) == (200, "alpha", "Internal")
            world.reset()
            world.gateway.publish(world.table(make_spec("Internal")))
            assert await reach("free") == (200, "alpha", "Internal")
            steps = world.gateway.publish(world.table(make_spec("Confidential")))
            assert (
                steps[0].phase is Phase.SWITCH
            )  # nothing is added first: what follows only takes away what nobody needs
            assert (await reach("free"))[:2] == (403, "")
            assert (await reach("held"))[:2] == (403, "")
            assert set(world.seen()) == {"alpha"}
