"""Several fake providers with one CA, in a thread of their own: tests use them from sync and async code alike."""

from __future__ import annotations

import asyncio
import secrets
import ssl
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fairlead_cluster.certificates import Authority, write_owned
from fairlead_cluster.ports import free_ports
from fairlead_cluster.processes import wait_until
from fairlead_cluster.providers.admin import Admin
from fairlead_cluster.providers.faults import Fault
from fairlead_cluster.providers.recording import Recorded
from fairlead_cluster.providers.replies import Behaviour
from fairlead_cluster.providers.server import ProviderServer

_NETWORK = "127.98"  # beside those of Services and pods
_TIMEOUT_S = 10.0


class FakeProvider:
    """One provider, as tests and the demo handle it."""

    def __init__(self, fleet: FakeProviders, server: ProviderServer, hosts: Sequence[str], *, tls: bool) -> None:
        self.hosts = tuple(hosts)
        self._fleet = fleet
        self._server = server
        self._scheme = "https" if tls else "http"

    @property
    def name(self) -> str:
        """As given."""
        return self._server.name

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return (self._server.host, self._server.port)

    @property
    def url(self) -> str:
        """By its first host name, with `/v1`, as users write a provider's base URL."""
        return f"{self._scheme}://{self.hosts[0]}:{self._server.port}/v1"

    @property
    def local_url(self) -> str:
        """By its address, for clients without the cluster's DNS (its certificate is valid for that, too)."""
        return f"{self._scheme}://{self._server.host}:{self._server.port}/v1"

    @property
    def recorded(self) -> list[Recorded]:
        """Everything that it was sent since the last `clear`."""
        return self._server.recorder.all

    def wait_for(self, count: int, timeout_s: float = 10.0) -> list[Recorded]:
        """What it was sent, as soon as that is `count` requests or more; else what there is in the end."""
        wait_until(lambda: len(self.recorded) >= count, timeout_s)
        return self.recorded

    def clear(self) -> None:
        """Forget what was sent."""
        self._server.recorder.clear()

    @property
    def open_connections(self) -> int:
        """How many there are now."""
        return self._server.open_connections

    @property
    def faults(self) -> list[Fault]:
        """That are still to happen."""
        return self._server.faults.active

    def fail(self, *faults: Fault) -> None:
        """From now on fail in these ways (the first that matches); without any: do not."""
        self._server.faults.set(*faults)

    @property
    def behaviour(self) -> Behaviour:
        """How it answers."""
        return self._server.behaviour

    def behave(self, **changes: Any) -> None:
        """Change fields of its Behaviour."""
        self._server.behaviour = replace(self._server.behaviour, **changes)

    def refuse(self) -> None:
        """Nobody listens any more; open connections are reset."""
        self._fleet.call(self.listen(wanted=False))

    def accept(self) -> None:
        """Listen again."""
        self._fleet.call(self.listen(wanted=True))

    async def listen(self, *, wanted: bool) -> None:
        """The same, on the servers' own event loop."""
        await (self._server.open() if wanted else self._server.close())


class FakeProviders:
    """A CA, and providers by name. A context manager; keys and certificates go into `directory`.

    admin_port: of the admin's HTTP server on 127.0.0.1, 0 for a free one (see `Admin`).
    """

    def __init__(self, directory: Path, *, admin_port: int = 0) -> None:
        self.by_name: dict[str, FakeProvider] = {}
        self.ca_cert = directory / "ca.crt"
        self._directory = directory
        self._authority = Authority("fairlead-fake-providers")
        self._block = f"{_NETWORK}.{secrets.randbelow(256)}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake-providers", daemon=True)
        self._admin = Admin(self, admin_port or free_ports(1)[0])

    @property
    def admin_url(self) -> str:
        """Without a slash at the end."""
        return self._admin.url

    @property
    def host_records(self) -> dict[str, tuple[str, ...] | None]:
        """For `LocalCluster.hosts_file.update`."""
        return {host: (one.address[0],) for one in self.by_name.values() for host in one.hosts}

    def __enter__(self) -> Self:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_owned(self.ca_cert, self._authority.cert)
        self._thread.start()
        self.call(self._admin.open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for provider in self.by_name.values():
            provider.refuse()
        self.call(self._admin.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_TIMEOUT_S)
        self._loop.close()

    def add(
        self,
        name: str,
        hosts: Sequence[str],
        *,
        port: int = 0,
        tls: bool = True,
        certified: Sequence[str] | None = None,
    ) -> FakeProvider:
        """Start one more, at an address of its own.

        port: 0 for a free one.
        certified: names in its certificate, if not `hosts` (to see that a client takes notice).
        """
        address = f"{self._block}.{len(self.by_name) + 1}"
        context = self._context(name, hosts if certified is None else certified, address) if tls else None
        server = ProviderServer(name, address, port or free_ports(1, address)[0], context)
        self.call(server.open())
        self.by_name[name] = provider = FakeProvider(self, server, hosts, tls=tls)
        return provider

    def call(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something on the servers' event loop, and wait for it. Raises what it raises."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_TIMEOUT_S)

    def _context(self, name: str, hosts: Sequence[str], address: str) -> ssl.SSLContext:
        issued = self._authority.issue(name, hosts, (address,))
        cert, key = self._directory / f"{name}.crt", self._directory / f"{name}.key"
        write_owned(cert, issued.cert)
        write_owned(key, issued.key)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(cert, key)
        context.set_alpn_protocols(["http/1.1"])
        return context
