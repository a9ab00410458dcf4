"""The callers: keep-alive connections that send bytes which were made before and look at the end of what comes back only.

A process of its own, since it works about as hard as what it measures. It reads one command per line of standard input and answers
each with a line: what it did, or how it failed. It ends with its input, so it cannot be left behind.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import uvloop

__all__ = ["Generator"]

Json = dict[str, Any]
_SLICE_TIMEOUT_S = 60.0


class Generator:
    """The process, as the bench sees it. Each method raises RuntimeError when a request did not get its 200."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.bench.gateway.generator"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    def add(self, name: str, port: int, requests: Sequence[str], streams: Sequence[str]) -> None:
        """Whom `name` means from now on, and what is sent there in turn."""
        self._do(do="add", name=name, port=port, requests=requests, streams=streams)

    def load(self, name: str, count: int, connections: int) -> float:
        """So many requests, `connections` of them in flight. Returns requests per second."""
        return float(self._do(do="load", name=name, count=count, connections=connections)["rate"])

    def stream(self, name: str, connections: int) -> int:
        """So many streams at once. Returns how many chunks came."""
        return int(self._do(do="stream", name=name, connections=connections)["chunks"])

    def latency(self, names: Sequence[str], rounds: int) -> dict[str, list[float]]:
        """One request after the other, each to the next of `names`. Returns milliseconds."""
        found: dict[str, list[float]] = self._do(do="latency", names=names, rounds=rounds)
        return found

    def _do(self, **command: object) -> Json:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the load generator has ended")
        answer: Json = json.loads(line)
        if "failed" in answer:
            raise RuntimeError(f"{command.get('name') or command.get('names')}: {answer['failed']}")
        return answer


class _Connection(asyncio.Protocol):
    """One request at a time. `ended` is called with the response, or with what came of it before the connection broke."""

    ended: Callable[[_Connection, bytes], None]

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._missing = -1  # bytes; -1: the head has not come; -2: chunked
        self.is_open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes, ended: Callable[[_Connection, bytes], None]) -> None:
        self._parts, self._missing, self.ended = [], -1, ended
        self._is_waiting = True
        self._transport.write(request)

    _is_waiting = False

    def data_received(self, data: bytes) -> None:
        if self._missing == -1:
            if self._parts:
                data = b"".join((*self._parts, data))
                self._parts = []
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._parts.append(data)
                return
            at = data.find(b"content-length: ", 0, end)
            if at < 0:
                self._missing = -2
            else:
                self._missing = end + 4 + int(data[at + 16 : data.index(b"\r", at)])
        self._parts.append(data)
        if self._missing == -2:
            # No chunk of SSE ends like the last chunk of all, but it may be cut in two.
            tail = data if len(data) >= 5 else b"".join(self._parts[-3:])
            is_done = tail.endswith(b"0\r\n\r\n")
        else:
            self._missing -= len(data)
            is_done = self._missing <= 0
            self._missing = max(self._missing, 0)
        if is_done:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._is_waiting:
            self._end()

    def _end(self) -> None:
        self._is_waiting = False
        self.ended(self, b"".join(self._parts))


@dataclass
class _Target:
    port: int
    requests: list[bytes]
    streams: list[bytes]
    connections: list[_Connection] = field(default_factory=list)
    sent: int = 0

    def next_request(self) -> bytes:
        self.sent += 1
        return self.requests[self.sent % len(self.requests)]

    async def open(self, count: int) -> list[_Connection]:
        """Connections that are there, and new ones until there are so many. (Some servers close what is idle for seconds.)"""
        self.connections = [one for one in self.connections if one.is_open]
        loop = asyncio.get_running_loop()
        while len(self.connections) < count:
            _, made = await loop.create_connection(_Connection, "127.0.0.1", self.port)
            self.connections.append(made)
        return self.connections[:count]


def _check(response: bytes) -> None:
    if not response.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"answered {response[:600].decode(errors='replace')!r}")


async def _load(target: _Target, count: int, connections: int) -> Json:
    done = asyncio.get_running_loop().create_future()
    to_send, to_end = count, count

    def ended(connection: _Connection, response: bytes) -> None:
        nonlocal to_send, to_end
        to_end -= 1
        try:
            _check(response)
        except RuntimeError as error:
            if not done.done():
                done.set_exception(error)
            return
        if to_send > 0:
            to_send -= 1
            connection.send(target.next_request(), ended)
        if to_end == 0 and not done.done():
            done.set_result(None)

    opened = await target.open(min(connections, count))
    started = time.perf_counter()
    for connection in opened:
        to_send -= 1
        connection.send(target.next_request(), ended)
    await asyncio.wait_for(done, _SLICE_TIMEOUT_S)
    return {"rate": count / (time.perf_counter() - started)}


async def _ask(connection: _Connection, request: bytes) -> bytes:
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    connection.send(request, lambda _, response: answer.set_result(response))
    response = await asyncio.wait_for(answer, _SLICE_TIMEOUT_S)
    _check(response)
    return response


async def _stream(target: _Target, connections: int) -> Json:
    opened = await target.open(connections)
    streams = target.streams
    asked = [_ask(connection, streams[number % len(streams)]) for number, connection in enumerate(opened)]
    chunks = 0
    for response in await asyncio.gather(*asked):
        if b"[DONE]" not in response:
            raise RuntimeError(f"a stream ended with {response[-200:]!r}")
        chunks += response.count(b"data: {")
    return {"chunks": chunks}


async def _latency(targets: dict[str, _Target], names: Sequence[str], rounds: int) -> Json:
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            target = targets[name]
            connection = (await target.open(1))[0]
            request = target.next_request()
            started = time.perf_counter()
            await _ask(connection, request)
            found[name].append((time.perf_counter() - started) * 1000)
    return found


async def _obey(targets: dict[str, _Target], command: Json) -> Json:
    match command.pop("do"):
        case "add":
            requests = [text.encode() for text in command["requests"]]
            streams = [text.encode() for text in command["streams"]]
            targets[command["name"]] = _Target(command["port"], requests, streams)
            return {}
        case "load":
            return await _load(targets[command["name"]], command["count"], command["connections"])
        case "stream":
            return await _stream(targets[command["name"]], command["connections"])
        case _:
            return await _latency(targets, command["names"], command["rounds"])


async def _main() -> None:
    loop = asyncio.get_running_loop()
    targets: dict[str, _Target] = {}
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            answer = await _obey(targets, json.loads(line))
        except (RuntimeError, OSError, TimeoutError) as error:
            answer = {"failed": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(_main())
