"""Run as a process: requests over TLS through a network that is cut again and again, on uvloop. Ends with 0 if all is well after it.

A process of its own, because the fault that it looks for can abort one.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import aiohttp
import uvloop
from tests.cluster.replicas.relay import Relay

from fairlead.kube.connector import LoopConnector
from fairlead_cluster.pki import create_pki

CUTS, PERIOD_S, CLIENTS = 4, 0.5, 12


class Quick(BaseHTTPRequestHandler):
    """Answers `ok`, a little late."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        threading.Event().wait(random.random() * 0.02)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *args: object) -> None:
        """Nothing."""


class Server(ThreadingHTTPServer):
    """Says nothing of clients that go away."""

    def handle_error(self, *args: object) -> None:
        """Nothing."""


def serve(directory: Path) -> int:
    pki = create_pki(directory, "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server_cert, pki.server_key)
    server = Server(("127.0.0.1", 0), Quick)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])


async def ask(session: aiohttp.ClientSession, url: str, within_s: float) -> None:
    async with asyncio.timeout(within_s), session.get(url) as response:
        assert await response.read() == b"ok"


async def disturb(session: aiohttp.ClientSession, relay: Relay) -> int:
    """How many requests went well meanwhile."""
    answered, over = 0, False

    async def client() -> None:
        nonlocal answered
        while not over:
            try:
                await ask(session, relay.url, random.choice((0.003, 0.01, 0.05, 2.5)))
                answered += 1
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(0.01 * random.random())

    clients = [asyncio.create_task(client()) for _ in range(CLIENTS)]
    for _ in range(CUTS):
        for change in (relay.cut, relay.heal):
            await asyncio.sleep(PERIOD_S)
            await asyncio.to_thread(change)
    await asyncio.sleep(PERIOD_S)
    over = True
    await asyncio.gather(*clients)
    return answered


async def main(connector: type[aiohttp.TCPConnector], relay: Relay) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with aiohttp.ClientSession(connector=connector(limit=64, ssl=context)) as session:
        answered = await disturb(session, relay)
        for _ in range(20):
            await ask(session, relay.url, 10)
    print(f"{answered} requests went well between the cuts, 20 of 20 afterwards")


if __name__ == "__main__":
    chosen = {"loop": LoopConnector, "aiohttp": aiohttp.TCPConnector}[sys.argv[1]]
    with (
        Relay(("127.0.0.1", serve(Path(sys.argv[2])))) as running,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(main(chosen, running))
