"""Requests per event, one event at a time on one custom resource."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable

from tests.bench.figures import Figure
from tests.bench.objects import NAMESPACE, make_resource, merge_line, path_of
from tests.bench.subject import Subject

CHILDREN = 6
MEANINGLESS_EVENTS = 100
ONE = "count-1"


def measure_counts(subject: Subject) -> list[Figure]:
    """Writes of each event, and the reads that it may cost."""
    figures: list[Figure] = []

    def count(event: str, target: str, action: Callable[[], object], reads: str = "= 0") -> None:
        tail = subject.tail()
        action()
        subject.wait_quiet(tail)
        subject.wait_cluster_quiet()  # what the cluster's controllers make of it may still reach the operator
        writes = tail.writes()
        figures.append(Figure(f"{event}: writes", len(writes), "writes", target))
        if not figures[-1].ok:
            print(f"  {event}: {Counter(f'{w.verb} {w.resource} {w.code}' for w in writes)}", file=sys.stderr)
        figures.append(Figure(f"{event}: reads", len(tail.reads()), "reads", reads))

    annotated = {"spec": {"service": {"annotations": {"bench": "1"}}}}
    port = {"name": "http", "port": 81, "protocol": "TCP", "targetPort": "http"}
    count("new CR", f"= {CHILDREN + 1}", lambda: subject.create([ONE]))
    count("spec change that touches one child", "= 2", lambda: subject.patch("llmdep", ONE, annotated))
    count("child edited by hand", "= 1", lambda: subject.patch("service", ONE, {"spec": {"ports": [port]}}))
    # One read by design: nothing is created after the end of its owner, and only the API server knows of that in time.
    count("Service deleted", "= 1", lambda: subject.delete("service", ONE), reads="<= 1")
    count("Deployment deleted", "<= 2", lambda: subject.delete("deployment", ONE), reads="<= 1")
    deployment = path_of({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": make_resource(ONE)["metadata"]})
    noise = [
        merge_line(deployment, {"metadata": {"annotations": {"bench": str(number)}}})
        for number in range(MEANINGLESS_EVENTS)
    ]
    count(f"{MEANINGLESS_EVENTS} child events that change nothing", "= 0", lambda: subject.send(noise))
    subject.cluster.kubectl("delete", "llmdep", ONE, f"--namespace={NAMESPACE}", "--wait=false")
    subject.wait_cluster_quiet()
    return figures
