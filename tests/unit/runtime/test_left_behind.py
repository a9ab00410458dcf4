"""A child of an earlier custom resource of the same name is waited for, and told of when that takes long: by whom it is held, once,
and only for as long as it is in the way."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.runtime.world import CRS, DEPLOYMENTS, SERVICES, World, controlling

from fairlead.api import names
from fairlead.facts.observed import ObjectKey
from fairlead.runtime.leftbehind import LEFT_BEHIND_S, TOLD_AFTER_S, UNWATCHED_RETRY_S, explain_left_behind

SERVICE = f"{SERVICES}/m"
STATUS = "llmdeployments/m/status PATCH"
HOLD = "example.com/hold"
SINCE = "2026-01-01T00:00:00Z"
KEY = ObjectKey("Service", "ml", "x")
OWNER = ObjectKey(names.LLMDEPLOYMENT, "ml", "m")


async def succeed(world: World, **metadata: Any) -> None:
    """A custom resource with the name of one that was deleted. Its Deployment went with it; its Service, with this metadata, did not."""
    world.put_cr(x=1)
    await world.settle()
    world.api.remove(f"{CRS}/m")
    old = world.cache.get(OWNER)
    assert old is not None
    world.cache.remove(old.key, old.uid, world.api.version)
    world.api.remove(f"{DEPLOYMENTS}/m")
    keep_service(world, **metadata)
    world.put_cr(x=1)
    await world.settle()
    world.writes()


async def look(world: World) -> float:
    """One pass. Returns the seconds until the next."""
    world.queue.discard(OWNER)
    assert await world.run_pass() == "requeue_after"
    return world.queue.delayed[OWNER]


def keep_service(world: World, **metadata: Any) -> None:
    live = world.api.objects[SERVICE]
    world.api.put(SERVICES, "m", **{**live, "metadata": {**live["metadata"], **metadata}})
    world.sync()


def lose_service(world: World) -> None:
    """Its label was stripped, so that no watch tells of it any more."""
    entry = world.cache.get(ObjectKey("Service", "ml", "m"))
    assert entry is not None
    world.cache.remove(entry.key, entry.uid, entry.resource_version)


async def wait_a_minute(world: World) -> None:
    """A Service of the predecessor is held, and has just been told of."""
    await succeed(world, deletionTimestamp=SINCE, finalizers=[HOLD])
    world.now[0] += TOLD_AFTER_S
    await world.run_pass()


async def test_the_first_minute_is_not_worth_a_word_and_then_status_names_the_object_and_who_holds_it() -> None:
    async with controlling() as world:
        await succeed(world, deletionTimestamp=SINCE, finalizers=[HOLD])
        began = world.now[0] - 5.0  # the first pass of the new one
        assert await look(world) == pytest.approx(30.0, abs=0.5)
        world.now[0] = began + 40.0
        assert await look(world) == pytest.approx(20.0, abs=0.5), "in time to tell"
        world.now[0] = began + 59.9
        await look(world)
        assert world.condition()["reason"] == "NotStalled"
        assert world.writes() == []
        world.now[0] = began + TOLD_AFTER_S
        assert await look(world) == pytest.approx(LEFT_BEHIND_S, abs=0.5)
        assert world.writes() == [STATUS]
        assert world.condition()["reason"] == "WaitingForDeletion"
        assert HOLD in world.condition()["message"]
        assert not world.planner.seen[-1].failures[0].terminal


async def test_what_was_told_is_not_told_again_while_nothing_changes() -> None:
    async with controlling() as world:
        await wait_a_minute(world)
        assert world.writes() == [STATUS]
        for _ in range(5):
            world.now[0] += LEFT_BEHIND_S
            assert await look(world) == pytest.approx(LEFT_BEHIND_S, abs=0.5)
        assert world.writes() == []
        keep_service(world, finalizers=["example.com/other"])
        await world.run_pass()
        assert world.writes() == [STATUS]
        assert "example.com/other" in world.condition()["message"]


async def test_it_is_forgotten_as_soon_as_the_child_could_be_made() -> None:
    async with controlling() as world:
        await wait_a_minute(world)
        world.writes()
        world.api.remove(SERVICE)
        world.sync()
        await world.run_pass()
        assert world.writes() == ["services/m PATCH", STATUS]
        assert world.condition()["reason"] == "NotStalled"
        assert world.planner.seen[-1].failures == ()
        await world.settle()
        assert world.writes() == []


async def test_a_process_that_begins_goes_on_telling_without_a_write() -> None:
    """Law 3. Its own clock has not seen the minute; the status says that another one's has."""
    async with controlling() as first:
        await succeed(first, deletionTimestamp=SINCE, finalizers=[HOLD])
        first.now[0] += TOLD_AFTER_S
        await first.run_pass()
        objects = first.api.objects
    async with controlling() as second:
        second.api.objects, second.api.version = objects, 500
        second.sync()
        await second.settle()
        assert second.writes() == []
        assert second.planner.seen[-1].failures[0].reason == "WaitingForDeletion"


