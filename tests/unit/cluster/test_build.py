"""Where the control plane comes from, and that two builds never get into each other's way."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from fairlead_cluster import build, gotoolchain
from fairlead_cluster.build import COMPONENTS, cache_key, find, find_or_build, install
from fairlead_cluster.cache import cache_dir, exclusive
from fairlead_cluster.errors import BuildError

ENVTEST = ("etcd", "kube-apiserver", "kubectl")


def put_commands(directory: Path, names: tuple[str, ...]) -> Path:
    """Executable files of these names."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).write_text("#!/bin/sh\n")
        (directory / name).chmod(0o755)
    return directory


def put_built(cache: Path) -> Path:
    """A finished build in the cache."""
    directory = build.built_directory(cache)
    put_commands(directory, COMPONENTS)
    (directory / "controlplane").write_text("binary")
    return directory


def test_cache_wins_where_nothing_else_is_said(tmp_path: Path) -> None:
    directory = put_built(tmp_path)
    found = find({"FAIRLEAD_CACHE": str(tmp_path)})
    assert found is not None
    assert found.etcd == directory / "etcd"
    assert found.kube_scheduler == directory / "kube-scheduler"


def test_nothing_is_found_in_an_empty_cache(tmp_path: Path) -> None:
    assert find({"FAIRLEAD_CACHE": str(tmp_path)}) is None


def test_complete_assets_are_used_alone(tmp_path: Path) -> None:
    put_built(tmp_path / "cache")
    assets = put_commands(tmp_path / "assets", COMPONENTS)
    found = find({"FAIRLEAD_CACHE": str(tmp_path / "cache"), "KUBEBUILDER_ASSETS": str(assets)})
    assert found is not None
    assert {found.etcd.parent, found.kube_controller_manager.parent, found.kubectl.parent} == {assets}
    assert found.origin == "KUBEBUILDER_ASSETS"


def test_envtest_assets_are_completed_from_the_cache_and_it_says_so(tmp_path: Path) -> None:
    built = put_built(tmp_path / "cache")
    assets = put_commands(tmp_path / "assets", ENVTEST)
    found = find({"FAIRLEAD_CACHE": str(tmp_path / "cache"), "KUBEBUILDER_ASSETS": str(assets)})
    assert found is not None
    assert found.kube_apiserver == assets / "kube-apiserver"
    assert found.kube_controller_manager == built / "kube-controller-manager"
    assert found.kube_scheduler == built / "kube-scheduler"
    assert "kube-controller-manager and kube-scheduler" in found.origin


def test_envtest_assets_alone_are_not_enough(tmp_path: Path) -> None:
    assets = put_commands(tmp_path / "assets", ENVTEST)
    assert find({"FAIRLEAD_CACHE": str(tmp_path / "cache"), "KUBEBUILDER_ASSETS": str(assets)}) is None


@pytest.mark.parametrize("missing", ENVTEST)
def test_useless_assets_are_refused_by_name(tmp_path: Path, missing: str) -> None:
    put_built(tmp_path / "cache")
    assets = put_commands(tmp_path / "assets", tuple(name for name in COMPONENTS if name != missing))
    with pytest.raises(BuildError, match=f"has no {missing}"):
        find({"FAIRLEAD_CACHE": str(tmp_path / "cache"), "KUBEBUILDER_ASSETS": str(assets)})


@pytest.mark.parametrize("name", ["main.go", "go.mod", "go.sum"])
def test_a_changed_source_changes_the_key(tmp_path: Path, name: str) -> None:
    copy = tmp_path / "gomodule"
    shutil.copytree(build.GOMODULE, copy)
    assert cache_key(copy) == cache_key()
    with (copy / name).open("a") as file:
        file.write("\n// changed\n")
    assert cache_key(copy) != cache_key()


def test_other_files_do_not_change_the_key(tmp_path: Path) -> None:
    copy = tmp_path / "gomodule"
    shutil.copytree(build.GOMODULE, copy)
    (copy / "notes.txt").write_text("x")
    assert cache_key(copy) == cache_key()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"FAIRLEAD_CACHE": "/a/b", "XDG_CACHE_HOME": "/x"}, Path("/a/b")),
        ({"XDG_CACHE_HOME": "/x"}, Path("/x/fairlead")),
        ({"XDG_CACHE_HOME": "relative"}, Path.home() / ".cache" / "fairlead"),
        ({"XDG_CACHE_HOME": ""}, Path.home() / ".cache" / "fairlead"),
        ({}, Path.home() / ".cache" / "fairlead"),
    ],
)
def test_cache_dir(environ: dict[str, str], expected: Path) -> None:
    assert cache_dir(environ) == expected


