"""What a validation rule is: one row that the CRD (as CEL) and the Python verdict both read, so that they agree.

A rule hangs at a node of the schema and speaks of that node only. `cel` and `holds` are the same sentence in two languages;
the agreement test asks both about every example. What CEL cannot hold stands in `beyond.py`, with the reason.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Predicate = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Root:
    """The node that rules at "" see: the part of metadata that CEL sees, too."""

    name: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `holds(node)` is True when the object is right.

    `at` is the schema node (`spec.files[*]`), `field` what the finding points to below it (`.path`). `message` says what is
    wrong and `remedy` what would work; `explain` says both for a node that breaks the rule, with its values.
    `cel_message` is the CEL expression for the same, where the values help. `pattern` stands in for `cel` where CEL would
    cost too much: the schema's own keyword then says the same.
    """

    id: str
    at: str
    holds: Predicate
    cel: str
    message: str
    remedy: str
    field: str = ""
    explain: Callable[[Any], tuple[str, str]] | None = None
    cel_message: str = ""
    pattern: str = ""

    def describe(self, node: Any) -> tuple[str, str]:
        """What is wrong with `node`, and what would work."""
        return self.explain(node) if self.explain else (self.message, self.remedy)

    @property
    def path(self) -> str:
        """Where findings of this rule point to, with `[*]` for any index."""
        return f"{self.at}{self.field}"


def quote(text: str) -> str:
    """A CEL string literal. Raises ValueError for a text that would have to be escaped: no rule needs one."""
    if "'" in text or "\\" in text:
        raise ValueError(f"{text!r} cannot be a literal of a rule")
    return f"'{text}'"


def cel_list(values: Iterable[str]) -> str:
    """A CEL list of string literals."""
    return "[" + ", ".join(quote(value) for value in values) + "]"


def matches(pattern: str, subject: str = "self") -> str:
    """CEL for: the whole of `subject` matches `pattern` (RE2 and Python agree on the patterns used here)."""
    return f"{subject}.matches(r'^({pattern})$')"


def pattern_rule(
    rule_id: str,
    at: str,
    pattern: str,
    message: str,
    remedy: str,
    *,
    explain: Callable[[Any], tuple[str, str]] | None = None,
    empty: bool = False,
) -> Rule:
    """The string at `at` matches `pattern` as a whole; with `empty`, the empty string will do, too."""
    compiled = re.compile(pattern, re.ASCII)
    return Rule(
        id=rule_id,
        at=at,
        holds=lambda text: (empty and text == "") or compiled.fullmatch(text) is not None,
        cel=("self == '' || " if empty else "") + matches(pattern),
        message=message,
        remedy=remedy,
        explain=explain,
    )


def nearest(value: str, known: Sequence[str]) -> str | None:
    """The known value that `value` most likely means; None when nothing is near."""
    plain = {re.sub(r"[^a-z0-9]", "", k.lower()): k for k in reversed(known)}
    wanted = re.sub(r"[^a-z0-9]", "", value.lower())
    found = difflib.get_close_matches(wanted, plain, n=1, cutoff=0.6)
    return plain[found[0]] if found else None


def choose(value: str, known: Sequence[str]) -> str:
    """A remedy: the nearest known value first, then all of them."""
    near = nearest(value, known)
    listed = ", ".join(known)
    return f"did you mean {near}? Known: {listed}" if near else f"one of {listed}"
