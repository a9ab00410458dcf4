"""The informer against an API server that expires, breaks off, repeats itself and refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from tests.unit.kube.fake_api import FakeApi, Fault, serving

from fairlead.api import names
from fairlead.kube.cache import Cache, Change
from fairlead.kube.informer import Informer, Selection
from fairlead.kube.resources import SERVICE

SERVICES = "/api/v1/namespaces/ml/services"


class Watched:
    """An informer of Services at work, with what it told."""

    def __init__(
        self,
        api: FakeApi,
        informer: Informer,
        cache: Cache,
        changes: list[Change],
        restarts: list[str],
        turns: list[str],
    ) -> None:
        self.api, self.informer, self.cache, self.changes, self.restarts = api, informer, cache, changes, restarts
        self.turns = turns  # each time that the kind was there, or was not any more

    @property
    def known(self) -> list[str]:
        return sorted(key.name for key in self.cache.keys("Service"))

    def told(self) -> list[str]:
        """`+name`, `~name` and `-name` in the order of arrival."""
        out = []
        for change in self.changes:
            entry = change.after or change.before
            assert entry is not None
            sign = "+" if change.before is None else "-" if change.after is None else "~"
            out.append(sign + entry.key.name)
        return out


class Restarts(list[str]):
    """A StreamObserver."""

    def restarted(self, resource: str, cause: str) -> None:
        assert resource == "services"
        self.append(cause)


@asynccontextmanager
async def watching(api: FakeApi, *, synced: bool = True, is_needed: bool = True) -> AsyncIterator[Watched]:
    async with serving(api) as (client, _):
        cache, changes, restarts = Cache(), [], Restarts()
        turns: list[str] = []
        informer = Informer(
            client,
            cache,
            Selection(SERVICE, is_needed=is_needed),
            changes.append,
            clock=asyncio.get_running_loop().time,
            observer=restarts,
            jitter=lambda: 0.0,
            on_served=lambda resource: turns.append(resource.plural),
        )
        task = asyncio.create_task(informer.run())
        try:
            if synced:
                await asyncio.wait_for(informer.synced.wait(), 5)
                await until(lambda: bool(api.streams))
            yield Watched(api, informer, cache, changes, restarts, turns)
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], limit_s: float = 5.0) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + limit_s
    while not condition():
        assert loop.time() < end, "did not happen in time"
        await asyncio.sleep(0.005)


def listings(api: FakeApi) -> int:
    return sum(1 for method, _, query in api.requests if method == "GET" and "watch" not in query)


async def test_lists_in_chunks_then_follows() -> None:
    api = FakeApi()
    api.page_size = 2
    for name in "abcde":
        api.put(SERVICES, name, spec={})
    async with watching(api) as watched:
        assert watched.known == list("abcde")
        assert listings(api) == 3
        api.put(SERVICES, "f", spec={})
        api.put(SERVICES, "a", spec={"x": 1})
        api.remove(f"{SERVICES}/b")
        await until(lambda: watched.told()[-1] == "-b")
        assert watched.told() == ["+a", "+b", "+c", "+d", "+e", "+f", "~a", "-b"]


async def test_an_expired_watch_lists_again_and_finds_what_vanished() -> None:
    api = FakeApi()
    for name in "abc":
        api.put(SERVICES, name, spec={})
    async with watching(api) as watched:
        watched.changes.clear()
        api.remove(f"{SERVICES}/b", tell=False)
        api.put(SERVICES, "d", spec={})
        await until(lambda: "+d" in watched.told())
        api.expire_watches()
        await until(lambda: "expired" in watched.restarts and "-b" in watched.told())
        assert watched.known == ["a", "c", "d"]
        assert watched.told() == ["+d", "-b"], "a list that shows what is known tells nothing"
        api.put(SERVICES, "e", spec={})
        await until(lambda: "e" in watched.known)


async def test_a_broken_stream_goes_on_where_it_was_without_a_list() -> None:
    api = FakeApi()
    api.put(SERVICES, "a", spec={})
    async with watching(api) as watched:
        before = listings(api)
        api.send_raw(b'{"type": "MODIFIED", "object": {"metadata": {"na')
        api.send_raw(None)
        await until(lambda: not api.streams)
        api.put(SERVICES, "missed", spec={})
        await until(lambda: "missed" in watched.known)
        assert listings(api) == before
        assert watched.restarts[0] == "error"


async def test_bookmarks_move_the_place_to_go_on_from() -> None:
    api = FakeApi()
    async with watching(api) as watched:
        heard_before = watched.informer.last_heard_at
        bookmark = {"type": "BOOKMARK", "object": {"kind": "Service", "metadata": {"resourceVersion": "500"}}}
        await asyncio.sleep(0.02)
        api.send_raw(json.dumps(bookmark).encode() + b"\n")
        await until(lambda: watched.informer.last_heard_at > heard_before)
        api.send_raw(None)
        await until(lambda: [q for _, _, q in api.requests if q.get("watch")][-1]["resourceVersion"] == "500")
        assert watched.changes == []


async def test_a_watch_that_the_server_took_is_a_sign_of_life() -> None:
    """Where nothing happens there may be no bookmark for ten minutes (etcd's default), and that is no fault."""
    api = FakeApi()
    async with watching(api) as watched:
        heard_before = watched.informer.last_heard_at
        await asyncio.sleep(0.02)
        api.send_raw(None)
        await until(lambda: watched.informer.last_heard_at > heard_before)


async def test_a_refused_watch_was_tried_but_not_heard() -> None:
    api = FakeApi()
    api.faults.append(Fault(lambda _: True, 503, "away", times=1000))
    async with watching(api, synced=False) as watched:
        heard_before, tried_before = watched.informer.last_heard_at, watched.informer.last_tried_at
        await until(lambda: watched.informer.last_tried_at > tried_before)
        assert watched.informer.last_heard_at == heard_before


async def test_events_that_come_twice_or_late_tell_once() -> None:
    api = FakeApi()
    async with watching(api) as watched:
        live = api.put(SERVICES, "a", spec={})
        newer = api.put(SERVICES, "a", spec={"x": 1})
        line = json.dumps({"type": "MODIFIED", "object": newer}).encode() + b"\n"
        api.send_raw(line)
        api.send_raw(json.dumps({"type": "ADDED", "object": live}).encode() + b"\n")
        api.put(SERVICES, "end", spec={})
        await until(lambda: "end" in watched.known)
        assert watched.told() == ["+a", "~a", "+end"]


async def test_429_waits_as_long_as_the_server_asks() -> None:
    api = FakeApi()
    async with watching(api) as watched:
        api.fail(429, watch=True, headers={"Retry-After": "1"})
        asked = len(api.requests)
        api.send_raw(None)
        loop = asyncio.get_running_loop()
        await until(lambda: len(api.requests) > asked)
        refused_at = loop.time()
        await until(lambda: bool(api.streams))
        assert loop.time() - refused_at >= 0.95
        assert "error" in watched.restarts


@pytest.mark.parametrize("code", [0, 403, 500, 503])
async def test_refusals_are_survived(code: int) -> None:
    api = FakeApi()
    async with watching(api) as watched:
        api.fail(code, times=2)
        api.send_raw(None)
        await until(lambda: not any(fault.times for fault in api.faults))
        api.put(SERVICES, "later", spec={})
        await until(lambda: "later" in watched.known)


async def test_a_list_that_expires_between_two_chunks_begins_again() -> None:
    api = FakeApi()
    api.page_size = 1
    for name in "ab":
        api.put(SERVICES, name, spec={})
    api.faults.append(Fault(lambda request: "continue" in request.query, 410, "expired"))
    async with watching(api) as watched:
        assert watched.known == ["a", "b"]
        assert "expired" in watched.restarts


async def test_a_watch_that_is_refused_with_410_begins_again_with_a_list() -> None:
    """Not as an event inside the stream: this server answers so before there is one."""
    api = FakeApi()
    for name in "ab":
        api.put(SERVICES, name, spec={})
    async with watching(api) as watched:
        before = listings(api)
        api.faults.append(Fault(lambda request: "watch" in request.query, 410, "too old resource version"))
        api.send_raw(None)
        await until(lambda: "expired" in watched.restarts)
        api.put(SERVICES, "c", spec={})
        await until(lambda: "c" in watched.known)
        assert listings(api) == before + 1


async def test_a_line_longer_than_the_readers_buffer_is_read() -> None:
    api = FakeApi()
    async with watching(api) as watched:
        api.put(SERVICES, "big", spec={"text": "x" * 1_500_000})
        await until(lambda: "big" in watched.known)


async def test_the_selector_is_asked_of_the_server() -> None:
    api = FakeApi()
    async with serving(api) as (client, _):
        informer = Informer(
            client,
            Cache(),
            Selection(SERVICE, "ml", f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"),
            lambda _: None,
            clock=asyncio.get_running_loop().time,
        )
        task = asyncio.create_task(informer.run())
        await until(lambda: bool(api.streams))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert {path for _, path, _ in api.requests} == {SERVICES}
    assert {query["labelSelector"] for _, _, query in api.requests} == {"app.kubernetes.io/managed-by=fairlead"}


def is_list(request: web.Request) -> bool:
    return request.method == "GET" and "watch" not in request.query


async def test_a_kind_that_is_not_needed_may_be_missing_until_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.kube.informer.MISSING_RETRY_S", 0.2)
    api = FakeApi()
    api.put(SERVICES, "a", spec={})
    api.faults.append(Fault(is_list, 404, "the server could not find the requested resource", times=3))
    async with watching(api, synced=False, is_needed=False) as watched:
        await asyncio.wait_for(watched.informer.synced.wait(), 5)
        assert not watched.cache.is_served("Service", "ml")
        assert watched.known == [], "nothing waits for it"
        await until(lambda: watched.cache.is_served("Service", "ml"))
        assert watched.known == ["a"]
        assert watched.restarts == [], "it never was a broken stream"
        assert watched.turns == ["services", "services"], "gone and there are told once each"
        api.put(SERVICES, "b", spec={})
        await until(lambda: watched.known == ["a", "b"])


async def test_a_kind_that_goes_takes_its_objects_along_until_it_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the very versions that it went with: the objects were there all the time."""
    monkeypatch.setattr("fairlead.kube.informer.MISSING_RETRY_S", 0.2)
    monkeypatch.setattr("fairlead.kube.informer.MISSING_AFTER_S", 0.0)
    api = FakeApi()
    api.put(SERVICES, "a", spec={})
    async with watching(api, is_needed=False) as watched:
        assert watched.cache.is_served("Service", None)
        api.faults.append(Fault(is_list, 404, times=1))
        api.expire_watches()
        await until(lambda: "-a" in watched.told())
        assert not watched.cache.is_served("Service", None)
        await until(lambda: watched.cache.is_served("Service", None))
        assert watched.told() == ["+a", "-a", "+a"]


async def test_what_may_not_be_seen_for_a_while_is_not_taken_for_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.kube.informer.MISSING_RETRY_S", 0.2)
    monkeypatch.setattr("fairlead.kube.informer.MISSING_AFTER_S", 0.0)
    api = FakeApi()
    api.put(SERVICES, "a", spec={})
    async with watching(api, is_needed=False) as watched:
        api.faults.append(Fault(is_list, 403, times=1))
        api.expire_watches()
        await until(lambda: not watched.cache.is_served("Service", None))
        assert watched.known == ["a"]
        await until(lambda: watched.cache.is_served("Service", None))
        assert watched.told() == ["+a"]


@pytest.mark.parametrize("code", [403, 404])
async def test_one_refusal_is_not_believed(code: int) -> None:
    """An API server that has just started says so for a moment."""
    api = FakeApi()
    api.put(SERVICES, "a", spec={})
    async with watching(api, is_needed=False) as watched:
        api.faults.append(Fault(is_list, code, times=2))
        api.expire_watches()
        await until(lambda: watched.restarts.count("error") == 2)
        api.put(SERVICES, "b", spec={})
        await until(lambda: watched.known == ["a", "b"])
        assert watched.told() == ["+a", "+b"]
        assert watched.turns == []


async def test_whoever_may_list_and_not_watch_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.kube.informer.MISSING_RETRY_S", 0.05)
    monkeypatch.setattr("fairlead.kube.informer.MISSING_AFTER_S", 0.0)
    api = FakeApi()
    api.put(SERVICES, "a", spec={})
    api.faults.append(Fault(lambda request: "watch" in request.query, 403, times=10_000))
    async with watching(api, synced=False, is_needed=False) as watched:
        await until(lambda: not watched.cache.is_served("Service", None))
        seen = set()
        for _ in range(100):
            seen.add(watched.cache.is_served("Service", None))
            await asyncio.sleep(0.005)
        assert seen == {False}


async def test_a_kind_that_is_needed_is_waited_for() -> None:
    api = FakeApi()
    api.faults.append(Fault(is_list, 404, times=2))
    async with watching(api, synced=False) as watched:
        await until(lambda: len(watched.restarts) == 2)
        assert watched.restarts[0] == "error"
        assert watched.cache.is_served("Service", None)
        await asyncio.wait_for(watched.informer.synced.wait(), 5)
