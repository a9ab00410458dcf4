"""Events on transitions, in `events.k8s.io/v1`, each told once: the same (object, reason, message) again within ten minutes
is dropped. An Event is news, not state: one that cannot be written is logged and forgotten."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final

from fairlead.errors import ApiError
from fairlead.kube.client import ApiClient
from fairlead.kube.resources import EVENT

logger = logging.getLogger(__name__)

REPEAT_AFTER_S: Final = 600.0
REMEMBERED: Final = 20_000
NOTE_MAX_BYTES: Final = 1024  # events.k8s.io's own limit
CONTROLLER_NAME: Final = "fairlead.dev/operator"


@dataclass(frozen=True, slots=True)
class Regarding:
    """The object that an Event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


class EventRecorder:
    """Writes Events. `wall` is the time that people read, `clock` the one that intervals are measured with."""

    def __init__(
        self,
        client: ApiClient,
        *,
        instance: str,
        clock: Callable[[], float],
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._instance = instance
        self._clock = clock
        self._wall = wall
        self._told: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    async def tell(self, regarding: Regarding, *, type_: str, reason: str, message: str, action: str) -> bool:
        """Write one Event unless it was told lately. Returns whether it was written; never raises for the API server."""
        fact = (regarding.uid, reason, message)
        now = self._clock()
        told_at = self._told.get(fact)
        if told_at is not None and now - told_at < REPEAT_AFTER_S:
            return False
        body = self._make_event(regarding, type_, reason, message, action)
        try:
            await self._client.create(EVENT, regarding.namespace, body, field_manager=CONTROLLER_NAME.replace("/", "-"))
        except ApiError as error:
            logger.warning("Event %s for %s/%s was not written: %s", reason, regarding.namespace, regarding.name, error)
            return False
        self._told.pop(fact, None)
        self._told[fact] = now
        while len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        return True

    def _make_event(self, regarding: Regarding, type_: str, reason: str, message: str, action: str) -> dict[str, Any]:
        time = self._wall()
        stamp = time.isoformat(timespec="microseconds").replace("+00:00", "Z")
        digest = blake2b(f"{regarding.uid} {reason} {message} {stamp}".encode(), digest_size=8).hexdigest()
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": f"{regarding.name}.{digest}", "namespace": regarding.namespace},
            "eventTime": stamp,
            "type": type_,
            "reason": reason,
            "action": action,
            "note": _cut(message),
            "reportingController": CONTROLLER_NAME,
            "reportingInstance": self._instance[:128],
            "regarding": {
                "apiVersion": regarding.api_version,
                "kind": regarding.kind,
                "namespace": regarding.namespace,
                "name": regarding.name,
                "uid": regarding.uid,
            },
        }


def _cut(message: str) -> str:
    raw = message.encode()
    if len(raw) <= NOTE_MAX_BYTES:
        return message
    return raw[: NOTE_MAX_BYTES - 3].decode(errors="ignore") + "…"
