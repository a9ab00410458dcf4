"""A gateway as a pod runs it: the real Envoy with the files that fairlead renders, in directories that are swapped under it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from tests.gateway.mounts import Mount
from tests.unit.gateway.envoy_process import envoy_binary

from fairlead.gateway.envoy import GatewaySettings, render_files
from fairlead.gateway.envoy.clients import AUTHENTICATION_FILE, TokenIssuer, render_authentication
from fairlead.gateway.envoy.loaded import AUTHENTICATION, find_rejected, read_healthy, read_loaded
from fairlead.gateway.envoy.withdrawal import withdraw
from fairlead.gateway.table import RouteTable
from fairlead.planning.route.publishing import Step, choose_step, is_loaded
from fairlead_cluster.ports import free_ports

__all__ = ["Gateway", "running_gateway"]

Json = dict[str, Any]
#: For what takes milliseconds on an idle machine.
PATIENCE_S = 60.0


@dataclass
class Gateway:
    """One Envoy and what it mounts. `live`: the routing that is published, as the ConfigMaps would hold it."""

    process: subprocess.Popen[bytes]
    directory: Path
    settings: GatewaySettings
    live: Mapping[str, str] | None = None
    mounts: dict[str, Mount] = field(default_factory=dict)
    command: tuple[str, ...] = ()

    def start_again(self) -> None:
        """Kill Envoy, as a node that fails does, and start it with the same files. Returns when it serves."""
        self.process.kill()
        self.process.wait()
        self.process = _start(self.command, self.directory)
        self.until(lambda: _answers(f"{self.url}/healthz"), "serving again")
        self.confirm()

    @property
    def url(self) -> str:
        """Where clients go, without /v1."""
        return f"{'https' if self.settings.is_tls else 'http'}://127.0.0.1:{self.settings.port}"

    @property
    def log(self) -> str:
        """What Envoy wrote so far, without the access log."""
        return (self.directory / "envoy.log").read_text(errors="replace")

    @property
    def access_log(self) -> str:
        """What it wrote on its standard output. Envoy does so a line or more at a time."""
        return (self.directory / "access.log").read_text(errors="replace")

    def mount(self, path: str) -> Mount:
        """The volume at this path."""
        return self.mounts.setdefault(path, Mount(Path(path)))

    def generation(self) -> Json:
        """What it says of itself, as the operator asks it."""
        answer = httpx.get(f"http://127.0.0.1:{self.settings.status_port}/generation", timeout=5)
        answer.raise_for_status()
        return dict(answer.json())

    def loaded(self) -> dict[str, str]:
        """File -> version."""
        return read_loaded(self.generation())

    def rejected(self) -> tuple[str, ...]:
        """Files that it refused at some time."""
        return find_rejected(self.generation())

    def healthy(self) -> dict[str, int]:
        """backend~place -> hosts that it would send to."""
        return read_healthy(self.generation())

    def until(self, wanted: Callable[[], bool], what: str = "that") -> None:
        """Wait for it. AssertionError with Envoy's log if it does not come."""
        deadline = time.monotonic() + PATIENCE_S
        while not wanted():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, f"{what} did not happen\n{self.log}"
            time.sleep(0.02)

    def put(self, files: Mapping[str, str], between: Callable[[], None] = lambda: None) -> None:
        """Publish this routing as it is, in one swap."""
        self.mount(self.settings.routing_directory).write(files, between)
        self.live = dict(files)

    def confirm(self) -> None:
        """Wait until it has loaded what is published."""
        assert self.live is not None
        self.until(lambda: is_loaded(self.live or {}, [self.loaded()]), "loading")

    def publish(self, table: RouteTable, on_step: Callable[[Step], object] = bool) -> list[Step]:
        """As the operator does it: step by step, each confirmed before the next. `on_step` is told of each confirmed one."""
        wanted = render_files(table, self.settings).routing
        steps: list[Step] = []
        for _ in range(10):
            loaded = [self.loaded()] if self.live is not None else []
            step = choose_step(wanted, self.live, loaded, partial(withdraw, table=table))
            if self.live is not None and dict(step.files) == dict(self.live):
                assert step.is_last
                return steps
            self.put(step.files)
            self.confirm()
            steps.append(step)
            on_step(step)
        raise AssertionError(f"no end of steps: {[step.phase for step in steps]}")

    def let_in(
        self,
        keys: Mapping[str, tuple[str, ...]] | None,
        version: str,
        *,
        anonymous: bool,
        tokens: TokenIssuer | None = None,
    ) -> None:
        """Publish who may call, and wait until that holds."""
        text = render_authentication(keys, version, anonymous=anonymous, tokens=tokens)
        self.mount(self.settings.clients_directory).write({AUTHENTICATION_FILE: text})
        self.until(lambda: self.loaded().get(AUTHENTICATION) == version, "loading the keys")

    def give_key(self, secret: str, **data: str) -> None:
        """What a provider's Secret holds from now on. Nobody tells when Envoy has read it."""
        self.mount(self.settings.key_directory(secret)).write(data)


