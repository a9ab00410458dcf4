"""Cluster DNS answers as Kubernetes' DNS specification wants it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable
from typing import Any

import pytest
from dnslib import QTYPE, RCODE, DNSRecord

from fairlead_cluster.dns import DnsServer, answer
from fairlead_cluster.ports import free_ports

Json = dict[str, Any]


def make_pod(ip: str, *, ready: bool) -> Json:
    """A pod of app=a."""
    return {
        "metadata": {"name": ip, "namespace": "ns", "labels": {"app": "a"}},
        "spec": {"containers": []},
        "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def make_service(name: str, **spec: Any) -> Json:
    """A Service that selects app=a."""
    return {"metadata": {"name": name, "namespace": "ns"}, "spec": {"selector": {"app": "a"}, **spec}}


PODS = [make_pod("127.244.0.1", ready=True), make_pod("127.244.0.2", ready=False), make_pod("127.244.0.3", ready=True)]
SERVICES = {
    "web": make_service("web", clusterIP="127.96.0.5"),
    "pods": make_service("pods", clusterIP="None"),
    "all": make_service("all", clusterIP="None", publishNotReadyAddresses=True),
    "nobody": make_service("nobody", clusterIP="None", selector={"app": "b"}),
    "out": make_service("out", type="ExternalName", externalName="api.example.com"),
    "many": make_service("many", clusterIP="None", selector={"app": "many"}),
}
MANY = [make_pod(f"127.244.1.{i}", ready=True) for i in range(1, 101)]
for pod in MANY:
    pod["metadata"]["labels"] = {"app": "many"}


def lookup(namespace: str, name: str) -> tuple[Json, Iterable[Json]] | None:
    """Services of the namespace `ns`."""
    if namespace != "ns" or name not in SERVICES:
        return None
    return SERVICES[name], [*PODS, *MANY]


@pytest.mark.parametrize(
    ("name", "qtype", "rcode", "data"),
    [
        ("web.ns.svc.cluster.local", "A", RCODE.NOERROR, ["127.96.0.5"]),
        ("WEB.ns.SVC.cluster.local.", "A", RCODE.NOERROR, ["127.96.0.5"]),
        ("web.ns.svc.cluster.local", "AAAA", RCODE.NOERROR, []),
        ("web.ns.svc.cluster.local", "SRV", RCODE.NOERROR, []),
        ("pods.ns.svc.cluster.local", "A", RCODE.NOERROR, ["127.244.0.1", "127.244.0.3"]),
        ("all.ns.svc.cluster.local", "A", RCODE.NOERROR, ["127.244.0.1", "127.244.0.2", "127.244.0.3"]),
        ("out.ns.svc.cluster.local", "A", RCODE.NOERROR, ["api.example.com."]),
        ("nobody.ns.svc.cluster.local", "A", RCODE.NXDOMAIN, []),
        ("absent.ns.svc.cluster.local", "A", RCODE.NXDOMAIN, []),
        ("web.other.svc.cluster.local", "A", RCODE.NXDOMAIN, []),
        ("web.ns.pod.cluster.local", "A", RCODE.NXDOMAIN, []),
        ("a.web.ns.svc.cluster.local", "A", RCODE.NXDOMAIN, []),
        ("web.ns.svc", "A", RCODE.NXDOMAIN, []),
        ("web", "A", RCODE.NXDOMAIN, []),
        ("example.com", "A", RCODE.NXDOMAIN, []),
        ("webxns.svc.cluster.local", "A", RCODE.NXDOMAIN, []),
        ("cluster.local", "A", RCODE.NXDOMAIN, []),
    ],
)
def test_answers(name: str, qtype: str, rcode: int, data: list[str]) -> None:
    query = DNSRecord.question(name, qtype)
    reply = answer(query, lookup)
    assert reply.header.rcode == rcode
    assert [str(record.rdata) for record in reply.rr] == data
    assert reply.header.id == query.header.id


def hosts(name: str) -> list[str]:
    """Two names outside of the cluster."""
    return {"api.example.com": ["127.0.0.9"], "api.openai.test": ["127.0.0.7", "127.0.0.8"]}.get(name, [])


@pytest.mark.parametrize(
    ("name", "qtype", "rcode", "data"),
    [
        ("api.openai.test", "A", RCODE.NOERROR, ["127.0.0.7", "127.0.0.8"]),
        ("API.openai.test.", "A", RCODE.NOERROR, ["127.0.0.7", "127.0.0.8"]),
        ("api.openai.test", "AAAA", RCODE.NOERROR, []),
        ("api.openai.test.ns.svc.cluster.local", "A", RCODE.NXDOMAIN, []),
        ("other.test", "A", RCODE.NXDOMAIN, []),
        ("out.ns.svc.cluster.local", "A", RCODE.NOERROR, ["api.example.com.", "127.0.0.9"]),
        ("out.ns.svc.cluster.local", "AAAA", RCODE.NOERROR, ["api.example.com."]),
        ("web.ns.svc.cluster.local", "A", RCODE.NOERROR, ["127.96.0.5"]),
    ],
)
def test_names_of_hosts(name: str, qtype: str, rcode: int, data: list[str]) -> None:
    reply = answer(DNSRecord.question(name, qtype), lookup, hosts)
    assert reply.header.rcode == rcode
    assert [str(record.rdata) for record in reply.rr] == data


@pytest.mark.parametrize("name", ["absent.ns.svc.cluster.local", "nobody.ns.svc.cluster.local"])
def test_nothing_is_true_for_a_short_time_only(name: str) -> None:
    (authority,) = DNSRecord.parse(answer(DNSRecord.question(name), lookup).pack()).auth
    assert authority.ttl == 5
    assert authority.rdata.times[-1] == 5


async def test_server_speaks_udp_and_tcp() -> None:
    (port,) = free_ports(1)
    server = DnsServer("127.0.0.1", port, lookup)
    await server.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for name, expected in (("web", 1), ("many", 100)):  # two queries on one connection
            request = DNSRecord.question(f"{name}.ns.svc.cluster.local").pack()
            writer.write(struct.pack("!H", len(request)) + request)
            (size,) = struct.unpack("!H", await reader.readexactly(2))
            assert len(DNSRecord.parse(await reader.readexactly(size)).rr) == expected
        writer.close()
        reply = await ask_by_udp(port, DNSRecord.question("web.ns.svc.cluster.local").pack())
        assert [str(record.rdata) for record in DNSRecord.parse(reply).rr] == ["127.96.0.5"]
    finally:
        await server.close()


async def ask_by_udp(port: int, request: bytes) -> bytes:
    """Send one datagram and wait for one."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, request)
        return await asyncio.wait_for(loop.sock_recv(client, 4096), 5)


def test_large_udp_answers_are_truncated_so_that_clients_ask_by_tcp() -> None:
    server = DnsServer("127.0.0.1", 0, lookup)
    packed = server.reply(DNSRecord.question("many.ns.svc.cluster.local").pack(), 512)
    assert packed is not None
    assert len(packed) <= 512
    reply = DNSRecord.parse(packed)
    assert reply.header.tc == 1
    assert reply.q.qtype == QTYPE.A


@pytest.mark.parametrize("garbage", [b"", b"x", b"\x00" * 12, b"\xff" * 40, DNSRecord.question("a.b").reply().pack()])
def test_garbage_and_replies_get_no_answer(garbage: bytes) -> None:
    assert DnsServer("127.0.0.1", 0, lookup).reply(garbage) is None
