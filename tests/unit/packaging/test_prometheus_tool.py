"""Prometheus in the cache: found on PATH or there, unpacked once, and never half there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hack import prometheus

from fairlead_cluster.errors import BuildError


def make_command(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


def test_what_is_on_path_is_used(tmp_path: Path) -> None:
    environ = {"PATH": str(tmp_path / "bin"), "FAIRLEAD_CACHE": str(tmp_path / "cache")}
    for name in ("prometheus", "promtool"):
        make_command(tmp_path / "bin" / name)
    assert prometheus.find(environ) is None  # some of them are not enough
    make_command(tmp_path / "bin/alertmanager")
    found = prometheus.find(environ)
    assert found is not None
    assert found.alertmanager == tmp_path / "bin/alertmanager"


def test_it_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"PATH": "", "FAIRLEAD_CACHE": str(tmp_path)}
    commands: list[str] = []

    def run(command: Sequence[str], folder: Path) -> None:
        commands.append(" ".join(command[:2]))
        if command[:2] == ["apt-get", "download"]:
            if commands.count("apt-get download") == 1:
                raise BuildError("E: Can't find a source")
            (folder / "a.deb").touch()
        if command[0] == "dpkg-deb":
            for name in ("prometheus", "promtool", "prometheus-alertmanager"):
                make_command(folder / "usr/bin" / name)

    monkeypatch.setattr(prometheus, "run", run)
    found = prometheus.find_or_unpack(lambda _: None, environ)
    assert found == prometheus.find_or_unpack(lambda _: None, environ)
    assert commands == ["apt-get download", "apt-get update", "apt-get download", "dpkg-deb -x"]
    assert not list(prometheus.directory_in(tmp_path).glob("packages"))


def test_a_failure_leaves_nothing_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="false ended with 1"):
        prometheus.run(["false"], tmp_path)
    with pytest.raises(BuildError, match="no-such-command"):
        prometheus.run(["no-such-command"], tmp_path)


def test_where_apt_does_not_work_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: Sequence[str], folder: Path) -> None:
        raise BuildError("are you root?")

    monkeypatch.setattr(prometheus, "run", run)
    with pytest.raises(BuildError, match="are you root"):
        prometheus.find_or_unpack(lambda _: None, {"PATH": "", "FAIRLEAD_CACHE": str(tmp_path)})
    assert [path.name for path in (tmp_path / "tools").iterdir() if not path.name.endswith(".lock")] == []


def test_an_alertmanager_that_was_unpacked_sees_its_own_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "usr/bin/prometheus-alertmanager"
    make_command(command)
    found = prometheus.Monitoring(command, command, command)
    monkeypatch.setattr(prometheus, "TEMPLATE", Path("/usr/share/prometheus/of-no-machine/default.tmpl"))
    assert found.alertmanager_command == [str(command)]  # it has none: it is not Debian's
    template = tmp_path / "usr/share/prometheus/of-no-machine/default.tmpl"
    template.parent.mkdir(parents=True)
    template.touch()
    asked: list[Sequence[str]] = []
    monkeypatch.setattr(prometheus, "run", lambda line, _: asked.append(line))
    assert found.alertmanager_command[0] == "unshare"
    assert found.alertmanager_command[-2:] == [str(tmp_path / "usr/share"), str(command)]
    assert asked[0][-1] == "true"
