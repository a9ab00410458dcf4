"""From an alert that is delivered to its evaluation in status, and to the answer."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
from tests.bench.reaction.breach import READY_S, make_model
from tests.bench.reaction.readings import AUDIT, find_record, until
from tests.bench.reaction.timeline import Moment, Timeline
from tests.unit.sources.deliveries import make_alert, make_body

from fairlead.runtime.alerts import PATH
from fairlead_cluster.cluster import LocalCluster

__all__ = ["TOKEN", "measure_alerts"]

TOKEN = "a-token-of-the-bench-of-reaction"
TARGET_S = 1.0
QUIET_S = 4.0


def measure_alerts(cluster: LocalCluster, runs: int, port: int) -> list[Timeline]:
    """Alerts about one model at rest, each another one. The operator listens on `port`."""
    found = []
    with cluster.namespace("reaction") as namespace:
        cluster.kubectl.apply(make_model(namespace))

        def is_measured() -> bool:
            status = cluster.kubectl.json("get", "llmdep", "m", f"--namespace={namespace}").get("status") or {}
            return bool(status.get("readyReplicas"))

        until(is_measured, "the model serves", READY_S)
        for number in range(runs):
            time.sleep(QUIET_S)
            found.append(_deliver(cluster, namespace, port, number))
    return found


def _deliver(cluster: LocalCluster, namespace: str, port: int, number: int) -> Timeline:
    labels = {"llm_namespace": namespace, "alertname": f"Bench{number}"}
    body = make_body(make_alert(labels=labels, fingerprint=f"{number:016x}"))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(trust_env=False, timeout=20) as client:
        mark, sent = cluster.audit.mark(), time.time()
        answer = client.post(f"http://127.0.0.1:{port}{PATH}", content=body, headers=headers)
        answered = time.time()
    if answer.json() != {"firing": 1}:
        raise RuntimeError(f"{answer.status_code}: {answer.text}")
    kept = find_record(cluster, mark, resource="llmdeployments/status", namespace=namespace, verb="patch")
    return Timeline(
        "alert -> evaluated and kept",
        TARGET_S,
        sent,
        (
            Moment("decision: until the write of status is received", kept.received_at.timestamp(), AUDIT),
            Moment("write of status", kept.stage_at.timestamp(), AUDIT),
            Moment("answer: until the cache has it and the sender knows", answered, "the sender's clock"),
        ),
    )


def write_token(folder: Path) -> Path:
    """The file that the operator is given."""
    file = folder / "alerts-token"
    file.write_text(TOKEN)
    return file
