"""Rate limits at a real Envoy. Counts, not times: a bucket of three fills by one in twenty seconds, and no test here takes so long."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tests.gateway.asking import make_body
from tests.gateway.world import World, backend_entries, make_world

from fairlead.planning.route.publishing import Phase, Step
from fairlead_cluster.providers import Fault, Kind

Json = dict[str, Any]
KEYS = {name: (f"sk-key-of-{name}-01",) for name in ("ann", "bob", "carl", "dora")}
CHAT = {"name": "chat", "targets": [{"backend": "alpha"}, {"backend": "beta", "priority": 1}]}


def make_spec(limits: Json | None = None, **more: Any) -> Json:
    return {
        "gateway": {"replicas": 1},
        "backends": backend_entries("alpha", "beta"),
        "models": [CHAT],
        "authentication": {"apiKeys": {"secretRef": {"name": "clients"}}, "anonymous": {}},
        "limits": limits,
        **more,
    }


@pytest.fixture(scope="module")
def kept_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(make_spec(), tmp_path_factory.mktemp("limits"), KEYS) as world:
        yield world


@pytest.fixture
def world(kept_world: World) -> Iterator[World]:
    """Without limits; a limit that is set begins with full buckets."""
    kept_world.reset()
    kept_world.gateway.publish(kept_world.table(make_spec()))
    yield kept_world
    kept_world["alpha"].behave(gap_s=0.0, text="")
    kept_world.reset()


def limit(world: World, limits: Json | None, **more: Any) -> None:
    world.gateway.publish(world.table(make_spec(limits, **more)))


async def post(client: httpx.AsyncClient, world: World, who: str = "", **more: Any) -> httpx.Response:
    """One chat request; `who`: "" shows no key."""
    headers = {"authorization": f"Bearer {KEYS[who][0]}"} if who else {}
    body = make_body("chat", **more)
    return await client.post(f"{world.gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=30)


async def statuses(client: httpx.AsyncClient, world: World, times: int, who: str = "", **more: Any) -> list[int]:
    return [(await post(client, world, who, **more)).status_code for _ in range(times)]


def metric(world: World, name: str) -> dict[tuple[tuple[str, str], ...], int]:
    """Labels -> value of one of ours."""
    text = httpx.get(f"http://127.0.0.1:{world.gateway.settings.status_port}/metrics").text
    found = re.findall(rf"^envoy_fairlead_{name}{{(.*)}} (\d+)$", text, re.MULTILINE)
    return {tuple(re.findall(r'(\w+)="([^"]*)"', labels)): int(value) for labels, value in found}


def limited(world: World) -> dict[tuple[str, str], int]:
    """(consumer, limit) -> requests that the limit answered, since the gateway began."""
    return {
        (dict(labels)["consumer"], dict(labels)["limit"]): value for labels, value in metric(world, "limited").items()
    }


def asked(world: World) -> int:
    """How many requests backends were sent."""
    return sum(len(ids) for ids in world.seen().values())


async def test_each_consumer_has_its_own_and_those_without_a_key_have_one(
    world: World, client: httpx.AsyncClient
) -> None:
    before = limited(world)
    limit(world, {"requestsPerMinute": 3})
    assert await statuses(client, world, 5, "ann") == [200, 200, 200, 429, 429]
    assert await statuses(client, world, 4, "bob", stream=True) == [200, 200, 200, 429]
    assert await statuses(client, world, 2) == [200, 200]
    async with httpx.AsyncClient() as other:
        assert await statuses(other, world, 2) == [200, 429]
    assert asked(world) == 9, "a request that is limited is sent to nobody"
    told = {key: value - before.get(key, 0) for key, value in limited(world).items()}
    assert {key: value for key, value in told.items() if value} == {
        ("ann", "requests"): 2,
        ("bob", "requests"): 1,
        ("", "requests"): 1,
    }


async def test_what_counts_as_a_request(world: World, client: httpx.AsyncClient) -> None:
    limit(world, {"requestsPerMinute": 3})
    url, carl = world.gateway.url, {"authorization": f"Bearer {KEYS['carl'][0]}"}
    for _ in range(5):
        assert (await client.get(f"{url}/healthz")).status_code == 200
        assert (
            await client.get(f"{url}/v1/models", headers={"authorization": "Bearer sk-nobodys-01"})
        ).status_code == 401
    assert (await client.get(f"{url}/v1/models", headers=carl)).status_code == 200
    assert (await client.post(f"{url}/v1/files", headers=carl)).status_code == 404
    assert (await client.post(f"{url}/v1/chat/completions", headers=carl, json={})).status_code == 400
    answer = await client.get(f"{url}/v1/models", headers=carl)
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    assert await statuses(client, world, 1) == [200]


async def test_the_official_client_knows_what_it_is(world: World) -> None:
    limit(world, {"requestsPerMinute": 2})
    url = f"{world.gateway.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key=KEYS["dora"][0], max_retries=0) as official:

        async def ask(**more: Any) -> Any:
            messages = [{"role": "user", "content": "hello"}]
            return await official.chat.completions.create(model="chat", messages=messages, **more)

        raw = await official.chat.completions.with_raw_response.create(
            model="chat", messages=[{"role": "user", "content": "hello"}]
        )
        assert raw.headers["x-ratelimit-limit-requests"] == "2"
        assert raw.headers["x-ratelimit-remaining-requests"] == "1"
        assert [part async for part in await ask(stream=True)]
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError) as raised:
                await ask(stream=stream)
            error = raised.value
            assert (error.status_code, error.type, error.code) == (429, "requests", "rate_limit_exceeded")
            assert 1 <= int(error.response.headers["retry-after"]) <= 30
            assert error.response.headers["x-ratelimit-remaining-requests"] == "0"
            assert "x-ratelimit-limit" not in error.response.headers
            assert error.body["message"].startswith("Rate limit reached for requests per minute.")  # type: ignore[index]
        limit(world, {"tokensPerMinute": 500})
        await ask(max_tokens=300)
        with pytest.raises(openai.RateLimitError) as much:
            await ask(max_tokens=300)
        assert (much.value.type, much.value.code) == ("tokens", "rate_limit_exceeded")
        assert re.match(r"Rate limit reached for tokens per minute, requested 3\d\d\.", much.value.body["message"])  # type: ignore[index]
        with pytest.raises(openai.BadRequestError) as large:
            await ask(max_tokens=501)
        assert large.value.code == "request_too_large_for_limit"


async def test_tokens_are_charged_by_what_is_asked_for(world: World, client: httpx.AsyncClient) -> None:
    before = limited(world)
    limit(world, {"tokensPerMinute": 1000})
    for who, more in (("ann", {}), ("bob", {"stream": True}), ("", {})):
        assert await statuses(client, world, 4, who, max_tokens=270, **more) == [200, 200, 200, 429]
    assert asked(world) == 9
    long = await post(client, world, "carl", text="x" * 3000)
    size = len(long.request.content)
    assert long.status_code == 200
    assert long.headers["x-ratelimit-limit-tokens"] == "1000"
    assert (
        abs(int(long.headers["x-ratelimit-remaining-tokens"]) - (1000 - size // 4)) <= 16
    )  # it fills by 16 in a second
    assert (await post(client, world, "carl", text="x" * 3000)).status_code == 429
    # What is not chat has no tokens, and what is too large costs none.
    assert (await post(client, world, "carl", max_tokens=1000)).status_code == 400
    models = await client.get(f"{world.gateway.url}/v1/models", headers={"authorization": f"Bearer {KEYS['carl'][0]}"})
    assert models.status_code == 200
    assert "x-ratelimit-limit-tokens" not in models.headers
    assert "Invalid hits_addend" not in world.gateway.log
    told = {key: value - before.get(key, 0) for key, value in limited(world).items()}
    assert {key for key, value in told.items() if value} == {(who, "tokens") for who in ("ann", "bob", "", "carl")}


async def test_what_retry_after_says_is_enough(world: World, client: httpx.AsyncClient) -> None:
    limit(world, {"requestsPerMinute": 30})
    refused = await until_limited(client, world, "ann")
    await asyncio.sleep(int(refused.headers["retry-after"]) + 0.05)
    assert (await post(client, world, "ann")).status_code == 200
    limit(world, {"tokensPerMinute": 6000})
    refused = await until_limited(client, world, "ann", max_tokens=150)
    assert refused.headers["retry-after"] == "2"
    await asyncio.sleep(2.05)
    assert (await post(client, world, "ann", max_tokens=150)).status_code == 200


async def until_limited(client: httpx.AsyncClient, world: World, who: str, **more: Any) -> httpx.Response:
    for _ in range(200):
        answer = await post(client, world, who, **more)
        if answer.status_code == 429:
            return answer
    raise AssertionError("nothing limits it")


async def test_roles_have_limits_of_their_own(world: World, client: httpx.AsyncClient) -> None:
    role = {"llmAccess": ["Local"], "dataAccess": ["Internal"]}
    roles = [
        {**role, "name": "small", "consumers": ["ann", "bob"], "limits": {"requestsPerMinute": 1}},
        {**role, "name": "large", "consumers": ["bob"], "limits": {"requestsPerMinute": 3}},
        {**role, "name": "usual", "consumers": ["carl"]},
    ]
    authentication = {"apiKeys": {"secretRef": {"name": "clients"}}, "anonymous": {"role": "small"}}
    limit(world, {"requestsPerMinute": 2}, roles=roles, authentication=authentication)
    found = {who: await statuses(client, world, 4, who) for who in ("ann", "bob", "carl", "")}
    assert {who: codes.count(200) for who, codes in found.items()} == {"ann": 1, "bob": 3, "carl": 2, "": 1}
    assert await statuses(client, world, 3, "dora") == [403, 403, 429], "who has no role is limited like everybody"
    limit(world, None, roles=roles, authentication=authentication)
    found = {who: await statuses(client, world, 4, who) for who in ("ann", "bob", "carl")}
    assert {who: codes.count(200) for who, codes in found.items()} == {"ann": 1, "bob": 3, "carl": 4}
    unlimited = await post(client, world, "carl")
    assert not [name for name in unlimited.headers if name.startswith("x-ratelimit")]


async def test_hundreds_of_consumers_have_a_bucket_each(tmp_path: Path, client: httpx.AsyncClient) -> None:
    """A hundred that a role names, and four hundred whose names only the Secret knows."""
    names = [f"team-{number}" for number in range(500)]
    keys = {name: (f"sk-key-of-{name}-01",) for name in names}
    role = {"llmAccess": ["Local"], "dataAccess": ["Internal"]}
    roles = [{**role, "name": "named", "consumers": names[:100], "limits": {"requestsPerMinute": 1}}]
    spec = make_spec(
        {"requestsPerMinute": 2}, roles=roles, authentication={"apiKeys": {"secretRef": {"name": "clients"}}}
    )
    with make_world(spec, tmp_path, keys) as world:
        counts: dict[str, int] = dict.fromkeys(names, 0)
        for _ in range(
            3
        ):  # everybody once, then everybody again: were only some buckets kept, they would be full again
            for name in names:
                headers = {"authorization": f"Bearer {keys[name][0]}"}
                answer = await client.get(f"{world.gateway.url}/v1/models", headers=headers)
                counts[name] += answer.status_code != 429
        assert {name: count for name, count in counts.items() if count != (1 if name in names[:100] else 2)} == {}


async def test_a_changed_limit_holds_and_cuts_no_stream(world: World, client: httpx.AsyncClient) -> None:
    limit(world, {"requestsPerMinute": 50})
    async with running_stream(world, client) as finish:
        limit(world, {"requestsPerMinute": 2})
        assert await statuses(client, world, 3, "bob") == [200, 200, 429]
        limit(world, {"requestsPerMinute": 1, "tokensPerMinute": 10_000})
        assert await statuses(client, world, 2, "bob") == [200, 429]
        limit(world, None)
        assert await statuses(client, world, 3, "bob") == [200, 200, 200]
        assert (await finish()).endswith("data: [DONE]\n\n")
    assert world.gateway.rejected() == ()


@asynccontextmanager
async def running_stream(world: World, client: httpx.AsyncClient) -> AsyncIterator[Any]:
    """A stream of ann's that takes some seconds and has begun; the result reads it to its end."""
    world["alpha"].behave(gap_s=0.02, text=" ".join(["word"] * 250))
    body = make_body("chat", stream=True)
    headers = {"authorization": f"Bearer {KEYS['ann'][0]}"}
    async with client.stream(
        "POST", f"{world.gateway.url}/v1/chat/completions", json=body, headers=headers
    ) as response:
        assert response.status_code == 200
        parts = response.aiter_text()
        begun = await anext(parts)
        world["alpha"].behave(gap_s=0.0, text="")

        async def finish() -> str:
            return begun + "".join([part async for part in parts])

        yield finish


