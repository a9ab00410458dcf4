"""From samples to how many replicas the signals alone ask for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise

from fairlead.api.conditions import Reason
from fairlead.facts.scaling import TIMES, Sample
from fairlead.scaling.decision import Change, Policy, Situation
from fairlead.scaling.load import Trend, load_of, trend_of
from fairlead.scaling.signals import Looks, Trouble, is_usable, look_back
from fairlead.scaling.targets import Ask, Look, ask_for, knee_of
from fairlead.scaling.tuning import Tuning

__all__ = ["Judgement", "judge"]

#: The name of what is asked for by the use of the engines, beside the users' targets.
USE = "use"
#: How many requests one sample must tell of to count for the fast path.
FEW_AT_ONCE = 10.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """`wanted`: replicas that the signals ask for, None where they do not suffice to say (then nothing changes). `text`: what was
    measured of what decided. `is_sure`: targets are missed so surely that no average is waited for. `is_missed`: some target is missed
    now. `is_few`: some target cannot be judged. `trouble`: why nothing goes down. `inputs`: for status; `load`: requests in
    flight for each pod where they are too many."""

    wanted: int | None
    text: str = ""
    is_sure: bool = False
    is_missed: bool = False
    is_few: bool = False
    trouble: Trouble | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    load: float | None = None


def judge(policy: Policy, situation: Situation, replicas: int, tuning: Tuning) -> Judgement:
    """Weigh all targets: the one that asks for most decides upwards, and downwards all must permit it."""
    looks = look_back(situation.samples, situation.now, tuning)
    if looks.trouble is not None and looks.trouble.stops_all:
        return Judgement(None, looks.trouble.message, trouble=looks.trouble)
    look = _look(looks, situation, tuning)
    asks = _asks(policy, look, tuning)
    sudden = _sudden(policy, looks, situation.is_urgent, tuning)
    most = max([*asks.values(), *sudden.values()], key=lambda ask: (ask.at_least, ask.ratio or 0.0), default=None)
    is_missed = any((ask.ratio or 0.0) > 1 for name, ask in asks.items() if name != USE)
    judgement = Judgement(
        replicas,
        _worst(asks),
        bool(sudden),
        is_missed,
        any(ask.trouble is not None and ask.trouble.reason is Reason.TOO_FEW_REQUESTS for ask in asks.values()),
        inputs=_inputs(asks, look, situation),
        load=_too_much(look) if is_missed else None,
    )
    if most is not None and most.at_least > replicas:
        return replace(judgement, wanted=most.at_least, text=most.text)
    trouble = _why_not_down(looks, asks.values(), policy, situation)
    if trouble is not None or not look.is_settled or not asks:
        return replace(judgement, trouble=trouble)
    fewest = max([1, most.at_least if most else 0, *(ask.at_fewest or replicas for ask in asks.values())])
    return replace(judgement, wanted=min(fewest, replicas))


def _look(looks: Looks, situation: Situation, tuning: Tuning) -> Look:
    samples = _since_change(looks.usable, tuning.extended_s)
    newest = looks.newest
    recent = [one for one in samples if (newest.at - one.at).total_seconds() < tuning.load_s]
    before = looks.usable[-len(samples) - 1] if len(samples) < len(looks.usable) else None
    measured_s = (newest.at - samples[0].at).total_seconds() + min(samples[0].over_s, looks.interval_s)
    has_grown = before is not None and before.asked < newest.asked
    return Look(
        tuple(samples),
        load_of(recent, tuning),
        trend_of(looks.usable, looks.interval_s, tuning),
        _bearable(situation.changes, situation.now, tuning),
        not has_grown or measured_s >= max(tuning.settle_s, newest.over_s / 2),
        tuning.window_s,
        tuning.caution ** _returns(situation.changes, situation.now, tuning),
    )


def _since_change(usable: Sequence[Sample], reach_s: float) -> Sequence[Sample]:
    """The newest samples with as many ready pods as now: times and loads of fewer, or of more, pods say nothing of these."""
    newest = usable[-1]
    first = len(usable) - 1
    while first > 0 and usable[first - 1].asked == newest.asked:
        if (newest.at - usable[first - 1].at).total_seconds() > reach_s:
            break
        first -= 1
    return usable[first:]


def _sudden(policy: Policy, looks: Looks, is_urgent: bool, tuning: Tuning) -> dict[str, Ask]:
    """What the last samples alone ask for, where each of them misses a target by itself: the fast path, past the averages. Where
    somebody else says that targets are missed, the newest one is enough."""
    count = 1 if is_urgent else tuning.breaches
    last = looks.usable[-count:]
    if len(last) < count or any(sooner.asked < later.asked for sooner, later in pairwise(last)):
        return {}
    loose = replace(tuning, few=min(tuning.few, FEW_AT_ONCE))
    each = [_asks(policy, _at_once((sample,), loose), loose) for sample in last]
    if not any(all((asks[measure].ratio or 0.0) > 1 for asks in each) for measure in policy.targets):
        return {}
    return _asks(policy, _at_once(last, loose), loose)


def _at_once(samples: Sequence[Sample], tuning: Tuning) -> Look:
    """Only these samples, and nothing before them."""
    seconds = (samples[-1].at - samples[0].at).total_seconds() + samples[0].over_s
    return Look(tuple(samples), load_of(samples, tuning), Trend(), None, True, seconds)


def _asks(policy: Policy, look: Look, tuning: Tuning) -> dict[str, Ask]:
    asks = {measure.value: ask_for(measure, target, look, tuning) for measure, target in policy.targets.items()}
    if any(measure in TIMES for measure in policy.targets):
        knee = knee_of(look, tuning)
        if knee is not None:
            asks[USE] = knee
    return asks


def _worst(asks: Mapping[str, Ask]) -> str:
    """What the target that is nearest to being missed says; the users' own before the engines' use."""
    own = [ask for name, ask in asks.items() if name != USE]
    return max(own, key=lambda ask: ask.ratio or 0.0).text if own else "no target is set"


def _why_not_down(looks: Looks, asks: Collection[Ask], policy: Policy, situation: Situation) -> Trouble | None:
    """What makes it uncertain that fewer would do, though it does not hinder going up."""
    if looks.trouble is not None:
        return looks.trouble
    unknown = [ask.trouble for ask in asks if ask.trouble is not None and ask.at_fewest is None]
    if unknown:
        return unknown[0]
    window_s = max(min(policy.scale_down.window_s, 60.0), 15.0)
    recent = [one for one in situation.samples if 0 <= (situation.now - one.at).total_seconds() < window_s]
    doubtful = sum(1 for one in recent if not is_usable(one) or one.answered < one.asked)
    if doubtful:
        text = f"{doubtful} of the last {len(recent)} samples were not complete"
        return Trouble(Reason.SIGNALS_PARTIAL, text, stops_all=False, is_lasting=False)
    return None


def _too_much(look: Look) -> float | None:
    """Requests in flight for each pod when targets are missed; where some wait, those that run are all that an engine takes."""
    return look.load.each if look.load.waiting is None else look.load.running


def _bearable(changes: Sequence[Change], now: datetime, tuning: Tuning) -> float | None:
    """Requests in flight for each replica that are taken as bearable: a share of the least that called for more in the last hour."""
    lessons = [
        change.load / change.before
        for change in changes
        if change.load and 0 < change.before < change.after and (now - change.at).total_seconds() <= tuning.lesson_s
    ]
    return min(lessons) * tuning.lesson if lessons else None


def _returns(changes: Sequence[Change], now: datetime, tuning: Tuning) -> int:
    """How often of late replicas came back soon after they had been taken away."""
    ages = [((now - one.at).total_seconds(), one.after - one.before) for one in changes]
    downs = [age for age, step in ages if step < 0]
    return sum(
        1
        for age, step in ages
        if step > 0 and age <= tuning.returns_s and any(0 <= down - age <= tuning.returned_s for down in downs)
    )


def _inputs(asks: Mapping[str, Ask], look: Look, situation: Situation) -> dict[str, str]:
    load = look.load
    inputs = {name: ask.value for name, ask in asks.items()} | {"readyReplicas": str(situation.ready)}
    if load.running is not None:
        inputs["running"] = f"{load.running * load.pods:.1f}"
    if load.waiting is not None:
        inputs["waiting"] = f"{load.waiting * load.pods:.1f}"
    if load.kv_cache_usage is not None:
        inputs["kvCacheUsage"] = f"{load.kv_cache_usage:.0%}"
    if look.trend.is_rising:
        inputs["trend"] = f"{look.trend.per_minute:+.0f} requests/min"
    return inputs
