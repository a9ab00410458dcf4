"""Pods on loopback addresses that answer GET as a test says, without a framework."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

OK = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n"


def answer(text: str | bytes, head: str = OK) -> bytes:
    """A whole response."""
    body = text.encode() if isinstance(text, str) else text
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass
class Pods:
    """`say`: address -> a response, or None for a pod that takes the request and is silent. `asked`: paths, by address; `most`: requests
    that were open at the same time."""

    say: Callable[[str], bytes | None]
    asked: list[tuple[str, str]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    open: int = 0
    most: int = 0
    port: int = 0
    delay_s: float = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            address = writer.get_extra_info("sockname")[0]
            self.heads.append(head.lower())
            length = re.search(r"content-length: (\d+)", head.lower())
            self.bodies.append(await reader.readexactly(int(length[1])) if length else b"")
            self.asked.append((address, head.split(" ")[1]))
            await asyncio.sleep(self.delay_s)
            said = self.say(address)
            if said is None:
                await reader.read()
            else:
                writer.write(said)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def serving_pods(say: Callable[[str], bytes | None], tls: ssl.SSLContext | None = None) -> AsyncIterator[Pods]:
    """They listen on all of 127.0.0.0/8, on `port`."""
    pods = Pods(say)
    server = await asyncio.start_server(pods.serve, "0.0.0.0", 0, ssl=tls)
    pods.port = server.sockets[0].getsockname()[1]
    try:
        yield pods
    finally:
        server.close()
        await asyncio.wait_for(server.wait_closed(), 5)
