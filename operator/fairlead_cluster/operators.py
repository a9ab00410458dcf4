"""The operator as a process on the host, with what its pod would have: its own user, its name, its namespace.

It is only started here, never imported. Several may run, as several replicas would.
"""

from __future__ import annotations

import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from fairlead_cluster.errors import LocalClusterError, NotReadyError
from fairlead_cluster.ports import free_ports
from fairlead_cluster.processes import ManagedProcess, spawn, tail

OPERATOR_NAMESPACE = "fairlead-system"
OPERATOR_SERVICE_ACCOUNT = "fairlead"
OPERATOR_USER = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{OPERATOR_SERVICE_ACCOUNT}"
READY_TIMEOUT_S = 60.0

_GRACE_S = 30.0  # terminationGracePeriodSeconds of its Deployment
_SOURCE_ROOT = Path(__file__).parents[1]


def python_environment() -> dict[str, str]:
    """This process's environment, in which `python -m fairlead…` finds the same sources as this process."""
    search_path = os.pathsep.join(filter(None, [str(_SOURCE_ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": search_path}


class Operators:
    """Operator processes by name; logs are `<logs_dir>/<name>.log`."""

    def __init__(self, kubeconfig: Path, logs_dir: Path) -> None:
        self._kubeconfig = kubeconfig
        self._logs_dir = logs_dir
        self._processes: dict[str, ManagedProcess] = {}
        self._ports: dict[str, int] = {}

    @property
    def processes(self) -> list[ManagedProcess]:
        """Those that were started and not stopped; a crashed one is among them."""
        return list(self._processes.values())

    def start(self, name: str, args: Sequence[str], env: Mapping[str, str]) -> ManagedProcess:
        """Start `fairlead run ARGS`. LocalClusterError if one of that name still runs."""
        if name in self._processes and self._processes[name].is_running():
            raise LocalClusterError(f"an operator named {name} runs already")
        if name not in self._ports:
            (self._ports[name],) = free_ports(1)
        environment = {
            **python_environment(),
            "KUBECONFIG": str(self._kubeconfig),
            "POD_NAME": name,
            "POD_NAMESPACE": OPERATOR_NAMESPACE,
            # A pod has its address for itself; here all share the host's, and only loopback is ours.
            "FAIRLEAD_METRICS_ADDRESS": "127.0.0.1",
            "FAIRLEAD_METRICS_PORT": str(self._ports[name]),
            **env,
        }
        command = [sys.executable, "-m", "fairlead", "run", *args]
        process = spawn(name, command, self._logs_dir / f"{name}.log", env=environment, stop_grace_s=_GRACE_S)
        self._processes[name] = process
        return process

    def url(self, name: str) -> str:
        """Base URL of `/metrics`, `/healthz` and `/readyz` of an operator that was started."""
        return f"http://127.0.0.1:{self._ports[name]}"

    def wait_until_ready(self, name: str, timeout_s: float) -> None:
        """Until `/readyz` says yes. ComponentDiedError if it ends before, NotReadyError when the time is over."""
        process = self._processes[name]
        deadline = time.monotonic() + timeout_s
        while not _is_ready(f"{self.url(name)}/readyz"):
            process.check()
            if time.monotonic() >= deadline:
                raise NotReadyError(f"{name} is not ready after {timeout_s:.0f} s:\n{tail(process.log_path)}")
            time.sleep(0.05)

    def stop(self, name: str, *, kill: bool = False, grace_s: float | None = None) -> None:
        """SIGTERM and time to finish, or SIGKILL as a crash. Nothing happens if there is none of that name."""
        process = self._processes.pop(name, None)
        if process is None:
            return
        if kill:
            process.kill()
        else:
            process.stop(grace_s)

    def stop_all(self, grace_s: float | None = None) -> None:
        """Stop every one, each within its own grace time or the one given."""
        for name in list(self._processes):
            self.stop(name, grace_s=grace_s)

    def check(self) -> None:
        """ComponentDiedError if one ended that was not stopped."""
        for process in self._processes.values():
            process.check()


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False
