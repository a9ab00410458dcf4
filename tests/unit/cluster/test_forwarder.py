"""The forwarder is invisible: half-close, reset, streaming and open connections behave as with kube-proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from fairlead_cluster.endpoints import Endpoint
from fairlead_cluster.forwarder import Forwarder
from fairlead_cluster.ports import free_ports
from fairlead_cluster.services import ServiceProxy, forwarded_port

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def backend(handler: Handler) -> AsyncIterator[Endpoint]:
    """A server on loopback, as a pod would be."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])
    server.close()


@pytest.fixture
async def forwarder() -> AsyncIterator[Forwarder]:
    """On a free port, without endpoints."""
    one = Forwarder("127.96.7.7", free_ports(1, "127.96.7.7")[0])
    yield one
    await one.close()


def says(word: bytes) -> Handler:
    """A pod that says its name and hangs up."""

    async def handler(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(word)

    return handler


async def read_all(forwarder: Forwarder) -> bytes:
    """What a client gets that sends nothing."""
    reader, writer = await asyncio.open_connection(forwarder.host, forwarder.port)
    data = await reader.read()
    writer.close()
    return data


async def test_refuses_without_endpoints_and_again_when_they_leave(forwarder: Forwarder) -> None:
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(forwarder.host, forwarder.port)
    async with backend(says(b"here")) as pod:
        await forwarder.set_endpoints((pod,))
        assert await read_all(forwarder) == b"here"
        await forwarder.set_endpoints(())
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(forwarder.host, forwarder.port)


async def test_connections_go_to_all_pods_in_turn(forwarder: Forwarder) -> None:
    async with backend(says(b"a")) as first, backend(says(b"b")) as second:
        await forwarder.set_endpoints((first, second))
        answers = [await read_all(forwarder) for _ in range(10)]
    assert sorted(answers) == [b"a"] * 5 + [b"b"] * 5


async def test_half_close_reaches_the_pod_which_can_still_answer(forwarder: Forwarder) -> None:
    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(str(len(await reader.read())).encode())

    async with backend(count) as pod:
        await forwarder.set_endpoints((pod,))
        reader, writer = await asyncio.open_connection(forwarder.host, forwarder.port)
        writer.write(b"x" * 1_000_000)
        writer.write_eof()
        assert await reader.read() == b"1000000"
        writer.close()


async def test_each_chunk_of_a_stream_arrives_when_it_was_sent(forwarder: Forwarder) -> None:
    may_go_on = asyncio.Event()

    async def stream(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"data: 1\n\n")
        await may_go_on.wait()
        writer.write(b"data: 2\n\n")

    async with backend(stream) as pod:
        await forwarder.set_endpoints((pod,))
        reader, writer = await asyncio.open_connection(forwarder.host, forwarder.port)
        async with asyncio.timeout(5):
            assert await reader.readuntil(b"\n\n") == b"data: 1\n\n"  # the second was not sent yet
            may_go_on.set()
            assert await reader.read() == b"data: 2\n\n"
        writer.close()


async def test_an_open_stream_survives_when_its_pod_leaves_the_service(forwarder: Forwarder) -> None:
    may_go_on = asyncio.Event()

    async def drain(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"old")
        await may_go_on.wait()
        writer.write(b" to its end")

    async with backend(drain) as old, backend(says(b"new")) as new:
        await forwarder.set_endpoints((old,))
        reader, writer = await asyncio.open_connection(forwarder.host, forwarder.port)
        assert await reader.readexactly(3) == b"old"
        await forwarder.set_endpoints((new,))
        assert await read_all(forwarder) == b"new"
        await forwarder.set_endpoints(())
        may_go_on.set()
        assert await reader.read() == b" to its end"
        writer.close()


async def test_a_pod_that_breaks_off_breaks_the_client(forwarder: Forwarder) -> None:
    """A clean end here would make a cut-off answer look complete."""

    async def break_off(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        import socket
        import struct

        writer.write(b"half")
        await writer.drain()
        await asyncio.sleep(0.05)
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with backend(break_off) as pod:
        await forwarder.set_endpoints((pod,))
        reader, writer = await asyncio.open_connection(forwarder.host, forwarder.port)
        assert await reader.readexactly(4) == b"half"
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_a_pod_that_is_gone_resets_and_no_other_is_tried(forwarder: Forwarder) -> None:
    async with backend(says(b"x")) as pod:
        gone = pod
    await forwarder.set_endpoints((gone,))
    reader, writer = await asyncio.open_connection(forwarder.host, forwarder.port)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_a_client_that_hangs_up_is_seen_by_the_pod(forwarder: Forwarder) -> None:
    """Engines stop generating when their client is gone."""
    gone = asyncio.Event()

    async def generate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"token")
        assert await reader.read() == b""
        gone.set()

    async with backend(generate) as pod:
        await forwarder.set_endpoints((pod,))
        reader, writer = await asyncio.open_connection(forwarder.host, forwarder.port)
        await reader.readexactly(5)
        writer.close()
        await asyncio.wait_for(gone.wait(), 5)


async def test_close_breaks_open_connections(forwarder: Forwarder) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x")
        await reader.read()

    async with backend(hang) as pod:
        await forwarder.set_endpoints((pod,))
        reader, writer = await asyncio.open_connection(forwarder.host, forwarder.port)
        await reader.readexactly(1)
        await forwarder.close()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


def test_only_privileged_ports_are_moved() -> None:
    assert forwarded_port(80, first_bindable=0) == 80
    assert forwarded_port(80, first_bindable=1024) == 10080
    assert forwarded_port(8000, first_bindable=1024) == 8000


async def test_proxy_follows_services_of_each_namespace(caplog: pytest.LogCaptureFixture) -> None:
    port = free_ports(1, "127.96.7.8")[0]
    service = {
        "metadata": {"name": "one", "namespace": "ns"},
        "spec": {
            "clusterIP": "127.96.7.8",
            "selector": {"app": "a"},
            "sessionAffinity": "ClientIP",
            "ports": [{"port": port, "targetPort": "http"}],
        },
    }

    async with backend(says(b"pod")) as pod:
        ready = {
            "metadata": {"name": "p", "namespace": "ns", "labels": {"app": "a"}},
            "spec": {"containers": [{"ports": [{"name": "http", "containerPort": pod.port}]}]},
            "status": {"podIP": pod.ip, "conditions": [{"type": "Ready", "status": "True"}]},
        }
        proxy = ServiceProxy(first_bindable=0)
        await proxy.sync("ns", [service], [ready])
        await proxy.sync("other", [], [])
        client = Forwarder("127.96.7.8", port)
        assert await read_all(client) == b"pod"
        await proxy.sync("ns", [service], [])
        with pytest.raises(ConnectionRefusedError):
            await read_all(client)
        await proxy.sync("ns", [service], [ready])
        assert await read_all(client) == b"pod"
        await proxy.sync("ns", [], [ready])
        with pytest.raises(ConnectionRefusedError):
            await read_all(client)
        await proxy.close()
    noted = [record.getMessage() for record in caplog.records if "ClientIP" in record.getMessage()]
    assert len(noted) == 1, "what the proxy cannot do is said, once"