async def test_what_changes_besides_fills_no_bucket(world: World, client: httpx.AsyncClient) -> None:
    limit(world, {"requestsPerMinute": 2})
    assert await statuses(client, world, 3, "ann") == [200, 200, 429]
    other = {"name": "other", "targets": [{"backend": "beta"}]}
    limit(world, {"requestsPerMinute": 2}, models=[other, CHAT])
    world.gateway.let_in({**KEYS, "eve": ("sk-key-of-eve-01",)}, "more", anonymous=True)
    assert await statuses(client, world, 2, "ann") == [429, 429]
    world.gateway.let_in(KEYS, "as before", anonymous=True)


async def test_what_is_narrowed_meanwhile_stays_limited(world: World, client: httpx.AsyncClient) -> None:
    """A chain loses a backend and gets another one: the first step runs the old routes, less what is withdrawn, with new profiles."""
    limits = {"tokensPerMinute": 600, "requestsPerMinute": 100}
    limit(world, limits)
    assert await statuses(client, world, 2, "ann", max_tokens=400) == [200, 429]
    phases = []

    def look(step: Step) -> None:
        headers = {"authorization": f"Bearer {KEYS['ann'][0]}"}
        url = f"{world.gateway.url}/v1/chat/completions"
        codes = [httpx.post(url, json=make_body("chat", max_tokens=n), headers=headers).status_code for n in (400, 600)]
        phases.append((step.phase, codes))

    targets = [{"backend": "alpha"}, {"backend": "gamma", "priority": 1}]
    spec = make_spec(limits, backends=backend_entries("alpha", "gamma"), models=[{"name": "chat", "targets": targets}])
    world.gateway.publish(world.table(spec), on_step=look)
    assert phases == [(phase, [429, 400]) for phase in (Phase.ADD, Phase.SWITCH, Phase.REMOVE)]
    assert world.gateway.rejected() == ()


