"""Affinity with the real Envoy: one session on one of three pods, as long as that pod is well and not drowned by it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import httpx
import pytest
from tests.gateway.asking import ask, make_body
from tests.gateway.pods import several_pods
from tests.gateway.world import World, backend_entries, make_world

from fairlead_cluster.providers import Fault, Kind

PODS = ("alpha", "beta", "gamma")
MODELS: dict[str, dict[str, Any]] = {
    "chat": {"affinity": {"header": "x-session-id"}},
    "prompt": {"affinity": {"promptPrefix": {"characters": 40}}},
    "plain": {},
}


def make_spec() -> dict[str, Any]:
    targets = [{"backend": "alpha"}, {"backend": "openai", "priority": 1}]
    return {
        "backends": backend_entries("alpha", "openai"),
        "models": [{"name": name, "targets": targets, **more} for name, more in MODELS.items()],
        "authentication": {"anonymous": {}},
        "dataPolicy": {"default": "Public"},
    }


@pytest.fixture(scope="module")
def pinned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A gateway of its own."""
    with make_world(make_spec(), tmp_path_factory.mktemp("affinity")) as world:
        yield world


@pytest.fixture
async def pods(pinned: World) -> AsyncIterator[World]:
    """The same with three pods of one deployment, all of them well."""
    pinned.reset()
    with several_pods(pinned, "alpha", PODS):
        yield pinned
    pinned.reset()


async def send(client: httpx.AsyncClient, world: World, model: str, headers: dict[str, str], **body: Any) -> str:
    """Who got the request. AssertionError unless exactly one of the pods answered it."""
    made = make_body(model, **body)
    answer = await ask(client, world.gateway.url, made, headers=headers)
    assert answer.is_success, answer
    (pod,) = [name for name, ids in world.seen().items() if answer.id in ids]
    return pod


async def place(client: httpx.AsyncClient, world: World, sessions: Sequence[str]) -> dict[str, str]:
    """Session -> its pod, one request after the other."""
    return {session: await send(client, world, "chat", {"x-session-id": session}) for session in sessions}


def sessions(count: int) -> list[str]:
    return [f"session-{number}" for number in range(count)]


async def test_a_session_stays_and_many_are_spread(pods: World, client: httpx.AsyncClient) -> None:
    first = await place(client, pods, sessions(120))
    spread = Counter(first.values())
    print(f"120 sessions: {dict(spread)}")
    assert set(spread) == set(PODS)
    assert min(spread.values()) >= 20
    for _ in range(3):
        assert await place(client, pods, sessions(120)) == first


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings", "/v1/messages"])
async def test_each_endpoint_has_it(pods: World, client: httpx.AsyncClient, path: str) -> None:
    for session in sessions(4):
        headers = {"x-session-id": session}
        body = {**make_body("chat"), "input": "hello", "prompt": "hello", "max_tokens": 5}
        answers = [await ask(client, pods.gateway.url, body, headers=headers, path=path) for _ in range(3)]
        assert {answer.status for answer in answers} == {200}
        assert len([name for name, ids in pods.seen().items() if body["user"] in ids]) == 1


def conversation(number: int, turns: int) -> list[dict[str, str]]:
    """What a client sends with its last turn: all that was said before, behind a system prompt that all share."""
    said = [{"role": "system", "content": "You answer questions about boats. " * 8}]
    for turn in range(turns):
        said.append({"role": "user", "content": f"Question {turn} of conversation {number}: how do I splice a rope?"})
        said.append({"role": "assistant", "content": f"Answer {turn} to conversation {number}."})
    return said[:-1]


async def hold(client: httpx.AsyncClient, world: World, model: str, count: int, turns: int) -> tuple[int, Counter[str]]:
    """Conversations in turns, all under way. How many later turns met a pod that had had the one before, and who got how many."""
    held: dict[int, str] = {}
    hits, spread = 0, Counter[str]()
    for turn in range(1, turns + 1):
        for number in range(count):
            pod = await send(client, world, model, {}, messages=conversation(number, turn))
            hits += held.get(number) == pod
            held[number] = pod
            spread[pod] += 1
    return hits, spread


