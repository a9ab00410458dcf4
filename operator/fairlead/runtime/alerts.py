"""The port to which Alertmanager sends: who may, how much, and what each answer means to it.

Alertmanager sends a request again at once after 5xx, with growing pauses, and at its next `group_interval` after any other failure.
So 503 says "soon, or somebody else": from a replica that does not lead, and while the API server does not take what is to be kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import orjson
from aiohttp import web

from fairlead.config import OperatorConfig
from fairlead.runtime.inbox import Inbox
from fairlead.sources.alertmanager import AlertmanagerError, parse_delivery

__all__ = ["PATH", "AlertServer", "AlertServerObserver", "Bucket", "TokenFile", "make_alert_server"]

logger = logging.getLogger(__name__)

PATH: Final = "/alertmanager/v1"
BODY_MAX_BYTES: Final = 1_048_576
BODY_TIMEOUT_S: Final = 10.0
#: Below the 10 s that Alertmanager gives a notification at least.
KEPT_TIMEOUT_S: Final = 5.0
WAITING_MAX: Final = 64
#: Deliveries per second in the long run, and at once: each of a thousand LLMDeployments is a group of its own.
RATE_PER_S: Final = 50.0
BURST: Final = 500
#: Of requests with a wrong token. A right one is let in however many of these there are.
WRONG_PER_S: Final = 10.0
WRONG_BURST: Final = 50
#: Open at once, of which each may hold the memory of a head. An Alertmanager has one or two.
CONNECTIONS_MAX: Final = 128
#: For the head of a request, the first and each later one. Above the `group_interval` of the guide, so that its connection stays.
HEAD_TIMEOUT_S: Final = 20.0
HEADERS_MAX: Final = 32
#: For what is left of a body that nobody wants, so that the sender sees the answer.
LINGER_S: Final = 1.0
TOKENS_MAX: Final = 2
TOKEN_MIN_LENGTH: Final = 16
TOKEN_FILE_MAX_BYTES: Final = 4096
RECHECK_S: Final = 1.0
LOG_EVERY_S: Final = 60.0


class AlertServerObserver(Protocol):
    """The metrics of deliveries."""

    def delivered(self, result: str) -> None:
        """One request, by how it was answered."""


class Bucket:
    """Tokens that flow in at `rate_per_s` up to `burst`."""

    def __init__(self, rate_per_s: float, burst: int, clock: Callable[[], float]) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._clock = clock
        self._left = float(burst)
        self._at = clock()

    def take(self) -> float:
        """0 when there was one, else the seconds until there is."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate_per_s)
        self._at = now
        if self._left >= 1.0:
            self._left -= 1.0
            return 0.0
        return (1.0 - self._left) / self._rate_per_s


