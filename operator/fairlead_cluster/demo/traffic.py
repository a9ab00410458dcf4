"""Clients outside the operator that keep talking to a model while it is changed, and count every failure.

The official `openai` client does the talking, without retries: what fails once is counted once.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx2
from openai import AsyncOpenAI, DefaultAsyncHttpxClient, OpenAIError


def make_client(base_url: str, *, timeout_s: float = 120.0, api_key: str = "unused") -> AsyncOpenAI:
    """An OpenAI client for one model server: no retries, no proxies of the environment.

    Every request takes a fresh connection, as a crowd of independent clients does; a kept one would stay with
    its pod and never notice that endpoints change.
    """
    limits = httpx2.Limits(max_keepalive_connections=0)
    http = DefaultAsyncHttpxClient(limits=limits, timeout=timeout_s, trust_env=False)
    return AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0, http_client=http)


@dataclass(slots=True)
class Answer:
    """One streamed answer: its text, how many chunks carried text, and seconds from request to end."""

    text: str
    chunks: int
    duration_s: float
    first_token_s: float

    @property
    def chunks_per_s(self) -> float:
        """Speed of the stream after its first token."""
        return self.chunks / max(self.duration_s - self.first_token_s, 1e-3)


async def ask(client: AsyncOpenAI, model: str, prompt: str, *, max_tokens: int) -> Answer:
    """Ask once, streamed. Raises OpenAIError when the stream fails or ends without a finish reason."""
    started = time.monotonic()
    first_token_s = 0.0
    parts: list[str] = []
    finished = False
    stream = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": prompt}], max_tokens=max_tokens, stream=True
    )
    async for chunk in stream:
        for choice in chunk.choices:
            if choice.delta.content:
                first_token_s = first_token_s or time.monotonic() - started
                parts.append(choice.delta.content)
            finished = finished or choice.finish_reason is not None
    if not finished:
        raise OpenAIError("the stream ended without a finish reason")
    return Answer("".join(parts), len(parts), time.monotonic() - started, first_token_s)


@dataclass(slots=True)
class TrafficReport:
    """What the clients saw."""

    requests: int = 0
    requests_failed: int = 0
    streams: int = 0
    streams_failed: int = 0
    stream_durations_s: list[float] = field(default_factory=list)
    elapsed_s: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        """Failed requests and streams together."""
        return self.requests_failed + self.streams_failed

    @property
    def requests_per_s(self) -> float:
        """Rate of the short requests over the whole run."""
        return self.requests / max(self.elapsed_s, 1e-3)

    @property
    def shortest_stream_s(self) -> float:
        """Seconds that the shortest finished stream was open; 0 when none finished."""
        return min(self.stream_durations_s, default=0.0)


class Traffic:
    """Short requests at a steady rate, and streams held open, until stopped.

    `stream_tokens` is chosen by the caller so that a stream stays open as long as wanted. A stream that ends is
    opened anew until `stop()`, which lets running streams finish.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        rate_per_s: float,
        streams: int,
        stream_tokens: int,
        api_key: str = "unused",
    ) -> None:
        self._client = make_client(base_url, api_key=api_key)
        self._model = model
        self._rate_per_s = rate_per_s
        self._streams = streams
        self._stream_tokens = stream_tokens
        self._stopping = asyncio.Event()
        self._open_streams = 0
        self._stopped_requests_s = 0.0
        self.report = TrafficReport()

    @property
    def open_streams(self) -> int:
        """Streams open at this moment."""
        return self._open_streams

    async def run(self) -> TrafficReport:
        """Run until `stop()` is called and the last stream has ended."""
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(self._streams):
                group.create_task(self._hold_streams())
            await self._send_requests(group)
            self.report.elapsed_s = time.monotonic() - started
        await self._client.close()
        return self.report

    def stop(self) -> None:
        """Send nothing new; streams that are open go on to their end."""
        self._stopping.set()

    async def _send_requests(self, group: asyncio.TaskGroup) -> None:
        interval_s = 1.0 / self._rate_per_s
        next_at = time.monotonic()
        while not self._stopping.is_set():
            group.create_task(self._send_request())
            next_at += interval_s
            await asyncio.sleep(max(0.0, next_at - time.monotonic()))

    async def _send_request(self) -> None:
        self.report.requests += 1
        try:
            answer = await self._client.chat.completions.create(
                model=self._model, messages=[{"role": "user", "content": "ping"}], max_tokens=4
            )
            if not answer.choices:
                raise OpenAIError("an answer without choices")
        except (OpenAIError, httpx2.HTTPError) as error:
            self.report.requests_failed += 1
            self.report.errors[f"request: {describe(error)}"] += 1

    async def _hold_streams(self) -> None:
        while not self._stopping.is_set():
            self.report.streams += 1
            self._open_streams += 1
            try:
                answer = await ask(self._client, self._model, "Tell a long story.", max_tokens=self._stream_tokens)
                self.report.stream_durations_s.append(answer.duration_s)
            except (OpenAIError, httpx2.HTTPError) as error:
                self.report.streams_failed += 1
                self.report.errors[f"stream: {describe(error)}"] += 1
                await asyncio.sleep(0.1)
            finally:
                self._open_streams -= 1


def describe(error: BaseException) -> str:
    """An error with what caused it, in one line: `APIConnectionError: Connection error. (ConnectError: ...)`."""
    text = f"{type(error).__name__}: {error}"
    cause = error.__cause__
    return (f"{text} ({type(cause).__name__}: {cause})" if cause else text)[:300]
