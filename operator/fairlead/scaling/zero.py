"""Since when nobody asks: what takes the last replica away."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from fairlead.facts.scaling import Sample

__all__ = ["follow_idle", "idle_for_s"]


def follow_idle(since: datetime | None, last: Sample | None, sample: Sample, gap_s: float) -> datetime | None:
    """Since when no request was seen, with this look, too; `since` and `last` are of the looks before. None: there are some, or one cannot
    be sure. For whoever looks, and cannot keep as many samples as a deployment may be idle for."""
    if not _is_idle(sample):
        return None
    step_s = (sample.at - last.at).total_seconds() if last is not None else -1.0
    return since if since is not None and 0.0 <= step_s <= gap_s else sample.at


def idle_for_s(samples: Sequence[Sample], now: datetime, gap_s: float, since: datetime | None = None) -> float:
    """For how many seconds until now it is certain that there was no request: every look answered, told of running, waiting and ended
    requests, and found none. A gap between looks, or one that is doubtful, ends it: what was before is not counted. `since`: as
    `follow_idle` has it, of looks before those that are here."""
    begin = now
    for sample in reversed(samples):
        step_s = (begin - sample.at).total_seconds()
        if step_s < 0:
            return 0.0  # out of order or of the future: no clock can be trusted
        if step_s > gap_s or not _is_idle(sample):
            break
        begin = sample.at
    else:
        if samples and since is not None and since < begin:
            begin = since
    return (now - begin).total_seconds()


def _is_idle(sample: Sample) -> bool:
    """Whether this look proves that no request is there and none ended."""
    if sample.problem or sample.asked == 0 or sample.answered < sample.asked or not sample.times:
        return False
    return sample.running == 0 and not sample.waiting and all(times.total == 0 for times in sample.times.values())
