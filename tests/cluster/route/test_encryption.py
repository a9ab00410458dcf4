"""TLS up to the engine pods on a cluster: Restricted requests are answered there and nowhere else."""

from __future__ import annotations

import base64
import ssl
from typing import Any

import httpx
import pytest
from tests.cluster.operator_world import until
from tests.cluster.route.world import (
    AT_ONCE_S,
    ROUTE,
    TEAM_A,
    TEAM_B,
    RouteWorld,
    make_deployment,
    make_route,
    make_secret,
)

from fairlead_cluster.certificates import Authority, Issued

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
AUTHORITY = Authority("engines-ca")
SECRET = "llama-tls"
RESTRICTED = "Where is project bluebird?"
CONFIDENTIAL = "Pay with 4111 1111 1111 1111"
ENCRYPTION: Json = {"encryption": {"certificate": {"secretName": SECRET}}}


def issue(world: RouteWorld, authority: Authority = AUTHORITY, name: str = "llama") -> Issued:
    return authority.issue(name, [f"{name}.{world.namespace}.svc"])


def make_certificate(world: RouteWorld, issued: Issued, authority: Authority = AUTHORITY) -> Json:
    """As cert-manager writes it."""
    data = {"tls.crt": issued.cert, "tls.key": issued.key, "ca.crt": authority.cert}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": SECRET, "namespace": world.namespace},
        "data": {name: base64.b64encode(value).decode() for name, value in data.items()},
    }


def make_restricted_route(world: RouteWorld) -> Json:
    route = make_route(world.namespace, world.provider)
    route["spec"]["roles"][1]["dataAccess"].append("Restricted")
    del route["spec"]["models"][1]
    return route


def apply_everything(world: RouteWorld, certificate: Json | None) -> None:
    """The deployment is encrypted from its first pod on: a rollout from plain pods takes as long as a model loads."""
    world.apply(
        *([certificate] if certificate is not None else []),
        make_secret(world.namespace, "clients", {"team-a": TEAM_A, "team-b": TEAM_B}, use="clients"),
        world.provider_secret(),
        make_secret(world.namespace, "provider-ca", {"ca.crt": world.ca}),
        make_deployment(world.namespace, **ENCRYPTION),
        make_restricted_route(world),
    )


def engine(world: RouteWorld) -> Json:
    """The engine's pod."""
    (name,) = world.engines()
    found = world.get(name)
    assert found is not None
    return found


def shown(world: RouteWorld) -> str:
    address = engine(world)["status"]["podIP"]
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((address, 8443), timeout=5)).hex()


def test_restricted_requests_stay_on_an_encrypted_way(world: RouteWorld) -> None:
    apply_everything(world, make_certificate(world, issue(world)))
    world.wait_backends()
    deployment = world.get("llmdeployment/llama")
    assert deployment is not None
    assert deployment["status"]["endpoint"] == f"https://llama.{world.namespace}.svc/v1"

    answer = world.ask(RESTRICTED, key=TEAM_B)
    assert (answer.status, answer.headers["x-fairlead-class"]) == (200, "Restricted"), answer
    assert answer.headers["x-fairlead-backend"] == "local"
    streamed = world.ask(RESTRICTED, key=TEAM_B, stream=True)
    assert (streamed.status, streamed.body.endswith("data: [DONE]\n\n")) == (200, True)
    assert world.ask(RESTRICTED).status == 403, "another role may not send it"
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://{engine(world)['status']['podIP']}:8443/health", timeout=5)

    # A renewed certificate is taken without a restart.
    before = engine(world)["metadata"]["uid"]
    second = issue(world)
    world.apply(make_certificate(world, second))
    wanted = ssl.PEM_cert_to_DER_cert(second.cert.decode()).hex()
    until(lambda: shown(world) == wanted, "the renewed certificate is shown", 120)
    assert world.ask(RESTRICTED, key=TEAM_B).status == 200
    assert engine(world)["metadata"]["uid"] == before

    # What may write requests into a log takes that back at once, and what may hand them on the class below it, too.
    logging = make_deployment(world.namespace, **ENCRYPTION)
    logging["spec"]["engine"] |= {"args": ["--enable-log-requests"], "env": [{"name": "A_WEBHOOK", "value": ""}]}
    assert world.ask(CONFIDENTIAL, key=TEAM_B).status == 200
    world.apply(logging)
    until(lambda: world.ask(RESTRICTED, key=TEAM_B).status == 403, "it is withdrawn", AT_ONCE_S)
    until(lambda: world.ask(CONFIDENTIAL, key=TEAM_B).status == 403, "so is the class below it", AT_ONCE_S)
    until(lambda: "spec.engine.env sets A_WEBHOOK" in world.route_condition("Accepted")["message"], "it is told")

    # And gives both back when the last such pod is gone, not when the spec says so.
    until(lambda: records(world) == 1, "the pod that logs serves", 60)
    world.apply(make_deployment(world.namespace, **ENCRYPTION))
    seen = []
    until(
        lambda: seen.append((*ask_both(world), records(world))) or seen[-1][:2] == (200, 200),
        "again",
        90,
    )
    assert seen[-1] == (200, 200, 0)
    assert (403, 403, 1) in seen
    assert world.provider.recorded == []


