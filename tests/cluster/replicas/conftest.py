"""Replicas that a test starts and that are gone after it, whatever it did to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from tests.cluster.replicas.judge import Judge
from tests.cluster.replicas.relay import Relay
from tests.cluster.replicas.replica import LEASE_NAME, SOURCE_ROOT, Accounts, Replica, user_of

from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.operators import OPERATOR_NAMESPACE

REPLICAS = ("one", "two", "three", "four")


class Team:
    """Starts replicas on one cluster; within `with`, after which all are gone, and no Lease is there before or after."""

    def __init__(self, cluster: LocalCluster, namespace: str, directory: Path) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.accounts = Accounts(cluster, directory)
        self.judge = Judge(cluster.audit, cluster.audit.mark(), namespace, [user_of(name) for name in REPLICAS])
        self._started: list[Replica] = []

    def __enter__(self) -> Self:
        delete_lease(self.cluster)
        return self

    def __exit__(self, *_: object) -> None:
        self.end_all()
        delete_lease(self.cluster)

    def start(
        self,
        name: str,
        *args: str,
        relay: Relay | None = None,
        source_root: Path = SOURCE_ROOT,
        launcher: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> Replica:
        """Start a replica and wait until its caches are filled."""
        kubeconfig = self.accounts.make(name, relay.url if relay is not None else None)
        replica = Replica(
            self.cluster, name, kubeconfig, args=args, source_root=source_root, launcher=launcher, env=env
        )
        self._started.append(replica)
        replica.wait_ready()
        return replica

    def start_pair(self, *args: str, relay: Relay | None = None) -> tuple[Replica, Replica]:
        """`one`, which leads (and is behind the relay if there is one), and `two`, which stands by."""
        one = self.start("one", *args, relay=relay)
        one.wait_leads()
        return one, self.start("two", *args)

    def end_all(self) -> None:
        """Whatever state they are in."""
        for replica in self._started:
            replica.end()

    def relay(self) -> Relay:
        """A relay to the API server, not yet started."""
        host, _, port = self.cluster.control_plane.server_url.removeprefix("https://").partition(":")
        return Relay((host, int(port)))


@pytest.fixture
def team(control_plane: LocalCluster, namespace: str, tmp_path: Path) -> Iterator[Team]:
    with Team(control_plane, namespace, tmp_path) as made:
        yield made


def delete_lease(cluster: LocalCluster) -> None:
    """As a person with kubectl would."""
    cluster.kubectl("delete", "lease", LEASE_NAME, f"--namespace={OPERATOR_NAMESPACE}", "--ignore-not-found")
