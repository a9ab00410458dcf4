"""Users' RE2 patterns at a real Envoy: what only a pattern sees reaches no cloud, and nobody is told what it was.

Judged by what capturing providers received. The same requests with another word go out, and so they do without the patterns.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

import httpx
import pytest
from tests.gateway.asking import ask, make_body
from tests.gateway.planting import ENDPOINTS, Planted, make_clean, make_planted
from tests.gateway.world import World, backend_entries, make_world
from tests.unit.api.test_patterns import GOOD

Json = dict[str, Any]
KEYS = {"inside": ("sk-client-inside-0001",), "outside": ("sk-client-outside-0002",)}
CLOUDS = ("openai", "trusted")
#: What no built-in detector and no keyword sees; names are those of detectors.
PLANTED: Mapping[str, tuple[str, ...]] = {
    "records": ("MRN-12345678", "mrn 87654321"),
    "osprey": ("Project Osprey", "PROJECT_OSPREY", "the projectosprey papers"),
    "codes": ("ab12:cd34:ef56",),
}
PATTERNS: Mapping[str, list[str]] = {
    "records": [r"(?i)\bMRN[- ]\d{8}\b"],
    "osprey": ["never seen at all", r"(?i)project[ _-]?osprey"],
    "codes": [r"\b[a-z]{2}\d{2}(:[a-z]{2}\d{2}){2}\b"],
}


def make_spec(patterns: Mapping[str, list[str]] = PATTERNS, **policy: Any) -> Json:
    """Whoever calls may declare Public; `outside` may send nothing that is Confidential."""
    role: Json = {"llmAccess": ["Local", "Cloud"], "mayDeclare": ["Public"]}
    return {
        "backends": backend_entries("alpha", *CLOUDS),
        "models": [
            {
                "name": "chat",
                "targets": [
                    *({"backend": cloud, "model": "big"} for cloud in CLOUDS),
                    {"backend": "alpha", "priority": 1},
                ],
            }
        ],
        "authentication": {"apiKeys": {"secretRef": {"name": "clients"}}},
        "roles": [
            {**role, "name": "in", "consumers": ["inside"], "dataAccess": ["Public", "Internal", "Confidential"]},
            {**role, "name": "out", "consumers": ["outside"], "dataAccess": ["Public", "Internal"]},
        ],
        "dataPolicy": {
            "default": "Public",
            "denyClasses": ["Confidential", "Restricted"],
            "detectors": [
                *({"name": name, "class": "Confidential", "patterns": some} for name, some in patterns.items()),
                {"name": "word", "class": "Internal", "keywords": ["bluebird"]},
            ],
            **policy,
        },
    }


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(make_spec(), tmp_path_factory.mktemp("patterns"), KEYS) as world:
        yield world


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    """With the route above, before and after."""
    shared.reset()
    yield shared
    shared.gateway.publish(shared.table(make_spec()))


async def _send(client: httpx.AsyncClient, world: World, one: Planted, consumer: str) -> httpx.Response:
    (key,) = KEYS[consumer]
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}", **one.headers}
    return await client.post(f"{world.gateway.url}{one.path}", content=one.body, headers=headers, timeout=30)


async def _send_all(
    client: httpx.AsyncClient, world: World, these: list[Planted], consumer: str
) -> list[httpx.Response]:
    places = asyncio.Semaphore(8)

    async def send(one: Planted) -> httpx.Response:
        async with places:
            return await _send(client, world, one, consumer)

    return await asyncio.gather(*map(send, these))


def _sent_to_clouds(world: World) -> list[bytes]:
    return [recorded.request.body for cloud in CLOUDS for recorded in world[cloud].recorded]


def _hides(text: str) -> bool:
    """Whether nothing that was planted is in it, in whatever case."""
    low = text.lower()
    return not [one for some in PLANTED.values() for one in some if one.lower() in low]


async def test_what_only_a_pattern_sees_reaches_no_cloud(world: World, client: httpx.AsyncClient) -> None:
    dice, ends = Random(20261128), Counter[str]()
    for path in ENDPOINTS:
        planted = list(make_planted(dice, 90, frozenset({path}), PLANTED))
        answers = await _send_all(client, world, planted, "inside")
        assert _sent_to_clouds(world) == [], path
        for one, answer in zip(planted, answers, strict=True):
            backend = answer.headers.get("x-fairlead-backend", "")
            ends[f"{answer.status_code} {backend}".strip()] += 1
            is_form = one.is_form or answer.status_code == 415
            assert (answer.status_code, backend) == (200, "alpha") or is_form, (one.what, answer.text)
            if not is_form:
                assert answer.headers["x-fairlead-class"] == "Confidential"
        clean = list(make_clean(dice, 20, frozenset({path})))
        for answer in await _send_all(client, world, clean, "inside"):
            assert (answer.status_code, answer.headers["x-fairlead-class"]) == (200, "Public")
            assert answer.headers["x-fairlead-backend"] in CLOUDS
        world.reset()
    print(f"\n{dict(ends)}")
    assert ends["200 alpha"] > 300


async def test_without_the_pattern_it_is_seen_outside(world: World, client: httpx.AsyncClient) -> None:
    """So that the judge above is one."""
    world.gateway.publish(world.table(make_spec({"records": PATTERNS["records"]})))
    planted = list(make_planted(Random(7), 60, frozenset({"/v1/completions"}), {"osprey": PLANTED["osprey"]}))
    await _send_all(client, world, planted, "inside")
    assert _sent_to_clouds(world)


async def test_nobody_is_told_what_matched(world: World, client: httpx.AsyncClient) -> None:
    """Neither the caller who is denied, nor logs, metrics, or what Envoy's own counters are called."""
    planted = [
        one for one in make_planted(Random(3), 120, frozenset({"/v1/chat/completions"}), PLANTED) if not one.is_form
    ]
    denied = 0
    for one, answer in zip(planted, await _send_all(client, world, planted, "outside"), strict=True):
        if answer.status_code == 415:
            continue
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (403, "data_class_denied"), one.what
        by = {f"the detector {one.what.partition('/')[0]}", "text that its patterns could not look at"}
        told = {
            f"This request is classified Confidential by {what}. Of you, the model chat takes Public, Internal."
            for what in by
        }
        assert error["message"] in told
        assert _hides(repr(answer.headers))
        denied += 1
    assert denied > 80
    assert world.seen() == {}
    status = f"http://127.0.0.1:{world.gateway.settings.status_port}"
    assert _hides((await client.get(f"{status}/metrics")).text)
    assert _hides(world.gateway.log)
    world.gateway.until(lambda: '"rule":"codes"' in _access_log(world), "a line of the access log")
    log = _access_log(world)
    assert _hides(log)
    assert {json.loads(line)["rule"] for line in log.splitlines()} >= {"records", "osprey", "codes"}


