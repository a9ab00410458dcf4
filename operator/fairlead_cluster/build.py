"""Finds the control plane's binaries, or builds them once into the user's cache.

Order: KUBEBUILDER_ASSETS (where setup-envtest users have them), the cache, a build from `gomodule/`. The cache is keyed
by what goes into the binary, so a changed go.mod never runs with yesterday's control plane.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fairlead_cluster.cache import cache_dir, exclusive
from fairlead_cluster.errors import BuildError
from fairlead_cluster.gobuild import Say as Say
from fairlead_cluster.gobuild import make_go_environment, run_go
from fairlead_cluster.gotoolchain import find_or_install_go

KUBERNETES_VERSION = "v1.36.3"
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
GOMODULE = Path(__file__).parent / "gomodule"

_FROM_ENVTEST = ("etcd", "kube-apiserver", "kubectl")
_VERSION_PACKAGE = "k8s.io/component-base/version"
# Without its version the server calls itself v0.0.0-master, and kubectl and charts with `kubeVersion` misbehave.
_LDFLAGS = (
    f"-s -w -X {_VERSION_PACKAGE}.gitVersion={KUBERNETES_VERSION} "
    f"-X {_VERSION_PACKAGE}.gitMajor={KUBERNETES_VERSION[1:].split('.')[0]} "
    f"-X {_VERSION_PACKAGE}.gitMinor={KUBERNETES_VERSION.split('.')[1]}"
)


def say_on_stderr(line: str) -> None:
    """Progress goes to stderr, so that stdout stays usable by scripts."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where the five commands are, and in a few words where they come from."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    kube_scheduler: Path
    kubectl: Path
    origin: str


def find_or_build(environ: Mapping[str, str] = os.environ, say: Say = say_on_stderr) -> Binaries:
    """The control plane's binaries; builds them (about 6 minutes on 2 cores, the first time) if they are nowhere.

    Raises BuildError with what to do.
    """
    found = find(environ)
    if found is None:
        build(cache_dir(environ), environ, say)
        found = find(environ)
    if found is None:
        raise BuildError("the control plane was built but is not in the cache: was the cache emptied meanwhile?")
    return found


def find(environ: Mapping[str, str] = os.environ) -> Binaries | None:
    """The binaries if they can be had without building, else None. BuildError if KUBEBUILDER_ASSETS is no use."""
    built_dir = built_directory(cache_dir(environ))
    built = _in_directory(built_dir, "the cache") if (built_dir / "controlplane").is_file() else None
    assets = environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        return built
    directory = Path(assets).expanduser()
    missing = [name for name in COMPONENTS if not os.access(directory / name, os.X_OK)]
    if lacking := [name for name in _FROM_ENVTEST if name in missing]:
        raise BuildError(
            f"KUBEBUILDER_ASSETS={assets} has no {', '.join(lacking)}: unset it, or fill it with setup-envtest"
        )
    envtest = _in_directory(directory, "KUBEBUILDER_ASSETS")
    if not missing:
        return envtest
    if built is None:
        return None
    ours = {name.replace("-", "_"): built_dir / name for name in missing}
    return replace(
        envtest, **ours, origin=f"KUBEBUILDER_ASSETS, but {' and '.join(missing)} ({KUBERNETES_VERSION}) from the cache"
    )


def _in_directory(directory: Path, origin: str) -> Binaries:
    return Binaries(
        etcd=directory / "etcd",
        kube_apiserver=directory / "kube-apiserver",
        kube_controller_manager=directory / "kube-controller-manager",
        kube_scheduler=directory / "kube-scheduler",
        kubectl=directory / "kubectl",
        origin=origin,
    )


def cache_key(gomodule: Path = GOMODULE) -> str:
    """Changes exactly when something that goes into the binary changes: sources, sums, link flags, machine type."""
    digest = hashlib.sha256(f"{platform.system()} {platform.machine()}\n{_LDFLAGS}\n".encode())
    for name in ("main.go", "go.mod", "go.sum"):
        data = (gomodule / name).read_bytes()
        digest.update(f"{name} {len(data)}\n".encode() + data)
    return digest.hexdigest()[:16]


def built_directory(cache: Path) -> Path:
    """Folder of the multi-call binary and its five names, for the Go module as it is now."""
    return cache / "controlplane" / f"{KUBERNETES_VERSION}-{cache_key()}"


def build(cache: Path, environ: Mapping[str, str] = os.environ, say: Say = say_on_stderr) -> Path:
    """Build the control plane into the cache unless somebody else did meanwhile; returns its folder."""
    target = built_directory(cache)
    lock = target.with_name(f"{target.name}.lock")
    with exclusive(lock, lambda: say("another process builds the control plane: waiting for it")):
        if (target / "controlplane").is_file():
            return target
        started = time.monotonic()
        say(f"building the Kubernetes {KUBERNETES_VERSION} control plane once into {target}")
        say("about 6 minutes on 2 cores from nothing, and some 3 GB for Go's caches; later runs start in seconds")
        go = find_or_install_go(cache, say)
        partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{target.name}.partial-"))
        try:
            _compile(go, partial / "controlplane", environ, say)
            install(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        say(f"control plane built in {time.monotonic() - started:.0f} s")
    return target


def install(source: Path, target: Path) -> None:
    """Put `source/controlplane` and its five names at `target`, atomically: a reader sees all of it or nothing."""
    for name in COMPONENTS:
        (source / name).symlink_to("controlplane")
    source.chmod(0o755)
    shutil.rmtree(target, ignore_errors=True)  # only a broken one, without its binary, gets here
    source.rename(target)


def _compile(go: Path, output: Path, environ: Mapping[str, str], say: Say) -> None:
    environment = make_go_environment(environ, cgo=False)
    say("fetching the Go modules (about 400 MB unpacked if none is there yet)")
    packages = run_go([str(go), "list", "-deps", "."], GOMODULE, environment, say, "fetching modules")
    say(f"compiling at most {len(packages)} packages, then linking")
    command = [str(go), "build", "-v", "-trimpath", "-ldflags", _LDFLAGS, "-o", str(output), "."]
    run_go(command, GOMODULE, environment, say, "compiling")


def describe(binaries: Binaries) -> str:
    """One line for people: versions and where the binaries come from."""
    answer = subprocess.run(
        [str(binaries.kube_apiserver), "--version"], capture_output=True, text=True, check=False, timeout=30
    )
    version = answer.stdout.strip() or "Kubernetes of unknown version"
    return f"{version} from {binaries.origin}: {binaries.kube_apiserver.parent}"


def read_client_version(kubectl: Path) -> str:
    """What `kubectl version --client` says, as `v1.36.3`."""
    command = [str(kubectl), "version", "--client", "-o", "json"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    version: str = json.loads(answer.stdout)["clientVersion"]["gitVersion"]
    return version
