"""What probes and lifecycle hooks do: run a command, ask by HTTP, open a TCP connection, sleep."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from fairlead_cluster.node.guardian import Guardian
from fairlead_cluster.node.launch import Launch
from fairlead_cluster.node.process import ContainerProcess, StartError, Stdio

Json = dict[str, Any]

_OUTPUT_LIMIT_BYTES = 10 * 1024
_USER_AGENT = "kube-probe/1.36"
_MAX_REDIRECTS = 10


class Result(StrEnum):
    """Unknown counts neither as success nor as failure (the kubelet throws it away)."""

    SUCCESS = "success"
    FAILURE = "failure"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result and the words for the event."""

    result: Result
    message: str = ""


class Target(Protocol):
    """The running container that an action is about."""

    @property
    def pod_ip(self) -> str: ...
    @property
    def ports(self) -> Sequence[Json]: ...
    @property
    def launch(self) -> Launch: ...


class Actions:
    """Carries out actions; `http` is a session without TLS verification, as probes have it."""

    def __init__(self, http: aiohttp.ClientSession, guardian: Guardian) -> None:
        self._http = http
        self._guardian = guardian

    async def perform(self, action: Json, target: Target, timeout_s: float) -> Outcome:
        """Do what a probe or hook says (`exec`, `httpGet`, `tcpSocket`, `sleep`), for at most `timeout_s` seconds."""
        if "exec" in action:
            return await self._execute(action["exec"]["command"], target, timeout_s)
        if "httpGet" in action:
            return await self._get(action["httpGet"], target, timeout_s)
        if "tcpSocket" in action:
            return await self._connect(action["tcpSocket"], target, timeout_s)
        if "sleep" in action:
            await asyncio.sleep(min(float(action["sleep"]["seconds"]), timeout_s))
            return Outcome(Result.SUCCESS)
        kinds = sorted(set(action) & {"grpc"}) or sorted(action)
        return Outcome(Result.UNKNOWN, f"the node stand-in cannot do {', '.join(kinds)}")

    async def _execute(self, arguments: Sequence[str], target: Target, timeout_s: float) -> Outcome:
        output = os.memfd_create("exec-output")
        command = target.launch.exec_command(arguments)
        try:
            try:
                process = await ContainerProcess.start(command, Stdio(output, output), self._guardian)
            except StartError as error:
                return Outcome(Result.UNKNOWN, str(error))
            try:
                async with asyncio.timeout(timeout_s):
                    code = await process.wait()
            except TimeoutError:
                return Outcome(
                    Result.FAILURE, f'command timed out: "{" ".join(arguments)}" timed out after {timeout_s:g}s'
                )
            finally:
                if not process.has_ended():
                    process.kill()
                    await process.wait()
            said = os.pread(output, _OUTPUT_LIMIT_BYTES, 0).decode(errors="replace")
            return Outcome(Result.SUCCESS if code == 0 else Result.FAILURE, said.strip() or f"exit code {code}")
        finally:
            os.close(output)

    async def _get(self, action: Json, target: Target, timeout_s: float) -> Outcome:
        headers = {"User-Agent": _USER_AGENT, "Accept": "*/*"}
        headers |= {header["name"]: header["value"] for header in action.get("httpHeaders") or []}
        host = action.get("host") or target.pod_ip
        port = port_number(action["port"], target.ports)
        if port is None:
            return Outcome(Result.UNKNOWN, f"couldn't find port: {action['port']}")
        path = action.get("path") or "/"
        path = path if path.startswith("/") else f"/{path}"
        url = f"{action.get('scheme', 'HTTP').lower()}://{host}:{port}{path}"
        try:
            async with asyncio.timeout(timeout_s):
                return await self._follow(url, headers)
        except TimeoutError:
            words = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            return Outcome(Result.FAILURE, f'Get "{url}": {words}')
        except aiohttp.ClientConnectorError as error:
            return Outcome(Result.FAILURE, f'Get "{url}": dial tcp {host}:{port}: {_words(error.os_error)}')
        except (aiohttp.ClientError, OSError) as error:
            return Outcome(Result.FAILURE, f'Get "{url}": {error}')

    async def _follow(self, url: str, headers: dict[str, str]) -> Outcome:
        """Redirects are followed on the same host only; one that leads away is a success, as with the kubelet."""
        host = urlsplit(url).hostname
        for _ in range(_MAX_REDIRECTS):
            async with self._http.get(URL(url, encoded=True), headers=headers, allow_redirects=False) as response:
                status = response.status
                location = response.headers.get("Location") if 300 <= status < 400 else None
                await response.content.read(_OUTPUT_LIMIT_BYTES)
            if location is None:
                ok = 200 <= status < 400
                return Outcome(
                    Result.SUCCESS if ok else Result.FAILURE,
                    "" if ok else f"HTTP probe failed with statuscode: {status}",
                )
            following = URL(url, encoded=True).join(URL(location))
            if following.host != host:
                return Outcome(Result.SUCCESS, "Probe terminated redirects")
            url = str(following)
        return Outcome(Result.FAILURE, f'Get "{url}": stopped after {_MAX_REDIRECTS} redirects')

    async def _connect(self, action: Json, target: Target, timeout_s: float) -> Outcome:
        host, port = action.get("host") or target.pod_ip, port_number(action["port"], target.ports)
        if port is None:
            return Outcome(Result.UNKNOWN, f"couldn't find port: {action['port']}")
        try:
            async with asyncio.timeout(timeout_s):
                _, writer = await asyncio.open_connection(host, port)
        except TimeoutError:
            return Outcome(Result.FAILURE, f"dial tcp {host}:{port}: i/o timeout")
        except OSError as error:
            return Outcome(Result.FAILURE, f"dial tcp {host}:{port}: {_words(error)}")
        writer.close()
        return Outcome(Result.SUCCESS)


def _words(error: OSError) -> str:
    """As Go says it: `connect: connection refused`."""
    code = error.errno
    return f"connect: {os.strerror(code).lower()}" if code else str(error)


def port_number(port: int | str, ports: Sequence[Json]) -> int | None:
    """A port given as a number or by the name of a container port."""
    if isinstance(port, int):
        return port
    if port.isdigit():
        return int(port)
    return next((int(one["containerPort"]) for one in ports if one.get("name") == port), None)
