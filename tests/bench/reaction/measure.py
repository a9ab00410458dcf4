"""How long a reaction takes on the local cluster, and what each part of it takes: a breach, an alert, a request for a model at zero."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from hack.prometheus import find_or_unpack
from tests.bench.reaction.alerting import measure_alerts, write_token
from tests.bench.reaction.breach import measure_breaches, scraping
from tests.bench.reaction.timeline import Timeline
from tests.bench.reaction.waking import measure_waking

from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.node.options import Engines, Options
from fairlead_cluster.ports import free_ports

__all__ = ["STORIES", "measure_reaction"]

STORIES = ("waking", "alert", "direct", "prometheus")
#: What users have, and the shortest that is of use.
INTERVALS_S = (15, 5)


def measure_reaction(runs: int, stories: Sequence[str] = STORIES) -> Iterator[list[Timeline]]:
    """`runs` of each figure, one figure after the other; some ten minutes, most of them until windows are full of calm."""
    with (
        tempfile.TemporaryDirectory(prefix="fairlead-bench-") as directory,
        LocalCluster(Path(directory) / "cluster", node_options=Options(engines=Engines.SIMULATED)) as cluster,
    ):
        folder = Path(directory)
        (port,) = free_ports(1)
        listening = (
            f"--alerts-token-file={write_token(folder)}",
            "--alerts-address=127.0.0.1",
            f"--alerts-port={port}",
        )
        cluster.start_operator(listening)
        cluster.wait_for_operator()
        if "waking" in stories:
            print("zero -> first token", flush=True)
            yield measure_waking(cluster, runs)
        if "alert" in stories:
            yield measure_alerts(cluster, runs, port)
        if "direct" in stories:
            print("breach, pods are asked", flush=True)
            yield measure_breaches(cluster, runs)
        cluster.stop_operator()
        for interval_s in INTERVALS_S if "prometheus" in stories else ():
            print(f"breach, Prometheus scrapes every {interval_s} s", flush=True)
            tools = find_or_unpack(print)
            with scraping(cluster, tools, folder / f"prometheus-{interval_s}", interval_s) as scraper:
                cluster.start_operator([f"--prometheus-url={scraper.url}"])
                cluster.wait_for_operator()
                yield measure_breaches(cluster, runs, scraper)
                cluster.stop_operator()
