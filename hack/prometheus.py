"""Prometheus and Alertmanager of this machine's distribution, unpacked once into the user's cache: what rules and webhooks are judged by.

Unpacked, not installed: no root is needed, no service is started, and the machine stays as it is. `python -m hack.prometheus` takes some
seconds where `apt-get` works; commands that are on PATH already are used as they are.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairlead_cluster.cache import cache_dir, exclusive
from fairlead_cluster.errors import BuildError

PACKAGES = ("prometheus", "prometheus-alertmanager")
#: Names under which distributions and the project itself ship them.
COMMANDS = {
    "prometheus": ("prometheus",),
    "promtool": ("promtool",),
    "alertmanager": ("prometheus-alertmanager", "alertmanager"),
}
TIMEOUT_S = 300.0
#: Debian's Alertmanager has the place of this file built in.
TEMPLATE = Path("/usr/share/prometheus/alertmanager/default.tmpl")


@dataclass(frozen=True, slots=True)
class Monitoring:
    """Paths of the commands."""

    prometheus: Path
    promtool: Path
    alertmanager: Path

    @property
    def alertmanager_command(self) -> list[str]:
        """How Alertmanager is started. Where it is not installed it sees the /usr/share that it was unpacked with, in a mount namespace of
        its own. Raises BuildError where that is not permitted."""
        share = self.alertmanager.parents[1] / "share"
        if TEMPLATE.exists() or not (share / TEMPLATE.relative_to("/usr/share")).exists():
            return [str(self.alertmanager)]
        namespace = ["unshare", "--map-root-user", "--mount"]
        run([*namespace, "true"], self.alertmanager.parent)
        script = 'mount --bind "$1" /usr/share && shift && exec "$@"'
        return [*namespace, "sh", "-c", script, "sh", str(share), str(self.alertmanager)]


def find(environ: Mapping[str, str] = os.environ) -> Monitoring | None:
    """The commands, if all of them are on PATH or all of them in the cache."""
    return _find_on(environ.get("PATH", "")) or _find_on(str(directory_in(cache_dir(environ)) / "usr/bin"))


def _find_on(path: str) -> Monitoring | None:
    found: dict[str, Path] = {}
    for command, names in COMMANDS.items():
        where = next((hit for name in names if (hit := shutil.which(name, path=path))), None)
        if where is None:
            return None
        found[command] = Path(where)
    return Monitoring(**found)


def find_or_unpack(say: Callable[[str], None], environ: Mapping[str, str] = os.environ) -> Monitoring:
    """The same; unpacks the packages if need be. Raises BuildError with what apt-get or dpkg-deb said."""
    target = directory_in(cache_dir(environ))
    with exclusive(target.with_name(f"{target.name}.lock"), lambda: say("somebody else unpacks Prometheus: waiting")):
        found = find(environ)
        if found is None:
            say(f"unpacking {' and '.join(PACKAGES)} once into {target}")
            _unpack_into(target)
            found = find(environ)
    if found is None:
        raise BuildError(f"the packages were unpacked, but the commands are not in {target}")
    return found


def directory_in(cache: Path) -> Path:
    """Another one for another release of the distribution."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    named = f"{release.get('ID', platform.system().lower())}{release.get('VERSION_ID', '')}"
    return cache / "tools" / f"prometheus-{named}-{platform.machine()}"


def _unpack_into(target: Path) -> None:
    """Beside `target`, then renamed, so that a reader sees all or nothing."""
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{target.name}.partial-"))
    try:
        packages = _download(partial / "packages")
        for package in packages:
            run(["dpkg-deb", "-x", str(package), str(partial)], partial)
        shutil.rmtree(partial / "packages")
        partial.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _download(folder: Path) -> list[Path]:
    """apt-get checks signatures. A machine whose lists are empty or old gets new ones, which needs root."""
    folder.mkdir()
    try:
        run(["apt-get", "download", *PACKAGES], folder)
    except BuildError:
        run(["apt-get", "update"], folder)
        run(["apt-get", "download", *PACKAGES], folder)
    return sorted(folder.glob("*.deb"))


def run(command: Sequence[str], folder: Path) -> None:
    """Raises BuildError with the last words of a command that fails or is not there."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)} ended with {done.returncode}:\n{(done.stderr or done.stdout)[-2000:]}")


def main() -> int:
    """0 and the commands on stdout, or 1 and the reason on stderr."""
    try:
        found = find_or_unpack(lambda line: print(line, file=sys.stderr, flush=True))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(found.prometheus, found.promtool, found.alertmanager, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
