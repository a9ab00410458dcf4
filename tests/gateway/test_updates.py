"""Generations under load: nothing fails, no stream is cut, and what is withdrawn is withdrawn from the first confirmed step on."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from tests.gateway.asking import ask, make_body
from tests.gateway.load import Load, running_load
from tests.gateway.world import World, backend_entries, make_world

from fairlead.planning.route.publishing import Step

RPS, STREAMS = 20, 20
#: Who always may; what the load asks for exists in every generation.
KEY_A, KEY_B = "sk-of-team-a-0001", "sk-of-team-b-0001"

KEYS = {"team-a": (KEY_A,), "team-b": (KEY_B,)}


@dataclass(frozen=True)
class Ban:
    """From the confirmation of a change until it is taken back, no request of this kind reaches these backends."""

    kind: str
    backends: frozenset[str]
    from_s: float
    until_s: float = float("inf")


#: Kinds of load: model, class, key, text. The words are what a detector may be told to find.
KINDS: dict[str, tuple[str, str, str, str]] = {
    "public": ("chat", "Public", KEY_A, "hello"),
    "internal": ("chat", "", KEY_A, "hello"),
    "word": ("chat", "Public", KEY_A, "about bluebird"),
    "analyst": ("chat", "Public", KEY_B, "hello"),
    "steady": ("steady", "Public", KEY_A, "hello"),
}


@dataclass
class State:
    """What a generation consists of; `spec` writes it down, `reachable` says by hand who may be asked for each kind of load."""

    weights: tuple[int, int] = (90, 10)
    cloud: bool = True
    second: bool = False
    models: int = 0
    detector: bool = False
    pattern: bool = False
    analyst_cloud: bool = True

    def spec(self) -> dict[str, Any]:
        chat = [{"backend": "alpha", "weight": self.weights[0]}, {"backend": "beta", "priority": 1}]
        chat += [{"backend": "openai", "model": "gpt", "weight": self.weights[1]}] if self.cloud else []
        chat += [{"backend": "groq", "model": "llama", "weight": 5}] if self.second else []
        names = ["alpha", "beta", "gamma", "openai", *(["groq"] if self.second else [])]
        detectors = [{"name": "project", "class": "Internal", "keywords": ["bluebird"]}] if self.detector else []
        detectors += [{"name": "shape", "class": "Internal", "patterns": ["b[a-z]+bird"]}] if self.pattern else []
        return {
            "backends": backend_entries(*names),
            "models": [
                {"name": "chat", "targets": chat},
                {"name": "steady", "targets": [{"backend": "gamma"}, {"backend": "openai", "model": "gpt", "priority": 1}]},
                *({"name": f"more-{n}", "targets": [{"backend": "gamma"}]} for n in range(self.models)),
            ],
            "authentication": {"apiKeys": {"secretRef": {"name": "clients"}}},
            "roles": [
                {"name": "developer", "consumers": ["team-a"], "llmAccess": ["Local", "Cloud"],
                 "dataAccess": ["Public", "Internal"], "mayDeclare": ["Public"]},
                {"name": "analyst", "consumers": ["team-b"], "dataAccess": ["Public", "Internal"], "mayDeclare": ["Public"],
                 "llmAccess": ["Local", "Cloud"] if self.analyst_cloud else ["Local"]},
            ],
            "dataPolicy": {"detectors": detectors},
        }  # fmt: skip

    def reachable(self, kind: str) -> frozenset[str]:
        if kind == "steady":
            return frozenset({"gamma", "openai"})
        clouds = {name for name, there in (("openai", self.cloud), ("groq", self.second)) if there}
        local_only = kind == "internal" or (kind == "word" and (self.detector or self.pattern))
        local_only = local_only or (kind == "analyst" and not self.analyst_cloud)
        return frozenset({"alpha", "beta"} | (set() if local_only else clouds))

    def change(self, dice: random.Random, number: int) -> str:
        """One more generation."""
        what = ["weights", "cloud", "second", "pattern", "models", "detector", "analyst_cloud"][number % 7]
        if what == "weights":
            self.weights = (dice.randint(1, 100), dice.randint(1, 100))
        elif what == "models":
            self.models = (self.models + dice.randint(1, 3)) % 5
        else:
            setattr(self, what, not getattr(self, what))
        return what


@dataclass
class Watch:
    """What was forbidden when."""

    bans: list[Ban] = field(default_factory=list)

    def lift(self, state: State) -> None:
        """Before a change that permits more is published."""
        now = time.time()
        self.bans = [
            Ban(ban.kind, ban.backends, ban.from_s, now)
            if ban.until_s == float("inf") and ban.backends & state.reachable(ban.kind)
            else ban
            for ban in self.bans
        ]

    def impose(self, state: State) -> None:
        """Once the first step of a change is confirmed: whoever may not be asked now must not be, in requests that begin from here."""
        everybody = frozenset({"alpha", "beta", "gamma", "openai", "groq"})
        active = {(ban.kind, ban.backends) for ban in self.bans if ban.until_s == float("inf")}
        for kind in KINDS:
            backends = everybody - state.reachable(kind)
            if (kind, backends) not in active:
                self.bans.append(Ban(kind, backends, time.time()))


async def run(world: World, client: httpx.AsyncClient, generations: int) -> None:
    dice, state, watch = random.Random(20261127), State(), Watch()
    for provider in world.providers.by_name.values():
        provider.behave(gap_s=0.05, text=" ".join(["word"] * 40), api_keys=())
    firsts_s: list[float] = []
    whole_s: list[float] = []
    async with running_load(client, world.gateway.url, KINDS, rps=RPS, streams=STREAMS) as load:
        for number in range(generations):
            state.change(dice, number)
            watch.lift(state)
            firsts_s.append(await asyncio.to_thread(publish, world, state, watch, whole_s))
            # Some of it meets this generation, too.
            count = len(load.answers)
            while len(load.answers) < count + 5:
                await asyncio.sleep(0.02)
            if number % 5 == 0 and state.cloud:
                await asyncio.to_thread(rotate, world, number)
    print(
        f"\n{generations} generations, {len(load.answers)} answers, {sum(one.is_stream for one in load.answers)} of them streams;"
        f" seconds to the first step {quantiles(firsts_s)}, to the last {quantiles(whole_s)}"
    )
    assert world.gateway.rejected() == ()
    assert load.failed == [], (len(load.failed), load.failed[:5])
    assert_bans(world, watch, load)


def publish(world: World, state: State, watch: Watch, whole_s: list[float]) -> float:
    """One generation, through all of its steps. Returns after how long its first step was confirmed, seconds."""
    first_s: list[float] = []
    begun = time.monotonic()

    def confirmed(step: Step) -> None:
        if not first_s:
            first_s.append(time.monotonic() - begun)
            watch.impose(state)

    world.gateway.publish(world.table(state.spec()), confirmed)
    whole_s.append(time.monotonic() - begun)
    return first_s[0] if first_s else 0.0


def rotate(world: World, number: int) -> None:
    """One more client's key beside those that are used, and another key for a provider."""
    keys = {**KEYS, "team-c": (f"sk-of-team-c-{number:04}",)}
    world.gateway.let_in(keys, f"v{number}", anonymous=False)
    fresh = f"Bearer key-{number}-of-openai"
    world.gateway.give_key("openai", apiKey=fresh.removeprefix("Bearer "))
    world.gateway.until(
        lambda: any(one.request.header("authorization") == fresh for one in world["openai"].recorded),
        "a provider's new key",
    )


