"""What providers may keep and run by themselves, at a real Envoy: what they are sent says it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.gateway.world import World, backend_entries, make_world

from fairlead.planning.route.publishing import Step

Json = dict[str, Any]
PUBLIC = {"x-data-classification": "Public"}
MESSAGES = [{"role": "user", "content": "hello"}]
SEARCH: Json = {"messages": MESSAGES, "tools": [{"type": "web_search"}]}
GO_ON: Json = {"input": "and then?", "previous_response_id": "resp_1"}


def make_spec(**policy: Any) -> Json:
    return {
        "gateway": {"replicas": 1},
        "backends": backend_entries("alpha", "openai", "groq"),
        "models": [
            {"name": "chat", "targets": [{"backend": "openai", "model": "big"}]},
            {"name": "other", "targets": [{"backend": "groq", "model": "g"}]},
            {"name": "inside", "targets": [{"backend": "alpha"}]},
        ],
        "authentication": {"anonymous": {"role": "all"}},
        "roles": [
            {
                "name": "all",
                "llmAccess": ["Local", "Cloud"],
                "dataAccess": ["Public", "Internal"],
                "mayDeclare": ["Public"],
            }
        ],
        "dataPolicy": {"default": "Internal", "denyClasses": ["Internal"], **policy},
    }


@pytest.fixture(scope="module")
def kept_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(make_spec(), tmp_path_factory.mktemp("state")) as world:
        yield world


@pytest.fixture
def world(kept_world: World) -> World:
    kept_world.reset()
    kept_world.gateway.publish(kept_world.table(make_spec()))
    return kept_world


def post(world: World, path: str, body: Json, model: str = "chat") -> httpx.Response:
    url = f"{world.gateway.url}/v1/{path}"
    return httpx.post(url, json={"model": model, **body}, headers=PUBLIC, timeout=30)


def sent(world: World, name: str = "openai") -> list[Json]:
    """Bodies that a backend got."""
    return [dict(one.request.json or {}) for one in world[name].recorded]


def test_providers_are_told_to_keep_nothing(world: World) -> None:
    assert post(world, "responses", {"input": "hello"}).status_code == 200
    assert post(world, "responses", {"input": "hello", "store": True}).status_code == 200
    assert post(world, "chat/completions", {"messages": MESSAGES, "store": True}).status_code == 200
    assert post(world, "chat/completions", {"messages": MESSAGES}).status_code == 200
    assert post(world, "embeddings", {"input": "hello"}).status_code == 200
    assert [body.get("store", "unsaid") for body in sent(world)] == [False, False, False, False, "unsaid"]
    assert {body["model"] for body in sent(world)} == {"big"}


def test_one_of_which_it_is_not_known_that_it_keeps_chats_is_not_told_unasked(world: World) -> None:
    assert post(world, "chat/completions", {"messages": MESSAGES}, "other").status_code == 200
    assert post(world, "chat/completions", {"messages": MESSAGES, "store": True}, "other").status_code == 200
    assert [body.get("store", "unsaid") for body in sent(world, "groq")] == ["unsaid", False]


def test_inside_of_the_cluster_nothing_is_changed(world: World) -> None:
    assert post(world, "responses", {"input": "hello", "store": True}, "inside").status_code == 200
    assert [body["store"] for body in sent(world, "alpha")] == [True]


@pytest.mark.parametrize(
    ("path", "body", "code"), [("responses", GO_ON, "state_at_provider"), ("chat/completions", SEARCH, "hosted_tool")]
)
def test_what_the_route_does_not_list_reaches_nobody(world: World, path: str, body: Json, code: str) -> None:
    answer = post(world, path, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert sent(world) == []


def test_what_it_lists_is_let_through_as_it_is(world: World) -> None:
    world.gateway.publish(world.table(make_spec(allowStore=True, hostedTools=["web_search"])))
    assert post(world, "responses", {**GO_ON, "store": True}).status_code == 200
    assert post(world, "responses", {"input": "hello"}).status_code == 200
    assert post(world, "chat/completions", SEARCH).status_code == 200
    assert post(world, "chat/completions", {"messages": MESSAGES, "tools": [{"type": "mcp"}]}).status_code == 400
    assert sent(world) == [
        {**GO_ON, "store": True, "model": "big"},
        {"input": "hello", "model": "big"},
        {**SEARCH, "model": "big"},
    ]


def test_taking_it_back_holds_with_the_first_step(world: World) -> None:
    wide = make_spec(allowStore=True, hostedTools=["web_search", "mcp"])
    world.gateway.publish(world.table(wide))
    narrow = make_spec(hostedTools=["mcp"])
    narrow["models"].append({"name": "more", "targets": [{"backend": "alpha"}]})
    narrow["models"][0]["targets"][0]["model"] = "bigger"
    seen: list[list[int]] = []

    def on_step(step: Step) -> None:
        bodies = (("responses", GO_ON), ("chat/completions", SEARCH), ("responses", {"input": "hello", "store": True}))
        seen.append([post(world, path, body).status_code for path, body in bodies])

    world.gateway.publish(world.table(narrow), on_step)
    assert len(seen) > 1, "there was a step before the last"
    assert all(statuses[:2] == [400, 400] for statuses in seen), seen
    assert {body.get("store") for body in sent(world)} <= {False}
