"""The numbers of the control law, in one place: found with the simulated world of tests/world, which runs it with others to compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["DEFAULT", "Tuning"]


@dataclass(frozen=True, slots=True)
class Tuning:
    """Each with its unit in the name; the others are shares, of a target or of what an engine holds, unless their comment says
    otherwise."""

    # What is averaged: times, and loads.
    window_s: float = 45.0
    load_s: float = 20.0
    # A trend: of what it is taken and with what compared, by how many standard deviations of chance it must rise, and to how many times as
    # much it leads at most.
    trend_s: float = 20.0
    before_s: float = 60.0
    noise: float = 3.5
    most_growth: float = 3.0
    # The quantile of times; with fewer requests than this it is chance, so more is looked at, up to so far back.
    quantile: float = 0.9
    few: float = 20.0
    extended_s: float = 300.0
    # Of the load that an engine bears (by its KV cache and what waits): above `knee_up` more replicas are asked for, as many as make it
    # `knee_aim`; the trend may not lead beyond `trend_up`; going down may not make it more than `knee_down`.
    knee_up: float = 0.85
    knee_aim: float = 0.8
    trend_up: float = 0.9
    knee_down: float = 0.72
    # How much longer a step of the engine is with a full cache, as a multiple of one with an empty cache.
    crowding: float = 2.0
    # The same by a target of time, where the engine does not say how full it is; above `latency_safe` nothing goes down.
    latency_up: float = 0.8
    latency_down: float = 0.4
    latency_safe: float = 0.8
    # How much of a queue that is a target still counts as none.
    queue_down: float = 0.2
    # Above this multiple of a target, more says nothing more. Within this distance from a target that is a load, nothing changes.
    cap: float = 2.0
    tolerance: float = 0.1
    # So many samples in a row over a target are enough by themselves.
    breaches: int = 3
    # The longest time between looks that is no gap, and the oldest that the newest may be.
    gap_s: float = 30.0
    stale_s: float = 90.0
    # What must be measured since pods became ready before their times count.
    settle_s: float = 15.0
    # How long a load that was too much is remembered, and the share of it that is taken as bearable.
    lesson_s: float = 3600.0
    lesson: float = 0.75
    # Replicas that came back within `returned_s` after they had been taken away, in the last `returns_s`: each time lowers the
    # thresholds of going down by this factor.
    returned_s: float = 600.0
    returns_s: float = 3600.0
    caution: float = 0.9
    # Requests in flight for each pod, up to which more pods would make no request faster.
    idle_load: float = 0.5


DEFAULT: Final = Tuning()
