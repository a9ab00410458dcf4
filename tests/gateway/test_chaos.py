"""Every fault × unary and stream × who is down × class: whoever may answer and can, does; nobody else is asked, whatever is down."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from tests.gateway.asking import Answer, ask, make_body
from tests.gateway.chaos import BEGUN, FAULTS, IDLE_S, ORDER, REQUEST_S, RESPONSE_HEADERS_S, break_backends
from tests.gateway.world import World

from fairlead.gateway.envoy.files import dump_resources, read_resources

#: As many as it takes to meet each member of a weighted group: 0.5 ** 12 that one of a pair is never chosen is no error either way.
REQUESTS = 12
STREAMS = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
CLASSES = pytest.mark.parametrize("data_class", list(ORDER))


def who_is_down(data_class: str) -> dict[str, tuple[str, ...]]:
    order = ORDER[data_class]
    everybody = [name for names in order for name in names]
    return {
        "first of pair": order[0][:1],
        "second of pair": order[0][1:2],
        "first priority": order[0],
        "all but the last": tuple(everybody[:-1]),
    }


async def ask_many(
    client: httpx.AsyncClient,
    world: World,
    data_class: str,
    *,
    stream: bool,
    count: int = REQUESTS,
    model: str = "chat",
) -> list[Answer]:
    bodies = [make_body(model, stream=stream) for _ in range(count)]
    return await asyncio.gather(*(ask(client, world.gateway.url, body, data_class=data_class) for body in bodies))


def assert_none_leaked(world: World, data_class: str) -> None:
    permitted = {name for names in ORDER[data_class] for name in names}
    assert set(world.seen()) <= permitted, f"{data_class} reached {set(world.seen()) - permitted}"


def assert_served(world: World, answers: list[Answer], data_class: str, down: tuple[str, ...]) -> None:
    permitted = {name for names in ORDER[data_class] for name in names}
    seen = world.seen()
    for answer in answers:
        assert answer.is_success, answer
        assert answer.data_class == data_class
        assert answer.backend in permitted - set(down), answer
        assert seen[answer.backend].count(answer.id) == 1, answer


@CLASSES
@STREAMS
@pytest.mark.parametrize("fault", list(FAULTS))
async def test_another_one_answers(
    world: World, client: httpx.AsyncClient, fault: str, stream: bool, data_class: str
) -> None:
    for where, down in who_is_down(data_class).items():
        break_backends(world, FAULTS[fault], down)
        answers = await ask_many(client, world, data_class, stream=stream)
        assert_none_leaked(world, data_class)
        if fault == "slow" and not stream:
            assert_too_slow(answers, down)
            break_backends(world, FAULTS[fault], down)
            answers = await ask_many(client, world, data_class, stream=stream, model="divided")
            assert_none_leaked(world, data_class)
        assert_served(world, answers, data_class, down)
        assert_tried_once(world, answers, where)


def assert_tried_once(world: World, answers: list[Answer], where: str) -> None:
    """Who has failed a request is not asked for it again while there are others, since a silent one costs its whole time each time."""
    seen = world.seen()
    for answer in answers:
        times = {name: ids.count(answer.id) for name, ids in seen.items() if answer.id in ids}
        assert set(times.values()) == {1}, f"{where}: {answer.id} was sent {times}"


def assert_too_slow(answers: list[Answer], down: tuple[str, ...]) -> None:
    """A request without stream may take as long as its whole timeout, so that nobody is left to ask after it: the API says so."""
    for answer in answers:
        if answer.is_success:
            assert answer.backend not in down
        else:
            assert answer.status == 504, answer
            assert json.loads(answer.text)["error"]["code"] == "gateway_timeout"
        assert answer.took_s < REQUEST_S + 2


@CLASSES
@pytest.mark.parametrize(
    ("fault", "stream"),
    # Without a stream, garbage within a content-length is simply a body.
    [(fault, stream) for fault in BEGUN for stream in (False, True) if stream or fault != "garbled"],
)
async def test_what_has_begun_ends_visibly(
    world: World, client: httpx.AsyncClient, fault: str, stream: bool, data_class: str
) -> None:
    """Nobody else is asked then, and the client is left in no doubt: neither a proper end nor a wait without one."""
    for where in ("first of pair", "all but the last"):
        down = who_is_down(data_class)[where]
        break_backends(world, BEGUN[fault], down)
        answers = await ask_many(client, world, data_class, stream=stream, model="patient")
        assert_none_leaked(world, data_class)
        seen = world.seen()
        for answer in answers:
            (tried,) = [name for name, ids in seen.items() for one in ids if one == answer.id]
            assert answer.is_success == (tried not in down), answer
            assert answer.took_s < (IDLE_S if stream else REQUEST_S) + 2, answer
            if not answer.is_success:
                assert answer.broke or answer.status in {502, 504}, answer


@CLASSES
@STREAMS
@pytest.mark.parametrize("fault", ["refuse", "reset", "503", "garbage"])
async def test_nobody_is_left(
    world: World, client: httpx.AsyncClient, fault: str, stream: bool, data_class: str
) -> None:
    """Whoever may not take the request is there and well, and is not asked."""
    break_backends(world, FAULTS[fault], tuple(name for names in ORDER[data_class] for name in names))
    answers = await ask_many(client, world, data_class, stream=stream)
    assert_none_leaked(world, data_class)
    for answer in answers:
        assert answer.status in {502, 503}, answer
        assert json.loads(answer.text)["error"]["type"], answer
    world.reset()
    again = await ask_many(client, world, data_class, stream=stream)
    assert_served(world, again, data_class, ())


@CLASSES
async def test_the_forbidden_are_down(world: World, client: httpx.AsyncClient, data_class: str) -> None:
    """What may not be asked does not matter."""
    permitted = {name for names in ORDER[data_class] for name in names}
    break_backends(world, None, tuple(set(world.providers.by_name) - permitted))
    assert_served(world, await ask_many(client, world, data_class, stream=False), data_class, ())


async def test_two_hundred_callers_while_the_first_refuses(world: World, client: httpx.AsyncClient) -> None:
    break_backends(world, None, ("alpha", "beta", "openai"))
    for stream in (False, True):
        answers = await ask_many(client, world, "Public", stream=stream, count=200)
        assert_served(world, answers, "Public", ("alpha", "beta", "openai"))


async def test_what_a_failover_costs(world: World, client: httpx.AsyncClient) -> None:
    """p99 of what one failover adds: at most a second, and for a silent backend besides what it is given until its headers come."""

    async def times(stream: bool) -> list[float]:
        found: list[float] = []
        for _ in range(10):
            bodies = [make_body("ordered", stream=stream) for _ in range(10)]
            answers = await asyncio.gather(*(ask(client, world.gateway.url, body) for body in bodies))
            assert all(answer.is_success for answer in answers), answers
            found += [answer.took_s for answer in answers]
        return sorted(found)

    for stream in (False, True):
        world.reset()
        await times(stream)  # connections are made
        usual_s = (await times(stream))[50]
        for name, fault in FAULTS.items():
            if name == "slow" and not stream:
                continue  # the API gives it the whole request timeout
            break_backends(world, fault, ("alpha",))
            added = [took_s - usual_s for took_s in await times(stream)]
            print(
                f"{'stream' if stream else 'unary'} {name}: p50 {added[50] * 1000:.0f} ms, p99 {added[98] * 1000:.0f} ms"
            )
            assert added[98] <= 1 + (RESPONSE_HEADERS_S if name == "slow" else 0), name


@STREAMS
@pytest.mark.parametrize("size_mib", [1, 3, 20])
async def test_a_large_body_is_tried_elsewhere(
    world: World, client: httpx.AsyncClient, stream: bool, size_mib: int
) -> None:
    break_backends(world, FAULTS["503"], ("alpha", "beta"))
    body = make_body("chat", stream=stream, text="x" * (size_mib << 20))
    answer = await ask(client, world.gateway.url, body, data_class="Confidential")
    assert answer.is_success, answer
    (received,) = world["gamma"].recorded
    assert received.request.json["messages"] == body["messages"]


async def test_a_host_whose_streams_stall_is_left_out(world: World, client: httpx.AsyncClient) -> None:
    """A deployment of two pods, one of which answers and says nothing more: it counts against that pod, and requests go to the other."""
    gateway = world.gateway
    good = dict(gateway.live or {})
    kind, clusters = read_resources(good["cds.json"])
    (alpha,) = [cluster for cluster in clusters if cluster["name"].startswith("be~alpha~")]
    host, port = world["beta"].address
    endpoint = {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}
    alpha["load_assignment"]["endpoints"][0]["lb_endpoints"].append(endpoint)
    place = alpha["name"].removeprefix("be~")
    gateway.put({**good, "cds.json": dump_resources(kind, clusters)})
    try:
        gateway.confirm()
        gateway.until(lambda: gateway.healthy()[place] == 2, "finding both")
        break_backends(world, BEGUN["stall"], ("alpha",))
        answers = await asyncio.gather(
            *(ask(client, gateway.url, make_body("ordered", stream=True)) for _ in range(24))
        )
        assert any(not answer.is_success for answer in answers)
        gateway.until(lambda: gateway.healthy()[place] == 1, "leaving it out")
        world["alpha"].clear()
        again = await asyncio.gather(*(ask(client, gateway.url, make_body("ordered", stream=True)) for _ in range(24)))
        assert all(answer.is_success for answer in again)
        assert world["alpha"].recorded == []
    finally:
        gateway.put(good)
        gateway.confirm()


async def test_the_only_host_is_never_left_out(world: World, client: httpx.AsyncClient) -> None:
    """However often it failed, it is asked as soon as it is well: there is nobody else in its place."""
    for fault in (*FAULTS.values(), BEGUN["stall"]):
        break_backends(world, fault, ("alpha",))
        await asyncio.gather(*(ask(client, world.gateway.url, make_body("ordered", stream=True)) for _ in range(24)))
        world.reset()
        answer = await ask(client, world.gateway.url, make_body("ordered", stream=True))
        assert (answer.is_success, answer.backend) == (True, "alpha"), answer
    assert min(world.gateway.healthy().values()) == 1
