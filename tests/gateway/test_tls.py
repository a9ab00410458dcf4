"""TLS of the public listener in the real Envoy: who is served, who is not, and certificates that are exchanged under it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tests.gateway import gateway
from tests.gateway.asking import ask, make_body
from tests.gateway.chaos import SPEC
from tests.gateway.world import World, backend_entries, make_world

from fairlead_cluster.certificates import Authority, Issued

HOST = "assistants-gateway.ml.svc"
ROUTE = {
    **SPEC,
    "backends": backend_entries("alpha"),
    "models": [{"name": "chat", "targets": [{"backend": "alpha"}]}],
}
AUTHORITY = Authority("clients-ca")


def issue(name: str) -> Issued:
    return AUTHORITY.issue(name, [HOST, "localhost"], ["127.0.0.1"])


def mount(world_certificate: Issued) -> dict[str, str]:
    """As the kubelet projects the Secret."""
    return {"tls.crt": world_certificate.cert.decode(), "tls.key": world_certificate.key.decode()}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(ROUTE, tmp_path_factory.mktemp("tls"), certificate=mount(issue("first"))) as world:
        yield world


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    shared.reset()
    yield shared
    shared.reset()
    shared["alpha"].behave(text="", gap_s=0.0)
    use(shared, issue("first"))


@pytest.fixture
def trusting(tmp_path: Path) -> ssl.SSLContext:
    """Trusts the authority that signed the gateway's certificate, and no other."""
    file = tmp_path / "ca.crt"
    file.write_bytes(AUTHORITY.cert)
    return ssl.create_default_context(cafile=str(file))


@pytest.fixture
async def client(trusting: ssl.SSLContext) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(verify=trusting) as client:
        yield client


def use(world: World, certificate: Issued) -> None:
    """Exchange the Secret's content and wait until new connections see it."""
    world.gateway.mount(world.gateway.settings.certificate_directory).write(mount(certificate))
    world.gateway.until(lambda: served(world) == ssl.PEM_cert_to_DER_cert(certificate.cert.decode()), "the certificate")


def served(world: World, *, version: ssl.TLSVersion | None = None, alpn: list[str] | None = None) -> bytes:
    """What a new connection is shown."""
    with handshake(world, version=version, alpn=alpn) as secured:
        found = secured.getpeercert(binary_form=True)
        assert found is not None
        return found


def handshake(world: World, *, version: ssl.TLSVersion | None = None, alpn: list[str] | None = None) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version is not None:
        context.minimum_version = context.maximum_version = version
        context.set_ciphers("ALL:@SECLEVEL=0")
    if alpn:
        context.set_alpn_protocols(alpn)
    plain = socket.create_connection(("127.0.0.1", world.gateway.settings.port), timeout=5)
    return context.wrap_socket(plain, server_hostname=HOST)


async def test_https_answers(world: World, client: httpx.AsyncClient) -> None:
    assert world.gateway.url.startswith("https://")
    answer = await ask(client, world.gateway.url, make_body("chat"))
    assert answer.is_success, answer
    assert answer.backend == "alpha"


def test_an_openai_client_that_trusts_the_authority_works(world: World, trusting: ssl.SSLContext) -> None:
    with (
        openai.DefaultHttpxClient(verify=trusting) as transport,
        openai.OpenAI(
            base_url=f"{world.gateway.url}/v1", api_key="unused", http_client=transport, max_retries=0
        ) as client,
    ):
        messages: Any = [{"role": "user", "content": "hello"}]
        chunks = list(client.chat.completions.create(model="chat", messages=messages, stream=True))
        assert "stop" in [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    with (
        openai.OpenAI(base_url=f"{world.gateway.url}/v1", api_key="unused", max_retries=0) as stranger,
        pytest.raises(openai.APIConnectionError),
    ):
        stranger.models.list()


def test_plain_http_is_refused(world: World) -> None:
    port = world.gateway.settings.port
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5)
    for sent in (b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            plain.sendall(sent)
            assert b"HTTP" not in plain.recv(4096)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_are_refused_and_both_protocols_offered(world: World) -> None:
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
            handshake(world, version=version)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with handshake(world, version=version, alpn=["h2", "http/1.1"]) as secured:
            assert (secured.version(), secured.selected_alpn_protocol()) == (version.name.replace("_", "."), "h2")
    with handshake(world, alpn=["http/1.1"]) as secured:
        assert secured.selected_alpn_protocol() == "http/1.1"


def test_the_status_port_stays_as_it_is(world: World) -> None:
    assert httpx.get(f"http://127.0.0.1:{world.gateway.settings.status_port}/generation", timeout=5).status_code == 200
    assert world.gateway.rejected() == ()


async def test_a_renewed_certificate_cuts_no_stream(world: World, client: httpx.AsyncClient) -> None:
    """New connections see it, without a restart; the stream that is open, on its connection with the old one, goes on."""
    world["alpha"].behave(text=" ".join(["word"] * 60), gap_s=0.05)
    second = issue("second")
    texts: list[str] = []
    body = make_body("chat", stream=True)
    async with client.stream("POST", f"{world.gateway.url}/v1/chat/completions", json=body, timeout=30) as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            texts.append(line)
            if len(texts) == 1:
                await asyncio.to_thread(use, world, second)
                before = len(texts)
    assert "data: [DONE]" in texts
    assert len(texts) > before + 10, "most of it came after the exchange"
    assert world.gateway.process.poll() is None


@pytest.mark.parametrize(
    "broken",
    [
        {"tls.crt": "no certificate", "tls.key": "no key"},
        {"tls.crt": "", "tls.key": ""},
        {"tls.crt": issue("one").cert.decode(), "tls.key": issue("another").key.decode()},
    ],
    ids=["garbage", "empty", "the key of another"],
)
async def test_a_broken_certificate_replaces_no_good_one(
    world: World, client: httpx.AsyncClient, broken: dict[str, str]
) -> None:
    good = issue("good")
    use(world, good)
    world.gateway.mount(world.gateway.settings.certificate_directory).write(broken)
    for _ in range(10):
        await asyncio.sleep(0.1)
        assert (await ask(client, world.gateway.url, make_body("chat"))).is_success
        assert served(world) == ssl.PEM_cert_to_DER_cert(good.cert.decode())


def test_a_gateway_without_certificate_serves_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`/healthz` never answers, so that the pod is never ready; not after 15 s either, when Envoy waits no longer."""
    monkeypatch.setattr(gateway, "PATIENCE_S", 18.0)
    with (
        pytest.raises(AssertionError, match="serving did not happen"),
        make_world(ROUTE, tmp_path, certificate={}),
    ):
        raise RuntimeError("it serves")
