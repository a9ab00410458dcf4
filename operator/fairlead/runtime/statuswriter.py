"""When status is written, and that it is written only when it says something new.

Kubernetes answers a change with a volley: a Deployment is observed, makes a ReplicaSet, that makes pods, those get nodes, all
within half a second. Telling of each step would be several writes for what a person reads as one. So status waits until a
change of ours has settled, and counts that merely move wait a second; what people and tools wait for (a new generation, Ready or
Stalled turning) is told as soon as it is settled. Nothing waits longer than three seconds, or ten while a loaded cluster has not
even made the pods, or thirty where they are the first of a new resource: of a thousand at once, most would be told of twice. And
waiting never lies: until then `observedGeneration` and every condition are those of the last write.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fairlead.api.conditions import ConditionType
from fairlead.errors import Invalid, NotFound
from fairlead.facts.digest import digest_of
from fairlead.facts.observed import ObjectKey
from fairlead.kube.cache import Cache
from fairlead.kube.client import ApiClient
from fairlead.kube.resources import DEPLOYMENT
from fairlead.runtime.applier import NotLeadingError
from fairlead.runtime.kinds import Kinds
from fairlead.runtime.metrics import Metrics

logger = logging.getLogger(__name__)

SETTLE_S: Final = 0.5
CALM_S: Final = 1.0
LATEST_S: Final = 3.0
BEGINNING_S: Final = 10.0
FIRST_BEGINNING_S: Final = 30.0
#: How a server-side apply refuses a field that the CRD does not declare; it names one at a time.
_UNDECLARED: Final = re.compile(r"\.status((?:\.\w+)+): field not declared in schema")
_URGENT: Final = (ConditionType.READY, ConditionType.STALLED)


@dataclass(slots=True)
class StatusTiming:
    """Of one custom resource: since when its status is out of date, and until when our own change is settling."""

    differs_since: float | None = None
    settles_at: float = float("-inf")
    is_beginning: bool = False  # pods are about to be made: what status would say is no longer true a moment later
    is_first: bool = False  # there is no status yet

    def child_written(self, now: float) -> None:
        """A change of ours is on its way through the cluster."""
        self.settles_at = now + SETTLE_S
        if self.differs_since is None:
            self.differs_since = now

    def child_moves(self, now: float) -> None:
        """Somebody's change is, and the controller that carries it out has not looked yet."""
        self.settles_at = max(self.settles_at, now + SETTLE_S)

    def due_in_s(self, now: float, *, urgent: bool) -> float:
        """Seconds until status should be written, given that it differs now."""
        if self.differs_since is None:
            self.differs_since = now
        calm_at = self.differs_since + (0.0 if urgent else CALM_S)
        if self.is_beginning:  # an event will tell that it is over
            patience_s = FIRST_BEGINNING_S if self.is_first else BEGINNING_S
            return max(0.0, self.differs_since + patience_s - now)
        return max(0.0, min(max(self.settles_at, calm_at), self.differs_since + LATEST_S) - now)

    def up_to_date(self) -> None:
        """Status says what is true."""
        self.differs_since = None


