"""A control plane of its own with the node stand-in alone.

The back-offs are short, so that what a kubelet does within minutes is seen within seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.cluster.node.pods import QUICK, NodeProcess, Pods, start_nodes

from fairlead_cluster.api import NAMESPACES, SERVICE_ACCOUNTS, Api
from fairlead_cluster.build import Binaries
from fairlead_cluster.cluster import LocalCluster


@pytest.fixture(scope="session")
def node_control_plane(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """API server, controllers and scheduler; nodes are the tests' own."""
    directory = tmp_path_factory.mktemp("nodes")
    with LocalCluster(directory, nodes=(), install=False, binaries=binaries) as running:
        yield running


@pytest.fixture(scope="session")
def nodes(node_control_plane: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """The default nodes."""
    data_dir = tmp_path_factory.mktemp("stand-in") / "data"
    data_dir.mkdir()
    running = start_nodes(node_control_plane.admin_kubeconfig, data_dir, *QUICK)
    for name in ("gpu-l4", "gpu-h100", "cpu"):
        node_control_plane.kubectl("wait", "--for=create", f"node/{name}", "--timeout=20s")
        node_control_plane.kubectl("wait", "--for=condition=Ready", f"node/{name}", "--timeout=20s")
    yield running
    running.process.check()
    running.process.stop()


@pytest.fixture
async def api(node_control_plane: LocalCluster) -> AsyncIterator[Api]:
    """A client with all rights."""
    async with Api.from_kubeconfig(node_control_plane.admin_kubeconfig) as client:
        yield client


@pytest.fixture
async def pods(nodes: NodeProcess, api: Api) -> AsyncIterator[Pods]:
    """Pods in a fresh namespace."""
    created = await api.create(NAMESPACES, {"metadata": {"generateName": "node-"}})
    namespace = created["metadata"]["name"]
    while await api.find(SERVICE_ACCOUNTS, "default", namespace) is None:
        await asyncio.sleep(0.02)
    made = Pods(api, namespace, nodes)
    yield made
    await made.clean_up()
    await api.delete(NAMESPACES, namespace)
