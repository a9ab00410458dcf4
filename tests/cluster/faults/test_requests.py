"""Requests that are refused, fail, come late or lose their answer: each fault ends in the state that there is without it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import pytest
from tests.cluster.faults.operated import CHILDREN, Json, Operated
from tests.cluster.faults.proxy import Answer, LoseAnswer, Match, Reset
from tests.cluster.operator_world import make_cr, until

pytestmark = pytest.mark.cluster

ONCE_EACH = dict.fromkeys(CHILDREN, 1)
CHILDREN_OF = "deployments services networkpolicies"


def in_this(world: Operated, verb: str | None = None, resource: str | None = None) -> Match:
    return Match(verb, resource, namespace=world.namespace)


#: As the API server answers, and one page for people by a proxy in between.
REFUSED = (Answer(409), Answer(500), Answer(502, body="<html>bad gateway</html>"), Answer(503), Answer(504))


def test_what_is_answered_409_and_5xx_comes_all_the_same(world: Operated, undisturbed: Json) -> None:
    counted = {answer.status: world.answers(str(answer.status)) for answer in REFUSED}
    mark = world.mark()
    with contextlib.ExitStack() as stack:
        faults = [
            stack.enter_context(world.faults.fault(in_this(world, "patch", resource), answer, 1))
            for answer in REFUSED
            for resource in ("services", "llmdeployments/status")
        ]
        world.apply(make_cr(world.namespace, "m"))
        until(lambda: all(fault.hits for fault in faults), "all were hit")
        world.assert_recovered(like=undisturbed)
    assert world.created(mark) == ONCE_EACH
    for status, before in counted.items():
        assert world.answers(str(status)) - before == 2, "/metrics tells of the fault"


@pytest.mark.parametrize(
    "action", [LoseAnswer(), pytest.param(Reset(), marks=pytest.mark.long)], ids=["answer", "request"]
)
def test_what_gets_lost_on_the_way_is_not_made_twice(
    world: Operated, undisturbed: Json, action: LoseAnswer | Reset
) -> None:
    counted, mark = world.answers("<error>"), world.mark()
    with (
        world.faults.fault(in_this(world, "patch", CHILDREN_OF), action, len(CHILDREN)) as of_children,
        world.faults.fault(in_this(world, "patch", "llmdeployments/status"), action, 1) as of_status,
    ):
        world.apply(make_cr(world.namespace, "m"))
        until(lambda: len(of_children.hits) == len(CHILDREN) and of_status.hits, "all were hit")
        world.assert_recovered(like=undisturbed)
    assert world.created(mark) == ONCE_EACH
    assert world.answers("<error>") - counted == len(CHILDREN) + 1


def test_429_is_not_asked_again_before_the_time_that_the_server_named(world: Operated, undisturbed: Json) -> None:
    """Also when something else about the LLMDeployment happens meanwhile: its Deployment moves, and its spec changes."""
    slow_down = Answer(429, headers={"Retry-After": "4"})
    counted = world.answers("429")
    with world.faults.fault(in_this(world, "patch", "services"), slow_down, 1) as fault:
        world.apply(make_cr(world.namespace, "m"))
        until(lambda: fault.hits, "429")
        world.kubectl("annotate", "llmdeployment", "m", "example.com/n=1")
        world.assert_recovered(like=undisturbed)
    refused = fault.hits[0]
    again = [
        call for call in world.faults.calls(in_this(world, "patch", "services"), refused.at) if call is not refused
    ]
    same = [call.at - refused.at for call in again if call.call.name == refused.call.name]
    assert same[0] >= 4.0
    assert world.answers("429") - counted == 1


def outlast(world: Operated, undisturbed: Json, answers: Sequence[Answer], seconds: float) -> None:
    """Every request gets each of these answers for so long, also those for the Lease, while people go on changing things."""
    world.settled("m")
    world.apply(make_cr(world.namespace, "gone"))
    world.wait_observed("gone")
    mark = world.mark()
    with world.faults.fault(Match(), answers[0]) as fault:
        world.faults.reset_streams(Match())
        world.kubectl("delete", "llmdeployment", "gone")
        world.kubectl("delete", "service", "m-pods")
        world.patch("service/m", '{"spec": {"selector": {"app": "mine"}}}')
        world.apply(make_cr(world.namespace, "new"))
        time.sleep(seconds)
        for answer in answers[1:]:
            fault.action = answer
            time.sleep(seconds)
        world.cluster.check()
    asked = len(fault.hits) / (seconds * len(answers))
    world.assert_recovered(("m", "new"), like=undisturbed)
    until(lambda: world.names("services") == ["m", "m-pods", "new", "new-pods"], "the deleted one is collected", 60)
    assert not [write for write in world.created(mark) if " gone" in write], "nothing is made after the deletion"
    assert max(world.created(mark).values()) == 1
    assert asked < 40, f"{asked:.0f} requests a second into a fault"


@pytest.mark.long
@pytest.mark.parametrize("action", [Answer(401), Answer(404)], ids=["401", "404"])
def test_a_refusal_of_everything_that_lasts_some_seconds(world: Operated, undisturbed: Json, action: Answer) -> None:
    """Either made kopf end the process, or ask hundreds of times a second."""
    outlast(world, undisturbed, [action], 6.0)


@pytest.mark.long
def test_faults_of_everything_that_last_longer_than_kopfs_patience(world: Operated, undisturbed: Json) -> None:
    """By default kopf ends the process after 54 s of these."""
    outlast(world, undisturbed, [Answer(503), Answer(403, "rights were taken away")], 31.0)


@pytest.mark.long
def test_a_network_that_is_cut_for_longer_than_the_lease(world: Operated, undisturbed: Json) -> None:
    """The operator stops leading, does nothing, and begins again when the network is back."""
    world.settled("m")
    world.settled("gone")
    mark = world.mark()
    with world.faults.unreachable():
        until(lambda: not world.queue()["leading"], "without the Lease it does not lead", 60)
        world.kubectl("delete", "llmdeployment", "gone")
        world.kubectl("delete", "service", "m-pods")
        world.apply(make_cr(world.namespace, "new"))
        until(lambda: world.names("services") == ["m"], "the deleted one is collected", 60)
    world.assert_recovered(("m", "new"), like=undisturbed)
    assert not [write for write in world.created(mark) if " gone" in write], "nothing is made after the deletion"
    assert max(world.created(mark).values()) == 1
