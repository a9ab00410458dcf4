"""kopf, and what we use of it: process life, login and the watch of our custom resources. The only file with its decorators.

Nothing of kopf writes: its diff base and progress go nowhere, its events are off, there are no finalizers and no peering.
A handler stores and enqueues; an exception in it would be dropped, so there is nothing in it that can fail.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import kopf

from fairlead.kube.client import LIST_CHUNK_SIZE
from fairlead.kube.patience import Listener, Patience
from fairlead.kube.session import Connection
from fairlead.runtime.feed import CustomResourceFeed

#: Shorter than the watchdog's patience: each stream begins anew within it, and a beginning is a sign of life.
WATCH_SERVER_TIMEOUT_S: Final = 120
REQUEST_TIMEOUT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 5.0
INACTIVITY_TIMEOUT_S: Final = 70.0  # above the 60 s in which the API server sends a bookmark
BACKOFF_MAX_S: Final = 30.0


class EndlessBackoffs:
    """1, 2, 4 … 30 s and then 30 s for ever, each with jitter. kopf ends the process when the delays end."""

    def __iter__(self) -> Iterator[float]:
        delay_s = 1.0
        while True:
            yield delay_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
            delay_s = min(BACKOFF_MAX_S, delay_s * 2)


class NoDiffBase(kopf.DiffBaseStorage):
    """Remembers nothing: no handler of ours asks what changed. Saves a third of kopf's work per event."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:  # noqa: ARG002 - kopf's signature
        """An empty essence instead of a deep copy of the body."""
        return {}

    def fetch(self, *, body: Any) -> Any:  # noqa: ARG002
        """Nothing was stored."""
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        """Store nothing."""


class NoProgress(kopf.ProgressStorage):
    """Remembers nothing: there are no handlers with progress."""

    def fetch(self, *, key: Any, body: Any) -> Any:  # noqa: ARG002
        """Nothing was stored."""
        return None

    def store(self, *, key: Any, record: Any, body: Any, patch: Any) -> None:
        """Store nothing."""

    def purge(self, *, key: Any, body: Any, patch: Any) -> None:
        """Nothing is there to purge."""

    def touch(self, *, body: Any, patch: Any, value: Any) -> None:
        """Touch nothing."""

    def clear(self, *, essence: Any) -> Any:
        """The essence is empty already."""
        return essence


def make_settings() -> kopf.OperatorSettings:
    """kopf's settings as fairlead needs them; each has its reason in the architecture notes."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.persistence.progress_storage = NoProgress()
    settings.networking.error_backoffs = EndlessBackoffs()
    settings.networking.request_timeout = REQUEST_TIMEOUT_S
    settings.networking.connect_timeout = CONNECT_TIMEOUT_S
    settings.watching.inactivity_timeout = INACTIVITY_TIMEOUT_S
    settings.watching.server_timeout = WATCH_SERVER_TIMEOUT_S
    settings.watching.client_timeout = WATCH_SERVER_TIMEOUT_S + 15.0
    settings.watching.chunk_size = LIST_CHUNK_SIZE
    settings.queueing.worker_limit = None
    settings.queueing.idle_timeout = 1.0
    settings.queueing.exit_timeout = 0.5  # the handler only stores and enqueues: there is nothing to wait for
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.execution.max_workers = 1
    return settings


def make_registry(connection: Connection, feeds: Iterable[CustomResourceFeed]) -> kopf.OperatorRegistry:
    """The handlers: one for login, and one for the events of each kind."""
    registry = kopf.OperatorRegistry()
    feeds = list(feeds)
    patience = Patience({feed.resource.plural: Listener(feed.listed, feed.is_known) for feed in feeds})

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        # kopf asks at the start, and again should it ever close its session.
        return kopf.AiohttpSession(
            server=connection.server,
            aiohttp_session=connection.open_for_kopf(patience),
            default_namespace=connection.namespace,
        )

    for feed in feeds:
        _add_handler(registry, feed)
    return registry


def _add_handler(registry: kopf.OperatorRegistry, feed: CustomResourceFeed) -> None:
    group, _, version = feed.resource.api_version.partition("/")

    @kopf.on.event(group, version, feed.resource.plural, id=feed.resource.plural, registry=registry)
    async def on_event(event: Mapping[str, Any], **_: Any) -> None:
        feed.on_event(event)
