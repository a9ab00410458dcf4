"""Tokens, answers and stop strings: deterministic, reversible, readable."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_sim import answers, tokens
from fairlead_sim.textstream import TextStream

PROSE = st.text(st.characters(exclude_categories=["Cs"]))


@given(PROSE)
def test_tokens_join_to_the_text_and_ids_decode_to_it(text: str) -> None:
    assert "".join(tokens.split(text)) == text
    assert tokens.decode(tokens.encode(text)) == text
    assert all(0 < token_id < 2**53 for token_id in tokens.encode(text)), "safe as JSON numbers"


@pytest.mark.parametrize("token_id", [-1, 0, 5, 2**60])
def test_an_id_that_no_token_has_is_refused(token_id: int) -> None:
    with pytest.raises(ValueError, match="out of vocabulary"):
        tokens.decode([token_id])


def test_equal_beginnings_have_equal_blocks_and_only_these() -> None:
    one = tokens.prefix_blocks(tokens.split("a b c d e f g h"), 4)
    other = tokens.prefix_blocks(tokens.split("a b c d e f X h"), 4)
    assert one[0] == other[0]
    assert one[1] != other[1]


def take(count: int, **arguments: object) -> str:
    return "".join(islice(answers.answer("llama", "Who are you?", **arguments), count))  # type: ignore[arg-type]


def test_an_answer_names_its_model_says_that_it_is_simulated_and_repeats_itself_for_the_same_seed() -> None:
    assert take(80).startswith('llama here, simulated. You said: "Who are you?".')
    assert take(200, seed=1) == take(200, seed=1)
    assert take(200, seed=1) != take(200, seed=2)
    assert take(200, index=0) != take(200, index=1)


def test_a_natural_end_is_the_end_of_a_sentence() -> None:
    said = answers.whole_answer(answers.answer("llama", "Hello"), "Hello", mean_tokens=60)
    assert said[-1] == "."
    assert 30 <= len(said) <= 130


def test_texts_that_share_words_are_closer() -> None:
    near = answers.similarity("the red ship in the harbour", "a red ship left the harbour")
    far = answers.similarity("the red ship in the harbour", "quarterly tax report 2026")
    assert 0 <= far < near <= 1


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (
            {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
            {"city": "simulated city"},
        ),
        ({"enum": ["a", "b"]}, "a"),
        ({"type": "array", "items": {"type": "integer", "minimum": 3}}, [3]),
        ({"type": ["number", "null"]}, 1.0),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, True),
        ({"properties": {"x": {"type": "null"}}}, {"x": None}),
    ],
)
def test_arguments_fit_their_schema(schema: dict[str, object], value: object) -> None:
    assert answers.example(schema) == value


def test_a_recursive_schema_comes_to_an_end() -> None:
    schema: dict[str, object] = {"type": "object", "properties": {}}
    schema["properties"] = {"child": schema}
    assert answers.arguments_for(schema).count("child") == 8


def test_a_stop_string_ends_the_text_before_it_even_when_split_over_tokens() -> None:
    stream = TextStream(["one", " tw", "o th", "ree"], ["two t", "nothing"])
    shown = ""
    found = None
    for token in stream.script:
        found = stream.feed(token)
        shown += stream.take()
        if found:
            break
    assert (shown, found) == ("one ", "two t")


def test_text_that_may_become_a_stop_string_is_held_back_and_given_at_the_end() -> None:
    stream = TextStream([], ["END"])
    assert stream.feed("some EN") is None
    assert stream.take() == "some "
    assert stream.take_all() == "EN"
