"""`kubectl exec` into a container: a command beside it, its streams on one WebSocket (`v5.channel.k8s.io`).

Each message begins with a byte for its channel: stdin, stdout, stderr, the final status, and the size of a terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import struct
import termios
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import WSMsgType, web

from fairlead_cluster.node.container import Container
from fairlead_cluster.node.guardian import Guardian
from fairlead_cluster.node.process import Command, ContainerProcess, StartError, Stdio

Json = dict[str, Any]

PROTOCOL = "v5.channel.k8s.io"

_STDIN, _STDOUT, _STDERR, _STATUS, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_CHUNK_SIZE_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """What is run, and which streams the client wants."""

    command: Sequence[str]
    stdin: bool
    stdout: bool
    stderr: bool
    terminal: bool


class _Streams:
    """Our ends of the process's streams; its own ends are in `stdio` until `close_theirs`."""

    def __init__(self, wanted: ExecRequest) -> None:
        self.stdin: int | None = None
        self.outputs: dict[int, int] = {}  # channel: descriptor
        if wanted.terminal:
            ours, theirs = pty.openpty()
            self.stdin, self.outputs = ours, {_STDOUT: ours}
            self.stdio = Stdio(theirs, theirs, theirs, terminal=True)
            self._theirs = [theirs]
            return
        stdin, self.stdin = os.pipe()
        self.outputs[_STDOUT], stdout = os.pipe()
        self.outputs[_STDERR], stderr = os.pipe()
        self.stdio = Stdio(stdout, stderr, stdin)
        self._theirs = [stdin, stdout, stderr]

    def close_theirs(self) -> None:
        for descriptor in self._theirs:
            os.close(descriptor)
        self._theirs = []

    def close_stdin(self) -> None:
        if self.stdin is not None and self.stdin not in self.outputs.values():
            os.close(self.stdin)
            self.stdin = None

    def close(self) -> None:
        self.close_theirs()
        self.close_stdin()
        for descriptor in set(self.outputs.values()):
            os.close(descriptor)
        self.outputs = {}


async def serve_exec(
    socket: web.WebSocketResponse, command: Command, wanted: ExecRequest, container: Container, guardian: Guardian
) -> None:
    """Run the command and serve its streams; it ends with the client's connection, or with its container."""
    streams = _Streams(wanted)
    with contextlib.closing(streams):
        try:
            process = await ContainerProcess.start(command, streams.stdio, guardian)
        except StartError as error:
            await socket.send_bytes(bytes([_STATUS]) + json.dumps(_failure(str(error), "InternalError")).encode())
            await socket.close()
            return
        streams.close_theirs()
        if not wanted.stdin:
            streams.close_stdin()
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(_end_with_container(process, container))
                reading = group.create_task(_read_client(socket, streams, process))
                sending = [
                    group.create_task(_send_output(socket, channel, descriptor))
                    for channel, descriptor in streams.outputs.items()
                ]
                code = await process.wait()
                await asyncio.wait(sending)
                for task in (watching, reading):
                    task.cancel()
        finally:
            process.kill()
            await process.wait()
        with contextlib.suppress(ConnectionError):
            await socket.send_bytes(bytes([_STATUS]) + json.dumps(_status(code)).encode())
            await socket.close()


async def _end_with_container(process: ContainerProcess, container: Container) -> None:
    if container.process is not None:
        await container.process.wait()
    process.kill()


async def _read_client(socket: web.WebSocketResponse, streams: _Streams, process: ContainerProcess) -> None:
    """Client to process; the end of the connection is the end of the process."""
    async for message in socket:
        if message.type is not WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel == _STDIN and streams.stdin is not None:
            await asyncio.to_thread(_write_all, streams.stdin, data)
        elif channel == _CLOSE and data[:1] == bytes([_STDIN]):
            streams.close_stdin()
        elif channel == _RESIZE and streams.stdio.terminal and streams.stdin is not None:
            size = json.loads(data)
            fcntl.ioctl(streams.stdin, termios.TIOCSWINSZ, struct.pack("HHHH", size["Height"], size["Width"], 0, 0))
    process.kill()


async def _send_output(socket: web.WebSocketResponse, channel: int, descriptor: int) -> None:
    async for data in _read(descriptor):
        with contextlib.suppress(ConnectionError):
            await socket.send_bytes(bytes([channel]) + data)


async def _read(descriptor: int) -> AsyncIterator[bytes]:
    """Chunks until the end; a terminal ends with EIO."""
    os.set_blocking(descriptor, False)
    loop = asyncio.get_running_loop()
    while True:
        readable = asyncio.Event()
        loop.add_reader(descriptor, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(descriptor)
        try:
            data = os.read(descriptor, _CHUNK_SIZE_BYTES)
        except BlockingIOError:
            continue
        except OSError:
            return
        if not data:
            return
        yield data


def _write_all(descriptor: int, data: bytes) -> None:
    with contextlib.suppress(OSError):  # nobody reads it any more
        while data:
            try:
                data = data[os.write(descriptor, data) :]
            except BlockingIOError:
                continue


def _status(code: int) -> Json:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    failure = _failure(f"command terminated with non-zero exit code: exit status {code}", "NonZeroExitCode")
    return failure | {"details": {"causes": [{"reason": "ExitCode", "message": str(code)}]}}


def _failure(message: str, reason: str) -> Json:
    return {"metadata": {}, "status": "Failure", "reason": reason, "message": message}
