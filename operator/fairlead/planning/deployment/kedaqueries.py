"""What KEDA asks Prometheus of an LLMDeployment's pods: one query for each target, whose answer is one number.

Numbers are means over the pods, not sums: a pod that is not scraped must not look like one without work. Of no requests a time is 0; no
series at all are no answer, which KEDA takes for an error (`ignoreNullValues: "false"`), not for nothing to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fairlead.facts.prometheus import SCRAPER_LABELS, PodLabels
from fairlead.facts.scaling import TIMES, Measure

__all__ = ["make_activity_query", "make_target_query"]

#: Of the requests that ended in that time: two scrapes of a minute, the longest that is usual.
OVER: Final = "2m"
QUANTILE: Final = "0.9"
#: Pods of a Deployment are called by it, the digest of their template (one to ten letters) and five more, with - between. Kubernetes
#: cuts what comes before the five to this length.
_POD_NAME_BASE: Final = 58
_DIGEST_MOST: Final = 10

Names = Mapping[Measure, tuple[str, ...]]


def make_target_query(measure: Measure, names: Names, selector: str, labels: PodLabels) -> str:
    """PromQL for a target: milliseconds (KEDA reads three decimals), requests or percent. Raises KeyError where the engine does not tell
    it."""
    if measure in TIMES:
        buckets = _once(_either(names[measure], f"_bucket{selector}", "rate", f"[{OVER}]"))
        counts = _either(names[measure], f"_count{selector}", "increase", f"[{OVER}]")
        return f"1000 * (histogram_quantile({QUANTILE}, sum by (le) ({buckets})) >= 0) or 0 * sum({counts})"
    told = _once(_either(names[measure], selector))
    if measure is Measure.KV_CACHE_USAGE:
        return f"100 * avg({told})"
    return f"avg(sum by ({labels.pod}) ({told}))"


def make_activity_query(names: Names, selector: str) -> str:
    """PromQL for whether anybody wants anything: requests that run, that wait, and that ended of late. Raises KeyError where the engine
    does not tell of all three."""
    parts = [f"sum({_either(names[m], selector)})" for m in (Measure.RUNNING_REQUESTS, Measure.QUEUED_REQUESTS)]
    parts.append(f"sum({_either(names[Measure.LATENCY], f'_count{selector}', 'increase', f'[{OVER}]')})")
    return " + ".join(parts)


def make_selector(namespace: str, name: str, labels: PodLabels) -> str:
    """Of the pods of the Deployment of that name, and no other's whose name begins alike."""
    may_be_cut = len(name) + len("--") + _DIGEST_MOST > _POD_NAME_BASE
    pods = f"{name}-[a-z0-9]+(-[a-z0-9]{{5}})?" if may_be_cut else f"{name}-[a-z0-9]+-[a-z0-9]{{5}}"
    return f'{{{labels.namespace}="{namespace}",{labels.pod}=~"{pods}"}}'


def _either(names: tuple[str, ...], rest: str, function: str = "", over: str = "") -> str:
    """The first of several names that a pod has."""
    return " or ".join(f"{function}({name}{rest}{over})" if function else f"{name}{rest}" for name in names)


def _once(expression: str) -> str:
    return f"max without ({SCRAPER_LABELS}) ({expression})"
