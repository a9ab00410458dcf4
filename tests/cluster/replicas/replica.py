"""Operator replicas as the tests of this folder need them: each with a user of its own, so that the audit log tells them apart.

`LocalCluster.start_operator` gives all replicas one ServiceAccount, as a Deployment does. Here the judge must know who wrote,
and one replica alone must lose its network, its rights or its clock.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.test_privileges import MANAGES

from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.kubeconfig import write_kubeconfig
from fairlead_cluster.operators import OPERATOR_NAMESPACE
from fairlead_cluster.ports import free_ports
from fairlead_cluster.processes import ManagedProcess, spawn, tail

Json = dict[str, Any]

SOURCE_ROOT = Path(__file__).parents[3] / "operator"
LEASE_NAME = "fairlead"
READY_TIMEOUT_S = 90.0
STOP_GRACE_S = 30.0


def user_of(name: str) -> str:
    """The user in the audit log of the replica of this name."""
    return f"system:serviceaccount:{OPERATOR_NAMESPACE}:fairlead-{name}"


class Accounts:
    """A ServiceAccount per replica with the operator's rights: the same roles, bound once more."""

    def __init__(self, cluster: LocalCluster, directory: Path) -> None:
        self._cluster = cluster
        self._directory = directory

    def make(self, name: str, server_url: str | None = None) -> Path:
        """Grant the rights and write the replica's kubeconfig; `server_url` leads it by another way to the API server."""
        self._cluster.kubectl.apply(*_account(name), self.lease_binding(name), field_manager="test-replicas")
        path = self._directory / f"{name}-{time.monotonic_ns()}.kubeconfig"
        control_plane = self._cluster.control_plane
        control_plane.write_service_account_kubeconfig(OPERATOR_NAMESPACE, f"fairlead-{name}", path)
        if server_url is not None:
            config = yaml.safe_load(path.read_text())
            config["clusters"][0]["cluster"]["server"] = server_url
            write_kubeconfig(path, config)
        return path

    def lease_binding(self, name: str) -> Json:
        """What lets this replica use the Lease (and read engine files)."""
        return _binding("RoleBinding", "Role", "fairlead-own-namespace", name, OPERATOR_NAMESPACE)

    def forbid_lease(self, name: str) -> None:
        """The API server refuses this replica everything in the operator's namespace, the Lease included."""
        self._cluster.kubectl("delete", "rolebinding", f"fairlead-{name}", f"--namespace={OPERATOR_NAMESPACE}")

    def permit_lease(self, name: str) -> None:
        """As before `forbid_lease`."""
        self._cluster.kubectl.apply(self.lease_binding(name), field_manager="test-replicas")


def _account(name: str) -> tuple[Json, ...]:
    metadata = {"name": f"fairlead-{name}", "namespace": OPERATOR_NAMESPACE}
    return (
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        _binding("ClusterRoleBinding", "ClusterRole", "fairlead", name, None),
        # The admission policies name the one account that an installation has.
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": f"manages-{name}"},
            "rules": [MANAGES],
        },
        _binding("ClusterRoleBinding", "ClusterRole", f"manages-{name}", name, None, prefix="manages"),
    )


def _binding(kind: str, role_kind: str, role: str, name: str, namespace: str | None, prefix: str = "fairlead") -> Json:
    subject = {"kind": "ServiceAccount", "name": f"fairlead-{name}", "namespace": OPERATOR_NAMESPACE}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": f"{prefix}-{name}"} | ({"namespace": namespace} if namespace else {}),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role},
        "subjects": [subject],
    }


class Replica:
    """One operator process. `source_root` is the tree it runs from; `launcher` a script that stands before `fairlead`."""

    def __init__(
        self,
        cluster: LocalCluster,
        name: str,
        kubeconfig: Path,
        *,
        args: Sequence[str] = (),
        source_root: Path = SOURCE_ROOT,
        launcher: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.user = user_of(name)
        self.log_path = cluster.logs_dir / f"replica-{name}-{time.monotonic_ns()}.log"
        (self._port,) = free_ports(1)
        environment = {
            **os.environ,
            "PYTHONPATH": str(source_root),
            "KUBECONFIG": str(kubeconfig),
            "POD_NAME": name,
            "POD_NAMESPACE": OPERATOR_NAMESPACE,
            "FAIRLEAD_METRICS_ADDRESS": "127.0.0.1",
            "FAIRLEAD_METRICS_PORT": str(self._port),
            **(env or {}),
        }
        command: list[str | Path] = [sys.executable, *([launcher] if launcher else ["-m", "fairlead"]), "run", *args]
        self.process: ManagedProcess = spawn(
            name, command, self.log_path, env=environment, stop_grace_s=STOP_GRACE_S, cwd=source_root
        )

    def read(self, path: str) -> str:
        """GET of one of its own pages. OSError if it does not answer within two seconds."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=2) as response:
            return str(response.read().decode())

    @property
    def leads(self) -> bool:
        """Whether it says that it may write; False when it does not answer."""
        try:
            return bool(json.loads(self.read("/debug/queue"))["leading"])
        except (OSError, urllib.error.URLError):
            return False

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Until its caches are filled."""
        self._wait(self._is_ready, "ready", timeout_s)

    def wait_leads(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Until it leads."""
        self._wait(lambda: self.leads, "the leader", timeout_s)

    def crash(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def stop(self) -> None:
        """SIGTERM, and wait for its end."""
        self.process.stop()

    def freeze(self) -> None:
        """SIGSTOP."""
        self.process.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.send(signal.SIGCONT)

    def end(self) -> None:
        """Whatever state it is in: afterwards it is gone."""
        self.process.send(signal.SIGCONT)
        self.process.kill()

    def _is_ready(self) -> bool:
        try:
            return self.read("/readyz") == "ok\n"
        except (OSError, urllib.error.URLError):
            return False

    def _wait(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            self.process.check()
            if time.monotonic() >= deadline:
                raise AssertionError(f"{self.name} is not {what} after {timeout_s:.0f} s:\n{tail(self.log_path)}")
            time.sleep(0.05)
