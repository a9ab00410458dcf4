"""JSON texts as no encoder writes them: any escape where one is allowed, any white space, any number; and their mutations.

The reference says which texts the classifier may accept. It is Python's own parser and shares nothing with the Lua one.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

from hypothesis import strategies as st

SHORT_ESCAPES = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
MAX_DEPTH = 64


@st.composite
def string_texts(draw: st.DrawFn, text: str) -> str:
    """A JSON string that means `text`."""
    chance = Random(draw(st.integers(0, 2**32 - 1)))  # a draw per character would be most of the time of a test
    ways = ["raw", "raw", "raw", "short", "hex", "HEX"] if chance.random() < 0.7 else ["raw", "short"]
    choices = chance.choices(ways, k=len(text))
    return '"' + "".join(escape(char, choice) for char, choice in zip(text, choices, strict=True)) + '"'


def escape(char: str, choice: str) -> str:
    """One character of a JSON string, written in one of the permitted ways."""
    if choice == "short" and char in SHORT_ESCAPES:
        return SHORT_ESCAPES[char]
    if choice == "raw" and char >= " " and char not in '"\\':
        return char
    units = char.encode("utf-16-be")
    form = "{:04X}" if choice == "HEX" else "{:04x}"
    return "".join("\\u" + form.format(int.from_bytes(units[k : k + 2], "big")) for k in range(0, len(units), 2))


SPACES = st.sampled_from(["", "", "", " ", "\n", "\r\n\t", "  "])
NUMBERS = st.one_of(
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["0", "-0", "0.0", "1E5", "1e+5", "1.5e-07", "9007199254740993", "123456789012345678901234567890"]),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def values(texts: st.SearchStrategy[str] = TEXTS) -> st.SearchStrategy[str]:
    """Any JSON value, as text."""
    leaves = st.one_of(st.sampled_from(["true", "false", "null"]), NUMBERS, texts.flatmap(string_texts))
    return st.recursive(leaves, lambda inner: st.one_of(arrays(inner), objects(inner, texts)), max_leaves=12)


def arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """An array of such values."""
    return st.tuples(st.lists(inner, max_size=4), SPACES).map(
        lambda drawn: "[" + drawn[1] + f",{drawn[1]}".join(drawn[0]) + drawn[1] + "]"
    )


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[str], texts: st.SearchStrategy[str] = TEXTS) -> str:
    """An object whose keys are written in any way; now and then one comes twice."""
    keys = draw(st.lists(texts, max_size=4))
    space = draw(SPACES)
    members = [draw(string_texts(key)) + space + ":" + space + draw(inner) for key in keys]
    return "{" + space + f"{space},{space}".join(members) + space + "}"


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """An object with a model, and more."""
    more = draw(st.lists(st.tuples(st.sampled_from(["messages", "input", "x", "tools"]), values()), max_size=3))
    space = draw(SPACES)
    members = [draw(string_texts("model")) + ":" + draw(string_texts("chat"))]
    members += [draw(string_texts(key)) + space + ":" + value for key, value in more]
    order = draw(st.permutations(members))
    return (space + "{" + space + f"{space},".join(order) + space + "}" + space).encode()


PIECES = [
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"0",
    b"-",
    b".",
    b"e",
    b"\\ud800",
    b"\\udc00",
    b"\\u12",
    b"\\x",
]
PIECES += [
    b"\xef\xbb\xbf",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xff",
    b"\xe4\xb8",
    b"\x00",
    b"\n",
    b"\x7f",
    b"NaN",
]
PIECES += [
    b"nul",
    b"truee",
    b"01",
    b"+1",
    b"1.",
    b".5",
    b"1e",
    b"Infinity",
    b"//",
    b"\x0b",
    b"\xc2\xa0",
    b"'",
    b"{}",
    b'"model":1',
]


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A document with up to three injuries."""
    data = draw(documents())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        until = min(len(data), at + draw(st.integers(0, 3)))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.binary(min_size=1, max_size=2), st.just(data[at:until] * 2)))
        data = data[:at] + piece + data[until if draw(st.booleans()) else at :]
    return data


def is_strict(data: bytes) -> bool:
    """Whether a text is one JSON object that can be understood in one way only."""
    if data.startswith(b"\xef\xbb\xbf"):
        return False
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse, parse_int=str, parse_float=str
        )
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and not _has_surrogate(value) and _depth(value) <= MAX_DEPTH


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


def _refuse(word: str) -> Any:
    raise ValueError(word)


def _has_surrogate(value: Any) -> bool:
    if isinstance(value, str):
        return any("\ud800" <= char <= "\udfff" for char in value)
    if isinstance(value, dict):
        return any(_has_surrogate(item) for pair in value.items() for item in pair)
    return isinstance(value, list) and any(map(_has_surrogate, value))


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0
