"""The classifier's reader: it accepts exactly what can be understood in one way, and says what is wrong with all else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from tests.unit.gateway.json_texts import documents, is_strict, mutations
from tests.unit.gateway.scripts import Classifier

BROKEN = {"invalid_json", "duplicate_key", "invalid_utf8", "invalid_unicode", "too_deep"}
CLASSIFIER = Classifier()


def nested(levels: int, opening: str = "[", closing: str = "]") -> bytes:
    return f'{{"model":"chat","x":{opening * (levels - 1)}{closing * (levels - 1)}}}'.encode()


INVALID = [
    ("an empty body", b"", "invalid_json"),
    ("white space only", b" \n", "invalid_json"),
    ("an array", b'["model"]', "invalid_json"),
    ("a string", b'"model"', "invalid_json"),
    ("a byte order mark", b'\xef\xbb\xbf{"model":"chat"}', "invalid_json"),
    ("UTF-16", '{"model":"chat"}'.encode("utf-16"), "invalid_json"),
    ("text after the document", b'{"model":"chat"}{}', "invalid_json"),
    ("a NUL after the document", b'{"model":"chat"}\0', "invalid_json"),
    ("a truncated string", b'{"model":"cha', "invalid_json"),
    ("a truncated escape", b'{"model":"chat\\', "invalid_json"),
    ("a quote that is escaped", b'{"model":"chat\\"}', "invalid_json"),
    ("a truncated object", b'{"model":"chat"', "invalid_json"),
    ("a comma at the end", b'{"model":"chat",}', "invalid_json"),
    ("a comma at the end of an array", b'{"model":"chat","x":[1,]}', "invalid_json"),
    ("single quotes", b"{'model':'chat'}", "invalid_json"),
    ("a key without quotes", b'{model:"chat"}', "invalid_json"),
    ("a comment", b'{"model":"chat"/**/}', "invalid_json"),
    ("no colon", b'{"model" "chat"}', "invalid_json"),
    ("a vertical tab as white space", b'{\x0b"model":"chat"}', "invalid_json"),
    ("a no-break space as white space", b'{\xc2\xa0"model":"chat"}', "invalid_json"),
    ("a raw line feed in a string", b'{"model":"chat","x":"a\nb"}', "invalid_json"),
    ("a raw NUL in a string", b'{"model":"chat","x":"a\0b"}', "invalid_json"),
    ("an unknown escape", b'{"model":"chat","x":"\\x41"}', "invalid_json"),
    ("an escape in capitals", b'{"model":"chat","x":"\\U0041"}', "invalid_json"),
    ("an escape of three digits", b'{"model":"chat","x":"\\u041"}', "invalid_json"),
    ("an escape of three digits beside a backslash", b'{"model":"chat","x":"\\\\ \\u041"}', "invalid_json"),
    ("a wrong word", b'{"model":"chat","x":True}', "invalid_json"),
    ("NaN", b'{"model":"chat","x":NaN}', "invalid_json"),
    ("Infinity", b'{"model":"chat","x":-Infinity}', "invalid_json"),
    ("a leading zero", b'{"model":"chat","x":01}', "invalid_json"),
    ("a plus", b'{"model":"chat","x":+1}', "invalid_json"),
    ("no digit behind the point", b'{"model":"chat","x":1.}', "invalid_json"),
    ("no digit before the point", b'{"model":"chat","x":.5}', "invalid_json"),
    ("no exponent", b'{"model":"chat","x":1e}', "invalid_json"),
    ("hexadecimal", b'{"model":"chat","x":0x10}', "invalid_json"),
    ("a minus alone", b'{"model":"chat","x":-}', "invalid_json"),
    ("a key twice", b'{"model":"chat","model":"chat"}', "duplicate_key"),
    ("a key twice, once escaped", b'{"model":"chat","mod\\u0065l":"chat"}', "duplicate_key"),
    ("a key twice, deep inside", b'{"model":"chat","x":[{"a":{"b":1,"\\u0062":2}}]}', "duplicate_key"),
    ("a byte that is no UTF-8", b'{"model":"chat","x":"\xff"}', "invalid_utf8"),
    ("an overlong form", b'{"model":"chat","x":"\xc0\xaf"}', "invalid_utf8"),
    ("an overlong form of three", b'{"model":"chat","x":"\xe0\x80\xaf"}', "invalid_utf8"),
    ("a surrogate in UTF-8", b'{"model":"chat","x":"\xed\xa0\x80"}', "invalid_utf8"),
    ("beyond U+10FFFF", b'{"model":"chat","x":"\xf4\x90\x80\x80"}', "invalid_utf8"),
    ("a character that is cut", b'{"model":"chat","x":"\xe4\xb8"}', "invalid_utf8"),
    ("bad UTF-8 in a key", b'{"model":"chat","\x80":1}', "invalid_utf8"),
    ("bad UTF-8 outside of strings", b'{"model":"chat"\xff}', "invalid_json"),
    ("half a surrogate pair", b'{"model":"chat","x":"\\ud83d"}', "invalid_unicode"),
    ("the other half", b'{"model":"chat","x":"\\ude00\\ud83d"}', "invalid_unicode"),
    ("halves with something between", b'{"model":"chat","x":"\\ud83dx\\ude00"}', "invalid_unicode"),
    ("half a pair in a key", b'{"model":"chat","\\ud83d":1}', "invalid_unicode"),
    ("65 levels of arrays", nested(65), "too_deep"),
    ("65 levels of objects", b'{"x":' * 64 + b"{}" + b"}" * 64, "too_deep"),
]
VALID = [
    ("white space everywhere", b' \r\n\t{ "model" : "chat" , "x" : [ 1 , 2 ] } \n'),
    ("empty containers", b'{"model":"chat","x":{},"y":[],"z":[ ],"w":{ }}'),
    ("an escaped key", b'{"mod\\u0065l":"ch\\u0061t"}'),
    ("all escapes", b'{"model":"chat","x":"\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000\\u00e9\\uD83D\\ude00"}'),
    ("backslashes before the quote", b'{"model":"chat","x":"\\\\","y":"\\\\\\\\\\""}'),
    ("a byte order mark inside", b'{"model":"chat","x":"\xef\xbb\xbf"}'),
    ("DEL", b'{"model":"chat","x":"\x7f"}'),
    ("numbers", b'{"model":"chat","x":[0,-0,0.5,1e5,1E-5,-1.25e+10,123456789012345678901234567890]}'),
    ("the same key in two objects", b'{"model":"chat","x":[{"a":1},{"a":1}]}'),
    ("a key that is __index", b'{"model":"chat","__index":1,"":2}'),
    ("64 levels", nested(64)),
]


@pytest.mark.parametrize(("body", "code"), [row[1:] for row in INVALID], ids=[row[0] for row in INVALID])
def test_what_can_be_read_in_two_ways_is_refused(body: bytes, code: str) -> None:
    outcome = CLASSIFIER.run(body)
    assert (outcome.status, outcome.code) == (400, code)
    assert outcome.answer["error"]["type"] == "invalid_request_error"
    assert not is_strict(body)
    assert not outcome.dynamic


@pytest.mark.parametrize("body", [row[1] for row in VALID], ids=[row[0] for row in VALID])
def test_what_rfc_8259_permits_passes(body: bytes) -> None:
    assert is_strict(body)
    outcome = CLASSIFIER.run(body)
    assert outcome.status == 0
    assert outcome.dynamic["fairlead:mark"] == "checked"


def test_a_body_of_too_many_values_is_refused() -> None:
    body = b'{"model":"chat","x":[' + b"1," * 500_000 + b"1]}"
    assert CLASSIFIER.run(body).code == "too_many_values"


@given(documents())
@settings(max_examples=300, deadline=None)
def test_the_reader_agrees_with_pythons_on_documents(data: bytes) -> None:
    outcome = CLASSIFIER.run(data)
    assert (outcome.code not in BROKEN) == is_strict(data), (data, outcome)
    assert not outcome.log


@given(mutations())
@settings(max_examples=800, deadline=None)
def test_the_reader_agrees_with_pythons_on_injured_documents(data: bytes) -> None:
    outcome = CLASSIFIER.run(data)
    assert (outcome.code not in BROKEN) == is_strict(data), (data, outcome)
    assert not outcome.log
    if outcome.status == 0:
        assert json.loads(data)["model"] == "chat"


def test_no_answer_repeats_the_body() -> None:
    for _, body, _ in INVALID:
        assert "chat" not in CLASSIFIER.run(body).answer["error"]["message"]
