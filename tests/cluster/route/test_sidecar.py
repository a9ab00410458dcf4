"""Gateways in engine pods on a cluster: requests through the route's Service, edits that replace no pod, and the way there and back."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from tests.cluster.operator_world import until
from tests.cluster.route.test_deaf_gateway import LEAVES_WITHIN_S, deaf_kubelet
from tests.cluster.route.test_encryption import ENCRYPTION, RESTRICTED, issue, make_certificate
from tests.cluster.route.world import CARD, ROUTE, TEAM_A, TEAM_B, RouteWorld, make_deployment, make_route, make_secret

from fairlead_cluster.endpoints import endpoints

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
CARRIED: Json = {"gateway": {"routeRef": {"name": ROUTE}}, "replicas": 2}


def make_local_route(world: RouteWorld, mode: str = "Sidecar", **spec: Any) -> Json:
    """The usual one without its provider."""
    route = make_route(world.namespace, world.provider, **spec)
    del route["spec"]["backends"][1], route["spec"]["models"][1], route["spec"]["models"][0]["targets"][1]
    route["spec"]["gateway"] = {"mode": mode, "drainTimeout": "1s"}
    return route


def make_clients(world: RouteWorld) -> Json:
    return make_secret(world.namespace, "clients", {"team-a": TEAM_A, "team-b": TEAM_B}, use="clients")


def engines(world: RouteWorld) -> dict[str, Json]:
    """Engine pods that are not ending, by uid."""
    pods = [world.get(name) for name in world.engines()]
    return {
        pod["metadata"]["uid"]: pod for pod in pods if pod is not None and "deletionTimestamp" not in pod["metadata"]
    }


def test_a_chat_through_the_engines_own_gateways(world: RouteWorld) -> None:
    """The engines come first: they serve without their route."""
    world.apply(make_deployment(world.namespace, **CARRIED))
    until(lambda: ready_message(world), "the deployment is ready without its route", 90)
    assert f"there is no LLMRoute {ROUTE}" in ready_message(world)
    pods = engines(world)
    assert len(pods) == 2

    world.apply(make_clients(world), make_local_route(world))
    world.wait_ready()
    world.wait_backends()
    assert world.route()["status"]["gateways"] == "2/2"
    assert f"{ROUTE}-gateway" not in world.kubectl("get", "deployments,poddisruptionbudgets", "-o", "name")
    until(lambda: "LLMRoute" not in ready_message(world), "nothing is left to say", 20)
    answer = world.ask(key=TEAM_A)
    assert (answer.status, answer.headers["x-fairlead-backend"]) == (200, "local"), answer
    assert world.ask(key=TEAM_A, stream=True).body.endswith("data: [DONE]\n\n")
    assert world.ask(key="sk-nobody").status == 401

    # What is edited in the route changes what it does, and replaces no pod.
    edited = make_local_route(world)
    edited["spec"]["models"].append({"name": "other", "targets": [{"backend": "local"}]})
    edited["spec"]["roles"][0]["limits"] = {"requestsPerMinute": 1000}
    assert world.ask(model="other").status == 404
    world.apply(edited)
    until(lambda: world.ask(model="other").status == 200, "the new model is there", 30)
    world.apply(make_secret(world.namespace, "clients", {"team-a": "sk-another", "team-b": TEAM_B}, use="clients"))
    until(lambda: world.ask(key=TEAM_A).status == 401, "a key is withdrawn", 30)
    world.apply(make_clients(world))
    until(lambda: world.ask(key=TEAM_A).status == 200, "and given back", 30)
    world.wait_ready()
    assert engines(world).keys() == pods.keys()

    # One engine pod less is one gateway less.
    name = next(iter(pods.values()))["metadata"]["name"]
    world.kubectl("delete", "pod", name, "--grace-period=1", "--wait=false")
    until(lambda: name not in " ".join(world.engines()), "it is gone", 60)
    for _ in range(10):
        assert world.ask().status == 200
    until(lambda: world.route()["status"]["gateways"] == "2/2", "another one takes its place", 90)

    # A route that goes leaves the engines alone.
    before = engines(world).keys()
    world.kubectl("delete", "llmroute", ROUTE)
    until(lambda: f"there is no LLMRoute {ROUTE}" in ready_message(world), "it is told", 20)
    assert engines(world).keys() == before


def ready_message(world: RouteWorld) -> str:
    """What Ready says of the deployment, "" unless it is true."""
    conditions = ((world.get("llmdeployment/llama") or {}).get("status") or {}).get("conditions", [])
    return next((c["message"] for c in conditions if c["type"] == "Ready" and c["status"] == "True"), "")


def test_from_pods_of_their_own_into_the_engines_and_back(world: RouteWorld) -> None:
    """Somebody answers all the time, and no engine pod is replaced by it."""
    world.apply(make_clients(world), make_deployment(world.namespace, **CARRIED), make_local_route(world, "Deployment"))
    world.wait_ready()
    world.wait_backends()
    assert "does not say gateway.mode: Sidecar" in until(lambda: ready_message(world), "the deployment is ready", 60)
    pods = engines(world).keys()

    world.apply(make_local_route(world, "Sidecar"))
    until(lambda: asked(world) and not world.gateways(), "its own pods are gone", 60)
    world.wait_ready()
    assert world.route()["status"]["gateways"] == "2/2"
    assert asked(world)

    world.apply(make_local_route(world, "Deployment"))
    until(
        lambda: asked(world) and world.route()["status"].get("gateways") == "2/2" and len(world.gateways()) == 2,
        "back",
        60,
    )
    world.wait_ready()
    assert asked(world)
    assert engines(world).keys() == pods


def test_restricted_requests_pass_both_sidecars(world: RouteWorld) -> None:
    encrypted = {**CARRIED, **ENCRYPTION, "replicas": 1}
    route = make_local_route(world)
    route["spec"]["roles"][1]["dataAccess"].append("Restricted")
    world.apply(
        make_certificate(world, issue(world)), make_clients(world), make_deployment(world.namespace, **encrypted), route
    )
    world.wait_ready(120)
    world.wait_backends()
    until(lambda: world.ask(RESTRICTED, key=TEAM_B).status == 200, "it is answered", 30)
    answer = world.ask(RESTRICTED, key=TEAM_B)
    assert (answer.status, answer.headers["x-fairlead-class"]) == (200, "Restricted"), answer
    assert world.ask(RESTRICTED).status == 403, "another role may not send it"


def test_streams_through_a_pod_that_ends_come_to_their_end(world: RouteWorld) -> None:
    """The engine in that pod has nothing to do with them and ends at once: who carries the gateway need not be a backend."""
    slow = {"type": "vLLM", "env": [{"name": "FAIRLEAD_SIM_OUTPUT_TOKENS_PER_SECOND", "value": "4"}]}
    lasting = {**CARRIED, "replicas": 1, "rollout": {"drainTimeout": "30s"}}
    world.apply(
        make_clients(world),
        make_deployment(world.namespace, engine=slow),
        make_deployment(world.namespace, "front", **lasting),
        make_local_route(world),
    )
    world.wait_ready()
    world.wait_backends()
    pod = next(one for one in engines(world).values() if "fairlead.dev/llmroute" in one["metadata"]["labels"])
    url = f"http://{pod['status']['podIP']}:18080/v1/chat/completions"
    body = {"model": "chat", "stream": True, "max_tokens": 60, "messages": [{"role": "user", "content": "hello"}]}

    def stream(_: int) -> str:
        with httpx.stream("POST", url, json=body, headers={"x-api-key": TEAM_A}, timeout=60) as response:
            begun.release()
            return "".join(response.iter_text())

    begun = threading.Semaphore(0)
    with ThreadPoolExecutor(8) as threads:
        streams = threads.map(stream, range(8))
        for _ in range(8):
            assert begun.acquire(timeout=20)
        world.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
        assert all(text.endswith("data: [DONE]\n\n") for text in streams)


def test_a_deaf_one_leaves_the_service_and_its_engine_goes_on(world: RouteWorld) -> None:
    world.apply(make_clients(world), make_deployment(world.namespace, **CARRIED), make_local_route(world))
    world.wait_ready(120)
    world.wait_backends()
    pods = engines(world)
    deaf = next(iter(pods.values()))
    with deaf_kubelet(deaf):
        narrowed = make_local_route(world)
        narrowed["spec"]["roles"][1]["dataAccess"].remove("Confidential")
        world.apply(narrowed)
        assert deaf["status"]["podIP"] in led_to(world)
        until(lambda: deaf["status"]["podIP"] not in led_to(world), "it leaves the Service", LEAVES_WITHIN_S)
    until(lambda: world.route()["status"]["gateways"] == "1/2", "it is told", 20)
    assert engines(world).keys() == pods.keys()
    for _ in range(10):
        assert world.ask(CARD, key=TEAM_B).status == 403
        assert world.ask().status == 200
    reasons = world.kubectl("get", "events.events.k8s.io", "-o", "jsonpath={.items[*].reason}")
    assert "GatewayRemoved" in reasons


def led_to(world: RouteWorld) -> set[str]:
    """To whom the route's Service sends, as the cluster's data plane reckons it."""
    service = world.get(f"service/{ROUTE}-gateway")
    assert service is not None
    return {found.ip for found in endpoints(service, service["spec"]["ports"][0], list(engines(world).values()))}


def asked(world: RouteWorld) -> bool:
    """True; AssertionError if nobody answered."""
    answer = world.ask()
    assert answer.status == 200, answer
    return True


def test_nobody_carries_it(world: RouteWorld) -> None:
    world.apply(make_clients(world), make_deployment(world.namespace), make_local_route(world))
    until(lambda: world.route_condition("Ready").get("reason") == "GatewayNotCarried", "it says so", 60)
    assert world.route_condition("Stalled")["status"] == "False"
    world.apply(make_deployment(world.namespace, gateway={"routeRef": {"name": ROUTE}}))
    world.wait_ready(120)
    assert world.ask().status == 200
