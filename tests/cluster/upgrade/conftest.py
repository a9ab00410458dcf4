"""Operators of several builds on the cluster whose pods run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.replicas.conftest import Team

from fairlead_cluster.cluster import LocalCluster


@pytest.fixture
def crew(cluster: LocalCluster, cluster_namespace: str, tmp_path: Path) -> Iterator[Team]:
    """As `team`, on the cluster with nodes."""
    with Team(cluster, cluster_namespace, tmp_path) as made:
        yield made
