"""A proxy between one operator and the real API server that can do, on demand, what networks and servers do on bad days.

It speaks plain HTTP to the operator and TLS to the API server, passes credentials through, and streams watches line by line. Its
log is a second judge beside the audit log: it has the requests that never reached the API server, and when each was made.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp
from aiohttp import web

from fairlead_cluster.kubeconfig import make_kubeconfig, write_kubeconfig
from fairlead_cluster.ports import free_ports

T = TypeVar("T")

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_PASSED_ON = ("Authorization", "Accept", "Content-Type", "User-Agent")
_PASSED_BACK = ("Content-Type", "Retry-After", "Audit-Id")
_REASONS = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired",
    429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Call:
    """What a request asks for, in the audit log's words."""

    verb: str
    resource: str
    namespace: str = ""
    name: str = ""
    metadata_only: bool = False
    selector: str = ""


def parse_call(method: str, path: str, query: Mapping[str, str], accept: str = "") -> Call:
    """From an API path: `/apis/apps/v1/namespaces/a/deployments/b/scale` and the like."""
    parts = [part for part in path.split("/") if part]
    rest = parts[2:] if parts[:1] == ["api"] else parts[3:] if parts[:1] == ["apis"] else []
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    resource, name, subresource = (*rest, "", "", "")[:3]
    verb = _VERBS.get(method) or ("watch" if query.get("watch") == "true" else "get" if name or not rest else "list")
    full = f"{resource}/{subresource}" if subresource else resource
    selector = query.get("labelSelector", "")
    return Call(verb, full, namespace, name, metadata_only="PartialObjectMetadata" in accept, selector=selector)


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests a fault is for; None is every one. Several verbs or resources are separated by blanks."""

    verb: str | None = None
    resource: str | None = None
    namespace: str | None = None
    name: str | None = None

    def __call__(self, call: Call) -> bool:
        return (
            (self.verb is None or call.verb in self.verb.split())
            and (self.resource is None or call.resource in self.resource.split())
            and (self.namespace is None or call.namespace == self.namespace)
            and (self.name is None or call.name == self.name)
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer instead of the API server, which never hears of it. `body` None: a Status object, as it would send."""

    status: int
    message: str = "injected"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None

    def make_status(self) -> dict[str, Any]:
        """The Status object."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": self.status,
            "reason": _REASONS.get(self.status, ""),
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class Delay:
    """Have the API server do it at once, and hold its answer back for so long."""

    seconds: float


class LoseAnswer:
    """Have the API server do it, then break the connection instead of passing its answer on."""


class Hold:
    """Never answer; the connection breaks when the fault is lifted."""


class Reset:
    """Break the connection; the API server never hears of it."""


Action = Answer | Delay | LoseAnswer | Hold | Reset


@dataclass(slots=True)
class Exchange:
    """One request of the operator. `code` 0: it got no answer. `fault`: it was ours, not the API server's."""

    call: Call
    at: float
    code: int = 0
    fault: bool = False


class Fault:
    """An action on the next `count` matching requests, or on all until `lift`."""

    def __init__(self, match: Match, action: Action, count: int | None) -> None:
        self.match = match
        self.action = action
        self.hits: list[Exchange] = []
        self._left = count
        self.lifted = threading.Event()

    def takes(self, exchange: Exchange) -> bool:
        """Whether this request is one of those; it counts then."""
        if self.lifted.is_set() or self._left == 0 or not self.match(exchange.call):
            return False
        if self._left is not None:
            self._left -= 1
        self.hits.append(exchange)
        return True

    def lift(self) -> None:
        """No more of it."""
        self.lifted.set()


class CutInLine(Exception):
    """Raised by a filter: send half of this line and end. `clean`: as a proxy that closes well, else the connection breaks."""

    def __init__(self, *, clean: bool) -> None:
        super().__init__()
        self.clean = clean


#: Turns one line of a watch stream into those that are passed on. The first argument is the event's type.
Filter = Callable[[str, bytes], list[bytes]]


def drop_events(kind: str, line: bytes) -> list[bytes]:
    """Bookmarks only: the connection lives and its news are lost."""
    return [line] if kind == "BOOKMARK" else []


def duplicate(_: str, line: bytes) -> list[bytes]:
    """Every line twice."""
    return [line, line]


