"""The cluster that `make cluster-up` leaves in the background: one supervisor process, and how others find and end it.

The supervisor owns every process of the cluster. If it dies, the kernel takes the others with it; if one of the others
dies, the supervisor says which and why, and takes the cluster down rather than leave half of one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

from fairlead_cluster.cluster import OPERATOR_ARGS, LocalCluster
from fairlead_cluster.errors import ComponentDiedError, LocalClusterError, NotReadyError
from fairlead_cluster.gobuild import Say
from fairlead_cluster.kubeconfig import write_private
from fairlead_cluster.node.options import Engines, Options
from fairlead_cluster.operators import python_environment
from fairlead_cluster.processes import ProcessIdentity, identify, tail, wait_until

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 90.0
_CHECK_INTERVAL_S = 1.0
_RESTART_BACK_OFF_S = (1.0, 60.0)  # of a crashed operator: first and longest, as a kubelet would restart it
_STEADY_S = 60.0
_MARKER = ".fairlead-local-cluster"
_STATE = "state.json"

STARTING, READY, FAILED = "Starting", "Ready", "Failed"


@dataclass(frozen=True, slots=True)
class State:
    """What the supervisor says about itself, in `state.json`."""

    phase: str
    supervisor: ProcessIdentity
    operator: bool
    processes: list[ProcessIdentity] = field(default_factory=list)
    server_url: str = ""
    kubectl: str = ""
    dns: str = ""
    operator_url: str = ""
    message: str = ""

    @property
    def is_alive(self) -> bool:
        """Whether its supervisor runs."""
        return self.supervisor.is_alive()


def read_state(directory: Path) -> State | None:
    """The state of the cluster in `directory`; None if there is none."""
    path = directory / _STATE
    if not path.is_file():
        return None
    data = json.loads(path.read_text())
    data["supervisor"] = ProcessIdentity(**data["supervisor"])
    data["processes"] = [ProcessIdentity(**one) for one in data["processes"]]
    return State(**data)


def start_in_background(directory: Path, *, operator: bool, say: Say, engines: Engines = Engines.AUTO) -> State:
    """Start a supervisor that outlives this process; returns when the cluster is ready.

    LocalClusterError if the folder is somebody else's, a cluster runs there already, or the start failed.
    """
    _claim(directory)
    log_path = directory / "logs" / "supervisor.log"
    log_path.parent.mkdir(mode=0o700, exist_ok=True)
    command = [sys.executable, "-m", "fairlead_cluster", "supervise", "--dir", str(directory)]
    command += ["--operator" if operator else "--no-operator", f"--engines={engines}"]
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C and the terminal's end are not for it
            env={**python_environment(), "PYTHONUNBUFFERED": "1"},
        )
    try:
        return _follow(directory, process, log_path, say)
    except BaseException:
        process.terminate()
        process.wait(STOP_TIMEOUT_S)
        raise


def stop_in_background(directory: Path) -> bool:
    """End the cluster in `directory` and remove the folder; False if there was none.

    Only processes with a recorded pid and start time are ended, only a folder with our mark is removed.
    """
    if not (directory / _MARKER).is_file():
        if directory.exists() and any(directory.iterdir()):
            raise LocalClusterError(f"{directory} was not made by the local cluster: it is left alone")
        return False
    state = read_state(directory)
    if state is not None:
        state.supervisor.end(STOP_TIMEOUT_S)
        for process in reversed(state.processes):  # only after a supervisor that was killed is anything left
            process.end(grace_s=20.0)
    shutil.rmtree(directory)
    return True


def supervise(directory: Path, *, operator: bool, say: Say, engines: Engines = Engines.AUTO) -> int:
    """Run the cluster in this process until SIGTERM (exit status 0) or until a part of it dies (1)."""
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _exit_at_once)
    own = identify("supervisor", os.getpid())
    cluster = LocalCluster(directory, operator=operator, node_options=Options(engines=engines), say=say)
    _write_state(directory, State(STARTING, own, operator))
    try:
        with cluster:
            signal.signal(signal.SIGTERM, lambda _signum, _frame: stop.set())
            _write_state(directory, _ready_state(own, operator, cluster))
            _watch(cluster, operator, stop, say, lambda: _write_state(directory, _ready_state(own, operator, cluster)))
            say("stopping")
    except LocalClusterError as error:
        say(str(error))
        _write_state(directory, State(FAILED, own, operator, message=str(error)))
        return 1
    return 0


def _watch(cluster: LocalCluster, operator: bool, stop: threading.Event, say: Say, changed: Callable[[], None]) -> None:
    """Until `stop`: raise if a part of the cluster dies, restart a crashed operator as a kubelet would."""
    first_back_off_s, longest_back_off_s = _RESTART_BACK_OFF_S
    back_off_s, started_at = first_back_off_s, time.monotonic()
    while not stop.wait(_CHECK_INTERVAL_S):
        cluster.check_infrastructure()
        try:
            cluster.check()
        except ComponentDiedError as error:
            if not operator:
                raise
            say(f"{error}\nrestarting it in {back_off_s:.0f} s")
            if time.monotonic() - started_at > _STEADY_S:
                back_off_s = first_back_off_s
            if stop.wait(back_off_s):
                return
            cluster.start_operator(OPERATOR_ARGS)
            back_off_s, started_at = min(2 * back_off_s, longest_back_off_s), time.monotonic()
            changed()


def _exit_at_once(_signum: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def _ready_state(own: ProcessIdentity, operator: bool, cluster: LocalCluster) -> State:
    host, port = cluster.dns_address
    return State(
        phase=READY,
        supervisor=own,
        operator=operator,
        processes=cluster.process_identities,
        server_url=cluster.control_plane.server_url,
        kubectl=str(cluster.control_plane.binaries.kubectl),
        dns=f"{host}:{port}",
        operator_url=cluster.operator_url() if operator else "",
    )


def _write_state(directory: Path, state: State) -> None:
    write_private(directory / _STATE, json.dumps(asdict(state), indent=2))


def _claim(directory: Path) -> None:
    """Make the folder ours, cleaned of a cluster that died. LocalClusterError if that would harm somebody."""
    state = read_state(directory) if (directory / _MARKER).is_file() else None
    if state is not None and state.is_alive:
        raise LocalClusterError(f"a local cluster runs already in {directory} (`make cluster-down` ends it)")
    stop_in_background(directory)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / _MARKER).touch()


def _follow(directory: Path, process: subprocess.Popen[bytes], log_path: Path, say: Say) -> State:
    """Pass the supervisor's words on until it is ready."""
    ready: list[State] = []

    def is_over() -> bool:
        for line in log:
            say(line.rstrip())
        state = read_state(directory)
        if state is not None and state.phase == READY and state.supervisor.pid == process.pid:
            ready.append(state)
        return bool(ready) or process.poll() is not None

    with log_path.open() as log:
        if not wait_until(is_over, START_TIMEOUT_S, interval_s=0.1):
            raise NotReadyError(
                f"the local cluster was not ready within {START_TIMEOUT_S:.0f} s; see {log_path.parent}"
            )
    if not ready:
        raise ComponentDiedError(f"the local cluster did not start; the end of {log_path}:\n{tail(log_path)}")
    return ready[0]
