"""How a watch tells what happened: promptly, or as Sieve's fault classes have it (late, coalesced, lost, twice).

A stream that loses events ends with 410, as a real one does whose history was compacted: the client must list anew and find
by itself what it missed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson
from tests.sim.cluster import Entry, SimCluster, selects
from tests.sim.kinds import CHILD_KINDS, Address

Json = dict[str, Any]
PROMPT_S = 0.002
LATE_S = 2.5
COALESCE_S = 0.7
REPEAT_S = 0.15
BREAK_S = 0.4


class Manner(StrEnum):
    """How events reach a client."""

    PROMPT = "prompt"
    COALESCED = "coalesced"  # of several changes of an object only the last is told
    LOST = "lost"  # one event per stream arrives, then it breaks with 410
    TWICE = "twice"  # each event comes again later, after newer ones
    LATE_RESOURCES = "late custom resources"
    LATE_CHILDREN = "late children"


#: Seconds until a client must have heard of a change of a custom resource: the manner's own delay, and two trips.
HEARD_WITHIN_S = {
    Manner.PROMPT: 0.01,
    Manner.TWICE: 0.01,
    Manner.LATE_CHILDREN: 0.01,
    Manner.COALESCED: COALESCE_S + 0.01,
    Manner.LATE_RESOURCES: LATE_S + 0.01,
    Manner.LOST: 5.0,  # a new list, and the look for what it does not show
}


@dataclass(frozen=True, slots=True)
class Event:
    """A line of a watch: `version` orders it."""

    type: str
    version: int
    live: Json

    def line(self) -> bytes:
        return orjson.dumps({"type": self.type, "object": self.live}) + b"\n"


EXPIRED = Event("ERROR", 0, {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"})


@dataclass(eq=False)
class Stream:
    """One open watch. `hold_s`: seconds for which a stream that was resumed from an older view stays silent."""

    cluster: SimCluster
    address: Address
    selector: str
    field_selector: str
    manner: Manner
    since: int
    hold_s: float = 0.0
    lines: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)
    told: int = 0  # events delivered
    _pending: deque[Event] = field(default_factory=deque)
    _flushing: bool = False
    _broken: bool = False
    _closed: bool = False
    _free_at: float = 0.0

    def open(self) -> None:
        """Tell what happened since, then go on listening."""
        self._free_at = self._loop.time() + self.hold_s
        if self.since < self.cluster.floor:
            self.lines.put_nowait(EXPIRED.line())
            self.lines.put_nowait(None)
            return
        for entry in self.cluster.log:
            if entry.version > self.since:
                self.take(entry)
        self.cluster.listeners.append(self.take)

    def close(self) -> None:
        """The client went away, or the server ends the stream."""
        self._closed = True
        if self.take in self.cluster.listeners:
            self.cluster.listeners.remove(self.take)
        self.lines.put_nowait(None)

    def expire(self) -> None:
        """The server compacted what this stream would have told."""
        if not self._closed and not self._broken:
            self._broken = True
            self._later(0.0, self._end_expired)

    def take(self, entry: Entry) -> None:
        """One change of the log."""
        event = self._event_of(entry)
        if event is None or self._broken:
            return
        if self.manner is Manner.COALESCED:
            self._coalesce(event)
        elif self.manner is Manner.LOST and self.told:
            self._broken = True
            self._later(BREAK_S, self._end_expired)
        else:
            self.told += 1
            self._queue(event, self._latency_s())
            if self.manner is Manner.TWICE:
                self._later(self._latency_s() + REPEAT_S * min(self.told, 4), lambda: self._put(event))

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def _latency_s(self) -> float:
        late = (self.manner is Manner.LATE_RESOURCES and self.address.kind == "LLMDeployment") or (
            self.manner is Manner.LATE_CHILDREN and self.address.kind in CHILD_KINDS
        )
        return LATE_S if late else PROMPT_S

    def _event_of(self, entry: Entry) -> Event | None:
        """What the selection sees of it: an object whose label was stripped is gone."""
        if entry.key.kind != self.address.kind or self.address.namespace not in (None, entry.key.namespace):
            return None
        if self.field_selector not in ("", f"metadata.name={entry.key.name}"):
            return None
        was = entry.before is not None and entry.type != "ADDED" and selects(self.selector, entry.before)
        is_ = entry.after is not None and selects(self.selector, entry.after)
        if is_:
            assert entry.after is not None
            return Event("MODIFIED" if was else "ADDED", entry.version, entry.after)
        if not was:
            return None
        assert entry.before is not None
        gone = {**entry.before, "metadata": {**entry.before["metadata"], "resourceVersion": str(entry.version)}}
        return Event("DELETED", entry.version, gone)

    def _queue(self, event: Event, delay_s: float) -> None:
        # One timer per event, each sends the oldest: so order holds whatever the timers' own order is.
        self._pending.append(event)
        self._later(delay_s, self._put_oldest)

    def _put_oldest(self) -> None:
        self._put(self._pending.popleft())

    def _put(self, event: Event) -> None:
        if not self._closed:
            self.lines.put_nowait(event.line())

    def _coalesce(self, event: Event) -> None:
        key = (event.live["metadata"]["namespace"], event.live["metadata"]["name"])
        same = [e for e in self._pending if (e.live["metadata"]["namespace"], e.live["metadata"]["name"]) == key]
        for earlier in same:
            self._pending.remove(earlier)
        unseen = bool(same) and same[0].type == "ADDED"
        if not (event.type == "DELETED" and unseen):
            self._pending.append(
                Event("ADDED", event.version, event.live) if unseen and event.type != "DELETED" else event
            )
        if not self._flushing:
            self._flushing = True
            self._later(COALESCE_S, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        while self._pending:
            self._put_oldest()

    def _end_expired(self) -> None:
        if not self._closed:
            self.lines.put_nowait(EXPIRED.line())
            self.lines.put_nowait(None)

    def _later(self, delay_s: float, call: Any) -> None:
        at = max(self._loop.time() + delay_s, self._free_at)
        self._loop.call_at(at, call)
