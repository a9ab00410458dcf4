"""Writes a pod's status: several changes at once as one patch, and nothing when nothing changed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import aiohttp

from fairlead_cluster.api import PODS, STRATEGIC_MERGE_PATCH, Api, ApiError
from fairlead_cluster.node.state import PodState, make_status

Json = dict[str, Any]

_log = logging.getLogger(__name__)
_COALESCE_S = 0.02
_RETRY_S = 1.0


class StatusWriter:
    """For one pod. `latest` gives the pod as last seen on the watch, `state` what is true of it here."""

    def __init__(self, api: Api, latest: Callable[[], Json], state: PodState) -> None:
        self._api = api
        self._latest = latest
        self._state = state
        self._dirty = asyncio.Event()
        self._written: Json = {}
        self._transitions: list[Json] = []
        self._lock = asyncio.Lock()

    def changed(self) -> None:
        """Something in the state (or a readiness gate of the pod) is new."""
        self._dirty.set()

    async def run(self) -> None:
        """Write changes until cancelled."""
        while True:
            await self._dirty.wait()
            await asyncio.sleep(_COALESCE_S)
            self._dirty.clear()
            if not await self.flush():
                self._dirty.set()
                await asyncio.sleep(_RETRY_S)

    async def flush(self) -> bool:
        """Write now if something is new. False if it must be tried again; a pod that is gone counts as written."""
        async with self._lock:
            pod = self._latest()
            status = make_status(self._with_own_transitions(pod), self._state, time.time())
            if status == self._written:
                return True
            metadata = pod["metadata"]
            body = {"metadata": {"uid": metadata["uid"]}, "status": status}
            try:
                await self._api.patch(
                    PODS,
                    metadata["name"],
                    body,
                    metadata["namespace"],
                    subresource="status",
                    content_type=STRATEGIC_MERGE_PATCH,
                )
            except ApiError as error:
                if error.status in (404, 409):  # gone, or another pod of that name
                    return True
                _log.warning("status of pod %s/%s: %s", metadata["namespace"], metadata["name"], error)
                return error.status < 500 and error.status != 429
            except (aiohttp.ClientError, TimeoutError) as error:
                _log.warning("status of pod %s/%s: %r", metadata["namespace"], metadata["name"], error)
                return False
            self._written, self._transitions = status, status["conditions"]
            return True

    def _with_own_transitions(self, pod: Json) -> Json:
        """The pod with the conditions that we wrote last: the watch may not have brought them back yet."""
        status = pod.get("status", {})
        own = {condition["type"] for condition in self._transitions}
        others = [one for one in status.get("conditions") or [] if one["type"] not in own]
        return {**pod, "status": {**status, "conditions": [*others, *self._transitions]}}
