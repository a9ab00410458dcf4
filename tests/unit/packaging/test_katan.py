"""llm-katan's folder in the cache: another one for another lock file, and none that is half there."""

from __future__ import annotations

from pathlib import Path

import pytest
from hack import katan

from fairlead_cluster.errors import BuildError


def test_the_folder_follows_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "katan.txt"
    lock.write_text(katan.LOCK.read_text())
    before = katan.directory_in(tmp_path, lock)
    assert before == katan.directory_in(tmp_path)
    assert katan.pinned_version(lock) in before.name
    lock.write_text(f"{katan.LOCK.read_text()}\n")
    assert katan.directory_in(tmp_path, lock) != before
    lock.write_text("llm-katana==1.0\n")
    with pytest.raises(BuildError, match=r"does not pin llm-katan"):
        katan.directory_in(tmp_path, lock)


def test_what_is_there_is_not_installed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"FAIRLEAD_CACHE": str(tmp_path)}
    installed = []

    def install(lock: Path, target: Path) -> None:
        installed.append(lock)
        (target / "llm_katan").mkdir(parents=True)
        (target / "llm_katan" / "cli.py").touch()

    monkeypatch.setattr(katan, "install_wheels", install)
    assert katan.find(environ) is None
    directory = katan.find_or_install(lambda _: None, environ)
    assert katan.find_or_install(lambda _: None, environ) == katan.find(environ) == directory
    assert installed == [katan.LOCK]


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(lock: Path, target: Path) -> None:
        (target / "llm_katan").mkdir(parents=True)
        raise BuildError("pip said no")

    monkeypatch.setattr(katan, "install_wheels", fail)
    with pytest.raises(BuildError, match="pip said no"):
        katan.find_or_install(lambda _: None, {"FAIRLEAD_CACHE": str(tmp_path)})
    assert [path.name for path in (tmp_path / "tools").iterdir() if not path.name.endswith(".lock")] == []
