"""The feed of custom resources: what kopf says is kept and queued, and what it lost is found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.unit.kube.fake_api import FakeApi, serving

from fairlead.errors import Unavailable
from fairlead.facts.observed import ObjectKey
from fairlead.kube.cache import Cache
from fairlead.kube.resources import LLMDEPLOYMENT
from fairlead.runtime.feed import GHOST_DEBOUNCE_S, GHOST_PERIOD_S, CustomResourceFeed
from fairlead.runtime.metrics import Metrics
from fairlead.runtime.queue import Priority

CRS = "/apis/fairlead.dev/v1alpha1/namespaces/ml/llmdeployments"
Json = dict[str, Any]


@dataclass
class Fed:
    """A feed, and what it queued."""

    api: FakeApi
    cache: Cache
    feed: CustomResourceFeed
    metrics: Metrics
    now: list[float]
    queued: list[tuple[str, Priority]] = field(default_factory=list)

    def event(self, kind: str | None, live: Json) -> None:
        self.feed.on_event({"type": kind, "object": live})

    def known(self) -> list[str]:
        return sorted(key.name for key in self.cache.keys("LLMDeployment"))


def key_of(name: str) -> ObjectKey:
    return ObjectKey("LLMDeployment", "ml", name)


@asynccontextmanager
async def feeding(*namespaces: str) -> AsyncIterator[Fed]:
    api, cache, metrics, now = FakeApi(), Cache(), Metrics(), [1000.0]
    async with serving(api) as (client, _):
        queued: list[tuple[str, Priority]] = []
        feed = CustomResourceFeed(
            LLMDEPLOYMENT,
            client,
            cache,
            lambda key, priority: queued.append((key.name, priority)),
            metrics,
            namespaces=namespaces,
            clock=lambda: now[0],
        )
        yield Fed(api, cache, feed, metrics, now, queued)


async def test_edits_are_queued_before_what_a_list_brings_and_repeats_not_at_all() -> None:
    async with feeding() as fed:
        live = fed.api.put(CRS, "a", spec={})
        fed.event(None, live)
        fed.event(None, live)
        edited = fed.api.put(CRS, "a", spec={"x": 1})
        fed.event("MODIFIED", edited)
        fed.event("ADDED", live)
        fed.event("DELETED", {**edited, "metadata": {**edited["metadata"], "resourceVersion": "999"}})
        assert fed.queued == [("a", Priority.RESYNC), ("a", Priority.EVENT), ("a", Priority.EVENT)]
        assert fed.known() == []


async def test_ghosts_are_found_and_the_living_stay() -> None:
    async with feeding() as fed:
        for name in "abc":
            fed.event(None, fed.api.put(CRS, name, spec={}))
        fed.api.remove(f"{CRS}/b", tell=False)
        fed.queued.clear()
        assert [key.name for key in await fed.feed.purge()] == ["b"]
        assert fed.known() == ["a", "c"]
        assert fed.queued == [("b", Priority.EVENT)]
        assert fed.metrics.ghosts_purged._value.get() == 1


async def test_a_successor_of_the_same_name_makes_the_predecessor_a_ghost() -> None:
    async with feeding() as fed:
        fed.event(None, fed.api.put(CRS, "a", spec={}))
        fed.api.remove(f"{CRS}/a", tell=False)
        new = fed.api.put(CRS, "a", spec={})
        assert [key.name for key in await fed.feed.purge()] == ["a"]
        fed.event("ADDED", new)
        entry = fed.cache.get(key_of("a"))
        assert entry is not None
        assert entry.uid == new["metadata"]["uid"]


async def test_what_is_younger_than_the_list_is_no_ghost() -> None:
    async with feeding() as fed:
        fed.api.put(CRS, "a", spec={})
        live = {"metadata": {"name": "young", "namespace": "ml", "uid": "y", "resourceVersion": "100000"}, "spec": {}}
        fed.event("ADDED", live)
        assert await fed.feed.purge() == []
        assert fed.known() == ["young"]


async def test_only_the_watched_namespaces_are_asked() -> None:
    async with feeding("ml", "prod") as fed:
        await fed.feed.purge()
        assert [path.split("/")[5] for _, path, _ in fed.api.requests] == ["ml", "prod"]
        assert all(method == "GET" for method, _, _ in fed.api.requests)


async def test_nothing_is_created_for_what_a_new_list_has_not_shown_yet() -> None:
    async with feeding() as fed:
        a, b = (fed.api.put(CRS, name, spec={}) for name in "ab")
        fed.event("ADDED", a)
        fed.event("ADDED", b)
        assert fed.feed.may_create(key_of("a"))
        fed.now[0] += 100
        fed.event(None, a)
        assert fed.feed.may_create(key_of("a"))
        assert not fed.feed.may_create(key_of("b"))
        await fed.feed.purge()
        assert fed.feed.may_create(key_of("b"))


async def test_the_check_comes_two_seconds_after_the_last_item_and_every_ten_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with feeding() as fed:
        loop = asyncio.get_running_loop()
        fed.feed._clock = loop.time
        checks: list[float] = []

        async def purge() -> list[Any]:
            checks.append(loop.time())
            fed.feed._check_due = fed.feed._listed_from = None
            return []

        monkeypatch.setattr(fed.feed, "purge", purge)
        monkeypatch.setattr("fairlead.runtime.feed.GHOST_DEBOUNCE_S", 0.1)
        monkeypatch.setattr("fairlead.runtime.feed.GHOST_PERIOD_S", 0.5)
        task = asyncio.create_task(fed.feed.run())
        started = loop.time()
        for name in "abc":
            fed.event(None, fed.api.put(CRS, name, spec={}))
            await asyncio.sleep(0.05)
        last = loop.time()
        await asyncio.sleep(1.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert checks[0] >= last - 0.05 + 0.1 - 0.02, "each item moves it"
        assert len(checks) in (2, 3)
        assert checks[1] - checks[0] >= 0.45
        assert started < checks[0]
    assert GHOST_DEBOUNCE_S == 2.0
    assert GHOST_PERIOD_S == 600.0


async def test_a_check_that_fails_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    async with feeding() as fed:
        fed.feed._clock = asyncio.get_running_loop().time
        monkeypatch.setattr("fairlead.runtime.feed.GHOST_DEBOUNCE_S", 0.01)
        monkeypatch.setattr("fairlead.runtime.feed.RETRY_S", 0.05)
        outcomes = [Unavailable("down"), Unavailable("down"), None]
        done = asyncio.Event()

        async def purge() -> list[Any]:
            outcome = outcomes.pop(0)
            if outcome is not None:
                raise outcome
            fed.feed._check_due = None
            done.set()
            return []

        monkeypatch.setattr(fed.feed, "purge", purge)
        task = asyncio.create_task(fed.feed.run())
        fed.event(None, fed.api.put(CRS, "a", spec={}))
        await asyncio.wait_for(done.wait(), 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_feed_is_synced_when_every_expected_resource_arrived_or_vanished() -> None:
    async with feeding() as fed:
        a, b = (fed.api.put(CRS, name, spec={}) for name in "ab")
        await fed.feed.expect()
        assert not fed.feed.synced.is_set()
        fed.event(None, a)
        assert not fed.feed.synced.is_set()
        fed.api.remove(f"{CRS}/b", tell=False)
        await fed.feed.purge()
        assert fed.feed.synced.is_set()
        assert b["metadata"]["name"] == "b"


async def test_an_empty_cluster_is_synced_at_once() -> None:
    async with feeding() as fed:
        await fed.feed.expect()
        assert fed.feed.synced.is_set()


async def test_a_missing_crd_is_waited_for(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("fairlead.runtime.feed.RETRY_S", 0.01)
    async with feeding() as fed:
        fed.api.fail(404, times=2)
        fed.api.fail(503, times=1)
        await asyncio.wait_for(fed.feed.expect(), 5)
    assert caplog.text.count("apply crds/ first") == 2


async def test_conditions_are_read_for_the_metrics() -> None:
    async with feeding() as fed:
        status = {
            "conditions": [{"type": "Ready", "status": "False", "reason": "x"}, {"type": "Stalled", "status": "True"}]
        }
        fed.event("ADDED", fed.api.put(CRS, "a", spec={}, status=status))
        fed.event("ADDED", fed.api.put(CRS, "b", spec={}))
        assert list(fed.feed.conditions()) == [("ml", "a", "Ready", "False", "x"), ("ml", "a", "Stalled", "True", "")]
