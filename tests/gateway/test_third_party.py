"""A provider that we did not write behind the real gateway, and the official client before it: llm-katan's idea of the OpenAI API, of
keys and of failures is its own."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from hack import katan
from tests.gateway.katan import KatanWorld, make_katan_world

from fairlead_cluster.errors import BuildError

KEY = "sk-of-team-a-0001"
#: Backend -> how its server behaves. Each is a model by itself, and as `<name>-or-alpha` one with a second target.
OPTIONS: dict[str, dict[str, Any]] = {
    "good": {},
    "broken": {"error-rate": 1.0},
    "flaky": {"error-rate": 0.5},
    "busy": {"rate-limit-after": 1},
    "late": {"timeout-after": 1},
    "slow": {"latency-ms": 20_000},
    "stranger": {},
}
SPEC = {
    "models": [
        {
            "name": f"{name}{suffix}",
            "targets": [{"backend": name, "model": f"{name}-model"}, *more],
            **({"timeouts": {"responseHeaders": "1s", "request": "4s"}} if name == "slow" else {}),
        }
        for name in OPTIONS
        for suffix, more in (("", []), ("-or-alpha", [{"backend": "alpha", "priority": 1}]))
    ],
    "authentication": {"apiKeys": {"secretRef": {"name": "clients"}}},
    "roles": [
        {"name": "developer", "consumers": ["team-a"], "llmAccess": ["Local", "Cloud"], "dataAccess": ["Public", "Confidential"]}
    ],
    "dataPolicy": {
        "default": "Public",
        "denyClasses": ["Confidential"],
        "detectors": [{"name": "cards", "class": "Confidential", "builtin": "PaymentCard"}],
    },
}  # fmt: skip
TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KatanWorld]:
    package = katan.find()
    if package is None and os.environ.get("CI"):
        try:
            package = katan.find_or_install(print)
        except BuildError as error:
            pytest.fail(f"llm-katan could not be installed: {error}")
    if package is None:
        pytest.skip("llm-katan is not in the cache: `python -m hack.katan` installs it once")
    directory = tmp_path_factory.mktemp("katan")
    strangers = frozenset({"stranger"})
    with make_katan_world(package, OPTIONS, SPEC, directory, {"team-a": (KEY,)}, strangers) as world:
        yield world


@pytest.fixture
async def official(world: KatanWorld) -> AsyncIterator[openai.AsyncOpenAI]:
    world.alpha.clear()
    async with openai.AsyncOpenAI(base_url=f"{world.gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


async def chat(client: openai.AsyncOpenAI, model: str, text: str = "hello", **more: object) -> Any:
    return await client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **more)  # type: ignore[call-overload]


async def backend_of(client: openai.AsyncOpenAI, model: str, text: str = "hello") -> str:
    """Who answered."""
    messages: Any = [{"role": "user", "content": text}]
    answer = await client.chat.completions.with_raw_response.create(model=model, messages=messages)
    assert answer.parse().choices[0].message.content
    return str(answer.headers["x-fairlead-backend"])


async def test_what_the_official_client_is_used_for(world: KatanWorld, official: openai.AsyncOpenAI) -> None:
    answer = await chat(official, "good", "what is a fairlead?")
    assert "User: what is a fairlead?" in answer.choices[0].message.content
    assert answer.model == "good-model", "it answers with the name that it was sent"
    assert answer.usage.prompt_tokens == 4
    parts = [part async for part in await chat(official, "good", "in pieces", stream=True)]
    assert "User: in pieces" in "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert parts[-1].usage is not None
    assert parts[-1].usage.completion_tokens > 0
    called = await chat(official, "good", tools=[TOOL], tool_choice="auto")
    (call,) = called.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("look", {"at": "test_at"})
    listed = [model.id async for model in official.models.list()]
    assert listed == [model["name"] for model in SPEC["models"]]  # type: ignore[index]


async def test_it_is_sent_the_providers_key_and_nothing_of_the_caller(
    world: KatanWorld, official: openai.AsyncOpenAI
) -> None:
    """By its own account: its dashboard is told the headers and the body of each request as they came."""
    async with world["good"].events() as events:
        await chat(official, "good", user="u-1", store=True, extra_headers={"x-of-the-caller": "private"})
        event = await events.receive_json(timeout=30)
    assert event["request_headers"]["authorization"] == f"Bearer {world['good'].key}"
    assert event["request_body"] | {"model": "good-model", "user": "u-1", "store": False} == event["request_body"]
    assert KEY not in json.dumps(event)
    assert "x-of-the-caller" not in event["request_headers"]
    assert not [name for name in event["request_headers"] if name.startswith(("x-fairlead", "x-data", "x-stainless"))]


async def test_another_key_is_used_without_a_restart(world: KatanWorld, official: openai.AsyncOpenAI) -> None:
    """It checks keys itself, and says of a wrong one what it got and what it wants: that stays inside. The next key is taken."""
    good = world["good"]
    assert await backend_of(official, "good") == "good"
    world.gateway.give_key("good", apiKey="sk-katan-withdrawn-01")
    try:
        world.gateway.until(lambda: status_of(world, "good") == 502, "the other key")
        with pytest.raises(openai.InternalServerError) as refused:
            await chat(official, "good")
        assert refused.value.code == "provider_refused_key"
        assert "sk-katan" not in refused.value.response.text
        assert await backend_of(official, "good-or-alpha") == "alpha"
    finally:
        world.gateway.give_key("good", apiKey=good.key)
        world.gateway.until(lambda: status_of(world, "good") == 200, "the good key")
    assert KEY not in good.log


def status_of(world: KatanWorld, model: str) -> int:
    """Of one request."""
    with openai.OpenAI(base_url=f"{world.gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        try:
            client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hello"}])
        except openai.APIStatusError as error:
            return error.status_code
    return 200


async def test_its_failures_are_the_exceptions_that_the_client_knows(
    world: KatanWorld, official: openai.AsyncOpenAI
) -> None:
    """Where nobody else may answer, its own answer is passed on; a caller's mistake is not tried elsewhere."""
    with pytest.raises(openai.InternalServerError) as broken:
        await chat(official, "broken")
    assert (broken.value.status_code, broken.value.body["message"]) == (500, "internal server error")  # type: ignore[index]
    assert await backend_of(official, "busy") == "busy", "the first one is within its limit"
    with pytest.raises(openai.RateLimitError) as limited:
        await chat(official, "busy")
    assert "rate limit exceeded" in limited.value.message
    with pytest.raises(openai.BadRequestError):
        await official.chat.completions.create(model="good-or-alpha", messages=[])
    assert not world.alpha.recorded


