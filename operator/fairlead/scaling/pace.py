"""How fast: stabilisation and limits, with the meaning that a HorizontalPodAutoscaler's behavior has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from fairlead.scaling.decision import Behavior, Change, Limit, Policy, Recommendation

__all__ = ["covers", "limited_down", "limited_up", "seconds_until_free", "stabilized"]


def stabilized(
    policy: Policy, replicas: int, wanted: int, recommendations: Sequence[Recommendation], now: datetime
) -> int:
    """`wanted` less what is too new: up to the least that was asked for in scale-up's window, down to the most in scale-down's.

    What is dated later than now counts as of now, so that a clock that was set back makes nothing go down."""
    up = down = wanted
    for one in recommendations:
        age_s = max((now - one.at).total_seconds(), 0.0)
        if age_s < policy.scale_up.window_s:
            up = min(up, one.replicas)
        if age_s < policy.scale_down.window_s:
            down = max(down, one.replicas)
    return min(max(replicas, up), down)


def covers(recommendations: Sequence[Recommendation], now: datetime, window_s: float, gap_s: float) -> float:
    """Seconds that are missing until recommendations without a gap reach back over the window; 0: they do."""
    times = [*(one.at for one in recommendations if one.at <= now), now]
    begin = now
    for before, after in reversed(list(pairwise(times))):
        if (after - before).total_seconds() > gap_s:
            break
        begin = before
    return max(window_s - (now - begin).total_seconds(), 0.0)


def limited_up(behavior: Behavior, replicas: int, changes: Sequence[Change], now: datetime) -> float:
    """The most replicas that are permitted now; infinity without limits."""
    if behavior.is_disabled:
        return replicas
    if not behavior.limits:
        return math.inf
    permitted = [_above(limit, _replicas_before(limit, replicas, changes, now)) for limit in behavior.limits]
    return max(replicas, min(permitted) if behavior.takes_least else max(permitted))


def limited_down(behavior: Behavior, replicas: int, changes: Sequence[Change], now: datetime) -> float:
    """The fewest replicas that are permitted now; 0 without limits."""
    if behavior.is_disabled:
        return replicas
    if not behavior.limits:
        return 0
    permitted = [_below(limit, _replicas_before(limit, replicas, changes, now)) for limit in behavior.limits]
    return min(replicas, max(permitted) if behavior.takes_least else min(permitted))


def seconds_until_free(behavior: Behavior, changes: Sequence[Change], now: datetime) -> float | None:
    """When the next change leaves a limit's period; None where none is in one."""
    waits = []
    for limit in behavior.limits:
        ages = [max((now - change.at).total_seconds(), 0.0) for change in changes]
        waits += [limit.period_s - age for age in ages if age < limit.period_s]
    return min(waits, default=None)


def _replicas_before(limit: Limit, replicas: int, changes: Sequence[Change], now: datetime) -> int:
    """How many there were when the limit's period began. A change that is dated later than now counts as of now."""
    begin = now - timedelta(seconds=limit.period_s)
    return replicas - sum(change.after - change.before for change in changes if change.at > begin)


def _above(limit: Limit, before: int) -> int:
    if limit.pods is not None:
        return before + limit.pods
    return math.ceil(before * (1 + (limit.percent or 0) / 100))


def _below(limit: Limit, before: int) -> int:
    if limit.pods is not None:
        return before - limit.pods
    return int(before * (1 - (limit.percent or 0) / 100))
