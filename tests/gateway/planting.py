"""Identifiers planted in bodies of requests: whole, in any string or key, on every endpoint, in any escape and nesting.

Nothing of fairlead is read here. Identifiers are of the kinds that detectors are built for, written as people and programs write them.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

__all__ = ["CLEAN", "ENDPOINTS", "IDENTIFIERS", "Planted", "make_clean", "make_planted"]

Json = dict[str, Any]

#: Name of a built-in detector -> what it is to find; check digits are right.
IDENTIFIERS: Final[Mapping[str, tuple[str, ...]]] = {
    "Email": ("bob@example.com", "Anna.Maria+x@mail.example.co.uk"),
    "Phone": ("+49 30 901820", "(415) 555-2671", "+14155552671"),
    "SSN": ("123-45-6789", "123 45 6789"),
    "IBAN": ("DE89370400440532013000", "GB82 WEST 1234 5698 7654 32"),
    "PaymentCard": ("4111111111111111", "4111 1111 1111 1111", "3782-822463-10005"),
    "Secrets": ("AKIAIOSFODNN7EXAMPLE", "sk-proj-abcDEF1234567890abcdefgh"),
    "PrivateKey": ("-----BEGIN PGP PRIVATE KEY BLOCK-----",),
}
CLEAN: Final = ("hello", "what is the weather like", "números são bonitos", "\U0001f600 tell me a story")
_MARK: Final = "@@"
_STREAMING: Final = ("/v1/chat/completions", "/v1/completions", "/v1/responses")


def _endpoints() -> Mapping[str, tuple[Json, ...]]:
    """Endpoint -> bodies in which each string that is the mark is one place to plant; keys count as well."""
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": _MARK}}
    tool = {
        "type": "function",
        "function": {
            "name": "find",
            "description": _MARK,
            "parameters": {
                "type": "object",
                "properties": {_MARK: {"type": "string", "enum": [_MARK], "default": _MARK}},
            },
        },
    }
    user = {"role": "user", "content": "hello"}
    return {
        "/v1/chat/completions": (
            {"messages": [{"role": "user", "content": _MARK}]},
            {"messages": [{"role": "system", "content": _MARK}, user]},
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": _MARK}]}
                ]
            },
            {"messages": [user, {"role": "assistant", "content": None, "tool_calls": [call]}]},
            {"messages": [user, {"role": "tool", "tool_call_id": "c1", "content": _MARK}]},
            {"messages": [{"role": "user", "name": _MARK, "content": "hello"}]},
            {"messages": [user], "tools": [tool]},
            {"messages": [user], "user": _MARK},
            {"messages": [user], "metadata": {_MARK: "x", "y": _MARK}},
            {"messages": [user], "stop": ["x", _MARK]},
            {
                "messages": [user],
                "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"title": _MARK}}},
            },
            {"messages": [user], "unheard_of": {"deep": [[[{"deeper": _MARK}]]]}},
            {"messages": [user] * 40 + [{"role": "user", "content": _MARK}] + [user] * 40},
        ),
        "/v1/completions": ({"prompt": _MARK}, {"prompt": ["x", _MARK]}, {"prompt": "x", "suffix": _MARK}),
        "/v1/embeddings": ({"input": _MARK}, {"input": ["x", _MARK, "y"]}),
        "/v1/responses": (
            {"input": _MARK},
            {"input": "x", "instructions": _MARK},
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": _MARK}]}]},
            {
                "input": [
                    {"type": "function_call_output", "call_id": "c", "output": _MARK},
                    {"role": "user", "content": "x"},
                ]
            },
            {"input": "x", "tools": [{"type": "function", "name": "f", "description": _MARK, "parameters": {}}]},
        ),
        "/v1/rerank": ({"query": _MARK, "documents": ["a"]}, {"query": "a", "documents": ["b", _MARK]}),
    }


ENDPOINTS: Final = _endpoints()


@dataclass(frozen=True, slots=True)
class Planted:
    """One POST. `what` names the identifier's kind and the disguise; `is_form`: refused for its form, whoever reads it."""

    path: str
    what: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    is_form: bool = False


def make_clean(dice: Random, count: int, paths: frozenset[str]) -> Iterator[Planted]:
    """The same bodies without identifiers: they must go where identifiers must not."""
    for _ in range(count):
        path, template = _draw(dice, paths)
        yield Planted(path, "clean", _write(dice, _fill(template, dice.choice(CLEAN)), "mixed"))


def make_planted(
    dice: Random, count: int, paths: frozenset[str], identifiers: Mapping[str, tuple[str, ...]] = IDENTIFIERS
) -> Iterator[Planted]:
    """So many requests, each with one identifier or, at times, two; some ask for a stream."""
    kinds = sorted(identifiers)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        path, template = _draw(dice, paths)
        disguise = dice.choice(sorted(_DISGUISES))
        text = _DISGUISES[disguise](dice, _around(dice, dice.choice(identifiers[kind])))
        if path in _STREAMING and dice.random() < 0.3:
            template = {**template, "stream": True}
        body = _write(dice, _fill(template, text), dice.choice(("plain", "escaped", "mixed")))
        form = dice.choice(sorted(_FORMS)) if dice.random() < 0.15 else ""
        yield (
            _FORMS[form](dice, Planted(path, f"{kind}/{disguise}/{form or 'plain'}", body))
            if form
            else Planted(path, f"{kind}/{disguise}", body, _forge(dice))
        )


