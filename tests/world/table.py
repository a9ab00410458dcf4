"""The table of docs/scaling-simulated.md: every policy on every trace."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.world.engine import LLAMA_8B_L4, QWEN3_32B_2H100
from tests.world.policies import Hpa, Law, Oracle, PublishedLaw, QueueHpa, RunningHpa, Static, policy, published_hpa
from tests.world.traces import Trace, bursty, constant, conversations, diurnal, ramp, step
from tests.world.world import DIRECT, PROMETHEUS, Objective, Outcome, Scaler, Source, live

from fairlead.scaling.decision import Policy

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scaling-simulated.md"
_SECTION = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

#: Requests a second that the oracle gives each replica: nine tenths of what it bears.
ORACLE_PER_REPLICA = 1.28

TRACES: tuple[tuple[str, Callable[[], Trace]], ...] = (
    ("ramp", ramp),
    ("ramp, by chance", lambda: ramp(by_chance=True)),
    ("constant 7/s", lambda: constant(7)),
    ("step 2 to 8 to 2/s", step),
    ("bursts 3 to 8/s", bursty),
    ("day 1 to 9/s", diurnal),
)
POLICIES: tuple[tuple[str, Callable[[Trace], Scaler], int, Source], ...] = (
    ("8 replicas", lambda _: Static(8), 8, DIRECT),
    ("6 replicas", lambda _: Static(6), 6, DIRECT),
    ("HPA, 5 queued each", lambda _: QueueHpa(), 3, DIRECT),
    ("HPA, 40 in flight each", lambda _: RunningHpa(), 3, DIRECT),
    ("published SLO law", lambda _: PublishedLaw(), 3, PROMETHEUS),
    ("fairlead, Prometheus", lambda _: Law(policy()), 3, PROMETHEUS),
    ("fairlead, direct", lambda _: Law(policy()), 3, DIRECT),
    ("knows the future", lambda trace: Oracle(trace.rate, ORACLE_PER_REPLICA, 100), 3, DIRECT),
)


def run(make: Callable[[Trace], Scaler], trace: Trace, start: int, source: Source) -> Outcome:
    """One cell."""
    return live(trace, QWEN3_32B_2H100, make(trace), start=start, source=source)


def show(outcome: Outcome) -> str:
    """Share of requests that kept both objectives, average replicas, and how often replicas came back soon."""
    flaps = f", {outcome.flaps}×" if outcome.flaps else ""
    return f"{outcome.attainment * 100:.1f} % at {outcome.average:.2f}{flaps}"


def make_table(traces: Sequence[tuple[str, Callable[[], Trace]]] = TRACES) -> str:
    """In Markdown."""
    made = [(name, make()) for name, make in traces]
    lines = [f"| | {' | '.join(name for name, _ in made)} |", f"| --- |{' --- |' * len(made)}"]
    for name, make, start, source in POLICIES:
        cells = [show(run(make, trace, start, source)) for _, trace in made]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


#: Of the second table: 8B on L4s with 2 to 16 replicas, beginning with 8 (the trace begins in the middle of a day).
SERVICE_OBJECTIVE = Objective(5.0, 0.2)
SERVICE: tuple[tuple[str, Callable[[], Scaler], int, Source], ...] = (
    ("16 replicas", lambda: Static(16), 16, DIRECT),
    ("12 replicas", lambda: Static(12), 12, DIRECT),
    ("HPA, 5 queued each", lambda: QueueHpa(hpa=Hpa(2, 16)), 8, DIRECT),
    ("HPA, 15 in flight each", lambda: RunningHpa(15, hpa=Hpa(2, 16)), 8, DIRECT),
    (
        "published SLO law",
        lambda: PublishedLaw(first_token_s=5, output_token_s=0.2, hpa=published_hpa(2, 16)),
        8,
        PROMETHEUS,
    ),
    ("fairlead, Prometheus", lambda: Law(service_policy(), startup_s=90), 8, PROMETHEUS),
    ("fairlead, direct", lambda: Law(service_policy(), startup_s=90), 8, DIRECT),
)


def service_policy() -> Policy:
    """Of the public service."""
    return policy(2, 16, {"timeToFirstToken": "5s", "outputTokenLatency": "200ms"})


def serve(make: Callable[[], Scaler], start: int, source: Source) -> Outcome:
    """The hour of the public service."""
    return live(conversations(), LLAMA_8B_L4, make(), start=start, source=source, objective=SERVICE_OBJECTIVE)


def make_service_table() -> str:
    """In Markdown."""
    lines = ["| | an hour of conversations |", "| --- | --- |"]
    lines += [f"| {name} | {show(serve(make, start, source))} |" for name, make, start, source in SERVICE]
    return "\n".join(lines) + "\n"


def fill(text: str) -> str:
    """Replace what stands between the markers."""
    tables = {"world": make_table, "service": make_service_table}
    return _SECTION.sub(lambda match: f"{match[1]}\n{tables[match[2]]()}\n{match[3]}", text)


def main() -> None:
    """Write the page with the table as it is now."""
    PAGE.write_text(fill(PAGE.read_text()))
    sys.stdout.write(f"wrote {PAGE.name}\n")
