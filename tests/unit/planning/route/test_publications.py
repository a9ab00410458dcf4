"""Gateways that have not loaded what withdraws something."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.planning.route.routes import NOW, carry_out, condition, make_facts, make_route, make_spec, plan
from tests.unit.planning.route.test_planner import files_of, gateway

from fairlead.facts.observed import Observed
from fairlead.facts.route import ClientsSecret, GatewayPod
from fairlead.planning.plan import Plan, Removal
from fairlead.planning.route.publications import ANNOTATION_PUBLICATIONS, read_publications

HALF_A_MINUTE = timedelta(seconds=31)


def narrowed_spec() -> dict[str, object]:
    spec = make_spec()
    spec["models"][0]["targets"] = [{"backend": "local", "model": "llama-70b"}]
    return spec


def publish(spec: dict[str, object], before: Observed, old: Plan, facts: dict[str, object] | None = None) -> Observed:
    """All steps until nothing is left to publish, with gateways that follow at once."""
    observed, current = before, old
    for _ in range(4):
        pods = (gateway("a", current), gateway("b", current))
        current = plan(make_route(spec, generation=2), make_facts(gateways=pods, **(facts or {})), observed, NOW)
        observed = carry_out(current)
    return observed


def test_a_gateway_that_goes_on_with_what_was_withdrawn_is_removed_after_half_a_minute() -> None:
    old = plan()
    observed = publish(narrowed_spec(), carry_out(old), old)
    current = plan(make_route(narrowed_spec(), generation=2), make_facts(), observed)
    pods = (gateway("a", current), replace(gateway("b", old), created=NOW - timedelta(hours=1)))
    early = plan(
        make_route(narrowed_spec(), generation=2), make_facts(gateways=pods), observed, NOW + timedelta(seconds=29)
    )
    assert early.removals == ()
    late = plan(make_route(narrowed_spec(), generation=2), make_facts(gateways=pods), observed, NOW + HALF_A_MINUTE)
    assert late.removals == (Removal("b", "uid-b", 5),)


def mute(last: Plan | None) -> GatewayPod:
    """One that does not answer now. `last`: what it had loaded when it answered last, if it ever did."""
    told = gateway("b", last).loaded if last is not None else None
    return replace(gateway("b", None), last=told, created=NOW - timedelta(hours=1))


def test_one_that_no_longer_answers_is_no_better() -> None:
    old = plan()
    observed = publish(narrowed_spec(), carry_out(old), old)
    pods = (mute(old),)
    late = plan(make_route(narrowed_spec(), generation=2), make_facts(gateways=pods), observed, NOW + HALF_A_MINUTE)
    assert [one.pod for one in late.removals] == ["b"]


@pytest.mark.parametrize("ever", [True, False])
def test_silence_alone_ends_nobody(ever: bool) -> None:
    """Days after it had loaded all of it, or under a leader that never reached it: the fault may be on this side."""
    old = plan()
    observed = publish(narrowed_spec(), carry_out(old), old)
    current = plan(make_route(narrowed_spec(), generation=2), make_facts(), observed)
    pods = (mute(current if ever else None), replace(mute(current if ever else None), name="a", uid="uid-a"))
    later = NOW + timedelta(days=3)
    assert plan(make_route(narrowed_spec(), generation=2), make_facts(gateways=pods), observed, later).removals == ()


def test_a_key_more_withdraws_nothing() -> None:
    old = plan()
    keys = {"team-a": b"key-of-team-a", "team-b": b"key-of-team-b\nanother-key-of-b", "team-c": b"key-of-team-c"}
    more = {"clients": ClientsSecret("clients", "clients", "2", keys)}
    observed = publish(make_spec(), carry_out(old), old, more)
    pods = (replace(gateway("b", old), created=NOW - timedelta(hours=1)),)
    late = plan(make_route(make_spec(), generation=2), make_facts(gateways=pods, **more), observed, NOW + HALF_A_MINUTE)
    assert late.removals == ()


def test_one_that_began_afterwards_is_left_alone() -> None:
    """It has found the files as they are; were it removed because it cannot tell, so would be the next one, for ever."""
    old = plan()
    observed = publish(narrowed_spec(), carry_out(old), old)
    pods = (replace(gateway("b", None), created=NOW + timedelta(seconds=1)),)
    assert (
        plan(
            make_route(narrowed_spec(), generation=2), make_facts(gateways=pods), observed, NOW + HALF_A_MINUTE
        ).removals
        == ()
    )


def test_nobody_is_removed_for_what_only_widens() -> None:
    spec = make_spec()
    spec["models"].append({"name": "small", "targets": [{"backend": "local", "model": "llama-8b"}]})
    old = plan()
    observed = publish(spec, carry_out(old), old)
    pods = (replace(gateway("b", old), created=NOW - timedelta(hours=1)),)
    late = plan(make_route(spec, generation=2), make_facts(gateways=pods), observed, NOW + HALF_A_MINUTE)
    assert late.removals == ()
    again = replace(pods[0], nudge=late.nudges[0].value)
    told = plan(make_route(spec, generation=2), make_facts(gateways=(again,)), observed, NOW + 2 * HALF_A_MINUTE)
    programmed = condition(told, "Programmed")
    assert programmed["status"] == "False"
    assert "b did not say so within 30 s" in programmed["message"]
    assert "kubectl describe pod b" in programmed["message"]


def test_edits_that_follow_do_not_set_the_clock_back() -> None:
    old = plan()
    observed = publish(narrowed_spec(), carry_out(old), old)
    spec = narrowed_spec()
    spec["models"].append({"name": "small", "targets": [{"backend": "local", "model": "llama-8b"}]})  # type: ignore[attr-defined]
    wider = plan(make_route(spec, generation=3), make_facts(), observed, NOW + timedelta(seconds=20))
    observed = carry_out(wider)
    pods = (replace(gateway("b", old), created=NOW - timedelta(hours=1)),)
    late = plan(make_route(spec, generation=3), make_facts(gateways=pods), observed, NOW + HALF_A_MINUTE)
    assert [one.pod for one in late.removals] == ["b"]


def test_what_is_permitted_again_is_no_reason_any_more() -> None:
    old = plan()
    observed = publish(narrowed_spec(), carry_out(old), old)
    back = plan(make_route(make_spec(), generation=3), make_facts(), observed, NOW + timedelta(seconds=20))
    while files_of(back)["rds-public.json"] != files_of(old)["rds-public.json"]:
        observed = carry_out(back)
        pods = (gateway("a", back),)
        back = plan(
            make_route(make_spec(), generation=3), make_facts(gateways=pods), observed, NOW + timedelta(seconds=20)
        )
    observed = carry_out(back)
    pods = (replace(gateway("b", old), created=NOW - timedelta(hours=1)),)
    assert (
        plan(make_route(make_spec(), generation=3), make_facts(gateways=pods), observed, NOW + HALF_A_MINUTE).removals
        == ()
    )


def test_a_key_that_is_taken_back_counts_too() -> None:
    old = plan()
    fewer = {"clients": ClientsSecret("clients", "clients", "2", {"team-b": b"key-of-team-b"})}
    observed = publish(make_spec(), carry_out(old), old, fewer)
    pods = (replace(gateway("b", old), created=NOW - timedelta(hours=1)),)
    late = plan(
        make_route(make_spec(), generation=2), make_facts(gateways=pods, **fewer), observed, NOW + HALF_A_MINUTE
    )
    assert [one.pod for one in late.removals] == ["b"]


def test_a_spec_that_is_refused_removes_those_who_do_not_follow_it_either() -> None:
    old = plan()
    observed = publish(narrowed_spec(), carry_out(old), old)
    refused = narrowed_spec() | {
        "roles": [{"name": "analyst", "consumers": ["x"], "llmAccess": ["Cloud"], "dataAccess": ["Restricted"]}]
    }
    pods = (replace(gateway("b", old), created=NOW - timedelta(hours=1)),)
    late = plan(make_route(refused, generation=3), make_facts(gateways=pods), observed, NOW + HALF_A_MINUTE)
    assert condition(late, "Accepted")["status"] == "False"
    assert [one.pod for one in late.removals] == ["b"]


@pytest.mark.parametrize("text", ["", "v1!yesterday", "!", "v1!2026-11-28T10:00:00Z?"])
def test_what_somebody_wrote_there_by_hand_is_left_out(text: str) -> None:
    assert read_publications({"metadata": {"annotations": {ANNOTATION_PUBLICATIONS: text}}}) == ()


def test_only_the_last_sixteen_are_remembered() -> None:
    observed = carry_out(plan())
    for number in range(40):
        spec = make_spec()
        spec["models"][0]["timeouts"] = {"idle": f"{number + 1}s"}
        for _ in ("add", "switch", "remove"):
            made = plan(make_route(spec, generation=number + 2), make_facts(), observed, NOW)
            observed = carry_out(made)
    (routes,) = [one for key, one in observed.children.items() if key.name.endswith("-routes")]
    found = read_publications(routes)
    assert len(found) == 16
    assert {one.withdrawn_at for one in found} == {None}
