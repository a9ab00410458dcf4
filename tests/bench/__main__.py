"""`make bench`: what a reconcile costs, in requests counted by the API server and in CPU and memory of the process; and what a
request costs that goes through a gateway.

Counts are exact; CPU and time are compared with a bare client that sends the same writes in the same run, since machines are noisy,
and of the gateway with a plain proxy and LiteLLM in the same run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.counts import measure_counts
from tests.bench.deciding import measure_deciding
from tests.bench.figures import Figure, print_table, write_json
from tests.bench.gateway.affinity import measure_affinity
from tests.bench.gateway.measure import measure_gateway, measure_parts
from tests.bench.healing import measure_drift, measure_restart
from tests.bench.load import (
    QUIET_SIZES,
    measure_burst,
    measure_churn,
    measure_idle,
    measure_pods_ready,
    measure_quiet,
)
from tests.bench.profile import measure_profile
from tests.bench.reaction.measure import STORIES, measure_reaction
from tests.bench.reaction.timeline import Timeline, print_timelines, write_timelines
from tests.bench.scraping import measure_scraping
from tests.bench.subject import Subject

from fairlead_cluster.cluster import LocalCluster

PHASES = ("counts", "quiet", "burst", "idle", "pods", "drift", "churn", "restart", "profile")
PROFILE_SIZE = 200


def measure(subject: Subject, arguments: argparse.Namespace) -> list[Figure]:
    """All phases that were asked for, in their order: later ones need the custom resources of the burst."""
    size: int = arguments.size
    figures: list[Figure] = []

    def quiet() -> list[Figure]:
        return [figure for small in QUIET_SIZES if small < size for figure in measure_quiet(subject, small)]

    def profile() -> list[Figure]:
        subject.stop()
        return measure_profile(subject, min(size, PROFILE_SIZE), frames=arguments.frames)

    phases: dict[str, Callable[[], list[Figure]]] = {
        "counts": lambda: measure_counts(subject),
        "quiet": quiet,
        "burst": lambda: measure_burst(subject, size),
        "idle": lambda: measure_idle(subject, size),
        "pods": lambda: measure_pods_ready(subject, size, f"{size} CRs"),
        "drift": lambda: measure_drift(subject, size),
        "churn": lambda: measure_churn(subject, size),
        "restart": lambda: measure_restart(subject, size),
        "profile": profile,
    }
    subject.start()
    figures.append(Figure("memory at start", subject.rss_mib, "MiB", "<= 90"))
    for name in PHASES:
        if name in arguments.phases:
            started = time.monotonic()
            found = phases[name]()
            print(f"{name}, {time.monotonic() - started:.0f} s", flush=True)
            print_table(found)
            figures += found
    return figures


def measure_operator(arguments: argparse.Namespace) -> list[Figure]:
    """On a cluster of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="fairlead-bench-") as directory,
        LocalCluster(Path(directory) / "cluster", nodes=()) as cluster,
    ):
        return measure(Subject(cluster, Path(directory)), arguments)


def tell_reaction(arguments: argparse.Namespace) -> bool:
    """Whether every run of every figure meets its target, and there are some of each. What is measured is kept if the next figure fails."""
    timelines: list[Timeline] = []
    is_measured = True
    for runs in measure_reaction(arguments.runs, arguments.stories):
        is_measured = is_measured and bool(runs)
        timelines += runs
        write_timelines(timelines, arguments.output.with_name("reaction.json"))
        print_timelines(runs)
    return is_measured and all(timeline.ok for timeline in timelines)


def main() -> int:
    """Exit status 0 when every figure meets its target, 1 when one does not."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--size", type=int, default=1000, help="custom resources in the burst")
    parser.add_argument("--phases", type=lambda text: text.split(","), default=list(PHASES), help=", ".join(PHASES))
    parser.add_argument("--frames", type=int, default=0, help="print so many of the sampled stacks too")
    parser.add_argument("--output", type=Path, default=Path(".bench/core.json"))
    parser.add_argument("--gateway", action="store_true", help="the gateway's figures only, without a cluster")
    parser.add_argument("--parts", action="store_true", help="what each part of the gateway costs, and nothing else")
    parser.add_argument("--affinity", action="store_true", help="what an affinity by prompts gives, and nothing else")
    parser.add_argument(
        "--scraping", action="store_true", help="what metrics of engines and decisions from them cost, and nothing else"
    )
    parser.add_argument(
        "--reaction",
        action="store_true",
        help="how long a breach, an alert and a waking take, item by item, and nothing else",
    )
    parser.add_argument("--runs", type=int, default=3, help="of each figure of --reaction")
    parser.add_argument("--stories", type=lambda text: text.split(","), default=list(STORIES), help=", ".join(STORIES))
    arguments = parser.parse_args()
    if arguments.reaction:
        return 0 if tell_reaction(arguments) else 1
    if arguments.parts or arguments.affinity:
        print_table(measure_parts() if arguments.parts else measure_affinity())
        return 0
    figures: list[Figure] = []
    if arguments.scraping:
        figures = [*measure_scraping(), *measure_deciding()]
        write_json(figures, arguments.output.with_name("scraping.json"))
        print_table(figures)
        return 0 if all(figure.ok for figure in figures) else 1
    if not arguments.gateway:
        figures = measure_operator(arguments)
        write_json(figures, arguments.output)
    if arguments.gateway or arguments.phases == list(PHASES):
        of_gateway = [*measure_gateway(), *measure_affinity()]
        write_json(of_gateway, arguments.output.with_name("gateway.json"))
        figures += of_gateway
    if arguments.phases == list(PHASES):
        of_scraping = [*measure_scraping(), *measure_deciding()]
        write_json(of_scraping, arguments.output.with_name("scraping.json"))
        figures += of_scraping
    is_quick = arguments.phases != list(PHASES) or tell_reaction(arguments)
    print("\nAll figures")
    print_table(figures)
    return 0 if is_quick and all(figure.ok for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
