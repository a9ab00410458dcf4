"""The Lease in other people's hands: deleted, edited, and given away while a renewal was still under way."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from tests.unit.fake_time import run_in_fake_time
from tests.unit.kube.test_lease import Candidate, LeaseServer, until

Json = dict[str, Any]


async def lead_and_stand_by(server: LeaseServer) -> tuple[Candidate, Candidate]:
    one = Candidate(server, "one").start()
    await until(lambda: one.leads, 5)
    two = Candidate(server, "two").start()
    await asyncio.sleep(10)
    return one, two


async def count_both(one: Candidate, two: Candidate, duration_s: float) -> int:
    """How often, in steps of 10 ms, both may write."""
    loop = asyncio.get_running_loop()
    ends, both = loop.time() + duration_s, 0
    while loop.time() < ends:
        both += one.leads and two.leads
        await asyncio.sleep(0.01)
    return both


def edit(server: LeaseServer, **spec: Any) -> None:
    """As `kubectl edit` does."""
    lease = copy.deepcopy(server.lease)
    assert lease is not None
    lease["spec"] |= spec
    server.store(lease)


@pytest.mark.parametrize("wait_s", [0.1 * step for step in range(24)])
def test_a_deleted_lease_makes_no_second_leader(wait_s: float) -> None:
    """Deletion does not say that the holder is gone: it works on until its next renewal."""

    async def test() -> None:
        server = LeaseServer()
        one, two = await lead_and_stand_by(server)
        await asyncio.sleep(wait_s)
        server.lease = None
        assert await count_both(one, two, 30) == 0
        assert one.leads
        assert server.holder == "one"

    run_in_fake_time(test)


def test_a_lease_that_is_deleted_when_its_holder_crashed_is_made_anew_when_it_would_have_ended() -> None:
    async def test() -> None:
        server = LeaseServer()
        one, two = await lead_and_stand_by(server)
        one.kill()
        server.lease = None
        assert 10.0 <= await until(lambda: two.leads, 60) <= 20.0

    run_in_fake_time(test)


@pytest.mark.parametrize("wait_s", [0.1 * step for step in range(0, 24, 3)])
def test_a_holder_that_was_erased_by_hand_makes_no_second_leader(wait_s: float) -> None:
    async def test() -> None:
        server = LeaseServer()
        one, two = await lead_and_stand_by(server)
        await asyncio.sleep(wait_s)
        edit(server, holderIdentity="")
        assert await count_both(one, two, 40) == 0
        assert [one.leads, two.leads].count(True) == 1

    run_in_fake_time(test)


@pytest.mark.parametrize("wait_s", [0.1 * step for step in range(0, 24, 3)])
def test_a_stranger_written_into_the_lease_stops_the_leader_and_is_waited_for(wait_s: float) -> None:
    async def test() -> None:
        server = LeaseServer()
        one, two = await lead_and_stand_by(server)
        await asyncio.sleep(wait_s)
        edit(server, holderIdentity="stranger")
        await asyncio.sleep(3)
        assert not one.leads
        assert not two.leads
        assert await count_both(one, two, 20) == 0
        assert [one.leads, two.leads].count(True) == 1

    run_in_fake_time(test)


def test_a_clean_stop_in_the_middle_of_a_renewal_gives_the_lease_away_all_the_same() -> None:
    """The renewal reached the server, and its answer never came: the version that is known is an old one."""

    async def test() -> None:
        server = LeaseServer()
        one, two = await lead_and_stand_by(server)
        edit(server, renewTime="2026-01-01T00:00:01Z")  # the renewal, as the server has it
        one.kill()
        await one.elector.release()
        assert server.holder == ""
        assert await until(lambda: two.leads, 20) <= 3.0

    run_in_fake_time(test)


def test_a_lease_that_somebody_else_has_by_now_is_not_given_away() -> None:
    async def test() -> None:
        server = LeaseServer()
        one, _two = await lead_and_stand_by(server)
        edit(server, holderIdentity="stranger")
        one.kill()
        await one.elector.release()
        assert server.holder == "stranger"

    run_in_fake_time(test)
