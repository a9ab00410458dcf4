"""Many custom resources at once: CPU and time beside the bare client's, memory, and that it goes quiet again."""

from __future__ import annotations

import sys
import time
from collections import Counter
from statistics import mean

from tests.bench.counts import CHILDREN
from tests.bench.figures import Figure
from tests.bench.objects import make_bare_writes, make_pods_ready
from tests.bench.subject import STATUS, Sent, Subject

QUIET_WINDOW_S = 10.0
IDLE_S = 60.0
QUIET_SIZES = (1, 100)
IDLE_CPU_TARGET_S = 0.6  # one per cent of a core
PEERS_MS = 13  # research of 2026-11-22: KubeAI 13 to 16, LLMKube 15 to 62


def names_of(prefix: str, size: int) -> list[str]:
    """`prefix-0000` and so on: of the same length, so that one body is the template of all."""
    return [f"{prefix}-{number:04}" for number in range(size)]


def measure_quiet(subject: Subject, size: int) -> list[Figure]:
    """`size` custom resources at once, then all their pods change: after each, nothing more is written."""
    names = names_of(f"quiet{size}", size)
    tail = subject.tail()
    subject.create(names)
    subject.wait_quiet(tail, expected=size * (CHILDREN + 1))
    figures = [_count_quiet(subject, f"{size} CRs at once")]
    figures += measure_pods_ready(subject, size, f"{size} CRs")
    subject.delete_all(names)
    return figures


def measure_pods_ready(subject: Subject, size: int, what: str) -> list[Figure]:
    """All pods become ready at once. `size` custom resources exist."""
    subject.wait_cluster_quiet()
    pods = subject.list("pods")
    tail, cpu_s = subject.tail(), subject.cpu_s
    subject.send(make_pods_ready(pods))
    writes = subject.wait_quiet(tail, expected=size)
    cpu_ms = (subject.cpu_s - cpu_s) * 1000 / size
    quiet = _count_quiet(subject, f"all {len(pods)} pods of {what} changed")
    return [
        Figure(f"{what}, pods become ready: status writes per CR", len(writes) / size, "writes", ""),
        Figure(f"{what}, pods become ready: Events per CR", len(tail.events()) / size, "events", "<= 1"),
        Figure(f"{what}, pods become ready: CPU per CR", cpu_ms, "ms", ""),
        quiet,
    ]


def _count_quiet(subject: Subject, after: str) -> Figure:
    return Figure(f"quiet: writes in 10 s after {after}", subject.count_quiet(QUIET_WINDOW_S), "writes", "= 0")


def measure_burst(subject: Subject, size: int) -> list[Figure]:
    """`size` custom resources at once, between two halves of the bare client's work."""
    first = run_bare_client(subject, names_of("bare", size // 2))
    subject.wait_cluster_quiet()
    rss_mib, cpu_s, tail = subject.rss_mib, subject.cpu_s, subject.tail()
    created = subject.create(names_of("burst", size))
    writes = subject.wait_quiet(tail, expected=size * (CHILDREN + 1))
    cpu_ms = (subject.cpu_s - cpu_s) * 1000 / size
    grown_mib = (subject.rss_mib - rss_mib) * 1000 / size
    statuses = [write for write in writes if write.resource == STATUS]
    begun_at = min(one.received_at for one in tail.read() if one.resource == "llmdeployments" and one.is_write)
    wall_s = (max(one.stage_at for one in statuses) - begun_at).total_seconds()
    if len(writes) != size * (CHILDREN + 1):
        print(f"  burst: {Counter(f'{w.verb} {w.resource} {w.code}' for w in writes)}", file=sys.stderr)
    subject.wait_cluster_quiet()
    second = run_bare_client(subject, names_of("bare", size // 2))
    bare_ms = mean(sent.cpu_s / (size // 2) for sent in (first, second)) * 1000
    bare_wall_s = first.wall_s + second.wall_s
    return [
        Figure(f"burst of {size}: writes per CR", len(writes) / size, "writes", f"= {CHILDREN + 1}"),
        Figure(f"burst of {size}: reads", len(tail.reads()), "reads", "= 0"),
        Figure("bare client: CPU per CR, same writes", bare_ms, "ms", ""),
        Figure("operator: CPU per new CR with all children", cpu_ms, "ms", f"<= {PEERS_MS}"),
        Figure("operator CPU / bare client CPU", cpu_ms / bare_ms, "ratio", "<= 2.5"),
        Figure(f"bare client: time for {size} CRs", bare_wall_s, "s", ""),
        Figure(f"burst of {size}: created by the user in", created.wall_s, "s", ""),
        Figure(f"burst of {size}: first creation to last status", wall_s, "s", ""),
        Figure("burst time / bare client time", wall_s / bare_wall_s, "ratio", "<= 1.5"),
        Figure("memory per 1,000 CRs with children", grown_mib, "MiB", "<= 40"),
    ]


def run_bare_client(subject: Subject, names: list[str]) -> Sent:
    """The same writes without an operator, in a namespace that it does not serve, which goes afterwards."""
    with subject.cluster.namespace("bare") as namespace:
        subject.create(names, namespace)
        lines = make_bare_writes(subject.list("llmdep", namespace))
        subject.wait_cluster_quiet()
        return subject.send(lines)


def measure_idle(subject: Subject, size: int) -> list[Figure]:
    """The quiet window and the rest of a minute in which nobody does anything."""
    quiet = _count_quiet(subject, f"{size} CRs at once")
    tail, cpu_s = subject.tail(), subject.cpu_s
    time.sleep(IDLE_S)
    requests = tail.by_operator()
    return [
        quiet,
        Figure(f"idle minute with {size} CRs: requests but watches", len(requests), "requests", "= 0"),
        Figure(f"idle minute with {size} CRs: CPU", subject.cpu_s - cpu_s, "s", f"<= {IDLE_CPU_TARGET_S}"),
    ]


def measure_churn(subject: Subject, size: int) -> list[Figure]:
    """Memory after deleting and creating half of them, twice: what the second time adds is a leak."""
    names = names_of("burst", size)[: size // 2]
    rss_mib = []
    for _ in range(2):
        subject.delete_all(names)
        tail = subject.tail()
        subject.create(names)
        subject.wait_quiet(tail, expected=len(names) * (CHILDREN + 1))
        subject.wait_cluster_quiet()
        rss_mib.append(subject.rss_mib)
    grown_mib = (rss_mib[1] - rss_mib[0]) * 1000 / len(names)
    return [Figure("memory grown by deleting and creating 1,000 CRs again", grown_mib, "MiB", "<= 5")]
