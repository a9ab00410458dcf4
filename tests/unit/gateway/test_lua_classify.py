"""What the classifier does with a request: form, caller, model, class, chain; and that nothing passes without a mark."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import pytest
from tests.unit.gateway.scripts import CLASSES, POST, Classifier, Script, make_lookup

from fairlead.gateway.lua import load_classifier, pack_lookup

WORD = [{"name": "word", "class": "Confidential", "keywords": ["secretword"]}]
CLASSIFIER = Classifier(make_lookup(detectors=WORD))
BODY = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
SECRET = {"model": "chat", "messages": [{"role": "user", "content": "secretword"}]}


def request(headers: Mapping[str, str | Sequence[str]], body: Any = BODY, classifier: Classifier = CLASSIFIER) -> Any:
    return classifier.script.run(json.dumps(body).encode(), {**POST, **headers}, classifier.context)


FORMS: list[tuple[Mapping[str, str | Sequence[str]], int, str]] = [
    ({}, 0, ""),
    ({"content-type": "application/json; charset=utf-8"}, 0, ""),
    ({"content-type": 'Application/JSON;charset="UTF-8"'}, 0, ""),
    ({"content-encoding": "identity"}, 0, ""),
    ({":path": "/v1/chat/completions?api-version=1"}, 0, ""),
    ({"content-type": []}, 415, "unsupported_content_type"),
    ({"content-type": ""}, 415, "unsupported_content_type"),
    ({"content-type": "text/plain"}, 415, "unsupported_content_type"),
    ({"content-type": "application/x-www-form-urlencoded"}, 415, "unsupported_content_type"),
    ({"content-type": "multipart/form-data; boundary=x"}, 415, "unsupported_content_type"),
    ({"content-type": "application/jsonl"}, 415, "unsupported_content_type"),
    ({"content-type": "application/json; charset=utf-16"}, 415, "unsupported_content_type"),
    ({"content-type": "application/json; charset=utf-8; charset=utf-16"}, 415, "unsupported_content_type"),
    ({"content-type": ["application/json", "text/plain"]}, 415, "unsupported_content_type"),
    ({"content-encoding": "gzip"}, 415, "unsupported_content_encoding"),
    ({"content-encoding": ""}, 415, "unsupported_content_encoding"),
    ({"content-encoding": ["identity", "gzip"]}, 415, "unsupported_content_encoding"),
    ({"x-data-classification": "Restricted"}, 0, ""),
    ({"x-data-classification": "public"}, 0, ""),
    ({"x-data-classification": ""}, 400, "invalid_data_class"),
    ({"x-data-classification": "Secret"}, 400, "invalid_data_class"),
    ({"x-data-classification": "Public,Restricted"}, 400, "invalid_data_class"),
    ({"x-data-classification": ["Public", "Public"]}, 400, "invalid_data_class"),
    ({"x-data-classification": ["Restricted", "Public"]}, 400, "invalid_data_class"),
    ({":path": "/v1/fine_tuning/jobs"}, 404, "unknown_endpoint"),
    ({":path": "/v1/chat/completions/"}, 404, "unknown_endpoint"),
    ({":path": "/v1/chat/completions/../files"}, 404, "unknown_endpoint"),
    ({":path": "/v1/%63hat/completions"}, 404, "unknown_endpoint"),
    ({":path": "//v1/chat/completions"}, 404, "unknown_endpoint"),
]


@pytest.mark.parametrize(("headers", "status", "code"), FORMS)
def test_form(headers: Mapping[str, str | Sequence[str]], status: int, code: str) -> None:
    given = {name: value for name, value in {**POST, **headers}.items() if value != []}
    outcome = CLASSIFIER.script.run(json.dumps(BODY).encode(), given, CLASSIFIER.context)
    assert (outcome.status, outcome.code) == (status, code)
    assert ("fairlead:mark" in outcome.dynamic) is (status == 0)


BODIES: list[tuple[Any, int, str, str | None]] = [
    ({"model": "chat", "stream": True}, 0, "", None),
    ({}, 400, "invalid_model", "model"),
    ({"model": ""}, 400, "invalid_model", "model"),
    ({"model": None}, 400, "invalid_model", "model"),
    ({"model": 110}, 400, "invalid_model", "model"),
    ({"model": True}, 400, "invalid_model", "model"),
    ({"model": ["chat"]}, 400, "invalid_model", "model"),
    ({"model": {"model": "chat"}}, 400, "invalid_model", "model"),
    ({"x": {"model": "chat"}}, 400, "invalid_model", "model"),
    ({"model": "chat", "stream": "true"}, 400, "invalid_stream", "stream"),
    ({"model": "chat", "stream": 1}, 400, "invalid_stream", "stream"),
    ({"model": "chat", "stream": None}, 400, "invalid_stream", "stream"),
    ({"model": "chat", "stream": {}}, 400, "invalid_stream", "stream"),
    ({"model": "gpt-5"}, 404, "model_not_found", "model"),
    ({"model": "Chat"}, 404, "model_not_found", "model"),
    ({"model": "chat "}, 404, "model_not_found", "model"),
    ({"model": "chat\0"}, 404, "model_not_found", "model"),
    ({"model": "x" * 300}, 404, "model_not_found", "model"),
    ({"model": "empty"}, 403, "data_class_denied", None),
]


@pytest.mark.parametrize(("body", "status", "code", "param"), BODIES)
def test_model_and_stream(body: Any, status: int, code: str, param: str | None) -> None:
    outcome = request({}, body)
    assert (outcome.status, outcome.code) == (status, code)
    if status:
        assert outcome.answer["error"]["param"] == param
        assert set(outcome.answer["error"]) == {"message", "type", "param", "code"}
        assert "fairlead:chain" not in outcome.dynamic
        assert "fairlead:mark" not in outcome.dynamic
    else:
        assert outcome.dynamic["fairlead:stream"] == "true"


def test_an_unknown_model_is_named_only_if_it_is_a_name() -> None:
    assert "gpt-5" in request({}, {"model": "gpt-5"}).answer["error"]["message"]
    for name in ("my password is hunter2", "a" * 65, 'a"b', "ä"):
        assert name not in request({}, {"model": name}).answer["error"]["message"]


def test_no_body_is_refused() -> None:
    assert CLASSIFIER.script.run(None, POST, CLASSIFIER.context).code == "invalid_json"


def test_every_pair_of_declared_and_detected_has_its_own_chain() -> None:
    for declared, found in product(("-", *CLASSES), CLASSES):
        detectors = [{"name": "it", "class": found, "keywords": ["secretword"]}] if found != "Public" else []
        classifier = Classifier(make_lookup(detectors=detectors))
        headers = {"x-data-classification": declared} if declared != "-" else {}
        dynamic = request({**headers, "x-fairlead-consumer": "team-a"}, SECRET, classifier).dynamic
        base = "Internal" if declared == "-" else declared
        expected = max(base, found, key=CLASSES.index)
        rule = "it" if found == expected and detectors else "default" if declared == "-" else "header"
        assert dynamic == {
            "fairlead:class": expected,
            "fairlead:rule": rule,
            "fairlead:verdict": f"p0|{declared}|{found}",
            "fairlead:chain": f"chain of p0|{declared}|{found}",
            "fairlead:model": "chat",
            "fairlead:stream": "false",
            "fairlead:consumer": "team-a",
            "fairlead:mark": "checked",
        }


def test_callers() -> None:
    assert request({"x-fairlead-consumer": "team-a"}).dynamic["fairlead:verdict"] == "p0|-|Public"
    assert request({}).dynamic["fairlead:verdict"] == "p1|-|Public"
    assert request({"x-fairlead-consumer": ""}).dynamic["fairlead:verdict"] == "p1|-|Public"
    assert request({"x-fairlead-consumer": "team-b"}).code == "no_role"
    assert request({"x-fairlead-consumer": ["team-a", "team-a"]}).code == "no_role"
    known = Classifier(make_lookup(known="p1", anonymous=None))
    assert request({"x-fairlead-consumer": "team-b"}, classifier=known).dynamic["fairlead:verdict"] == "p1|-|Public"
    outcome = request({}, classifier=known)
    assert (outcome.status, outcome.code) == (401, "invalid_api_key")


def test_a_denial_says_class_rule_and_what_would_be_taken_and_not_what_was_found() -> None:
    lookup = make_lookup(detectors=[{"name": "word", "class": "Restricted", "keywords": ["secretword"]}])
    outcome = request({}, {**SECRET, "model": "local"}, Classifier(lookup))
    message = outcome.answer["error"]["message"]
    assert outcome.status == 403
    assert message == (
        "This request is classified Restricted by the detector word. Of you, the model local takes Public, Internal, Confidential."
    )
    assert outcome.dynamic["fairlead:class"] == "Restricted"
    assert "fairlead:chain" not in outcome.dynamic
    declared = request({"x-data-classification": "Restricted"}, {**BODY, "model": "local"}).answer["error"]["message"]
    assert "Restricted by the header x-data-classification." in declared
    nothing = request({}, {**BODY, "model": "empty"}).answer["error"]["message"]
    assert nothing.endswith("Internal by the rules of this route. Of you, the model empty takes nothing.")


def test_what_is_neither_found_nor_declared_nor_the_default_was_raised_by_a_floor() -> None:
    lookup = make_lookup(
        default="Internal", detectors=[{"name": "word", "class": "Confidential", "keywords": ["secretword"]}]
    )
    lookup["verdicts"]["p1"] = dict.fromkeys(lookup["verdicts"]["p1"], "p1|-|Confidential")
    raised = request({}, BODY, Classifier(lookup)).dynamic
    assert (raised["fairlead:class"], raised["fairlead:rule"]) == ("Confidential", "floor")
    assert request({}, SECRET, Classifier(lookup)).dynamic["fairlead:rule"] == "word"
    declared = {"x-data-classification": "Confidential"}
    assert request(declared, BODY, Classifier(lookup)).dynamic["fairlead:rule"] == "header"
    assert request({}, BODY, Classifier({**lookup, "default": "Confidential"})).dynamic["fairlead:rule"] == "default"
    message = request({}, {**BODY, "model": "empty"}, Classifier(lookup)).answer["error"]["message"]
    assert message.startswith("This request is classified Confidential by a floor of this route.")
    del lookup["default"]  # of a gateway whose routes an earlier version published
    assert request({}, BODY, Classifier(lookup)).dynamic["fairlead:rule"] == "default"


def test_a_pair_without_a_verdict_is_denied() -> None:
    lookup = make_lookup(detectors=WORD)
    del lookup["verdicts"]["p1"]["Internal|Confidential"]
    outcome = request({"x-data-classification": "Internal"}, SECRET, Classifier(lookup))
    assert outcome.code == "data_class_denied"
    assert outcome.dynamic["fairlead:class"] == "Confidential"


PNG = {"url": "data:image/png;base64,AAAA"}
OPAQUE: list[tuple[str, Any]] = [
    ("image_url", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": PNG}]}]}),
    ("image_url without type", {"messages": [{"role": "user", "content": [{"image_url": "https://x/y.png"}]}]}),
    (
        "input_audio",
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": ""}}]}]},
    ),
    (
        "file",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "file", "file": {}}]}]},
    ),
    ("an unknown part", {"messages": [{"role": "user", "content": [{"type": "hologram", "x": "y"}]}]}),
    ("type comes last", {"messages": [{"role": "user", "content": [{"x": "y", "type": "hologram"}]}]}),
    (
        "an image in a tool's result",
        {"messages": [{"content": [{"type": "tool_result", "content": [{"type": "image"}]}]}]},
    ),
    ("images of Ollama", {"messages": [{"role": "user", "content": "a", "images": ["AAAA"]}]}),
    ("input_image", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}),
    ("input_file", {"input": [{"role": "user", "content": [{"type": "input_file", "file_data": "x"}]}]}),
    ("an unknown item", {"input": [{"type": "shell_call_output", "id": "x"}]}),
    ("encrypted reasoning", {"input": [{"type": "reasoning", "encrypted_content": "x"}]}),
    ("token ids", {"input": [1, 2, 3]}),
    ("lists of token ids", {"prompt": [[1, 2], [3]]}),
    ("one token id among texts", {"input": ["a", 5]}),
    ("embeddings as prompt", {"prompt_embeds": "AAAA"}),
    ("an image to rank", {"documents": [{"image": "AAAA"}]}),
]
READABLE: list[tuple[str, Any]] = [
    ("text", {"messages": [{"role": "user", "content": [{"type": "text", "text": "image_url"}]}]}),
    (
        "tool calls",
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {}}]}]},
    ),
    (
        "a tool with a parameter image_url",
        {
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "parameters": {
                            "type": "object",
                            "properties": {"image_url": {"type": "string"}, "file": {"type": "file"}},
                        }
                    },
                }
            ]
        },
    ),
    ("a schema", {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}}),
    (
        "items",
        {
            "input": [
                {"type": "message", "content": [{"type": "input_text", "text": "a"}]},
                {"type": "function_call_output", "output": "x"},
            ]
        },
    ),
    ("reasoning without secrets", {"input": [{"type": "reasoning", "summary": [], "encrypted_content": None}]}),
    ("texts", {"input": ["a", "b"]}),
    ("audio output", {"audio": {"voice": "alloy"}, "modalities": ["text", "audio"]}),
    ("numbers elsewhere", {"dimensions": 3, "stop": ["a"], "x": [1, 2]}),
]


@pytest.mark.parametrize("body", [row[1] for row in OPAQUE], ids=[row[0] for row in OPAQUE])
def test_what_cannot_be_read_has_the_class_of_opaque_content(body: Any) -> None:
    dynamic = request({}, {"model": "chat", **body}).dynamic
    assert (dynamic["fairlead:class"], dynamic["fairlead:rule"]) == ("Confidential", "opaque")
    unset = request({}, {"model": "chat", **body}, Classifier(make_lookup(opaque=None))).dynamic
    assert unset["fairlead:class"] == "Internal"


@pytest.mark.parametrize("body", [row[1] for row in READABLE], ids=[row[0] for row in READABLE])
def test_what_can_be_read_is_not_opaque(body: Any) -> None:
    assert request({}, {"model": "chat", **body}).dynamic["fairlead:rule"] == "default"


def test_a_detector_above_opaque_content_names_itself() -> None:
    lookup = make_lookup(detectors=[{"name": "word", "class": "Restricted", "keywords": ["secretword"]}])
    body = {"model": "chat", "messages": [{"content": [{"type": "image_url", "image_url": "secretword"}]}]}
    assert request({}, body, Classifier(lookup)).dynamic["fairlead:rule"] == "word"


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "PUT"])
def test_what_is_no_post_is_not_there(method: str) -> None:
    outcome = CLASSIFIER.script.run(b"x", {":method": method, ":path": "/v1/chat/completions"}, {})
    assert (outcome.status, dict(outcome.dynamic), outcome.log) == (404, {}, [])


def test_the_list_of_models_is_that_of_the_callers_profile() -> None:
    get = {":method": "GET", ":path": "/v1/models", "x-fairlead-consumer": "team-a"}
    outcome = CLASSIFIER.script.run(None, get, CLASSIFIER.context)
    assert outcome.dynamic["fairlead:chain"] == "models"
    assert outcome.dynamic["fairlead:stream"] == "p0"
    stranger = CLASSIFIER.script.run(None, {**get, "x-fairlead-consumer": "team-b"}, CLASSIFIER.context)
    assert (stranger.status, dict(stranger.dynamic)) == (403, {})


def test_many_models_and_consumers_are_one_look_up() -> None:
    models = {f"model-{n}": {"p0|-|Public": f"c{n}"} for n in range(256)}
    consumers = {f"team-{n}": "p0" for n in range(1000)}
    classifier = Classifier(make_lookup(models=models, consumers=consumers))
    for n in (200, 7):
        outcome = request({"x-fairlead-consumer": "team-500"}, {**BODY, "model": f"model-{n}"}, classifier)
        assert outcome.dynamic["fairlead:chain"] == f"c{n}"
        assert outcome.looked_up == ["policy"]
    assert request({}, {"model": "model-256"}, classifier).code == "model_not_found"


BAD_POLICIES: list[tuple[str, dict[str, Any]]] = [
    ("no policy at all", {}),
    ("broken text", {"policy": '{"classes":['}),
    ("another kind", {"policy": "[]"}),
    (
        "an unknown built-in detector",
        pack_lookup(make_lookup(detectors=[{"name": "x", "class": "Public", "builtin": "DNA"}])),
    ),
    ("an unknown class", pack_lookup(make_lookup(detectors=[{"name": "x", "class": "Top", "keywords": ["abc"]}]))),
    ("an empty keyword", pack_lookup(make_lookup(detectors=[{"name": "x", "class": "Public", "keywords": ["--"]}]))),
    ("an unknown class for opaque content", pack_lookup(make_lookup(opaque="Top"))),
]


@pytest.mark.parametrize("context", [row[1] for row in BAD_POLICIES], ids=[row[0] for row in BAD_POLICIES])
def test_broken_data_answers_500_and_lets_nothing_pass(context: dict[str, Any]) -> None:
    outcome = Script(load_classifier()).run(json.dumps(BODY).encode(), POST, context)
    assert (outcome.status, outcome.code) == (500, "classifier_failed")
    assert outcome.answer["error"]["type"] == "server_error"
    assert not outcome.dynamic
    assert len(outcome.log) == 1


def test_a_changed_policy_is_obeyed_at_once_and_old_ones_are_forgotten() -> None:
    script = Script(load_classifier())
    for n in range(12):
        word = f"word{'abcdefghijkl'[n]}"
        lookup = make_lookup(detectors=[{"name": word, "class": "Confidential", "keywords": [word]}])
        classifier = Classifier(lookup, script)
        assert classifier.finds({"model": "chat", "x": word}) == word
        assert classifier.finds({"model": "chat", "x": "wordz"}) == ""


def test_text_of_users_in_the_policy_is_data() -> None:
    nasty = 'a"]]\\ \n\u2028 %d%s \U0001f512 end'
    lookup = make_lookup(
        detectors=[{"name": nasty, "class": "Confidential", "keywords": ["%d+ (x"]}], consumers={nasty: "p0"}
    )
    classifier = Classifier(lookup)
    outcome = request({"x-fairlead-consumer": nasty}, {"model": "chat", "x": "%d+ (X"}, classifier)
    assert outcome.dynamic["fairlead:rule"] == nasty
    assert request({}, {"model": "empty", "x": "%d+ (x"}, classifier).answer["error"]["message"].count(nasty) == 1
