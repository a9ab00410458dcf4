"""Sidecars in application pods: the policy gives them to labelled pods and to no others, and what an application asks on the loopback
address reaches the engine, or the provider by way of the gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.cluster.operator_world import until
from tests.cluster.route.world import PROVIDER_KEY, TEAM_A, TEAM_B, RouteWorld, make_route

from fairlead.config import OperatorConfig
from fairlead.rendering.inject import inject
from fairlead_cluster.cluster import LocalCluster

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
POLICY = Path(__file__).parents[3] / "manifests/sidecars/policy.yaml"
#: Longer than a kubelet takes to project what has changed.
PROJECTED_S = 120.0
#: An application that hands on what it is asked to its sidecar, under the address at which all applications find theirs.
APPLICATION = """
import http.client, http.server
class Application(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        sidecar = http.client.HTTPConnection("127.0.0.1", 4285, timeout=30)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "content-length", "connection")}
        sidecar.request("POST", self.path, body, headers)
        answer = sidecar.getresponse()
        text = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Application).serve_forever()
"""


@pytest.fixture(scope="module")
def policy(routed: LocalCluster) -> Iterator[None]:
    """The admission policy, once it is in force: the API server needs a moment."""
    objects = list(yaml.safe_load_all(POLICY.read_text()))
    routed.kubectl.apply(*objects)
    with routed.namespace("policy") as namespace:
        probe = make_application(namespace, "assistants")

        def works() -> bool:
            done = routed.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(probe))
            return "initContainers" in json.loads(done)["spec"]

        until(works, "the policy is in force")
    yield
    routed.kubectl("delete", "-f", str(POLICY))


def make_application(namespace: str, route: str, name: str = "app", **metadata: Any) -> Json:
    """A pod that passes Pod Security "restricted", labelled if `route` is not empty."""
    labels = {"fairlead.dev/gateway": route} if route else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels, **metadata},
        "spec": {
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "app",
                    "image": "fairlead.test/python:1",
                    "command": ["/usr/local/bin/python3", "-c", APPLICATION],
                    "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }


def is_ready(world: RouteWorld, name: str = "app") -> bool:
    pod = world.get(f"pod/{name}") or {}
    conditions = {c["type"]: c["status"] for c in (pod.get("status") or {}).get("conditions", [])}
    return conditions.get("Ready") == "True"


def ask(world: RouteWorld, model: str = "chat", *, key: str = TEAM_A, data_class: str = "") -> httpx.Response:
    """One request by the application."""
    pod = world.get("pod/app")
    assert pod is not None
    headers = {"authorization": f"Bearer {key}", **({"x-data-classification": data_class} if data_class else {})}
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
    return httpx.post(
        f"http://{pod['status']['podIP']}:8000/v1/chat/completions", json=body, headers=headers, timeout=30
    )


def listens(world: RouteWorld) -> bool:
    try:
        return ask(world).status_code > 0
    except httpx.TransportError:
        return False


@pytest.mark.usefixtures("policy")
def test_an_application_reaches_engine_and_provider_through_its_sidecar(world: RouteWorld) -> None:
    # The application is there before its route, and ready.
    world.apply(make_application(world.namespace, "assistants"))
    until(lambda: is_ready(world), "the application is ready")
    pod = world.get("pod/app")
    assert pod is not None
    (sidecar,) = pod["spec"]["initContainers"]
    assert (sidecar["name"], sidecar["restartPolicy"]) == ("fairlead-gateway", "Always")
    until(lambda: listens(world), "its sidecar listens")
    assert ask(world).json()["error"]["code"] == "no_route"

    route = make_route(world.namespace, world.provider)
    route["spec"]["gateway"]["applicationSidecars"] = True
    world.apply_all(route)
    world.wait_backends()
    until(lambda: ask(world).status_code == 200, "the route is projected", PROJECTED_S)
    until(lambda: 'backend="local"' in sidecar_metrics(world), "its metrics")
    local = ask(world)
    assert (local.headers["x-fairlead-backend"], local.headers["x-fairlead-class"]) == ("local", "Internal")
    assert gateway_requests(world) == [], "what deployments answer does not take the way to the gateway"
    cloud = ask(world, "public", data_class="Public")
    assert (cloud.status_code, cloud.headers["x-fairlead-backend"]) == (200, "cloud"), cloud.text
    recorded = world.provider.wait_for(1)[-1]
    assert recorded.request.header("authorization") == f"Bearer {PROVIDER_KEY}"
    assert TEAM_A not in repr(recorded.request)
    assert gateway_requests(world)
    # Who may not, may not here either.
    assert ask(world, "public", key=TEAM_B, data_class="Public").status_code == 403
    assert ask(world, key="sk-somebody-else").status_code == 401

    started = [one["restartCount"] for one in (world.get("pod/app") or {})["status"]["initContainerStatuses"]]
    world.kubectl("delete", "llmroute", "assistants")
    until(lambda: ask(world).status_code == 503, "the route is gone", PROJECTED_S)
    assert started == [0]
    assert is_ready(world)
    assert PROVIDER_KEY not in world.kubectl("get", "pods,configmaps", "-o", "json")


def sidecar_metrics(world: RouteWorld) -> str:
    pod = world.get("pod/app") or {}
    return httpx.get(f"http://{pod['status']['podIP']}:4286/metrics", timeout=5).text


def gateway_requests(world: RouteWorld) -> list[str]:
    """Lines of the gateways' metrics that count requests for a model."""
    lines = [line for line in world.metrics().splitlines() if line.startswith("envoy_fairlead_requests{")]
    return [line for line in lines if 'model=""' not in line and "model=" in line]


