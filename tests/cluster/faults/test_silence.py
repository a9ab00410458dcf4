"""An API server that keeps the connection and says nothing, or says it too late.

Only patience helps, so the operator of these tests has a tenth of it: every time-out that it measures silence with is divided by
ten when it starts, and what takes minutes in a cluster takes seconds here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from tests.cluster.faults.operated import CHILDREN, OPERATOR, Json, Operated, start
from tests.cluster.faults.proxy import Delay, FaultProxy, Hold, Match
from tests.cluster.operator_world import QUIET_S, make_cr, until

from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.operators import OPERATOR_NAMESPACE, OPERATOR_SERVICE_ACCOUNT, python_environment

pytestmark = [pytest.mark.cluster, pytest.mark.long]

#: Python reads `sitecustomize` before it runs the operator.
IMPATIENCE = """
import fairlead.kube.client, fairlead.kube.informer, fairlead.runtime.handlers, fairlead.runtime.server
for module, names in {
    fairlead.kube.client: ("REQUEST_TIMEOUT_S", "WATCH_INACTIVITY_S"),
    fairlead.kube.informer: ("BACKOFF_MAX_S",),
    fairlead.runtime.handlers: ("REQUEST_TIMEOUT_S", "INACTIVITY_TIMEOUT_S", "WATCH_SERVER_TIMEOUT_S", "BACKOFF_MAX_S"),
    fairlead.runtime.server: ("STREAM_SILENCE_MAX_S",),
}.items():
    for name in names:
        before = getattr(module, name)
        setattr(module, name, type(before)(before / 10))
"""
REQUEST_TIMEOUT_S = 3.0
WATCHES = Match("watch")
OF_SERVICES = Match("watch", "services")


@pytest.fixture(scope="module")
def proxied(control_plane: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    folder = tmp_path_factory.mktemp("impatient")
    (folder / "sitecustomize.py").write_text(IMPATIENCE)
    plane = control_plane.control_plane
    with FaultProxy(plane.server_url, plane.ca_cert) as proxy:
        token = plane.service_account_token(OPERATOR_NAMESPACE, OPERATOR_SERVICE_ACCOUNT)
        environment = {
            "KUBECONFIG": str(proxy.write_kubeconfig(folder / "kubeconfig", token)),
            "PYTHONPATH": os.pathsep.join([str(folder), python_environment()["PYTHONPATH"]]),
        }
        start(control_plane, proxy, environment)
        yield proxy
        control_plane.stop_operator(OPERATOR)


def disturb(world: Operated) -> None:
    world.kubectl("delete", "llmdeployment", "gone")
    world.kubectl("delete", "service", "m-pods")
    world.patch("service/m", '{"spec": {"selector": {"app": "mine"}}}')
    world.apply(make_cr(world.namespace, "new"))
    until(lambda: "gone" not in world.names("deployments"), "the children of the deleted one are collected", 60)


def assert_nothing_was_missed(world: Operated, undisturbed: Json, mark: object) -> None:
    world.assert_recovered(("m", "new"), like=undisturbed)
    created = world.created(mark)
    assert not [write for write in created if " gone" in write], "nothing is made after the deletion"
    assert max(created.values()) == 1


def test_a_quiet_cluster_without_bookmarks_is_no_fault(world: Operated) -> None:
    """With etcd's defaults a kind of which nothing happens has no bookmarks for ten minutes; each stream is begun again then."""
    world.settled("m")
    with world.faults.filtered(WATCHES, lambda kind, line: [] if kind == "BOOKMARK" else [line]):
        end = time.monotonic() + 25
        while time.monotonic() < end:
            assert (world.read("/healthz"), world.read("/readyz")) == ("ok\n", "ok\n")
            time.sleep(0.5)
    assert world.metric("fairlead_watch_restarts_total", resource="services", cause="timeout") >= 1


def test_streams_that_fall_silent_are_begun_again(world: Operated, undisturbed: Json) -> None:
    world.settled("m")
    world.settled("gone")
    mark = world.mark()
    world.faults.mute_streams(WATCHES)
    disturb(world)
    assert_nothing_was_missed(world, undisturbed, mark)


def test_a_stream_that_cannot_be_begun_again_is_told_by_the_probe(world: Operated) -> None:
    world.settled("m")
    with world.faults.fault(OF_SERVICES, Hold()):
        world.faults.mute_streams(OF_SERVICES)
        until(lambda: "services" in world.read("/readyz"), "the probe says which", 60)
        assert "silent" in world.read("/healthz") or "services: nothing heard" in world.read("/readyz")
    until(lambda: world.read("/readyz") == "ok\n", "and recovers", 60)
    world.assert_recovered()


def test_answers_that_come_after_the_client_gave_up(world: Operated, undisturbed: Json) -> None:
    """The API server did what was asked, and its answers come later than requests are waited for."""
    mark = world.mark()
    of_children = Match("patch", "services deployments networkpolicies", namespace=world.namespace)
    with world.faults.fault(of_children, Delay(REQUEST_TIMEOUT_S + 2), len(CHILDREN)) as fault:
        world.apply(make_cr(world.namespace, "m"))
        until(lambda: len(fault.hits) >= 2, "some are late", 60)
        world.assert_recovered(like=undisturbed)
    assert world.created(mark) == dict.fromkeys(CHILDREN, 1)
    assert world.answers("<error>") >= 2


def test_a_black_hole(world: Operated, undisturbed: Json) -> None:
    """Connections stay, new ones are accepted, nothing ever comes: longer than the Lease, and than silence is excused."""
    world.settled("m")
    world.settled("gone")
    mark = world.mark()
    with world.faults.black_hole():
        until(lambda: not world.queue()["leading"], "without the Lease it does not lead", 60)
        disturb(world)
        time.sleep(QUIET_S)
        assert world.writes(mark) == []
    assert_nothing_was_missed(world, undisturbed, mark)
