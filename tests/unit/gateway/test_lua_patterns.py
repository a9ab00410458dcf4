"""Users' patterns between the two texts: what is shown to them, and what becomes of a request with and without a result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from tests.unit.gateway.scripts import CLASSES, Classifier, Outcome, Script, make_lookup, make_settler

from fairlead.gateway.lua import load_settler

WORD = [
    {"name": "word", "class": "Internal", "keywords": ["secretword"]},
    {"name": "top", "class": "Restricted", "keywords": ["topword"]},
]
CLASSIFIER = Classifier(make_lookup(detectors=WORD, patterns="Confidential"))
SETTLER = make_settler()
TEXT, PENDING, RESULT = "fairlead.text:text", "fairlead.pending", "envoy.filters.http.rbac"
NONE = {"shadow_engine_result": "allowed"}


def found(name: str, **more: str) -> dict[str, str]:
    return {"shadow_engine_result": "denied", "shadow_effective_policy_id": name, **more}


def message(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "chat", "messages": [{"role": "user", "content": text}], **more}


def published(text: str, **more: Any) -> str:
    return CLASSIFIER.run(message(text, **more)).dynamic[TEXT]


def settle(outcome: Outcome, result: Mapping[str, str] | None, settler: Script = SETTLER) -> Outcome:
    pending = {key.partition(":")[2]: text for key, text in outcome.dynamic.items() if key.startswith(PENDING)}
    spaces: dict[str, Mapping[str, str]] = {PENDING: pending} if pending else {}
    return settler.run(None, dynamic=spaces | ({RESULT: result} if result is not None else {}))


# What is shown ----------------------------------------------------------------------------------------------------------------------


def test_each_string_is_a_line_of_the_text() -> None:
    lines = published("hello there", x={"a key": ["one", "two"]}).split("\n")
    assert lines[:4] == ["model", "chat", "messages", "role"]
    assert {"hello there", "a key", "one", "two"} <= set(lines)


@pytest.mark.parametrize("number", [7, 12345678, -1.5, 0, 12e3])
def test_each_number_is_one_too(number: float) -> None:
    """What is built in looks for long ones only; a pattern may be for a short one."""
    assert json.dumps(number) in published("hello", x={"mrn": [number]}).split("\n")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("MRN-１２３４", "MRN-1234"),
        ("MRN-١٢٣٤", "MRN-1234"),
        ("Müller", "Muller"),
        ("ЖУК", "жук"),
        ("M\u200bR\u00adN", "MRN"),
        ("a\0MRN", "aMRN"),
        ("a\x1eMRN", "aMRN"),
        ("x\x7fMRN", "xMRN"),
        ("MRN–1", "MRN-1"),
    ],
)
def test_it_is_folded_and_nothing_ends_it(text: str, line: str) -> None:
    assert line in published(text).split("\n")
    assert "\0" not in published(text)
    assert "\x1e" not in published(text)


def test_all_layers_are_in_it() -> None:
    for depth in range(1, 4):
        text = "MRN-\u0661\u0662"
        for _ in range(depth):
            text = json.dumps([text])
        assert "MRN-12" in published(text), depth


def test_a_nul_in_an_inner_layer_ends_nothing() -> None:
    text = json.dumps(json.dumps("before \0 MRN-12"))
    assert "MRN-12" in published(text)
    assert "\0" not in published(text)


def test_nothing_is_shown_without_patterns_or_where_they_change_nothing() -> None:
    plain = Classifier(make_lookup(detectors=WORD)).run(message("hello"))
    assert plain.dynamic["fairlead:mark"] == "checked"
    assert not [key for key in plain.dynamic if not key.startswith("fairlead:")]
    high = CLASSIFIER.run(message("topword"))
    assert high.dynamic["fairlead:rule"] == "top"
    assert not [key for key in high.dynamic if not key.startswith("fairlead:")]


def test_of_a_request_with_patterns_nothing_is_settled_yet() -> None:
    dynamic = CLASSIFIER.run(message("hello")).dynamic
    assert {"fairlead:chain", "fairlead:mark", "fairlead:class", "fairlead:verdict"}.isdisjoint(dynamic)
    assert (dynamic["fairlead:model"], dynamic["fairlead:stream"]) == ("chat", "false")


def test_text_of_more_than_a_mebibyte_counts_as_the_highest_pattern() -> None:
    base = len(published("")) + 1
    fits = CLASSIFIER.run(message("x" * (2**20 - base)))
    assert len(fits.dynamic[TEXT]) + 1 == 2**20
    outcome = CLASSIFIER.run(message("x" * (2**20 - base + 1)))
    assert TEXT not in outcome.dynamic
    assert (outcome.dynamic["fairlead:class"], outcome.dynamic["fairlead:rule"]) == ("Confidential", "unchecked")
    # Escapes of several layers count together.
    nested = CLASSIFIER.run(message(json.dumps([json.dumps(["y" * 600_000])])))
    assert nested.dynamic["fairlead:rule"] == "unchecked"


# What becomes of it -----------------------------------------------------------------------------------------------------------------

RESULTS: list[tuple[str, Mapping[str, str] | None, str, str]] = [
    ("hello", NONE, "Internal", "default"),
    ("secretword", NONE, "Internal", "word"),
    ("hello", found("2.Confidential.own.0a"), "Confidential", "own"),
    ("hello", found("1.Restricted.my-own.0a"), "Restricted", "my-own"),
    ("hello", found("3.Internal.own.0a"), "Internal", "own"),
    ("secretword", found("3.Internal.own.0a"), "Internal", "word"),
    ("secretword", found("2.Confidential.own.0a"), "Confidential", "own"),
    ("hello", found("4.Public.own.0a"), "Internal", "default"),
    ("hello", None, "Restricted", "unchecked"),
    ("secretword", None, "Restricted", "unchecked"),
    ("hello", {}, "Restricted", "unchecked"),
    ("hello", {"shadow_engine_result": "denied"}, "Restricted", "unchecked"),
    ("hello", found("own"), "Restricted", "unchecked"),
    ("hello", found("2.Secret.own.0a"), "Restricted", "unchecked"),
    ("hello", found("2.Confidential.own.0a", shadow_engine_result="allowed"), "Restricted", "unchecked"),
    ("hello", {"enforced_engine_result": "allowed"}, "Restricted", "unchecked"),
]


@pytest.mark.parametrize(("text", "result", "data_class", "rule"), RESULTS)
def test_the_class_is_settled(text: str, result: Mapping[str, str] | None, data_class: str, rule: str) -> None:
    first = CLASSIFIER.run(message(text))
    outcome = settle(first, result)
    assert outcome.status == 0
    dynamic = outcome.dynamic
    assert (dynamic["fairlead:class"], dynamic["fairlead:rule"]) == (data_class, rule)
    assert dynamic["fairlead:chain"].startswith("chain of p1|-|")
    assert dynamic["fairlead:mark"] == "checked"
    assert dynamic[TEXT] == "", "the text is taken away"


def test_a_second_look_says_what_one_look_would() -> None:
    """Whatever is declared and detected: the same class, verdict and chain as by a keyword of that class."""
    for declared in ("", *CLASSES):
        headers = {"x_data_classification": declared} if declared else {}
        for data_class in CLASSES[1:]:
            keyword = [{"name": "own", "class": data_class, "keywords": ["secretword"]}]
            once = Classifier(make_lookup(detectors=keyword)).run(message("secretword"), **headers)
            first = Classifier(make_lookup(patterns=data_class)).run(message("secretword"), **headers)
            twice = settle(first, found(f"{4 - CLASSES.index(data_class)}.{data_class}.own.0a"))
            assert {**first.dynamic, **twice.dynamic}.items() >= once.dynamic.items()


def test_a_denial_names_class_and_detector_and_not_what_was_found() -> None:
    first = CLASSIFIER.run(message("MRN-12345678", model="local"))
    outcome = settle(first, found("1.Restricted.own.0a"))
    assert (outcome.status, outcome.code) == (403, "data_class_denied")
    told = outcome.answer["error"]["message"]
    assert told == (
        "This request is classified Restricted by the detector own. Of you, the model local takes Public, Internal, Confidential."
    )
    assert {"fairlead:chain", "fairlead:mark"}.isdisjoint(outcome.dynamic)
    assert outcome.dynamic["fairlead:class"] == "Restricted"
    missing = settle(first, None)
    assert missing.answer["error"]["message"].startswith(
        "This request is classified Restricted by text that its patterns could not look at. Of you,"
    )


def test_what_is_refused_or_settled_is_left_alone() -> None:
    for result in (None, NONE, found("1.Restricted.own.0a")):
        assert SETTLER.run(None, dynamic={RESULT: result} if result is not None else {}).dynamic == {}


@pytest.mark.parametrize("pending", [{"own": "", "takes": ""}, {"header": "x"}, {"Restricted": "a\nb", "own": "a"}])
def test_what_is_pending_and_cannot_be_read_is_an_error(pending: dict[str, str]) -> None:
    for result in (None, NONE, found("2.Confidential.own.0a")):
        spaces: dict[str, Mapping[str, str]] = {PENDING: pending, **({RESULT: result} if result is not None else {})}
        outcome = SETTLER.run(None, dynamic=spaces)
        assert (outcome.status, outcome.code) == (500, "classifier_failed")
        assert {"fairlead:chain", "fairlead:mark"}.isdisjoint(outcome.dynamic)


#: Mistakes in the text, each of which some row above must see.
MISTAKES = {
    "a missing result is taken for none that matches": ('state == "allowed" and', 'state ~= "denied" and'),
    "what matched is not looked at": ('if state == "denied"', 'if state == "matched"'),
    "a result without a name is taken for none": (
        'return read(pending, HIGHEST, "unchecked")',
        'return read(pending, "own", "default")',
    ),
    "the class of a missing result is not the highest": (
        'local HIGHEST = "Restricted"',
        'local HIGHEST = "Confidential"',
    ),
    "a name that says allowed is not looked at": ('(name == nil or name == "")', "true"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_text_is_seen(name: str) -> None:
    right, wrong = MISTAKES[name]
    assert load_settler().count(right) == 1
    settler = Script(load_settler().replace(right, wrong))
    said = []
    for text, result, data_class, rule in RESULTS:
        dynamic = settle(CLASSIFIER.run(message(text)), result, settler).dynamic
        said.append((dynamic.get("fairlead:class"), dynamic.get("fairlead:rule")) == (data_class, rule))
    assert not all(said)