def _access_log(world: World) -> str:
    return (world.gateway.directory / "access.log").read_text()


def message(text: str) -> Json:
    return make_body("chat", text=text)


async def test_of_several_the_highest_class_counts(world: World, client: httpx.AsyncClient) -> None:
    detectors = [
        {"name": "a-low", "class": "Internal", "patterns": ["low|both"]},
        {"name": "z-high", "class": "Confidential", "patterns": ["high|both"]},
        {"name": "word", "class": "Internal", "keywords": ["bluebird"]},
        {"name": "top", "class": "Restricted", "keywords": ["falcon"]},
    ]
    world.gateway.publish(world.table(make_spec(detectors=detectors)))
    for text, status, data_class in (
        ("hello", 200, "Public"),
        ("low", 200, "Internal"),
        ("high", 200, "Confidential"),
        ("both", 200, "Confidential"),
        ("bluebird", 200, "Internal"),
        ("bluebird low", 200, "Internal"),
        ("bluebird high", 200, "Confidential"),
        ("falcon high", 403, ""),
    ):
        answer = await ask(client, world.gateway.url, message(text), key=KEYS["inside"][0])
        assert (answer.status, answer.data_class) == (status, data_class), text


async def test_text_that_is_too_long_stays_inside(world: World, client: httpx.AsyncClient) -> None:
    for text, data_class in (("x" * 1_000_000, "Public"), ("x" * 1_100_000, "Confidential")):
        answer = await ask(client, world.gateway.url, message(text), key=KEYS["inside"][0])
        assert (answer.status, answer.data_class) == (200, data_class)


