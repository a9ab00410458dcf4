"""The loop's own connections: cuts and cancellations in the middle of a handshake leave no file descriptor in two hands."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from fairlead.kube.connector import LoopConnector
from fairlead.kube.session import Connection


def test_a_network_that_is_cut_again_and_again_does_no_lasting_harm(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.unit.kube.flaky_tls", "loop", str(tmp_path)]
    root = Path(__file__).parents[3]
    done = subprocess.run(
        command,
        cwd=root,
        env={"PYTHONPATH": f"{root}:{root / 'operator'}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "20 of 20 afterwards" in done.stdout


async def test_every_address_is_tried_and_the_last_refusal_told(unused_tcp_port: int) -> None:
    answers = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answers
        answers += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    # `localhost` is ::1 too, where nobody listens.
    async with aiohttp.ClientSession(connector=LoopConnector()) as session:
        async with session.get(f"http://localhost:{port}/") as response:
            assert await response.text() == "ok"
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"http://127.0.0.1:{unused_tcp_port}/")
    assert answers == 1
    server.close()


async def test_the_session_connects_by_it_and_aiohttp_still_asks_it(
    unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def connect(self: LoopConnector, make_protocol: object, **more: object) -> None:
        asked.append(more["addr_infos"])
        raise ConnectionRefusedError(111, "as asked")

    monkeypatch.setattr(LoopConnector, "_connect_in_turn", connect)
    connection = Connection(f"http://127.0.0.1:{unused_tcp_port}")
    with pytest.raises(aiohttp.ClientConnectorError, match="as asked"):
        await connection.open().get(f"{connection.server}/version")
    await connection.close()
    assert len(asked) == 1
