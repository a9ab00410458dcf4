"""The operator under measurement, on a cluster without nodes: pods are frozen, the audit log counts, /proc accounts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from tests.bench.objects import NAMESPACE, apply_line, make_resource

from fairlead_cluster.audit import AuditMark, AuditRecord, parse_record
from fairlead_cluster.cluster import OPERATOR_USER, LocalCluster
from fairlead_cluster.operators import python_environment
from fairlead_cluster.processes import ManagedProcess, spawn

Json = dict[str, Any]
STATUS = "llmdeployments/status"
NOT_COUNTED = frozenset({"leases", "events"})  # counted apart, by the contract of the figures
QUIET_S = 3.0
QUIET_TIMEOUT_S = 300.0
POLL_S = 0.5
#: One namespace only, so that the bare client can do the same work in another one, on the same cluster, at another time.
ARGUMENTS = ("--no-leader-elect", f"--watch-namespaces={NAMESPACE}")


@dataclass(frozen=True, slots=True)
class Sent:
    """What the sender's own accounting says."""

    cpu_s: float
    wall_s: float
    requests: int


class Tail:
    """Records since a mark, read once each: a log of a hundred thousand lines must not be parsed again at every poll."""

    def __init__(self, cluster: LocalCluster, since: AuditMark) -> None:
        self._path = cluster.audit.path
        self._offset_bytes = since.offset_bytes
        self._seen: dict[str, AuditRecord] = {}

    def read(self) -> list[AuditRecord]:
        """All of them so far, but for watches."""
        with self._path.open("rb") as file:
            # The mark may lie inside a line that was being written then: it belongs to what was before.
            file.seek(max(0, self._offset_bytes - 1))
            self._offset_bytes = file.tell() + len(file.readline()) if self._offset_bytes else 0
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset_bytes += len(line)
                record = parse_record(line)
                if record.verb != "watch":
                    self._seen[record.audit_id] = record
        return list(self._seen.values())

    def by_operator(self) -> list[AuditRecord]:
        """The operator's, without Leases and Events."""
        return [one for one in self.read() if one.user == OPERATOR_USER and one.resource not in NOT_COUNTED]

    def writes(self) -> list[AuditRecord]:
        """The writes among those."""
        return [one for one in self.by_operator() if one.is_write]

    def reads(self) -> list[AuditRecord]:
        """The reads among those."""
        return [one for one in self.by_operator() if not one.is_write]

    def events(self) -> list[AuditRecord]:
        """The Events that the operator wrote."""
        return [one for one in self.read() if one.user == OPERATOR_USER and one.resource == "events"]


