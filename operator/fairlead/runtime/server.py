"""What people and probes look at: /metrics, /healthz, /readyz and /debug/queue, on the loop that does the work.

On the same loop on purpose: a blocked loop cannot answer a probe, and that is the truth. None of the pages holds a value
from a custom resource's spec, or words of an error that could quote one.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol

import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from fairlead.facts.observed import ObjectKey
from fairlead.kube.lease import LeaseView
from fairlead.runtime.kinds import describe_key
from fairlead.runtime.metrics import Metrics
from fairlead.runtime.queue import Queue

logger = logging.getLogger(__name__)

LOOP_LAG_MAX_S: Final = 5.0
STREAM_SILENCE_MAX_S: Final = 180.0
QUEUE_AGE_MAX_S: Final = 600.0
DEBUG_KEYS_MAX: Final = 1000
SOON_S: Final = 3600.0  # later come only the checks of every ten hours, of everybody
_PROBE_PERIOD_S: Final = 1.0
_NUMBER: Final = re.compile(r"(?:[ -]?\d+| [(<].*)$")


class Stream(Protocol):
    """A watch that can fall silent: `last_heard_at` is the API server's last sign of life in it, `last_tried_at` the last end
    of a request of it, refused and failed ones too."""

    synced: asyncio.Event
    last_heard_at: float
    last_tried_at: float


class LoopProbe:
    """Measures how late the loop runs what is due."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        self.lag_s = 0.0
        self._metrics = metrics
        self._clock = clock

    async def run(self) -> None:
        """Once a second, until cancelled."""
        while True:
            due = self._clock() + _PROBE_PERIOD_S
            await asyncio.sleep(_PROBE_PERIOD_S)
            self.lag_s = max(0.0, self._clock() - due)
            self._metrics.loop_lag.set(self.lag_s)


class Health:
    """Judges liveness and readiness. A finding is a sentence; no finding is health."""

    def __init__(
        self,
        streams: Mapping[str, Stream],
        queue: Queue[ObjectKey],
        probe: LoopProbe,
        *,
        clock: Callable[[], float],
        is_working: Callable[[], bool],
    ) -> None:
        self._streams = streams
        self._queue = queue
        self._probe = probe
        self._clock = clock
        self._is_working = is_working

    def liveness(self) -> list[str]:
        """What only a restart can help: a loop that lags, a stream that is deaf, a queue that does not move.

        An API server that is away, refuses or lacks the CRD is none of it: restarts would only add a back-off to the outage.
        """
        findings = []
        if self._probe.lag_s > LOOP_LAG_MAX_S:
            findings.append(f"the event loop lags {self._probe.lag_s:.1f} s")
        now = self._clock()
        for name, stream in self._streams.items():
            stuck_s = now - max(stream.last_heard_at, stream.last_tried_at)
            if stuck_s > STREAM_SILENCE_MAX_S:
                findings.append(f"the watch of {name} has been silent for {stuck_s:.0f} s")
        if self._is_working():
            if (age_s := self._queue.oldest_s()) > QUEUE_AGE_MAX_S:
                findings.append(f"a key has waited {age_s:.0f} s for a worker")
            if (busy_s := max(self._queue.busy.values(), default=0.0)) > QUEUE_AGE_MAX_S:
                findings.append(f"a worker has been at one key for {busy_s:.0f} s")
        return findings

    def readiness(self) -> list[str]:
        """What is missing before this replica could lead: caches that are filled and up to date."""
        findings = []
        now = self._clock()
        for name, stream in self._streams.items():
            if not stream.synced.is_set():
                findings.append(f"{name}: not listed yet")
            elif (silence_s := now - stream.last_heard_at) > STREAM_SILENCE_MAX_S:
                findings.append(f"{name}: nothing heard for {silence_s:.0f} s")
        return findings


class Server:
    """The HTTP server. `port` is the real one after `start`."""

    def __init__(
        self,
        registry: CollectorRegistry,
        health: Health,
        debug: Callable[[], Mapping[str, Any]],
        address: str,
        port: int,
    ) -> None:
        self.port = port
        self._address = address
        self._registry = registry
        self._health = health
        self._debug = debug
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Bind and serve. Raises OSError when the port is taken."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/debug/queue", self._queue)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._address, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        logger.info(
            "Serving /metrics, /healthz, /readyz and /debug/queue", extra={"address": f"{self._address}:{self.port}"}
        )

    async def stop(self) -> None:
        """Close the port and open connections."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _metrics(self, _: web.Request) -> web.Response:
        body = generate_latest(self._registry)
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _healthz(self, _: web.Request) -> web.Response:
        return _verdict(self._health.liveness())

    async def _readyz(self, _: web.Request) -> web.Response:
        return _verdict(self._health.readiness())

    async def _queue(self, _: web.Request) -> web.Response:
        body = orjson.dumps(self._debug(), option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)
        return web.Response(body=body, content_type="application/json")


def _verdict(findings: Sequence[str]) -> web.Response:
    text = "ok\n" if not findings else "\n".join(findings) + "\n"
    return web.Response(text=text, status=503 if findings else 200)


def describe_queue(queue: Queue[ObjectKey], *, leading: bool) -> dict[str, Any]:
    """What /debug/queue shows: who waits, who is worked on, who comes back within the hour and how many later, who failed how often."""
    soon = {key: due_s for key, due_s in queue.delayed.items() if due_s <= SOON_S}
    return {
        "leading": leading,
        "depth": len(queue),
        "oldestSeconds": round(queue.oldest_s(), 3),
        "busy": _named(queue.busy),
        "delayed": _named(soon),
        "delayedForLong": len(queue.delayed) - len(soon),
        "failures": _named(queue.failures),
    }


def describe_streams(streams: Mapping[str, Stream], now: float) -> dict[str, Any]:
    """Which watches are listed, and how long ago each was heard."""
    return {
        name: {"listed": stream.synced.is_set(), "silentSeconds": round(now - stream.last_heard_at, 3)}
        for name, stream in sorted(streams.items())
    }


def describe_tasks(tasks: Collection[asyncio.Task[Any]]) -> dict[str, int]:
    """How many tasks there are of each name, numbers and objects in names left out."""
    counts = Counter(_NUMBER.sub("", task.get_name()) for task in tasks)
    return {"all": len(tasks), **dict(counts.most_common(DEBUG_KEYS_MAX))}


def describe_lease(lease: LeaseView | None) -> dict[str, Any] | None:
    """Who holds the Lease, how often it changed hands, and how long ago it was renewed; None when nobody elects."""
    if lease is None:
        return None
    return {
        "holder": lease.holder,
        "transitions": lease.transitions,
        "renewedSecondsAgo": round(lease.renewed_ago_s, 3),
    }


def _named(values: Mapping[ObjectKey, float | int]) -> dict[str, float | int]:
    shown = sorted(values.items(), key=lambda item: item[1])[:DEBUG_KEYS_MAX]
    return {describe_key(key): round(value, 3) for key, value in shown}
