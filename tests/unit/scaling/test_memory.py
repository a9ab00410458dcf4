"""What is remembered stays bounded, and is enough."""

from __future__ import annotations

from datetime import timedelta

from tests.unit.scaling.situations import NOW, ago, policy, recommended

from fairlead.scaling.decision import Change, Decision, Recommendation
from fairlead.scaling.memory import remembered_changes, remembered_recommendations
from fairlead.scaling.pace import covers


def test_recommendations_keep_the_windows_and_the_proof_that_they_are_covered() -> None:
    kept = remembered_recommendations(recommended(3, 4000), Decision(3, 2, "TargetsMet", ""), policy(), NOW)
    assert kept[-1].replicas == 2
    assert len(kept) == 36 + 1 + 1
    assert covers(kept, NOW, 180, 30) == 0


def test_a_decision_without_recommendation_adds_none() -> None:
    kept = remembered_recommendations((), Decision(3, None, "SignalsMissing", ""), policy(), NOW)
    assert kept == ()


def test_recommendations_of_the_future_age_from_now_on() -> None:
    future = tuple(recommended(9, 20))
    early = NOW - timedelta(hours=1)
    kept = remembered_recommendations(future, Decision(3, 3, "TargetsMet", ""), policy(), early)
    assert {one.at for one in kept} == {early}


def test_recommendations_are_bounded_whatever_comes() -> None:
    same = tuple(Recommendation(NOW, 3) for _ in range(5000))
    assert len(remembered_recommendations(same, Decision(3, 3, "TargetsMet", ""), policy(), NOW)) <= 2000


def test_changes_keep_what_limits_and_lessons_need_and_a_few_for_people() -> None:
    old = tuple(Change(ago(100_000 + one), 1, 2) for one in reversed(range(50)))
    new = tuple(Change(ago(600 * one), 1, 2) for one in reversed(range(10)))
    assert remembered_changes(old, policy(), NOW) == old[-5:]
    assert remembered_changes((*old, *new), policy(), NOW) == new[-6:]
    many = tuple(Change(ago(one / 10), 1, 2) for one in reversed(range(5000)))
    assert len(remembered_changes(many, policy(), NOW)) == 100