async def test_where_nobody_has_looked_it_is_restricted(world: World, client: httpx.AsyncClient) -> None:
    """The classifier shows a text, and no rules are there to look at it."""
    files = dict(world.gateway.live or {})
    public = json.loads(files["rds-public.json"])
    public["version_info"] = "without rules"
    (host,) = public["resources"][0]["virtual_hosts"]
    del host["typed_per_filter_config"]["patterns"]
    world.gateway.put({**files, "rds-public.json": json.dumps(public)})
    world.gateway.until(lambda: world.gateway.loaded()["rds-public.json"] == "without rules")
    answer = await ask(client, world.gateway.url, message("hello"), key=KEYS["inside"][0])
    assert answer.status == 403
    assert "classified Restricted by text that its patterns could not look at" in answer.text
    world.gateway.put(files)
    world.gateway.confirm()


async def test_a_pattern_that_is_added_holds_at_once_and_cuts_no_stream(
    world: World, client: httpx.AsyncClient
) -> None:
    world.gateway.publish(world.table(make_spec({})))
    for cloud in CLOUDS:
        world[cloud].behave(gap_s=0.1, text=" ".join(["word"] * 30))
    lds = (world.gateway.directory / "bootstrap" / "lds.json").read_text()
    try:
        body = make_body("chat", stream=True, text="about MRN-12345678")
        stream = asyncio.ensure_future(ask(client, world.gateway.url, body, key=KEYS["inside"][0]))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(world.gateway.publish, world.table(make_spec()))
        world[CLOUDS[0]].clear()
        world[CLOUDS[1]].clear()
        later = await ask(client, world.gateway.url, message("about MRN-12345678"), key=KEYS["inside"][0])
        assert (later.status, later.backend, later.data_class) == (200, "alpha", "Confidential")
        assert not stream.done(), "the stream is longer than all of this"
        begun = await stream
        assert begun.is_success
        assert begun.backend in CLOUDS
        assert _sent_to_clouds(world) == []
    finally:
        for cloud in CLOUDS:
            world[cloud].behave(gap_s=0.0, text="hello")
    assert (world.gateway.directory / "bootstrap" / "lds.json").read_text() == lds
    assert world.gateway.rejected() == ()


async def test_the_largest_patterns_that_are_accepted_are_loaded(world: World, client: httpx.AsyncClient) -> None:
    """Envoy counts the instructions, too."""
    world.gateway.publish(world.table(make_spec({"one": ["a.{480}z"], "other": ["a.{481}y"]})))
    answer = await ask(client, world.gateway.url, message("a" + "." * 481 + "y"), key=KEYS["inside"][0])
    assert (answer.status, answer.data_class) == (200, "Confidential")
    assert world.gateway.rejected() == ()


async def test_envoy_takes_what_passes(world: World, client: httpx.AsyncClient) -> None:
    """The same library, in perhaps another version."""
    for first in range(0, len(GOOD), 8):
        some = {f"d{number}": [pattern] for number, pattern in enumerate(GOOD[first : first + 8])}
        world.gateway.publish(world.table(make_spec(some)))
        assert (await ask(client, world.gateway.url, message("hello"), key=KEYS["inside"][0])).status == 200
    assert world.gateway.rejected() == ()
