"""A route from kubectl apply to answers: who may ask what, where it goes, and what the provider gets to see."""

from __future__ import annotations

import json

import pytest
from tests.cluster.operator_world import until
from tests.cluster.route.world import AT_ONCE_S, CARD, PROVIDER_KEY, TEAM_A, TEAM_B, RouteWorld, make_route

pytestmark = pytest.mark.cluster


def test_a_route_serves_and_keeps_the_law(world: RouteWorld) -> None:
    world.apply_all()
    world.wait_backends()
    route = world.route()
    assert route["status"]["gateways"] == "2/2"
    assert route["status"]["modelCount"] == 2

    # A request that nobody classified is Internal: it stays in the cluster.
    answer = world.ask()
    assert (answer.status, answer.headers["x-fairlead-backend"]) == (200, "local"), answer
    assert answer.headers["x-fairlead-class"] == "Internal"
    assert answer.json["model"] == "local-model"

    # So is one with a card number, for those who may send it; the others are told why not, without the number.
    assert world.ask(f"pay with {CARD}", key=TEAM_B).headers["x-fairlead-class"] == "Confidential"
    denied = world.ask(f"pay with {CARD}")
    assert denied.status == 403
    assert "Confidential" in denied.json["error"]["message"]
    assert "cards" in denied.json["error"]["message"]
    assert "4111" not in denied.body
    assert world.ask("about Project  Bluebird", key=TEAM_B).status == 403

    # The cloud takes what is declared Public, by whom who may declare it, with its own key and nothing of the caller's.
    assert world.provider.recorded == []
    public = world.ask("hello", model="public", headers={"x-data-classification": "Public", "cookie": "session=1"})
    assert (public.status, public.headers["x-fairlead-backend"]) == (200, "cloud"), public
    (recorded,) = world.provider.wait_for(1)
    assert recorded.request.header("authorization") == f"Bearer {PROVIDER_KEY}"
    assert json.loads(recorded.request.body)["model"] == "big-model"
    seen = repr(recorded.request)
    for secret in (TEAM_A, "team-a", "x-data-classification", "cookie", "x-fairlead", "x-forwarded", "x-request-id"):
        assert secret not in seen, seen
    assert world.ask(model="public", key=TEAM_B, headers={"x-data-classification": "Public"}).status == 403
    assert world.ask(model="public").status == 403

    assert [m["id"] for m in world.ask(path="/v1/models", method="GET").json["data"]] == ["chat", "public"]
    assert [m["id"] for m in world.ask(path="/v1/models", method="GET", key=TEAM_B).json["data"]] == ["chat"]
    assert world.ask(key="sk-somebody-else").status == 401
    assert world.ask(key=None).status == 401
    assert world.ask(model="gpt-5.6").status == 404
    for path in ("/v1/fine_tuning/jobs", "/v1/files", "/v1/load_lora_adapter", "/metrics", "/health"):
        assert world.ask(path=path).status == 404, path
    until(lambda: 'data_class="Public",backend="cloud",code="200"' in world.metrics(), "metrics")


def test_failover_when_the_local_model_goes(world: RouteWorld) -> None:
    world.apply_all()
    world.wait_backends()
    public = {"x-data-classification": "Public"}
    assert world.ask(headers=public).headers["x-fairlead-backend"] == "local"
    world.patch("llmdeployment/llama", '{"spec":{"replicas":0}}')
    until(lambda: world.ask(headers=public).headers.get("x-fairlead-backend") == "cloud", "the cloud answers")
    # One gateway may still reach the engine while it drains, when the other has found the cloud.
    until(lambda: not world.engines(), "the engine is gone")
    # What may not leave the cluster does not, whoever is down.
    world.provider.clear()
    for _ in range(5):
        assert world.ask().status == 503
        assert world.ask(f"pay with {CARD}", key=TEAM_B).status == 503
    assert world.provider.recorded == []
    world.patch("llmdeployment/llama", '{"spec":{"replicas":1}}')
    until(lambda: world.ask().status == 200, "the local model is back", 60)


def test_an_edit_reaches_the_gateways_within_seconds(world: RouteWorld) -> None:
    world.apply_all()
    world.wait_backends()
    assert world.ask(model="more").status == 404
    route = make_route(world.namespace, world.provider)
    route["spec"]["models"].append({"name": "more", "targets": [{"backend": "local"}]})
    world.apply(route)
    until(lambda: world.ask(model="more").status == 200, "the new model answers")
    world.wait_ready()
    mark = world.mark()
    assert world.quiet_writes(mark, 0) == []