def created(world: RouteWorld, pod: Json) -> Json:
    """What the API server would make of it."""
    text = world.cluster.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(pod))
    found: Json = json.loads(text)
    return found


@pytest.mark.usefixtures("policy")
@pytest.mark.parametrize("annotations", [{}, {"fairlead.dev/gateway-authorities": "corp-ca"}], ids=["public", "own"])
def test_fairlead_inject_adds_the_same(world: RouteWorld, annotations: dict[str, str]) -> None:
    pod = make_application(world.namespace, "assistants", annotations=annotations)
    image = str(OperatorConfig.model_fields["gateway_image"].default)
    (injected,) = yaml.safe_load_all(inject(json.dumps(pod), "app.yaml", image).text)
    by_policy, by_command = created(world, pod), created(world, injected)
    assert by_command["metadata"]["annotations"] == by_policy["metadata"]["annotations"]
    assert by_command["spec"]["initContainers"] == by_policy["spec"]["initContainers"]
    # Neither has the token that every other container is given.
    (sidecar,) = by_command["spec"]["initContainers"]
    token = [volume["name"] for volume in by_command["spec"]["volumes"] if volume["name"].startswith("kube-api-access")]
    assert token
    assert not [mount for mount in sidecar["volumeMounts"] if mount["name"] in token]
    volumes = [
        [volume for volume in one["spec"]["volumes"] if volume["name"].startswith("fairlead")]
        for one in (by_policy, by_command)
    ]
    assert volumes[0] == volumes[1]
    assert len(volumes[0]) == 2


@pytest.mark.usefixtures("policy")
def test_only_labelled_pods_are_given_one_and_only_once(world: RouteWorld) -> None:
    plain = created(world, make_application(world.namespace, ""))
    assert "initContainers" not in plain["spec"]
    assert not [key for key in plain["metadata"].get("annotations", {}) if key.startswith("fairlead.dev/")]
    ours = make_application(world.namespace, "assistants")
    ours["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "fairlead"
    assert "initContainers" not in created(world, ours)["spec"]

    given = created(world, make_application(world.namespace, "assistants"))
    assert (
        created(world, {**given, "metadata": {**given["metadata"], "name": "again"}})["spec"]["initContainers"]
        == (given["spec"]["initContainers"])
    )
    busy = make_application(world.namespace, "assistants", annotations={"example.com/note": "kept"})
    own = {key: value for key, value in busy["spec"]["containers"][0].items() if key != "readinessProbe"} | {
        "name": "own"
    }
    busy["spec"] |= {"initContainers": [own], "volumes": [{"name": "own", "emptyDir": {}}]}
    made = created(world, busy)
    assert [one["name"] for one in made["spec"]["initContainers"]] == ["fairlead-gateway", "own"]
    assert made["spec"]["volumes"][0]["name"] == "own"
    assert made["metadata"]["annotations"]["example.com/note"] == "kept"
    assert [one["name"] for one in made["spec"]["containers"]] == ["app"]
