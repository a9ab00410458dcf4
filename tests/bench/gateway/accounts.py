"""What the kernel says a process has used. Wall time of a busy machine says little; CPU time of one process says much."""

from __future__ import annotations

from pathlib import Path

import psutil

__all__ = ["cpu_s", "rss_mib"]


def cpu_s(pid: int) -> float:
    """CPU seconds of a process, all of its threads and children so far, to the nanosecond where the kernel tells it."""
    return sum(_own_cpu_s(one) for one in _family(pid))


def rss_mib(pid: int) -> float:
    """Resident memory of a process and its children, MiB."""
    return float(sum(one.memory_info().rss for one in _family(pid))) / 2**20


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _own_cpu_s(process: psutil.Process) -> float:
    try:
        spent = [int(path.read_text().split()[0]) for path in Path(f"/proc/{process.pid}/task").glob("*/schedstat")]
    except (FileNotFoundError, ProcessLookupError):  # a thread ended while it was looked at
        spent = []
    if spent:
        return sum(spent) / 1e9
    times = process.cpu_times()  # a kernel without schedstats: ticks of 10 ms
    return float(times.user + times.system)