def _draw(dice: Random, paths: frozenset[str]) -> tuple[str, Json]:
    path = dice.choice(sorted(paths))
    return path, {"model": "chat", **dice.choice(ENDPOINTS[path])}


def _fill(value: Any, text: str) -> Any:
    if isinstance(value, dict):
        return {_fill(key, text): _fill(inner, text) for key, inner in value.items()}
    if isinstance(value, list):
        return [_fill(inner, text) for inner in value]
    return text if value == _MARK else value


def _around(dice: Random, identifier: str) -> str:
    before, after = dice.choice([("", ""), ("it is ", ""), ("", " please"), ("a\n", "\tb"), ("«", "»"), ("x: ", ", y")])
    return f"{before}{identifier}{after}"


def _quote(_: Random, text: str) -> str:
    return json.dumps({"argument": text})


def _quote_twice(dice: Random, text: str) -> str:
    return json.dumps([{"inner": _quote(dice, text)}], ensure_ascii=dice.random() < 0.5)


def _pad(dice: Random, text: str) -> str:
    padding = "lorem ipsum " * dice.randint(1_000, 30_000)
    return dice.choice([padding + text, f"{text} {padding}", f"{padding}{text} {padding}"])


def _full_width(_: Random, text: str) -> str:
    return "".join(chr(ord(char) + 0xFEE0) if char.isdigit() else char for char in text)


def _invisible(dice: Random, text: str) -> str:
    at = dice.randint(1, len(text) - 1)
    return text[:at] + dice.choice("\u200b\u200d\u2060\u00ad") + text[at:]


def _after_nul(dice: Random, text: str) -> str:
    return dice.choice(("\0 ", "before \0 ", "\0\0 ", json.dumps("\0 ") + " ")) + text


#: How a text is written before it becomes a JSON string.
_DISGUISES: Final[Mapping[str, Callable[[Random, str], str]]] = {
    "as it is": lambda _, text: text,
    "JSON in a string": _quote,
    "JSON in JSON in a string": _quote_twice,
    "much around it": _pad,
    "full width digits": _full_width,
    "invisible characters": _invisible,
    "after a NUL": _after_nul,
}


def _write(dice: Random, body: Json, escapes: str) -> bytes:
    """As bytes; `escapes`: "plain" UTF-8, "escaped" every letter and digit as \\uXXXX, "mixed" some."""
    text = json.dumps(body, ensure_ascii=False, indent=dice.choice([None, None, 1]))
    if escapes == "plain":
        return text.encode()
    share = 1.0 if escapes == "escaped" else 0.2
    parts, inside, skip = [], False, 0
    for at, char in enumerate(text):
        if skip:
            skip -= 1
        elif char == "\\" and inside:
            skip = 5 if text[at + 1] == "u" else 1
        elif char == '"':
            inside = not inside
        elif inside and char.isalnum() and char.isascii() and dice.random() < share:
            char = f"\\u{ord(char):04x}"
        parts.append(char)
    return "".join(parts).encode()


_FORGED: Final = (
    {"x-fairlead-class": "Public"},
    {"x-fairlead-mark": "checked", "x-fairlead-chain": "r.Public"},
    {"x-fairlead-consumer": "team-b"},
    {"x-data-classification": "Public"},
    {"x-envoy-retry-on": "5xx", "x-envoy-max-retries": "9", "x-envoy-upstream-alt-stat-name": "x"},
    {"x-envoy-decorator-operation": "x", "x-envoy-original-path": "/v1/models"},
    {"x-fairlead-backend": "openai", "x-forwarded-host": "api.openai.com"},
    {"x-http-method-override": "GET"},
    {"content-type": "text/plain"},
    {"content-type": "application/octet-stream"},
    {"content-type": "multipart/form-data; boundary=x"},
)


def _forge(dice: Random) -> Mapping[str, str]:
    return dice.choice(_FORGED) if dice.random() < 0.4 else {}


def _as_form(change: Callable[[bytes], bytes], **headers: str) -> Callable[[Random, Planted], Planted]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _, one: Planted(one.path, one.what, change(one.body), named, is_form=True)


#: What no body may be.
_FORMS: Final[Mapping[str, Callable[[Random, Planted], Planted]]] = {
    "BOM": _as_form(lambda body: b"\xef\xbb\xbf" + body),
    "UTF-16": _as_form(lambda body: body.decode().encode("utf-16")),
    "a second document": _as_form(lambda body: b'{"model":"chat"}' + body),
    "text after it": _as_form(lambda body: body + b" and more"),
    "model twice": _as_form(lambda body: body.replace(b"{", b'{"model":"chat",', 1)),
    "model twice, once escaped": _as_form(lambda body: body.replace(b"{", b'{"\\u006dodel":"chat",', 1)),
    "bad UTF-8": _as_form(lambda body: body.replace(b'"', b'"\xff', 1)),
    "gzip": _as_form(gzip.compress, content_encoding="gzip"),
    "said to be gzip": _as_form(lambda body: body, content_encoding="gzip"),
    "an array": _as_form(lambda body: b"[" + body + b"]"),
}
