"""A gateway that answers and never takes a changed routing, as on a node whose kubelet hangs, while what the route permits is narrowed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.operator_world import until
from tests.cluster.route.test_stopped_gateway import address_of, command_of, processes, ready_addresses
from tests.cluster.route.world import RouteWorld, make_route

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
LEAVES_WITHIN_S = 45.0  # half a minute, and the time of the pass that sees it
PUBLIC = {"x-data-classification": "Public"}


def test_a_deaf_gateway_is_replaced_when_something_is_withdrawn(world: RouteWorld) -> None:
    """Law 5: readiness cannot see it, since it answers; it would send to the provider for ever."""
    world.apply_all()
    world.wait_backends()
    deaf, other = world.gateways()
    with deaf_kubelet(deaf):
        narrowed = make_route(world.namespace, world.provider)
        narrowed["spec"]["models"] = [{"name": "chat", "targets": [{"backend": "local"}]}]
        since = time.monotonic()
        world.apply(narrowed)
        until(lambda: address_of(deaf) not in ready_addresses(world), "it leaves the Service", LEAVES_WITHIN_S)
        print(f"left the Service after {time.monotonic() - since:.1f} s")
    assert other["metadata"]["uid"] in uids(world), "who follows stays"
    world.wait_ready()
    until(lambda: world.route()["status"]["gateways"] == "2/2", "another one has its place", 60)
    world.provider.clear()
    for _ in range(20):
        assert world.ask(model="public", headers=PUBLIC).status == 404
    assert world.provider.recorded == []
    events = json.loads(world.kubectl("get", "events.events.k8s.io", "-o", "json"))["items"]
    told = [event["note"] for event in events if event["reason"] == "GatewayRemoved"]
    assert len(told) == 1, told
    assert deaf["metadata"]["name"] in told[0]


def uids(world: RouteWorld) -> set[str]:
    return {str(pod["metadata"]["uid"]) for pod in world.gateways()}


@contextmanager
def deaf_kubelet(pod: Json) -> Iterator[None]:
    """Its volumes cannot be swapped any more: something is in the way of the new link. The processes know nothing of it."""
    (place, *_) = (
        Path(word.split("/pods/")[0]) / "pods" / word.split("/pods/")[1].split("/")[0]
        for pid in processes()
        for word in command_of(pid).split("\0")
        if f"/pods/{pod['metadata']['uid'][:8]}" in word
    )
    links = [link for link in place.rglob("..data") if link.is_symlink()]
    assert links, f"volumes below {place}"
    for link in links:
        (link.parent / "..data_tmp" / "in the way").mkdir(parents=True)
    yield