class TokenFile:
    """The bearer tokens of a file with one or two lines. A file that changes is read again; one that cannot be used changes nothing."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._checked_at = float("-inf")
        self._stamp: tuple[int, int, int] | None = None
        self._digests: tuple[bytes, ...] = ()
        self._said = ""

    @property
    def has_tokens(self) -> bool:
        """Whether anybody can be let in at all."""
        self._refresh()
        return bool(self._digests)

    def admits(self, authorization: str) -> bool:
        """Whether a header carries one of the tokens. Takes the same time whichever it is, and whether it is one."""
        self._refresh()
        scheme, _, token = authorization.partition(" ")
        given = _digest(token.strip().encode(errors="replace"))
        found = False
        for digest in self._digests:
            found |= hmac.compare_digest(digest, given)
        return found and scheme.lower() == "bearer"

    def _refresh(self) -> None:
        now = self._clock()
        if now - self._checked_at < RECHECK_S:
            return
        self._checked_at = now
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if stamp == self._stamp:
                return
            digests = self._read()
        except (OSError, ValueError) as error:
            reason = error.strerror or "cannot be read" if isinstance(error, OSError) else str(error)
            self._say(f"--alerts-token-file {self._path}: {reason}")
            return
        if self._digests:
            logger.info("The tokens for alerts have changed: %d are admitted", len(digests))
        self._stamp, self._digests, self._said = stamp, digests, ""

    def _read(self) -> tuple[bytes, ...]:
        with self._path.open("rb") as file:
            content = file.read(TOKEN_FILE_MAX_BYTES + 1)
        if len(content) > TOKEN_FILE_MAX_BYTES:
            raise ValueError(f"more than {TOKEN_FILE_MAX_BYTES} bytes; needed: one or two lines, a token in each")
        tokens = [line.strip() for line in content.splitlines() if line.strip()]
        if not 1 <= len(tokens) <= TOKENS_MAX:
            raise ValueError(f"{len(tokens)} tokens; needed: one or two lines, a token in each")
        for number, token in enumerate(tokens, 1):
            if len(token) < TOKEN_MIN_LENGTH or any(not 0x21 <= byte <= 0x7E for byte in token):
                raise ValueError(
                    f"line {number}: at least {TOKEN_MIN_LENGTH} ASCII characters without spaces are needed"
                )
        return tuple(map(_digest, tokens))

    def _say(self, message: str) -> None:
        if message != self._said:
            self._said = message
            go_on = "those before stay" if self._digests else "nobody is admitted until it can be used"
            logger.error("%s: %s", message, go_on)


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


class _Refused(asyncio.Protocol):
    """A connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """End it without an answer, which would need the memory that is spared."""
        transport.close()


