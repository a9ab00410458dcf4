"""`cluster-up` and `cluster-down` touch only what the local cluster made."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fairlead_cluster import __main__ as command
from fairlead_cluster import supervisor
from fairlead_cluster.errors import LocalClusterError
from fairlead_cluster.processes import identify
from fairlead_cluster.supervisor import READY, State, read_state, start_in_background, stop_in_background

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the local cluster needs Linux")


def put_cluster(directory: Path, pid: int, *, recycled: bool = False) -> State:
    """The folder of a cluster whose supervisor is (or was) `pid`."""
    identity = identify("supervisor", pid)
    if recycled:
        identity = replace(identity, start_ticks=identity.start_ticks - 1)
    state = State(READY, identity, operator=False, processes=[replace(identity, name="etcd")])
    directory.mkdir()
    (directory / supervisor._MARKER).touch()
    supervisor._write_state(directory, state)
    return state


def silent(_line: str) -> None:
    """Progress for nobody."""


def test_state_survives_the_file(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        written = put_cluster(tmp_path / "c", child.pid)
        read = read_state(tmp_path / "c")
        assert read == written
        assert read.is_alive
        child.kill()
    assert not read.is_alive


def test_down_without_a_cluster_does_nothing(tmp_path: Path) -> None:
    assert not stop_in_background(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert not stop_in_background(tmp_path / "empty")
    assert (tmp_path / "empty").exists()


def test_down_leaves_a_strangers_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(LocalClusterError, match="left alone"):
        stop_in_background(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_up_refuses_a_strangers_folder(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(LocalClusterError, match="left alone"):
        start_in_background(tmp_path, operator=False, say=silent)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_down_ends_exactly_the_recorded_processes(tmp_path: Path) -> None:
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child,
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger,
    ):
        put_cluster(tmp_path / "c", child.pid)
        assert stop_in_background(tmp_path / "c")
        assert child.wait(5) != 0
        assert stranger.poll() is None
        stranger.kill()
    assert not (tmp_path / "c").exists()


def test_down_does_not_end_who_got_a_recycled_pid(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        put_cluster(tmp_path / "c", stranger.pid, recycled=True)
        assert stop_in_background(tmp_path / "c")
        assert stranger.poll() is None
        stranger.kill()
    assert not (tmp_path / "c").exists()


def test_up_refuses_a_second_cluster_in_the_same_folder(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        put_cluster(tmp_path / "c", child.pid)
        with pytest.raises(LocalClusterError, match="runs already"):
            start_in_background(tmp_path / "c", operator=False, say=silent)
        assert child.poll() is None
        child.kill()


@pytest.mark.parametrize("words", [["build"], ["up"], ["down"], ["status"]])
def test_other_systems_are_told_at_once(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(sys, "argv", ["fairlead_cluster", *words])
    assert command.main() == 2
    assert "needs Linux" in (said := capsys.readouterr().err)
    assert "make kind-up" in said


def test_status_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["fairlead_cluster", "status", "--dir", str(tmp_path)])
    assert command.main() == 1
    assert "no local cluster" in capsys.readouterr().out


def test_status_tells_a_dead_cluster_from_a_running_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fairlead_cluster", "status", "--dir", str(tmp_path / "c")])
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        put_cluster(tmp_path / "c", child.pid)
        assert command.main() == 0
        assert "Ready" in capsys.readouterr().out
        child.kill()
    assert command.main() == 1
    assert "Dead" in capsys.readouterr().out
