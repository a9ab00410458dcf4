"""Building real engines: what decides the cache key, what a missing compiler says, and how `bin/` changes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fairlead_cluster import engines
from fairlead_cluster.errors import BuildError


@pytest.fixture
def gomodules(tmp_path: Path) -> Path:
    copied = tmp_path / "engines_gomodule"
    shutil.copytree(engines.GOMODULES, copied)
    return copied


def fake_ollama(path: Path, version: str = engines.OLLAMA_VERSION) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho ollama version is {version}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("file", ["ollama/go.mod", "ollama/go.sum", "headers/go.mod", "headers/go.sum"])
def test_the_key_changes_with_everything_that_pins_the_build(gomodules: Path, file: str) -> None:
    before = engines.cache_key(gomodules)
    assert before == engines.cache_key(gomodules)
    (gomodules / file).write_text((gomodules / file).read_text() + "\n")
    assert engines.cache_key(gomodules) != before


def test_the_module_pins_the_version_that_the_binary_calls_itself() -> None:
    assert f"github.com/ollama/ollama v{engines.OLLAMA_VERSION}" in (engines.GOMODULES / "ollama/go.mod").read_text()
    sums = (engines.GOMODULES / "ollama/go.sum").read_text()
    assert f"github.com/ollama/ollama v{engines.OLLAMA_VERSION} h1:" in sums
    for module in ("github.com/gen2brain/malgo v", "github.com/ollama/ollama v"):
        assert module in (engines.GOMODULES / "headers/go.sum").read_text()


def test_nothing_is_found_in_an_empty_cache(tmp_path: Path) -> None:
    assert engines.find_ollama({"FAIRLEAD_CACHE": str(tmp_path)}) is None


def test_a_build_of_another_module_does_not_count(tmp_path: Path) -> None:
    environ = {"FAIRLEAD_CACHE": str(tmp_path)}
    fake_ollama(tmp_path / "engines" / f"ollama-{engines.OLLAMA_VERSION}-0123456789abcdef" / "ollama")
    assert engines.find_ollama(environ) is None
    current = fake_ollama(tmp_path / "engines" / f"ollama-{engines.OLLAMA_VERSION}-{engines.cache_key()}" / "ollama")
    assert engines.find_ollama(environ) == current


def test_what_is_built_is_not_built_again_and_the_name_in_bin_follows(tmp_path: Path) -> None:
    environ = {"FAIRLEAD_CACHE": str(tmp_path), "PATH": ""}  # no compiler: a build would fail
    current = fake_ollama(tmp_path / "engines" / f"ollama-{engines.OLLAMA_VERSION}-{engines.cache_key()}" / "ollama")
    link = engines.bin_directory(environ) / "ollama"
    link.parent.mkdir(parents=True)
    link.symlink_to("../ollama-of-yesterday/ollama")
    assert engines.build_ollama(environ, lambda _: None) == current
    assert link.resolve() == current
    assert not link.readlink().is_absolute(), "the cache can be moved"
    assert (
        engines.OLLAMA_VERSION in subprocess.run([link, "--version"], capture_output=True, text=True, check=True).stdout
    )


def test_a_missing_compiler_is_named_before_anything_is_downloaded(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(BuildError, match=r"a C compiler: there is no `gcc` on PATH"):
        engines.build_ollama({"FAIRLEAD_CACHE": str(tmp_path), "PATH": ""}, said.append)
    assert not any("fetching" in line for line in said)
    leftovers = [path.name for path in (tmp_path / "engines").iterdir() if not path.name.endswith(".lock")]
    assert leftovers == []


def test_a_compiler_may_be_named_with_its_flags(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="there is no `no-such-cc` on PATH"):
        engines.build_ollama(
            {"FAIRLEAD_CACHE": str(tmp_path), "CC": "no-such-cc -O1", "PATH": "/usr/bin"}, lambda _: None
        )


def test_a_binary_that_says_another_version_is_refused(tmp_path: Path) -> None:
    engines._check_version(fake_ollama(tmp_path / "right"))
    with pytest.raises(BuildError, match="does not say that it is"):
        engines._check_version(fake_ollama(tmp_path / "wrong", "0.0.0"))


def test_the_command_says_that_nothing_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAIRLEAD_CACHE", str(tmp_path))
    assert engines.main(["find"]) == 1
    assert "make engines" in capsys.readouterr().err
