"""Whose tokens are let in: the issuer's keys, what is wrong with them, and what of them the gateway gets."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.planning.route.routes import carry_out, child, condition, make_facts, make_route, make_spec, plan
from tests.unit.planning.route.test_planner import files_of, gateway

from fairlead.facts.route import KeySet, RouteFacts
from fairlead.planning.plan import Plan

Json = dict[str, Any]
EC = {"kty": "EC", "crv": "P-256", "kid": "a", "use": "sig", "alg": "ES256", "x": "x" * 43, "y": "y" * 43}
RSA = {"kty": "RSA", "kid": "b", "n": "n" * 342, "e": "AQAB"}
ED25519 = {"kty": "OKP", "crv": "Ed25519", "x": "x" * 43}
LABEL = "fairlead.dev/use=jwks"


def spec(**changes: Any) -> Json:
    jwt = {
        "issuer": "https://id.example.com",
        "audiences": ["b", "a"],
        "jwks": {"configMapRef": {"name": "issuer", "key": "jwks.json"}},
        **changes,
    }
    made = make_spec()
    return {**made, "authentication": {**made["authentication"], "jwt": jwt}}


def key_set(*keys: Any, **changes: Any) -> KeySet:
    return replace(KeySet("ConfigMap", "issuer", "jwks", json.dumps({"keys": keys}).encode()), **changes)


def facts(found: KeySet | None, **more: Any) -> RouteFacts:
    return make_facts(key_set=found, **more)


def published(planned: Plan) -> list[Json]:
    """The keys that the gateway checks with; the last one is nobody's."""
    text = files_of(planned)["authentication.json"]
    filters = find(json.loads(text), "filter_chain")["typed_config"]
    (provider,) = filters[0]["typed_config"]["providers"].values()
    keys: list[Json] = json.loads(provider["local_jwks"]["inline_string"])["keys"]
    assert keys[-1]["kid"] == "nobody"
    return keys[:-1]


def find(value: Any, name: str) -> Any:
    """The first value of that name, however deep."""
    if isinstance(value, dict):
        if name in value:
            return value[name]
        value = list(value.values())
    for part in value if isinstance(value, list) else ():
        found = find(part, name)
        if found is not None:
            return found
    return None


def test_good_keys_are_published_without_private_members() -> None:
    private = {**EC, "d": "VERYSECRET", "x5c": ["CERTIFICATE"]}
    made = plan(make_route(spec()), facts(key_set(private, RSA, ED25519)))
    assert published(made) == [EC, RSA, ED25519]
    assert (
        "VERYSECRET"
        not in json.dumps([dict(one.body) for one in made.children]) + files_of(made)["authentication.json"]
    )
    assert condition(made, "ResolvedRefs")["status"] == "True"


def test_what_is_asked_of_a_token() -> None:
    text = json.loads(files_of(plan(make_route(spec(consumerClaim="team")), facts(key_set(EC))))["authentication.json"])
    (provider,) = find(text, "providers").values()
    assert provider["issuer"] == "https://id.example.com"
    assert provider["audiences"] == ["a", "b"]
    assert provider["require_expiration"] is True
    assert provider["forward"] is False
    assert provider["claim_to_headers"] == [{"header_name": "x-fairlead-consumer", "claim_name": "team"}]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, f"kubectl label configmap issuer {LABEL}"),
        (key_set(EC, use=""), f"is not labelled {LABEL}"),
        (key_set(EC, use="clients"), f"is not labelled {LABEL}"),
        (key_set(EC, kind="Secret"), "ConfigMap issuer is not there"),
        (key_set(EC, name="another"), "ConfigMap issuer is not there"),
        (key_set(text=None), "has no key jwks.json"),
        (key_set(text=b"{"), "is no JSON"),
        (key_set(text=b"[" * 60_000), "is no JSON"),
        (key_set(text=b"\xff"), "is no JSON"),
        (key_set(text=b"[]"), "is no JWKS"),
        (key_set(text=b'{"keys": {}}'), "is no JWKS"),
        (key_set(), "is no JWKS"),
        (key_set(text=b" " * 65_537), "has more than 64 KiB"),
        (key_set(*[EC] * 65), "has more than 64 keys"),
        (key_set("key"), "1 of 1 keys cannot be used"),
        (key_set({"kty": "oct", "k": "AAAA"}), "1 of 1 keys cannot be used"),
    ],
)
def test_without_keys_no_token_is_let_in_and_it_is_told(found: KeySet | None, words: str) -> None:
    made = plan(make_route(spec()), facts(found))
    assert published(made) == []
    resolved = condition(made, "ResolvedRefs")
    assert resolved["status"] == "False"
    assert words in resolved["message"]
    assert "no token is let in" in resolved["message"]
    assert "Next: " in resolved["message"]
    assert condition(made, "Accepted")["status"] == "True"
    assert "key-of-team-a" in files_of(made)["authentication.json"], "keys are let in all the same"


