"""Law 8 for gateways, on a cluster whose Envoys run: another build of the operator takes over, and no gateway is replaced."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.operator_world import World, until
from tests.cluster.replicas.conftest import Team
from tests.cluster.upgrade.builds import MARK, NEWER_GATEWAYS, make_build
from tests.cluster.upgrade.pods import read_life
from tests.cluster.upgrade.test_upgrade import READY_S, assert_quiet, lead, make_model

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
ROUTE = "assistants"
GATEWAY = f"{ROUTE}-gateway"


def make_route(namespace: str, **gateway: Any) -> Json:
    return {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "LLMRoute",
        "metadata": {"name": ROUTE, "namespace": namespace},
        "spec": {
            "gateway": {"drainTimeout": "1s", **gateway},
            "backends": [{"name": "local", "deployment": {"name": "a"}}],
            "models": [{"name": "chat", "targets": [{"backend": "local"}]}],
            "authentication": {"anonymous": {}},
        },
    }


def wait_for_route(world: World, reason: str) -> None:
    """Until it is Ready for this reason, and settled."""

    def is_so() -> bool:
        route = world.get(f"llmroute/{ROUTE}") or {}
        status = route.get("status") or {}
        conditions = {one["type"]: (one["status"], one["reason"]) for one in status.get("conditions", [])}
        is_seen = status.get("observedGeneration") == (route.get("metadata") or {}).get("generation")
        settled = is_seen and conditions.get("Reconciling", ("",))[0] == "False"
        return settled and conditions["Ready"] == ("True", reason) and status["gateways"] == "2/2"

    until(is_so, f"the route is {reason} (last: {(world.get(f'llmroute/{ROUTE}') or {}).get('status')})", READY_S)


@contextmanager
def open_connection(crew: Team) -> Iterator[socket.socket]:
    """A client that stays connected to one of the gateways."""
    with socket.create_connection(crew.cluster.service_address(crew.namespace, GATEWAY, 80), timeout=10) as made:
        yield made


def answers(connection: socket.socket) -> bool:
    connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: gateway\r\n\r\n")
    return connection.recv(4096).startswith(b"HTTP/1.1 200")


@pytest.mark.long
def test_a_newer_build_replaces_no_gateway_until_it_is_asked_to(crew: Team, tmp_path: Path) -> None:
    world = World(crew.cluster, crew.namespace)
    newer = make_build(tmp_path / "newer", *NEWER_GATEWAYS)
    older = lead(crew, "one")
    world.apply(make_model(world, "a"), make_route(world.namespace))
    wait_for_route(world, "Serving")
    before = read_life(world, GATEWAY)
    with open_connection(crew) as connection:
        assert answers(connection)
        older.stop()
        second = lead(crew, "two", newer)
        wait_for_route(world, "RevisionAvailable")
        assert_quiet(crew)
        assert read_life(world, GATEWAY) == before, "an upgrade replaced gateways"
        assert MARK not in bootstrap(world)

        # The newer release goes on publishing to them.
        changed = make_route(world.namespace)
        changed["spec"]["models"][0]["name"] = "renamed"
        world.apply(changed)
        wait_for_route(world, "RevisionAvailable")
        assert read_life(world, GATEWAY) == before
        assert answers(connection), "nobody was cut off"

        second.stop()
        lead(crew, "three")
        wait_for_route(world, "Serving")
        assert read_life(world, GATEWAY) == before, "a downgrade replaced gateways"

    changed["spec"]["gateway"]["revision"] = "Latest"
    world.apply(changed)
    wait_for_route(world, "Serving")
    assert read_life(world, GATEWAY).pods == before.pods, "there is nothing newer"


@pytest.mark.long
def test_the_newer_one_is_taken_when_asked_for(crew: Team, tmp_path: Path) -> None:
    world = World(crew.cluster, crew.namespace)
    older = lead(crew, "one")
    world.apply(make_model(world, "a"), make_route(world.namespace))
    wait_for_route(world, "Serving")
    before = read_life(world, GATEWAY)
    older.stop()
    lead(crew, "two", make_build(tmp_path / "newer", *NEWER_GATEWAYS))
    wait_for_route(world, "RevisionAvailable")
    world.apply(make_route(world.namespace, revision="Latest"))
    until(lambda: MARK in bootstrap(world), "the files are the newer ones")
    wait_for_route(world, "Serving")
    taken = read_life(world, GATEWAY)
    assert set(taken.pods).isdisjoint(before.pods)
    assert taken.rollouts == "2", "taken once"
    assert_quiet(crew)


def bootstrap(world: World) -> str:
    found = world.get(f"configmap/{GATEWAY}-bootstrap")
    assert found is not None
    return json.dumps(found["data"])
