"""Replicas that follow what simulated engines tell, in real processes: who goes when there are to be fewer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

import pytest
from tests.cluster.operator_world import Json, World, make_cr, until

from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.demo.traffic import Answer, ask, make_client

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
NAME = "scaling-live"
COST = "controller.kubernetes.io/pod-deletion-cost"
TARGETS = {"queuedRequests": 5}


@pytest.fixture(scope="module")
def operated(cluster: LocalCluster) -> Iterator[LocalCluster]:
    cluster.start_operator(name=NAME)
    cluster.wait_for_operator(NAME)
    yield cluster
    cluster.stop_operator(NAME)


@pytest.fixture
def world(operated: LocalCluster, cluster_namespace: str) -> World:
    return World(operated, cluster_namespace)


def pods(world: World) -> list[Json]:
    found: list[Json] = json.loads(world.kubectl("get", "pods", "-o", "json"))["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def name_of(pod: Json) -> str:
    return str(pod["metadata"]["name"])


async def hold_a_stream(pod: Json, port: int, tokens: int) -> Answer:
    client = make_client(f"http://{pod['status']['podIP']}:{port}/v1")
    try:
        return await ask(client, "m", "Tell a long story.", max_tokens=tokens)
    finally:
        await client.close()


async def test_the_pod_with_a_stream_stays(world: World) -> None:
    """Without being told, the controller takes the youngest; here that one has the stream."""
    autoscaling = {"minReplicas": 1, "maxReplicas": 3, "targets": TARGETS}
    world.apply(make_cr(world.namespace, "m", rollout={"drainTimeout": "30s"}, autoscaling=autoscaling))
    until(lambda: world.status("m").get("readyReplicas") == 1, "one serves")
    [first] = pods(world)
    world.patch("llmdeployment/m", '{"spec": {"autoscaling": {"minReplicas": 2}}}')
    until(lambda: world.status("m").get("readyReplicas") == 2, "two serve")
    [busy] = [pod for pod in pods(world) if name_of(pod) != name_of(first)]
    port = busy["spec"]["containers"][0]["ports"][0]["containerPort"]
    stream = asyncio.create_task(hold_a_stream(busy, port, 1500))
    await asyncio.sleep(7.0)  # until a look has seen it
    assert not stream.done()
    world.patch("llmdeployment/m", '{"spec": {"autoscaling": {"minReplicas": 1, "maxReplicas": 1}}}')
    await asyncio.to_thread(until, lambda: len(pods(world)) == 1, "one is left")
    [left] = pods(world)
    assert name_of(left) == name_of(busy)
    assert left["metadata"]["annotations"][COST] == "1"
    answer = await stream
    assert answer.chunks > 100


def test_measured_within_seconds(world: World) -> None:
    """What is measured is there a look after the first pod is."""
    world.apply(make_cr(world.namespace, "m", autoscaling={"maxReplicas": 3, "targets": TARGETS}))
    until(lambda: world.status("m").get("readyReplicas") == 1, "one serves")
    began = time.monotonic()
    until(lambda: world.condition("m", "ScalingActive").get("reason") == "SignalsReady", "signals are there", 20.0)
    print(f"signals {time.monotonic() - began:.1f} s after readiness")
    mark = world.mark()
    time.sleep(12.0)
    assert world.writes(mark) == []  # looks that show nothing new cost nothing
