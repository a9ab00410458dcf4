"""YAML as kubectl reads it, where PyYAML alone would read it differently."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.rendering.documents import InputError, read_documents
from fairlead.rendering.write import to_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10:30", "10:30"), ("2024-01-31", "2024-01-31"), ("2024-01-31T10:00:00Z", "2024-01-31T10:00:00Z"),
        ("yes", True), ("y", True), ("off", False), ("~", None), ("null", None), ("", None), ("Null", None),
        ("12", 12), ("1_000", 1000), ("0x10", 16), ("010", 8), ("0b11", 3), ("-3", -3), ("+3", 3), ("09", 9),
        ("1.5", 1.5), ("2.0", 2), ("1e3", 1000), (".5", 0.5), ("1.2.3", "1.2.3"), ("0.33.0", "0.33.0"),
        ("1605565b", "1605565b"), ("'12'", "12"), ('"yes"', "yes"), ("64Gi", "64Gi"), ("-", None), ("=", "="),
    ],
)  # fmt: skip
def test_plain_words(text: str, value: Any) -> None:
    [document] = read_documents(f"a: {text}\nkind: X\n" if text != "-" else "a:\nkind: X\n", "f")
    assert document.body["a"] == value
    assert type(document.body["a"]) is type(value)


def test_keys_are_text() -> None:
    [document] = read_documents("{1: a, true: b, 1.5: d}", "f")
    assert list(document.body) == ["1", "true", "1.5"]


def test_null_is_no_key() -> None:
    with pytest.raises(InputError, match="a key is null"):
        read_documents("{null: a}", "f")


def test_key_twice_is_refused_also_below() -> None:
    with pytest.raises(InputError, match=r"f:3:3: is not YAML: a key stands twice"):
        read_documents("a:\n  b: 1\n  b: 2\n", "f")


def test_merge_keys_may_be_overridden() -> None:
    [document] = read_documents("base: &b {x: 1, z: 2}\na:\n  <<: *b\n  x: 3\n", "f")
    assert document.body["a"] == {"x": 3, "z": 2}


def test_documents_are_counted() -> None:
    documents = read_documents("kind: A\n---\n---\nkind: B\nmetadata: {name: b}\n", "f.yaml")
    assert [str(document) for document in documents] == ["A/(document 1 of f.yaml)", "B/b"]


def test_deep_nesting_is_an_error_and_not_a_crash() -> None:
    with pytest.raises(InputError):
        read_documents("a: " + "[" * 20_000 + "]" * 20_000, "f")


def test_written_text_is_read_as_the_same_objects() -> None:
    body = {
        "kind": "X",
        "a": "10:30",
        "b": "yes",
        "c": ["x\ny\n", "1", 1, True, None, 1.5],
        "d": {"e": {}},
        "f": "0x1",
        "g": "1e3",
    }
    [document] = read_documents(to_yaml([body]), "f")
    assert document.body == body
