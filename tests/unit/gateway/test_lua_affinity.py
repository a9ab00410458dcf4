"""What the classifier notes about which requests belong on one pod: the same for the same, a digest and never the text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tests.unit.gateway.scripts import POST, Classifier, make_lookup

CLASSIFIER = Classifier({**make_lookup(), "affinities": {"chat": "x-session-id"}})
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


def test_a_refused_request_does_not_fail_because_of_it() -> None:
    outcome = CLASSIFIER.script.run(b'{"model": "nobody"}', {**POST, "x-session-id": "a"}, CLASSIFIER.context)
    assert outcome.status == 404
