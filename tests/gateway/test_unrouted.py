"""A gateway beside an engine, before its route is there, as its files come, and when they are taken away."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from tests.gateway.asking import make_body
from tests.gateway.test_swaps import LOCAL_ONLY
from tests.gateway.world import World, make_world

from fairlead.gateway.envoy.clients import AUTHENTICATION_FILE, render_authentication
from fairlead.gateway.envoy.loaded import AUTHENTICATION
from fairlead.gateway.envoy.unrouted import render_unrouted_authentication, render_unrouted_routing

UNROUTED = {"unrouted"}


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(LOCAL_ONLY, tmp_path_factory.mktemp("unrouted")) as world:
        yield world


def status_of(world: World, **headers: str) -> int:
    answer = httpx.post(f"{world.gateway.url}/v1/chat/completions", json=make_body("chat"), headers=headers, timeout=10)
    if answer.status_code != 200:
        assert answer.json()["error"]["message"]
    return answer.status_code


def let_in(world: World, text: str, version: str) -> None:
    gateway = world.gateway
    gateway.mount(gateway.settings.clients_directory).write({AUTHENTICATION_FILE: text})
    gateway.until(lambda: gateway.loaded().get(AUTHENTICATION) == version, "loading who is let in")


def test_until_its_route_is_there_it_answers_503_and_asks_nobody(world: World) -> None:
    gateway = world.gateway
    routed = dict(gateway.live or {})
    gateway.put(render_unrouted_routing())
    gateway.mount(gateway.settings.clients_directory).write({AUTHENTICATION_FILE: render_unrouted_authentication()})
    gateway.start_again()
    assert gateway.loaded()[AUTHENTICATION] == "unrouted"
    assert (status_of(world), status_of(world, authorization="Bearer anything")) == (503, 503)
    assert httpx.get(f"{gateway.url}/v1/models", timeout=5).status_code == 503

    # The volumes are projected one after the other, in any order: each of them is closed by itself.
    gateway.put(routed)
    gateway.confirm()
    assert status_of(world) == 503
    assert world.seen() == {}
    let_in(world, render_authentication(None, "1", anonymous=True), "1")
    assert status_of(world) == 200
    gateway.put(render_unrouted_routing())
    gateway.confirm()
    assert status_of(world) == 503
    gateway.put(routed)
    gateway.confirm()
    assert status_of(world) == 200
    let_in(world, render_unrouted_authentication(), "unrouted")
    assert status_of(world) == 503
    assert gateway.rejected() == ()
    assert len(world.seen()["alpha"]) == 2
