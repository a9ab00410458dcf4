"""What the simulator says: deterministic in prompt and seed, readable, and open about being simulated.

An answer begins with the name of the served model, so that a person who asks through a Service or a route sees who
answered.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from typing import Any

from fairlead_sim import tokens

_OPENERS = (
    "In short",
    "To begin with",
    "Seen from the bridge",
    "As a rule",
    "On a calm day",
    "By the chart",
    "With a fair wind",
)
_SUBJECTS = (
    "the line",
    "a careful crew",
    "the harbour pilot",
    "every good plan",
    "a steady hand",
    "the night watch",
    "the tide",
)
_VERBS = ("runs through", "keeps clear of", "waits for", "leads back to", "holds against", "is measured by", "follows")
_OBJECTS = (
    "the fairlead",
    "the current",
    "its own anchor",
    "the next berth",
    "a quiet sea",
    "the morning light",
    "the cargo",
)
_ENDINGS = (
    "without a knot",
    "as it should",
    "and nothing is lost",
    "before the rain",
    "once it is asked to",
    "to the last token",
)


def answer(model: str, prompt: str, *, said: str | None = None, seed: int = 0, index: int = 0) -> Iterator[str]:
    """Endless tokens of the answer to a prompt. The same arguments give the same tokens.

    `said` is what the user said last, where the prompt is a whole conversation.
    """
    yield from tokens.split(f"{model} here, simulated.")
    asked = " ".join((prompt if said is None else said).split())
    if asked:
        shown = asked if len(asked) <= 60 else asked[:57] + "..."
        yield from tokens.split(f' You said: "{shown}".')
    number = 0
    while True:
        yield from tokens.split(_sentence(_digest(prompt, seed, index, number)))
        number += 1


def whole_answer(script: Iterator[str], prompt: str, *, mean_tokens: int, seed: int = 0, index: int = 0) -> list[str]:
    """The beginning of an endless answer up to where the model stops on its own.

    That is the first full stop after half to one and a half times the mean number of tokens.
    """
    share = _digest(prompt, seed, index, -1)[0] / 255.0
    wanted = mean_tokens * (0.5 + share)
    said: list[str] = []
    for piece in script:
        said.append(piece)
        if len(said) >= wanted and piece == ".":
            break
    return said


def embedding(text: str, dimensions: int) -> list[float]:
    """A unit vector; texts that share words are closer than texts that do not."""
    vector = [0.0] * dimensions
    for word in text.lower().split() or [""]:
        digest = hashlib.shake_128(word.encode(errors="replace")).digest(dimensions)
        for position, byte in enumerate(digest):
            vector[position] += byte / 127.5 - 1.0
    norm = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [value / norm for value in vector]


def similarity(left: str, right: str, *, dimensions: int = 256) -> float:
    """Cosine of two texts, moved to 0..1 as rerank scores are."""
    cosine = sum(a * b for a, b in zip(embedding(left, dimensions), embedding(right, dimensions), strict=True))
    return (cosine + 1.0) / 2.0


def example(schema: dict[str, Any], *, name: str = "value", depth: int = 0) -> Any:
    """A small value that satisfies a JSON schema of the kind that tools and response formats carry."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for union in ("anyOf", "oneOf", "allOf"):
        if schema.get(union):
            return example(schema[union][0], name=name, depth=depth)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        wanted = schema.get("required", list(schema.get("properties", {}))) if depth < 8 else []
        return {key: example(schema.get("properties", {}).get(key, {}), name=key, depth=depth + 1) for key in wanted}
    if kind == "array":
        return [example(schema.get("items", {}), name=name, depth=depth + 1) for _ in range(schema.get("minItems", 1))]
    plain: dict[str, Any] = {
        "integer": schema.get("minimum", 1),
        "number": schema.get("minimum", 1.0),
        "boolean": True,
        "null": None,
    }
    return plain.get(kind, f"simulated {name}")


def arguments_for(schema: dict[str, Any]) -> str:
    """JSON text of arguments for a tool with this parameter schema."""
    return json.dumps(example(schema or {"type": "object"}))


def _digest(prompt: str, seed: int, index: int, number: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{index}\0{number}\0{prompt}".encode(errors="replace")).digest()


def _sentence(digest: bytes) -> str:
    words = (_OPENERS, _SUBJECTS, _VERBS, _OBJECTS, _ENDINGS)
    opener, subject, verb, item, ending = (bank[byte % len(bank)] for bank, byte in zip(words, digest, strict=False))
    return f" {opener}, {subject} {verb} {item} {ending}."
