"""`make soak`: hours of random life, judged by the audit log. `python -m tests.soak --minutes N --crs M --seed S`."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.canaries import search_files, search_objects, search_pages
from tests.soak.accidents import REPLICAS
from tests.soak.admin import Admin
from tests.soak.campaign import PATIENCE_S, Campaign, Summary

from fairlead_cluster.cluster import LocalCluster

TOKEN = "hf_c4narySoakQx83vTz51Rw"


def soak(directory: Path, *, minutes: float, size: int, seed: int, patience_s: float = PATIENCE_S) -> Summary:
    """One soak on a cluster of its own in `directory`."""
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {line}", flush=True)

    say(f"seed {seed}, {size} models, {minutes:g} minutes")
    with LocalCluster(directory, nodes=(), say=say) as cluster, Admin(cluster.admin_kubeconfig) as admin:
        words = f"401 for https://user:{TOKEN}@hub/ with token={TOKEN}"
        campaign = Campaign(
            cluster,
            admin,
            size=size,
            seed=seed,
            words=words,
            say=say,
            patience_s=patience_s,
        )
        try:
            summary = campaign.run(minutes, TOKEN)
            summary.failures += look_for_secrets(cluster)
        finally:
            campaign.accidents.close()
        summary.failures += look_through_logs(cluster.logs_dir)
        say(str(summary))
        return summary


def look_for_secrets(cluster: LocalCluster) -> list[str]:
    """Where the planted token is and may not be: in any object but a Secret, on any page, in any log of an operator."""
    logs = [cluster.logs_dir / f"{name}.log" for name in REPLICAS]
    pages = [leak for name in REPLICAS for leak in search_pages(cluster.operator_url(name))]
    found = search_objects(cluster.kubectl) + pages + search_files(logs)
    return [f"a planted secret got out: {leak}" for leak in found]


def look_through_logs(logs: Path) -> list[str]:
    """What an operator's log may not hold after any number of accidents."""
    forbidden = ("Traceback", '"level":"critical"', "never awaited", "Task was destroyed", "Unclosed")
    return [
        f"{path.name}: {line.strip()[:500]}"
        for path in sorted(logs.glob("*.log"))
        if path.stem in REPLICAS
        for line in path.read_text(errors="replace").splitlines()
        if any(word in line for word in forbidden)
    ]


def main() -> int:
    """Exit status 0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--crs", type=int, default=200)
    parser.add_argument(
        "--seed", type=int, default=None, help="tells the same story again; default: a random one, printed"
    )
    parser.add_argument("--patience", type=float, default=PATIENCE_S, help="seconds until a round must have converged")
    parser.add_argument("--keep", type=Path, default=None, help="a folder for cluster and logs that is not removed")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(10**6)
    with tempfile.TemporaryDirectory(prefix="fairlead-soak-") as directory:
        summary = soak(
            arguments.keep or Path(directory) / "cluster",
            minutes=arguments.minutes,
            size=arguments.crs,
            seed=seed,
            patience_s=arguments.patience,
        )
    for failure in summary.failures:
        print(failure, file=sys.stderr)
    return 1 if summary.failures else 0


if __name__ == "__main__":
    sys.exit(main())
