"""The tables of docs/scaling-simulated.md: every policy on every trace."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from tests.world.engine import LLAMA_8B_L4, QWEN3_32B_2H100
from tests.world.heldout import GENERATED, PUBLIC, Service
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


#: Of the public services: 2 to 16 replicas, beginning with 8 (they begin in the middle of a day).
SERVICE_OBJECTIVE = Objective(5.0, 0.2)
CONVERSATIONS = Service("an hour of conversations", conversations, LLAMA_8B_L4, SERVICE_OBJECTIVE)
SERVICE: tuple[tuple[str, Callable[[Service], Scaler], int, Source], ...] = (
    ("16 replicas", lambda _: Static(16), 16, DIRECT),
    ("12 replicas", lambda _: Static(12), 12, DIRECT),
    ("HPA, 5 queued each", lambda _: QueueHpa(hpa=Hpa(2, 16)), 8, DIRECT),
    ("HPA, 15 in flight each", lambda _: RunningHpa(15, hpa=Hpa(2, 16)), 8, DIRECT),
    ("published SLO law", lambda service: published(service.objective), 8, PROMETHEUS),
    ("fairlead, Prometheus", lambda service: law(service), 8, PROMETHEUS),
    ("fairlead, direct", lambda service: law(service), 8, DIRECT),
)


def published(objective: Objective) -> PublishedLaw:
    """On 2 to 16 replicas."""
    return PublishedLaw(
        first_token_s=objective.first_token_s, output_token_s=objective.output_token_s, hpa=published_hpa(2, 16)
    )


def service_policy(objective: Objective = SERVICE_OBJECTIVE) -> Policy:
    """Of a public service."""
    targets = {
        "timeToFirstToken": f"{objective.first_token_s * 1000:.0f}ms",
        "outputTokenLatency": f"{objective.output_token_s * 1000:.0f}ms",
    }
    return policy(2, 16, targets)


def law(service: Service) -> Law:
    """fairlead's own, told of the objectives and of how long pods take to load."""
    return Law(service_policy(service.objective), startup_s=service.engine.load_s)


def serve(make: Callable[[Service], Scaler], start: int, source: Source, service: Service = CONVERSATIONS) -> Outcome:
    """An hour of a public service."""
    return live(service.make(), service.engine, make(service), start=start, source=source, objective=service.objective)


def make_service_table(services: Sequence[Service] = (CONVERSATIONS,)) -> str:
    """In Markdown."""
    lines = [f"| | {' | '.join(one.name for one in services)} |", f"| --- |{' --- |' * len(services)}"]
    for name, make, start, source in SERVICE:
        cells = [show(serve(make, start, source, service)) for service in services]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


TABLES: dict[str, Callable[[], str]] = {
    "world": make_table,
    "service": make_service_table,
    "heldout": lambda: make_table(GENERATED),
    "heldoutservices": lambda: make_service_table(PUBLIC),
}


def fill(text: str, tables: Collection[str] = frozenset(TABLES)) -> str:
    """Replace what stands between the markers of these tables."""

    def make(match: re.Match[str]) -> str:
        name = match[2]
        return f"{match[1]}\n{TABLES[name]()}\n{match[3]}" if name in tables else match[0]

    return _SECTION.sub(make, text)


def main() -> None:
    """Write the page with the table as it is now."""
    PAGE.write_text(fill(PAGE.read_text()))
    sys.stdout.write(f"wrote {PAGE.name}\n")
