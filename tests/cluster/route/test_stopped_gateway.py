"""A gateway that neither answers nor reads any more, while what the route permits is narrowed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.operator_world import until
from tests.cluster.route.world import AT_ONCE_S, ROUTE, RouteWorld, make_route

from fairlead_cluster.endpoints import endpoints

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
LEAVES_WITHIN_S = 30.0
PUBLIC = {"x-data-classification": "Public"}


def test_a_stopped_gateway_leaves_the_service_and_comes_back_narrowed(world: RouteWorld) -> None:
    """Law 5, where it cannot be carried out: who does not take part in narrowing serves nobody."""
    world.apply_all()
    world.wait_backends()
    stopped, other = world.gateways()
    assert ready_addresses(world) == {address_of(stopped), address_of(other)}
    narrowed = make_route(world.namespace, world.provider)
    narrowed["spec"]["models"] = [{"name": "chat", "targets": [{"backend": "local"}]}]
    with stopped_envoy(stopped):
        since = time.monotonic()
        world.apply(narrowed)
        until(lambda: ready_addresses(world) == {address_of(other)}, "it leaves the Service", LEAVES_WITHIN_S)
        print(f"left the Service after {time.monotonic() - since:.1f} s")
        until(lambda: world.ask(model="public", headers=PUBLIC).status == 404, "the other one is narrowed", AT_ONCE_S)
        until(lambda: world.route()["status"]["gateways"] == "1/2", "status tells")
        assert world.route_condition("Programmed")["status"] == "True", "who is no longer ready holds nobody back"
        assert "1 of 2" in world.route_condition("Reconciling")["message"]
        world.provider.clear()
    until(lambda: ready_addresses(world) == {address_of(stopped), address_of(other)}, "it is back", 60)
    world.wait_ready()
    for _ in range(20):
        assert world.ask(model="public", headers=PUBLIC).status == 404
        assert world.ask(model="chat", headers=PUBLIC).headers["x-fairlead-backend"] == "local"
    assert world.provider.recorded == []


def address_of(pod: Json) -> str:
    return str(pod["status"]["podIP"])


def ready_addresses(world: RouteWorld) -> set[str]:
    """To whom the gateway's Service sends, as the cluster's data plane reckons it."""
    service = world.get(f"service/{ROUTE}-gateway")
    assert service is not None
    return {found.ip for found in endpoints(service, service["spec"]["ports"][0], world.gateways())}


@contextmanager
def stopped_envoy(pod: Json) -> Iterator[None]:
    """As a node that hangs: everything of this pod stands still until the block ends."""
    place = f"/pods/{pod['metadata']['uid'][:8]}/"
    pids = [pid for pid in processes() if place in command_of(pid)]
    assert pids, "the pod's Envoy runs here"
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""