async def test_one_that_no_watch_tells_of_is_asked_for_and_not_written_at() -> None:
    async with controlling() as world:
        await succeed(world, deletionTimestamp=SINCE, finalizers=[HOLD])
        lose_service(world)
        assert await world.run_pass() == "requeue_after", "no error: another attempt at once would be refused, too"
        assert world.writes() == ["services/m PATCH"], "the attempt that finds it"
        world.now[0] += TOLD_AFTER_S
        await world.run_pass()
        assert world.writes() == [STATUS]
        assert HOLD in world.condition()["message"]
        for _ in range(3):
            world.now[0] += LEFT_BEHIND_S
            await world.run_pass()
        assert world.writes() == []
        world.api.remove(SERVICE)
        world.now[0] += LEFT_BEHIND_S
        await world.run_pass()
        assert world.writes() == ["services/m PATCH", STATUS]
        assert world.condition()["reason"] == "NotStalled"


async def test_one_that_no_watch_tells_of_is_looked_at_again_soon_and_then_ever_more_seldom() -> None:
    async with controlling() as world:
        world.put_cr(x=1)
        reference = {
            "apiVersion": names.API_VERSION,
            "kind": names.LLMDEPLOYMENT,
            "name": "m",
            "uid": "earlier",
            "controller": True,
        }
        world.api.put(SERVICES, "m", kind="Service", metadata={"ownerReferences": [reference]}, spec={})
        await world.run_pass()
        assert world.writes() == ["deployments/m PATCH", "services/m PATCH"]
        world.now[0] += 1.0
        waits = []
        for _ in range(8):
            waits.append(round(await look(world)))
            world.now[0] += waits[-1]
        assert waits == [UNWATCHED_RETRY_S, 3, 6, 12, 24, 12, LEFT_BEHIND_S, LEFT_BEHIND_S]
        assert world.writes() == [STATUS, STATUS], "when the Deployment has settled, and when the minute is over"


async def test_an_outage_meanwhile_takes_back_nothing_that_was_told() -> None:
    async with controlling() as world:
        await succeed(world, deletionTimestamp=SINCE, finalizers=[HOLD])
        lose_service(world)
        await world.run_pass()
        world.now[0] += TOLD_AFTER_S
        await world.run_pass()
        world.writes()
        world.api.fail(503, method="GET", contains="/services")
        assert await world.run_pass() == "error"
        world.now[0] += 5.0
        assert await world.run_pass() == "requeue_after"
        assert world.writes() == []


async def test_a_refusal_of_what_is_made_anew_is_told_instead() -> None:
    async with controlling() as world:
        await wait_a_minute(world)
        world.writes()
        world.api.remove(SERVICE)
        world.sync()
        world.api.fail(403, method="PATCH", contains="services/m", message="exceeded quota: q")
        await world.run_pass()
        assert [failure.reason for failure in world.planner.seen[-1].failures] == ["ChildRefused"]


async def test_a_child_that_is_not_planned_any_more_is_not_waited_for() -> None:
    async with controlling() as world:
        await wait_a_minute(world)
        world.planner.kinds = ("Deployment",)
        await world.run_pass()
        assert world.condition()["reason"] == "NotStalled"


async def test_another_object_in_the_way_has_a_minute_of_its_own() -> None:
    async with controlling() as world:
        await succeed(world, deletionTimestamp=SINCE, finalizers=[HOLD])
        world.now[0] += TOLD_AFTER_S - 10.0
        keep_service(world, uid="of another one in between")
        await world.run_pass()
        world.now[0] += 10.0
        await world.run_pass()
        assert world.condition()["reason"] == "NotStalled"
        world.now[0] += TOLD_AFTER_S
        await world.run_pass()
        assert world.condition()["reason"] == "WaitingForDeletion"


def test_the_words_say_what_holds_it_and_what_to_look_at() -> None:
    def explain(**metadata: Any) -> str:
        failure = explain_left_behind(KEY, {"metadata": metadata}, names.LLMDEPLOYMENT)
        assert (failure.key, failure.reason, failure.terminal) == (KEY, "WaitingForDeletion", False)
        assert failure.is_sentence
        return failure.message

    assert explain(deletionTimestamp=SINCE, finalizers=["a.io/x", "b.io/y"]) == (
        "Service/x of an earlier LLMDeployment of this name is still being deleted; its metadata.finalizers hold it: a.io/x, b.io/y."
        " Next: see why they are not removed; it is made anew once it is gone."
    )
    assert explain(deletionTimestamp=SINCE) == (
        "Service/x of an earlier LLMDeployment of this name is still being deleted."
        " Next: see its metadata and events; it is made anew once it is gone."
    )
    assert explain(finalizers=["a.io/x"]) == (
        "Service/x of an earlier LLMDeployment of this name is still there: the garbage collector has not begun to delete it."
        " Next: see that kube-controller-manager works, or delete it; it is made anew once it is gone."
    )
