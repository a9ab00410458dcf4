"""Reading section by section is reading the whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fairlead.engines.sections import load_sections

TEXTS = [
    "a: 1\nb: [x, y]\n",
    "# a comment first\na: {b: c}\n\n# and between\nd:\n- e\n- f: g\n",
    "a: |\n  b: c\nd: 1\n",
    "a: [b,\nc]\nd: 1\n",  # a flow that goes on at the margin
    "a: {b: 1,\nc: 2}\n",
    "a: 'b\nc: d'\n",
    "a: b\n  c\nd: e\n",
    "a: &x {b: 1}\nc: *x\n",
    "a: &x 1\nb: &x 2\n",  # refused as a whole, fine in pieces
    "a: {b: 1}\n<<: {a: 2, c: 3}\n",
    "a: 1\n...\nb: 2\n",
    "a: 1\n---\nb: 2\n",
    "%YAML 1.1\n---\na: 1\n",
    "a: 1\na: 2\n",
    "a\nb: 1\n",
    "? a\n: 1\nb: 2\n",
    "",
    "just text",
    "- a\n- b\n",
    "a: [1\nb: 2\n",
    "a: 1\n b: 2\n",
    "a: 2026-01-01\nb: 0x10\nc: yes\nd: ~\n",
    'a: [["--host", "0.0.0.0"], ["x: y # z"]]\nb: {"name": "HF_HOME", "value": 1}\nc: "v"\nd: 8000\n',
    'a: ["b"]  # why\nb: ["b" ]\n',
    "a: [1e3, 1.5, 1_0, 010, 0x1, 12345678901234567890, -0, 1:30]\n",
    "a: [1e3]\nb: [1.5]\nc: [1_0]\nd: [010]\ne: [12345678901234567890]\nf: [-0]\ng: [1:30]\nh: -7\n",
    'a: ["\\ud83d\\ude00", "\\/", "\\x41"]\nb: "\\""\nc: "ü"\nd: "\x7f"\n',
    'yes: ["a"]\nNo: 1\non: {}\ny: 2\nnull: 3\n',
    "a: true\nb: True\nc: [true, False, null, Null, NULL]\nd: null\n",
    'a: {"b": 1, "b": 2, "c":3}\nb: {"b" : 1,}\nc: [1,]\nd: [,]\n',
    "  a: 1\nb: 2\n",
    "# why\n\n  # what\n  a: 1\n  b: 2\n",
    'a: "b" "c"\nb: "c": 1\nd: [] []\n',
    f'a: {{"{"k" * 1024}": 1}}\n',
]


def read(load: Any, text: str) -> Any:
    try:
        return load(text)
    except yaml.YAMLError as error:
        return type(error).__name__, str(error)


def load_whole(text: str) -> Any:
    return yaml.load(text, Loader=yaml.CSafeLoader)


@pytest.mark.parametrize("text", TEXTS)
def test_sections_read_as_the_whole(text: str) -> None:
    assert repr(read(load_sections, text)) == repr(read(load_whole, text))


LINES = st.sampled_from(
    [
        "a: 1",
        "b: [x,",
        "c]",
        "d: 'e",
        "f'",
        "g: |",
        "  h: i",
        "- j",
        "k: *l",
        "m: &l n",
        "<<: {a: 9}",
        "...",
        "---",
        "}",
        "o: {p: q,",
        "",
    ]
)


@given(st.lists(LINES, max_size=8).map("\n".join))
def test_whatever_is_printed_reads_as_the_whole(text: str) -> None:
    assert repr(read(load_sections, text)) == repr(read(load_whole, text))


def test_the_same_section_is_read_once() -> None:
    first, second = load_sections("a: {b: 1}\nc: 1\n"), load_sections("c: 2\na: {b: 1}\n")
    assert first["a"] is second["a"]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.from_regex(r"[A-Za-z]{1,5}", fullmatch=True), JSON_VALUES, max_size=4), st.booleans())
def test_json_reads_as_yaml(sections: dict[str, Any], spaced: bool) -> None:
    separators = (", ", ": ") if spaced else (",", ":")
    text = "".join(f"{key}: {json.dumps(value, separators=separators)}\n" for key, value in sections.items())
    assert repr(read(load_sections, text)) == repr(read(load_whole, text))


def test_what_a_template_prints_needs_no_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("read by YAML")

    monkeypatch.setattr(yaml, "load", refuse)
    assert load_sections('image: "a:b"\nargs: [["--port", "8000"], ["-c", "0.9"]]\nport: 1\n') == {
        "image": "a:b",
        "args": [["--port", "8000"], ["-c", "0.9"]],
        "port": 1,
    }
