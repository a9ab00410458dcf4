"""The gateway's cost beside a plain proxy and LiteLLM: one run, in short slices that take turns, so that noise hits all alike.

Figures are ratios of CPU time of the processes themselves, the median over the turns; what the callers and the backend use counts for
nobody. Only the latency is wall time, of single requests that take turns too.
"""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.bench.figures import Figure
from tests.bench.gateway.accounts import cpu_s, rss_mib
from tests.bench.gateway.generator import Generator
from tests.bench.gateway.litellm_proxy import Unavailable
from tests.bench.gateway.parts import PARTS
from tests.bench.gateway.subjects import Stand, Subject

__all__ = ["measure_gateway", "measure_parts"]

FULL: Final = "gateway"
BARE: Final = "gateway without detectors"
#: The second of these differs from the first in its models only, the third in its backends, too.
FEW, MANY, SPREAD = "10 models, 10 backends", "256 models, 10 backends", "256 models, 64 backends"
PLAIN, DIRECT, LITELLM = "plain", "direct", "litellm"

_CONNECTIONS: Final = 32
_SLICE: Final = 1500  # requests
_ROUNDS: Final = 24
_LATENCY_ROUNDS: Final = 1500
_STREAMS: Final = 32
_STREAM_ROUNDS: Final = 4
#: It is some hundred times slower: as long a slice, and no more in flight than it can take.
_SLOW_SLICE: Final = 60
_SLOW_CONNECTIONS: Final = 8
_SLOW_STREAMS: Final = 4


@dataclass
class Ledger:
    """CPU seconds per request (or per chunk) of each subject, one entry per turn."""

    entries: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, spent_s: float, units: int) -> None:
        """One turn."""
        self.entries.setdefault(name, []).append(spent_s / units)

    def median_us(self, name: str) -> float:
        """Microseconds per unit."""
        return statistics.median(self.entries[name]) * 1e6

    def ratio(self, name: str, beside: str) -> float:
        """The median of the ratios within a turn."""
        pairs = zip(self.entries[name], self.entries[beside], strict=True)
        return statistics.median(one / other for one, other in pairs)


def measure_gateway() -> list[Figure]:
    """All figures, with a line of its own for what had to be left out."""
    with tempfile.TemporaryDirectory(prefix="fl-gw-") as directory, Stand(Path(directory)) as stand:
        subjects = [
            stand.plain(),
            stand.gateway(BARE, detectors=False),
            stand.gateway(FULL),
            stand.gateway(FEW, models=10, backends=10),
            stand.gateway(MANY, models=256, backends=10),
            stand.gateway(SPREAD, models=256, backends=64),
        ]
        try:
            subjects.append(stand.litellm())
        except Unavailable as why:
            print(f"SKIPPED: all figures beside LiteLLM: {why}", flush=True)
        run = _Run([stand.backend(), *subjects])
        try:
            return _measure(run, {subject.name: subject for subject in subjects})
        finally:
            run.close()


def measure_parts() -> list[Figure]:
    """What the full gateway costs without each of its parts, by changed copies of its files."""
    with tempfile.TemporaryDirectory(prefix="fl-gw-") as directory, Stand(Path(directory)) as stand:
        subjects = [stand.plain(), stand.gateway(FULL)]
        subjects += [stand.gateway(name, patch=patch) for name, patch in PARTS.items()]
        run = _Run(subjects)
        try:
            cpu = run.load([subject.name for subject in subjects])
        finally:
            run.close()
    whole = cpu.ratio(FULL, PLAIN)
    figures = [Figure("gateway: CPU per request, beside a plain proxy", whole, "times", "")]
    return figures + [Figure(f"{name}: beside the gateway", cpu.ratio(name, FULL), "times", "") for name in PARTS]


