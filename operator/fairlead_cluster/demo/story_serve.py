"""The default story: three models from `kubectl apply` to streamed answers, one change under load, one deletion."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fairlead_cluster.demo.attached import AttachedCluster
from fairlead_cluster.demo.console import Console
from fairlead_cluster.demo.traffic import Answer, Traffic, TrafficReport, ask, make_client

NAMESPACE = "default"
READY_TIMEOUT_S = 90.0
ROLLOUT_TIMEOUT_S = 120.0
GONE_TIMEOUT_S = 90.0
REQUESTS_PER_S = 25.0
OPEN_STREAMS = 10
STREAM_SECONDS = 20.5
#: Everything that an LLMDeployment leads to; after its deletion none of it may be left.
CHILD_KINDS = "deployments,replicasets,pods,services,persistentvolumeclaims,poddisruptionbudgets,networkpolicies"


class StoryFailedError(Exception):
    """The story did not go as it must; the message says what was seen."""


@dataclass(frozen=True, slots=True)
class Model:
    """One sample: the CR's name and what clients send as `model`."""

    name: str
    served_name: str
    port: int
    replicas: int


def tell(cluster: AttachedCluster, console: Console, samples: Sequence[str]) -> None:
    """Tell the whole story; `samples` are the arguments of `kubectl apply`. Raises StoryFailedError when anything is not as promised."""
    console.step("Apply the samples: two vLLM models on GPUs, an Ollama model on CPU")
    show(cluster, console, "apply", *samples)
    wait_until_ready(cluster, console)
    models = list_models(cluster)

    console.step("Ask each model through its Service, streamed, with the official openai client")
    answers = asyncio.run(ask_all(cluster, console, models))

    asyncio.run(change_under_load(cluster, console, models[0], answers[0], then_delete=models[-1]))


def show(cluster: AttachedCluster, console: Console, *args: str) -> str:
    """Run kubectl, showing the command and what it prints."""
    console.command("kubectl", *args)
    output = cluster.kubectl(*args)
    console.say(output)
    return output


def list_resources(cluster: AttachedCluster) -> list[dict[str, Any]]:
    """All LLMDeployments of the story's namespace."""
    items: list[dict[str, Any]] = json.loads(cluster.kubectl("get", "llmdep", "-n", NAMESPACE, "-o", "json"))["items"]
    return items


def condition(resource: dict[str, Any], name: str) -> str:
    """Status of a condition that belongs to the current generation; "Unknown" otherwise."""
    for entry in resource.get("status", {}).get("conditions", []):
        if entry["type"] == name and entry.get("observedGeneration") == resource["metadata"]["generation"]:
            return str(entry["status"])
    return "Unknown"


def wait_until_ready(cluster: AttachedCluster, console: Console) -> None:
    """Print `kubectl get llmdep` whenever it changes, until every CR is Ready."""
    console.step("Wait until all are Ready")
    console.command("kubectl", "get", "llmdep", "-w")
    shown = ""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        table = cluster.kubectl("get", "llmdep", "-n", NAMESPACE)
        key = "\n".join(line.rsplit(None, 1)[0] for line in table.splitlines())  # without AGE
        if key != shown:
            console.say(table)
            console.say("")
            shown = key
        resources = list_resources(cluster)
        if resources and all(condition(r, "Ready") == "True" for r in resources):
            return
        if time.monotonic() > deadline:
            raise StoryFailedError(f"not all are Ready after {READY_TIMEOUT_S:.0f} s:\n" + describe_trouble(cluster))
        time.sleep(0.5)


def describe_trouble(cluster: AttachedCluster) -> str:
    """What a person would look at first: conditions and pods."""
    described = cluster.kubectl("describe", "llmdep", "-n", NAMESPACE)
    pods = cluster.kubectl("get", "pods", "-n", NAMESPACE, "-o", "wide")
    return f"{described}\n{pods}"


def list_models(cluster: AttachedCluster) -> list[Model]:
    """The samples as models to ask, vLLM first."""
    models = []
    for resource in list_resources(cluster):
        spec, name = resource["spec"], resource["metadata"]["name"]
        port = spec.get("service", {}).get("port", 80)
        models.append(Model(name, spec["model"].get("name") or name, port, spec["replicas"]))
    return sorted(models, key=lambda model: (model.replicas != 1, model.name))


async def ask_all(cluster: AttachedCluster, console: Console, models: Sequence[Model]) -> list[Answer]:
    """One streamed answer of each model, printed, in the order of the models."""
    answers = await asyncio.gather(*(ask_model(cluster, model) for model in models))
    for model, answer in zip(models, answers, strict=True):
        console.say(f"{model.served_name}: {answer.text.strip()}")
        timing = f"first token after {answer.first_token_s * 1000:.0f} ms, {answer.chunks} chunks in {answer.duration_s:.2f} s"
        console.say(f"    {timing}")
    return answers