async def test_another_backend_answers_for_it(world: KatanWorld, official: openai.AsyncOpenAI) -> None:
    for name in ("busy", "late"):
        await backend_of(
            official, f"{name}-or-alpha"
        )  # the first one is answered by itself, if it was not asked before
    for name in ("broken", "busy", "late", "stranger"):
        before = world[name].asked
        assert await backend_of(official, f"{name}-or-alpha") == "alpha", name
        assert world[name].asked - before == (0 if name == "stranger" else 1), name
    assert [request.request.json["model"] for request in world.alpha.recorded][-4:] == ["alpha-model"] * 4


async def test_a_provider_with_somebody_elses_certificate_is_sent_nothing(
    world: KatanWorld, official: openai.AsyncOpenAI
) -> None:
    with pytest.raises(openai.InternalServerError) as nobody:
        await chat(official, "stranger")
    assert (nobody.value.status_code, nobody.value.code) == (503, "service_unavailable")
    assert world["stranger"].asked == 0


async def test_each_other_answer_fails_and_no_caller_sees_it(world: KatanWorld, official: openai.AsyncOpenAI) -> None:
    asked = world["flaky"].asked
    answered = [await backend_of(official, "flaky-or-alpha") for _ in range(40)]
    assert set(answered) == {"flaky", "alpha"}
    assert world["flaky"].asked - asked >= answered.count("flaky") > 0


async def test_a_slow_one_is_not_awaited_by_streams(world: KatanWorld, official: openai.AsyncOpenAI) -> None:
    """Nor by anybody for longer than the time of the request."""

    async def read(model: str) -> str:
        parts = [part async for part in await chat(official, model, stream=True)]
        return "".join(part.choices[0].delta.content or "" for part in parts if part.choices)

    asked = read("slow-or-alpha"), read("slow"), chat(official, "slow")
    elsewhere, *slow = await asyncio.gather(*asked, return_exceptions=True)
    assert str(elsewhere).startswith("alpha answers")
    for error in slow:
        assert isinstance(error, openai.InternalServerError), error
        assert (error.status_code, error.code) == (504, "gateway_timeout")


async def test_what_is_confidential_stays_away_from_it(world: KatanWorld, official: openai.AsyncOpenAI) -> None:
    asked = world["good"].asked
    assert await backend_of(official, "good-or-alpha", "my card is 4111 1111 1111 1111") == "alpha"
    with pytest.raises(openai.PermissionDeniedError):
        await chat(official, "good", "my card is 4111 1111 1111 1111")
    assert world["good"].asked == asked


async def test_one_that_is_killed_is_replaced_and_comes_back(world: KatanWorld, official: openai.AsyncOpenAI) -> None:
    assert await backend_of(official, "good-or-alpha") == "good"
    world["good"].process.kill()
    for _ in range(10):
        assert await backend_of(official, "good-or-alpha") == "alpha"
    world["good"].start_again()
    world.gateway.until(lambda: status_of(world, "good") == 200, "being asked again")
    assert await backend_of(official, "good-or-alpha") == "good"
