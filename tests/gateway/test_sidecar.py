"""A sidecar in front of a real gateway: 503 without its route, the deployments directly, all else passed on as it came."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.gateway.asking import Answer, ask, make_body
from tests.gateway.sidecar import Sidecar, running_sidecar
from tests.gateway.tokens import AUDIENCE, ISSUER, SigningKey, make_token
from tests.gateway.world import SECRETS, World, backend_entries, make_world

from fairlead.gateway.envoy.clients import AUTHENTICATION_FILE, TokenIssuer, render_authentication
from fairlead.gateway.envoy.sidecar import render_sidecar_files
from fairlead.gateway.sidecar import make_gateway_upstream, make_sidecar_table
from fairlead_cluster.certificates import Authority

HOST = "assistants-gateway.ml.svc"
KEY = "sk-of-team-a-0001"
KEYS = {"team-a": (KEY,)}
SPEC: dict[str, Any] = {
    "backends": backend_entries("alpha", "beta", "openai", "groq"),
    "models": [
        {"name": "chat", "targets": [{"backend": "alpha"}, {"backend": "openai", "model": "gpt", "priority": 1}],
         "timeouts": {"responseHeaders": "1s", "idle": "5s", "request": "10s"}},
        {"name": "mixed", "targets": [{"backend": "beta", "weight": 1}, {"backend": "groq", "model": "llama", "weight": 1}]},
        {"name": "cloud", "targets": [{"backend": "openai", "model": "gpt"}]},
    ],
    "authentication": {"apiKeys": {"secretRef": {"name": "clients"}}},
    "roles": [
        {"name": "developer", "consumers": ["team-a"], "llmAccess": ["Local", "Cloud"],
         "dataAccess": ["Public", "Internal", "Confidential"], "mayDeclare": ["Public"]},
    ],
    "dataPolicy": {
        "denyClasses": ["Internal", "Confidential"],
        "detectors": [{"name": "cards", "class": "Confidential", "builtin": "PaymentCard"}],
    },
}  # fmt: skip
CARD = "4111 1111 1111 1111"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(SPEC, tmp_path_factory.mktemp("sidecar"), KEYS) as world:
        yield world


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    shared.reset()
    yield shared
    shared.reset()


@pytest.fixture
def sidecar(world: World) -> Iterator[Sidecar]:
    with running_sidecar(world.providers.ca_cert) as running:
        running.until(lambda: status(running) == 503, "answering without its route")
        yield running


def status(sidecar: Sidecar) -> int:
    try:
        return httpx.get(f"{sidecar.url}/v1/models", headers={"authorization": f"Bearer {KEY}"}, timeout=5).status_code
    except httpx.TransportError:
        return 0


def files_of(
    world: World, sidecar: Sidecar, spec: dict[str, Any] | None = None, *, is_tls: bool = False
) -> dict[str, str]:
    gateway = make_gateway_upstream("127.0.0.1", world.gateway.settings.port, HOST, is_tls=is_tls)
    return render_sidecar_files(make_sidecar_table(world.table(spec or SPEC), gateway), sidecar.settings)


CLIENTS = {AUTHENTICATION_FILE: render_authentication(KEYS, "1", anonymous=False)}


def give_route(world: World, sidecar: Sidecar, *, is_tls: bool = False) -> dict[str, str]:
    files = files_of(world, sidecar, is_tls=is_tls)
    sidecar.project(files, CLIENTS)
    sidecar.until(lambda: status(sidecar) == 200, "serving the route")
    # Clusters may come some milliseconds after the routes that lead to them.
    sidecar.live = files
    sidecar.confirm()
    sidecar.until(lambda: all(sidecar.healthy().values()), "finding its deployments")
    return files


async def send(client: httpx.AsyncClient, sidecar: Sidecar, model: str, text: str = "hello", **more: Any) -> Answer:
    return await ask(client, sidecar.url, make_body(model, text=text), key=KEY, **more)


async def test_without_its_route_it_says_so_and_with_it_serves(
    world: World, sidecar: Sidecar, client: httpx.AsyncClient
) -> None:
    answer = await send(client, sidecar, "chat")
    assert answer.status == 503
    assert json.loads(answer.text)["error"]["code"] == "no_route"
    assert httpx.get(f"{sidecar.url}/healthz", timeout=5).status_code == 503
    assert "assistants" in json.loads(answer.text)["error"]["message"]
    assert httpx.get(f"http://127.0.0.1:{sidecar.settings.status_port}/metrics", timeout=5).status_code == 200
    give_route(world, sidecar)
    assert httpx.get(f"{sidecar.url}/healthz", timeout=5).status_code == 200
    answer = await send(client, sidecar, "chat")
    assert (answer.status, answer.backend) == (200, "alpha"), answer
    assert world.seen() == {"alpha": [answer.id]}
    # The route is deleted: its ConfigMaps and the Secret go, what the pod has of its own stays.
    sidecar.project()
    sidecar.until(lambda: status(sidecar) == 503, "saying that the route is gone")
    # A connection from before is answered once more, by listeners that know nobody any longer, and closed.
    assert [(await send(client, sidecar, "chat")).status for _ in range(2)] == [401, 503]
    give_route(world, sidecar)


async def test_a_route_of_which_some_objects_are_missing_serves_once_they_come(world: World, sidecar: Sidecar) -> None:
    files = files_of(world, sidecar)
    late = {name: text for name, text in files.items() if name == "lds.json"}
    sidecar.project(late)
    sidecar.until(lambda: bool(sidecar.rejected()) or "lds" in sidecar.log, "reading listeners without routes")
    assert status(sidecar) == 503
    sidecar.project(files)
    sidecar.until(lambda: status(sidecar) == 401, "letting nobody in without the clients")
    sidecar.project(files, CLIENTS)
    sidecar.until(lambda: status(sidecar) == 200, "serving")


async def test_deployments_are_asked_directly_and_all_else_is_the_gateways(
    world: World, sidecar: Sidecar, client: httpx.AsyncClient
) -> None:
    give_route(world, sidecar)
    before = requests_of(world)
    # What is Confidential never takes the way to the gateway.
    answer = await send(client, sidecar, "chat", CARD)
    assert (answer.status, answer.backend, answer.data_class) == (200, "alpha", "Confidential")
    assert (await send(client, sidecar, "chat")).backend == "alpha"
    assert requests_of(world) == before
    # A choice by weight is the gateway's, and so is what needs a key.
    answers = [await send(client, sidecar, "mixed", data_class="Public") for _ in range(20)]
    assert {answer.status for answer in answers} == {200}
    assert {answer.backend for answer in answers} == {"beta", "groq"}
    cloud = await send(client, sidecar, "cloud", data_class="Public")
    assert (cloud.status, cloud.backend, cloud.data_class) == (200, "openai", "Public"), cloud
    assert requests_of(world) == before + 21
    recorded = world["openai"].recorded[-1].request
    assert recorded.header("authorization") == "Bearer key-of-openai"
    assert (recorded.json or {})["model"] == "gpt"
    assert KEY not in repr(recorded)
    # Denied at once, without anybody else hearing of it.
    assert (await send(client, sidecar, "cloud")).status == 403
    assert (await ask(client, sidecar.url, make_body("chat"), key="sk-of-nobody")).status == 401
    assert requests_of(world) == before + 21


async def test_no_engine_is_shown_credentials(world: World, sidecar: Sidecar, client: httpx.AsyncClient) -> None:
    give_route(world, sidecar)
    forged = {"x-fairlead-authorization": "Bearer sk-of-somebody", "x-fairlead-api-key": "sk-of-somebody"}
    assert (await send(client, sidecar, "chat", headers=forged)).backend == "alpha"
    (recorded,) = world["alpha"].recorded
    assert "sk-of" not in repr(recorded)
    assert "x-fairlead" not in repr(recorded)
    answer = await ask(
        client, sidecar.url, make_body("cloud"), data_class="Public", headers={**forged, "x-api-key": KEY}
    )
    assert (answer.status, answer.backend) == (200, "openai"), answer


async def test_a_token_is_shown_to_the_gateway_and_to_nobody_else(
    world: World, sidecar: Sidecar, client: httpx.AsyncClient
) -> None:
    signer = SigningKey("first")
    issuer = TokenIssuer(ISSUER, (AUDIENCE,), "sub", (signer.public,))
    give_route(world, sidecar)
    world.gateway.let_in(KEYS, "tokens", anonymous=False, tokens=issuer)
    clients = {AUTHENTICATION_FILE: render_authentication(KEYS, "tokens", anonymous=False, tokens=issuer)}
    sidecar.project(files_of(world, sidecar), clients)
    sidecar.until(lambda: sidecar.loaded().get(AUTHENTICATION_FILE) == "tokens", "knowing the issuer")
    token = make_token(signer)
    try:
        assert (await ask(client, sidecar.url, make_body("chat"), key=token)).backend == "alpha"
        cloud = await ask(client, sidecar.url, make_body("cloud"), key=token, data_class="Public")
        assert (cloud.status, cloud.backend) == (200, "openai"), cloud
        other = make_token(SigningKey("first"))
        assert (await ask(client, sidecar.url, make_body("chat"), key=other)).status == 401
        for name in ("alpha", "openai"):
            (recorded,) = world[name].recorded
            assert token not in repr(recorded.request)
    finally:
        world.gateway.let_in(KEYS, "keys", anonymous=False)


async def test_what_the_gateway_answers_about_one_model_leaves_the_others_alone(
    world: World, sidecar: Sidecar, client: httpx.AsyncClient
) -> None:
    give_route(world, sidecar)
    world["openai"].refuse()
    answers = [await send(client, sidecar, "cloud", data_class="Public") for _ in range(12)]
    assert {answer.status for answer in answers} == {503}
    assert (await send(client, sidecar, "mixed", data_class="Public")).status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_when_the_deployment_fails_the_gateway_takes_over(
    world: World, sidecar: Sidecar, client: httpx.AsyncClient, stream: bool
) -> None:
    give_route(world, sidecar)
    world["alpha"].refuse()
    answer = await ask(client, sidecar.url, make_body("chat", stream=stream), key=KEY, data_class="Public")
    assert answer.is_success, answer
    assert answer.backend == "openai"
    # What may not leave the cluster has nobody behind it, here as there.
    world["openai"].clear()
    internal = await ask(client, sidecar.url, make_body("chat", stream=stream), key=KEY)
    assert internal.status == 503
    assert world["openai"].recorded == []


async def test_changes_under_load_cut_nobody_off(world: World, sidecar: Sidecar, client: httpx.AsyncClient) -> None:
    """In one step and confirmed by nobody: for a moment a request may find nobody (503), and that is all that may happen."""
    give_route(world, sidecar)
    answers: list[Answer] = []
    is_over = asyncio.Event()

    async def ask_on() -> None:
        while not is_over.is_set():
            answers.append(await send(client, sidecar, "chat"))

    asking = [asyncio.create_task(ask_on()) for _ in range(4)]
    for number in range(20):
        spec = copy.deepcopy(SPEC)
        if number % 2:
            spec["models"][0]["targets"].insert(1, {"backend": "beta"})
            spec["models"].append({"name": f"more-{number}", "targets": [{"backend": "beta"}]})
        sidecar.project(files_of(world, sidecar, spec), CLIENTS)
        await asyncio.sleep(0.1)
    is_over.set()
    await asyncio.gather(*asking)
    failed = [answer for answer in answers if not answer.is_success]
    print(f"\n{len(answers)} answers over 20 changes, {len(failed)} failed")
    assert {answer.status for answer in failed} <= {503}
    assert len(failed) * 50 < len(answers)


def test_nothing_of_a_provider_is_in_its_files(world: World, sidecar: Sidecar) -> None:
    files = files_of(world, sidecar)
    gateway = json.dumps(dict(world.gateway.live or {}))
    text = json.dumps(files)
    for word in ("api.openai.com", "api.groq.com", "injected_credentials", *SECRETS["openai"], "key-openai"):
        assert word in gateway
        assert word not in text
    assert sorted(files) == ["cds.json", "lds.json", "rds-egress.json", "rds-public.json"]


async def test_over_tls_the_gateway_must_be_who_it_says(
    tmp_path: Path, client: httpx.AsyncClient, world: World
) -> None:
    authority = Authority("clients-ca")
    issued = authority.issue("gateway", [HOST], [])
    shown = {"tls.crt": issued.cert.decode(), "tls.key": issued.key.decode()}
    with (
        make_world(SPEC, tmp_path, KEYS, certificate=shown) as encrypted,
        running_sidecar(encrypted.providers.ca_cert, has_authorities=True) as sidecar,
    ):
        files = files_of(encrypted, sidecar, is_tls=True)
        sidecar.project(files, CLIENTS)
        sidecar.until(lambda: status(sidecar) == 200, "serving the route")
        # Without authorities nobody is trusted, and deployments are served all the same.
        assert (await send(client, sidecar, "cloud", data_class="Public")).status == 503
        assert (await send(client, sidecar, "chat")).backend == "alpha"
        for name, status_wanted in (("stranger", 503), ("clients-ca", 200)):
            trusted = authority if name == "clients-ca" else Authority(name)
            sidecar.project(files, CLIENTS, {"ca.crt": trusted.cert.decode()})
            found = [0]
            for _ in range(100):
                found.append((await send(client, sidecar, "cloud", data_class="Public")).status)
                if found[-1] == status_wanted:
                    break
            assert found[-1] == status_wanted, (name, found, sidecar.log)
        assert encrypted["openai"].recorded


def requests_of(world: World) -> int:
    """How many requests the gateway was sent since it started."""
    text = httpx.get(f"http://127.0.0.1:{world.gateway.settings.status_port}/metrics", timeout=5).text
    lines = [
        line for line in text.splitlines() if line.startswith("envoy_fairlead_requests{") and 'model=""' not in line
    ]
    return sum(int(line.rpartition(" ")[2]) for line in lines)
