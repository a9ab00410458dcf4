"""Canaries and adapters that sleep, through the real Envoy: who is answered by whom, who waits, and what the operator is told of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import pytest
from tests.gateway.asking import Answer, ask, make_body
from tests.gateway.sleeping import Names, names_of
from tests.gateway.world import backend_entries, make_world

from fairlead.api.names import COMPONENT_GATEWAY, LABEL_COMPONENT, LABEL_LLMROUTE
from fairlead.facts.observed import ObjectKey
from fairlead.gateway.envoy.loaded import read_held
from fairlead.kube.cache import Cache
from fairlead.runtime.waking import Waker
from fairlead.sources.held import HeldSource

#: Soon over.
PATIENCE_S: Final = 2
_SHARES: Final = [{"backend": "alpha", "weight": 60}, {"backend": "beta", "weight": 40}]
#: All of it falls into alpha's share; beta is a canary that gets nothing yet.
_NO_SHARE: Final = [{"backend": "alpha", "weight": 1}, {"backend": "beta", "weight": 0}]
SPEC: Final[dict[str, Any]] = {
    "backends": backend_entries("alpha", "beta"),
    "models": [
        {"name": "patient", "targets": _SHARES, "hold": {"patience": "60s"}},
        {"name": "overflowing", "targets": _SHARES, "hold": {"patience": "60s", "overflowAfter": "1s"}},
        {"name": "impatient", "targets": _SHARES, "hold": {"patience": f"{PATIENCE_S}s", "overflowAfter": "1s"}},
        {"name": "unshared", "targets": _NO_SHARE, "hold": {"patience": "60s", "overflowAfter": "0s"}},
        {
            "name": "legal",
            "targets": [{"backend": "beta", "model": "acme/lora-legal"}],
            "hold": {"patience": "60s"},
        },
    ],
    "authentication": {"anonymous": {}},
}
BOTH: Final = frozenset({"alpha", "beta"})


@pytest.fixture(scope="module")
def sleepy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Names]:
    with (
        make_world(SPEC, tmp_path_factory.mktemp("canary")) as world,
        names_of(world, world.table(SPEC, BOTH), *BOTH) as names,
    ):
        yield names


@pytest.fixture
def names(sleepy: Names) -> Names:
    """Both are at zero."""
    sleepy.world.reset()
    sleepy.sleep(*BOTH)
    return sleepy


def wake(names: Names, backend: str) -> None:
    names.wake(backend)
    names.world.gateway.until(lambda: names.hosts(backend) > 0, "waking")


def start(names: Names, client: httpx.AsyncClient, model: str, count: int) -> list[asyncio.Task[Answer]]:
    url = names.world.gateway.url
    return [asyncio.create_task(ask(client, url, make_body(model, stream=number % 2 == 0))) for number in range(count)]


async def waiting(names: Names) -> dict[str, int]:
    """For each deployment how many requests wait there, as the gateway says it."""
    async with httpx.AsyncClient(timeout=5) as client:
        answer = await client.get(f"http://127.0.0.1:{names.world.gateway.settings.status_port}/held")
    return {backend: held.waiting for backend, held in read_held(answer.json()).items() if held.waiting}


async def until(wanted: Any) -> Any:
    deadline = time.monotonic() + 20
    while not (found := await wanted()):
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.05)
    return found


@asynccontextmanager
async def operator(names: Names, *asleep: str) -> AsyncIterator[set[str]]:
    """Who asks the gateway as the operator does, and the deployments that it was told to wake."""
    told: set[str] = set()
    source = HeldSource(names.world.gateway.settings.status_port)
    waker = Waker(_make_cache(*asleep), source, lambda key, _: told.add(key.name), lambda: True, time.monotonic)
    running = asyncio.create_task(waker.run())
    try:
        while any(waker.held(ObjectKey("LLMDeployment", "ml", name)) is None for name in asleep):
            await asyncio.sleep(0.05)
        assert not told
        yield told
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _make_cache(*asleep: str) -> Cache:
    cache = Cache()
    spec = {"autoscaling": {"minReplicas": 0, "maxReplicas": 1}}
    for version, name in enumerate(sorted(BOTH), 1):
        metadata = {"name": name, "namespace": "ml", "uid": name, "resourceVersion": f"{version}"}
        status = {"readyReplicas": int(name not in asleep)}
        cache.put({"metadata": metadata, "spec": spec, "status": status}, "LLMDeployment")
    route = {"name": "assistants", "namespace": "ml", "uid": "assistants", "resourceVersion": "3"}
    cache.put({"metadata": route, "spec": SPEC}, "LLMRoute")
    labels = {LABEL_COMPONENT: COMPONENT_GATEWAY, LABEL_LLMROUTE: "assistants"}
    pod = {"name": "gateway", "namespace": "ml", "uid": "gateway", "resourceVersion": "4", "labels": labels}
    cache.put({"metadata": pod, "status": {"podIP": "127.0.0.1"}}, "Pod")
    return cache


def all_served(answers: list[Answer]) -> list[str]:
    assert all(answer.is_success for answer in answers), [answer for answer in answers if not answer.is_success]
    return [str(answer.backend) for answer in answers]


async def test_who_is_drawn_to_a_canary_that_sleeps_waits_for_it_and_all_others_do_not(
    names: Names, client: httpx.AsyncClient
) -> None:
    wake(names, "alpha")
    async with operator(names, "beta") as told:
        asked = start(names, client, "patient", 40)
        drawn = len(asked) - len(await until(lambda: _settled(names, asked)))
        assert 4 <= drawn <= 30  # of 40 with a share of 40 %
        await until(lambda: _is_told(told, "beta"))
        assert told == {"beta"}
        wake(names, "beta")
        backends = all_served(await asyncio.gather(*asked))
    assert (backends.count("beta"), backends.count("alpha")) == (drawn, 40 - drawn)
    seen = names.world.seen()
    assert sorted(seen["alpha"] + seen["beta"]) == sorted(task.result().id for task in asked)


async def _settled(names: Names, asked: list[asyncio.Task[Answer]]) -> list[asyncio.Task[Answer]]:
    """Those that are answered, when all others wait for beta."""
    done = [task for task in asked if task.done()]
    return done if await waiting(names) == {"beta": len(asked) - len(done)} else []


async def _is_told(told: set[str], *names: str) -> bool:
    return told >= set(names)


async def test_with_overflow_the_other_one_serves_and_the_canary_is_woken(
    names: Names, client: httpx.AsyncClient
) -> None:
    wake(names, "alpha")
    async with operator(names, "beta") as told:
        assert set(all_served(await asyncio.gather(*start(names, client, "overflowing", 20)))) == {"alpha"}
        await until(lambda: _is_told(told, "beta"))
        assert told == {"beta"}
    assert len(names.world.seen()["alpha"]) == 20


async def test_with_both_asleep_each_request_is_answered_by_the_one_that_it_was_drawn_to(
    names: Names, client: httpx.AsyncClient
) -> None:
    async with operator(names, *BOTH) as told:
        asked = start(names, client, "overflowing", 30)
        held = await until(lambda: _all_wait(names, 30))
        await until(lambda: _is_told(told, *BOTH))
        await asyncio.sleep(2.5)  # longer than overflowAfter: they have looked for the other one, and come back
        assert await until(lambda: _all_wait(names, 30)) == held
        names.wake(*BOTH)
        backends = all_served(await asyncio.gather(*asked))
    assert {backend: backends.count(backend) for backend in held} == held


async def _all_wait(names: Names, count: int) -> dict[str, int]:
    held = await waiting(names)
    return held if sum(held.values()) == count else {}


async def test_with_both_asleep_what_nobody_waits_for_is_not_woken(names: Names, client: httpx.AsyncClient) -> None:
    async with operator(names, *BOTH) as told:
        before = names.read("upstream_cx_none_healthy", "beta")
        asked = start(names, client, "unshared", 5)
        await until(lambda: _all_wait(names, 5))
        assert await waiting(names) == {"alpha": 5}
        await until(lambda: _is_told(told, "alpha"))
        await asyncio.sleep(2.5)  # two more questions of the operator
        assert names.read("upstream_cx_none_healthy", "beta") > before  # it was looked for
        assert told == {"alpha"}
        names.wake("alpha")
        assert set(all_served(await asyncio.gather(*asked))) == {"alpha"}


async def test_a_canary_that_does_not_start_costs_patience_and_not_the_answer(
    names: Names, client: httpx.AsyncClient
) -> None:
    asked = start(names, client, "impatient", 20)
    await asyncio.sleep(2.5)  # all have come back to where they were drawn to
    names.wake("alpha")
    assert set(all_served(await asyncio.gather(*asked))) == {"alpha"}


async def test_with_nobody_at_all_the_answer_says_that_the_model_starts(
    names: Names, client: httpx.AsyncClient
) -> None:
    response = await client.post(
        f"{names.world.gateway.url}/v1/chat/completions", json=make_body("impatient"), timeout=60
    )
    assert (response.status_code, response.json()["error"]["code"]) == (503, "model_starting")
    assert response.headers["retry-after"] == "10"


async def test_an_adapter_wakes_the_deployment_that_serves_it_and_is_asked_for_by_its_name(
    names: Names, client: httpx.AsyncClient
) -> None:
    async with operator(names, *BOTH) as told:
        asked = start(names, client, "legal", 4)
        await until(lambda: _all_wait(names, 4))
        await until(lambda: _is_told(told, "beta"))
        assert (told, await waiting(names)) == ({"beta"}, {"beta": 4})
        names.wake("beta")
        assert all_served(await asyncio.gather(*asked)) == ["beta"] * 4
    sent = [(recorded.request.json or {})["model"] for recorded in names.world["beta"].recorded]
    assert sent == ["acme/lora-legal"] * 4
    assert names.world.seen().keys() == {"beta"}


async def test_nothing_is_refused_by_envoy(names: Names) -> None:
    assert names.world.gateway.rejected() == ()
