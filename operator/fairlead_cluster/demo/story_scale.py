"""The story of scaling: clients come, requests wait, replicas follow; clients go, and so do replicas, without a stream that is cut."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx2
from openai import OpenAIError

from fairlead_cluster.demo.attached import AttachedCluster
from fairlead_cluster.demo.console import Console
from fairlead_cluster.demo.story_serve import StoryFailedError, condition, describe_trouble, list_resources, show
from fairlead_cluster.demo.traffic import Traffic, TrafficReport, ask, describe, make_client

Json = dict[str, Any]
NAMESPACE = "default"
SAMPLES = "manifests/samples/scaling"
MODEL, SERVED = "llama-3b", "llama-3.2-3b"
SLEEPER, ROUTE = "night-owl", "assistant"
#: Nobody wants to watch a minute pass in which nothing happens.
SOON = '{"spec": {"autoscaling": {"idleTimeout": "10s"}}}'
ASLEEP_TIMEOUT_S = 60.0
WAITING = 50
READY_TIMEOUT_S = 60.0
UP_TIMEOUT_S = 60.0
DOWN_TIMEOUT_S = 90.0
CLIENTS = 24
ANSWER_TOKENS = 150
#: Replicas that the clients of this story need.
ENOUGH = 2


def tell(cluster: AttachedCluster, console: Console, _: Sequence[str]) -> None:
    """Tell the whole story. Raises StoryFailedError when anything is not as promised."""
    console.step("Apply a model with 1 to 3 replicas, and one with none while nobody asks, behind a gateway")
    show(cluster, console, "apply", "-k", SAMPLES)
    for name in (MODEL, SLEEPER):
        wait_for(cluster, name, is_ready, READY_TIMEOUT_S, f"{name} is Ready")
    cluster.kubectl("patch", "llmdep", SLEEPER, "-n", NAMESPACE, "--type=merge", "-p", SOON)
    console.say(cluster.kubectl("get", "llmdep", "-n", NAMESPACE))
    asyncio.run(come_and_go(cluster, console))
    asyncio.run(wake(cluster, console))


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


async def wake(cluster: AttachedCluster, console: Console) -> None:
    """Requests for a model of which no pod runs."""
    console.step(f"Meanwhile nobody asked {SLEEPER}; {WAITING} requests come at once")
    slept = await asyncio.to_thread(
        wait_for, cluster, SLEEPER, lambda resource: pods(resource) == 0, ASLEEP_TIMEOUT_S, f"{SLEEPER} sleeps"
    )
    console.say(f"{last_decision(slept)}; Ready: {condition(slept, 'Ready')} ({reason(slept)})")
    client = make_client(cluster.service_url(NAMESPACE, f"{ROUTE}-gateway", 80) + "/v1")
    began = time.monotonic()
    try:
        answers = await asyncio.gather(*(ask(client, ROUTE, "Are you awake?", max_tokens=16) for _ in range(WAITING)))
    except (OpenAIError, httpx2.HTTPError) as error:
        raise StoryFailedError(
            f"a request that waited failed: {describe(error)}\n{describe_trouble(cluster)}"
        ) from error
    finally:
        await client.close()
    first, last = min(answer.first_token_s for answer in answers), time.monotonic() - began
    console.say(
        f"all {len(answers)} are answered: the first token came after {first:.1f} s, the last after {last:.1f} s"
    )
    console.say(last_decision(find(cluster, SLEEPER)))


def watch_up(cluster: AttachedCluster, console: Console) -> None:
    """Until enough replicas serve: from requests that wait to the decision, and to pods that answer."""
    began = time.monotonic()
    decided = wait_for(
        cluster, MODEL, lambda resource: desired(resource) >= ENOUGH, UP_TIMEOUT_S, "more replicas are decided"
    )
    console.say(f"decided {time.monotonic() - began:.1f} s after the clients came: {last_decision(decided)}")
    served = wait_for(
        cluster, MODEL, lambda resource: ready(resource) >= ENOUGH, UP_TIMEOUT_S, f"{ENOUGH} replicas serve"
    )
    console.say(f"{ready(served)} replicas serve after {time.monotonic() - began:.1f} s")
    console.say(cluster.kubectl("get", "llmdep", MODEL, "-n", NAMESPACE))


def watch_down(cluster: AttachedCluster, console: Console) -> None:
    """Until one replica is left, and what was decided on the way."""
    began = time.monotonic()
    back = wait_for(
        cluster,
        MODEL,
        lambda resource: desired(resource) == 1 and ready(resource) == 1,
        DOWN_TIMEOUT_S,
        "one replica is left",
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


def wait_for(cluster: AttachedCluster, name: str, holds: Callable[[Json], bool], timeout_s: float, what: str) -> Json:
    """The LLMDeployment, once that holds."""
    deadline = time.monotonic() + timeout_s
    while True:
        resource = find(cluster, name)
        if holds(resource):
            return resource
        if time.monotonic() > deadline:
            raise StoryFailedError(f"not in {timeout_s:.0f} s: {what}\n" + describe_trouble(cluster))
        time.sleep(0.2)


def find(cluster: AttachedCluster, name: str) -> Json:
    """As it is now; empty if it is not there."""
    return next((one for one in list_resources(cluster) if one["metadata"]["name"] == name), {})


def is_ready(resource: Json) -> bool:
    """Whether it is Ready at its newest generation."""
    return bool(resource) and condition(resource, "Ready") == "True"


def reason(resource: Json) -> str:
    """Why it is Ready or not."""
    return next(str(one["reason"]) for one in resource["status"]["conditions"] if one["type"] == "Ready")


def pods(resource: Json) -> int:
    """Those that exist."""
    return int((resource.get("status") or {}).get("replicas") or 0)


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
