"""From a container's spec to a command on the host: search path, environment, paths, working directory.

What a container would find in its own file system is found here: mounted volumes at the host's directories, the
image's programs on the search path, and a directory of the container's own as HOME, TMPDIR (and /tmp) and working
directory if these are in no volume. With a read-only root file system HOME and TMPDIR outside of volumes are places where nobody can
write: a pod that forgets to mount them must not work here and fail on a real node.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead_cluster.node.expansion import expand
from fairlead_cluster.node.images import Image
from fairlead_cluster.node.podfields import PodContext
from fairlead_cluster.node.process import Command
from fairlead_cluster.node.resolving import search_environment
from fairlead_cluster.node.rewriting import Rewriter
from fairlead_cluster.node.views import View
from fairlead_cluster.node.volumes import PodVolumes

Json = dict[str, Any]

# Nothing can be created in /proc, not even by root.
_READ_ONLY_PLACE = "/proc/read-only-root-filesystem"
_ABSENT_PROGRAM = "/proc/not-in-this-image"
_TERMINATION_LOG = "/dev/termination-log"
_TMP = "/tmp"  # noqa: S108
_ROOTS_HOME = str(Path("/", "root"))  # where images that do not say otherwise have their HOME


class ContainerDirectory:
    """The files of one container that belong to no volume."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.termination_log = path / "termination-log"
        self.pins = path / "pins"
        self.views = path / "views"

    def prepare(self) -> None:
        """Empty, as the writable layer of a container that has just been created."""
        shutil.rmtree(self.path, ignore_errors=True)
        for name in ("home", "tmp", "root"):
            (self.path / name).mkdir(parents=True)
        self.termination_log.touch()


@dataclass(frozen=True, slots=True)
class Launch:
    """A container made ready to run: its main command, and what its hooks and exec probes need."""

    command: Command
    rewrite: Rewriter
    image: Image

    def exec_command(self, arguments: Sequence[str]) -> Command:
        """Another program in the same container."""
        return _command(arguments, self.rewrite, self.image, self.command.env, self.command.working_dir)


def make_launch(
    container: Json,
    image: Image,
    spec_env: Mapping[str, str],
    context: PodContext,
    volumes: PodVolumes,
    directory: ContainerDirectory,
    search_path: str,
) -> Launch:
    """Everything that is needed to start the container. MountError if a mount cannot be made."""
    directory.prepare()
    wanted = {**image.env, **spec_env}
    paths = _mounted_paths(container, image, wanted, volumes, directory)
    rewrite = Rewriter({**_programs(image, search_path), **paths}, context.pod_ip)
    if image.reads_files:
        names = frozenset(mount["name"] for mount in container.get("volumeMounts") or [])
        view = View(directory.views, names, Rewriter(paths, context.pod_ip))
        volumes.show(view)
        view.write_pins(directory.pins)
    env = {
        "HOSTNAME": context.pod["spec"].get("hostname") or context.pod["metadata"]["name"],
        **(search_environment(context.pod) if image.asks_cluster_dns else {}),
        **{name: rewrite(value) for name, value in wanted.items()},
    }
    env["PATH"] = os.pathsep.join(filter(None, (env.get("PATH"), search_path)))
    home, temporary = _home(wanted), wanted.get("TMPDIR", _TMP)
    env["HOME"] = Rewriter(paths, "").host_path(home) or str(directory.path / "home")
    env["TMPDIR"] = Rewriter(paths, "").host_path(temporary) or str(directory.path / "tmp")
    arguments = _arguments(container, image, wanted)
    working_dir = _working_dir(container.get("workingDir") or image.working_dir, Rewriter(paths, ""), directory)
    return Launch(_command(arguments, rewrite, image, env, working_dir), rewrite, image)


def _mounted_paths(
    container: Json, image: Image, env: Mapping[str, str], volumes: PodVolumes, directory: ContainerDirectory
) -> dict[str, str]:
    """Where container paths are on the host: mounts, the termination log, and HOME and TMPDIR if in no mount."""
    mounts = {mount["mountPath"].rstrip("/"): mount for mount in container.get("volumeMounts") or []}
    log = container.get("terminationMessagePath") or _TERMINATION_LOG
    paths = _own_places(container, env, [*mounts, log], directory)
    for inside in sorted([*mounts, log], key=len):
        if inside == log:
            host = directory.termination_log
        elif image.reads_files and volumes.is_projected(mounts[inside]):
            host = directory.views / mounts[inside]["name"]
        else:
            host = volumes.path(mounts[inside], env, directory.pins)
        parents = [path for path in paths if inside.startswith(f"{path}/")]
        if parents:
            parent = max(parents, key=len)
            _link_nested(Path(paths[parent]) / inside[len(parent) + 1 :], host)
        paths[inside] = str(host)
    return paths


def _own_places(
    container: Json, env: Mapping[str, str], mounts: Iterable[str], directory: ContainerDirectory
) -> dict[str, str]:
    read_only = bool((container.get("securityContext") or {}).get("readOnlyRootFilesystem"))
    places = {_home(env): "home", env.get("TMPDIR", _TMP).rstrip("/"): "tmp", _TMP: "tmp"}
    found = {}
    for path, name in places.items():
        if any(path == mount or path.startswith(f"{mount}/") for mount in mounts):
            continue
        # A runtime makes mount points also in a read-only root: what is below must stay reachable through the place.
        has_mounts = any(mount.startswith(f"{path}/") for mount in mounts)
        found[path] = f"{_READ_ONLY_PLACE}/{name}" if read_only and not has_mounts else str(directory.path / name)
    return {path: host for path, host in found.items() if path}


def _home(env: Mapping[str, str]) -> str:
    return env.get("HOME", _ROOTS_HOME).rstrip("/")


def _link_nested(link: Path, host: Path) -> None:
    """A mount inside of a mount: programs that walk down from the outer one must find the inner one, too."""
    if link.is_symlink():
        link.unlink()
    if not link.exists() and not any(part.startswith("..") for part in link.parts):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(host)


def _programs(image: Image, search_path: str) -> dict[str, str]:
    found = {path: shutil.which(name, path=search_path) for path, name in image.programs.items()}
    return {path: program for path, program in found.items() if program is not None}


def _arguments(container: Json, image: Image, env: Mapping[str, str]) -> list[str]:
    """`command` replaces the entrypoint and drops the image's arguments; `args` replace only those."""
    command, arguments = container.get("command") or [], container.get("args") or []
    chosen = [*command, *arguments] if command else [*image.entrypoint, *(arguments or image.arguments)]
    return [expand(one, env) for one in chosen]


def _working_dir(path: str, paths: Rewriter, directory: ContainerDirectory) -> Path:
    host = paths.host_path(path)
    is_usable = host is not None and not host.startswith(_READ_ONLY_PLACE)
    chosen = Path(str(host)) if is_usable else directory.path / "root" / path.strip("/")
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen


def _command(
    arguments: Sequence[str], rewrite: Rewriter, image: Image, env: Mapping[str, str], working_dir: Path
) -> Command:
    wanted = arguments[0] if arguments else ""
    rewritten = [rewrite(one) for one in arguments] or [""]
    if not image.has_shell and not any(wanted in (path, Path(path).name) for path in image.programs):
        return Command(_ABSENT_PROGRAM, rewritten, env, working_dir)
    program = rewritten[0]
    found = program if "/" in program else shutil.which(program, path=env["PATH"])
    # What is not found is passed on: starting it fails, with the words of a container runtime.
    return Command(found or program or "(no command specified)", rewritten, env, working_dir)
