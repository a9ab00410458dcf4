"""What must not grow: memory, file descriptors and tasks of each operator process, measured whenever all is at rest."""

from __future__ import annotations

import json
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

#: A process that works has pools that fill and caches that warm: what it needs more than at first, at most.
RSS_ALLOWANCE_MIB = 12.0
DESCRIPTORS_ALLOWANCE = 8
TASKS_ALLOWANCE = 4
#: Fewer samples of one life than this say nothing.
LEAST_SAMPLES = 4


@dataclass(frozen=True, slots=True)
class Vitals:
    """Of one process at one moment of rest. `era` counts the API servers so far: after each start everything is listed anew."""

    era: int
    replica: str
    pid: int
    leading: bool
    rss_mib: float
    descriptors: int
    tasks: int

    def __str__(self) -> str:
        role = "leads" if self.leading else "waits"
        return f"{self.replica} {role} {self.rss_mib:.0f} MiB {self.descriptors} fds {self.tasks} tasks"


def read_page(url: str, page: str) -> Any:
    """`/debug/queue` of an operator; raises OSError when it does not answer."""
    with urllib.request.urlopen(f"{url}{page}", timeout=5) as response:
        text = response.read().decode()
    return json.loads(text) if page == "/debug/queue" else text


def measure(era: int, replica: str, pid: int, url: str) -> Vitals:
    """Now."""
    process = psutil.Process(pid)
    page = read_page(url, "/debug/queue")
    return Vitals(
        era, replica, pid, page["leading"], process.memory_info().rss / 2**20, process.num_fds(), page["tasks"]["all"]
    )


def find_growth(samples: Sequence[Vitals]) -> Iterator[str]:
    """What grew in a life: where the least of the last third is more than the most of the first third and the allowance.

    One life is one process in one role under one API server; single peaks and a first rise do not count, a leak that goes on does.
    A process that leaves the lead keeps the connections of its work for a minute: for descriptors it begins another life.
    """
    lives: defaultdict[tuple[int, bool, int], list[Vitals]] = defaultdict(list)
    spells: defaultdict[tuple[int, bool, int, int], list[Vitals]] = defaultdict(list)
    latest: dict[int, tuple[bool, int]] = {}  # the role of each process, and how often it changed
    for sample in samples:
        role, changes = latest.get(sample.pid, (sample.leading, 0))
        latest[sample.pid] = role, changes = sample.leading, changes + (role != sample.leading)
        lives[sample.pid, role, sample.era].append(sample)
        spells[sample.pid, role, sample.era, changes].append(sample)
    for life in lives.values():
        yield from _find_growth(life, "rss_mib", RSS_ALLOWANCE_MIB)
        yield from _find_growth(life, "tasks", TASKS_ALLOWANCE)
    for spell in spells.values():
        yield from _find_growth(spell, "descriptors", DESCRIPTORS_ALLOWANCE)


def _find_growth(life: Sequence[Vitals], what: str, allowance: float) -> Iterator[str]:
    if len(life) < LEAST_SAMPLES:
        return
    third = max(1, len(life) // 3)
    values = [float(getattr(sample, what)) for sample in life]
    before, after = max(values[:third]), min(values[-third:])
    if after > before + allowance:
        yield f"{what} of {life[0].replica} (pid {life[0].pid}) grew from {before:.0f} to {after:.0f}: {values}"


def count_lives(samples: Sequence[Vitals]) -> int:
    """Leaders that were looked at often enough to say whether they grow."""
    counts: defaultdict[tuple[int, int], int] = defaultdict(int)
    for sample in samples:
        counts[sample.pid, sample.era] += sample.leading
    return sum(count >= LEAST_SAMPLES for count in counts.values())
