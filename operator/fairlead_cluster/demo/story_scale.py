"""The story of scaling: clients come, requests wait, replicas follow; clients go, and so do replicas, without a stream that is cut."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from fairlead_cluster.demo.attached import AttachedCluster
from fairlead_cluster.demo.console import Console
from fairlead_cluster.demo.story_serve import StoryFailedError, condition, describe_trouble, list_resources, show
from fairlead_cluster.demo.traffic import Traffic, TrafficReport

Json = dict[str, Any]
NAMESPACE = "default"
SAMPLES = "manifests/samples/scaling"
MODEL, SERVED = "llama-3b", "llama-3.2-3b"
READY_TIMEOUT_S = 60.0
UP_TIMEOUT_S = 60.0
DOWN_TIMEOUT_S = 90.0
CLIENTS = 24
ANSWER_TOKENS = 150
#: Replicas that the clients of this story need.
ENOUGH = 2


def tell(cluster: AttachedCluster, console: Console, _: Sequence[str]) -> None:
    """Tell the whole story. Raises StoryFailedError when anything is not as promised."""
    console.step(
        "Apply a model with spec.autoscaling: 1 to 4 replicas, 2 waiting requests for each, first token in 2 s"
    )
    show(cluster, console, "apply", "-k", SAMPLES)
    wait_for(cluster, lambda resource: condition(resource, "Ready") == "True", READY_TIMEOUT_S, "the model is Ready")
    console.say(cluster.kubectl("get", "llmdep", MODEL, "-n", NAMESPACE))
    asyncio.run(come_and_go(cluster, console))


async def come_and_go(cluster: AttachedCluster, console: Console) -> None:
    """Clients, replicas, and neither."""
    console.step(f"{CLIENTS} clients come, who each hold a stream open; one replica takes 8 at once")
    url = cluster.service_url(NAMESPACE, MODEL, 80) + "/v1"
    traffic = Traffic(url, SERVED, rate_per_s=1.0, streams=CLIENTS, stream_tokens=ANSWER_TOKENS)
    running = asyncio.create_task(traffic.run())
    try:
        await asyncio.to_thread(watch_up, cluster, console)
    finally:
        traffic.stop()
    console.step("The clients go; the replicas follow, each when its streams are over")
    judge(await running, console)
    await asyncio.to_thread(watch_down, cluster, console)


def watch_up(cluster: AttachedCluster, console: Console) -> None:
    """Until enough replicas serve: from requests that wait to the decision, and to pods that answer."""
    began = time.monotonic()
    decided = wait_for(cluster, lambda resource: desired(resource) >= ENOUGH, UP_TIMEOUT_S, "more replicas are decided")
    console.say(f"decided {time.monotonic() - began:.1f} s after the clients came: {last_decision(decided)}")
    served = wait_for(cluster, lambda resource: ready(resource) >= ENOUGH, UP_TIMEOUT_S, f"{ENOUGH} replicas serve")
    console.say(f"{ready(served)} replicas serve after {time.monotonic() - began:.1f} s")
    console.say(cluster.kubectl("get", "llmdep", MODEL, "-n", NAMESPACE))


def watch_down(cluster: AttachedCluster, console: Console) -> None:
    """Until one replica is left, and what was decided on the way."""
    began = time.monotonic()
    back = wait_for(
        cluster, lambda resource: desired(resource) == 1 and ready(resource) == 1, DOWN_TIMEOUT_S, "one replica is left"
    )
    console.say(f"one replica is left after {time.monotonic() - began:.1f} s")
    console.command("kubectl", "get", "llmdep", MODEL, "-o", "jsonpath={.status.scaling.decisions}")
    for decision in scaling(back)["decisions"]:
        console.say(f"{decision['time']}  {decision['reason']}: {decision['message']}")


def judge(report: TrafficReport, console: Console) -> None:
    """Print what the clients counted; a single failure ends the story."""
    console.say(f"{report.streams} streams and {report.requests} requests, {report.failed} failed")
    for error, count in report.errors.most_common(5):
        console.say(f"  {count} × {error}")
    if report.failed:
        raise StoryFailedError(f"{report.failed} requests or streams failed while the number of replicas changed")


def wait_for(cluster: AttachedCluster, holds: Callable[[Json], bool], timeout_s: float, what: str) -> Json:
    """The LLMDeployment, once that holds."""
    deadline = time.monotonic() + timeout_s
    while True:
        resource = next((one for one in list_resources(cluster) if one["metadata"]["name"] == MODEL), None)
        if resource is not None and holds(resource):
            return resource
        if time.monotonic() > deadline:
            raise StoryFailedError(f"not in {timeout_s:.0f} s: {what}\n" + describe_trouble(cluster))
        time.sleep(0.2)


def scaling(resource: Json) -> Json:
    """status.scaling."""
    found: Json = (resource.get("status") or {}).get("scaling") or {}
    return found


def desired(resource: Json) -> int:
    """Replicas that were decided."""
    return int(scaling(resource).get("desiredReplicas", 0))


def ready(resource: Json) -> int:
    """Replicas that answer."""
    return int((resource.get("status") or {}).get("readyReplicas") or 0)


def last_decision(resource: Json) -> str:
    """In words."""
    return str(scaling(resource)["decisions"][-1]["message"])
