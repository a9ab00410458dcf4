"""From latency to replicas and back: engines as pods, a real Prometheus and Alertmanager, the operator as a process."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.cluster.operator_world import World, make_cr, until
from tests.cluster.test_alerts import TOKEN, Desk
from tests.monitoring.stack import monitoring_stack
from tests.monitoring.test_chain import find_startable

from fairlead_cluster.cluster import LocalCluster

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.alone]

#: Between what calm prompts take on a busy machine and what busy ones take.
FIRST_TOKEN_S = 0.75
CLIENTS = 4
#: Calm: 30 requests a second of which a pod can serve hundreds. Busy: each prompt takes a pod 0.4 s, and four of them come at a time.
CALM, BUSY = 5, 400
FAST_BEHAVIOR = {
    "scaleUp": {"stabilizationWindowSeconds": 0},
    "scaleDown": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 4, "periodSeconds": 1}]},
}


@dataclass
class Traffic:
    """Clients that ask one request after the other, each on a connection of its own, so that all pods get some."""

    words: int = CALM
    failures: int = 0


@contextmanager
def traffic(url: str) -> Iterator[Traffic]:
    kind, numbers, over = Traffic(), itertools.count(), threading.Event()

    def ask() -> None:
        while not over.is_set():
            prompt = f"{next(numbers)} " + "word " * kind.words  # begins unlike all others: nothing is cached
            body = {"model": "m", "prompt": prompt, "max_tokens": 2}
            try:
                httpx.post(f"{url}/v1/completions", json=body, trust_env=False, timeout=30).raise_for_status()
            except httpx.HTTPError:
                kind.failures += 1
            over.wait(0.1)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield kind
    finally:
        over.set()
        for thread in threads:
            thread.join(35)


def test_latency_alert_replicas_and_back(cluster: LocalCluster, cluster_namespace: str, tmp_path: Path) -> None:
    tools = find_startable()
    world, desk = World(cluster, cluster_namespace), Desk(cluster, tmp_path)
    desk.start()
    try:
        speed = {"FAIRLEAD_SIM_LOAD_SECONDS": "0", "FAIRLEAD_SIM_PROMPT_TOKENS_PER_SECOND": "1000"}
        world.apply(
            make_cr(
                cluster_namespace,
                "m",
                engine={"type": "vLLM", "env": [{"name": name, "value": value} for name, value in speed.items()]},
                autoscaling={"maxReplicas": 3, "targets": {"timeToFirstToken": "400ms"}, "behavior": FAST_BEHAVIOR},
            )
        )
        until(lambda: world.condition("m", "Ready").get("status") == "True", "it serves")
        pods = world.kubectl("get", "pods", "-o", "jsonpath={.items[*].status.podIP}").split()
        host, port = cluster.service_address(cluster_namespace, "m", 80)
        with (
            monitoring_stack(
                tools,
                tmp_path,
                engines=[f"{ip}:8000" for ip in pods],
                webhook=desk.url(),
                token=TOKEN,
                first_token_s=FIRST_TOKEN_S,
                namespace=cluster_namespace,
            ) as stack,
            traffic(f"http://{host}:{port}") as requests,
        ):
            until(lambda: stack.judges_by(20), "calm requests, by which nothing alerts")
            assert alerts(world) == []
            requests.words = BUSY
            began = time.monotonic()
            until(lambda: alerts(world) == ["LLMDeploymentHighTimeToFirstToken"], "the alert in status")
            print(f"latency -> alert in status: {time.monotonic() - began:.1f} s")
            until(lambda: desired(world) > 1, "more replicas")
            print(f"latency -> more replicas decided: {time.monotonic() - began:.1f} s")
            until(lambda: world.status("m").get("readyReplicas", 0) > 1, "more pods serve")
            print(f"latency -> more pods serve: {time.monotonic() - began:.1f} s")
            requests.words = CALM
            began = time.monotonic()
            until(lambda: alerts(world) == [], "resolved")
            print(f"calm -> resolved: {time.monotonic() - began:.1f} s")
            until(lambda: desired(world) == 1, "fewer replicas", 240)
            print(f"calm -> one replica decided: {time.monotonic() - began:.1f} s")
        decisions = world.status("m")["scaling"]["decisions"]
        print(*(f"{one['from']} -> {one['to']}: {one['message']}" for one in decisions), sep="\n")
        assert requests.failures == 0
    finally:
        cluster.stop_operator()


def alerts(world: World) -> list[str]:
    return [one["name"] for one in world.status("m").get("scaling", {}).get("alerts", [])]


def desired(world: World) -> int:
    return int(world.status("m")["scaling"]["desiredReplicas"])
