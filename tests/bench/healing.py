"""Children that somebody changes: how soon they are healed, and what a restart does about those changed meanwhile."""

from __future__ import annotations

import time
from datetime import datetime

from tests.bench.figures import Figure
from tests.bench.load import names_of
from tests.bench.objects import NAMESPACE, merge_line
from tests.bench.subject import Subject

EDITS = 200
EDIT_INTERVAL_S = 0.1
EDIT_VOLLEY = 10
WRONG_PORT = {"spec": {"ports": [{"name": "http", "port": 82, "protocol": "TCP", "targetPort": "http"}]}}


def measure_drift(subject: Subject, size: int) -> list[Figure]:
    """Services edited by hand, ten at a time: from the edit's answer to the answer of the operator's repair."""
    names = names_of("burst", size)
    edited = [names[number * size // min(EDITS, size)] for number in range(min(EDITS, size))]
    tail = subject.tail()
    for start in range(0, len(edited), EDIT_VOLLEY):
        subject.send(
            merge_line(f"/api/v1/namespaces/{NAMESPACE}/services/{name}", WRONG_PORT)
            for name in edited[start : start + EDIT_VOLLEY]
        )
        time.sleep(EDIT_INTERVAL_S)
    writes = subject.wait_quiet(tail, expected=len(edited))
    edited_at: dict[str, datetime] = {}
    for one in tail.read():
        if one.resource == "services" and one.is_write and one.user_agent.startswith("Python"):
            edited_at.setdefault(one.name, one.stage_at)
    healed_at = {write.name: write.stage_at for write in writes}
    delays_s = sorted((healed_at[name] - edited_at[name]).total_seconds() for name in edited)
    return [
        Figure(f"drift of {len(edited)} among {size} CRs: writes per edit", len(writes) / len(edited), "writes", "= 1"),
        Figure("drift healed, median", delays_s[len(delays_s) // 2], "s", ""),
        Figure("drift healed, p99", delays_s[min(len(delays_s) - 1, len(delays_s) * 99 // 100)], "s", "<= 1"),
    ]


def measure_restart(subject: Subject, size: int) -> list[Figure]:
    """A restart heals exactly what changed meanwhile: one child edited, one deleted."""
    edited, deleted = names_of("burst", size)[:2]
    subject.stop()
    subject.patch("service", edited, WRONG_PORT)
    subject.delete("service", deleted)
    subject.wait_cluster_quiet()
    tail = subject.tail()
    subject.start()
    healed = sorted((write.resource, write.name) for write in tail.writes())
    expected = [("services", edited), ("services", deleted)]
    others = [one for one in healed if one not in expected]
    return [
        Figure(f"restart with {size} CRs: the two changed meanwhile healed", float(healed == expected), "bool", "= 1"),
        Figure(f"restart with {size} CRs: other writes", len(others), "writes", "= 0"),
        Figure(f"restart with {size} CRs: CPU until quiet", subject.cpu_s, "s", ""),
        Figure(f"memory after a restart with {size} CRs", subject.rss_mib, "MiB", ""),
    ]
