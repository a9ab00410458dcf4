"""Fake providers: what official clients understand, what is kept of requests, and each way to fail."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from fairlead_cluster.hosts import HostsFile
from fairlead_cluster.operators import python_environment
from fairlead_cluster.providers import FakeProvider, FakeProviders, Fault, Kind

Json = dict[str, Any]
CHAT: Json = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeProviders]:
    with FakeProviders(tmp_path_factory.mktemp("fakes")) as running:
        running.add("openai", ["api.openai.test"])
        yield running


@pytest.fixture
def provider(fakes: FakeProviders) -> Iterator[FakeProvider]:
    """As new."""
    found = fakes.by_name["openai"]
    yield found
    found.fail()
    found.accept()
    found.clear()
    found.behave(text="", models=(), api_keys=(), gap_s=0.0, headers={})


@pytest.fixture
def client(fakes: FakeProviders, provider: FakeProvider) -> openai.OpenAI:
    """The official one, over TLS."""
    context = ssl.create_default_context(cafile=str(fakes.ca_cert))
    http_client = openai.DefaultHttpxClient(verify=context)
    return openai.OpenAI(base_url=provider.local_url, api_key="k", max_retries=0, timeout=5, http_client=http_client)


def raw(fakes: FakeProviders, provider: FakeProvider, data: bytes, server_name: str = "api.openai.test") -> bytes:
    """What comes back for some bytes until the other side ends the connection."""
    context = ssl.create_default_context(cafile=str(fakes.ca_cert))
    with (
        socket.create_connection(provider.address, timeout=5) as connection,
        context.wrap_socket(connection, server_hostname=server_name) as wrapped,
    ):
        wrapped.sendall(data)
        received = b""
        with contextlib.suppress(ssl.SSLEOFError):
            while more := wrapped.recv(65536):
                received += more
        return received


def post(body: Json, path: str = "/v1/chat/completions", *lines: str) -> bytes:
    """A request of its own connection."""
    content = json.dumps(body).encode()
    head = [f"POST {path} HTTP/1.1", "host: x", "connection: close", *lines, f"content-length: {len(content)}", "", ""]
    return "\r\n".join(head).encode() + content


def test_the_official_client_understands_all(client: openai.OpenAI) -> None:
    messages: Any = CHAT["messages"]
    unary = client.chat.completions.create(model="m", messages=messages)
    assert unary.choices[0].message.content == "openai answers as m : 1 2 3"
    assert unary.usage is not None
    assert unary.usage.completion_tokens == 8
    chunks = list(
        client.chat.completions.create(
            model="m", messages=messages, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == unary.choices[0].message.content
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8
    assert all(
        chunk.usage is None for chunk in client.chat.completions.create(model="m", messages=messages, stream=True)
    )
    assert client.completions.create(model="m", prompt="p").choices[0].text
    assert list(client.completions.create(model="m", prompt="p", stream=True))
    assert len(client.embeddings.create(model="m", input=["a", "b"], dimensions=3).data[1].embedding) == 3
    assert client.responses.create(model="m", input="hi").output_text == "openai answers as m : 1 2 3"
    events = list(client.responses.create(model="m", input="hi", stream=True))
    assert [event.type for event in events][-1] == "response.completed"
    assert [model.id for model in client.models.list()] == ["openai-model"]


def test_messages_and_rerank(fakes: FakeProviders, provider: FakeProvider) -> None:
    body = {**CHAT, "max_tokens": 5}
    unary = raw(fakes, provider, post(body, "/v1/messages")).split(b"\r\n\r\n", 1)[1]
    assert json.loads(unary)["content"][0]["text"] == "openai answers as m : 1 2 3"
    stream = raw(fakes, provider, post({**body, "stream": True}, "/v1/messages"))
    assert stream.count(b"event: content_block_delta") == 8
    assert stream.endswith(b"0\r\n\r\n")
    ranked = raw(fakes, provider, post({"model": "m", "query": "q", "documents": ["a", "b"], "top_n": 1}, "/v2/rerank"))
    assert json.loads(ranked.split(b"\r\n\r\n", 1)[1])["results"] == [{"index": 0, "relevance_score": 1.0}]


def test_everything_is_kept_as_it_came(fakes: FakeProviders, provider: FakeProvider) -> None:
    request = (
        b"POST /v1/chat/completions?api-version=1&x=%20 HTTP/1.1\r\nHost: x\r\nX-B: 1\r\nx-a:  2 \r\nX-B: 3\r\n"
        b'Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n5;e=1\r\n{"mod\r\n6\r\nel":1}\r\n0\r\nX-Trailer: t\r\n\r\n'
    )
    raw(fakes, provider, request)
    (recorded,) = provider.recorded
    assert recorded.request.method == "POST"
    assert recorded.request.target == "/v1/chat/completions?api-version=1&x=%20"
    assert recorded.request.headers == (
        ("Host", "x"),
        ("X-B", "1"),
        ("x-a", "2"),
        ("X-B", "3"),
        ("Connection", "close"),
        ("Transfer-Encoding", "chunked"),
    )
    assert recorded.request.body == b'{"model":1}'
    assert recorded.request.trailers == (("X-Trailer", "t"),)
    assert recorded.server_name == "api.openai.test"
    with urllib.request.urlopen(f"{fakes.admin_url}/__recorded?provider=openai") as response:
        (as_json,) = json.load(response)
    assert as_json["body"] == '{"model":1}'
    assert as_json["headers"][1] == ["X-B", "1"]


def test_half_a_request_is_kept_too(fakes: FakeProviders, provider: FakeProvider) -> None:
    context = ssl.create_default_context(cafile=str(fakes.ca_cert))
    connection = socket.create_connection(provider.address, timeout=5)
    wrapped = context.wrap_socket(connection, server_hostname="api.openai.test")
    wrapped.sendall(b"POST /v1/x HTTP/1.1\r\ncontent-length: 10\r\n\r\nabc")
    wrapped.shutdown(socket.SHUT_WR)
    (recorded,) = provider.wait_for(1)
    wrapped.close()
    assert (recorded.request.complete, recorded.request.body) == (False, b"abc")


def test_models_and_keys_that_it_does_not_know(client: openai.OpenAI, provider: FakeProvider) -> None:
    provider.behave(models=("m1",), api_keys=("right",))
    with pytest.raises(openai.AuthenticationError):
        client.models.list()
    known = client.with_options(api_key="right")
    assert [model.id for model in known.models.list()] == ["m1"]
    with pytest.raises(openai.NotFoundError, match="m2"):
        known.embeddings.create(model="m2", input="x")


def test_statuses_come_as_often_as_wanted(client: openai.OpenAI, provider: FakeProvider) -> None:
    provider.fail(
        Fault(Kind.STATUS, code=429, headers={"retry-after": "7"}, times=1, model="m"), Fault(Kind.STATUS, code=529)
    )
    messages: Any = CHAT["messages"]
    with pytest.raises(openai.RateLimitError) as limited:
        client.chat.completions.create(model="m", messages=messages)
    assert limited.value.response.headers["retry-after"] == "7"
    with pytest.raises(openai.APIStatusError) as overloaded:
        client.chat.completions.create(model="m", messages=messages)
    assert overloaded.value.status_code == 529
    assert [one.fault for one in provider.recorded] == ["status", "status"]
    provider.fail()
    assert client.chat.completions.create(model="m", messages=messages)


def test_resets_and_garbage_and_nobody_listening(client: openai.OpenAI, provider: FakeProvider) -> None:
    for kind in (Kind.RESET, Kind.GARBAGE):
        provider.fail(Fault(kind))
        with pytest.raises(openai.APIConnectionError):
            client.models.list()
    provider.fail()
    assert client.models.list()
    provider.refuse()
    with pytest.raises(openai.APIConnectionError):
        client.models.list()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(provider.address, timeout=5)
    provider.accept()
    assert client.models.list()


def test_a_reset_is_a_reset(fakes: FakeProviders) -> None:
    plain = fakes.add("plain", ["api.plain.test"], tls=False)  # Python's TLS hides how a connection ends
    plain.fail(Fault(Kind.RESET))
    with socket.create_connection(plain.address, timeout=5) as connection:
        connection.sendall(post(CHAT))
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert plain.recorded[0].fault == "reset"


def test_streams_that_are_cut_or_stall(fakes: FakeProviders, provider: FakeProvider) -> None:
    provider.fail(Fault(Kind.CUT, after_chunks=3, contains="cut me"))
    body = {**CHAT, "stream": True}
    assert raw(fakes, provider, post(body)).endswith(b"0\r\n\r\n")
    cut = raw(fakes, provider, post({**body, "user": "cut me"}))
    assert cut.count(b"data: ") == 3
    assert b"0\r\n\r\n" not in cut[-10:]
    half = raw(fakes, provider, post({**CHAT, "user": "cut me"}))
    head, content = half.split(b"\r\n\r\n", 1)
    assert f"content-length: {len(content) * 2}".encode()[:-1] in head
    provider.fail(Fault(Kind.STALL, after_chunks=2))
    context = ssl.create_default_context(cafile=str(fakes.ca_cert))
    connection = http.client.HTTPSConnection(*provider.address, timeout=1, context=context)
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    response = connection.getresponse()
    assert response.status == 200
    with pytest.raises(TimeoutError):
        response.read()
    connection.close()


def test_headers_that_take_their_time(client: openai.OpenAI, provider: FakeProvider) -> None:
    provider.fail(Fault(Kind.SLOW, delay_s=0.5, path="/models"))
    started_s = time.monotonic()
    assert client.models.list()
    assert time.monotonic() - started_s >= 0.5
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.2).models.list()


def test_a_certificate_for_other_names_is_refused(fakes: FakeProviders) -> None:
    wrong = fakes.add("wrong", ["api.right.test"], certified=["api.other.test"])
    with pytest.raises(ssl.SSLCertVerificationError):
        raw(fakes, wrong, b"", server_name="api.right.test")


def test_the_admin_port_switches_faults(fakes: FakeProviders, provider: FakeProvider) -> None:
    def put(path: str, value: Any) -> int:
        request = urllib.request.Request(f"{fakes.admin_url}{path}", json.dumps(value).encode(), method="PUT")
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert put("/__providers/openai/faults", [{"kind": "status", "code": 500, "times": 1}]) == 204
    assert provider.faults == [Fault(Kind.STATUS, code=500, times=1)]
    assert put("/__providers/openai/faults", [{"kind": "nonsense"}]) == 400
    assert put("/__providers/openai/faults", [{"kind": "reset", "what": 1}]) == 400
    assert put("/__providers/nobody/faults", []) == 404
    assert put("/__providers/openai/faults", []) == 204
    assert provider.faults == []
    assert put("/__providers/openai/listening", False) == 204
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(provider.address, timeout=5)
    assert put("/__providers/openai/listening", True) == 204
    socket.create_connection(provider.address, timeout=5).close()


def test_as_a_process_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fairlead_cluster.providers", "one=api.one.test", f"--cluster={tmp_path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=python_environment()) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        (address,) = HostsFile(tmp_path / "dns-hosts").find("api.one.test")
        assert address in said["providers"]["one"]["local"]
        context = ssl.create_default_context(cafile=said["caCert"])
        with urllib.request.urlopen(f"{said['providers']['one']['local']}/models", context=context) as response:
            assert json.load(response)["data"][0]["id"] == "one-model"
        process.terminate()
        assert process.wait(10) == 0
    assert HostsFile(tmp_path / "dns-hosts").find("api.one.test") == ()
