"""Kubernetes events, with the two things that keep a kubelet from flooding the API: counting repeats, and a limit."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

from fairlead_cluster.api import EVENTS, Api, ApiError
from fairlead_cluster.node.times import now_rfc3339

Json = dict[str, Any]

_log = logging.getLogger(__name__)
_BURST = 25  # per object, as client-go's event correlator: then one in 5 minutes
_REFILL_S = 300.0
_MESSAGE_LIMIT = 1024
_FORGET_AFTER_S = 3600.0


@dataclass(slots=True)
class _Sent:
    name: str
    count: int
    at_s: float


@dataclass(slots=True)
class _Budget:
    left: float
    at_s: float


@dataclass(frozen=True, slots=True)
class _Event:
    about: Json
    kind: str
    reason: str
    message: str
    field_path: str

    @property
    def key(self) -> tuple[str, ...]:
        return (self.about["metadata"]["uid"], self.field_path, self.kind, self.reason, self.message)


class EventRecorder:
    """Writes events in the name of one component (of one node), one after the other, while `run` runs."""

    def __init__(self, api: Api, component: str, host: str = "") -> None:
        self._api = api
        self._source = {"component": component} | ({"host": host} if host else {})
        self._queue: asyncio.Queue[_Event] = asyncio.Queue()
        self._sent: dict[tuple[str, ...], _Sent] = {}
        self._budgets: dict[str, _Budget] = {}

    def emit(self, about: Json, kind: str, reason: str, message: str, *, field_path: str = "") -> None:
        """`kind` is Normal or Warning. The same event again becomes a higher count of the first."""
        if self._may(about["metadata"]["uid"]):
            self._queue.put_nowait(_Event(about, kind, reason, message[:_MESSAGE_LIMIT], field_path))

    async def run(self) -> None:
        """Until cancelled. An event that cannot be written is dropped: it is a courtesy."""
        while True:
            event = await self._queue.get()
            try:
                await self._write(event)
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                _log.debug("event %s of %s was not written: %s", event.reason, event.about["metadata"]["name"], error)

    async def _write(self, event: _Event) -> None:
        metadata = event.about["metadata"]
        namespace = metadata.get("namespace", "default")
        now = now_rfc3339()
        if (sent := self._sent.get(event.key)) is not None:
            sent.count, sent.at_s = sent.count + 1, time.monotonic()
            try:
                await self._api.patch(EVENTS, sent.name, {"count": sent.count, "lastTimestamp": now}, namespace)
            except ApiError as error:
                if error.status != 404:
                    raise
            else:
                return
        self._forget_old()
        body = self._make(event, f"{metadata['name']}.{time.time_ns():x}", namespace, now)
        await self._api.create(EVENTS, body, namespace)
        self._sent[event.key] = _Sent(body["metadata"]["name"], 1, time.monotonic())

    def _make(self, event: _Event, name: str, namespace: str, now: str) -> Json:
        metadata = event.about["metadata"]
        involved = {
            "apiVersion": event.about.get("apiVersion", "v1"),
            "kind": event.about["kind"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "resourceVersion": metadata.get("resourceVersion", ""),
        }
        if "namespace" in metadata:
            involved["namespace"] = metadata["namespace"]
        if event.field_path:
            involved["fieldPath"] = event.field_path
        return {
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": involved,
            "type": event.kind,
            "reason": event.reason,
            "message": event.message,
            "source": self._source,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "reportingComponent": self._source["component"],
            "reportingInstance": self._source.get("host", ""),
        }

    def _may(self, uid: str) -> bool:
        now_s = time.monotonic()
        budget = self._budgets.setdefault(uid, _Budget(_BURST, now_s))
        budget.left = min(_BURST, budget.left + (now_s - budget.at_s) / _REFILL_S)
        budget.at_s = now_s
        if budget.left < 1:
            return False
        budget.left -= 1
        return True

    def _forget_old(self) -> None:
        oldest_s = time.monotonic() - _FORGET_AFTER_S
        for key in [key for key, sent in self._sent.items() if sent.at_s < oldest_s]:
            del self._sent[key]
        for uid in [uid for uid, budget in self._budgets.items() if budget.at_s < oldest_s]:
            del self._budgets[uid]