async def test_a_conversation_meets_its_prefix_cache_again(pods: World, client: httpx.AsyncClient) -> None:
    """With nothing but the prompt to go by; least request finds it by chance."""
    count, turns = 40, 4
    later = count * (turns - 1)
    pinned_hits, spread = await hold(client, pods, "prompt", count, turns)
    plain_hits, _ = await hold(client, pods, "plain", count, turns)
    print(
        f"of {later} later turns {pinned_hits} met the pod of the one before, without affinity {plain_hits}; {dict(spread)}"
    )
    assert pinned_hits == later
    assert plain_hits < later * 0.6
    assert set(spread) == set(PODS)
    assert min(spread.values()) >= count * turns / 3 / 3


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "p" * 40}),
        ("/v1/responses", {"input": "p" * 40}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "p" * 40}], "stream": True}),
    ],
)
async def test_each_endpoint_has_its_prompt(
    pods: World, client: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    first = await send(client, pods, "prompt", {}, messages=[{"role": "user", "content": "p" * 40}])
    for _ in range(5):
        made = {**make_body("prompt"), **body}
        if path != "/v1/chat/completions":
            made.pop("messages")
        answer = await ask(client, pods.gateway.url, made, path=path)
        assert answer.status == 200, answer
        assert [name for name, ids in pods.seen().items() if answer.id in ids] == [first]


async def test_embeddings_go_to_any_pod(pods: World, client: httpx.AsyncClient) -> None:
    body = {"model": "prompt", "input": "p" * 40}
    for number in range(60):
        answer = await ask(client, pods.gateway.url, {**body, "user": f"e{number}"}, path="/v1/embeddings")
        assert answer.status == 200, answer
    reached = {name for name, ids in pods.seen().items() if any(str(one).startswith("e") for one in ids)}
    assert reached == set(PODS)


async def test_streams_have_it(pods: World, client: httpx.AsyncClient) -> None:
    unary = await place(client, pods, sessions(12))
    for session, pod in unary.items():
        assert await send(client, pods, "chat", {"x-session-id": session}, stream=True) == pod


async def test_a_session_moves_when_its_pod_goes_and_the_others_stay(pinned: World, client: httpx.AsyncClient) -> None:
    pinned.reset()
    with several_pods(pinned, "alpha", PODS):
        before = await place(client, pinned, sessions(200))
    with several_pods(pinned, "alpha", PODS[:2]):
        after = await place(client, pinned, sessions(200))
    moved = {session for session in before if before[session] != after[session]}
    homeless = {session for session, pod in before.items() if pod == "gamma"}
    print(f"{len(homeless)} of 200 sessions had their pod, {len(moved - homeless)} others moved")
    assert {after[session] for session in homeless} == {"alpha", "beta"}
    assert homeless <= moved
    assert len(moved - homeless) <= 14
    with several_pods(pinned, "alpha", PODS):
        assert await place(client, pinned, sessions(200)) == before


async def test_a_pod_that_refuses_costs_no_request(pods: World, client: httpx.AsyncClient) -> None:
    """Before anybody has noticed that it is gone: another pod of the deployment answers, not the next target."""
    before = await place(client, pods, sessions(30))
    pods["beta"].refuse()
    after = await place(client, pods, sessions(30))
    assert set(after.values()) == {"alpha", "gamma"}
    assert {s: pod for s, pod in after.items() if before[s] != "beta"} == {
        s: pod for s, pod in before.items() if pod != "beta"
    }


async def test_one_hot_session_does_not_drown_its_pod(pods: World, client: httpx.AsyncClient) -> None:
    """What waits for a connection is not counted by Envoy yet: they are there before."""

    async def rush() -> Counter[str]:
        wanted = [send(client, pods, "chat", {"x-session-id": "hot"}) for _ in range(60)]
        return Counter(await asyncio.gather(*wanted))

    for pod in PODS:
        pods[pod].fail(Fault(Kind.SLOW, delay_s=1.5))
    await rush()
    spread = await rush()
    print(f"60 requests of one session at once: {dict(spread)}")
    assert max(spread.values()) <= 60 * 1.5 / 3 + 3
    assert len(spread) >= 2
    pods.reset()
    assert len({await send(client, pods, "chat", {"x-session-id": "hot"}) for _ in range(10)}) == 1


@pytest.mark.parametrize(
    ("model", "headers"), [("chat", {}), ("chat", {"x-session-id": ""}), ("plain", {"x-session-id": "a"})]
)
async def test_what_says_nothing_is_spread(
    pods: World, client: httpx.AsyncClient, model: str, headers: dict[str, str]
) -> None:
    spread = Counter([await send(client, pods, model, headers) for _ in range(120)])
    print(f"{model} with {headers}: {dict(spread)}")
    assert set(spread) == set(PODS)
    assert min(spread.values()) >= 20


async def test_callers_cannot_set_it_themselves(pods: World, client: httpx.AsyncClient) -> None:
    headers = {"x-fairlead-affinity": "here"}
    for model in ("chat", "plain"):
        assert len({await send(client, pods, model, headers) for _ in range(30)}) == 3, model


async def test_nobody_behind_the_gateway_is_told(pods: World, client: httpx.AsyncClient) -> None:
    """Neither a pod nor a provider sees the session, or what the gateway made of it."""
    headers = {"x-session-id": "secret-session"}
    await send(client, pods, "chat", headers)
    for pod in PODS:
        pods[pod].refuse()
    assert await send(client, pods, "chat", headers) == "openai"
    seen = [recorded.request for one in pods.providers.by_name.values() for recorded in one.recorded]
    assert len(seen) == 2
    for request in seen:
        assert "secret-session" not in str(request.headers)
        assert not [name for name in dict(request.headers) if "session" in name or "fairlead" in name], request.headers


async def test_it_comes_and_goes_and_costs_no_request(pinned: World, client: httpx.AsyncClient) -> None:
    """Clusters, routes and the classifier's table are read in any order; a session is served by the same target all the time."""
    pinned.reset()
    stop, answers = asyncio.Event(), []

    async def keep_asking(session: str) -> None:
        while not stop.is_set():
            headers = {"x-session-id": session, "x-user": "u"}
            answers.append(await ask(client, pinned.gateway.url, make_body("chat"), headers=headers))

    tasks = [asyncio.ensure_future(keep_asking(session)) for session in sessions(4)]
    try:
        ways = (None, {"header": "x-session-id"}, {"promptPrefix": {}}, {"header": "x-user"})
        for way in ways * 3:
            spec = make_spec()
            spec["models"][0] = {**spec["models"][0], "affinity": way}
            await asyncio.to_thread(pinned.gateway.publish, pinned.table(spec))
    finally:
        stop.set()
        await asyncio.gather(*tasks)
        pinned.gateway.publish(pinned.table(make_spec()))
    wrong = [answer for answer in answers if not answer.is_success or answer.backend != "alpha"]
    assert (len(answers) > 50, wrong) == (True, [])
    assert pinned.gateway.rejected() == ()