async def ask_model(cluster: AttachedCluster, model: Model) -> Answer:
    """One streamed answer."""
    client = make_client(cluster.service_url(NAMESPACE, model.name, model.port) + "/v1")
    try:
        return await ask(client, model.served_name, "Who are you, in one sentence?", max_tokens=48)
    finally:
        await client.close()


async def change_under_load(
    cluster: AttachedCluster, console: Console, model: Model, speed: Answer, *, then_delete: Model
) -> None:
    """Replicas and context length in one edit while clients keep asking; no request may fail.

    `then_delete` is deleted once the change is rolled out, while the last of the long streams are still open.
    """
    console.step(
        f"Day 2: change replicas and context length of {model.name} in one edit, under {REQUESTS_PER_S:.0f} requests a second "
        f"and {OPEN_STREAMS} open streams"
    )
    tokens = math.ceil(speed.chunks_per_s * STREAM_SECONDS)
    url = cluster.service_url(NAMESPACE, model.name, model.port) + "/v1"
    traffic = Traffic(url, model.served_name, rate_per_s=REQUESTS_PER_S, streams=OPEN_STREAMS, stream_tokens=tokens)
    running = asyncio.create_task(traffic.run())
    try:
        while traffic.open_streams < OPEN_STREAMS:
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)
        patch = json.dumps({"spec": {"replicas": model.replicas + 1, "context": {"maxLength": 16384}}})
        arguments = ("patch", "llmdep", model.name, "-n", NAMESPACE, "--type=merge", "-p", patch)
        await asyncio.to_thread(show, cluster, console, *arguments)
        await asyncio.to_thread(wait_until_rolled_out, cluster, console, model, model.replicas + 1)
    finally:
        traffic.stop()
    console.say("rolled out; the open streams go on while the next step begins")
    await asyncio.to_thread(delete_and_check, cluster, console, then_delete)
    console.step(f"What the clients of {model.name} counted, when the last stream is over")
    judge(await running, console)


def wait_until_rolled_out(cluster: AttachedCluster, console: Console, model: Model, replicas: int) -> None:
    """Until the CR is Ready and done at its newest generation with all replicas ready."""
    deadline = time.monotonic() + ROLLOUT_TIMEOUT_S
    while True:
        resource = next(r for r in list_resources(cluster) if r["metadata"]["name"] == model.name)
        ready = resource.get("status", {}).get("readyReplicas", 0)
        if (
            condition(resource, "Ready") == "True"
            and condition(resource, "Reconciling") == "False"
            and ready == replicas
        ):
            console.say(cluster.kubectl("get", "llmdep", model.name, "-n", NAMESPACE))
            return
        if time.monotonic() > deadline:
            raise StoryFailedError(
                f"the change is not rolled out after {ROLLOUT_TIMEOUT_S:.0f} s:\n" + describe_trouble(cluster)
            )
        time.sleep(0.5)


def judge(report: TrafficReport, console: Console) -> None:
    """Print what the clients counted; a single failure ends the story."""
    console.say(
        f"{report.requests} requests ({report.requests_per_s:.1f}/s), {report.requests_failed} failed; "
        f"{report.streams} streams, {report.streams_failed} cut, the shortest was open {report.shortest_stream_s:.1f} s"
    )
    for error, count in report.errors.most_common(5):
        console.say(f"  {count} × {error}")
    if report.failed:
        raise StoryFailedError(f"{report.failed} requests or streams failed during the change")
    if report.requests_per_s < 20 or report.shortest_stream_s < 20:
        raise StoryFailedError(
            "the load was below 20 requests a second or a stream was open for less than 20 s: this proves nothing"
        )


def delete_and_check(cluster: AttachedCluster, console: Console, model: Model) -> None:
    """Delete one CR; everything that it led to must go."""
    console.step(f"Delete {model.name}; nothing may be left")
    show(cluster, console, "delete", "llmdep", model.name, "-n", NAMESPACE)
    selector = f"fairlead.dev/llmdeployment={model.name}"
    deadline = time.monotonic() + GONE_TIMEOUT_S
    told = ""
    while left := names_left(cluster, selector):
        if time.monotonic() > deadline:
            raise StoryFailedError(f"still there {GONE_TIMEOUT_S:.0f} s after the deletion: {', '.join(left)}")
        kinds = Counter(name.split("/")[0].split(".")[0] for name in left)
        if (telling := ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))) != told:
            told = telling
            console.say(f"still there: {told}" + (" (they drain)" if set(kinds) == {"pod"} else ""))
        time.sleep(0.5)
    console.command("kubectl", "get", CHILD_KINDS, "-l", selector)
    console.say("nothing is left")


def names_left(cluster: AttachedCluster, selector: str) -> Sequence[str]:
    """`kind/name` of every object of the CR that still exists."""
    return (cluster.kubectl("get", CHILD_KINDS, "-n", NAMESPACE, "-l", selector, "-o", "name")).split()
