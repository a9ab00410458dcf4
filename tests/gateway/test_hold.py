"""Requests that wait for a deployment at zero replicas, through the real Envoy: its name has no address until a pod is there."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest
from tests.gateway.asking import Answer, ask, make_body
from tests.gateway.sleeping import Names, names_of
from tests.gateway.world import World, backend_entries, make_world

from fairlead.api.names import COMPONENT_GATEWAY, LABEL_COMPONENT, LABEL_LLMROUTE
from fairlead.facts.observed import ObjectKey
from fairlead.gateway.envoy.loaded import read_held
from fairlead.kube.cache import Cache
from fairlead.runtime.waking import Waker
from fairlead.sources.held import HeldSource
from fairlead_cluster.providers import Fault, Kind

#: Less than the patience of those that may wait, and more than a busy machine needs.
QUICK_S: Final = 20.0
ALPHA: Final = ObjectKey("LLMDeployment", "ml", "alpha")
_FALLBACK: Final = [{"backend": "alpha"}, {"backend": "openai", "model": "gpt", "priority": 1}]
SPEC: Final[dict[str, Any]] = {
    "backends": backend_entries("alpha", "beta", "openai"),
    "models": [
        {"name": "held", "targets": [{"backend": "alpha"}], "hold": {"patience": "30s"}},
        {"name": "impatient", "targets": [{"backend": "alpha"}], "hold": {"patience": "2s"}},
        {"name": "few", "targets": [{"backend": "alpha"}], "hold": {"patience": "30s", "maxRequests": 2}},
        {
            "name": "fallback",
            "targets": _FALLBACK,
            "hold": {"patience": "30s", "overflowAfter": "1s", "maxRequests": 2},
        },
        {"name": "at-once", "targets": _FALLBACK, "hold": {"patience": "30s", "overflowAfter": "0s"}},
        {
            "name": "quick",
            "targets": [{"backend": "alpha"}, {"backend": "beta", "priority": 1}],
            "hold": {"patience": "30s"},
            "timeouts": {"responseHeaders": "500ms"},
        },
        {
            "name": "sticky",
            "targets": [{"backend": "alpha"}],
            "hold": {"patience": "30s"},
            "affinity": {"header": "x-session-id"},
        },
        {"name": "plain", "targets": [{"backend": "alpha"}]},
    ],
    "authentication": {"anonymous": {"role": "anybody"}},
    "roles": [
        {
            "name": "anybody",
            "llmAccess": ["Local", "Cloud"],
            "dataAccess": ["Public", "Internal", "Confidential"],
            "mayDeclare": ["Public"],
        }
    ],
}


@pytest.fixture(scope="module")
def sleepy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Names]:
    with (
        make_world(SPEC, tmp_path_factory.mktemp("hold")) as world,
        names_of(world, world.table(SPEC, frozenset({"alpha"})), "alpha") as names,
    ):
        yield names


@pytest.fixture
def names(sleepy: Names) -> Names:
    """Alpha is at zero, everybody else is well."""
    sleepy.world.reset()
    sleepy.sleep("alpha")
    return sleepy


@pytest.fixture
def awake(sleepy: Names) -> World:
    """Alpha has a pod."""
    sleepy.world.reset()
    sleepy.wake("alpha")
    sleepy.world.gateway.until(lambda: sleepy.hosts("alpha") > 0, "waking")
    return sleepy.world


def code_of(answer: Answer) -> str:
    return str(json.loads(answer.text)["error"]["code"])


def found_nobody(names: Names) -> int:
    """How often a pod of alpha was looked for in vain."""
    return names.read("upstream_cx_none_healthy", "alpha")


async def wait_for_waiting(names: Names, before: int, count: int) -> None:
    """Until so many requests are there at the same time, and have looked for a pod so often since."""
    status = f"http://127.0.0.1:{names.world.gateway.settings.status_port}/held"
    deadline = time.monotonic() + 20
    async with httpx.AsyncClient(timeout=5) as client:
        while True:
            held = read_held((await client.get(status)).json()).get("alpha")
            looks = await asyncio.to_thread(found_nobody, names)
            if held is not None and held.waiting >= count and looks >= before + count:
                return
            assert time.monotonic() < deadline, (held, looks - before, "nobody waits")
            await asyncio.sleep(0.05)


async def test_fifty_requests_wait_and_are_all_served_once_by_the_pod_that_comes(
    names: Names, client: httpx.AsyncClient
) -> None:
    before = found_nobody(names)
    asked = [
        asyncio.create_task(ask(client, names.world.gateway.url, make_body("held", stream=number % 2 == 0)))
        for number in range(50)
    ]
    await wait_for_waiting(names, before, 50)
    assert not any(task.done() for task in asked)
    names.wake("alpha")
    woken = time.time()
    answers = await asyncio.gather(*asked)
    assert all(answer.is_success for answer in answers), [answer for answer in answers if not answer.is_success]
    assert {answer.backend for answer in answers} == {"alpha"}
    assert sorted(names.world.seen()["alpha"]) == sorted(answer.id for answer in answers)
    # One look at the name, and one and a half seconds between two looks for a pod; the rest is this machine.
    assert max(answer.begun_s + answer.took_s for answer in answers) - woken < QUICK_S


async def test_one_that_waits_brings_its_whole_body_and_only_what_may_go_on(
    names: Names, client: httpx.AsyncClient
) -> None:
    before = found_nobody(names)
    body = make_body("held", text="x" * 250_000)
    asked = asyncio.create_task(ask(client, names.world.gateway.url, body, headers={"x-own": "1", "cookie": "a"}))
    await wait_for_waiting(names, before, 1)
    names.wake("alpha")
    assert (await asked).is_success
    (recorded,) = names.world["alpha"].recorded
    assert recorded.request.json == {**body, "model": "alpha-model"}
    sent = {name.lower() for name, _ in recorded.request.headers}
    assert not any(name.startswith(("x-fairlead", "x-own", "cookie", "x-envoy")) for name in sent), sent


@pytest.mark.parametrize("stream", [False, True])
async def test_a_body_that_is_too_large_to_wait_is_told_so_at_once_and_served_by_a_pod_that_is_there(
    names: Names, client: httpx.AsyncClient, stream: bool
) -> None:
    body = make_body("held", text="x" * 2_100_000, stream=stream)
    refused = await ask(client, names.world.gateway.url, body)
    assert (refused.status, refused.took_s < QUICK_S) == (503, True), refused
    names.wake("alpha")
    names.world.gateway.until(lambda: names.hosts("alpha") > 0, "waking")
    assert (await ask(client, names.world.gateway.url, body)).is_success


async def test_no_more_wait_than_may_and_one_that_goes_makes_room(names: Names, client: httpx.AsyncClient) -> None:
    url, before = names.world.gateway.url, found_nobody(names)
    waiting = [asyncio.create_task(ask(client, url, make_body("few"))) for _ in range(2)]
    await wait_for_waiting(names, before, 2)
    refused = await ask(client, url, make_body("few", stream=True))
    assert (refused.status, code_of(refused)) == (503, "no_capacity")
    assert refused.took_s < QUICK_S
    response = await client.post(f"{url}/v1/chat/completions", json=make_body("few"))
    assert response.headers["retry-after"] == "10"
    assert not [name for name in response.headers if name in ("x-fairlead-flags", "x-fairlead-again")]
    assert not any(task.done() for task in waiting)
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    before = found_nobody(names)
    waiting.append(asyncio.create_task(ask(client, url, make_body("few"))))
    await wait_for_waiting(names, before, 2)
    assert not waiting[2].done()
    names.wake("alpha")
    assert all(answer.is_success for answer in await asyncio.gather(*waiting[1:]))


@pytest.mark.parametrize("stream", [False, True])
async def test_patience_ends(names: Names, client: httpx.AsyncClient, stream: bool) -> None:
    url = names.world.gateway.url
    answer = await ask(client, url, make_body("impatient", stream=stream))
    assert (answer.status, code_of(answer)) == (503, "model_starting")
    assert 1.9 < answer.took_s < QUICK_S
    response = await client.post(f"{url}/v1/chat/completions", json=make_body("plain"))
    assert (response.status_code, response.headers["retry-after"]) == (503, "10"), response.text
    assert response.elapsed.total_seconds() < QUICK_S
    assert response.json()["error"]["code"] == "service_unavailable"


async def test_who_may_go_elsewhere_goes_there_and_who_may_not_waits(names: Names, client: httpx.AsyncClient) -> None:
    url, before = names.world.gateway.url, found_nobody(names)
    waiting = [
        asyncio.create_task(ask(client, url, make_body(model), data_class="Confidential"))
        for model in ("fallback", "at-once", "at-once")
    ]
    await wait_for_waiting(names, before, 3)
    at_once = await ask(client, url, make_body("at-once"), data_class="Public")
    assert (at_once.is_success, at_once.backend, at_once.took_s < QUICK_S) == (True, "openai", True), at_once
    later = await ask(client, url, make_body("fallback"), data_class="Public")
    assert (later.is_success, later.backend, 0.9 < later.took_s < QUICK_S) == (True, "openai", True), later
    # Full for it: nobody waits then who need not.
    waiting.append(asyncio.create_task(ask(client, url, make_body("fallback"), data_class="Confidential")))
    await wait_for_waiting(names, found_nobody(names), 4)
    full = await ask(client, url, make_body("fallback"), data_class="Public")
    assert (full.is_success, full.backend, full.took_s < QUICK_S) == (True, "openai", True), full
    refused = await ask(client, url, make_body("fallback"), data_class="Confidential")
    assert (refused.status, code_of(refused)) == (503, "no_capacity")
    assert not any(task.done() for task in waiting)
    names.wake("alpha")
    answers = await asyncio.gather(*waiting)
    assert all(answer.is_success and answer.backend == "alpha" for answer in answers), answers
    public = {at_once.id, later.id, full.id}
    assert set(names.world.seen()["openai"]) == public
    assert not public & set(names.world.seen()["alpha"])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_pod_that_is_gone_before_its_name_is_waited_out_too(
    awake: World, client: httpx.AsyncClient, stream: bool
) -> None:
    awake["alpha"].refuse()
    asked = asyncio.create_task(ask(client, awake.gateway.url, make_body("held", stream=stream)))
    await asyncio.sleep(1.5)
    assert not asked.done()
    awake["alpha"].accept()
    answer = await asked
    assert answer.is_success, answer
    assert awake.seen()["alpha"] == [answer.id]


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_pod_says_is_not_waited_out(awake: World, client: httpx.AsyncClient, stream: bool) -> None:
    """Not even if it claims to be nobody."""
    awake["alpha"].fail(Fault(Kind.STATUS, code=503, headers={"x-fairlead-flags": "UH", "x-fairlead-again": "1"}))
    answer = await ask(client, awake.gateway.url, make_body("held", stream=stream))
    assert (answer.status, answer.took_s < QUICK_S) == (503, True), answer
    assert len(awake.seen()["alpha"]) == 1
    response = await client.post(f"{awake.gateway.url}/v1/chat/completions", json=make_body("held"))
    assert "x-fairlead-flags" not in response.headers


async def test_a_silent_pod_is_given_up_as_without_a_hold(awake: World, client: httpx.AsyncClient) -> None:
    awake["alpha"].fail(Fault(Kind.SLOW, delay_s=20.0))
    answer = await ask(client, awake.gateway.url, make_body("quick", stream=True))
    assert (answer.is_success, answer.backend, answer.took_s < 15) == (True, "beta", True), answer
    assert len(awake.seen()["alpha"]) == 1


async def test_a_stream_that_waited_may_last_longer_than_patience(names: Names, client: httpx.AsyncClient) -> None:
    before = found_nobody(names)
    names.world["alpha"].behave(gap_s=0.3)
    try:
        asked = asyncio.create_task(ask(client, names.world.gateway.url, make_body("impatient", stream=True)))
        await wait_for_waiting(names, before, 1)
        names.wake("alpha")
        answer = await asked
        assert answer.is_success, answer
    finally:
        names.world["alpha"].behave(gap_s=0.0)


async def test_an_affinity_holds_for_those_who_waited(names: Names, client: httpx.AsyncClient) -> None:
    before = found_nobody(names)
    body, headers = make_body("sticky"), {"x-session-id": "7"}
    asked = asyncio.create_task(ask(client, names.world.gateway.url, body, headers=headers))
    await wait_for_waiting(names, before, 1)
    names.wake("alpha")
    assert (await asked).is_success
    sent = {name.lower() for name, _ in names.world["alpha"].recorded[0].request.headers}
    assert "x-session-id" not in sent


@pytest.mark.parametrize("model", ["held", "plain"])
async def test_the_operator_hears_of_the_first_request_at_once(
    names: Names, client: httpx.AsyncClient, model: str
) -> None:
    """A gateway is asked as the operator does it. Without a hold the request is answered, and told of all the same."""
    told: asyncio.Queue[tuple[ObjectKey, int]] = asyncio.Queue()
    source = HeldSource(names.world.gateway.settings.status_port)
    waker = Waker(_make_cache(), source, lambda *held: told.put_nowait(held), lambda: True, time.monotonic)
    running = asyncio.create_task(waker.run())
    try:
        while waker.held(ALPHA) is None:
            await asyncio.sleep(0.05)
        assert told.empty()
        began = time.monotonic()
        asked = asyncio.create_task(ask(client, names.world.gateway.url, make_body(model)))
        assert await asyncio.wait_for(told.get(), 20) == (ALPHA, 1)
        assert time.monotonic() - began < QUICK_S
        names.wake("alpha")
        assert (await asked).status == (200 if model == "held" else 503)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _make_cache() -> Cache:
    """What the operator knows: the deployment, the route, and the gateway's pod."""
    cache = Cache()
    scaling = {"minReplicas": 0, "maxReplicas": 1}
    route = {"backends": [{"name": "alpha", "deployment": {"name": "alpha"}}]}
    pod = {"labels": {LABEL_COMPONENT: COMPONENT_GATEWAY, LABEL_LLMROUTE: "assistants"}}
    for version, (kind, name, more) in enumerate(
        (
            ("LLMDeployment", "alpha", {"spec": {"autoscaling": scaling}}),
            ("LLMRoute", "assistants", {"spec": route}),
            ("Pod", "gateway", {"status": {"podIP": "127.0.0.1"}}),
        ),
        1,
    ):
        metadata = {"name": name, "namespace": "ml", "uid": name, "resourceVersion": f"{version}"}
        cache.put({"metadata": {**metadata, **(pod if kind == "Pod" else {})}, **more}, kind)
    return cache