async def test_gateways_share_a_limit(world: World, tmp_path: Path, client: httpx.AsyncClient) -> None:
    spec = make_spec({"requestsPerMinute": 5, "tokensPerMinute": 901}, gateway={"replicas": 2})
    world.gateway.publish(world.table(spec))
    with make_world(spec, tmp_path, KEYS) as second:
        found = [(await statuses(client, one, 5, "ann")).count(200) for one in (world, second)]
        assert found == [3, 3]
        for one in (world, second):
            assert (await post(client, one, "bob", max_tokens=400)).status_code == 200
            assert (await post(client, one, "bob", max_tokens=451)).status_code == 400
    world.gateway.publish(world.table({**spec, "gateway": {"replicas": 5}}))
    assert (await statuses(client, world, 3, "ann")).count(200) == 1


async def test_a_backends_429_is_another(world: World, client: httpx.AsyncClient) -> None:
    """It is tried elsewhere, also when an Envoy there says that it is about limits; and what it says of its own account stays here."""
    headers = {"x-envoy-ratelimited": "true", "x-ratelimit-limit-requests": "7", "x-ratelimit-reset-tokens": "1s"}
    before = limited(world)
    world["alpha"].fail(Fault(Kind.STATUS, code=429, headers=headers))
    answer = await post(client, world, "ann")
    assert (answer.status_code, answer.headers["x-fairlead-backend"]) == (200, "beta")
    world["beta"].fail(Fault(Kind.STATUS, code=429, headers={**headers, "retry-after": "3"}))
    for limits, shown in (({"requestsPerMinute": 9}, {"x-ratelimit-limit-requests": "9"}), (None, {})):
        limit(world, limits)
        answer = await post(client, world, "ann")
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "3"
        assert answer.headers["x-fairlead-backend"] == "beta"
        said = {name: value for name, value in answer.headers.items() if name.startswith("x-ratelimit-limit")}
        assert said == shown
        assert "x-envoy-ratelimited" not in answer.headers
        assert "x-ratelimit-reset-tokens" not in answer.headers
    assert limited(world) == before


@pytest.mark.parametrize("size", [1_000_000, 8_000_000])
async def test_a_long_body_does_not_lose_the_answer(world: World, client: httpx.AsyncClient, size: int) -> None:
    limit(world, {"requestsPerMinute": 1})
    assert await statuses(client, world, 3, "ann", text="x" * size) == [200, 429, 429]


async def test_the_access_log_says_who_was_limited(world: World, client: httpx.AsyncClient) -> None:
    limit(world, {"requestsPerMinute": 1})
    answers = [await post(client, world, "dora", user=f"log-{number}") for number in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]

    def lines() -> list[Json]:
        text = (world.gateway.directory / "access.log").read_text()
        return [found for found in map(json.loads, text.splitlines()) if found["consumer"] == "dora"]

    world.gateway.until(lambda: bool(lines()) and lines()[-1]["code"] == 429, "writing the log")
    assert lines()[-1]["details"] == "local_rate_limited"
    assert lines()[-1]["attempts"] == 0
