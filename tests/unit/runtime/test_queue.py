"""The work queue under fake time: no key is lost, none is worked on twice at once, delays and backoff are exact."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.fake_time import run_in_fake_time

from fairlead.runtime.queue import BACKOFF_MAX_S, Priority, Queue


async def drain(queue: Queue[str]) -> list[str]:
    """Everything that can be had at once, each key done before the next."""
    taken = []
    while len(queue):
        key = await queue.get()
        taken.append(key)
        queue.done(key)
    return taken


def test_a_waiting_key_is_not_added_twice() -> None:
    async def test() -> None:
        queue: Queue[str] = Queue()
        for key in ("a", "b", "a"):
            queue.add(key)
        assert await drain(queue) == ["a", "b"]

    run_in_fake_time(test)


def test_a_key_at_work_is_given_to_nobody_else_and_comes_again_when_done() -> None:
    async def test() -> None:
        queue: Queue[str] = Queue()
        queue.add("a")
        assert await queue.get() == "a"
        queue.add("a")
        second = asyncio.create_task(queue.get())
        await asyncio.sleep(10)
        assert not second.done()
        queue.done("a")
        assert await second == "a"
        queue.done("a")
        assert len(queue) == 0

    run_in_fake_time(test)


def test_a_waiting_worker_is_woken_by_an_add() -> None:
    async def test() -> None:
        queue: Queue[str] = Queue()
        workers = [asyncio.create_task(queue.get()) for _ in range(2)]
        await asyncio.sleep(1)
        queue.add("a")
        queue.add("b")
        assert sorted(await asyncio.gather(*workers)) == ["a", "b"]

    run_in_fake_time(test)


def test_what_is_urgent_goes_before_user_edits_and_those_before_what_a_start_brings() -> None:
    async def test() -> None:
        queue: Queue[str] = Queue()
        for key in ("a", "b", "c"):
            queue.add(key, Priority.RESYNC)
        queue.add("edited", Priority.EVENT)
        queue.add("c", Priority.EVENT)
        queue.add("b", Priority.URGENT)
        assert await drain(queue) == ["b", "edited", "c", "a"]

    run_in_fake_time(test)


def test_a_less_urgent_add_does_not_hold_back_a_key() -> None:
    async def test() -> None:
        queue: Queue[str] = Queue()
        queue.add("a", Priority.EVENT)
        queue.add("b", Priority.EVENT)
        queue.add("b", Priority.RESYNC)
        queue.add("c", Priority.RESYNC)
        assert await drain(queue) == ["a", "b", "c"]

    run_in_fake_time(test)


def test_a_delayed_key_comes_when_it_is_due() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        queue: Queue[str] = Queue()
        started = loop.time()
        queue.add_after("late", 60.0)
        queue.add_after("soon", 5.0)
        assert await queue.get() == "soon"
        assert loop.time() - started == pytest.approx(5.0, abs=0.01)
        assert await queue.get() == "late"
        assert loop.time() - started == pytest.approx(60.0, abs=0.01)

    run_in_fake_time(test)


def test_the_earliest_of_several_delays_wins_and_the_key_comes_once() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        queue: Queue[str] = Queue()
        started = loop.time()
        for delay_s in (30.0, 10.0, 20.0):
            queue.add_after("a", delay_s)
        assert await queue.get() == "a"
        queue.done("a")
        assert loop.time() - started == pytest.approx(10.0, abs=0.01)
        await asyncio.sleep(100)
        assert len(queue) == 0
        assert queue.delayed == {}

    run_in_fake_time(test)


@pytest.mark.parametrize("delay_s", [0.0, -1.0])
def test_no_delay_is_an_add(delay_s: float) -> None:
    async def test() -> None:
        queue: Queue[str] = Queue()
        queue.add_after("a", delay_s)
        assert await drain(queue) == ["a"]

    run_in_fake_time(test)


def test_backoff_doubles_from_5_ms_to_5_minutes_and_forget_begins_anew() -> None:
    async def test() -> None:
        queue: Queue[str] = Queue(jitter=lambda: 1.0)
        delays = []
        for _ in range(20):
            delays.append(queue.retry("a"))
            assert await queue.get() == "a"
            queue.done("a")
        assert delays[:4] == [0.005, 0.01, 0.02, 0.04]
        assert delays[-1] == BACKOFF_MAX_S == 300.0
        assert queue.failures == {"a": 20}
        queue.forget("a")
        assert queue.retry("a") == 0.005

    run_in_fake_time(test)


def test_jitter_takes_at_most_half_of_the_backoff_and_the_servers_wish_counts() -> None:
    async def test() -> None:
        queue: Queue[str] = Queue(jitter=lambda: 0.0)
        assert queue.retry("a") == 0.0025
        assert queue.retry("a", at_least_s=7.0) == 7.0

    run_in_fake_time(test)


def test_a_closed_queue_gives_nothing_and_a_reopened_one_remembers_no_failures() -> None:
    async def test() -> None:
        queue: Queue[str] = Queue()
        queue.add("a")
        queue.add_after("b", 1.0)
        queue.retry("c")
        queue.close()
        queue.add("d")
        getter = asyncio.create_task(queue.get())
        await asyncio.sleep(1000)
        assert not getter.done()
        queue.reopen()
        assert queue.failures == {}
        queue.add("e")
        assert await getter == "e"

    run_in_fake_time(test)


def test_discard_drops_delays_and_failures() -> None:
    async def test() -> None:
        queue: Queue[str] = Queue()
        queue.retry("a")
        queue.add_after("a", 100.0)
        queue.discard("a")
        await asyncio.sleep(1000)
        assert len(queue) == 0
        assert queue.failures == {}

    run_in_fake_time(test)


def test_ages_are_told_by_the_clock() -> None:
    async def test() -> None:
        queue: Queue[str] = Queue()
        assert queue.oldest_s() == 0.0
        queue.add("a")
        await asyncio.sleep(7)
        queue.add("b")
        assert queue.oldest_s() == pytest.approx(7.0)
        await queue.get()
        await asyncio.sleep(3)
        assert queue.busy == {"a": pytest.approx(3.0)}

    run_in_fake_time(test)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0.0, 0.5, 3.0]), st.booleans()), max_size=30),
    st.integers(1, 3),
)
def test_every_add_is_followed_by_a_pass_and_passes_of_one_key_never_overlap(
    adds: list[tuple[str, float, bool]], workers: int
) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        queue: Queue[str] = Queue()
        at_work: set[str] = set()
        last_start: dict[str, float] = {}
        last_add: dict[str, float] = {}

        async def work() -> None:
            while True:
                key = await queue.get()
                assert key not in at_work
                at_work.add(key)
                last_start[key] = loop.time()
                await asyncio.sleep(1.0)
                at_work.remove(key)
                queue.done(key)

        tasks = [asyncio.create_task(work()) for _ in range(workers)]
        for key, pause_s, delayed in adds:
            if delayed:
                queue.add_after(key, 0.25)
            else:
                queue.add(key)
            last_add[key] = loop.time()
            await asyncio.sleep(pause_s)
        await asyncio.sleep(1000)
        for task in tasks:
            assert not task.done()
            task.cancel()
        assert len(queue) == 0
        assert queue.busy == {}
        assert all(last_start[key] >= added for key, added in last_add.items())

    run_in_fake_time(test)