async def test_a_gateway_says_it_in_both_ways(names: Names, client: httpx.AsyncClient) -> None:
    before = found_nobody(names)
    waiting = [asyncio.create_task(ask(client, names.world.gateway.url, make_body("held"))) for _ in range(3)]
    await wait_for_waiting(names, before, 3)
    base = f"http://127.0.0.1:{names.world.gateway.settings.status_port}"
    short, long = await asyncio.gather(client.get(f"{base}/held"), client.get(f"{base}/metrics"))
    held, told = read_held(short.json())["alpha"], read_held(long.text)["alpha"]
    assert (held.waiting, told.waiting) == (3, 0)
    assert min(held.missed, told.missed) >= before + 3
    assert len(short.content) < 10_000 < len(long.content)
    names.wake("alpha")
    assert all(answer.is_success for answer in await asyncio.gather(*waiting))


async def test_times_of_those_who_waited_are_not_those_of_the_backend(names: Names, client: httpx.AsyncClient) -> None:
    url, before = names.world.gateway.url, found_nobody(names)
    waiting = asyncio.create_task(client.post(f"{url}/v1/chat/completions", json=make_body("sticky"), timeout=60))
    await wait_for_waiting(names, before, 1)
    names.wake("alpha")
    assert int((await waiting).headers["x-fairlead-looks"]) > 1
    names.world.gateway.until(lambda: names.hosts("alpha") > 1, "waking")
    quick = await client.post(f"{url}/v1/chat/completions", json=make_body("sticky"))
    assert quick.headers["x-fairlead-looks"] == "1"
    status = f"http://127.0.0.1:{names.world.gateway.settings.status_port}/metrics"

    def told() -> dict[str, set[str]]:
        lines = [line for line in httpx.get(status, timeout=5).text.splitlines() if 'model="sticky"' in line]
        wanted = (
            "envoy_fairlead_requests{",
            "envoy_fairlead_request_duration_ms_count",
            "envoy_fairlead_time_to_first_token_ms_count",
        )
        return {name: {line.rpartition(" ")[2] for line in lines if line.startswith(name)} for name in wanted}

    names.world.gateway.until(lambda: all(told().values()), "flushing histograms")
    requests, durations, times = told().values()
    assert durations == times
    assert int(*requests) > int(*durations) > 0


async def test_nothing_is_refused_by_envoy(names: Names) -> None:
    assert names.world.gateway.rejected() == ()
