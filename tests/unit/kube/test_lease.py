"""The election under fake time: never two who may write, a quick change after a clean stop, a late one after a crash."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from tests.unit.fake_time import run_in_fake_time

from fairlead.errors import ApiError, Conflict, Forbidden, NotFound, Unavailable
from fairlead.kube.client import ApiClient
from fairlead.kube.lease import LeaderElector, LeaseTimings

Json = dict[str, Any]


class LeaseServer:
    """One Lease with optimistic locking, as the API server keeps it. `fault` is raised for whom it names."""

    def __init__(self) -> None:
        self.lease: Json | None = None
        self.version = 0
        self.requests: list[str] = []

    def store(self, body: Json) -> Json:
        self.version += 1
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.lease)

    @property
    def holder(self) -> str:
        return str((self.lease or {}).get("spec", {}).get("holderIdentity"))


class LeaseClient:
    """What an elector calls of ApiClient. `error`: every request fails so. `delay_s`: how slow it is; None: it never answers."""

    def __init__(self, server: LeaseServer) -> None:
        self.server = server
        self.error: ApiError | None = None
        self.delay_s: float | None = 0.01

    async def _network(self, verb: str) -> None:
        await asyncio.sleep(1e9 if self.delay_s is None else self.delay_s)
        if self.error is not None:
            raise self.error
        self.server.requests.append(verb)

    async def get(self, *_: Any) -> Json:
        await self._network("get")
        if self.server.lease is None:
            raise NotFound("no lease")
        return copy.deepcopy(self.server.lease)

    async def create(self, _resource: Any, _namespace: str, body: Json, *, field_manager: str) -> Json:
        assert field_manager
        await self._network("create")
        if self.server.lease is not None:
            raise Conflict("exists")
        return self.server.store(body)

    async def replace(self, _resource: Any, _namespace: str, _name: str, body: Json) -> Json:
        await self._network("update")
        if self.server.lease is None:
            raise NotFound("no lease")
        if body["metadata"]["resourceVersion"] != self.server.lease["metadata"]["resourceVersion"]:
            raise Conflict("modified")
        return self.server.store(body)


class Candidate:
    """An elector with its client and what it was told."""

    def __init__(
        self,
        server: LeaseServer,
        identity: str,
        wall: Callable[[], datetime] = lambda: datetime(2026, 1, 1, tzinfo=UTC),
    ) -> None:
        self.client = LeaseClient(server)
        self.changes: list[bool] = []
        self.elector = LeaderElector(
            cast("ApiClient", self.client),
            namespace="ns",
            name="fairlead",
            identity=identity,
            on_change=self.changes.append,
            clock=asyncio.get_running_loop().time,
            timings=LeaseTimings(),
            wall=wall,
            jitter=lambda: 0.5,
        )
        self.task: asyncio.Task[None] | None = None

    def start(self) -> Candidate:
        self.task = asyncio.create_task(self.elector.run())
        return self

    def kill(self) -> None:
        assert self.task is not None
        self.task.cancel()

    @property
    def leads(self) -> bool:
        return self.elector.is_leader


async def until(condition: Callable[[], bool], limit_s: float) -> float:
    """Seconds until the condition held."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    while not condition():
        assert loop.time() - started < limit_s, "did not happen in time"
        await asyncio.sleep(0.05)
    return loop.time() - started


def test_one_of_two_leads_and_renews_quietly() -> None:
    async def test() -> None:
        server = LeaseServer()
        one, two = Candidate(server, "one").start(), Candidate(server, "two").start()
        await asyncio.sleep(120)
        assert [one.leads, two.leads].count(True) == 1
        assert one.changes + two.changes == [True]
        spec = (server.lease or {})["spec"]
        assert spec["leaseTransitions"] == 1
        assert spec["leaseDurationSeconds"] == 15
        server.requests.clear()
        await asyncio.sleep(60)
        assert server.requests.count("update") == pytest.approx(60 / 2.2, abs=2)
        assert "create" not in server.requests

    run_in_fake_time(test)


def test_after_a_clean_stop_the_next_leads_within_three_seconds() -> None:
    async def test() -> None:
        server = LeaseServer()
        one = Candidate(server, "one").start()
        await until(lambda: one.leads, 5)
        two = Candidate(server, "two").start()
        await asyncio.sleep(30)
        one.kill()
        await one.elector.release()
        assert not one.leads
        assert one.changes == [True, False]
        assert await until(lambda: two.leads, 20) <= 3.0

    run_in_fake_time(test)