def test_gateways_share_a_limit_until_it_is_taken_away(world: RouteWorld) -> None:
    world.apply_all(make_route(world.namespace, world.provider, limits={"requestsPerMinute": 2}))
    world.wait_backends()
    answers = [world.ask() for _ in range(12)]
    assert [answer.status for answer in answers].count(200) == 2, "one at each gateway"
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.json["error"]["code"] == "rate_limit_exceeded"
    assert refused.headers["x-ratelimit-limit-requests"] == "1"
    assert world.ask(key=TEAM_B).status == 200
    until(lambda: 'envoy_fairlead_limited{consumer="team-a",limit="requests"}' in world.metrics(), "metrics")
    world.apply(make_route(world.namespace, world.provider))
    world.wait_ready()
    assert {world.ask().status for _ in range(6)} == {200}


def test_keys_come_and_go(world: RouteWorld) -> None:
    world.apply_all()
    world.wait_backends()
    world.patch(
        "secret/clients", json.dumps({"stringData": {"team-a": "sk-another-key-of-a", "team-c": "sk-key-of-c-1"}})
    )
    until(lambda: world.ask(key="sk-another-key-of-a").status == 200, "the new key")
    until(lambda: world.ask(key=TEAM_A).status == 401, "the old key", AT_ONCE_S)
    # A consumer without a role is known, and may do nothing.
    assert world.ask(key="sk-key-of-c-1").status == 403
    public = {"x-data-classification": "Public"}
    world.patch("secret/provider", json.dumps({"stringData": {"apiKey": "sk-rotated"}}))

    def rotated() -> bool:
        world.provider.clear()
        world.ask(model="public", key="sk-another-key-of-a", headers=public)
        return any(r.request.header("authorization") == "Bearer sk-rotated" for r in world.provider.recorded)

    until(rotated, "the provider gets the new key", 120)


def test_what_is_missing_is_told_and_mended(world: RouteWorld) -> None:
    world.apply_all()
    world.wait_backends()
    world.kubectl("label", "secret", "provider", "fairlead.dev/use-")
    public = {"x-data-classification": "Public"}
    until(lambda: world.ask(model="public", headers=public).status == 503, "nothing is sent without consent", AT_ONCE_S)
    until(lambda: world.route_condition("ResolvedRefs").get("status") == "False", "it is told")
    assert "kubectl label secret provider" in world.route_condition("ResolvedRefs")["message"]
    assert world.ask().status == 200
    world.kubectl("label", "secret", "provider", "fairlead.dev/use=provider")
    until(lambda: world.ask(model="public", headers=public).status == 200, "it is sent again")


def test_deletion_leaves_nothing(world: RouteWorld) -> None:
    world.apply_all()
    world.wait_backends()
    world.kubectl("delete", "llmroute", "assistants", "--wait=true")
    kinds = "deployments,services,configmaps,secrets,networkpolicies,poddisruptionbudgets,pods"
    selector = "fairlead.dev/llmroute=assistants"
    until(lambda: world.kubectl("get", kinds, "-l", selector, "-o", "name") == "", "all children are gone", 60)
    assert world.get("secret/provider") is not None


def test_a_secret_that_comes_later_is_used_without_a_restart(world: RouteWorld) -> None:
    world.apply_all()
    world.kubectl("delete", "secret", "provider")
    until(lambda: world.route_condition("Programmed").get("status") == "True", "the gateways serve", 60)
    assert world.route_condition("Ready")["reason"] == "BackendsNotReady"  # one of the models has no other target
    public = {"x-data-classification": "Public"}
    until(lambda: world.ask(model="public", headers=public).status == 503, "no Secret, nothing is sent", 60)
    before = sorted(pod["metadata"]["uid"] for pod in world.gateways())
    world.provider.clear()
    world.apply(world.provider_secret())
    until(lambda: world.ask(model="public", headers=public).status == 200, "the Secret is used", 30)
    for recorded in world.provider.recorded:
        assert recorded.request.header("authorization") == f"Bearer {PROVIDER_KEY}"
    assert sorted(pod["metadata"]["uid"] for pod in world.gateways()) == before
