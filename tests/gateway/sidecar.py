"""A sidecar as an application pod runs it: the real Envoy, started with what the pod has, and a volume in which files come and go."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.gateway.gateway import Gateway
from tests.gateway.mounts import Mount
from tests.unit.gateway.envoy_process import envoy_binary

from fairlead.gateway.envoy.sidecar import SIDECAR_SETTINGS, make_fallback_files, make_sidecar_bootstrap
from fairlead.planning.route.injection import make_injection
from fairlead_cluster.ports import free_ports

__all__ = ["Sidecar", "running_sidecar"]


class Sidecar(Gateway):
    """`project`: what the kubelet does when ConfigMaps, Secrets or the pod's own annotations change: later sources win."""

    fallback: Mapping[str, str]

    def project(self, *sources: Mapping[str, str]) -> None:
        """One swap with all of them."""
        files = dict(self.fallback)
        for source in sources:
            files |= source
        self.mount(self.settings.routing_directory).write(files)


@contextmanager
def running_sidecar(default_authorities: Path, *, has_authorities: bool = False) -> Iterator[Sidecar]:
    """One that has never heard of its route."""
    directory = Path(tempfile.mkdtemp(prefix="sc-", dir="/tmp"))  # short: the admin socket's path has 107 bytes
    port, status_port = free_ports(2)
    files = f"{directory}/files"
    settings = replace(
        SIDECAR_SETTINGS,
        port=port,
        status_port=status_port,
        bootstrap_directory=files,
        routing_directory=files,
        clients_directory=files,
        default_authorities=str(default_authorities),
        admin_socket=f"{directory}/admin.sock",
    )
    fallback = make_fallback_files("assistants", settings, has_authorities=has_authorities)
    Mount(Path(files)).write(fallback)
    # As it is injected, but for what processes beside it need.
    _, _, *options = make_injection("assistants", "").container["args"]
    command = [str(envoy_binary()), "--config-yaml", make_sidecar_bootstrap(settings), *options]
    command += ["--log-path", f"{directory}/envoy.log"]
    with (directory / "access.log").open("ab") as access:
        process = subprocess.Popen(command, stdout=access, stderr=subprocess.STDOUT)
    sidecar = Sidecar(process, directory, settings)
    sidecar.fallback = fallback
    try:
        yield sidecar
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(directory, ignore_errors=True)