def test_install_replaces_a_broken_build(tmp_path: Path) -> None:
    source = tmp_path / "partial"
    source.mkdir()
    (source / "controlplane").write_text("binary")
    target = put_commands(tmp_path / "target", ("etcd",))
    install(source, target)
    assert not source.exists()
    assert {(target / name).read_text() for name in COMPONENTS} == {"binary"}


def put_go(directory: Path, script: str) -> str:
    """A stand-in for the go command; the PATH on which it is the only one besides the system's."""
    put_commands(directory, ("go",))
    (directory / "go").write_text(f"#!/bin/sh\n{script}\n")
    return f"{directory}{os.pathsep}/usr/bin{os.pathsep}/bin"


GO_THAT_BUILDS = """
echo "$*" >> "$GO_LOG"
case "$1" in
env) echo go1.26.0 ;;
list) echo one; echo two ;;
build) sleep 0.5; while [ "$1" != -o ]; do shift; done; echo binary > "$2" ;;
esac"""


def test_two_builds_at_once_compile_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", put_go(tmp_path / "bin", GO_THAT_BUILDS))
    monkeypatch.setenv("GO_LOG", str(tmp_path / "go.log"))
    monkeypatch.setenv("FAIRLEAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    said: list[str] = []
    threads = [threading.Thread(target=lambda: find_or_build(dict(os.environ), said.append)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = find(dict(os.environ))
    assert found is not None
    assert found.kubectl.read_text() == "binary\n"
    calls = (tmp_path / "go.log").read_text().splitlines()
    assert len([call for call in calls if call.startswith("build")]) == 1
    assert "another process builds the control plane: waiting for it" in said
    leftovers = [path.name for path in (tmp_path / "cache" / "controlplane").iterdir() if "partial" in path.name]
    assert leftovers == []


def test_a_failed_build_says_what_go_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = 'case "$1" in env) echo go1.26.0;; list) ;; *) echo "undefined: frobnicate" >&2; exit 1;; esac'
    monkeypatch.setenv("PATH", put_go(tmp_path / "bin", script))
    environ = {**os.environ, "FAIRLEAD_CACHE": str(tmp_path / "cache")}
    environ.pop("KUBEBUILDER_ASSETS", None)
    with pytest.raises(BuildError, match="undefined: frobnicate"):
        find_or_build(environ, lambda _line: None)
    assert [path.suffix for path in (tmp_path / "cache" / "controlplane").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("answer", "expected"), [("go1.26.8", (1, 26)), ("go1.27rc1", (1, 27)), ("devel", None), ("", None)]
)
def test_go_version(tmp_path: Path, answer: str, expected: tuple[int, int] | None) -> None:
    put_go(tmp_path, f"echo {answer}")
    assert gotoolchain.go_version(tmp_path / "go") == expected


def test_an_old_go_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", put_go(tmp_path / "bin", "echo go1.21.0"))
    wheel = tmp_path / "cache" / "go" / gotoolchain.pinned_wheel().partition("==")[2] / "go" / "bin"
    put_go(wheel, "echo go1.26.6")
    said: list[str] = []
    assert gotoolchain.find_or_install_go(tmp_path / "cache", said.append) == wheel / "go"
    assert said == ["go on PATH is 1.21, the control plane needs 1.26 or newer"]


def test_the_pinned_wheel_has_hashes_and_is_new_enough() -> None:
    text = (Path(__file__).parents[3] / "requirements" / "go.txt").read_text()
    assert text.count("--hash=sha256:") >= 2
    major, minor = gotoolchain.pinned_wheel().partition("==")[2].split(".")[:2]
    assert (int(major), int(minor)) >= gotoolchain.MINIMUM_VERSION


def test_without_the_pin_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="install Go"):
        gotoolchain.pinned_wheel(tmp_path / "go.txt")


def test_the_lock_is_free_again_after_a_failure(tmp_path: Path) -> None:
    waited: list[str] = []
    with pytest.raises(RuntimeError), exclusive(tmp_path / "lock", lambda: waited.append("waited")):
        raise RuntimeError
    with exclusive(tmp_path / "lock", lambda: waited.append("waited")):
        pass
    assert waited == []
