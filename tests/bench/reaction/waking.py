"""From requests for a model at zero to their first token, all of them held by the gateway meanwhile."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import yaml
from dnslib import DNSError, DNSRecord
from tests.bench.reaction.breach import ROOT
from tests.bench.reaction.readings import AUDIT, FirstTime, PodTimes, find_record, read_writes, until, watch_pods
from tests.bench.reaction.timeline import LOAD, Moment, Timeline

from fairlead_cluster.audit import AuditMark
from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.demo.traffic import Answer, ask, make_client

__all__ = ["measure_waking"]

Json = dict[str, Any]
MODEL, ROUTE = "night-owl", "assistant"
HELD = 50
TARGET_S = 5.0
LOAD_S = 3
ASLEEP_S = 90.0
PATIENCE_S = 60.0
PORT = 8000


def measure_waking(cluster: LocalCluster, runs: int) -> list[Timeline]:
    """One model with its route as in the samples, asleep and woken so many times. The operator runs already."""
    with cluster.namespace("reaction") as namespace:
        for name in (MODEL, ROUTE):
            body = yaml.safe_load((ROOT / f"manifests/samples/scaling/{name}.yaml").read_text())
            body["metadata"]["namespace"] = namespace
            if name == MODEL:
                body["spec"]["engine"]["env"] = [{"name": "FAIRLEAD_SIM_LOAD_SECONDS", "value": str(LOAD_S)}]
                body["spec"]["autoscaling"]["idleTimeout"] = "10s"
            cluster.kubectl.apply(body)
        return [_wake(cluster, namespace) for _ in range(runs)]


def _is_asleep(cluster: LocalCluster, namespace: str) -> bool:
    def get(*what: str) -> Json:
        return cluster.kubectl.json("get", *what, f"--namespace={namespace}")

    rows = (get("llmroute", ROUTE).get("status") or {}).get("backends", [])
    return [row["state"] for row in rows] == ["Asleep"] and not get("pods", f"--selector={_selector()}")["items"]


def _selector() -> str:
    return f"app.kubernetes.io/component=engine,fairlead.dev/llmdeployment={MODEL}"


def _wake(cluster: LocalCluster, namespace: str) -> Timeline:
    until(lambda: _is_asleep(cluster, namespace), "the model sleeps and its pod is gone", ASLEEP_S)
    time.sleep(3.0)  # until the gateways have no address of it any more
    url = cluster.service_url(namespace, f"{ROUTE}-gateway", 80) + "/v1"
    with watch_pods(cluster, namespace, _selector()) as pod:
        time.sleep(1.0)  # until the watch is there

        def is_up() -> bool:
            return bool(
                pod.seen.is_set()
                and httpx.get(f"http://{pod.address}:{PORT}/health", trust_env=False, timeout=1).status_code == 200
            )

        def is_named() -> bool:
            question = DNSRecord.question(f"{MODEL}-pods.{namespace}.svc.cluster.local")
            return bool(DNSRecord.parse(question.send(*cluster.dns_address, timeout=1)).rr)

        up, named = FirstTime(is_up, [httpx.HTTPError]), FirstTime(is_named, [OSError, DNSError])
        try:
            mark, sent = cluster.audit.mark(), time.time()
            answers = asyncio.run(_ask_all(url))
            ended = time.time()
        finally:
            up.stop()
            named.stop()
    print(f"  all {len(answers)} are served after {ended - sent:.1f} s", flush=True)
    first = sent + min(answer.first_token_s for answer in answers)
    return _tell(cluster, namespace, mark, sent, pod, up.at, named.at, first)


async def _ask_all(url: str) -> list[Answer]:
    """Raises what failed first: not one of them may."""
    client = make_client(url)
    try:
        return await asyncio.gather(*(ask(client, ROUTE, f"Are you awake? {n}", max_tokens=16) for n in range(HELD)))
    finally:
        await client.close()


def _tell(
    cluster: LocalCluster,
    namespace: str,
    mark: AuditMark,
    sent: float,
    pod: PodTimes,
    up: float,
    named: float,
    first: float,
) -> Timeline:
    writes = read_writes(cluster, namespace, mark)
    assert writes is not None
    made = find_record(cluster, mark, resource="pods", verb="create", namespace=namespace)
    bound = find_record(cluster, mark, resource="pods/binding", namespace=namespace)
    moments = (
        Moment("decision: until the write of status is received", writes.status_sent, AUDIT),
        Moment("write of status", writes.status_kept, AUDIT),
        Moment("write of the Deployment", writes.replicas_kept, AUDIT),
        Moment("pod made, by the cluster's controllers", made.stage_at.timestamp(), AUDIT),
        Moment("schedule", bound.stage_at.timestamp(), AUDIT),
        Moment("container started, by the node", pod.started, "watch of pods"),
        Moment(LOAD, up, "the bench asks /health every 20 ms"),
        Moment("probe: until the pod is Ready", pod.ready, "watch of pods"),
        Moment("DNS: until the name has the pod", named, "the bench asks the cluster's DNS every 20 ms"),
        Moment("gateway: until it asks DNS again, and the first request the pod", first, "the client's clock"),
    )
    return Timeline(f"zero -> first token, {HELD} requests held", TARGET_S, sent, moments)