def ask_both(world: RouteWorld) -> tuple[int, int]:
    return world.ask(RESTRICTED, key=TEAM_B).status, world.ask(CONFIDENTIAL, key=TEAM_B).status


def records(world: RouteWorld) -> int:
    """Engine pods that may write requests into their log; one that ends counts as long as it is there."""
    pods = [world.get(name) or {"metadata": {}} for name in world.engines()]
    return sum("fairlead.dev/records-requests" in (pod["metadata"].get("annotations") or {}) for pod in pods)


def test_pods_with_a_certificate_of_somebody_else_get_nothing(world: RouteWorld) -> None:
    apply_everything(world, make_certificate(world, issue(world, name="other")))
    until(lambda: (world.get("llmdeployment/llama") or {}).get("status", {}).get("readyReplicas"), "it serves", 60)
    until(lambda: world.route().get("status", {}).get("gateways") == "2/2", "the gateways are there", 60)
    for _ in range(5):
        assert world.ask(RESTRICTED, key=TEAM_B).status == 503
    # As soon as it shows its own, it is served.
    world.apply(make_certificate(world, issue(world)))
    until(lambda: world.ask(RESTRICTED, key=TEAM_B).status == 200, "its own certificate is taken", 120)


def test_the_secret_may_come_last_and_another_authority_may_sign(world: RouteWorld) -> None:
    """As an issuer needs its time, and as one that signs itself has another authority each time."""
    apply_everything(world, None)
    until(lambda: world.route().get("status", {}).get("gateways") == "2/2", "the gateways have loaded all of it", 60)
    assert world.ask(RESTRICTED, key=TEAM_B).status == 503
    assert world.route_condition("Stalled")["status"] == "False"
    world.apply(make_certificate(world, issue(world)))
    until(lambda: world.ask(RESTRICTED, key=TEAM_B).status == 200, "it serves", 180)
    world.wait_ready()
    before = {pod["metadata"]["uid"] for pod in [engine(world), *world.gateways()]}

    other = Authority("another-ca")
    renewed = issue(world, other)
    world.apply(make_certificate(world, renewed, other))
    wanted = ssl.PEM_cert_to_DER_cert(renewed.cert.decode()).hex()
    until(lambda: shown(world) == wanted, "the renewed certificate is shown", 120)
    until(lambda: world.ask(RESTRICTED, key=TEAM_B).status == 200, "the gateways have the other authority", 120)
    for _ in range(10):
        assert world.ask(RESTRICTED, key=TEAM_B).status == 200
    assert {pod["metadata"]["uid"] for pod in [engine(world), *world.gateways()]} == before


def test_without_encryption_nothing_is_restricted(world: RouteWorld) -> None:
    world.apply_all(make_restricted_route(world))
    until(lambda: world.route_condition("Accepted").get("status") == "False", "it is not accepted", 60)
    condition = world.route_condition("Accepted")
    assert condition["reason"] == "NoPermittedTarget"
    assert "LLMDeployment llama: spec.encryption is not set" in condition["message"]
    assert f"{ROUTE}-gateway" not in world.kubectl("get", "deployments", "-o", "name")
