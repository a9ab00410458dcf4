"""The wall clock jumps under a working operator: what it does hangs on the monotonic clock alone, and times never run backwards."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.cluster.faults.operated import OPERATOR, Json, Operated, start
from tests.cluster.faults.proxy import FaultProxy
from tests.cluster.operator_world import make_cr, until

from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.operators import OPERATOR_NAMESPACE, OPERATOR_SERVICE_ACCOUNT

pytestmark = [pytest.mark.cluster, pytest.mark.long]

SOURCE = Path(__file__).with_name("clock.c")
Move = Callable[[int], None]


@pytest.fixture
def move(tmp_path: Path) -> Move:
    """Sets the operator's wall clock off by so many seconds."""
    path = tmp_path / "clock"
    path.write_text("0")

    def to(seconds: int) -> None:
        temporary = path.with_suffix(".new")
        temporary.write_text(str(seconds))
        temporary.replace(path)

    return to


@pytest.fixture
def world(control_plane: LocalCluster, namespace: str, tmp_path: Path, move: Move) -> Iterator[Operated]:
    """Over plain HTTP, since a certificate has times of its own."""
    library = tmp_path / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    plane = control_plane.control_plane
    with FaultProxy(plane.server_url, plane.ca_cert) as proxy:
        token = plane.service_account_token(OPERATOR_NAMESPACE, OPERATOR_SERVICE_ACCOUNT)
        kubeconfig = proxy.write_kubeconfig(tmp_path / "kubeconfig", token)
        environment = {
            "KUBECONFIG": str(kubeconfig),
            "LD_PRELOAD": str(library),
            "FAIRLEAD_TEST_CLOCK": str(tmp_path / "clock"),
        }
        start(control_plane, proxy, environment)
        yield Operated(control_plane, namespace, proxy)
        control_plane.check()
        control_plane.stop_operator(OPERATOR)


def lease(world: Operated) -> Json:
    spec: Json = world.cluster.kubectl.json("get", "lease", "fairlead", f"--namespace={OPERATOR_NAMESPACE}")["spec"]
    return spec


def transitions(world: Operated) -> dict[str, str]:
    return {c["type"]: c["lastTransitionTime"] for c in world.status("m")["conditions"]}


def test_a_clock_that_jumps_by_hours(world: Operated, move: Move) -> None:
    """Forwards, from there far backwards, and home again."""
    world.settled("m")
    before, times = lease(world), transitions(world)
    for hours in (5, -5, 0):
        jump(world, move, hours, times)
    assert lease(world)["leaseTransitions"] == before["leaseTransitions"]
    mark = world.mark()
    move(5 * 3600)
    world.patch("llmdeployment/m", '{"spec": {"context": {"maxLength": 4096}}}')
    world.kubectl("delete", "service", "m-pods")
    world.apply(make_cr(world.namespace, "n"))
    world.assert_recovered(("m", "n"))
    assert max(world.created(mark).values()) == 1


def jump(world: Operated, move: Move, hours: int, times: dict[str, str]) -> None:
    mark = world.mark()
    move(hours * 3600)
    expected = datetime.now(UTC) + timedelta(hours=hours)
    until(
        lambda: abs(datetime.fromisoformat(lease(world)["renewTime"]) - expected) < timedelta(minutes=5),
        "the operator's clock jumped and it renews its Lease",
    )
    time.sleep(3)
    assert world.queue()["leading"], "no leadership is lost by it"
    assert world.writes(mark) == [], "and nothing is written because of it"
    assert transitions(world) == times, "what did not move keeps its time"
    assert world.read("/healthz") == "ok\n"
