"""Where moments are read: the API server's audit log, what pods say on the watch and in their logs, what the bench asks itself."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairlead_cluster.audit import AuditMark, AuditRecord
from fairlead_cluster.cluster import OPERATOR_USER, LocalCluster

__all__ = ["AUDIT", "FirstTime", "LineTimes", "PodTimes", "Writes", "read_writes", "until"]

Json = dict[str, Any]
AUDIT = "audit log"
#: How exact what the bench reads itself is, seconds.
POLL_S = 0.02


def until(condition: Callable[[], Any], what: str, timeout_s: float) -> Any:
    """The first truthy answer. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()):
        if time.monotonic() >= deadline:
            raise TimeoutError(f"not in {timeout_s:.0f} s: {what}")
        time.sleep(0.1)
    return answer


@dataclass(frozen=True, slots=True)
class Writes:
    """The decision in status and the number of replicas after it, as the API server received and answered them. Epoch seconds."""

    status_sent: float
    status_kept: float
    replicas_kept: float


def read_writes(cluster: LocalCluster, namespace: str, since: AuditMark) -> Writes | None:
    """The first write of the namespace's Deployment since then by the operator, and the last of a status before it; None before that."""
    records = [
        one for one in cluster.audit.records(user=OPERATOR_USER, namespace=namespace, since=since) if one.is_write
    ]
    replicas = next((one for one in records if one.resource == "deployments" and one.code < 300), None)
    if replicas is None:
        return None
    before = [
        one
        for one in records
        if one.resource == "llmdeployments/status" and one.code < 300 and one.stage_at <= replicas.received_at
    ]
    if not before:
        raise RuntimeError(f"replicas were written without a decision in status: {[str(one) for one in records]}")
    last = before[-1]
    return Writes(last.received_at.timestamp(), last.stage_at.timestamp(), replicas.stage_at.timestamp())


def find_record(cluster: LocalCluster, since: AuditMark, **what: Any) -> AuditRecord:
    """The first that succeeded of those that match. Raises RuntimeError."""
    found = cluster.audit.wait_for(
        lambda: [one for one in cluster.audit.records(since=since, **what) if one.code < 300]
    )
    if not found:
        raise RuntimeError(f"nobody asked for {what}")
    return found[0]


class LineTimes:
    """When lines with `text` came into the logs of a namespace's engines, to 20 ms. Those that are there already do not count."""

    def __init__(self, logs: Path, namespace: str, text: str) -> None:
        self.times: list[float] = []
        self._over = threading.Event()
        self._files = {path: path.stat().st_size for path in logs.glob(f"**/*{namespace}*/**/engine/0.log")}
        if not self._files:
            raise RuntimeError(f"no log of an engine of {namespace} in {logs}")
        self._text = text.encode()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Read no more."""
        self._over.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._over.wait(POLL_S):
            for path, offset in self._files.items():
                with path.open("rb") as file:
                    file.seek(offset)
                    new = file.read()
                whole = new[: new.rfind(b"\n") + 1]
                self._files[path] = offset + len(whole)
                self.times += [time.time()] * whole.count(self._text)


@dataclass
class PodTimes:
    """When the watch first told of a pod that its engine was started, and that it is ready; and its address."""

    started: float = 0.0
    ready: float = 0.0
    address: str = ""
    seen: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def watch_pods(cluster: LocalCluster, namespace: str, selector: str) -> Iterator[PodTimes]:
    """Of the first pod that comes into being from now on."""
    binary, kubeconfig = str(cluster.kubectl.binary), str(cluster.admin_kubeconfig)
    command = [
        binary,
        f"--kubeconfig={kubeconfig}",
        "get",
        "pods",
        f"--namespace={namespace}",
        f"--selector={selector}",
    ]
    # One line for each event: the fields of which the times are wanted.
    fields = "{.metadata.name}|{.status.podIP}|{.status.containerStatuses}|{.status.conditions}"
    times = PodTimes()
    with subprocess.Popen(
        [*command, "--watch", "-o", f'jsonpath={fields}{{"\\n"}}'], stdout=subprocess.PIPE, text=True
    ) as process:
        lines = process.stdout
        assert lines is not None
        thread = threading.Thread(target=lambda: [_read_pod(line, times) for line in lines], daemon=True)
        thread.start()
        try:
            yield times
        finally:
            process.terminate()
            thread.join()


def _read_pod(line: str, times: PodTimes) -> None:
    now = time.time()
    _, address, containers, conditions = line.rstrip("\n").split("|", 3)
    times.address = times.address or address
    engine = next((one for one in json.loads(containers or "[]") if one["name"] == "engine"), {})
    if "running" in engine.get("state", {}) and address:
        times.started = times.started or now
        times.seen.set()
    if any(one["type"] == "Ready" and one["status"] == "True" for one in json.loads(conditions or "[]")):
        times.ready = times.ready or now


class FirstTime:
    """When a question was first answered with yes: asked every 20 ms, an error is a no."""

    def __init__(self, ask: Callable[[], bool], errors: Sequence[type[Exception]]) -> None:
        self.at = 0.0
        self._ask = ask
        self._errors = tuple(errors)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self.at and not self._over.wait(POLL_S):
            with contextlib.suppress(*self._errors):
                if self._ask():
                    self.at = time.time()
