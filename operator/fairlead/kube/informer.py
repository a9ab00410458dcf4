"""Keeps the cache like the API server for one kind: list in chunks, watch with bookmarks, list again when the watch lost its place.

After each list, what the list does not show is dropped and reported: a watch that broke with 410 loses deletions, and
without this the ghosts would stay for ever. A stream that merely broke is resumed where it was.

Two informers may watch objects of one kind by different labels, each in its own part of one cache: a list of the one says nothing of
what only the other selects, and what leaves the one may have come to the other with the same change.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fairlead.errors import ApiError, Forbidden, Gone, NotFound, TooManyRequests
from fairlead.facts.observed import ObjectKey
from fairlead.kube.cache import Cache, Change, Entry
from fairlead.kube.client import ApiClient, WatchEvent
from fairlead.kube.resources import Resource

logger = logging.getLogger(__name__)

BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 30.0
#: A stream that lived this long was healthy, so its end starts the backoff anew.
HEALTHY_STREAM_S = 5.0
#: For how long a kind that was there is taken to be there still, though the API server says otherwise: one that has just started says so.
MISSING_AFTER_S = 30.0
#: How often a kind is asked for that may be missing, and is.
MISSING_RETRY_S = 30.0

OnChange = Callable[[Change], None]
#: Told when a kind that need not be there is found missing, or appears.
OnServed = Callable[[Resource], None]


class StreamObserver(Protocol):
    """Counts restarts, for the metrics."""

    def restarted(self, resource: str, cause: str) -> None:
        """A stream of this plural ended, because of `cause`: expired, error or timeout."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What one informer watches. `namespace` None: all. `label_selector`: requirements `key`, `!key` and `key=value`, with commas.
    `metadata_only`: the API server sends nothing else of the objects, so that what is in them is never here. `name`: only this one.
    `is_needed`: without, the cluster may lack the kind, or the operator the right to see it."""

    resource: Resource
    namespace: str | None = None
    label_selector: str | None = None
    metadata_only: bool = False
    name: str | None = None
    is_needed: bool = True

    def __str__(self) -> str:
        if self.name is not None:
            return f"{self.resource.plural} {self.name} in {self.namespace}"
        return self.resource.plural if self.namespace is None else f"{self.resource.plural} in {self.namespace}"

    def covers(self, namespace: str, labels: Mapping[str, str], name: str = "") -> bool:
        """Whether an object of this kind there, with these labels and this name, is shown by it."""
        if self.namespace not in (None, namespace) or self.name not in (None, name):
            return False
        return all(
            _is_met(requirement, labels) for requirement in (self.label_selector or "").split(",") if requirement
        )

    def meets(self, other: Selection) -> bool:
        """Whether the two may show objects of one kind and namespace by different labels or names."""
        shares = self.resource == other.resource and (
            None in (places := {self.namespace, other.namespace}) or len(places) == 1
        )
        return shares and (self.label_selector, self.name) != (other.label_selector, other.name)


def _is_met(requirement: str, labels: Mapping[str, str]) -> bool:
    key, equals, value = requirement.partition("=")
    if equals:
        return labels.get(key) == value
    return key[1:] not in labels if key.startswith("!") else key in labels


class Informer:
    """One list-and-watch loop. `run` ends only by cancellation; `synced` is set after the first whole list. `others`: the selections
    of other informers that put objects into the same cache; only those count that this one's meets.

    What is not needed and is not there counts as synced, with no objects; `Cache.is_served` says so, and it is asked for twice a minute."""

    def __init__(
        self,
        client: ApiClient,
        cache: Cache,
        selection: Selection,
        on_change: OnChange,
        *,
        clock: Callable[[], float],
        observer: StreamObserver | None = None,
        jitter: Callable[[], float] = random.random,
        others: Sequence[Selection] = (),
        on_served: OnServed = lambda _: None,
    ) -> None:
        self.selection = selection
        self._others = [other for other in others if selection.meets(other)]
        self.synced = asyncio.Event()
        self.last_heard_at = self.last_tried_at = clock()
        self._client = client
        self._cache = cache
        self._on_change = on_change
        self._clock = clock
        self._observer = observer
        self._jitter = jitter
        self._on_served = on_served
        self._refused_at: float | None = None
        self._resource_version = ""

    async def run(self) -> None:
        """Follow the kind until cancelled, whatever the API server does meanwhile."""
        failures = 0
        while True:
            started_at = self._clock()
            cause = "timeout"
            error: ApiError | None = None
            try:
                if not self._resource_version:
                    await self._list()
                await self._watch()
            except Gone:
                self._resource_version = ""
                cause = "expired"
            except (NotFound, Forbidden) as caught:
                if self._is_missing():
                    await self._do_without(caught)
                    continue
                error, cause = caught, "error"
            except ApiError as caught:
                error, cause = caught, "error"
            self.last_tried_at = self._clock()
            if self._observer is not None:
                self._observer.restarted(self.selection.resource.plural, cause)
            lived_s = self._clock() - started_at
            failures = 1 if lived_s > HEALTHY_STREAM_S else failures + 1
            if cause == "timeout" and lived_s > HEALTHY_STREAM_S:
                failures = 0
                continue
            delay_s = self._delay(failures, error)
            if error is not None:
                logger.warning("Watch of %s failed, again in %.1f s: %s", self.selection, delay_s, error)
            await asyncio.sleep(delay_s)

    def _delay(self, failures: int, error: ApiError | None) -> float:
        backoff_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 20))
        backoff_s *= 0.5 + self._jitter() / 2
        if isinstance(error, TooManyRequests):
            return max(backoff_s, error.retry_after_s)
        return backoff_s

    async def _list(self) -> None:
        selection = self.selection
        listed: set[ObjectKey] = set()
        version = ""
        async for page in self._client.list(
            selection.resource,
            selection.namespace,
            label_selector=selection.label_selector,
            name=selection.name,
            metadata_only=selection.metadata_only,
        ):
            self._heard()
            version = page.resource_version
            for item in page.items:
                metadata = item["metadata"]
                listed.add(ObjectKey(selection.resource.kind, metadata.get("namespace", ""), metadata["name"]))
                self._tell(self._cache.put(item, selection.resource.kind))
        is_anothers = self._is_anothers if self._others else None
        kind, namespace = selection.resource.kind, selection.namespace
        for change in self._cache.retain(kind, namespace, listed, int(version), is_anothers):
            self._tell(change)
        self._resource_version = version
        self.synced.set()

    def _is_missing(self) -> bool:
        """Whether to do without it, now that the API server has refused."""
        if self.selection.is_needed:
            return False
        was_there = self._is_served() and self.synced.is_set()
        if self._refused_at is None:
            self._refused_at = self._clock()
        self._resource_version = ""
        return not was_there or self._clock() - self._refused_at >= MISSING_AFTER_S

    async def _do_without(self, error: NotFound | Forbidden) -> None:
        """Nothing of it is known until it is there, however long that takes; it is no sign that the API server is out of reach."""
        selection = self.selection
        if self._is_served():
            logger.info("%s: done without, because %s", selection, error)
        self._serve(is_served=False)
        if isinstance(error, NotFound):  # what may not be seen is still there
            for change in self._cache.drop_kind(selection.resource.kind, selection.namespace):
                self._tell(change)
        self.synced.set()
        until = self._clock() + MISSING_RETRY_S * (0.5 + self._jitter() / 2)
        while (left_s := until - self._clock()) > 0.0:
            self.last_tried_at = self.last_heard_at = self._clock()
            await asyncio.sleep(min(left_s, HEALTHY_STREAM_S))
        self.last_tried_at = self.last_heard_at = self._clock()

    def _is_served(self) -> bool:
        return self._cache.is_served(self.selection.resource.kind, self.selection.namespace)

    def _serve(self, *, is_served: bool) -> None:
        resource, namespace = self.selection.resource, self.selection.namespace
        if self._is_served() is not is_served:
            self._cache.set_served(resource.kind, namespace, is_served=is_served)
            self._on_served(resource)

    def _begun(self) -> None:
        """The API server lets us watch: whoever may only list would know less and less."""
        self._heard()
        self._refused_at = None
        if not self.selection.is_needed:
            self._serve(is_served=True)

    async def _watch(self) -> None:
        selection = self.selection
        async for event in self._client.watch(
            selection.resource,
            selection.namespace,
            resource_version=self._resource_version,
            label_selector=selection.label_selector,
            name=selection.name,
            metadata_only=selection.metadata_only,
            is_known=self._is_known,
            on_begin=self._begun,  # where nothing happens there may be no bookmarks for longer than the probes are patient
        ):
            self._heard()
            self._take(event)

    def _take(self, event: WatchEvent) -> None:
        metadata = event.object["metadata"]
        version = metadata["resourceVersion"]
        if event.type == "DELETED":
            key = ObjectKey(self.selection.resource.kind, metadata.get("namespace", ""), metadata["name"])
            # An object that left this selection lives on, and its state of this very version may be another selection's.
            self._tell(self._cache.remove(key, metadata.get("uid", ""), int(version) - 1))
        elif event.type not in ("BOOKMARK", "KNOWN"):
            self._tell(self._cache.put(event.object, self.selection.resource.kind))
        self._resource_version = version

    def _is_known(self, namespace: str, name: str, uid: str, resource_version: int) -> bool:
        return self._cache.is_known(ObjectKey(self.selection.resource.kind, namespace, name), uid, resource_version)

    def _is_anothers(self, entry: Entry) -> bool:
        """Whether an object that a list of this selection did not show is one of another selection only. What no selection shows any
        more, because its labels were stripped, is dropped by whichever lists first."""
        labels = entry.load()["metadata"].get("labels") or {}
        namespace, name = entry.key.namespace, entry.key.name
        if self.selection.covers(namespace, labels, name):
            return False
        return any(other.covers(namespace, labels, name) for other in self._others)

    def _tell(self, change: Change) -> None:
        if change.is_meaningful:
            self._on_change(change)

    def _heard(self) -> None:
        self.last_heard_at = self._clock()