class AlertServer:
    """The HTTP server. `port` is the real one after `start`."""

    def __init__(
        self,
        inbox: Inbox,
        tokens: TokenFile,
        observer: AlertServerObserver,
        *,
        address: str,
        port: int,
        is_leading: Callable[[], bool],
        clock: Callable[[], float],
        kept_timeout_s: float = KEPT_TIMEOUT_S,
    ) -> None:
        self.port = port
        self._inbox = inbox
        self._tokens = tokens
        self._observer = observer
        self._address = address
        self._is_leading = is_leading
        self._clock = clock
        self._kept_timeout_s = kept_timeout_s
        self._bucket = Bucket(RATE_PER_S, BURST, clock)
        self._wrong = Bucket(WRONG_PER_S, WRONG_BURST, clock)
        self._waiting = 0
        self._warned_at: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        """Bind and serve. Raises OSError when the port is taken."""
        app = web.Application(client_max_size=BODY_MAX_BYTES)
        app.router.add_post(PATH, self._handle)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=1.0,
            keepalive_timeout=HEAD_TIMEOUT_S,
            lingering_time=LINGER_S,
            max_headers=HEADERS_MAX,
        )
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._accept, self._address, self.port)
        self.port = self._listener.sockets[0].getsockname()[1]
        admitting = "" if self._tokens.has_tokens else ", without a token that could be admitted"
        logger.info("Taking alerts%s", admitting, extra={"address": f"{self._address}:{self.port}{PATH}"})

    async def stop(self) -> None:
        """Close the port and open connections."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _accept(self) -> asyncio.Protocol:
        server = self._runner.server if self._runner is not None else None
        if server is None or len(server.connections) >= CONNECTIONS_MAX:
            self._warn(
                "connections", "More connections to the port for alerts than %d: others are closed", CONNECTIONS_MAX
            )
            return _Refused()
        return server()

    async def _handle(self, request: web.Request) -> web.Response:
        answer = self._refuse(request)
        if answer is None:
            self._waiting += 1
            try:
                answer = await self._take(request)
            finally:
                self._waiting -= 1
        return answer

    def _refuse(self, request: web.Request) -> web.Response | None:
        """What is answered without reading a body. Such a connection ends: the rest of the request is not worth its memory, and the next
        one may lead to the replica that leads."""
        if not self._tokens.has_tokens:
            return self._answer(503, "no_token", "no token can be read from --alerts-token-file", close=True)
        if not self._tokens.admits(request.headers.get("Authorization", "")):
            if (wait_s := self._wrong.take()) > 0.0:
                text = f"at most {WRONG_PER_S:.0f} requests per second with a wrong token"
                return self._answer(429, "limited", text, close=True, retry_after_s=wait_s)
            self._warn("unauthorized", "A delivery of alerts without a token that is admitted, from %s", request.remote)
            return self._answer(
                401, "unauthorized", "a bearer token is needed that is in --alerts-token-file", close=True
            )
        wait_s = self._bucket.take()
        if wait_s > 0.0:
            self._warn("limited", "More deliveries of alerts than %.0f per second, from %s", RATE_PER_S, request.remote)
            return self._answer(
                429, "limited", f"at most {RATE_PER_S:.0f} deliveries per second", close=True, retry_after_s=wait_s
            )
        if not self._is_leading():
            return self._answer(503, "not_leading", "this replica does not lead", close=True)
        if self._waiting >= WAITING_MAX:
            return self._answer(503, "busy", f"{WAITING_MAX} deliveries are being kept", retry_after_s=1.0)
        return None

    async def _take(self, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await request.read()
        except TimeoutError:
            return self._answer(408, "slow", f"the body took longer than {BODY_TIMEOUT_S:.0f} s", close=True)
        except web.HTTPRequestEntityTooLarge:
            text = f"more than {BODY_MAX_BYTES} bytes: set max_alerts of the receiver, or group by llm_namespace and llm_name"
            self._warn(
                "oversized", "A delivery of alerts has more than %d bytes, from %s", BODY_MAX_BYTES, request.remote
            )
            return self._answer(413, "oversized", text, close=True)
        except web.HTTPException:
            raise
        except Exception as error:  # noqa: BLE001 - a body that ends early, or is compressed and is not
            return self._answer(400, "junk", f"the body cannot be read ({type(error).__name__})", close=True)
        try:
            delivery = parse_delivery(body)
        except AlertmanagerError as error:
            self._warn("junk", "A delivery of alerts was not understood, from %s: %s", request.remote, error)
            return self._answer(400, "junk", str(error))
        claims, effects = self._inbox.take(delivery)
        if not await self._inbox.kept(claims, self._kept_timeout_s) or not self._is_leading():
            return self._answer(
                503, "not_kept", f"not written to status within {self._kept_timeout_s:.0f} s", close=True
            )
        self._observer.delivered("accepted")
        return _json(200, dict(effects))

    def _answer(
        self, status: int, result: str, message: str, *, close: bool = False, retry_after_s: float | None = None
    ) -> web.Response:
        self._observer.delivered(result)
        response = _json(status, {"error": message})
        if retry_after_s is not None:
            response.headers["Retry-After"] = str(max(1, round(retry_after_s + 0.5)))
        if status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        if close:
            response.force_close()
        return response

    def _warn(self, topic: str, message: str, *values: object) -> None:
        """Once a minute for each topic: a wrong token comes back at each group_interval, for ever."""
        now = self._clock()
        if now - self._warned_at.get(topic, float("-inf")) < LOG_EVERY_S:
            self._unsaid[topic] = self._unsaid.get(topic, 0) + 1
            return
        self._warned_at[topic] = now
        more = self._unsaid.pop(topic, 0)
        logger.warning(message, *values, extra={"more": more})


def make_alert_server(
    config: OperatorConfig,
    inbox: Inbox,
    observer: AlertServerObserver,
    is_leading: Callable[[], bool],
    clock: Callable[[], float],
) -> AlertServer | None:
    """None where nobody could be told from anybody: without a token file."""
    if config.alerts_token_file is None:
        return None
    return AlertServer(
        inbox,
        TokenFile(Path(config.alerts_token_file), clock),
        observer,
        address=config.alerts_address,
        port=config.alerts_port,
        is_leading=is_leading,
        clock=clock,
    )


def _json(status: int, body: object) -> web.Response:
    return web.Response(body=orjson.dumps(body) + b"\n", status=status, content_type="application/json")
