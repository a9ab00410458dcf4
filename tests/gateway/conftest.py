"""One gateway for all chaos."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from tests.gateway.chaos import SPEC
from tests.gateway.world import World, make_world


@pytest.fixture(scope="session")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """With the route of the chaos matrix."""
    with make_world(dict(SPEC), tmp_path_factory.mktemp("chaos")) as world:
        yield world


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    """The same; everybody is well before and after."""
    shared_world.reset()
    yield shared_world
    shared_world.reset()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """With as many connections as are asked for."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits) as client:
        yield client
