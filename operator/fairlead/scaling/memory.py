"""What scaling must remember, and what it may forget: kept bounded, whatever comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from fairlead.scaling.decision import Change, Decision, Policy, Recommendation
from fairlead.scaling.tuning import DEFAULT, Tuning

__all__ = ["remembered_changes", "remembered_recommendations"]

#: Never more than these, even if a clock or a source goes mad.
MOST_RECOMMENDATIONS: Final = 2000
MOST_CHANGES: Final = 100


def remembered_recommendations(
    recommendations: Sequence[Recommendation], decision: Decision, policy: Policy, now: datetime
) -> tuple[Recommendation, ...]:
    """With this decision's, less what is older than both windows; one that is older stays, as proof that a window is covered. What is
    dated later than now came from a clock that was wrong, and counts as of now."""
    known = [Recommendation(min(one.at, now), one.replicas) for one in recommendations]
    if decision.recommended is not None:
        known.append(Recommendation(now, decision.recommended))
    begin = now - timedelta(seconds=max(policy.scale_up.window_s, policy.scale_down.window_s))
    old = [one for one in known if one.at < begin]
    return tuple([*old[-1:], *(one for one in known if one.at >= begin)][-MOST_RECOMMENDATIONS:])


def remembered_changes(
    changes: Sequence[Change], policy: Policy, now: datetime, *, least: int = 5, tuning: Tuning = DEFAULT
) -> tuple[Change, ...]:
    """The changes that limits and lessons look at, and the last few for people. What is dated later than now counts as of now."""
    changes = [replace(one, at=min(one.at, now)) for one in changes]
    periods = [limit.period_s for way in (policy.scale_up, policy.scale_down) for limit in way.limits]
    begin = now - timedelta(seconds=max([tuning.lesson_s, *periods]))
    recent = [one for one in changes if one.at > begin]
    return tuple((recent if len(recent) >= least else changes[-least:])[-MOST_CHANGES:])
