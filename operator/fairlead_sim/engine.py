"""The latency model in real time: requests wait, run and get their tokens when the model says so.

One task drives all sequences step by step, so a hundred streams cost one timer. The engine counts tokens and knows
nothing about their text.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Protocol

from fairlead_sim.latency import Batch, Limits, Sequence, Speed, Step

#: An event loop that was late by no more than this catches up; beyond it the lost time is lost.
_CATCH_UP_S = 0.25


class EngineStoppedError(Exception):
    """The engine went away while the request was running, or before it was admitted."""


class Observer(Protocol):
    """Who wants to know what happens, to count it."""

    def on_step(self, step: Step) -> None:
        """A step has ended."""

    def on_tokens(self, generation: Generation, gap_s: float | None) -> None:
        """A generation got a token; `gap_s` after its last one, None for its first."""

    def on_finished(self, generation: Generation) -> None:
        """A generation ended, for the reason that it carries."""


@dataclass(eq=False, slots=True)
class Generation:
    """One running request: what it has got so far. Times are seconds of `time.monotonic`."""

    sequence: Sequence
    arrived_s: float
    scheduled_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    finished_s: float | None = None
    #: length, stop, abort or error, once it has ended.
    reason: str | None = None
    error: Exception | None = None
    n: int = 1
    max_tokens: int | None = None
    #: The reason when all tokens have come: the wish was fulfilled (length), or the text is at its end (stop).
    ends_as: str = "length"
    #: Output tokens so far. (A step's plan counts its token at once; here it counts when the step has ended.)
    tokens: int = 0
    _delivered: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def next_tokens(self) -> int:
        """Wait for the next tokens; how many came, 0 at the end. Raises EngineStoppedError if the engine is gone."""
        while True:
            fresh = self.tokens - self._delivered
            if fresh > 0 and self.error is None:
                self._delivered += fresh
                return fresh
            if self.error is not None:
                raise self.error
            if self.reason is not None:
                return 0
            self._changed.clear()
            await self._changed.wait()

    def wake(self) -> None:
        """Something changed."""
        self._changed.set()


class Engine:
    """Runs generations on one simulated engine."""

    def __init__(self, speed: Speed, limits: Limits, observer: Observer) -> None:
        self.batch = Batch(speed, limits)
        self._observer = observer
        self._live: dict[Sequence, Generation] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._closed_by: Exception | None = None
        self._ending = 0

    @property
    def running(self) -> int:
        """Generations in the batch."""
        return len(self.batch.running) + self._ending

    @property
    def waiting(self) -> int:
        """Generations in the queue."""
        return len(self.batch.waiting)

    @property
    def unfinished(self) -> int:
        """Generations that have not ended."""
        return len(self._live)

    def start(self) -> None:
        """Begin to work. Needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="engine")

    def close(self, error: Exception) -> None:
        """Admit nothing any more: `submit` raises this error. What runs goes on."""
        self._closed_by = error

    def abort_all(self, error: Exception) -> None:
        """Every unfinished generation ends now with this error."""
        for generation in list(self._live.values()):
            self._end(generation, "abort", error)

    async def stop(self) -> None:
        """End the work; unfinished generations end with EngineStoppedError."""
        self.abort_all(EngineStoppedError("engine stopped"))
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def wait_idle(self) -> None:
        """Until no generation is unfinished."""
        await self._idle.wait()

    def submit(
        self, sequence: Sequence, *, n: int = 1, max_tokens: int | None = None, ends_as: str = "length"
    ) -> Generation:
        """Queue a sequence. Raises the error given to `close`, or ValueError if it can never fit."""
        if self._closed_by is not None:
            raise self._closed_by
        self.batch.add(sequence)
        generation = Generation(sequence, time.monotonic(), n=n, max_tokens=max_tokens, ends_as=ends_as)
        self._live[sequence] = generation
        self._idle.clear()
        self._wake.set()
        return generation

    def finish(self, generation: Generation, reason: str) -> None:
        """End a generation early: its text is complete ("stop") or nobody wants it any more ("abort")."""
        if generation.sequence in self._live:
            self._end(generation, reason, None)

    def _end(self, generation: Generation, reason: str, error: Exception | None) -> None:
        self._live.pop(generation.sequence, None)
        self.batch.remove(generation.sequence)
        generation.reason = reason
        generation.error = error
        generation.finished_s = time.monotonic()
        generation.wake()
        self._observer.on_finished(generation)
        if not self._live:
            self._idle.set()

    async def _run(self) -> None:
        ends_s = time.monotonic()
        while True:
            step = self.batch.step()
            if step is None:
                self._wake.clear()
                await self._wake.wait()
                ends_s = time.monotonic()
                continue
            now_s = time.monotonic()
            ends_s = max(ends_s, now_s - _CATCH_UP_S) + step.duration_s
            self._ending = len(step.finished)
            for sequence in step.admitted:
                generation = self._live.get(sequence)
                if generation is not None and generation.scheduled_s is None:
                    generation.scheduled_s = now_s
            await asyncio.sleep(max(0.0, ends_s - now_s))
            self._ending = 0
            self._deliver(step)

    def _deliver(self, step: Step) -> None:
        now_s = time.monotonic()
        for sequence in step.produced:
            generation = self._live.get(sequence)
            if generation is None:
                continue
            generation.tokens += 1
            last_s = generation.last_token_s
            if generation.first_token_s is None:
                generation.first_token_s = now_s
            generation.last_token_s = now_s
            self._observer.on_tokens(generation, None if last_s is None else now_s - last_s)
            generation.wake()
        for sequence in step.finished:
            generation = self._live.get(sequence)
            if generation is not None:
                self._end(generation, generation.ends_as, None)
        self._observer.on_step(step)
