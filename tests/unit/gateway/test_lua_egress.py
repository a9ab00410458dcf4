"""The egress edit: the model's name and nothing else, or no request at all."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.gateway.json_texts import SPACES, TEXTS, string_texts, values
from tests.unit.gateway.scripts import Outcome, make_egress

SCRIPT = make_egress()
USAGE = b'"stream_options":{"include_usage":true},'


def host_of(model: str) -> str:
    """As `attempt_host` makes it."""
    return f"{model.encode().hex()}.00c0ffee.openai.cloud"


def edit(body: bytes | None, model: str = "up", usage: str = "false", host: str | None = None) -> Outcome:
    headers = {":authority": host_of(model) if host is None else host}
    return SCRIPT.run(body, headers=headers, metadata={"usage": usage})


EDITS = [
    (b'{"model":"chat"}', b'{"model":"up"}'),
    (b'{"model":"chat","n":9007199254740993}', b'{"model":"up","n":9007199254740993}'),
    (b' {\n "x": 1.0e0,\t"model" :\r\n"chat" }\n', b' {\n "x": 1.0e0,\t"model" :\r\n"up" }\n'),
    (b'{"x":{"model":"a"},"model":"b","y":[{"model":"c"}]}', b'{"x":{"model":"a"},"model":"up","y":[{"model":"c"}]}'),
    (b'{"x":"\\"model\\":\\"chat\\"","model":"b"}', b'{"x":"\\"model\\":\\"chat\\"","model":"up"}'),
    (b'{"x":"model","model":"b"}', b'{"x":"model","model":"up"}'),
    (b'{"x":["model","y"],"model":"b"}', b'{"x":["model","y"],"model":"up"}'),
    (b'{"x":"}{][,:\\\\","model":"b"}', b'{"x":"}{][,:\\\\","model":"up"}'),
    (b'{"mod\\u0065l":"b"}', b'{"mod\\u0065l":"up"}'),
    (b'{"model":"a\\"b\\\\"}', b'{"model":"up"}'),
    (b'{"model":"","messages":[]}', b'{"model":"up","messages":[]}'),
]
BROKEN = [
    None,
    b"",
    b"{}",
    b"[]",
    b'["model","chat"]',
    b'"model"',
    b'{"model":1}',
    b'{"model":null}',
    b'{"model":{"model":"x"}}',
    b'{"model":["chat"]}',
    b'{"x":{"model":"chat"}}',
    b'{"model":"chat"',
    b'{"model":"chat',
    b'{"model":"chat\\"}',
    b'{"model":"a","model":"b"}',
    b'{"model":"a","mod\\u0065l":"b"}',
    b'{"MODEL":"chat"}',
    b"model=chat",
]


@pytest.mark.parametrize(("body", "expected"), EDITS)
def test_only_the_top_level_model_changes(body: bytes, expected: bytes) -> None:
    outcome = edit(body)
    assert (outcome.status, outcome.body) == (0, expected)


@pytest.mark.parametrize("body", BROKEN)
def test_what_cannot_be_edited_is_not_sent(body: bytes | None) -> None:
    outcome = edit(body)
    assert (outcome.status, outcome.code, outcome.body) == (500, "egress_failed", None)
    assert len(outcome.log) == 1


@pytest.mark.parametrize(
    "host", ["", "x", "7570", "757.00c0ffee.openai.cloud", ".00c0ffee.openai.cloud", "up.openai.cloud"]
)
def test_a_host_without_an_upstream_model_sends_nothing(host: str) -> None:
    outcome = edit(b'{"model":"chat"}', host=host)
    assert (outcome.status, outcome.body) == (500, None)


USAGES = [
    (b'{"model":"m","stream":true}', True),
    (b'{"stream" : true ,"model":"m"}', True),
    (b'{"str\\u0065am":true,"model":"m"}', True),
    (b'{"model":"m","stream":false}', False),
    (b'{"model":"m"}', False),
    (b'{"model":"m","x":{"stream":true}}', False),
    (b'{"model":"m","x":[{"stream":true}],"y":"\\"stream\\":true"}', False),
    (b'{"model":"m","stream":true,"stream_options":{"include_usage":false}}', False),
    (b'{"stream_options":null,"model":"m","stream":true}', False),
    (b'{"model":"m","stream":true,"x":{"stream_options":{}}}', True),
]


@pytest.mark.parametrize(("body", "added"), USAGES)
def test_usage_is_asked_for_where_it_is_missing(body: bytes, added: bool) -> None:
    expected = body.replace(b'"m"', b'"up"')
    assert edit(body).body == expected
    assert edit(body, usage="true").body == (b"{" + USAGE + expected[1:] if added else expected)


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "a\0b", "a\x7fb", "ü/文:🔒", '","x":"', "%1%0"])
def test_the_new_name_is_escaped(name: str) -> None:
    outcome = edit(b'{"model":"chat","x":1}', name)
    assert outcome.body is not None
    assert json.loads(outcome.body) == {"model": name, "x": 1}


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """What stands before the value of the top-level model, and what behind it."""
    keys = draw(
        st.lists(TEXTS.filter(lambda key: key not in ("model", "stream", "stream_options")), unique=True, max_size=4)
    )
    decoys = st.sampled_from(["model", "stream", "stream_options", "a"])
    members = [
        draw(string_texts(key)) + draw(SPACES) + ":" + draw(SPACES) + draw(values(decoys | TEXTS)) for key in keys
    ]
    at = draw(st.integers(0, len(members)))
    before = "".join(member + draw(SPACES) + "," + draw(SPACES) for member in members[:at])
    head = draw(SPACES) + "{" + draw(SPACES) + before + draw(string_texts("model")) + draw(SPACES) + ":" + draw(SPACES)
    tail = draw(SPACES) + "".join("," + member for member in members[at:]) + draw(SPACES) + "}" + draw(SPACES)
    return head.encode(), tail.encode()


@given(bodies(), TEXTS.flatmap(string_texts), st.text(min_size=1, max_size=20).filter(lambda s: s.isprintable()))
@settings(max_examples=500, deadline=None)
def test_all_other_bytes_stay(parts: tuple[bytes, bytes], old: str, new: str) -> None:
    head, tail = parts
    outcome = edit(head + old.encode() + tail, new, usage="true")
    assert outcome.status == 0
    assert outcome.body is not None
    assert outcome.body.startswith(head)
    assert outcome.body.endswith(tail)
    assert json.loads(outcome.body[len(head) : len(outcome.body) - len(tail)]) == new


WANTED = {
    ":method": "POST",
    ":path": "/v1/chat/completions",
    ":authority": host_of("up"),
    ":scheme": "http",
    "content-type": "application/json",
}
TRACED = {"user-agent": "python", "x-request-id": "1", "traceparent": "00-1", "tracestate": "a=b"}
NEVER = {
    "authorization": "Bearer sk", "proxy-authorization": "Basic x", "x-api-key": "k", "api-key": "k", "x-goog-api-key": "k",
    "x-auth-token": "t", "cookie": "session=1", "x-fairlead-consumer": "team-a", "x-fairlead-class": "Public",
    "x-data-classification": "Public", "x-forwarded-for": "10.0.0.1", "x-forwarded-proto": "http", "x-real-ip": "10.0.0.1",
    "x-envoy-external-address": "10.0.0.1", "x-envoy-original-host": "gateway", "baggage": "user=1", "openai-organization": "org",
    "openai-project": "p", "x-session-id": "1", "accept-encoding": "gzip", "referer": "http://intranet", "forwarded": "for=10.0.0.1",
    "x-anything": "else", "helicone-auth": "k",
}  # fmt: skip


@pytest.mark.parametrize(
    ("access", "kept"), [("Cloud", WANTED), ("Local", WANTED | TRACED), ("", WANTED), ("local", WANTED)]
)
def test_only_listed_headers_go_on(access: str, kept: dict[str, str]) -> None:
    outcome = SCRIPT.run(b'{"model":"a"}', headers=WANTED | TRACED | NEVER, metadata={"access": access})
    assert outcome.status == 0
    assert outcome.headers == {name: [value] for name, value in kept.items()}


def test_the_query_stays_here() -> None:
    headers = WANTED | {":path": "/v1/chat/completions?api-version=1&key=secret"}
    outcome = SCRIPT.run(b'{"model":"a"}', headers=headers, metadata={"access": "Cloud"})
    assert outcome.headers is not None
    assert outcome.headers[":path"] == ["/v1/chat/completions"]
