"""What a swap of the mounted files may meet: files that are new, broken ones, and none that is better than the one that runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.gateway.asking import ask, make_body
from tests.gateway.chaos import SPEC
from tests.gateway.world import World, backend_entries, make_world

from fairlead.gateway.envoy import render_files
from fairlead.gateway.envoy.clients import AUTHENTICATION_FILE
from fairlead.gateway.envoy.files import version_of
from fairlead.planning.route.publishing import VERSIONED

LOCAL_ONLY = {
    **SPEC,
    "backends": backend_entries("alpha"),
    "models": [{"name": "chat", "targets": [{"backend": "alpha"}]}],
}
WITH_PROVIDER = {
    **SPEC,
    "backends": backend_entries("alpha", "openai"),
    "models": [
        {"name": "chat", "targets": [{"backend": "alpha"}]},
        {"name": "cloud", "targets": [{"backend": "openai", "model": "gpt"}]},
    ],
    "dataPolicy": {"denyClasses": ["Internal", "Confidential"]},
}


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(LOCAL_ONLY, tmp_path_factory.mktemp("swaps")) as world:
        yield world


def test_a_new_file_has_no_link_of_its_own_yet(world: World) -> None:
    """The kubelet swaps first and makes the links of new files then. A provider that is added brings a file of its own (its key)."""
    gateway = world.gateway
    files = render_files(world.table(WITH_PROVIDER), gateway.settings).routing
    before = gateway.loaded()
    gateway.put(
        files,
        between=lambda: gateway.until(
            lambda: gateway.loaded()["cds.json"] != before["cds.json"] or gateway.rejected() != (), "reading"
        ),
    )
    gateway.confirm()
    assert gateway.rejected() == ()


BROKEN = {
    "no JSON": lambda text: text[: len(text) // 2],
    "nothing": lambda text: text[:0],
    "an unknown field": lambda text: _edit(text, lambda resource: resource.update(novelty=1)),
    "an unknown type": lambda text: text.replace("type.googleapis.com/envoy.config", "type.googleapis.com/envoy.novel"),
    "a rule is broken": lambda text: _edit(text, lambda resource: resource.pop("name")),
}


def _edit(text: str, change: Callable[[dict[str, Any]], Any]) -> str:
    file = json.loads(text)
    change(file["resources"][0])
    return json.dumps({**file, "version_info": "broken"})


@pytest.mark.parametrize("name", ["rds-public.json", "rds-egress.json", "cds.json", "limit-requests.json"])
async def test_a_broken_file_replaces_nothing_and_is_seen(world: World, client: httpx.AsyncClient, name: str) -> None:
    """What runs goes on, GET /generation names the file and the version that runs, and a good file mends it."""
    gateway = world.gateway
    good = dict(gateway.live or {})
    assert gateway.rejected() == ()
    for what, spoil in BROKEN.items():
        if (name, what) == ("rds-public.json", "a rule is broken") or (name, what) == (
            "rds-egress.json",
            "a rule is broken",
        ):
            continue  # a route configuration may be without a name; then nobody has asked for it
        count = refusals(world)
        gateway.put({**good, name: spoil(good[name])})
        gateway.until(lambda: refusals(world) > count, f"refusing {what}")  # noqa: B023 - waits inside of the loop
        assert gateway.rejected() == (name,), what
        assert gateway.loaded() == {**gateway.loaded(), **{file: version_of(good[file]) for file in VERSIONED}}
        answer = await ask(client, gateway.url, make_body("chat"))
        assert answer.is_success, (what, answer)
    gateway.put(good)  # as the planner does it: what nobody of ours wrote counts as nothing (`read_routing`)
    gateway.publish(world.table(WITH_PROVIDER))
    answer = await ask(client, gateway.url, make_body("cloud"), data_class="Public")
    assert answer.is_success, answer
    assert answer.backend == "openai"


async def test_broken_keys_replace_no_good_ones(world: World, client: httpx.AsyncClient) -> None:
    gateway = world.gateway
    text = (Path(gateway.settings.clients_directory) / "..data" / AUTHENTICATION_FILE).read_text()
    gateway.mount(gateway.settings.clients_directory).write({AUTHENTICATION_FILE: text[:-20]})
    gateway.until(lambda: gateway.rejected() == (AUTHENTICATION_FILE,), "refusing")
    assert (await ask(client, gateway.url, make_body("chat"))).is_success


def refusals(world: World) -> int:
    """How often anything was refused so far."""
    return sum(
        int(entry["value"])
        for entry in world.gateway.generation()["stats"]
        if str(entry.get("name")).endswith((".update_rejected", ".update_failure"))
    )