@contextmanager
def running_gateway(
    table: RouteTable,
    secrets: Mapping[str, Mapping[str, str]],
    authorities: Path,
    keys: Mapping[str, tuple[str, ...]] | None = None,
    certificate: Mapping[str, str] | None = None,
    authority_secrets: Mapping[str, Mapping[str, str]] | None = None,
    **settings: Any,
) -> Iterator[Gateway]:
    """A gateway that serves this table. `secrets`: those of providers, with their keys; `authorities`: who signs for providers that
    name no Secret of `authority_secrets`; `certificate`: what the Secret of its own certificate holds, None without TLS."""
    directory = Path(tempfile.mkdtemp(prefix="gw-", dir="/tmp"))  # short: the admin socket's path has 107 bytes
    port, status_port = free_ports(2)
    made = GatewaySettings(
        address="127.0.0.1",
        port=port,
        status_port=status_port,
        bootstrap_directory=f"{directory}/bootstrap",
        routing_directory=f"{directory}/routing",
        clients_directory=f"{directory}/clients",
        providers_directory=f"{directory}/providers",
        authorities_directory=f"{directory}/authorities",
        default_authorities=str(authorities),
        certificate_directory=f"{directory}/certificate",
        is_tls=certificate is not None,
        admin_socket=f"{directory}/admin.sock",
    )
    made = replace(made, **settings)
    files = render_files(table, made)
    Mount(Path(made.bootstrap_directory)).write(files.bootstrap)
    mounts = {path: Mount(Path(path)) for path in (made.routing_directory, made.clients_directory)}
    mounts[made.routing_directory].write(files.routing)
    anonymous = table.anonymous is not None
    mounts[made.clients_directory].write({AUTHENTICATION_FILE: render_authentication(keys, "0", anonymous=anonymous)})
    if certificate is not None:
        mounts[made.certificate_directory] = Mount(Path(made.certificate_directory))
        mounts[made.certificate_directory].write(certificate)
    for secret, data in secrets.items():
        mounts[made.key_directory(secret)] = Mount(Path(made.key_directory(secret)))
        mounts[made.key_directory(secret)].write(data)
    for secret, data in (authority_secrets or {}).items():
        Mount(Path(made.authorities_directory_of(secret))).write(data)
    # As planning/gateway.py starts it, but for what processes beside it need.
    command = [str(envoy_binary()), "--config-path", f"{made.bootstrap_directory}/bootstrap.json", "--concurrency", "2",
               "--disable-hot-restart", "--reject-unknown-dynamic-fields", "--log-level", "warning",
               "--log-path", f"{directory}/envoy.log"]  # fmt: skip
    gateway = Gateway(_start(command, directory), directory, made, files.routing, mounts, tuple(command))
    try:
        gateway.until(lambda: _answers(f"{gateway.url}/healthz"), "serving")
        gateway.confirm()
        yield gateway
    finally:
        gateway.process.terminate()
        try:
            gateway.process.wait(10)
        except subprocess.TimeoutExpired:
            gateway.process.kill()
            gateway.process.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _start(command: Sequence[str], directory: Path) -> subprocess.Popen[bytes]:
    with (directory / "access.log").open("ab") as access:
        return subprocess.Popen(command, stdout=access, stderr=subprocess.STDOUT)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, verify=False).status_code == 200
    except httpx.TransportError:
        return False
