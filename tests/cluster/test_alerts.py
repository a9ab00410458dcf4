"""Alerts at an operator that is a process, on the real API server: kept before they are accepted, and by whoever leads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.canaries import plant
from tests.cluster.operator_world import QUIET_S, Json, World, make_cr, until
from tests.unit.sources.deliveries import START, make_alert, make_body

from fairlead.runtime.alerts import PATH
from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.ports import free_ports

pytestmark = pytest.mark.cluster

TOKEN, WRONG_TOKEN = plant("alerts-"), plant("alerts-")
AUTOSCALING = {"maxReplicas": 4, "targets": {"timeToFirstToken": "400ms"}}


class Desk:
    """Operators that take alerts, and who sends them some."""

    def __init__(self, cluster: LocalCluster, folder: Path) -> None:
        self.cluster = cluster
        self.token_file = folder / "token"
        self.token_file.write_text(TOKEN)
        self._ports: dict[str, int] = {}

    def start(self, name: str = "operator") -> None:
        (self._ports[name],) = free_ports(1)
        flags = [
            f"--alerts-token-file={self.token_file}",
            "--alerts-address=127.0.0.1",
            f"--alerts-port={self._ports[name]}",
        ]
        self.cluster.start_operator(["--log-level=debug", *flags], name=name)
        self.cluster.wait_for_operator(name)

    def url(self, name: str = "operator") -> str:
        return f"http://127.0.0.1:{self._ports[name]}{PATH}"

    def deliver(self, body: bytes, name: str = "operator", token: str = TOKEN) -> tuple[int, Any]:
        answer = httpx.post(
            self.url(name), content=body, headers={"Authorization": f"Bearer {token}"}, trust_env=False, timeout=20
        )
        return answer.status_code, answer.json()


@pytest.fixture
def desk(control_plane: LocalCluster, tmp_path: Path) -> Iterator[Desk]:
    yield Desk(control_plane, tmp_path)
    for name in ("operator", "one", "two"):
        control_plane.stop_operator(name)


@pytest.fixture
def world(desk: Desk, namespace: str) -> World:
    return World(desk.cluster, namespace)


def about(world: World, status: str = "firing", **fields: Any) -> bytes:
    return make_body(make_alert(status, labels={"llm_namespace": world.namespace}, **fields))


def told(world: World) -> list[Json]:
    return list(world.status("m").get("scaling", {}).get("alerts", []))


def apply(world: World) -> None:
    """A model that is scaled here, at rest."""
    world.apply(make_cr(world.namespace, "m", autoscaling=AUTOSCALING))
    world.wait_observed("m")
    time.sleep(QUIET_S)


def test_an_alert_costs_one_write_and_its_repeats_none(desk: Desk, world: World) -> None:
    desk.start()
    apply(world)
    mark = world.mark()
    began = time.monotonic()
    assert desk.deliver(about(world)) == (200, {"firing": 1})
    assert time.monotonic() - began < 1.0
    [alert] = told(world)
    assert (alert["name"], alert["startsAt"]) == ("LLMDeploymentHighLatency", START)
    for _ in range(5):
        assert desk.deliver(about(world)) == (200, {"repeated": 1})
    assert desk.deliver(about(world), token=WRONG_TOKEN)[0] == 401
    time.sleep(QUIET_S)
    assert world.writes(mark) == ["patch llmdeployments/status m: 200"]
    assert desk.deliver(about(world, "resolved")) == (200, {"resolved": 1})
    assert told(world) == []
    assert world.writes(mark) == ["patch llmdeployments/status m: 200"] * 2


def test_what_was_accepted_outlives_a_kill(desk: Desk, world: World) -> None:
    desk.start()
    apply(world)
    assert desk.deliver(about(world))[0] == 200
    desk.cluster.stop_operator(kill=True)
    before = told(world)
    assert [alert["startsAt"] for alert in before] == [START]
    mark = world.mark()
    desk.start()
    until(lambda: desk.deliver(about(world))[0] == 200, "it leads again", 40)
    assert desk.deliver(about(world)) == (200, {"repeated": 1})
    time.sleep(QUIET_S)
    assert told(world) == before
    assert world.writes(mark) == []


def test_only_the_replica_that_leads_accepts(desk: Desk, world: World) -> None:
    desk.start("one")
    apply(world)
    desk.start("two")
    status, answer = desk.deliver(about(world), "two")
    assert (status, answer) == (503, {"error": "this replica does not lead"})
    assert told(world) == []
    assert desk.deliver(about(world), "one") == (200, {"firing": 1})
    desk.cluster.stop_operator("one")
    until(lambda: desk.deliver(about(world), "two")[0] == 200, "two leads")
    assert desk.deliver(about(world), "two") == (200, {"repeated": 1})
    assert len(told(world)) == 1