def assert_bans(world: World, watch: Watch, load: Load) -> None:
    """No request that began while it was banned from a backend came there before the ban was lifted. (On a busy machine one may come
    a second after it began, when what it asks for is permitted again.)"""
    begun_s = {answer.id: answer.begun_s for answer in load.answers}
    came = [
        (str(one.request.json["user"]), backend, one.at_s)
        for backend, provider in world.providers.by_name.items()
        for one in provider.recorded
    ]
    wrong = [
        (load.kinds[id_], backend, round(begun_s[id_] - ban.from_s, 4))
        for id_, backend, at_s in came
        for ban in watch.bans
        if ban.kind == load.kinds[id_] and backend in ban.backends and ban.from_s < begun_s[id_] and at_s < ban.until_s
    ]
    assert came
    assert wrong == []
    assert len(watch.bans) > len(KINDS)


def quantiles(values: list[float]) -> str:
    ordered = sorted(values)
    return f"p50 {ordered[len(ordered) // 2]:.3f} max {ordered[-1]:.3f}"


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(State().spec(), tmp_path_factory.mktemp("updates"), KEYS) as world:
        yield world


async def test_sixty_generations_under_load(world: World, client: httpx.AsyncClient) -> None:
    await run(world, client, 60)


@pytest.mark.alone
@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_a_thousand_generations_under_load(world: World, client: httpx.AsyncClient) -> None:
    await run(world, client, 1000)


async def test_a_key_that_is_taken_back_opens_nothing(world: World, client: httpx.AsyncClient) -> None:
    async def status(key: str) -> int:
        return (await ask(client, world.gateway.url, make_body("steady"), key=key)).status

    assert await status(KEY_A) == 200
    world.gateway.let_in({"team-a": ("sk-of-team-a-0002",)}, "2", anonymous=False)
    assert [await status(key) for key in (KEY_A, KEY_B, "sk-of-team-a-0002")] == [401, 401, 200]
