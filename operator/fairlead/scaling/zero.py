"""Since when nobody asks: what takes the last replica away."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from fairlead.facts.scaling import Sample

__all__ = ["idle_for_s"]


def idle_for_s(samples: Sequence[Sample], now: datetime, gap_s: float) -> float:
    """For how many seconds until now it is certain that there was no request: every look answered, told of running, waiting and ended
    requests, and found none. A gap between looks, or one that is doubtful, ends it: what was before is not counted."""
    begin = now
    for sample in reversed(samples):
        since = (begin - sample.at).total_seconds()
        if since < 0:
            return 0.0  # out of order or of the future: no clock can be trusted
        if since > gap_s or not _is_idle(sample):
            break
        begin = sample.at
    return (now - begin).total_seconds()


def _is_idle(sample: Sample) -> bool:
    """Whether this look proves that no request is there and none ended."""
    if sample.problem or sample.asked == 0 or sample.answered < sample.asked or not sample.times:
        return False
    return sample.running == 0 and not sample.waiting and all(times.total == 0 for times in sample.times.values())
