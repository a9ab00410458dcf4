"""Parsed specs are kept for the objects that there are: an edit replaces what it makes stale, or memory grows with every edit."""

from __future__ import annotations

from typing import Any

from fairlead.api.resource import LLMDeployment
from fairlead.runtime.decide import ParsedSpecs

Json = dict[str, Any]


def resource(uid: str = "u", generation: int = 1, replicas: int = 1, **status: Any) -> Json:
    return {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": "m", "namespace": "ml", "uid": uid, "generation": generation},
        "spec": {"model": {"source": "hf://a/b"}, "engine": {"type": "vLLM"}, "replicas": replicas},
        "status": status,
    }


def replicas_of(parsed: object) -> int:
    assert isinstance(parsed, LLMDeployment)
    return parsed.spec.replicas


def test_a_thousand_edits_of_one_object_keep_one_spec() -> None:
    specs = ParsedSpecs()
    for generation in range(1, 1001):
        assert (
            replicas_of(specs.parse(resource(generation=generation, replicas=generation % 7 + 1))) == generation % 7 + 1
        )
    assert len(specs) == 1


def test_the_same_generation_is_parsed_once_and_has_its_own_status_each_time() -> None:
    specs = ParsedSpecs()
    first, second = specs.parse(resource(phase="a")), specs.parse(resource(phase="b"))
    assert isinstance(first, LLMDeployment)
    assert isinstance(second, LLMDeployment)
    assert first.spec is second.spec
    assert (first.status, second.status) == ({"phase": "a"}, {"phase": "b"})


def test_an_older_generation_is_not_answered_with_a_newer_spec() -> None:
    specs = ParsedSpecs()
    specs.parse(resource(generation=2, replicas=2))
    assert replicas_of(specs.parse(resource(generation=1, replicas=1))) == 1


def test_what_was_not_asked_for_the_longest_time_goes_first() -> None:
    specs = ParsedSpecs(kept=2)
    kept = specs.parse(resource(uid="a"))
    specs.parse(resource(uid="b"))
    again = specs.parse(resource(uid="a"))
    specs.parse(resource(uid="c"))
    assert len(specs) == 2
    assert isinstance(kept, LLMDeployment)
    assert isinstance(again, LLMDeployment)
    assert specs.parse(resource(uid="a")).spec is kept.spec is again.spec  # type: ignore[union-attr]
