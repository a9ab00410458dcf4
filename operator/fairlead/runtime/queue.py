"""The keyed work queue: a key that is waiting is not added twice, a key at work is not given to a second worker.

controller-runtime's semantics on one asyncio loop. Each key is waiting (once), at work, or both: a key added while it is
at work waits again when the worker is done with it. Delays and backoff run on the loop's clock, so tests can jump in time.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Generic, Protocol, TypeVar

BACKOFF_FIRST_S: Final = 0.005
BACKOFF_MAX_S: Final = 300.0

K = TypeVar("K", bound=Hashable)


class Priority(IntEnum):
    """Who goes first: what requests wait for, then what a person waits for, then what a start or a resync brings."""

    URGENT = 0
    EVENT = 1
    RESYNC = 2


class QueueObserver(Protocol):
    """The workqueue metrics."""

    def added(self) -> None:
        """A key was put to the waiting ones."""

    def taken(self, waited_s: float) -> None:
        """A worker took a key that had waited so long."""

    def finished(self, worked_s: float) -> None:
        """A worker is done with a key."""

    def retried(self) -> None:
        """A key was added again with backoff."""


@dataclass(slots=True)
class _Waiting:
    since: float
    priority: Priority


class Queue(Generic[K]):
    """Keys to work on. All methods but `get` return at once; none may be called from another thread."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] | None = None,
        jitter: Callable[[], float] = random.random,
        observer: QueueObserver | None = None,
    ) -> None:
        self._clock = clock or asyncio.get_running_loop().time
        self._jitter = jitter
        self._observer = observer
        self._waiting: dict[K, _Waiting] = {}
        self._lanes: dict[Priority, deque[K]] = {priority: deque() for priority in Priority}
        self._busy: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._delayed: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}  # the one delayed add that counts, per key
        self._order = itertools.count()
        self._wakeup = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: K, priority: Priority = Priority.EVENT) -> None:
        """Have `key` worked on as soon as possible; a more urgent priority than the waiting one replaces it."""
        if self._closed:
            return
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = _Waiting(self._clock(), priority)
            if self._observer is not None:
                self._observer.added()
        elif priority < waiting.priority:
            waiting.priority = priority
        else:
            return
        if key not in self._busy:
            self._lanes[priority].append(key)
            self._wakeup.set()

    def add_after(self, key: K, delay_s: float) -> None:
        """Have `key` worked on in `delay_s` seconds. The earliest of several delays wins; an `add` before does not cancel it."""
        if self._closed:
            return
        if delay_s <= 0:
            self.add(key)
            return
        due = self._clock() + delay_s
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        heapq.heappush(self._delayed, (due, next(self._order), key))
        if len(self._delayed) > 2 * len(self._due) + 64:
            # Replaced delays stay in the heap until they are due; with a resync in ten hours that would be a leak.
            self._delayed = [item for item in self._delayed if self._due.get(item[2]) == item[0]]
            heapq.heapify(self._delayed)
        self._arm()

    def retry(self, key: K, at_least_s: float = 0.0) -> float:
        """Add `key` again after its backoff: 5 ms · 2^failures, at most 5 minutes, the upper half of it jittered. Returns it."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        backoff_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(failures, 30))
        delay_s = max(at_least_s, backoff_s * (0.5 + self._jitter() / 2))
        if self._observer is not None:
            self._observer.retried()
        self.add_after(key, delay_s)
        return delay_s

    def forget(self, key: K) -> None:
        """`key` went well: its next failure starts the backoff from the beginning."""
        self._failures.pop(key, None)

    def discard(self, key: K) -> None:
        """`key` is gone for good: drop its delays and failures too."""
        self.forget(key)
        self._due.pop(key, None)

    async def get(self) -> K:
        """The next key, which is at work until `done`. Waits as long as there is none."""
        while True:
            key = self._pop()
            if key is not None:
                return key
            self._wakeup.clear()
            await self._wakeup.wait()

    def done(self, key: K) -> None:
        """The worker is done with `key`, whatever came of it."""
        started = self._busy.pop(key)
        if self._observer is not None:
            self._observer.finished(self._clock() - started)
        waiting = self._waiting.get(key)
        if waiting is not None:
            self._lanes[waiting.priority].append(key)
            self._wakeup.set()

    def close(self) -> None:
        """Take no more keys and give none away; workers in `get` wait until they are cancelled."""
        self._closed = True
        self._waiting.clear()
        self._delayed.clear()
        self._due.clear()
        for lane in self._lanes.values():
            lane.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def reopen(self) -> None:
        """Take keys again after `close`, with no memory of failures."""
        self._closed = False
        self._failures.clear()

    @property
    def busy(self) -> dict[K, float]:
        """Keys at work and for how many seconds."""
        now = self._clock()
        return {key: now - since for key, since in self._busy.items()}

    @property
    def delayed(self) -> dict[K, float]:
        """Keys that come back later and in how many seconds."""
        now = self._clock()
        return {key: due - now for key, due in self._due.items()}

    @property
    def failures(self) -> dict[K, int]:
        """Keys whose last pass failed, and how often in a row."""
        return dict(self._failures)

    def oldest_s(self) -> float:
        """How long the oldest waiting key has waited, seconds; 0 when none does."""
        if not self._waiting:
            return 0.0
        return self._clock() - min(waiting.since for waiting in self._waiting.values())

    def _pop(self) -> K | None:
        for priority, lane in self._lanes.items():
            while lane:
                key = lane.popleft()
                waiting = self._waiting.get(key)
                # A key that became more urgent stands in two lanes; the place it left behind is passed over.
                if waiting is None or waiting.priority != priority or key in self._busy:
                    continue
                del self._waiting[key]
                now = self._clock()
                self._busy[key] = now
                if self._observer is not None:
                    self._observer.taken(now - waiting.since)
                return key
        return None

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._delayed:
            delay_s = max(0.0, self._delayed[0][0] - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._release)

    def _release(self) -> None:
        self._timer = None
        # The loop may call a little early by its own resolution; without the slack the timer would spin.
        now = self._clock() + 0.001
        while self._delayed and self._delayed[0][0] <= now:
            due, _, key = heapq.heappop(self._delayed)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)
        self._arm()
