"""What a request may make a provider keep, or do by itself: nothing, unless the route lists it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.gateway.scripts import Classifier, Outcome, make_egress, make_lookup
from tests.unit.gateway.test_lua_egress import host_of

CLOSED = Classifier(make_lookup())
STORING = Classifier(make_lookup(store="true"))
SEARCHING = Classifier(make_lookup(hosted=["web_search", "mcp"]))
MESSAGES = [{"role": "user", "content": "hello"}]

REFERENCES: list[tuple[dict[str, Any], str]] = [
    ({"input": "go on", "previous_response_id": "resp_1"}, "previous_response_id"),
    ({"input": "go on", "conversation": "conv_1"}, "conversation"),
    ({"input": "go on", "conversation": {"id": "conv_1"}}, "conversation"),
    ({"prompt": {"id": "pmpt_1", "version": "2"}}, "prompt"),
    ({"messages": MESSAGES, "container": "container_1"}, "container"),
    ({"input": [{"role": "user", "content": "a"}, {"type": "item_reference", "id": "msg_1"}]}, "item_reference"),
    ({"input": [{"id": "msg_1"}]}, "item_reference"),
    ({"input": [{"id": "msg_1", "type": None}]}, "item_reference"),
    ({"input": [{"id": "msg_1", "role": None}]}, "item_reference"),
    ({"input": [{"role": "user", "content": "a"}, {"id": "msg_1", "role": 1, "type": 2}]}, "item_reference"),
    ({"input": "a", "background": True}, "background"),
    ({"input": "a", "background": "true"}, "background"),
    ({"messages": MESSAGES, "deferred": True}, "deferred"),
    ({"messages": MESSAGES, "preset": "p"}, "preset"),
    ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]}, "file_id"),
    ({"messages": MESSAGES, "extra_body": {"google": {"cached_content": "c"}}}, "cached_content"),
    ({"input": "a", "cached_content": "cache_1"}, "cached_content"),
]
KEPT_BY_NOBODY: list[dict[str, Any]] = [
    {"input": "a", "previous_response_id": None, "conversation": None, "background": False, "store": True},
    {"prompt": "a text"},
    {"prompt": ["texts", "of"]},
    {"input": [{"role": "user", "content": "a"}]},
    {"input": [{"type": "message", "id": "msg_1", "role": "assistant", "content": "a"}]},
    {"input": [{"type": "function_call_output", "call_id": "c", "id": "fc_1", "output": "a"}]},
    {"messages": [{"role": "user", "content": "previous_response_id"}], "metadata": {"conversation": "x"}},
]
TOOLS: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": "web_search"}]}, "web_search"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}, {"type": "mcp", "server_url": "https://x"}]}, "mcp"),
    ({"tools": [{"server_url": "https://x", "typ\u0065": "mcp"}]}, "mcp"),
    ({"web_search_options": {}}, "web_search"),
    ({"search_parameters": {"mode": "on"}}, "web_search"),
    ({"mcp_servers": [{"url": "https://x"}]}, "mcp"),
    ({"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}, "code_interpreter"),
    ({"data_sources": [{"type": "azure_search"}]}, "data_sources"),
    ({"plugins": [{"id": "web"}]}, "plugins"),
    ({"models": ["other/model:online"]}, "models"),
    ({"compound_custom": {"tools": {"enabled_tools": ["web_search"]}}}, "compound_custom"),
    ({"tools": [{"type": "namespace", "tools": [{"type": "mcp"}]}]}, "namespace"),
]
OWN_TOOLS: list[dict[str, Any]] = [
    {"tools": [{"type": "function", "function": {"name": "web_search", "parameters": {"type": "object"}}}]},
    {"tools": [{"type": "function", "name": "f", "parameters": {"properties": {"type": {"type": "mcp"}}}}]},
    {"tools": [{"type": "custom", "name": "f"}]},
    {"tools": [{"name": "f", "input_schema": {"type": "object"}}]},
    {"tools": [], "tool_choice": {"type": "mcp"}},
    {"web_search_options": None, "tools": None},
]


def message_of(outcome: Outcome) -> str:
    return str(outcome.answer["error"]["message"])


def ask(classifier: Classifier, body: dict[str, Any]) -> Any:
    return classifier.run({"model": "chat", **body})


@pytest.mark.parametrize(("body", "name"), REFERENCES, ids=lambda value: value if isinstance(value, str) else "")
def test_what_a_provider_keeps_is_not_referred_to(body: dict[str, Any], name: str) -> None:
    outcome = ask(CLOSED, body)
    assert (outcome.status, outcome.code) == (400, "state_at_provider")
    assert name in message_of(outcome)
    assert ask(SEARCHING, body).status == 400, "tools are another matter"
    assert ask(STORING, body).status == 0


@pytest.mark.parametrize("body", KEPT_BY_NOBODY)
def test_what_refers_to_nothing_goes_on(body: dict[str, Any]) -> None:
    assert ask(CLOSED, body).status == 0


@pytest.mark.parametrize(("body", "name"), TOOLS, ids=lambda value: value if isinstance(value, str) else "")
def test_tools_that_callers_do_not_run_are_refused_unless_they_are_listed(body: dict[str, Any], name: str) -> None:
    outcome = ask(CLOSED, {"messages": MESSAGES, **body})
    assert (outcome.status, outcome.code) == (400, "hosted_tool")
    assert f"of type {name} run" in message_of(outcome)
    assert ask(STORING, {"messages": MESSAGES, **body}).status == 400, "keeping is another matter"
    listed = ask(SEARCHING, {"messages": MESSAGES, **body})
    assert listed.status == (0 if name in ("web_search", "mcp") else 400)


@pytest.mark.parametrize("body", OWN_TOOLS)
def test_tools_of_callers_go_on(body: dict[str, Any]) -> None:
    assert ask(CLOSED, {"messages": MESSAGES, **body}).status == 0


@pytest.mark.parametrize(
    "tools",
    [
        [{"google_search": {}}],
        [[{"type": "function", "name": "f"}]],
        ["web_search"],
        [{"name": {"a": 1}}],
        [{"type": 5, "name": "f"}],
        [{"type": None, "name": "f"}],
    ],
)
def test_a_tool_of_no_type_needs_a_name(tools: Any) -> None:
    assert ask(CLOSED, {"messages": MESSAGES, "tools": tools}).code == "hosted_tool"
    assert ask(SEARCHING, {"messages": MESSAGES, "tools": tools}).code == "hosted_tool"


@pytest.mark.parametrize("tools", ["web_search", {"type": "function"}, True, 1])
def test_tools_are_a_list(tools: Any) -> None:
    assert ask(CLOSED, {"messages": MESSAGES, "tools": tools}).code == "invalid_tools"


def test_the_name_of_a_tool_is_shown_only_if_it_is_one() -> None:
    outcome = ask(CLOSED, {"messages": MESSAGES, "tools": [{"type": 'x"}, "secret": "4111 1111 1111 1111'}]})
    assert outcome.code == "hosted_tool"
    assert "4111" not in message_of(outcome)


@pytest.mark.parametrize("store", ["true", 1, {}, [True]])
def test_store_is_a_boolean(store: object) -> None:
    assert ask(CLOSED, {"input": "a", "store": store}).code == "invalid_store"


def test_one_request_leaves_nothing_behind_for_the_next() -> None:
    assert ask(CLOSED, {"input": [{"id": "msg_1"}], "tools": [{"type": "mcp"}]}).status == 400
    assert ask(CLOSED, {"input": [{"role": "user", "content": "a"}]}).status == 0


EGRESS = make_egress()
FORGETS = {"usage": "false", "access": "Cloud", "store": "false"}
STORES = [
    ("/v1/responses", b'{"model":"m","input":"a"}', b'{"store":false,"model":"up","input":"a"}'),
    ("/v1/responses", b'{"model":"m","store":true}', b'{"model":"up","store":false}'),
    ("/v1/responses", b'{"store" : true , "model":"m"}', b'{"store" : false , "model":"up"}'),
    ("/v1/responses", b'{"st\\u006fre":null,"model":"m"}', b'{"st\\u006fre":false,"model":"up"}'),
    ("/v1/responses", b'{"model":"m","store":false}', b'{"model":"up","store":false}'),
    ("/v1/responses?a=b", b'{"model":"m"}', b'{"store":false,"model":"up"}'),
    ("/v1/responses", b'{"model":"m","x":{"store":true}}', b'{"store":false,"model":"up","x":{"store":true}}'),
    ("/v1/chat/completions", b'{"model":"m"}', b'{"model":"up"}'),
    ("/v1/chat/completions", b'{"model":"m","store":true}', b'{"model":"up","store":false}'),
    ("/v1/chat/completions", b'{"model":"m","store":1,"x":true}', b'{"model":"up","store":1,"x":true}'),
]


@pytest.mark.parametrize(("path", "body", "expected"), STORES)
def test_a_provider_is_told_to_keep_nothing(path: str, body: bytes, expected: bytes) -> None:
    headers = {":authority": host_of("up"), ":path": path}
    told = EGRESS.run(body, headers=headers, metadata=FORGETS | {"unasked": "/v1/messages /v1/responses"})
    assert (told.status, told.body) == (0, expected)
    chat = EGRESS.run(body, headers=headers, metadata=FORGETS | {"unasked": "/v1/responses /v1/chat/completions"})
    assert chat.body is not None
    assert json.loads(chat.body)["store"] in (False, 1)
    quiet = EGRESS.run(body, headers=headers, metadata=FORGETS)
    assert quiet.body == expected.replace(b'{"store":false,', b"{"), "who keeps nothing unasked may not know the word"
    left = EGRESS.run(body, headers=headers, metadata={"usage": "false", "access": "Cloud"})
    assert left.body is not None
    assert json.loads(left.body) == json.loads(body) | {"model": "up"}


def test_with_usage_both_are_added() -> None:
    headers = {":authority": host_of("up"), ":path": "/v1/responses"}
    metadata = FORGETS | {"usage": "true", "unasked": "/v1/responses"}
    outcome = EGRESS.run(b'{"stream":true,"model":"m"}', headers=headers, metadata=metadata)
    assert outcome.body is not None
    assert json.loads(outcome.body) == {
        "stream_options": {"include_usage": True},
        "store": False,
        "stream": True,
        "model": "up",
    }
