"""Tokens from kubectl apply to answers: the issuer's keys in a ConfigMap or a Secret, exchanged and taken away."""

from __future__ import annotations

import json

import pytest
from tests.cluster.operator_world import until
from tests.cluster.route.world import PROVIDER_KEY, RouteWorld, make_route, make_secret
from tests.gateway.tokens import AUDIENCE, ISSUER, SigningKey, make_jwks, make_token

pytestmark = pytest.mark.cluster

PUBLIC = {"x-data-classification": "Public"}


def make_tokens_route(world: RouteWorld, kind: str) -> dict[str, object]:
    jwks = {kind: {"name": "issuer", "key": "jwks.json"}}
    route = make_route(world.namespace, world.provider)
    route["spec"]["authentication"]["jwt"] = {"issuer": ISSUER, "audiences": [AUDIENCE], "jwks": jwks}
    return route


def make_config_map(world: RouteWorld, *keys: SigningKey, label: str = "jwks") -> dict[str, object]:
    metadata = {"name": "issuer", "namespace": world.namespace, "labels": {"fairlead.dev/use": label}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"jwks.json": make_jwks(*keys)}}


def test_tokens_by_a_config_map(world: RouteWorld) -> None:
    old, new = SigningKey("old"), SigningKey("new", "RS256")
    world.apply_all(make_tokens_route(world, "configMapRef"))
    world.wait_backends()
    assert "kubectl label configmap issuer fairlead.dev/use=jwks" in world.route_condition("ResolvedRefs")["message"]
    token = make_token(old)
    assert world.ask(key=token).status == 401
    assert world.ask().status == 200, "keys are let in all the same"
    pods = sorted(pod["metadata"]["uid"] for pod in world.gateways())

    world.apply(make_config_map(world, old))
    until(lambda: world.ask(key=token).status == 200, "the token is let in", 20)
    until(lambda: world.route_condition("ResolvedRefs")["status"] == "True", "it is told")
    assert world.ask(key=make_token(old, "team-b"), model="public", headers=PUBLIC).status == 403, "by its own role"
    assert world.ask(key=make_token(old, exp=1)).status == 401

    # The provider is called with its own key, and sees nothing of the token.
    until(lambda: world.ask(key=token, model="public", headers=PUBLIC).status == 200, "the cloud answers", 20)
    for recorded in world.provider.recorded:
        assert recorded.request.header("authorization") == f"Bearer {PROVIDER_KEY}"
        assert all(part not in repr(recorded.request) for part in token.split("."))

    # Both while one is exchanged for the other, then the new one alone.
    world.apply(make_config_map(world, old, new))
    until(lambda: world.ask(key=make_token(new)).status == 200, "the new key", 20)
    world.apply(make_config_map(world, new))
    until(lambda: world.ask(key=token).status == 401, "the old key is withdrawn", 20)
    assert world.ask(key=make_token(new)).status == 200
    until(lambda: world.quiet_writes(world.mark(), 0) == [], "nothing more is written", 20)

    world.apply(make_config_map(world, new, label="other"))
    until(lambda: world.ask(key=make_token(new)).status == 401, "consent is withdrawn", 20)
    assert sorted(pod["metadata"]["uid"] for pod in world.gateways()) == pods, "none of it replaces a gateway"


def test_tokens_by_a_secret(world: RouteWorld) -> None:
    key = SigningKey("one")
    world.apply(make_secret(world.namespace, "issuer", {"jwks.json": make_jwks(key)}, use="jwks"))
    world.apply_all(make_tokens_route(world, "secretRef"))
    world.wait_backends()
    until(lambda: world.ask(key=make_token(key)).status == 200, "the token is let in", 20)
    world.patch("secret/issuer", json.dumps({"stringData": {"jwks.json": make_jwks(SigningKey("two"))}}))
    until(lambda: world.ask(key=make_token(key)).status == 401, "the key is withdrawn", 20)
