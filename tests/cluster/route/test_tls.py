"""A gateway with TLS, from kubectl apply to answers: the Secret that it waits for, the one that is exchanged, the ones it does not take."""

from __future__ import annotations

import base64
import json
import ssl
from typing import Any

import httpx
import pytest
from tests.cluster.operator_world import until
from tests.cluster.route.world import ROUTE, TEAM_A, RouteWorld, make_route

from fairlead_cluster.certificates import Authority, Issued

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
AUTHORITY = Authority("clients-ca")
SECRET = "assistants-tls"
NEXT = f"kubectl label secret {SECRET} fairlead.dev/use=gateway-tls"


def issue(world: RouteWorld, name: str) -> Issued:
    return AUTHORITY.issue(name, [f"{ROUTE}-gateway.{world.namespace}.svc"])


def make_tls_route(world: RouteWorld) -> Json:
    route = make_route(world.namespace, world.provider)
    route["spec"]["gateway"] |= {"tls": {"secretName": SECRET}}
    return route


def make_tls_secret(world: RouteWorld, issued: Issued, **metadata: Any) -> Json:
    """As an issuer writes it."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": SECRET, "namespace": world.namespace, **metadata},
        "data": {
            "tls.crt": base64.b64encode(issued.cert).decode(),
            "tls.key": base64.b64encode(issued.key).decode(),
        },
    }


LABELS = {"labels": {"fairlead.dev/use": "gateway-tls"}}


def ask(world: RouteWorld, port: int = 443, scheme: str = "https") -> httpx.Response:
    """By the name that the certificate has."""
    context = ssl.create_default_context(cadata=AUTHORITY.cert.decode())
    host, bound = world.cluster.service_address(world.namespace, f"{ROUTE}-gateway", port)
    name = f"{ROUTE}-gateway.{world.namespace}.svc"
    with httpx.Client(verify=context) as client:
        return client.post(
            f"{scheme}://{host}:{bound}/v1/chat/completions",
            headers={"authorization": f"Bearer {TEAM_A}", "host": name},
            json={"model": "chat", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8},
            extensions={"sni_hostname": name},
            timeout=30,
        )


def answers(world: RouteWorld) -> bool:
    """The data plane hears of pods a moment later than status."""
    try:
        return ask(world).status_code == 200
    except httpx.TransportError:
        return False


def answers_plainly(world: RouteWorld) -> bool:
    try:
        return world.ask().status == 200
    except OSError:
        return False


def shown(world: RouteWorld) -> set[str]:
    """Who the certificates of the gateways' pods are made out to: of each pod's public port."""
    found = set()
    for pod in world.gateways():
        pem = ssl.get_server_certificate((pod["status"]["podIP"], 8080), timeout=5)
        found.add(ssl.PEM_cert_to_DER_cert(pem).hex())
    return found


def test_a_route_with_tls_serves_and_takes_a_renewed_certificate(world: RouteWorld) -> None:
    first = issue(world, "first")
    world.apply(make_tls_secret(world, first, **LABELS))
    world.apply_all(make_tls_route(world))
    world.wait_backends()
    assert world.route()["status"]["endpoint"] == f"https://{ROUTE}-gateway.{world.namespace}.svc/v1"
    assert ask(world).status_code == 200
    for pod in world.gateways():
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://{pod['status']['podIP']}:8080/healthz", timeout=5)
    mark = world.mark()
    assert world.quiet_writes(mark, 0) == []

    before = sorted(pod["metadata"]["uid"] for pod in world.gateways())
    second = issue(world, "second")
    world.apply(make_tls_secret(world, second, **LABELS))
    wanted = {ssl.PEM_cert_to_DER_cert(second.cert.decode()).hex()}
    until(lambda: shown(world) == wanted, "the renewed certificate is shown", 120)
    assert ask(world).status_code == 200
    assert sorted(pod["metadata"]["uid"] for pod in world.gateways()) == before

    # Pods that run go on when the Secret is taken away, and status tells of it.
    world.kubectl("delete", "secret", SECRET)
    until(lambda: world.route_condition("ResolvedRefs").get("status") == "False", "it is told", 20)
    assert NEXT in world.route_condition("ResolvedRefs")["message"]
    assert world.route_condition("Ready")["status"] == "True"
    assert ask(world).status_code == 200


def test_a_missing_secret_is_told_and_starts_nothing(world: RouteWorld) -> None:
    """Nor does one that is not labelled, or not of the type. The right one starts the gateway, without anybody touching the route."""
    world.apply_all(make_tls_route(world))
    until(lambda: world.route_condition("Ready").get("reason") == "RefNotResolved", "it is told", 30)
    for kind in ("ResolvedRefs", "Programmed"):
        assert world.route_condition(kind)["status"] == "False"
        assert NEXT in world.route_condition(kind)["message"]
    assert world.route_condition("Stalled")["status"] == "False"
    assert world.gateways() == []
    assert world.get(f"deployment/{ROUTE}-gateway") is None
    assert world.get(f"service/{ROUTE}-gateway") is None

    opaque = {**make_tls_secret(world, issue(world, "opaque"), **LABELS), "type": "Opaque"}
    world.apply(opaque)
    until(lambda: world.route_condition("Stalled").get("status") == "True", "another type is told", 20)
    assert "kubernetes.io/tls" in world.route_condition("Stalled")["message"]
    world.kubectl("delete", "secret", SECRET)
    world.apply(make_tls_secret(world, issue(world, "unlabelled")))
    until(lambda: world.route_condition("Stalled").get("status") == "False", "it is gone", 20)
    assert NEXT in world.route_condition("Ready")["message"]
    assert world.get(f"deployment/{ROUTE}-gateway") is None

    world.kubectl("label", "secret", SECRET, "fairlead.dev/use=gateway-tls")
    world.wait_backends()
    assert ask(world).status_code == 200


def test_tls_on_and_off_and_what_runs_meanwhile(world: RouteWorld) -> None:
    """Without its Secret, TLS changes nothing that runs; with it, no pod serves in the open any more."""
    world.apply_all()
    world.wait_backends()
    plain = sorted(pod["metadata"]["uid"] for pod in world.gateways())
    world.apply(make_tls_route(world))
    until(lambda: world.route_condition("Ready").get("reason") == "RefNotResolved", "it is told", 20)
    assert world.ask().status == 200
    assert sorted(pod["metadata"]["uid"] for pod in world.gateways()) == plain
    assert world.route()["status"]["endpoint"].startswith("http://")

    world.apply(make_tls_secret(world, issue(world, "first"), **LABELS))
    until(lambda: world.route()["status"]["endpoint"].startswith("https://"), "the endpoint", 20)
    world.wait_ready()
    until(lambda: answers(world), "HTTPS answers")
    until(lambda: not set(plain) & {pod["metadata"]["uid"] for pod in world.gateways()}, "the plain pods are gone", 60)
    service = world.get(f"service/{ROUTE}-gateway")
    assert service is not None
    assert [port["port"] for port in service["spec"]["ports"]] == [443]

    world.apply(make_route(world.namespace, world.provider))  # without `gateway.tls`
    until(lambda: world.route()["status"]["endpoint"].startswith("http://"), "the endpoint", 20)
    world.wait_ready()
    until(lambda: answers_plainly(world), "HTTP answers")
    assert json.dumps(world.route()["status"]).count(SECRET) == 0
