"""Deployments at zero replicas: backends whose name has no address until somebody wakes them, by a DNS server of their own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
from dnslib import QTYPE, RCODE, RR, SOA, A, DNSRecord
from tests.gateway.world import World

from fairlead.gateway.envoy.files import dump_resources, read_resources
from fairlead.gateway.table import RouteTable

__all__ = ["Names", "names_of"]

_CARES = "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"


@dataclass
class Names:
    """Which of the backends have a pod. `addresses`: of those that do."""

    world: World
    addresses: dict[str, str] = field(default_factory=dict)

    def wake(self, *backends: str) -> None:
        """A pod of each is ready from now on."""
        for backend in backends:
            self.addresses[f"{backend}.pods."] = self.world[backend].address[0]

    def sleep(self, *backends: str) -> None:
        """The last pod of each is gone, and the gateway knows it."""
        for backend in backends:
            self.addresses.pop(f"{backend}.pods.", None)
        self.world.gateway.until(lambda: not any(self.hosts(backend) for backend in backends), "losing the pods")

    def hosts(self, backend: str) -> int:
        """How many the gateway knows, those that an affinity has in a cluster of their own twice."""
        return self.read("membership_healthy", backend)

    def read(self, stat: str, backend: str) -> int:
        """The sum of a stat over the clusters that lead to a backend's pods."""
        with httpx.Client(transport=httpx.HTTPTransport(uds=self.world.gateway.settings.admin_socket)) as admin:
            wanted = f"^cluster.(be|pin)~{backend}~[^.]*.{stat}$"
            answer = admin.get("http://admin/stats", params={"format": "json", "filter": wanted}, timeout=5).json()
        return sum(int(entry["value"]) for entry in answer["stats"])

    def answer(self, request: bytes) -> bytes:
        """The reply to one query."""
        query = DNSRecord.parse(request)
        reply = query.reply()
        address = self.addresses.get(str(query.q.qname))
        if address is None:
            reply.header.rcode = RCODE.NXDOMAIN
            reply.add_auth(RR("pods.", QTYPE.SOA, rdata=SOA("ns.pods.", "hostmaster.pods.", (1, 5, 5, 5, 5)), ttl=5))
        elif query.q.qtype == QTYPE.A:
            reply.add_answer(RR(query.q.qname, QTYPE.A, rdata=A(address), ttl=5))
        packed: bytes = reply.pack()
        return packed


@contextmanager
def names_of(world: World, table: RouteTable, *backends: str) -> Iterator[Names]:
    """The gateway serves this table, and finds the pods of `backends` by their names. At first all of them are awake."""
    names = Names(world)
    names.wake(*backends)
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=_serve, args=(server, names), daemon=True)
    thread.start()
    try:
        world.gateway.publish(table)
        good = dict(world.gateway.live or {})
        kind, clusters = read_resources(good["cds.json"])
        for cluster in clusters:
            if cluster["name"].split("~")[0] in ("be", "pin") and cluster["name"].split("~")[1] in backends:
                _resolve(cluster, server.getsockname()[1])
        world.gateway.put({**good, "cds.json": dump_resources(kind, clusters)})
        world.gateway.confirm()
        world.gateway.until(lambda: all(names.hosts(backend) for backend in backends), "finding the pods")
        yield names
    finally:
        stop = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        stop.sendto(b"", server.getsockname())
        thread.join(10)
        stop.close()
        server.close()


def _resolve(cluster: dict[str, object], port: int) -> None:
    backend = str(cluster["name"]).split("~")[1]
    for locality in cluster["load_assignment"]["endpoints"]:  # type: ignore[index]
        for endpoint in locality["lb_endpoints"]:
            endpoint["endpoint"]["address"]["socket_address"]["address"] = f"{backend}.pods."
    resolver = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    config = {"@type": f"type.googleapis.com/{_CARES}", "resolvers": [resolver]}
    dns = cluster["cluster_type"]["typed_config"]  # type: ignore[index]
    dns["typed_dns_resolver_config"] = {"name": "envoy.network.dns_resolver.cares", "typed_config": config}
    dns["dns_lookup_family"] = "V4_ONLY"


def _serve(server: socket.socket, names: Names) -> None:
    while True:
        request, peer = server.recvfrom(4096)
        if not request:
            return
        server.sendto(names.answer(request), peer)