class Stream:
    """One open watch of the operator. `send` and `end` are carried out in the proxy's loop."""

    def __init__(self, call: Call, response: web.StreamResponse, transport: asyncio.Transport) -> None:
        self.call = call
        self.ended = asyncio.Event()
        self.muted = False
        self._response = response
        self._transport = transport

    async def send(self, data: bytes) -> None:
        """Write to the operator."""
        await self._response.write(data)

    @property
    def is_open(self) -> bool:
        """Whether the operator still listens."""
        return not self.ended.is_set() and not self._transport.is_closing()

    def end(self) -> None:
        """End well."""
        self.ended.set()

    def reset(self) -> None:
        """Break the connection."""
        self._transport.abort()
        self.ended.set()


class FaultProxy:
    """Started by `with`. All methods are for the test's thread."""

    def __init__(self, server_url: str, ca_cert: Path) -> None:
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.exchanges: list[Exchange] = []
        self._server_url = server_url
        self._ca_cert = ca_cert
        self._faults: tuple[Fault, ...] = ()
        self._filters: tuple[tuple[Match, Filter], ...] = ()
        self._streams: list[Stream] = []
        self._connections: set[asyncio.Transport] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.ServerRunner | None = None
        self._site: web.TCPSite | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        for fault in self._faults:
            fault.lift()
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def write_kubeconfig(self, path: Path, token: str) -> Path:
        """A kubeconfig that leads here."""
        config = make_kubeconfig(self.url, self._ca_cert.read_bytes(), "operator", token, "fairlead-system")
        write_kubeconfig(path, config)
        return path

    @contextlib.contextmanager
    def fault(self, match: Match, action: Action, count: int | None = None) -> Iterator[Fault]:
        """As long as the block lasts; later faults go before earlier ones."""
        fault = Fault(match, action, count)
        self._faults = (fault, *self._faults)
        try:
            yield fault
        finally:
            fault.lift()
            self._faults = tuple(one for one in self._faults if one is not fault)

    @contextlib.contextmanager
    def filtered(self, match: Match, passes: Filter) -> Iterator[None]:
        """What open and new streams pass on, as long as the block lasts."""
        entry = (match, passes)
        self._filters = (entry, *self._filters)
        try:
            yield
        finally:
            self._filters = tuple(one for one in self._filters if one is not entry)

    @contextlib.contextmanager
    def unreachable(self) -> Iterator[None]:
        """Connections break, new ones are refused."""
        self._do(self._refuse())
        try:
            yield
        finally:
            self._do(self._listen())

    @contextlib.contextmanager
    def black_hole(self) -> Iterator[None]:
        """Connections stay and new ones are accepted, and nothing ever comes."""
        with self.fault(Match(), Hold()):
            self.mute_streams(Match())
            yield

    def streams(self, match: Match) -> list[Call]:
        """The watches that the operator has open now."""
        return [stream.call for stream in self._streams if stream.is_open and match(stream.call)]

    def mute_streams(self, match: Match) -> None:
        """Those that are open now stay open, and nothing comes through them any more."""
        for stream in self._streams:
            stream.muted = stream.muted or match(stream.call)

    def reset_streams(self, match: Match) -> int:
        """Break their connections. Returns how many."""
        return self._do(self._each_stream(match, b"", broken=True))

    def end_streams(self, match: Match) -> int:
        """End them as the API server does when their time is over."""
        return self._do(self._each_stream(match, b"", broken=False))

    def fail_streams(self, match: Match, status: int) -> int:
        """Send an ERROR event, 410 for a version that is too old, and end."""
        line = json.dumps({"type": "ERROR", "object": Answer(status).make_status()}).encode() + b"\n"
        return self._do(self._each_stream(match, line, broken=False))

    def calls(self, match: Match, since: float = 0.0) -> list[Exchange]:
        """What the operator asked since then, by `time.monotonic`."""
        return [exchange for exchange in self.exchanges if exchange.at >= since and match(exchange.call)]

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _open(self) -> None:
        context = ssl.create_default_context(cafile=str(self._ca_cert))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=context),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
        )
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        await self._listen()

    async def _close(self) -> None:
        assert self._session is not None
        assert self._runner is not None
        for stream in list(self._streams):
            stream.reset()
        await self._runner.cleanup()
        await self._session.close()

    async def _listen(self) -> None:
        assert self._runner is not None
        self._site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await self._site.start()

    async def _refuse(self) -> None:
        assert self._site is not None
        await self._site.stop()
        for transport in list(self._connections):
            transport.abort()
        for stream in list(self._streams):
            stream.reset()

    async def _each_stream(self, match: Match, line: bytes, *, broken: bool) -> int:
        chosen = [stream for stream in self._streams if stream.is_open and match(stream.call)]
        for stream in chosen:
            if line:
                await stream.send(line)
            if broken:
                stream.reset()
            else:
                stream.end()
        return len(chosen)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError
        self._connections.add(transport)
        call = parse_call(request.method, request.path, request.query, request.headers.get("Accept", ""))
        exchange = Exchange(call, time.monotonic())
        self.exchanges.append(exchange)
        body = await request.read()
        try:
            fault = next((fault for fault in self._faults if fault.takes(exchange)), None)
            if fault is not None:
                exchange.fault = True
                return await self._fail(fault, request, body, exchange, transport)
            return await self._pass_on(request, body, exchange, transport)
        finally:
            self._connections.discard(transport)

    async def _fail(
        self, fault: Fault, request: web.BaseRequest, body: bytes, exchange: Exchange, transport: asyncio.Transport
    ) -> web.StreamResponse:
        match fault.action:
            case Answer() as answer:
                exchange.code = answer.status
                text = answer.body if answer.body is not None else json.dumps(answer.make_status())
                kind = "application/json" if answer.body is None else "text/plain"
                return web.Response(status=answer.status, text=text, content_type=kind, headers=answer.headers)
            case Delay(seconds):
                if exchange.call.verb != "watch":
                    answered = await self._answer_of(request, body)
                    await asyncio.sleep(seconds)
                    exchange.code = answered.status
                    return answered
                await asyncio.sleep(seconds)
                return await self._pass_on(request, body, exchange, transport)
            case LoseAnswer():
                await self._answer_of(request, body)
            case Hold():
                while not fault.lifted.is_set() and not transport.is_closing():
                    await asyncio.sleep(0.05)
        transport.abort()
        return web.Response()

    async def _pass_on(
        self, request: web.BaseRequest, body: bytes, exchange: Exchange, transport: asyncio.Transport
    ) -> web.StreamResponse:
        if exchange.call.verb == "watch":
            return await self._stream(request, exchange, transport)
        answer = await self._answer_of(request, body)
        exchange.code = answer.status
        return answer

    async def _answer_of(self, request: web.BaseRequest, body: bytes) -> web.Response:
        try:
            async with self._ask(request, body) as response:
                headers = {key: response.headers[key] for key in _PASSED_BACK if key in response.headers}
                return web.Response(status=response.status, body=await response.read(), headers=headers)
        except aiohttp.ClientError as error:
            return web.Response(status=502, text=str(error))

    def _ask(self, request: web.BaseRequest, body: bytes) -> Any:
        assert self._session is not None
        headers = {key: request.headers[key] for key in _PASSED_ON if key in request.headers}
        return self._session.request(
            request.method, self._server_url + request.path_qs, data=body or None, headers=headers
        )

    async def _stream(
        self, request: web.BaseRequest, exchange: Exchange, transport: asyncio.Transport
    ) -> web.StreamResponse:
        async with self._ask(request, b"") as upstream:
            exchange.code = upstream.status
            if upstream.status != 200:
                return web.Response(
                    status=upstream.status,
                    body=await upstream.read(),
                    headers={"Content-Type": upstream.headers["Content-Type"]},
                )
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            stream = Stream(exchange.call, response, transport)
            self._streams.append(stream)
            pump = asyncio.create_task(self._pump(stream, upstream))
            ended = asyncio.create_task(stream.ended.wait())
            try:
                await asyncio.wait({pump, ended}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._streams.remove(stream)
                for task in (pump, ended):
                    task.cancel()
                await asyncio.gather(pump, ended, return_exceptions=True)
            with contextlib.suppress(ConnectionError):
                await response.write_eof()
            return response

    async def _pump(self, stream: Stream, upstream: aiohttp.ClientResponse) -> None:
        try:
            async for line in _lines(upstream.content):
                try:
                    passed = self._filter(stream.call, line)
                except CutInLine as cut:
                    await stream.send(line[: len(line) // 2])
                    stream.end() if cut.clean else stream.reset()
                    return
                for one in passed if not stream.muted else ():
                    await stream.send(one + b"\n")
        except (aiohttp.ClientError, ConnectionError):
            stream.reset()

    def _filter(self, call: Call, line: bytes) -> list[bytes]:
        lines = [line]
        for match, passes in self._filters:
            if match(call):
                kind = str(json.loads(line)["type"])
                lines = [passed for one in lines for passed in passes(kind, one)]
        return lines


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    buffer = b""
    async for data in content.iter_any():
        *whole, buffer = (buffer + data).split(b"\n")
        for line in whole:
            if line.strip():
                yield line
