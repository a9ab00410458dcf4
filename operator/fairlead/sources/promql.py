"""The one query by which Prometheus is asked about the pods of an LLMDeployment, and what its answer comes to. No I/O.

Everything is asked at once, told apart by the label `signal`, and by pod: so it is known which pods have answered, and pods with other
buckets, as in a rollout of another version, are added up as those are that were asked themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import accumulate
from typing import Any, Final

from fairlead.facts.prometheus import SCRAPER_LABELS, PodLabels
from fairlead.facts.scaling import TIMES, Measure, Sample, ScrapeWish, Target
from fairlead.sources.exposition import make_cumulative
from fairlead.sources.readings import Cumulative, Look, Reading, make_sample

__all__ = ["make_query", "read_answer"]

_SIGNAL: Final = "signal"
_AGE: Final = "age"


@dataclass(slots=True)
class _Pod:
    """Of one pod: age of its newest sample in seconds, numbers, and `le` and value of its buckets."""

    age_s: float | None = None
    numbers: dict[Measure, float] = field(default_factory=dict)
    buckets: dict[Measure, list[tuple[bytes, float]]] = field(default_factory=dict)


def make_query(wish: ScrapeWish, namespace: str, pods: Iterable[str], labels: PodLabels) -> str:
    """PromQL. Metrics' names are checked where engine files are read, those of namespaces and pods by the API server."""
    either = "|".join(sorted(pod.replace(".", "[.]") for pod in pods))
    selector = f'{{{labels.namespace}="{namespace}",{labels.pod}=~"{either}"}}'
    by_pod, over = f"by ({labels.pod})", f"[{max(int(wish.over_s), 1)}s]"
    parts, ages = [], []
    for measure, several in wish.names.items():
        if measure in TIMES:
            counted = " or ".join(f"increase({name}_bucket{selector}{over})" for name in several)
            value = f"sum by ({labels.pod}, le) (max without ({SCRAPER_LABELS}) ({counted}))"
            ages += [f"timestamp({name}_count{selector})" for name in several]
        else:
            how = "avg" if measure is Measure.KV_CACHE_USAGE else "sum"
            told = " or ".join(f"{name}{selector}" for name in several)
            value = f"{how} {by_pod} (max without ({SCRAPER_LABELS}) ({told}))"
            ages += [f"timestamp({name}{selector})" for name in several]
        parts.append(_tag(value, measure.value))
    parts.append(_tag(f"time() - max {by_pod} ({' or '.join(ages)})", _AGE))
    return " or ".join(parts)


def _tag(expression: str, signal: str) -> str:
    return f'label_replace({expression}, "{_SIGNAL}", "{signal}", "", "")'


def read_answer(
    result: Sequence[Mapping[str, Any]], wish: ScrapeWish, targets: Sequence[Target], labels: PodLabels, at: datetime
) -> Sample:
    """A sample of an instant vector. A pod whose newest sample is older than `over_s` has not answered. What is no number, and what was
    not asked for, is a problem of the whole."""
    pods: dict[str, _Pod] = {target.name: _Pod() for target in targets}
    problem = ""
    for series in result:
        problem = problem or _take(series, pods, labels)
    sample = make_sample([_look_of(target.name, pods[target.name], wish) for target in targets], at)
    return replace(sample, over_s=wish.over_s, problem=problem or sample.problem)


def _take(series: Mapping[str, Any], pods: Mapping[str, _Pod], labels: PodLabels) -> str:
    """Put a series where it belongs. The problem with it, "": none."""
    metric = series.get("metric")
    told = {str(label): str(text) for label, text in metric.items()} if isinstance(metric, Mapping) else {}
    name, signal = told.get(labels.pod, ""), told.get(_SIGNAL, "")
    pod = pods.get(name)
    try:
        value = float(series["value"][1])
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        return "Prometheus answers with a series that has no value"
    if pod is None or signal not in (_AGE, *Measure):
        return "Prometheus answers with series that nobody asked for: do its labels name the pods?"
    if not math.isfinite(value):
        return f"{name}: {signal} is {series['value'][1]}"
    if signal == _AGE:
        if pod.age_s is not None:
            return f"{name}: several series where one is needed"
        pod.age_s = value
        return ""
    measure = Measure(signal)
    if measure in TIMES:
        pod.buckets.setdefault(measure, []).append((told.get("le", "").encode(), value))
    elif measure in pod.numbers:
        return f"{name}: several series where one is needed"
    else:
        pod.numbers[measure] = value
    return ""


def _look_of(name: str, pod: _Pod, wish: ScrapeWish) -> Look:
    if pod.age_s is None:
        return Look(None, failure=f"{name}: Prometheus has no series of it")
    if pod.age_s > wish.over_s:
        return Look(None, failure=f"{name}: the newest sample is {pod.age_s:.0f} s old")
    told = {measure: make_cumulative(buckets) for measure, buckets in pod.buckets.items()}
    times = {measure: _rising(one) for measure, one in told.items() if one is not None}
    usage = pod.numbers.get(Measure.KV_CACHE_USAGE)
    now = Reading(
        at=wish.over_s,
        times=times,
        running=pod.numbers.get(Measure.RUNNING_REQUESTS),
        waiting=pod.numbers.get(Measure.QUEUED_REQUESTS),
        kv_cache_usage=usage if usage is not None and 0 <= usage <= 1 else None,
    )
    # An increase is what happened since there was nothing.
    nothing = {measure: replace(one, counts=(0.0,) * len(one.bounds), total=0.0) for measure, one in times.items()}
    failure = f"{name}: Prometheus has none of the engine's metrics" if now.is_empty else ""
    return Look(now, Reading(at=0.0, times=nothing), failure)


def _rising(increase: Cumulative) -> Cumulative:
    """Prometheus extrapolates each bucket by itself, so that a larger one may come out a little less than a smaller one."""
    *counts, total = accumulate((*increase.counts, increase.total), max)
    return Cumulative(increase.bounds, tuple(counts), total)
