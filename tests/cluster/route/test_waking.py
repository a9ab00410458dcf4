"""To zero and back on a cluster: nobody asks, the last pod goes; somebody asks, waits at the gateway, and is served by a new one."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.cluster.operator_world import until
from tests.cluster.route.world import MODEL, RouteWorld, make_deployment, make_route

pytestmark = pytest.mark.cluster

IDLE = {"minReplicas": 0, "maxReplicas": 1, "idleTimeout": "10s"}
#: Load time of the simulated engine and 5 s are the aim; what is left is for a busy machine.
SERVED_S = 25.0
#: An adapter that the engine serves beside the model, and the route's models for the two.
ADAPTER = "acme-legal"
MODELS = ("legal", "chat")


def backend(world: RouteWorld, name: str = "local") -> dict[str, Any]:
    rows = (world.route().get("status") or {}).get("backends", [])
    return next((row for row in rows if row["name"] == name), {})


def test_a_deployment_at_zero_is_woken_by_requests_that_wait_for_it(world: RouteWorld) -> None:
    route = make_route(world.namespace, world.provider)
    (chat, _) = route["spec"]["models"]
    chat |= {"hold": {"patience": "1m"}, "timeouts": {"responseHeaders": "10s", "request": "2m"}}
    route["spec"]["models"].append({**chat, "name": "legal", "targets": [{"backend": "local", "model": ADAPTER}]})
    world.apply_all(route)
    world.wait_backends()
    engine = {"type": "vLLM", "args": ["--enable-lora", "--lora-modules", f"{ADAPTER}=/adapters/acme"]}
    world.apply(make_deployment(world.namespace, engine=engine, autoscaling=IDLE))
    until(lambda: backend(world).get("state") == "Asleep", "asleep", 90)
    until(lambda: not world.engines(), "no engine pods", 30)
    # Nothing is wrong, though no pod is there.
    world.wait_ready()
    assert backend(world)["message"] == "LLMDeployment llama is at zero replicas, and a request wakes it."

    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: world.ask(f"hello {number}", model=MODELS[number % 2]), range(8)))
    assert [answer.json["model"] for answer in answers] == [ADAPTER, MODEL] * 4
    assert [(answer.status, answer.headers.get("x-fairlead-backend")) for answer in answers] == [(200, "local")] * 8
    assert time.monotonic() - began < SERVED_S
    print(f"\nwoken: {time.monotonic() - began:.1f} s until the last of 8 was served")
    assert world.provider.recorded == []
    assert len(world.engines()) == 1
    until(lambda: backend(world).get("state") == "Ready", "ready again", 30)
