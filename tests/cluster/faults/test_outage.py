"""The API server and its database are stopped, killed and started under a working operator; the control plane is these tests' own."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from tests.cluster.faults.operated import OPERATOR, Json, Operated
from tests.cluster.operator_world import make_cr, until

from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.errors import CommandFailedError

pytestmark = [pytest.mark.cluster, pytest.mark.long]

API_SERVER, ETCD = "kube-apiserver", "etcd"


@pytest.fixture
def world(fragile_world: Operated) -> Operated:
    return fragile_world


@pytest.fixture(scope="module")
def undisturbed(operated: LocalCluster) -> Json:
    with operated.namespace() as namespace:
        world = Operated(operated, namespace)
        world.settled()
        return world.shape()


def interrupt(world: Operated, components: Sequence[str], down_s: float, *, kill: bool) -> None:
    """Stop the components in this order, and start them in the opposite one."""
    plane = world.cluster.control_plane
    for name in components:
        process = plane.process(name)
        process.kill() if kill else process.stop()
    time.sleep(down_s)
    for name in reversed(components):
        plane.start_again(name)
    plane.wait_until_ready()
    # The other controllers need up to a minute to find their way back; what we ask of them is not what is tested here.
    until(lambda: can_use_namespaces(world.cluster), "the controllers are back", 180)


def can_use_namespaces(cluster: LocalCluster) -> bool:
    """Whether a new namespace becomes usable."""
    try:
        with cluster.namespace():
            return True
    except CommandFailedError:
        return False


OUTAGES = [
    pytest.param([API_SERVER], 0.0, False, id="API server restarted"),
    pytest.param([ETCD], 20.0, False, id="etcd down for longer than the Lease"),
    pytest.param([API_SERVER, ETCD], 5.0, True, id="both crashed"),
]


@pytest.mark.parametrize(("components", "down_s", "kill"), OUTAGES)
def test_an_outage_under_load(
    world: Operated, undisturbed: Json, components: Sequence[str], down_s: float, kill: bool
) -> None:
    """It begins in the middle of creating, editing and deleting; afterwards all is as if it had not been."""
    world.settled("m")
    world.settled("gone")
    names = [f"n{number}" for number in range(20)]
    mark = world.mark()
    world.apply(*(make_cr(world.namespace, name) for name in names))
    world.kubectl("delete", "llmdeployment", "gone", "--wait=false")
    world.patch("service/m", '{"spec": {"selector": {"app": "mine"}}}')
    world.kubectl("delete", "service", "m-pods", "--wait=false")
    until(lambda: len(world.writes(mark)) >= 5, "it works")
    interrupt(world, components, down_s, kill=kill)
    world.assert_recovered(("m", *names), like=undisturbed, within_s=120)
    until(lambda: world.names("services") == sorted(world.wished(("m", *names))), "all Services and no other", 90)
    created = world.created(mark)
    assert not [write for write in created if " gone" in write], "nothing is made after the deletion"
    assert max(created.values()) == 1
    assert world.metric("leader_election_master_status") == 1
    assert world.answers("<error>") + world.answers("500") + world.answers("503") > 0, "/metrics tells of it"


def test_an_operator_that_starts_during_an_outage_waits_for_its_end(world: Operated) -> None:
    world.cluster.stop_operator(OPERATOR)
    plane = world.cluster.control_plane
    plane.process(API_SERVER).stop()
    try:
        process = world.cluster.start_operator(["--log-level=debug"], name=OPERATOR)
        time.sleep(12)
        assert process.is_running()
    finally:
        plane.start_again(API_SERVER)
        plane.wait_until_ready()
    world.cluster.wait_for_operator(OPERATOR)
    world.settled("m")