@pytest.mark.parametrize(
    "key",
    [
        {**EC, "crv": "secp256k1"},
        {**EC, "crv": "P-384"},
        {**EC, "alg": "ES384"},
        {**EC, "alg": "HS256"},
        {**EC, "alg": "none"},
        {**EC, "x": "x" * 42},
        {**EC, "x": "x" * 42 + "="},
        {**EC, "y": ["y" * 43]},
        {**EC, "use": "enc"},
        {**EC, "kid": 7},
        {**EC, "kid": "\ud800"},
        {**RSA, "crv": "\u00e9"},
        {**RSA, "n": "n" * 300},
        {**RSA, "alg": "ES256"},
        {**RSA, "e": "!"},
        {**ED25519, "crv": "X25519"},
        {**ED25519, "alg": "ES256"},
        {"kty": "oct", "k": "VERYSECRET"},
        {"kty": ["EC"]},
        {"kty": "EC"},
        {},
        None,
    ],
)
def test_a_key_that_cannot_be_used_takes_none_of_the_others_away(key: Any) -> None:
    made = plan(make_route(spec()), facts(key_set(RSA, key)))
    assert published(made) == [RSA]
    assert "1 of 2 keys cannot be used" in condition(made, "ResolvedRefs")["message"]
    assert "VERYSECRET" not in json.dumps([dict(one.body) for one in made.children]) + json.dumps(made.status)


def test_a_secret_serves_as_well() -> None:
    secret = key_set(EC, kind="Secret")
    made = plan(make_route(spec(jwks={"secretRef": {"name": "issuer", "key": "jwks.json"}})), facts(secret))
    assert published(made) == [EC]


@pytest.mark.parametrize(
    "change",
    [
        lambda: (spec(issuer="https://id.example.org"), key_set(EC)),
        lambda: (spec(audiences=["a"]), key_set(EC)),
        lambda: (spec(consumerClaim="team"), key_set(EC)),
        lambda: (spec(), key_set(RSA)),
        lambda: (spec(), None),
        lambda: (make_spec(), None),
    ],
    ids=["issuer", "audiences", "claim", "keys", "no keys", "no tokens"],
)
def test_every_change_is_waited_for(change: Any) -> None:
    """Envoy says which version it has loaded, so each is another one."""
    before = plan(make_route(spec()), facts(key_set(EC)))
    observed = carry_out(before)
    pods = (gateway("a", before), gateway("b", before))
    same = plan(make_route(spec()), facts(key_set(EC), gateways=pods), observed)
    assert condition(same, "Programmed")["status"] == "True"
    changed, found = change()
    after = plan(make_route(changed, generation=2), facts(found, gateways=pods), observed)
    assert files_of(after)["authentication.json"] != files_of(before)["authentication.json"]
    assert condition(after, "Programmed")["status"] == "False"


def test_a_route_that_is_not_accepted_withdraws_keys_of_the_issuer_all_the_same() -> None:
    first = plan(make_route(spec()), facts(key_set(EC, RSA)))
    refused = spec()
    refused["backends"][1]["provider"]["trusted"] = True
    made = plan(make_route(refused, generation=2), facts(key_set(RSA)), carry_out(first))
    assert condition(made, "Accepted")["status"] == "False"
    data = child(made, "Secret", "assistants-gateway-clients")["data"]["authentication.json"]
    text = base64.b64decode(data).decode()
    assert RSA["n"] in text
    assert EC["x"] not in text


def test_a_route_that_is_not_accepted_lets_in_nobody_new() -> None:
    """Another issuer beside something that is wrong: those of before go on, as the spec of before has it."""
    first = plan(make_route(spec()), facts(key_set(EC)))
    for change in ({"issuer": "https://other.example.com"}, {"audiences": ["others"]}, {"consumerClaim": "team"}):
        refused = spec()
        refused["backends"][1]["provider"]["trusted"] = True
        refused["authentication"]["jwt"] |= change
        made = plan(make_route(refused, generation=2), facts(key_set(RSA)), carry_out(first))
        assert condition(made, "Accepted")["status"] == "False"
        assert "assistants-gateway-clients" not in {one.key.name for one in made.children}


def test_pods_from_before_tokens_are_replaced() -> None:
    """They would refuse the file."""
    inputs = [
        child(made, "Deployment", "assistants-gateway")["metadata"]["annotations"]["fairlead.dev/template-input"]
        for made in (plan(), plan(make_route(spec()), facts(key_set(EC))), plan(make_route(spec()), facts(None)))
    ]
    assert inputs[0] != inputs[1] == inputs[2]


def test_nobody_has_nobodys_key() -> None:
    """Its x is a digest of words, so that it cannot have been made from a private key; and it is a point of P-256."""
    text = json.loads(files_of(plan(make_route(spec()), facts(None)))["authentication.json"])
    (provider,) = find(text, "providers").values()
    (key,) = json.loads(provider["local_jwks"]["inline_string"])["keys"]
    x, y = (int.from_bytes(base64.urlsafe_b64decode(key[name] + "=")) for name in ("x", "y"))
    assert x == int.from_bytes(hashlib.sha256(b"fairlead: a key that nobody has 0").digest())
    p = 2**256 - 2**224 + 2**192 + 2**96 - 1
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    assert (y * y - (x**3 - 3 * x + b)) % p == 0
