"""What `fairlead explain` says is what happens: for generated routes and requests, compared with what each backend received.

Every backend answers 429, which is tried elsewhere and ejects nobody, so that each request goes all of its way; or all are well, and
it ends with the first.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

import httpx
import pytest
from tests.gateway.asking import Answer, ask, make_body
from tests.gateway.world import BACKENDS, World, backend_entries, make_world, rendered_of

from fairlead.api.route import DataClass
from fairlead.rendering.explain import Explanation, Question, Reason, explain
from fairlead.rendering.routes import RenderedRoute
from fairlead_cluster.providers import Fault, Kind

Json = dict[str, Any]
CLASSES = ("Public", "Internal", "Confidential", "Restricted")
CONSUMERS = ("one", "two", "three", "stranger")
KEYS = {consumer: (f"sk-key-of-{consumer}",) for consumer in CONSUMERS}
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/rerank", "/v1/messages")
#: What detectors look for, by class.
WORDS = {data_class: f"word {data_class.lower()}" for data_class in CLASSES}
AT_ONCE = 8
Way = list[tuple[str, str]]


def make_route(dice: Random) -> Json:
    """A route that is accepted: up to three models over the world's backends, three roles, detectors for each class."""
    names = sorted(BACKENDS)

    def make_model(name: str) -> Json:
        targets = [
            {
                "backend": backend,
                "model": f"{backend}-{dice.choice('xyz')}",
                "weight": dice.choice([1, 10, 90]),
                "priority": dice.choice([0, 0, 1, 2]),
            }
            for backend in dice.sample(names, dice.randint(1, 6))
        ]
        if len(targets) > 1:
            targets[0]["weight"] = 0
        return {"name": name, "targets": targets}

    roles = [
        {
            "name": f"role-{consumer}",
            "consumers": dice.sample(CONSUMERS[:3], dice.randint(1, 3)),
            "llmAccess": dice.choice([["Local"], ["Cloud"], ["Local", "Cloud"], ["Local", "Cloud"]]),
            "dataAccess": dice.sample(CLASSES, dice.choice([1, 3, 4, 4])),
            "mayDeclare": dice.sample(CLASSES, dice.randint(0, 3)),
            **({"floor": dice.choice(CLASSES)} if dice.random() < 0.25 else {}),
        }
        for consumer in CONSUMERS[:3]
    ]
    return {
        "backends": backend_entries(),
        "models": [make_model(f"m{number}") for number in range(dice.randint(1, 3))],
        "authentication": {"apiKeys": {"secretRef": {"name": "clients"}}},
        "roles": roles,
        "dataPolicy": {
            "default": dice.choice([*CLASSES[:2], *CLASSES[:3]]),
            "denyClasses": list(CLASSES),
            **({"floor": dice.choice(CLASSES)} if dice.random() < 0.15 else {}),
            "detectors": [
                {"name": f"d-{name.lower()}", "class": name, **_look_for(dice, word)} for name, word in WORDS.items()
            ],
        },
    }


def _look_for(dice: Random, word: str) -> Json:
    return dice.choice([{"keywords": [word]}, {"patterns": [rf"(?i)\b{word}\b", "not [a-z]+ there"]}])


class Asked(NamedTuple):
    """What is said of a request, and what came of it."""

    said: Explanation
    answer: Answer


def make_question(dice: Random, route: Json) -> tuple[Question, Json]:
    """A question, and its body before it is bytes."""
    models = [model["name"] for model in route["models"]]
    word = dice.choice([*WORDS.values(), "nothing", "nothing"])
    body = make_body(dice.choice([*models] * 4 + ["unheard-of"]), text=f"this is {word} for you")
    body |= {"prompt": "x", "input": "y", "query": "q", "documents": ["d"], "max_tokens": 8}
    declared = dice.choice([None, None, *CLASSES])
    question = Question(
        model=body["model"],
        consumer=dice.choice(CONSUMERS[:3] if dice.random() < 0.9 else CONSUMERS),
        declared=DataClass(declared) if declared else None,
        path=PATHS[0] if dice.random() < 0.6 else dice.choice(PATHS),
        body=httpx.Request("POST", "http://gateway", json=body).content,
    )
    return question, body