class _Run:
    """The callers, and the subjects that they know."""

    def __init__(self, subjects: Iterable[Subject]) -> None:
        self._subjects = {subject.name: subject for subject in subjects}
        self._generator = Generator()
        for subject in self._subjects.values():
            self._generator.add(subject.name, subject.port, subject.requests, subject.streams)

    def close(self) -> None:
        self._generator.close()

    def load(self, names: Sequence[str]) -> Ledger:
        """CPU per request."""
        ledger = Ledger()
        for turn in range(-1, _ROUNDS):
            for name in random.sample(names, len(names)):
                is_slow = name == LITELLM
                count = _SLOW_SLICE if is_slow else _SLICE
                pid = self._subjects[name].pid
                before = cpu_s(pid)
                self._generator.load(name, count, _SLOW_CONNECTIONS if is_slow else _CONNECTIONS)
                spent = cpu_s(pid) - before
                if turn >= 0:  # the first turn warms up
                    ledger.add(name, spent, count)
        return ledger

    def stream(self, names: Sequence[str]) -> Ledger:
        """CPU per chunk of a stream."""
        ledger = Ledger()
        for turn in range(-1, _STREAM_ROUNDS):
            for name in random.sample(names, len(names)):
                pid = self._subjects[name].pid
                before = cpu_s(pid)
                chunks = self._generator.stream(name, _SLOW_STREAMS if name == LITELLM else _STREAMS)
                spent = cpu_s(pid) - before
                if turn >= 0:
                    ledger.add(name, spent, chunks)
        return ledger

    def latency(self, names: Sequence[str], rounds: int) -> Mapping[str, list[float]]:
        """Milliseconds of single requests."""
        self._generator.latency(names, 20)
        return self._generator.latency(names, rounds)


def _measure(run: _Run, subjects: Mapping[str, Subject]) -> list[Figure]:
    names = list(subjects)
    at_start = {name: rss_mib(subject.pid) for name, subject in subjects.items()}
    cpu = run.load(names)
    chunks = run.stream([name for name in names if name not in {FEW, MANY, SPREAD}])
    waits = run.latency([DIRECT, PLAIN, BARE, FULL], _LATENCY_ROUNDS)
    figures = [
        Figure("gateway: CPU per request, beside a plain proxy", cpu.ratio(FULL, PLAIN), "times", "<= 6"),
        Figure("gateway without detectors: the same", cpu.ratio(BARE, PLAIN), "times", "<= 3"),
        *(Figure(f"{name}: CPU beside {FEW}", cpu.ratio(name, FEW), "times", "<= 1.10") for name in (MANY, SPREAD)),
        Figure("gateway: added latency, p50", _added(waits, FULL, 50), "ms", "<= 0.7"),
        *(Figure(f"{name}: added latency, p50", _added(waits, name, 50), "ms", "") for name in (PLAIN, BARE)),
        *(Figure(f"{name}: added latency, p99", _added(waits, name, 99), "ms", "") for name in (FULL, PLAIN, BARE)),
    ]
    if LITELLM in subjects:
        # 40 times the requests per core.
        share = cpu.ratio(FULL, LITELLM)
        slow = run.latency([DIRECT, LITELLM], _LATENCY_ROUNDS // 10)
        figures += [
            Figure("gateway: CPU per request, beside LiteLLM", share, "times", "<= 0.025"),
            Figure("gateway: requests per core, beside LiteLLM", 1 / share, "times", ""),
            Figure("gateway: streamed chunks per core, beside LiteLLM", chunks.ratio(LITELLM, FULL), "times", ""),
            Figure(f"{LITELLM}: added latency, p50", _added(slow, LITELLM, 50), "ms", ""),
        ]
    figures.append(
        Figure("gateway: CPU per streamed chunk, beside a plain proxy", chunks.ratio(FULL, PLAIN), "times", "")
    )
    figures += [Figure(f"{name}: CPU per request", cpu.median_us(name), "us", "") for name in names]
    figures += [Figure(f"{name}: CPU per streamed chunk", chunks.median_us(name), "us", "") for name in chunks.entries]
    for name, subject in subjects.items():
        figures.append(Figure(f"{name}: memory at start", at_start[name], "MiB", ""))
        figures.append(Figure(f"{name}: memory after the run", rss_mib(subject.pid), "MiB", ""))
    return figures


def _added(waits: Mapping[str, list[float]], name: str, percentile: int) -> float:
    """Milliseconds beyond those of a request that goes to the backend itself."""
    own, direct = (statistics.quantiles(waits[one], n=100)[percentile - 1] for one in (name, DIRECT))
    return own - direct
