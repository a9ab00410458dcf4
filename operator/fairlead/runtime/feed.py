"""The custom resources of one kind: what kopf's watch says goes into the cache and the queue, and ghosts are found.

kopf lists anew when its watch expired and tells nobody what vanished meanwhile. So each such list, an empty one too, is followed
two seconds after its last item by a list of metadata alone; what that does not show is gone. Until then a resource that the new
list has not shown yet gets nothing created.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from fairlead.errors import ApiError, NotFound
from fairlead.facts.observed import ObjectKey
from fairlead.kube.cache import Cache, Change
from fairlead.kube.client import ApiClient
from fairlead.kube.resources import Resource
from fairlead.runtime.metrics import Metrics
from fairlead.runtime.queue import Priority

logger = logging.getLogger(__name__)

GHOST_DEBOUNCE_S: Final = 2.0
GHOST_PERIOD_S: Final = 600.0
RETRY_S: Final = 5.0

Enqueue = Callable[[ObjectKey, Priority], None]


class CustomResourceFeed:
    """Keeps the custom resources that are a `resource` in the cache. `namespaces` empty: all."""

    def __init__(
        self,
        resource: Resource,
        client: ApiClient,
        cache: Cache,
        enqueue: Enqueue,
        metrics: Metrics,
        *,
        namespaces: Sequence[str],
        clock: Callable[[], float],
    ) -> None:
        self.resource = resource
        self.synced = asyncio.Event()
        self.last_heard_at = self.last_tried_at = clock()
        self._client = client
        self._cache = cache
        self._enqueue = enqueue
        self._metrics = metrics
        self._namespaces: Sequence[str | None] = list(namespaces) or [None]
        self._clock = clock
        self._expected: set[ObjectKey] | None = None  # at start: what the first list must still show
        self._seen_at: dict[ObjectKey, float] = {}
        self._listed_from: float | None = None  # when a list by kopf began that is not yet checked for ghosts
        self._check_due: float | None = None
        self._wakeup = asyncio.Event()

    def on_event(self, event: Mapping[str, Any]) -> None:
        """One raw watch event from kopf; `type` None is an item of a list."""
        self.heard()
        live = event["object"]
        metadata = live["metadata"]
        key = self._key_of(metadata)
        now = self._clock()
        if event["type"] == "DELETED":
            self._seen_at.pop(key, None)
            change = self._cache.remove(key, metadata["uid"], int(metadata["resourceVersion"]))
        else:
            self._seen_at[key] = now
            change = self._cache.put(live, self.resource.kind)
            if event["type"] is None:
                self.listed()
        self._arrived(key)
        if change.is_meaningful:
            self._enqueue(key, Priority.RESYNC if event["type"] is None else Priority.EVENT)

    def is_known(self, event: Mapping[str, Any]) -> bool:
        """Whether a raw event of kopf's watch brings nothing new, such as the echo of a status that we wrote. Then it has been
        taken here, and kopf, whose work for an event is twenty times ours, need not hear of it."""
        if event["type"] not in ("ADDED", "MODIFIED"):
            return False
        metadata = event["object"]["metadata"]
        key = self._key_of(metadata)
        if not self._cache.is_known(key, metadata["uid"], int(metadata["resourceVersion"])):
            return False
        self.heard()
        self._seen_at[key] = self._clock()
        self._arrived(key)
        return True

    def tried(self) -> None:
        """A request of the watch came to an end, whatever the answer was."""
        self.last_tried_at = self._clock()

    def heard(self) -> None:
        """The watch gave a sign of life."""
        self.last_heard_at = self._clock()

    def listed(self) -> None:
        """kopf began a list, or told of an item of one: what it does not tell of may be gone."""
        now = self._clock()
        if self._listed_from is None:
            self._listed_from = now
        self._check_due = now + GHOST_DEBOUNCE_S
        self._wakeup.set()

    def may_create(self, key: ObjectKey) -> bool:
        """False while a list began that has not shown this resource yet: it may be a ghost."""
        if self._listed_from is None:
            return True
        return self._seen_at.get(key, 0.0) >= self._listed_from

    def conditions(self) -> Iterator[tuple[str, str, str, str, str]]:
        """(namespace, name, type, status, reason) of every condition in the cache, for the metrics."""
        for key in self._cache.keys(self.resource.kind):
            entry = self._cache.get(key)
            assert entry is not None
            for condition in (entry.load().get("status") or {}).get("conditions") or ():
                type_, status, reason = (str(condition.get(part, "")) for part in ("type", "status", "reason"))
                yield key.namespace, key.name, type_, status, reason

    async def expect(self, *, is_needed: bool = True) -> bool:
        """Wait until the kind is served at all, then note what the first list must show. Returns when kopf can start; False when the
        cluster does not know a kind that is not needed.

        With scanning off kopf looks for kinds once: a CRD that is applied later would never be watched.
        """
        while True:
            try:
                listed, _ = await self._list()
                break
            except NotFound:
                self.heard()
                if not is_needed:
                    return False
                logger.error(
                    "%ss are not known to this cluster: apply crds/ first; asking again in %.0f s",
                    self.resource.kind,
                    RETRY_S,
                )
            except ApiError as error:
                logger.warning("%ss cannot be listed, asking again in %.0f s: %s", self.resource.kind, RETRY_S, error)
            await asyncio.sleep(RETRY_S)
        self._expected = set(listed)
        self._arrived(None)
        return True

    async def appear(self) -> None:
        """Wait until the cluster knows the kind, however long that takes."""
        while not await self.expect(is_needed=False):
            await asyncio.sleep(RETRY_S)

    async def run(self) -> None:
        """Look for ghosts when there is reason to, and every ten minutes."""
        while True:
            due = self._check_due if self._check_due is not None else self._clock() + GHOST_PERIOD_S
            self._wakeup.clear()
            try:
                async with asyncio.timeout(max(0.0, due - self._clock())):
                    await self._wakeup.wait()
                continue  # the debounce was moved
            except TimeoutError:
                pass
            try:
                await self.purge()
            except ApiError as error:
                logger.warning("Ghosts cannot be looked for, again in %.0f s: %s", RETRY_S, error)
                self._check_due = self._clock() + RETRY_S

    async def purge(self) -> list[ObjectKey]:
        """Drop the custom resources that the API server does not have any more. Returns them."""
        began_at, listed_from = self._clock(), self._listed_from
        listed, versions = await self._list()
        ghosts: list[ObjectKey] = []
        for namespace, version in versions.items():
            for change in self._retain(namespace, listed, version):
                assert change.before is not None
                ghosts.append(change.before.key)
                self._seen_at.pop(change.before.key, None)
                self._enqueue(change.before.key, Priority.EVENT)
        self._metrics.ghosts_purged.inc(len(ghosts))
        if ghosts:
            logger.info("%d %ss were deleted unnoticed", len(ghosts), self.resource.kind)
        for key in listed:
            if key in self._seen_at:
                self._seen_at[key] = began_at
        if self._listed_from == listed_from:
            self._listed_from = self._check_due = None
        if self._expected is not None:
            self._expected &= set(listed)
            self._arrived(None)
        return ghosts

    def _retain(self, namespace: str | None, listed: Mapping[ObjectKey, str], version: int) -> list[Change]:
        same = {key for key, uid in listed.items() if (entry := self._cache.get(key)) is None or entry.uid == uid}
        return self._cache.retain(self.resource.kind, namespace, same, version)

    async def _list(self) -> tuple[dict[ObjectKey, str], dict[str | None, int]]:
        """uid of each custom resource, and the version of the list per namespace."""
        listed: dict[ObjectKey, str] = {}
        versions: dict[str | None, int] = {}
        for namespace in self._namespaces:
            async for page in self._client.list(self.resource, namespace, metadata_only=True):
                versions[namespace] = int(page.resource_version)
                for item in page.items:
                    metadata = item["metadata"]
                    listed[self._key_of(metadata)] = metadata["uid"]
        return listed, versions

    def _key_of(self, metadata: Mapping[str, Any]) -> ObjectKey:
        return ObjectKey(self.resource.kind, metadata["namespace"], metadata["name"])

    def _arrived(self, key: ObjectKey | None) -> None:
        if self._expected is None or self.synced.is_set():
            return
        if key is not None:
            self._expected.discard(key)
        if not self._expected:
            self.synced.set()
