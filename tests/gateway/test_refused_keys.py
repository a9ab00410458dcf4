"""A provider that does not take the key that it is sent: nobody learns of the key, and somebody else is asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.gateway.world import World, backend_entries, make_world

from fairlead_cluster.providers import Fault, Kind

Json = dict[str, Any]
#: As providers do: with the key, or most of it, in the text.
TELLS = Fault(
    Kind.STATUS,
    code=401,
    headers={"www-authenticate": "Bearer key-of-openai", "x-refused": "key-of-openai"},
    body='{"error": {"message": "Incorrect API key provided: key-of-openai", "code": "invalid_api_key"}}',
)
SPEC: Json = {
    "gateway": {"replicas": 1},
    "backends": backend_entries("alpha", "openai", "groq"),
    "models": [
        {"name": "alone", "targets": [{"backend": "openai", "model": "big"}]},
        {"name": "chat", "targets": [{"backend": "openai", "model": "big"}, {"backend": "groq", "model": "g", "priority": 1}]},
        {"name": "inside", "targets": [{"backend": "alpha"}]},
    ],
    "authentication": {"anonymous": {}},
    "dataPolicy": {"default": "Public", "denyClasses": ["Internal"]},
}  # fmt: skip


@pytest.fixture(scope="module")
def kept_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(SPEC, tmp_path_factory.mktemp("refused")) as world:
        yield world


@pytest.fixture
def world(kept_world: World) -> World:
    kept_world.reset()
    kept_world["openai"].fail(TELLS)
    return kept_world


def ask(world: World, model: str, *, stream: bool) -> httpx.Response:
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "hello"}]}
    return httpx.post(f"{world.gateway.url}/v1/chat/completions", json=body, timeout=30)


@pytest.mark.parametrize("stream", [False, True])
def test_the_caller_learns_that_it_is_not_about_its_own_key(world: World, stream: bool) -> None:
    answer = ask(world, "alone", stream=stream)
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "provider_refused_key"
    assert answer.json()["error"]["type"] == "server_error"
    assert answer.headers["x-fairlead-backend"] == "openai"
    assert answer.headers["content-type"] == "application/json"
    assert "key-of-openai" not in answer.text + str(answer.headers)


@pytest.mark.parametrize("stream", [False, True])
def test_somebody_else_is_asked(world: World, stream: bool) -> None:
    answer = ask(world, "chat", stream=stream)
    assert (answer.status_code, answer.headers["x-fairlead-backend"]) == (200, "groq")


def test_what_else_a_provider_refuses_is_its_own_to_tell(world: World) -> None:
    world["openai"].fail(Fault(Kind.STATUS, code=403, body='{"error": {"message": "not in your country"}}'))
    answer = ask(world, "alone", stream=False)
    assert (answer.status_code, answer.json()["error"]["message"]) == (403, "not in your country")


def test_an_engine_in_the_cluster_has_no_key_and_says_what_it_likes(world: World) -> None:
    world["alpha"].fail(Fault(Kind.STATUS, code=401, body='{"error": {"message": "from an engine"}}'))
    assert ask(world, "inside", stream=False).status_code == 401
