"""Finds the third-party tools in the cache, or builds them there (2 to 4 minutes on 2 cores, once).

Keyed by what goes into the program, as the control plane is; a `helm` on PATH is not used, since its version decides
what the chart's rendering looks like.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fairlead_cluster.cache import cache_dir, exclusive
from fairlead_cluster.errors import BuildError
from fairlead_cluster.gotoolchain import find_or_install_go

HELM_VERSION = "v4.3.1"
GOMODULE = Path(__file__).parent / "gomodule"
COMMANDS = ("helm", "kind", "kstatus")
_LDFLAGS = f"-s -w -X helm.sh/helm/v4/internal/version.version={HELM_VERSION}"


@dataclass(frozen=True, slots=True)
class Tools:
    """Paths of the commands."""

    helm: Path
    kind: Path
    kstatus: Path


def find(environ: Mapping[str, str] = os.environ) -> Tools | None:
    """The tools if they are in the cache."""
    directory = directory_in(cache_dir(environ))
    if not (directory / "tools").is_file():
        return None
    return Tools(*(directory / command for command in COMMANDS))


def find_or_build(say: Callable[[str], None], environ: Mapping[str, str] = os.environ) -> Tools:
    """The tools; builds them if need be. Raises BuildError with what Go said."""
    target = directory_in(cache_dir(environ))
    with exclusive(target.with_name(f"{target.name}.lock"), lambda: say("another process builds the tools: waiting")):
        if not (target / "tools").is_file():
            say(f"building helm {HELM_VERSION}, kind and kstatus once into {target} (2 to 4 minutes on 2 cores)")
            build(target, find_or_install_go(cache_dir(environ), say), environ)
    tools = find(environ)
    if tools is None:
        raise BuildError("the tools were built but are not in the cache: was it emptied meanwhile?")
    return tools


def directory_in(cache: Path) -> Path:
    """Changes exactly when something that goes into the program changes."""
    digest = hashlib.sha256(f"{platform.system()} {platform.machine()}\n{_LDFLAGS}\n".encode())
    for name in ("main.go", "go.mod", "go.sum"):
        digest.update((GOMODULE / name).read_bytes())
    return cache / "tools" / f"helm-{HELM_VERSION}-{digest.hexdigest()[:16]}"


def build(target: Path, go: Path, environ: Mapping[str, str]) -> None:
    """Compile beside `target` and rename, so that a reader sees all or nothing."""
    environment = {name: value for name, value in environ.items() if name not in ("GOOS", "GOARCH", "GOROOT", "GOBIN")}
    environment.update(CGO_ENABLED="0", GOFLAGS="-mod=readonly", GOTOOLCHAIN="local", GOWORK="off")
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{target.name}.partial-"))
    try:
        command = [str(go), "build", "-trimpath", "-ldflags", _LDFLAGS, "-o", str(partial / "tools"), "."]
        done = subprocess.run(command, cwd=GOMODULE, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BuildError(f"go build ended with {done.returncode}:\n{done.stderr[-2000:]}")
        for name in COMMANDS:
            (partial / name).symlink_to("tools")
        partial.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
