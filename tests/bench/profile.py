"""What the operator's CPU goes to while it works on many new custom resources: the five biggest parts."""

from __future__ import annotations

import json
import signal
from collections import Counter

from tests.bench.counts import CHILDREN
from tests.bench.figures import Figure
from tests.bench.load import names_of
from tests.bench.subject import Subject

PARTS_SHOWN = 5


def measure_profile(subject: Subject, size: int, *, frames: int = 0) -> list[Figure]:
    """`size` new custom resources under the sampler. `frames`: print so many of the stacks that were seen most."""
    output = subject.directory / "samples.json"
    names = names_of("profile", size)
    subject.start_profiled(output)
    try:
        subject.create(names_of("warm", 5))
        subject.wait_cluster_quiet()
        subject.process.send_signal(signal.SIGUSR2)
        tail, cpu_s = subject.tail(), subject.cpu_s
        subject.create(names)
        subject.wait_quiet(tail, expected=size * (CHILDREN + 1))
        cpu_ms = (subject.cpu_s - cpu_s) * 1000 / size
    finally:
        subject.stop()
    samples = json.loads(output.read_text())
    parts = Counter(samples["parts"])
    for stack, count in Counter(samples["frames"]).most_common(frames):
        print(f"  {count / parts.total() * 100:5.1f} %  {stack}")
    figures = [Figure("profile: CPU per new CR under the sampler", cpu_ms, "ms", "")]
    shown = parts.most_common(None if frames else PARTS_SHOWN)
    return figures + [Figure(f"profile: {part}", count / parts.total() * 100, "%", "") for part, count in shown]
