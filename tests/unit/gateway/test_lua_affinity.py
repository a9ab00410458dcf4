"""What the classifier notes about which requests belong on one pod: the same for the same, a digest and never the text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from tests.unit.gateway.scripts import POST, Classifier, make_lookup

from fairlead.gateway.lookup import ENDPOINTS

CLASSIFIER = Classifier({**make_lookup(), "affinities": {"chat": {"header": "x-session-id"}}})
PLAIN = Classifier(make_lookup())


def affinity(
    headers: Mapping[str, str], body: Mapping[str, Any] | None = None, classifier: Classifier = CLASSIFIER
) -> str | None:
    """What is noted. AssertionError for a request that is refused."""
    made = {"model": "chat", "messages": [], **(body or {})}
    outcome = classifier.script.run(json.dumps(made).encode(), {**POST, **headers}, classifier.context)
    assert outcome.status == 0, outcome
    noted = outcome.dynamic.get("fairlead:affinity")
    return None if noted is None else str(noted)


def test_the_same_session_is_the_same_and_others_are_others() -> None:
    noted = {affinity({"x-session-id": f"session-{number}"}) for number in range(1000)}
    assert len(noted) == 1000
    assert all(re.fullmatch("[0-9a-f]{16}", text or "") for text in noted)
    assert affinity({"x-session-id": "session-7"}) == affinity({"x-session-id": "session-7"}) in noted


def test_any_text_of_a_header_is_taken() -> None:
    texts = [
        "a",
        "b",
        "ab",
        "ba",
        "a" * 60_000,
        "a" * 60_001,
        "\u00ff\u00fe",
        "{}",
        "%DYNAMIC_METADATA(x:y)%",
        "-",
        "0",
    ]
    assert len({affinity({"x-session-id": text}) for text in texts}) == len(texts)


def test_nothing_is_noted_without_a_value_or_for_other_models() -> None:
    assert affinity({}) is None
    assert affinity({"x-session-id": ""}) is None
    assert affinity({"x-session": "a", "x-fairlead-affinity": "a"}) is None
    assert affinity({"x-session-id": "a"}, classifier=PLAIN) is None


HELLO = "h" * 100


def by_prompt(body: Mapping[str, Any], path: str = "/v1/chat/completions", characters: int = 100) -> str | None:
    """What is noted of a request whose model looks at the beginning of prompts."""
    paths = {"endpoints": list(ENDPOINTS)}
    made = Classifier({**make_lookup(), **paths, "affinities": {"chat": {"prefix": str(characters)}}})
    return affinity({":path": path}, {"messages": None, **body}, made)


def chat(text: Any) -> Mapping[str, Any]:
    return {"messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": text}]}


SAME = {
    "chat": (chat(HELLO), "/v1/chat/completions"),
    "content before role": ({"messages": [{"content": HELLO, "role": "user"}]}, "/v1/chat/completions"),
    "parts": (chat([{"type": "text", "text": HELLO}, {"type": "text", "text": "b"}]), "/v1/chat/completions"),
    "a picture first": (
        chat([{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": HELLO}]),
        "/v1/chat/completions",
    ),
    "a later turn": (
        {
            "messages": [
                *chat(HELLO)["messages"],
                {"role": "assistant", "content": "a"},
                {"role": "user", "content": "b"},
            ]
        },
        "/v1/chat/completions",
    ),
    "what is longer": (chat(HELLO + "something else"), "/v1/chat/completions"),
    "tools before": (
        {"tools": [{"type": "function", "function": {"name": "user", "text": "t"}}], **chat(HELLO)},
        "/v1/chat/completions",
    ),
    "completions": ({"prompt": HELLO}, "/v1/completions"),
    "a list of prompts": ({"prompt": [HELLO, "b"]}, "/v1/completions"),
    "responses": ({"input": HELLO, "instructions": "be kind"}, "/v1/responses"),
    "items": ({"input": [{"role": "user", "content": [{"type": "input_text", "text": HELLO}]}]}, "/v1/responses"),
    "messages": ({"system": "be kind", **chat(HELLO)}, "/v1/messages"),
}


@pytest.mark.parametrize("name", SAME)
def test_prompts_that_begin_alike_belong_together_on_every_endpoint(name: str) -> None:
    body, path = SAME[name]
    assert by_prompt(body, path) == by_prompt({"prompt": HELLO}, "/v1/completions") is not None


def test_prompts_that_begin_otherwise_do_not() -> None:
    texts = [f"{number} {HELLO}" for number in range(500)] + ["", "h", "h" * 99, "g" + HELLO[1:], HELLO[:99] + "g"]
    noted = [by_prompt(chat(text)) for text in texts]
    assert len(set(noted)) == len(texts)
    assert [text for text, digest in zip(texts, noted, strict=True) if digest is None] == [""]


@pytest.mark.parametrize("character", ["h", "\u00e9", "\u20ac", "\U0001f600"])
def test_characters_are_counted_and_not_bytes(character: str) -> None:
    prefix = character * 7
    noted = [
        by_prompt(chat(text), characters=7) for text in (prefix, prefix + "a", prefix + character, prefix[:6] + "a")
    ]
    assert len(set(noted[:3])) == 1
    assert noted[3] != noted[0]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"input": HELLO}, "/v1/embeddings"),
        ({"input": [HELLO]}, "/v1/embeddings"),
        ({"query": HELLO, "documents": [HELLO]}, "/v1/rerank"),
        ({"messages": [{"role": "system", "content": HELLO}]}, "/v1/chat/completions"),
        ({"messages": [{"content": HELLO}]}, "/v1/chat/completions"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "/v1/messages",
        ),
        ({"messages": {"role": "user", "content": HELLO}}, "/v1/chat/completions"),
        ({"messages": [[{"role": "user", "content": HELLO}]]}, "/v1/chat/completions"),
        ({"metadata": [{"role": "user", "content": HELLO}]}, "/v1/chat/completions"),
        ({"input": [1, 2, 3]}, "/v1/responses"),
    ],
    ids=str,
)
def test_without_a_prompt_a_request_goes_anywhere(body: Mapping[str, Any], path: str) -> None:
    assert by_prompt(body, path) is None


def test_one_request_leaves_nothing_to_the_next() -> None:
    made = Classifier({**make_lookup(), "affinities": {"chat": {"prefix": "100"}}})
    first = affinity({}, {"messages": [{"role": "user", "content": HELLO}]}, made)
    broken = b'{"model": "chat", "messages": [{"role": "user", "content": "' + HELLO.encode() + b'", '
    assert made.script.run(broken, POST, made.context).status == 400
    assert affinity({}, {"messages": [{"content": "x"}]}, made) is None
    assert affinity({}, {"messages": [{"role": "user"}]}, made) is None
    assert affinity({}, {"messages": [{"role": "user", "content": HELLO}]}, made) == first


def test_a_refused_request_does_not_fail_because_of_it() -> None:
    outcome = CLASSIFIER.script.run(b'{"model": "nobody"}', {**POST, "x-session-id": "a"}, CLASSIFIER.context)
    assert outcome.status == 404
