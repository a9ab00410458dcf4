"""An aiohttp session that goes nowhere: the real ApiClient speaks to the simulated cluster through it.

This is also where things go wrong: requests that are refused, answers that get lost, and the operator's own death before or
after a write.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import orjson
from tests.sim.answers import Answer, refuse
from tests.sim.cluster import Request, SimCluster
from tests.sim.delivery import Manner, Stream
from tests.sim.kinds import locate

HALF_TRIP_S = 0.001
STALE_HOLD_S = 0.6
INACTIVITY_S = 150.0


@dataclass(slots=True)
class Fault:
    """What happens to the next `times` requests that `matches`. `done`: the request has its effect, the answer is lost."""

    matches: Callable[[Request], bool]
    code: int = 0  # 0: no answer at all
    reason: str = "InternalError"
    done: bool = False
    times: int = 1
    headers: Mapping[str, str] = field(default_factory=dict)


class Refused(StrEnum):
    """How a write can fail."""

    CONFLICT = "409"
    PATIENCE = "429, Retry-After 5"
    BROKEN = "500"
    FORBIDDEN = "403"
    UNHEARD = "no answer, not done"
    UNSAID = "no answer, but done"


PATIENCE_S = 5.0


def make_fault(refused: Refused, matches: Callable[[Request], bool]) -> Fault:
    """The next request that `matches` fails like that."""
    codes = {Refused.CONFLICT: (409, "Conflict"), Refused.PATIENCE: (429, "TooManyRequests")}
    codes |= {Refused.BROKEN: (500, "InternalError"), Refused.FORBIDDEN: (403, "Forbidden")}
    code, reason = codes.get(refused, (0, ""))
    headers = {"Retry-After": f"{PATIENCE_S:.0f}"} if refused is Refused.PATIENCE else {}
    return Fault(matches, code, reason, done=refused is Refused.UNSAID, headers=headers)


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """Die at the `write`-th write of a life, counted from 0, `after` it had its effect or before."""

    write: int
    after: bool


class SimSession:
    """What `Connection.session` holds. One per life of an operator."""

    closed = False

    def __init__(self, cluster: SimCluster, actor: str, manner: Manner = Manner.PROMPT) -> None:
        self.cluster = cluster
        self.actor = actor
        self.manner = manner
        self.faults: list[Fault] = []
        self.crash: CrashPoint | None = None
        self.on_crash: Callable[[], None] = lambda: None
        self.before_write: Callable[[Request], None] | None = None
        self.dead = False
        self.lag_s = 0.0  # on top of each way
        self.writes = 0
        self.requests = 0
        self.streams: list[Stream] = []
        self.view: int | None = None  # the first list of each kind shows the state of this version
        self.view_kinds: frozenset[str] = frozenset()
        self._viewed: set[tuple[str, str | None, str]] = set()

    async def request(
        self,
        method: str,
        url: Any,
        *,
        params: Mapping[str, str] | None = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: aiohttp.ClientTimeout | None = None,
    ) -> SimResponse:
        """As aiohttp's."""
        await self._pause()
        self.requests += 1
        parts = urlsplit(str(url))
        address = locate(parts.path)
        if address is None:
            return SimResponse(refuse(404, "NotFound", f"{url} is not served"))
        params, headers = dict(parse_qsl(parts.query)) | dict(params or {}), headers or {}
        body = orjson.loads(data) if data else None
        request = Request(self.actor, method, address, params, body, headers.get("Content-Type", ""))
        if "watch" in params:
            return self._watch(request)
        if method == "GET":
            return await self._get(request, "PartialObjectMetadata" in headers.get("Accept", ""))
        return await self._write(request)

    async def _get(self, request: Request, metadata_only: bool) -> SimResponse:
        if (answer := await self._fault(request)) is not None:
            return SimResponse(answer)
        view = None
        first = (request.address.kind, request.address.namespace, str(metadata_only))
        if "fieldSelector" not in request.params and first not in self._viewed:
            self._viewed.add(first)
            view = self.view if request.address.kind in self.view_kinds else None
        answer = self.cluster.list(request, view) if request.address.name is None else self.cluster.serve(request)
        await self._pause()
        return SimResponse(answer)

    async def _write(self, request: Request) -> SimResponse:
        number, self.writes = self.writes, self.writes + 1
        if self.before_write is not None:
            self.before_write(request)
        crash = self.crash is not None and self.crash.write == number
        if crash and self.crash is not None and not self.crash.after:
            await self._die()
        if (answer := await self._fault(request)) is not None:
            return SimResponse(answer)
        answer = self.cluster.serve(request)
        if crash:
            await self._die()
        await self._pause()
        return SimResponse(answer)

    async def _fault(self, request: Request) -> Answer | None:
        for fault in self.faults:
            if fault.times > 0 and fault.matches(request):
                fault.times -= 1
                if fault.done:
                    self.cluster.serve(request)
                await self._pause()
                if fault.code == 0:
                    raise aiohttp.ServerDisconnectedError
                if request.method != "GET":
                    self.cluster.note_refused(request, fault.code)
                return refuse(fault.code, fault.reason, "injected", headers=fault.headers)
        return None

    async def _die(self) -> None:
        self.dead = True
        self.on_crash()
        await asyncio.Event().wait()  # nobody hears of anything any more

    async def _pause(self) -> None:
        await asyncio.sleep(HALF_TRIP_S + self.lag_s)
        if self.dead:
            await asyncio.Event().wait()

    def _watch(self, request: Request) -> SimResponse:
        since = int(request.params["resourceVersion"])
        stale = self.view is not None and since <= self.view and request.address.kind in self.view_kinds
        stream = Stream(
            self.cluster,
            request.address,
            request.params.get("labelSelector", ""),
            request.params.get("fieldSelector", ""),
            self.manner,
            since,
            STALE_HOLD_S if stale else 0.0,
        )
        stream.open()
        self.streams.append(stream)
        timer = asyncio.get_running_loop().call_later(float(request.params.get("timeoutSeconds", "600")), stream.close)

        def ended() -> None:
            timer.cancel()
            stream.close()
            if stream in self.streams:
                self.streams.remove(stream)

        return SimResponse(Answer(200, {}), stream, ended)

    def cut(self) -> None:
        """The process is gone: its streams end, nothing is asked any more."""
        self.dead = True
        for stream in list(self.streams):
            stream.close()


class SimResponse:
    """The parts of `aiohttp.ClientResponse` that are used."""

    def __init__(self, answer: Answer, stream: Stream | None = None, ended: Callable[[], None] = lambda: None) -> None:
        self.status = answer.code
        self.headers = answer.headers
        self._body = answer.body
        self._stream = stream
        self._ended = ended

    @property
    def content(self) -> SimResponse:
        return self

    async def read(self) -> bytes:
        return orjson.dumps(self._body)

    async def iter_any(self) -> AsyncIterator[bytes]:
        assert self._stream is not None
        while True:
            try:
                async with asyncio.timeout(INACTIVITY_S):
                    line = await self._stream.lines.get()
            except TimeoutError as error:
                raise aiohttp.SocketTimeoutError from error
            if line is None:
                return
            yield line

    def release(self) -> None:
        self._ended()

    def close(self) -> None:
        self._ended()


def as_session(session: SimSession) -> Any:
    """For a field that is typed as aiohttp's."""
    return session
