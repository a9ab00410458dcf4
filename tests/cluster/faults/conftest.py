"""One proxied operator for the tests of a module, and a control plane that they may hurt."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.cluster.faults.operated import OPERATOR, Json, Operated, start
from tests.cluster.faults.proxy import FaultProxy

from fairlead_cluster.build import Binaries
from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.operators import OPERATOR_NAMESPACE, OPERATOR_SERVICE_ACCOUNT


@pytest.fixture(scope="module")
def proxied(control_plane: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    """The proxy before the shared API server, with an operator behind it."""
    plane = control_plane.control_plane
    with FaultProxy(plane.server_url, plane.ca_cert) as proxy:
        token = plane.service_account_token(OPERATOR_NAMESPACE, OPERATOR_SERVICE_ACCOUNT)
        kubeconfig = proxy.write_kubeconfig(tmp_path_factory.mktemp("proxied") / "kubeconfig", token)
        start(control_plane, proxy, {"KUBECONFIG": str(kubeconfig)})
        yield proxy
        control_plane.stop_operator(OPERATOR)


@pytest.fixture
def world(control_plane: LocalCluster, proxied: FaultProxy, namespace: str) -> Iterator[Operated]:
    """A namespace of that operator, which must be the same process after the test."""
    world = Operated(control_plane, namespace, proxied)
    control_plane.check()
    yield world
    control_plane.check()


@pytest.fixture(scope="module")
def undisturbed(control_plane: LocalCluster, proxied: FaultProxy) -> Json:
    """What becomes of an LLMDeployment named `m` without any fault."""
    with control_plane.namespace() as name:
        world = Operated(control_plane, name, proxied)
        world.settled()
        return world.shape()


@pytest.fixture(scope="module")
def fragile(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A control plane of these tests' own, to stop, restart and change."""
    with LocalCluster(tmp_path_factory.mktemp("fragile"), nodes=(), binaries=binaries) as running:
        yield running


@pytest.fixture(scope="module")
def operated(fragile: LocalCluster) -> Iterator[LocalCluster]:
    """That control plane with an operator, and no proxy between them."""
    start(fragile, None)
    yield fragile
    fragile.stop_operator(OPERATOR)


@pytest.fixture
def fragile_world(operated: LocalCluster) -> Iterator[Operated]:
    """A namespace of it. Operator and control plane must be there after the test."""
    with operated.namespace() as namespace:
        yield Operated(operated, namespace)
        operated.check()