class StatusWriter:
    """Compares and writes."""

    def __init__(
        self, kinds: Kinds, client: ApiClient, cache: Cache, metrics: Metrics, may_write: Callable[[], bool]
    ) -> None:
        self._kinds = kinds
        self._client = client
        self._cache = cache
        self._metrics = metrics
        self._may_write = may_write
        self._undeclared: dict[str, set[tuple[str, ...]]] = {kind: set() for kind in kinds}

    def crd_may_have_changed(self, kind: str) -> None:
        """Try again what the kind's CRD did not declare when it was last tried."""
        self._undeclared[kind].clear()

    def differs(self, key: ObjectKey, raw: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
        """Whether `status` says something else than the custom resource's does."""
        live = raw.get("status") or {}
        status = without(status, self._undeclared[key.kind])
        if normalise(status) == normalise(live):
            return False
        return not self._cache.is_settled(key, digest_of(status), {"spec": live})

    async def write(self, key: ObjectKey, raw: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
        """Apply `status`; False when that changed nothing or the custom resource is gone. Raises ApiError, NotLeadingError.

        The version that the plan was made from goes along, so that a status worked out from an old spec is refused (409). Where
        the CRD is older than this operator, the fields that it lacks are left out: part of the truth is better than none.
        """
        while True:
            left_out = frozenset(self._undeclared[key.kind])
            try:
                return await self._write(key, raw, without(status, left_out))
            except Invalid as error:
                match = _UNDECLARED.search(error.message)
                path = tuple(match[1].split(".")[1:]) if match is not None else ()
                if not path or path in left_out:
                    raise
                self._undeclared[key.kind].add(path)
                logger.warning(
                    "The CRD of %s is older than this operator: it has no status.%s. Apply crds/.",
                    key.kind,
                    ".".join(path),
                )

    async def _write(self, key: ObjectKey, raw: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
        if not self._may_write():
            raise NotLeadingError
        kind, metadata = self._kinds[key.kind], raw["metadata"]
        body = {
            "apiVersion": kind.resource.api_version,
            "kind": kind.name,
            "metadata": {
                "name": key.name,
                "namespace": key.namespace,
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "status": status,
        }
        try:
            applied = await self._client.apply(
                kind.resource,
                key.namespace,
                key.name,
                body,
                field_manager=kind.field_manager,
                force=True,
                subresource="status",
            )
        except NotFound:
            return False  # deleted meanwhile: its event is on the way
        self._metrics.status_writes.inc()
        if applied.object["metadata"]["resourceVersion"] == metadata["resourceVersion"]:
            self._cache.settle(key, digest_of(status), {"spec": raw.get("status") or {}})
            return False
        self._cache.put(applied.object, kind.name)
        return True


def is_urgent(live: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Whether somebody waits for this difference: a generation that was seen, or Ready or Stalled that turned."""
    if live.get("observedGeneration") != status.get("observedGeneration"):
        return True
    return any(_status_of(live, kind) != _status_of(status, kind) for kind in _URGENT)


def is_awaited(live: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Whether somebody waits for this difference with a connection open: who delivered an alert."""
    return bool(_alerts_of(live) != _alerts_of(status))


def _alerts_of(status: Mapping[str, Any]) -> Any:
    return normalise((status.get("scaling") or {}).get("alerts") or [])


def is_unseen(child: Mapping[str, Any]) -> bool:
    """Whether a Deployment's status is that of an older generation. An annotation that anybody puts on it makes a new one, too."""
    if child.get("kind") != DEPLOYMENT.kind:
        return False
    observed = int((child.get("status") or {}).get("observedGeneration", 0))
    return 0 < observed < int(child["metadata"].get("generation", 0))


def is_beginning(child: Mapping[str, Any]) -> bool:
    """Whether a Deployment's controller has not made its pods yet, and says nothing of why it cannot."""
    if child.get("kind") != DEPLOYMENT.kind:
        return False
    status = child.get("status") or {}
    refused = any(one["type"] == "ReplicaFailure" and one["status"] == "True" for one in status.get("conditions") or ())
    return not refused and int(status.get("replicas", 0)) < int(child["spec"].get("replicas", 0))


def without(status: Mapping[str, Any], paths: Collection[tuple[str, ...]]) -> Mapping[str, Any]:
    """A status less the fields at these paths."""
    if not paths:
        return status
    inner = {path[0]: {other[1:] for other in paths if other[0] == path[0] and len(other) > 1} for path in paths}
    return {
        key: without(value, inner[key]) if inner.get(key) and isinstance(value, Mapping) else value
        for key, value in status.items()
        if (key,) not in paths
    }


def _status_of(status: Mapping[str, Any], kind: str) -> str | None:
    for condition in status.get("conditions") or ():
        if condition.get("type") == kind:
            return str(condition.get("status"))
    return None


def normalise(value: Any) -> Any:
    """A status without what says nothing (null), and with conditions as the map by type that they are."""
    if isinstance(value, Mapping):
        return {
            key: _by_type(item) if key == "conditions" else normalise(item)
            for key, item in value.items()
            if item is not None
        }
    if isinstance(value, (list, tuple)):
        return [normalise(item) for item in value]
    return value


def _by_type(conditions: Any) -> Any:
    if not isinstance(conditions, (list, tuple)):
        return conditions
    return {str(condition.get("type")): normalise(condition) for condition in conditions}
