"""Watches that break, lie, stutter, expire or fall silent: what they withheld is found, and nothing is made for the dead."""

from __future__ import annotations

import time

import pytest
from tests.cluster.faults.operated import CHILDREN, Json, Operated
from tests.cluster.faults.proxy import CutInLine, Match, drop_events, duplicate
from tests.cluster.operator_world import QUIET_S, make_cr, until

pytestmark = pytest.mark.cluster

ALL = Match("watch")
OF_CHILDREN = Match("watch", "deployments services networkpolicies pods")
OF_CRS = Match("watch", "llmdeployments")
#: The kinds that kopf itself watches; it does not count what ends its streams.
OF_KOPF = ("llmdeployments", "llmroutes")


def disturb(world: Operated) -> None:
    """What people do while the watches do not tell: one of each kind."""
    world.kubectl("delete", "llmdeployment", "gone")
    world.kubectl("delete", "service", "m-pods")
    world.patch("service/m", '{"spec": {"selector": {"app": "mine"}}}')
    world.apply(make_cr(world.namespace, "new"))
    until(lambda: "gone" not in world.names("deployments"), "the children of the deleted one are collected", 60)


def assert_nothing_was_missed(world: Operated, undisturbed: Json, mark: object, within_s: float = 75.0) -> None:
    world.assert_recovered(("m", "new"), like=undisturbed, within_s=within_s)
    created = world.created(mark)
    assert not [write for write in created if " gone" in write], "nothing is made after the deletion"
    assert max(created.values()) == 1
    until(
        lambda: world.metric("fairlead_llmdeployment_condition", namespace=world.namespace, name="gone") == 0,
        "no ghost",
    )


@pytest.mark.long
def test_410_after_events_were_lost(world: Operated, undisturbed: Json) -> None:
    """All watches tell of bookmarks alone and then lose their place: additions, changes, deletions, of ours and of the children."""
    world.settled("m")
    world.settled("gone")
    mark, expired = world.mark(), world.metric("fairlead_watch_restarts_total", cause="expired")
    with world.faults.filtered(ALL, drop_events):
        disturb(world)
        time.sleep(QUIET_S)
        assert world.writes(mark) == [], "the events are really lost"
        ended = world.faults.fail_streams(ALL, 410)
    assert_nothing_was_missed(world, undisturbed, mark)
    assert world.metric("fairlead_watch_restarts_total", cause="expired") - expired == ended - len(OF_KOPF), (
        "all but kopf's own"
    )


def test_410_of_the_last_custom_resource(world: Operated) -> None:
    """An empty list tells of nothing, and what it does not tell of must be gone all the same."""
    world.settled("m")
    with world.faults.filtered(OF_CRS, drop_events):
        world.kubectl("delete", "llmdeployment", "m")
        until(lambda: world.names("deployments") == [], "the children are collected", 60)
        world.faults.fail_streams(OF_CRS, 410)
    until(lambda: world.metric("fairlead_llmdeployment_condition", namespace=world.namespace) == 0, "forgotten", 30)
    assert world.names("services") == []


@pytest.mark.long
@pytest.mark.parametrize("clean", [True, False], ids=["closed", "broken"])
def test_streams_that_are_cut_in_the_middle_of_a_line(world: Operated, undisturbed: Json, clean: bool) -> None:
    """Once each, by a proxy that closes well and by one that breaks the connection."""
    world.settled("m")
    world.settled("gone")
    mark = world.mark()
    seen: set[str] = set()

    def cut_once(kind: str, line: bytes) -> list[bytes]:
        what = kind + line[-60:].decode(errors="replace")
        if kind == "BOOKMARK" or what in seen:
            return [line]
        seen.add(what)
        raise CutInLine(clean=clean)

    with world.faults.filtered(ALL, cut_once):
        disturb(world)
    assert_nothing_was_missed(world, undisturbed, mark)
    assert len(seen) > 5


def test_events_that_come_twice_and_late_cost_nothing(world: Operated, undisturbed: Json) -> None:
    held: list[bytes] = []

    def late_and_twice(kind: str, line: bytes) -> list[bytes]:
        held.append(line)
        return [*held[-3:], line]

    mark = world.mark()
    with world.faults.filtered(OF_CHILDREN, duplicate), world.faults.filtered(OF_CRS, late_and_twice):
        world.apply(make_cr(world.namespace, "m"))
        world.assert_recovered(like=undisturbed)
        assert sorted(world.writes(mark)) == sorted(
            [f"patch {child}: 201" for child in CHILDREN] + ["patch llmdeployments/status m: 200"]
        )
        world.kubectl("delete", "llmdeployment", "m")
        until(lambda: not world.names("services") and not world.names("deployments"), "collected", 60)
        time.sleep(QUIET_S)
    assert world.created(mark) == dict.fromkeys(CHILDREN, 1), "an old event raises nobody from the dead"


@pytest.mark.long
def test_streams_that_end_and_break_all_the_time(world: Operated, undisturbed: Json) -> None:
    world.settled("m")
    world.settled("gone")
    mark, since = world.mark(), time.monotonic()
    for number in range(20):
        (world.faults.end_streams if number % 2 else world.faults.reset_streams)(ALL)
        if number == 5:
            disturb(world)
        time.sleep(0.2)
    lasted_s = time.monotonic() - since
    assert_nothing_was_missed(world, undisturbed, mark)
    begun = len(world.faults.calls(OF_CRS, since))
    assert begun <= lasted_s + 60, f"{begun} watches of kopf's in {lasted_s:.0f} s"


def test_an_error_inside_the_stream_is_not_the_end(world: Operated, undisturbed: Json) -> None:
    world.settled("m")
    mark = world.mark()
    assert world.faults.fail_streams(ALL, 500) > 5
    world.kubectl("delete", "service", "m-pods")
    world.assert_recovered(like=undisturbed)
    assert world.writes(mark) == ["patch services m-pods: 201"]
