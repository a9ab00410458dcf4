"""Callers with signed tokens in the real Envoy: who is let in as whom, who is not, and that no token goes any further."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from tests.gateway.asking import ask, make_body
from tests.gateway.tokens import AUDIENCE, ISSUER, SigningKey, make_jwks, make_token
from tests.gateway.world import World, backend_entries, make_world

from fairlead.gateway.envoy.clients import TokenIssuer

Json = dict[str, Any]
KEY_OF_C = "sk-of-team-c-0001"
SIGNER, OTHER = SigningKey("one"), SigningKey("one")  # another key by the same name
RSA, ED25519 = SigningKey("rsa", "RS256"), SigningKey("ed", "EdDSA")
JWKS = make_jwks(SIGNER, RSA, ED25519)
SPEC: Json = {
    "backends": backend_entries("alpha", "openai"),
    "models": [
        {"name": "chat", "targets": [{"backend": "alpha"}]},
        {"name": "cloud", "targets": [{"backend": "openai", "model": "gpt"}]},
    ],
    "authentication": {
        "apiKeys": {"secretRef": {"name": "clients"}},
        "jwt": {"issuer": ISSUER, "audiences": [AUDIENCE], "jwks": {"configMapRef": {"name": "issuer", "key": "jwks"}}},
        "anonymous": {"role": "guest"},
    },
    "roles": [
        {"name": "developer", "consumers": ["team-a", "team-c"], "llmAccess": ["Local", "Cloud"],
         "dataAccess": ["Public", "Internal"], "mayDeclare": ["Public"]},
        {"name": "guest", "consumers": ["team-b"], "llmAccess": ["Cloud"], "dataAccess": ["Public"], "mayDeclare": ["Public"]},
    ],
    "dataPolicy": {"denyClasses": ["Public", "Internal"]},
}  # fmt: skip
REFUSED = {
    "expired": {"exp": int(time.time()) - 3600},
    "without an end": {"exp": None},
    "not yet": {"nbf": int(time.time()) + 3600},
    "another issuer": {"iss": "https://id.example.org"},
    "no issuer": {"iss": None},
    "another audience": {"aud": "somebody-else"},
    "no audience": {"aud": None},
    "no name": {"consumer": None},
    "an empty name": {"consumer": ""},
    "a name with a space": {"consumer": "team-a x"},
    "a list for a name": {"consumer": ["team-a"]},
    "no signature": {"alg": "none"},
    "signed with what is public": {"alg": "HS256", "secret": json.dumps(SIGNER.public).encode()},
}


def issuer(keys: str = JWKS, claim: str = "sub") -> TokenIssuer:
    return TokenIssuer(ISSUER, (AUDIENCE,), claim, tuple(json.loads(keys)["keys"]))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(SPEC, tmp_path_factory.mktemp("tokens"), {"team-c": (KEY_OF_C,)}) as world:
        yield world


@pytest.fixture(params=[True, False], ids=["anonymous too", "nobody else"])
def anonymous(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def world(shared: World, anonymous: bool) -> Iterator[World]:
    """Keys and tokens; with the first parameter anonymous callers, too."""
    shared.reset()
    let_in(shared, anonymous=anonymous)
    yield shared
    shared["alpha"].behave(text="", gap_s=0.0)
    shared.reset()


def let_in(world: World, tokens: TokenIssuer | None = None, *, anonymous: bool = False, keys: bool = True) -> None:
    """Publish it as a version of its own, and wait until it is loaded."""
    version = f"v{time.monotonic_ns()}"
    known = {"team-c": (KEY_OF_C,)} if keys else None
    world.gateway.let_in(known, version, anonymous=anonymous, tokens=tokens or issuer())


def post(world: World, token: str = "", model: str = "chat", **headers: str) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    sent = {**({"authorization": f"Bearer {token}"} if token else {}), **headers}
    return httpx.post(f"{world.gateway.url}/v1/chat/completions", json=body, headers=sent, timeout=20)


def error_of(response: httpx.Response) -> tuple[int, str]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return response.status_code, str(error["code"])


@pytest.mark.parametrize("key", [SIGNER, RSA, ED25519], ids=lambda key: key.alg)
def test_a_good_token_is_let_in_as_its_consumer(world: World, key: SigningKey) -> None:
    assert post(world, make_token(key)).status_code == 200
    assert post(world, make_token(key, aud=["other", AUDIENCE])).status_code == 200
    # Another one has no role that may send this, and one that no role names may send nothing.
    assert error_of(post(world, make_token(key, "team-b")))[0] == 403
    assert error_of(post(world, make_token(key, "system:serviceaccount:ml:app")))[0] == 403


@pytest.mark.parametrize("what", REFUSED)
def test_any_other_is_401_and_nobody_is_asked(world: World, what: str) -> None:
    """Nor is its caller an anonymous one."""
    claims = dict(REFUSED[what])
    token = make_token(SIGNER, claims.pop("consumer", "team-a"), **claims)
    for model in ("chat", "cloud"):
        response = post(world, token, model, **{"x-data-classification": "Public"})
        assert error_of(response) == (401, "invalid_api_key")
        assert token not in response.text
    assert world.seen() == {}


def test_a_signature_of_somebody_else(world: World) -> None:
    head, body, _ = make_token(SIGNER).split(".")
    for token in (
        make_token(OTHER),
        make_token(SigningKey("two")),
        f"{head}.{body}.{make_token(SIGNER, 'team-b').split('.')[2]}",
        f"{head}.{body}.",
        f"{head}.{body[:-4]}AAAA.{make_token(SIGNER).split('.')[2]}",
    ):
        assert error_of(post(world, token)) == (401, "invalid_api_key")
    assert world.seen() == {}


def test_a_forged_header_makes_nobody_of_anybody(world: World, anonymous: bool) -> None:
    forged = {"x-fairlead-consumer": "team-a"}
    assert error_of(post(world, make_token(SIGNER, "team-b"), **forged))[0] == 403
    assert error_of(post(world, make_token(SIGNER, None), **forged))[0] == 401
    assert error_of(post(world, make_token(OTHER), **forged))[0] == 401
    assert error_of(post(world, **forged))[0] == (403 if anonymous else 401)
    assert world.seen() == {}


def test_keys_are_let_in_beside_tokens(world: World, anonymous: bool) -> None:
    assert post(world, KEY_OF_C).status_code == 200
    assert post(world, **{"x-api-key": KEY_OF_C}).status_code == 200
    assert error_of(post(world, "sk-of-somebody"))[0] == 401
    assert error_of(post(world, **{"x-api-key": "sk-of-somebody"}))[0] == 401
    assert error_of(post(world, **{"x-api-key": make_token(SIGNER)}))[0] == 401, "tokens are Bearer tokens"
    assert error_of(post(world))[0] == (403 if anonymous else 401)
    # A token that is shown decides, whatever else is.
    assert error_of(post(world, make_token(OTHER), **{"x-api-key": KEY_OF_C}))[0] == 401
    assert error_of(post(world, make_token(SIGNER, "team-b"), **{"x-api-key": KEY_OF_C}))[0] == 403


def test_two_authorizations_are_none(world: World) -> None:
    good, other = make_token(SIGNER), make_token(OTHER)
    for pair in ((good, other), (other, good), (good, KEY_OF_C), (good, good)):
        headers = [("authorization", f"Bearer {one}") for one in pair]
        body = {"model": "chat", "messages": []}
        response = httpx.post(f"{world.gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=20)
        assert error_of(response) == (401, "invalid_api_key")
    assert world.seen() == {}


def test_no_token_goes_any_further(world: World) -> None:
    """Neither to an engine nor to a provider, nor into a log."""
    token = make_token(SIGNER)
    assert post(world, token).status_code == 200
    public = {"x-data-classification": "Public", "x-api-key": "sk-shown-beside-it"}
    assert post(world, token, "cloud", **public).status_code == 200
    for name in ("alpha", "openai"):
        (recorded,) = world[name].recorded
        seen = repr(recorded.request)
        for part in (*token.split("."), "team-a", "sk-shown-beside-it", ISSUER):
            assert part not in seen, name
    assert world["openai"].recorded[0].request.header("authorization") == "Bearer key-of-openai"
    world.gateway.until(lambda: '"consumer":"team-a"' in access_log(world), "the log")
    for part in token.split(".")[1:]:
        assert part not in access_log(world) + world.gateway.log


def access_log(world: World) -> str:
    return (world.gateway.directory / "access.log").read_text()


def test_an_openai_client_shows_its_token_as_its_key(world: World) -> None:
    messages: Any = [{"role": "user", "content": "hello"}]
    with openai.OpenAI(base_url=f"{world.gateway.url}/v1", api_key=make_token(SIGNER), max_retries=0) as client:
        assert client.chat.completions.create(model="chat", messages=messages).choices
        assert [model.id for model in client.models.list()] == ["chat", "cloud"]
    expired = make_token(SIGNER, exp=1)
    with (
        openai.OpenAI(base_url=f"{world.gateway.url}/v1", api_key=expired, max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="token is not let in"),
    ):
        client.chat.completions.create(model="chat", messages=messages)


def test_tokens_alone(world: World, anonymous: bool) -> None:
    let_in(world, anonymous=anonymous, keys=False)
    assert post(world, make_token(SIGNER)).status_code == 200
    assert error_of(post(world, KEY_OF_C))[0] == 401
    assert error_of(post(world))[0] == (403 if anonymous else 401)


def test_without_usable_keys_nobody_is_let_in_by_a_token(world: World, anonymous: bool) -> None:
    """Envoy would refuse a file whose set has no key that it can use, and those that were withdrawn would go on opening."""
    assert post(world, make_token(SIGNER)).status_code == 200
    for keys in (
        [],
        [{**SIGNER.public, "y": SIGNER.public["x"]}],
        [{**RSA.public, "e": "AQ"}],
        [{"kty": "oct", "k": "AAAA"}],
    ):
        let_in(world, issuer(json.dumps({"keys": keys})), anonymous=anonymous)
        assert error_of(post(world, make_token(SIGNER))) == (401, "invalid_api_key")
        assert error_of(post(world, make_token(SigningKey("nobody")))) == (401, "invalid_api_key")
        assert post(world, KEY_OF_C).status_code == 200
    assert world.gateway.rejected() == ()


def test_another_claim_and_a_nested_one(world: World, anonymous: bool) -> None:
    let_in(world, issuer(claim="team"), anonymous=anonymous)
    assert post(world, make_token(SIGNER, "me", team="team-a")).status_code == 200
    assert error_of(post(world, make_token(SIGNER, "team-a")))[0] == 401
    let_in(world, issuer(claim="realm.team"), anonymous=anonymous)
    assert post(world, make_token(SIGNER, "me", realm={"team": "team-a"})).status_code == 200
    assert error_of(post(world, make_token(SIGNER, "me", realm={"team": ["team-a"]})))[0] == 403, "a list is no name"


async def test_keys_of_the_issuer_are_exchanged_under_streams(
    world: World, client: httpx.AsyncClient, anonymous: bool
) -> None:
    world["alpha"].behave(text=" ".join(["word"] * 40), gap_s=0.05)
    token, fresh = make_token(SIGNER), SigningKey("fresh")
    stream = asyncio.create_task(ask(client, world.gateway.url, make_body("chat", stream=True), key=token))
    await asyncio.to_thread(world["alpha"].wait_for, 1)
    await asyncio.to_thread(let_in, world, issuer(make_jwks(fresh)), anonymous=anonymous)
    assert (await asyncio.to_thread(post, world, token)).status_code == 401
    assert not stream.done()
    world["alpha"].behave(text="", gap_s=0.0)
    assert (await asyncio.to_thread(post, world, make_token(fresh))).status_code == 200
    assert (await stream).is_success
    assert world.gateway.rejected() == ()
