"""Processes end when they must, and nobody else's process ever does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from fairlead_cluster.errors import ComponentDiedError
from fairlead_cluster.processes import ManagedProcess, ProcessIdentity, identify, spawn, tail, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the local cluster needs Linux")

SLEEP = [sys.executable, "-c", "import time; print('started', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('started', flush=True); time.sleep(600)",
]


def start(tmp_path: Path, command: list[str], **options: float) -> ManagedProcess:
    """Start and wait until the child has set itself up."""
    process = spawn("child", command, tmp_path / "child.log", **options)  # type: ignore[arg-type]
    assert wait_until(lambda: "started" in (tmp_path / "child.log").read_text(), 10)
    return process


def test_stop_asks_first(tmp_path: Path) -> None:
    process = start(tmp_path, SLEEP)
    assert process.is_running()
    process.stop()
    assert process.returncode == -signal.SIGTERM
    process.stop()


def test_stop_kills_who_does_not_listen(tmp_path: Path) -> None:
    process = start(tmp_path, STUBBORN, stop_grace_s=0.2)
    process.stop()
    assert process.returncode == -signal.SIGKILL


def test_check_tells_status_and_last_words(tmp_path: Path) -> None:
    script = "import sys; print('out of cheese'); sys.exit(3)"
    process = spawn("child", [sys.executable, "-c", script], tmp_path / "child.log")
    assert process.wait(10)
    with pytest.raises(ComponentDiedError, match=r"(?s)child ended with status 3.*child\.log.*out of cheese"):
        process.check()


def test_a_running_process_passes_the_check(tmp_path: Path) -> None:
    process = start(tmp_path, SLEEP)
    process.check()
    process.kill()


@pytest.mark.parametrize("in_thread", [False, True], ids=["from the main thread", "from a thread that ended"])
def test_children_die_with_their_parent(tmp_path: Path, in_thread: bool) -> None:
    """Also after SIGKILL, and not before: the thread that asked for the child may end earlier than the process."""
    log, pid_file = tmp_path / "child.log", tmp_path / "pid"
    program = f"""
import pathlib, sys, threading, time
from fairlead_cluster.processes import spawn
def go():
    child = spawn("child", {SLEEP!r}, pathlib.Path({str(log)!r}))
    pathlib.Path({str(pid_file)!r}).write_text(str(child.pid))
if {in_thread}:
    thread = threading.Thread(target=go); thread.start(); thread.join()
else:
    go()
time.sleep(0.3)
print("ready", flush=True)
time.sleep(600)
"""
    source_root = Path(__file__).parents[3] / "operator"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(source_root)}
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        child = identify("child", int(pid_file.read_text()))
        assert child.is_alive()
        parent.kill()
        parent.wait()
    assert wait_until(lambda: not child.is_alive(), 5)


def test_a_recycled_pid_is_somebody_else(tmp_path: Path) -> None:
    process = start(tmp_path, SLEEP)
    impostor = replace(process.identity, start_ticks=process.identity.start_ticks - 1)
    assert not impostor.is_alive()
    impostor.end(grace_s=0)
    assert process.is_running()
    process.identity.end(grace_s=5)
    assert process.wait(5)


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = identify("child", child.pid)
    assert identity.is_alive()
    assert child.stdin is not None
    child.stdin.close()
    assert wait_until(lambda: not identity.is_alive(), 10)
    child.wait()


def test_identify_nobody() -> None:
    with pytest.raises(ProcessLookupError):
        identify("nobody", 2**22 + 1)
    assert not ProcessIdentity("nobody", 2**22 + 1, 1).is_alive()


def test_spawn_works_from_any_thread(tmp_path: Path) -> None:
    started: list[ManagedProcess] = []
    threads = [
        threading.Thread(target=lambda n=n: started.append(spawn(f"c{n}", SLEEP, tmp_path / f"{n}.log")))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({process.pid for process in started}) == 4
    assert all(process.is_running() for process in started)
    for process in started:
        process.kill()


def test_tail_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log) == "    (no log)"
    log.write_text("")
    assert tail(log) == "    (its log is empty)"
    log.write_text("\n".join(str(n) for n in range(100_000)))
    assert tail(log, lines=2) == "    99998\n    99999"