def test_after_a_crash_the_next_leads_when_the_lease_is_old_and_not_before() -> None:
    async def test() -> None:
        server = LeaseServer()
        one = Candidate(server, "one").start()
        await until(lambda: one.leads, 5)
        two = Candidate(server, "two").start()
        await asyncio.sleep(30)
        one.kill()
        assert 12.0 <= await until(lambda: two.leads, 60) <= 20.0

    run_in_fake_time(test)


@pytest.mark.parametrize(
    "fault", [Unavailable("down"), Forbidden("no", status=403), None], ids=["down", "forbidden", "silent"]
)
def test_a_leader_that_cannot_renew_stops_before_another_may_start(fault: ApiError | None) -> None:
    async def test() -> None:
        server = LeaseServer()
        one = Candidate(server, "one").start()
        await until(lambda: one.leads, 5)
        two = Candidate(server, "two").start()
        await asyncio.sleep(30)
        one.client.error = fault
        one.client.delay_s = None if fault is None else 0.01
        loop = asyncio.get_running_loop()
        ends = loop.time() + 60
        both = 0
        while loop.time() < ends:
            both += one.leads and two.leads
            await asyncio.sleep(0.01)
        assert both == 0
        assert two.leads
        assert one.changes == [True, False]
        one.client.error, one.client.delay_s = None, 0.01
        await asyncio.sleep(60)
        assert two.leads
        assert not one.leads

    run_in_fake_time(test)


def test_a_short_outage_costs_no_leadership() -> None:
    async def test() -> None:
        server = LeaseServer()
        one = Candidate(server, "one").start()
        await until(lambda: one.leads, 5)
        await asyncio.sleep(10)
        one.client.error = Unavailable("down")
        await asyncio.sleep(6)
        one.client.error = None
        await asyncio.sleep(60)
        assert one.changes == [True]
        assert one.leads

    run_in_fake_time(test)


def test_a_frozen_leader_may_not_write_when_it_thaws() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        server = LeaseServer()
        one = Candidate(server, "one").start()
        await until(lambda: one.leads, 5)
        loop.now += 30  # type: ignore[attr-defined]
        assert not one.leads

    run_in_fake_time(test)


def test_wall_clocks_that_differ_or_jump_decide_nothing() -> None:
    async def test() -> None:
        server = LeaseServer()
        jumping = iter(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=(-1) ** n * n) for n in range(10_000))
        one = Candidate(server, "one", wall=lambda: next(jumping)).start()
        await until(lambda: one.leads, 5)
        two = Candidate(server, "two", wall=lambda: datetime(2031, 1, 1, tzinfo=UTC)).start()
        await asyncio.sleep(600)
        assert one.changes == [True]
        assert two.changes == []

    run_in_fake_time(test)


def test_a_deleted_lease_is_made_again() -> None:
    async def test() -> None:
        server = LeaseServer()
        one = Candidate(server, "one").start()
        await until(lambda: one.leads, 5)
        server.lease = None
        await asyncio.sleep(10)
        assert one.leads
        assert server.holder == "one"

    run_in_fake_time(test)


def test_a_restarted_process_of_the_same_name_need_not_wait() -> None:
    async def test() -> None:
        server = LeaseServer()
        one = Candidate(server, "pod").start()
        await until(lambda: one.leads, 5)
        one.kill()
        again = Candidate(server, "pod").start()
        assert await until(lambda: again.leads, 20) <= 1.0

    run_in_fake_time(test)


def test_a_release_that_fails_is_no_error() -> None:
    async def test() -> None:
        server = LeaseServer()
        one = Candidate(server, "one").start()
        await until(lambda: one.leads, 5)
        one.kill()
        one.client.delay_s = None
        await one.elector.release()
        assert not one.leads
        assert server.holder == "one"

    run_in_fake_time(test)


def test_a_follower_releases_nothing() -> None:
    async def test() -> None:
        server = LeaseServer()
        one = Candidate(server, "one").start()
        await until(lambda: one.leads, 5)
        two = Candidate(server, "two").start()
        await asyncio.sleep(10)
        two.kill()
        server.requests.clear()
        await two.elector.release()
        assert server.requests == []
        assert server.holder == "one"

    run_in_fake_time(test)