@dataclass
class Subject:
    """The cluster and the operator process on it. `directory` is for files of the bench."""

    cluster: LocalCluster
    directory: Path
    process: psutil.Process = field(init=False)
    _profiled: ManagedProcess | None = None

    def start(self) -> None:
        """Start the operator and wait until it has nothing to do."""
        tail = self.tail()
        self.process = psutil.Process(self.cluster.start_operator(ARGUMENTS).identity.pid)
        self.cluster.wait_for_operator()
        self.wait_quiet(tail)

    def start_profiled(self, output: Path) -> None:
        """Start it under the sampler of `tests.bench.sampler`, which writes its counts to `output` at the end."""
        environment = {
            **python_environment(),
            "KUBECONFIG": str(self.cluster.operator_kubeconfig),
            "POD_NAME": "profiled",
            "POD_NAMESPACE": "fairlead-system",
            "FAIRLEAD_METRICS_ADDRESS": "127.0.0.1",
            "FAIRLEAD_METRICS_PORT": "0",
        }
        command = [sys.executable, "-m", "tests.bench.sampler", str(output), "run", *ARGUMENTS]
        tail = self.tail()
        self._profiled = spawn("profiled", command, self.cluster.logs_dir / "profiled.log", env=environment)
        self.process = psutil.Process(self._profiled.identity.pid)
        self.wait_quiet(tail, at_least_s=2 * QUIET_S)

    def stop(self) -> None:
        """Stop whichever runs."""
        if self._profiled is not None:
            self._profiled.stop(30.0)
            self._profiled = None
        self.cluster.stop_operator()

    def send(self, lines: Iterable[bytes]) -> Sent:
        """Send requests as an administrator, 16 in flight, by a process of its own."""
        path = self.directory / "requests.jsonl"
        path.write_bytes(b"\n".join(lines))
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.bare_client", str(self.cluster.admin_kubeconfig), str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"the sender failed: {done.stderr}")
        return Sent(**json.loads(done.stdout))

    def create(self, names: Iterable[str], namespace: str = NAMESPACE) -> Sent:
        """Custom resources, as fast as the API server takes them."""
        return self.send(apply_line(make_resource(name, namespace)) for name in names)

    def list(self, plural: str, namespace: str = NAMESPACE) -> list[Json]:
        """All objects of a kind."""
        url = f"--namespace={namespace}"
        found: list[Json] = self.cluster.kubectl.json("get", plural, url, timeout_s=120.0)["items"]
        return found

    def delete_all(self, names: Iterable[str]) -> None:
        """Custom resources and, by the garbage collector, all that hangs on them. Returns when both are gone."""
        self.cluster.kubectl("delete", "llmdep", *names, f"--namespace={NAMESPACE}", "--wait=false", timeout_s=300.0)
        self.wait_cluster_quiet()

    def patch(self, kind: str, name: str, body: Json) -> None:
        """One merge patch by the administrator."""
        self.cluster.kubectl("patch", kind, name, f"--namespace={NAMESPACE}", "--type=merge", "-p", json.dumps(body))

    def delete(self, kind: str, name: str) -> None:
        """One deletion by the administrator."""
        self.cluster.kubectl("delete", kind, name, f"--namespace={NAMESPACE}", "--wait=false")

    def tail(self) -> Tail:
        """Records from now on."""
        return Tail(self.cluster, self.cluster.audit.mark())

    def wait_quiet(self, tail: Tail, *, at_least_s: float = QUIET_S, expected: int = 0) -> list[AuditRecord]:
        """Until the operator has written `expected` times or more, and nothing for `at_least_s`; returns its writes.

        Raises TimeoutError when it never stops, or never begins.
        """
        deadline = time.monotonic() + QUIET_TIMEOUT_S
        count, changed_at = -1, time.monotonic()
        while time.monotonic() - changed_at < at_least_s or count < expected:
            writes = tail.writes()
            if len(writes) != count:
                count, changed_at = len(writes), time.monotonic()
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {QUIET_TIMEOUT_S:.0f} s: {count} writes, expected {expected}, still writing")
            time.sleep(POLL_S)
        return tail.writes()

    def wait_cluster_quiet(self, at_least_s: float = QUIET_S) -> None:
        """Until nobody writes any more, the cluster's own controllers included (Leases apart)."""
        tail, deadline = self.tail(), time.monotonic() + QUIET_TIMEOUT_S
        count, changed_at = -1, time.monotonic()
        while time.monotonic() - changed_at < at_least_s:
            writes = sum(1 for one in tail.read() if one.is_write and one.resource != "leases")
            if writes != count:
                count, changed_at = writes, time.monotonic()
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {QUIET_TIMEOUT_S:.0f} s the cluster is not quiet")
            time.sleep(POLL_S)

    def count_quiet(self, seconds: float) -> int:
        """Writes in so many seconds from now."""
        tail = self.tail()
        time.sleep(seconds)
        return len(tail.writes())

    @property
    def cpu_s(self) -> float:
        """CPU seconds of the operator process so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    @property
    def rss_mib(self) -> float:
        """Resident memory of the operator process, MiB."""
        return float(self.process.memory_info().rss) / 2**20