def seen_ways(world: World) -> Mapping[str, Way]:
    """Request -> who received it as which model, in the order of time."""
    times: dict[str, list[tuple[float, str, str]]] = defaultdict(list)
    for name, one in world.providers.by_name.items():
        for recorded in one.recorded:
            body = recorded.request.json
            times[body["user"]].append((recorded.at_s, name, body["model"]))
    return {id_: [(name, model) for _, name, model in sorted(all_)] for id_, all_ in times.items()}


def permitted_ways(said: Explanation) -> Iterator[Way]:
    """All that the explanation allows, with every share of every stage that is ever drawn."""
    shares = [[share.tried for share in stage if share.weight > 0] for stage in said.stages]
    for way in itertools.product(*shares):
        yield [(one.backend, one.model) for one in itertools.chain.from_iterable(way)]


def judge(asked: Sequence[Asked], ways: Mapping[str, Way], *, failing: bool) -> None:
    for said, answer in asked:
        way = ways.get(answer.id, [])
        if said.status is not None:
            code = json.loads(answer.text)["error"]["code"]
            assert (answer.status, code, way) == (said.status, said.code, []), (said, way)
            continue
        assert answer.data_class == said.data_class, said
        # The answer is that of the last attempt, which may be one that says that it does not serve the endpoint.
        has_none = failing and any(no.reason is Reason.NO_ENDPOINT for no in said.not_tried)
        assert answer.status in ({429, 404} if has_none else {429} if failing else {200}), (said, way)
        permitted = list(permitted_ways(said))
        if failing:
            assert way in permitted, (way, permitted)
            assert set(said.order) == {name for name, _ in way}
        else:
            assert way in [some[:1] for some in permitted], (way, permitted)


async def ask_all(
    client: httpx.AsyncClient, world: World, rendered: RenderedRoute, questions: Sequence[tuple[Question, Json]]
) -> list[Asked]:
    places = asyncio.Semaphore(AT_ONCE)

    async def put(question: Question, body: Json) -> Asked:
        declared = question.declared.value if question.declared else ""
        (key,) = KEYS[question.consumer or ""]
        async with places:
            url = world.gateway.url
            answer = await ask(client, url, body, data_class=declared, key=key, path=question.path)
        return Asked(explain(rendered, question), answer)

    return await asyncio.gather(*(put(*one) for one in questions))


async def compare(client: httpx.AsyncClient, world: World, dice: Random, routes: int, requests: int) -> Counter[str]:
    ends: Counter[str] = Counter()
    for number in range(routes):
        spec = make_route(dice)
        world.reset()
        world.gateway.publish(world.table(spec))
        rendered = rendered_of(spec, world.providers, frozenset(CONSUMERS))
        failing = number % 3 != 0
        if failing:
            for one in world.providers.by_name.values():
                one.fail(Fault(Kind.STATUS, code=429))
        questions = [make_question(dice, spec) for _ in range(requests)]
        asked = await ask_all(client, world, rendered, questions)
        judge(asked, seen_ways(world), failing=failing)
        ends.update(str(said.status or ("all of its way" if failing else "answered")) for said, _ in asked)
    print(f"{sum(ends.values())} requests to {routes} routes as explained: {dict(ends)}")
    return ends


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(make_route(Random(1)), tmp_path_factory.mktemp("explain"), KEYS) as world:
        yield world


async def test_explain_is_what_happens(world: World, client: httpx.AsyncClient) -> None:
    ends = await compare(client, world, Random(20261128), 6, 60)
    assert {"all of its way", "answered", "403", "404"} <= set(ends)


@pytest.mark.long
async def test_explain_is_what_happens_ten_thousand_times(world: World, client: httpx.AsyncClient) -> None:
    seed = int(os.environ.get("FAIRLEAD_TEST_SEED", Random().randrange(2**32)))
    print(f"seed {seed}")
    await compare(client, world, Random(seed), 100, 100)
