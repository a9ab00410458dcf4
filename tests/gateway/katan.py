"""llm-katan as providers of a route: a server that we did not write, with TLS of its own, at the very address that the route names.

Of its backends nothing is replaced: `baseURL` names the loopback address, which this operator trusts, `caSecretRef` and `serverName`
say whose certificate it must show. `alpha`, a fake of ours, is the deployment to fall back on.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import httpx
from tests.gateway.gateway import Gateway, running_gateway
from tests.gateway.world import CATALOG, make_route_table, parse_route

from fairlead.facts.observed import OperatorFacts
from fairlead.facts.route import LocalDeployment, RouteFacts, SecretFacts
from fairlead.gateway.table import RouteTable
from fairlead.planning.route.backends import resolve_backends
from fairlead_cluster.certificates import Authority
from fairlead_cluster.ports import free_ports
from fairlead_cluster.processes import ManagedProcess, spawn, wait_until
from fairlead_cluster.providers import FakeProvider, FakeProviders

__all__ = ["ADDRESS", "SERVER_NAME", "Katan", "KatanWorld", "make_katan_world"]

Json = dict[str, Any]
ADDRESS, SERVER_NAME = "127.0.0.1", "llm.katan.example"
#: For what takes a second or two on an idle machine.
PATIENCE_S = 60.0


@dataclass
class Katan:
    """One server. `key`: the only one that it takes; `ca`: who signed its certificate."""

    name: str
    process: ManagedProcess
    port: int
    key: str
    ca: bytes

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return self.process.log_path.read_text(errors="replace")

    @property
    def asked(self) -> int:
        """How many chat requests it was sent, by its own log."""
        return self.log.count('"POST /v1/chat/completions ')

    def is_up(self) -> bool:
        """Whether it answers those who trust its authority."""
        self.process.check()
        try:
            return httpx.get(f"https://{ADDRESS}:{self.port}/health", verify=self._context(), timeout=5).is_success
        except httpx.TransportError:
            return False

    def start_again(self) -> None:
        """The same once more, after it was killed. Returns when it answers."""
        self.process = self.process.start_again()
        assert wait_until(self.is_up, PATIENCE_S), self.log

    @asynccontextmanager
    async def events(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """What its dashboard is told: each request that is not streamed, with its headers and its body."""
        url = f"wss://{ADDRESS}:{self.port}/ws/events"
        async with aiohttp.ClientSession() as session, session.ws_connect(url, ssl=self._context()) as socket:
            yield socket

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.ca.decode())
        context.check_hostname = False  # it is made out to SERVER_NAME
        return context


@dataclass
class KatanWorld:
    """Servers by the names of their backends, the fake deployment alpha, and the gateway in front of them."""

    servers: Mapping[str, Katan]
    alpha: FakeProvider
    gateway: Gateway

    def __getitem__(self, name: str) -> Katan:
        return self.servers[name]


@contextmanager
def make_katan_world(
    package: Path,
    options: Mapping[str, Mapping[str, Any]],
    spec: Json,
    directory: Path,
    keys: Mapping[str, tuple[str, ...]],
    strangers: frozenset[str] = frozenset(),
) -> Iterator[KatanWorld]:
    """`package`: what hack.katan installed; `options`: backend -> options of its server; `strangers`: those whose certificate is by an
    authority that the route does not name."""
    authority, unknown = Authority("katan-ca"), Authority("somebody else")
    with FakeProviders(directory / "providers") as fakes, contextlib.ExitStack() as stack:
        alpha = fakes.add("alpha", ["alpha.ml.svc"], tls=False)
        servers = {}
        for name, more in options.items():
            servers[name] = _start(package, name, directory / name, unknown if name in strangers else authority, more)
            stack.callback(lambda server=servers[name]: server.process.kill())  # it would wait for answers that it owes
        for server in servers.values():
            assert wait_until(server.is_up, PATIENCE_S), server.log
        gateway = running_gateway(
            _table(spec, servers, alpha),
            {name: {"apiKey": server.key} for name, server in servers.items()},
            fakes.ca_cert,
            keys,
            authority_secrets={"katan-ca": {"ca.crt": authority.cert.decode()}},
        )
        yield KatanWorld(servers, alpha, stack.enter_context(gateway))


def _start(package: Path, name: str, directory: Path, authority: Authority, options: Mapping[str, Any]) -> Katan:
    directory.mkdir()
    issued = authority.issue(name, [SERVER_NAME])
    (directory / "tls.crt").write_bytes(issued.cert)
    (directory / "tls.key").write_bytes(issued.key)
    (port,) = free_ports(1)
    key = f"sk-katan-{name}-0001"
    given = {
        "model": "katan-model",
        "backend": "echo",
        "host": ADDRESS,
        "port": port,
        "tls-cert": directory / "tls.crt",
        "tls-key": directory / "tls.key",
        "api-keys": f"openai={key}",
        "stats-file": directory / "stats.json",
        **options,
    }
    import_it = "import sys; from llm_katan.cli import main; sys.exit(main())"
    command: list[str | Path] = [sys.executable, "-c", import_it, "--validate-keys"]
    for option, value in given.items():
        command += [f"--{option}", str(value)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}
    return Katan(name, spawn(name, command, directory / "log", env=environment), port, key, authority.cert)


def _table(spec: Json, servers: Mapping[str, Katan], alpha: FakeProvider) -> RouteTable:
    entries: list[Json] = [{"name": "alpha", "deployment": {"name": "alpha"}}]
    entries += [_entry(server) for server in servers.values()]
    route = parse_route({**spec, "backends": entries})
    hosts = frozenset({ADDRESS, SERVER_NAME})
    facts = RouteFacts(
        deployments={"alpha": LocalDeployment("alpha", "alpha-model", 8000, 1, 1, is_confidential=True)},
        secrets={name: SecretFacts(name, "provider", hosts) for name in servers},
    )
    resolved = resolve_backends(route, facts, OperatorFacts(trusted_hosts=frozenset({ADDRESS})), CATALOG)
    host, port = alpha.address
    moved = [
        replace(one, upstream=replace(one.upstream, host=host, port=port))
        if one.name == "alpha" and one.upstream
        else one
        for one in resolved
    ]
    return make_route_table(route, moved)


def _entry(server: Katan) -> Json:
    return {
        "name": server.name,
        "provider": {
            "type": "OpenAICompatible",
            "baseURL": f"https://{ADDRESS}:{server.port}/v1",
            "secretRef": {"name": server.name, "key": "apiKey"},
            "tls": {"caSecretRef": {"name": "katan-ca", "key": "ca.crt"}, "serverName": SERVER_NAME},
        },
    }
