"""The official client in front of the gateway: what it can do with OpenAI it can do here, and each failure is the exception it knows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import httpx
import openai
import pytest
from tests.gateway.asking import ask, make_body
from tests.gateway.world import World, backend_entries, make_world

from fairlead_cluster.processes import wait_until
from fairlead_cluster.providers import Fault, Kind

KEY = "sk-of-team-a-0001"
MAX_BYTES = 4 << 20
#: What every backend may take for headers or between pieces. One that is to time out is asked as `hasty`.
_PATIENT, _HASTY = (
    {"responseHeaders": "5s", "idle": "2s", "request": "10s"},
    {"responseHeaders": "500ms", "idle": "1s", "request": "2s"},
)
_TARGETS = [{"backend": "alpha"}, {"backend": "beta", "priority": 1}]
SPEC = {
    "backends": backend_entries("alpha", "beta", "openai"),
    "models": [
        {"name": "chat", "targets": _TARGETS, "timeouts": _PATIENT},
        {"name": "hasty", "targets": _TARGETS, "timeouts": _HASTY},
        {"name": "cloud", "targets": [{"backend": "openai", "model": "gpt"}]},
    ],
    "authentication": {"apiKeys": {"secretRef": {"name": "clients"}}},
    "roles": [
        {"name": "developer", "consumers": ["team-a"], "llmAccess": ["Local", "Cloud"], "dataAccess": ["Public", "Internal"],
         "mayDeclare": ["Public"]},
    ],
    "dataPolicy": {
        "denyClasses": ["Internal"],
        "detectors": [{"name": "cards", "class": "Confidential", "builtin": "PaymentCard"}],
    },
}  # fmt: skip
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def kept_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("openai")
    with make_world(SPEC, directory, {"team-a": (KEY,)}, max_body_bytes=MAX_BYTES) as world:
        yield world


@pytest.fixture
def world(kept_world: World) -> Iterator[World]:
    kept_world.reset()
    yield kept_world
    kept_world.reset()


@pytest.fixture
async def official(world: World) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{world.gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


async def chat(client: openai.AsyncOpenAI, text: str = "hello", model: str = "chat", **more: object) -> object:
    return await client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **more)  # type: ignore[call-overload]


async def test_all_that_it_is_used_for(world: World, official: openai.AsyncOpenAI) -> None:
    answer = await chat(official, tools=[TOOL], tool_choice="auto")
    assert answer.choices[0].message.content.startswith("alpha answers as alpha-model")
    (received,) = world["alpha"].recorded
    assert received.request.json["tools"] == [TOOL]
    parts = [part async for part in await chat(official, stream=True)]
    assert "".join(p.choices[0].delta.content or "" for p in parts if p.choices).startswith("alpha answers")
    assert parts[-1].usage.total_tokens > 0
    embedded = await official.embeddings.create(model="chat", input=["one", "two"], dimensions=4)
    assert [len(one.embedding) for one in embedded.data] == [4, 4]
    response = await official.responses.create(model="chat", input="hello")
    assert response.output_text.startswith("alpha answers")
    async with official.responses.stream(model="chat", input="hello") as stream:
        kinds = [event.type async for event in stream]
    assert kinds[-1] == "response.completed"
    assert [model.id async for model in official.models.list()] == ["chat", "hasty", "cloud"]


async def test_each_failure_is_the_exception_that_it_knows(world: World, official: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as wrong:
        await chat(official.with_options(api_key="sk-nobodys-key-0001"))
    assert wrong.value.code == "invalid_api_key"
    with pytest.raises(openai.PermissionDeniedError) as denied:
        await chat(official, "my card is 4111 1111 1111 1111")
    assert denied.value.code == "data_class_denied"
    with pytest.raises(openai.NotFoundError) as missing:
        await chat(official, model="no-such-model")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError) as elsewhere:
        await official.files.list()
    assert elsewhere.value.status_code == 404
    with pytest.raises(openai.BadRequestError) as bad:
        await chat(official, extra_body={"stream": "yes"})
    assert bad.value.code == "invalid_stream"
    with pytest.raises(openai.APIStatusError) as large:
        await chat(official, "x" * (MAX_BYTES + 1))
    assert (large.value.status_code, large.value.code) == (413, "request_too_large")
    assert world.seen() == {}


async def test_failures_of_all_backends(world: World, official: openai.AsyncOpenAI) -> None:
    for name in ("alpha", "beta"):
        world[name].fail(Fault(Kind.STATUS, code=429))
    with pytest.raises(openai.RateLimitError):
        await chat(official)
    world.reset()
    for name in ("alpha", "beta"):
        world[name].refuse()
    with pytest.raises(openai.InternalServerError) as down:
        await chat(official)
    assert (down.value.status_code, down.value.code) == (503, "service_unavailable")
    world.reset()
    for name in ("alpha", "beta"):
        world[name].fail(Fault(Kind.SLOW, delay_s=20))
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as slow:
            await chat(official, model="hasty", stream=stream)
        assert (slow.value.status_code, slow.value.code) == (504, "gateway_timeout")
    with pytest.raises(openai.APITimeoutError):
        await chat(official, timeout=0.3)


async def test_a_stream_that_breaks_off_raises(world: World, official: openai.AsyncOpenAI) -> None:
    """In no case does it look like the end of an answer. Envoy can add no event to a stream that it cuts; a broken body is what is left."""
    for fault in (Fault(Kind.STALL), Fault(Kind.CUT), Fault(Kind.GARBLED)):
        world["alpha"].fail(fault)
        with pytest.raises((openai.APIConnectionError, *BROKEN)):
            async for _ in await chat(official, stream=True):
                pass
        assert "beta" not in world.seen()


def _broken() -> tuple[type[Exception], ...]:
    import httpx2  # the official client's own transport

    return (httpx2.HTTPError, httpx.HTTPError)


BROKEN = _broken()


async def test_what_the_client_aborts_the_backend_need_not_finish(world: World, official: openai.AsyncOpenAI) -> None:
    """Streams that are left, and requests without stream that are given up: generating on would cost for nobody."""
    world["alpha"].behave(gap_s=0.05, text=" ".join(["word"] * 400))
    stream = await chat(official, stream=True)
    async for _ in stream:
        break
    during = connections(world, "alpha")
    await stream.close()
    wait_until(lambda: connections(world, "alpha") < during, 5)
    assert connections(world, "alpha") == during - 1
    world["alpha"].behave(gap_s=0.0, text="")
    world["alpha"].clear()
    world["alpha"].fail(Fault(Kind.STALL))
    given_up = asyncio.ensure_future(chat(official, timeout=1.0))
    await asyncio.to_thread(world["alpha"].wait_for, 1)
    during = connections(world, "alpha")
    with pytest.raises(openai.APITimeoutError):
        await given_up
    wait_until(lambda: connections(world, "alpha") < during, 5)
    assert connections(world, "alpha") == during - 1
    assert "beta" not in world.seen()


def connections(world: World, name: str) -> int:
    """Of a backend, that are open; idle ones are kept for a minute."""
    return world[name].open_connections


@pytest.mark.parametrize("chunked", [False, True])
async def test_too_large_however_it_is_framed(world: World, client: httpx.AsyncClient, chunked: bool) -> None:
    body = json.dumps(make_body("chat", text="x" * (MAX_BYTES + 100))).encode()

    async def pieces() -> AsyncIterator[bytes]:
        yield body[:1000]
        yield body[1000:]

    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    content = pieces() if chunked else body
    answer = await client.post(f"{world.gateway.url}/v1/chat/completions", content=content, headers=headers)
    assert answer.status_code == 413
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json()["error"]["code"] == "request_too_large"


async def test_a_route_without_anybody_says_503(world: World, client: httpx.AsyncClient) -> None:
    answer = await ask(client, world.gateway.url, make_body("cloud"), key=KEY, data_class="Public")
    assert answer.is_success, answer
    world["openai"].refuse()
    answer = await ask(client, world.gateway.url, make_body("cloud"), key=KEY, data_class="Public")
    assert answer.status == 503
    assert json.loads(answer.text)["error"]["type"] == "server_error"
