"""`make cluster-up` and `make cluster-down`, as a user calls them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fairlead_cluster.build import Binaries
from fairlead_cluster.cluster import OPERATOR_USER, LocalCluster
from fairlead_cluster.errors import ComponentDiedError, LocalClusterError
from fairlead_cluster.processes import wait_until
from fairlead_cluster.supervisor import FAILED, State, read_state

pytestmark = pytest.mark.cluster

SOURCE_ROOT = Path(__file__).parents[2] / "operator"


def run_command(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """`python -m fairlead_cluster ARGUMENTS --dir DIRECTORY`."""
    command = [sys.executable, "-m", "fairlead_cluster", *arguments, "--dir", str(directory)]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE_ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=180)


def test_up_status_down(binaries: Binaries, fresh_directory: Path) -> None:
    up = run_command("up", "--no-operator", directory=fresh_directory)
    assert up.returncode == 0, up.stderr
    try:
        assert f"export KUBECONFIG={fresh_directory}/kubeconfig" in up.stdout
        state = alive_state(fresh_directory)
        names = {identity.name for identity in state.processes}
        assert {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "data-plane"} == names
        for kubeconfig in ("kubeconfig", "operator.kubeconfig"):
            environment = {"KUBECONFIG": str(fresh_directory / kubeconfig), "HOME": str(fresh_directory)}
            answer = subprocess.run([binaries.kubectl, "auth", "whoami"], env=environment, check=True, timeout=30)
            assert answer.returncode == 0
        assert (fresh_directory / "audit.log").stat().st_size > 0
        assert run_command("status", directory=fresh_directory).returncode == 0
        second = run_command("up", "--no-operator", directory=fresh_directory)
        assert second.returncode == 1
        assert "runs already" in second.stderr
        assert state.is_alive, "a refused second `up` must not harm the first"
    finally:
        down = run_command("down", directory=fresh_directory)
    assert down.returncode == 0, down.stderr
    assert not fresh_directory.exists()
    assert not any(process.is_alive() for process in (state.supervisor, *state.processes))
    assert run_command("down", directory=fresh_directory).returncode == 0


def test_a_killed_supervisor_takes_all_with_it_and_down_cleans_up(binaries: Binaries, fresh_directory: Path) -> None:
    assert run_command("up", "--no-operator", directory=fresh_directory).returncode == 0
    state = alive_state(fresh_directory)
    try:
        state.supervisor.send(signal.SIGKILL)
        assert wait_until(lambda: not any(process.is_alive() for process in state.processes), 20)
        status = run_command("status", directory=fresh_directory)
        assert status.returncode == 1
        assert "Dead" in status.stdout
    finally:
        assert run_command("down", directory=fresh_directory).returncode == 0
    assert not fresh_directory.exists()


@pytest.mark.long
def test_a_dead_component_takes_the_cluster_down_and_is_named(binaries: Binaries, fresh_directory: Path) -> None:
    assert run_command("up", "--no-operator", directory=fresh_directory).returncode == 0
    state = alive_state(fresh_directory)
    try:
        next(process for process in state.processes if process.name == "etcd").send(signal.SIGKILL)
        assert wait_until(lambda: not state.supervisor.is_alive(), 60)
        assert not any(process.is_alive() for process in state.processes)
        after = read_state(fresh_directory)
        assert after is not None
        assert after.phase == FAILED
        assert "etcd was killed by SIGKILL" in after.message
        status = run_command("status", directory=fresh_directory)
        assert status.returncode == 1
        assert "etcd was killed by SIGKILL" in status.stdout
    finally:
        assert run_command("down", directory=fresh_directory).returncode == 0


def alive_state(directory: Path) -> State:
    """The state of a cluster that runs."""
    state = read_state(directory)
    assert state is not None
    assert state.is_alive
    return state


def test_operator_process_has_the_operators_kubeconfig_and_is_ended(control_plane: LocalCluster) -> None:
    """Whether it is ready is its own matter; here: who it is, where it writes, that it ends."""
    process = control_plane.start_operator(["--help"], {"SOME_OPTION": "x"}, name="helper")
    try:
        environ = Path(f"/proc/{process.pid}/environ")
        if environ.exists() and (text := environ.read_text()):
            assert f"KUBECONFIG={control_plane.operator_kubeconfig}" in text
            assert "SOME_OPTION=x" in text
        assert process.wait(30)
        assert process.log_path == control_plane.logs_dir / "helper.log"
        assert "usage" in process.log_path.read_text().lower()
    finally:
        control_plane.stop_operator("helper")
    assert not process.is_running()


def test_operator_names_are_unique_while_they_run(control_plane: LocalCluster) -> None:
    process = control_plane.start_operator(name="twin")
    try:
        if process.is_running():
            with pytest.raises(LocalClusterError, match="runs already"):
                control_plane.start_operator(name="twin")
    finally:
        control_plane.stop_operator("twin", kill=True)
    assert not process.is_running()


def test_operator_becomes_ready_with_its_own_rights_only(control_plane: LocalCluster) -> None:
    """The RBAC of manifests/ is enough for it: the API server refuses nothing that it asks for."""
    before = control_plane.audit.mark()
    control_plane.start_operator(["--no-leader-elect"], name="ready")
    try:
        control_plane.wait_for_operator("ready")
        records = control_plane.audit.wait_for(lambda: control_plane.audit.records(since=before, user=OPERATOR_USER))
        assert records
        assert [str(record) for record in records if record.code in (401, 403)] == []
    finally:
        control_plane.stop_operator("ready")


def test_an_operator_that_cannot_start_is_told_with_its_last_words(control_plane: LocalCluster) -> None:
    control_plane.start_operator(["--no-such-option"], name="wrong")
    try:
        with pytest.raises(ComponentDiedError, match=r"(?s)wrong ended with status 2.*no-such-option"):
            control_plane.wait_for_operator("wrong")
    finally:
        control_plane.stop_operator("wrong")
