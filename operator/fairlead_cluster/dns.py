"""Cluster DNS on loopback: Services by name, as CoreDNS answers them.

Processes on the host resolve names by the host's own configuration, so only those that can be given a resolver ask
this one (Envoy's `typed_dns_resolver_config`, `dig @127.0.0.1 -p`). It knows `cluster.local` and the names of a hosts
file, and nothing else: it never asks another server.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Iterable
from typing import Any, cast

from dnslib import CNAME, QTYPE, RCODE, RR, SOA, A, DNSError, DNSHeader, DNSRecord

from fairlead_cluster.endpoints import backing_pods, cluster_ip

Json = dict[str, Any]
#: The Service and the pods of its namespace, or None if there is no such Service.
Lookup = Callable[[str, str], tuple[Json, Iterable[Json]] | None]
#: The addresses of a name outside of the cluster.
Hosts = Callable[[str], Iterable[str]]

_log = logging.getLogger(__name__)
DOMAIN = "cluster.local"
# CoreDNS' default for Services; kubeadm's Corefile says 30. What is negative is as old as that, too, by its SOA record.
_TTL_S = 5
_UDP_SIZE_BYTES = 512  # what a client without EDNS can take
_IDLE_TIMEOUT_S = 30.0


def _no_hosts(_name: str) -> Iterable[str]:
    return ()


def answer(query: DNSRecord, lookup: Lookup, hosts: Hosts = _no_hosts) -> DNSRecord:
    """The reply to a query: A (or CNAME) records of `<service>.<namespace>.svc.cluster.local` or of hosts, or NXDOMAIN.

    A name that exists has an empty answer for other record types, as RFC 2308 wants it. What a CNAME leads to is
    answered with it as far as it is known here: resolvers in pods do not ask again.
    """
    reply = query.reply()
    name = str(query.q.qname).rstrip(".").lower()
    records = _records(name, lookup, hosts)
    if records is None:
        reply.header.rcode = RCODE.NXDOMAIN
    for rtype, rdata in records or []:
        if query.q.qtype in (rtype, QTYPE.ANY) or rtype == QTYPE.CNAME:
            reply.add_answer(RR(query.q.qname, rtype, rdata=rdata, ttl=_TTL_S))
        if rtype == QTYPE.CNAME and query.q.qtype == QTYPE.A:
            target = str(rdata.label)
            for rtype2, rdata2 in _records(target.rstrip(".").lower(), lookup, hosts) or []:
                reply.add_answer(RR(target, rtype2, rdata=rdata2, ttl=_TTL_S))
    if not reply.rr and (name == DOMAIN or name.endswith(f".{DOMAIN}")):
        reply.add_auth(_start_of_authority())
    return reply


def _start_of_authority() -> RR:
    """With it a resolver knows how long it may believe that there is nothing."""
    times = (1, 7200, 1800, 86400, _TTL_S)
    data = SOA(f"ns.dns.{DOMAIN}", f"hostmaster.{DOMAIN}", times)
    return RR(DOMAIN, QTYPE.SOA, rdata=data, ttl=_TTL_S)


def _records(name: str, lookup: Lookup, hosts: Hosts) -> list[tuple[int, A | CNAME]] | None:
    """Types and data of what the name stands for; None if it does not exist."""
    if addresses := list(hosts(name)):
        return [(QTYPE.A, A(address)) for address in addresses]
    labels = name.removesuffix(f".{DOMAIN}").split(".")
    if not name.endswith(f".{DOMAIN}") or len(labels) != 3 or labels[2] != "svc":
        return None
    found = lookup(labels[1], labels[0])
    if found is None:
        return None
    service, pods = found
    if service["spec"].get("type") == "ExternalName":
        return [(QTYPE.CNAME, CNAME(service["spec"]["externalName"]))]
    ip = cluster_ip(service)
    if ip is not None:
        return [(QTYPE.A, A(ip))]
    # Kubernetes' DNS specification, 2.4.1: without ready endpoints a headless Service is NXDOMAIN.
    return [(QTYPE.A, A(pod["status"]["podIP"])) for pod in backing_pods(service, pods)] or None


class DnsServer:
    """Answers on UDP and TCP at `host:port` until closed."""

    def __init__(self, host: str, port: int, lookup: Lookup, hosts: Hosts = _no_hosts) -> None:
        self.host = host
        self.port = port
        self._lookup = lookup
        self._hosts = hosts
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None

    async def start(self) -> None:
        """Bind both. OSError if the port is taken."""
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(
            lambda: _UdpProtocol(self.reply), local_addr=(self.host, self.port)
        )
        self._tcp = await asyncio.start_server(self._serve_tcp, self.host, self.port)

    async def close(self) -> None:
        """Stop answering."""
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()

    def reply(self, request: bytes, limit_size_bytes: int | None = None) -> bytes | None:
        """The packed reply, truncated with TC set above the limit; None for what is not a query."""
        try:
            query = DNSRecord.parse(request)
        except DNSError:
            return None
        if query.header.qr or not query.questions:
            return None
        reply = answer(query, self._lookup, self._hosts)
        packed: bytes = reply.pack()
        if limit_size_bytes is not None and len(packed) > limit_size_bytes:
            packed = DNSRecord(DNSHeader(id=query.header.id, qr=1, tc=1, ra=0), q=query.q).pack()
        return packed

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(_IDLE_TIMEOUT_S):
                    (size,) = struct.unpack("!H", await reader.readexactly(2))
                    reply = self.reply(await reader.readexactly(size))
                if reply is None:
                    return
                writer.write(struct.pack("!H", len(reply)) + reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, TimeoutError, ConnectionError):
            return
        finally:
            writer.close()


class _UdpProtocol(asyncio.DatagramProtocol):
    def __init__(self, reply: Callable[[bytes, int | None], bytes | None]) -> None:
        self._reply = reply
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        reply = self._reply(data, _UDP_SIZE_BYTES)
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)
