"""Users' patterns: what RE2 does not compile as Envoy asks it, and what would find nothing, is told."""

from __future__ import annotations

import pytest
import yaml
from tests.unit.api.cases import ROUTES

from fairlead.api.patterns import MAX_PROGRAM, compile_pattern, enclose, find_fault, find_pattern_faults
from fairlead.api.resource import LLMRoute
from fairlead.api.validation import parse_llmroute

FAULTS: list[tuple[str, str, str]] = [
    ("a(", "is no RE2 pattern: missing )", ""),
    (r"(a)\1", "invalid escape sequence", "no backreferences"),
    ("(?=a)b", "invalid perl operator", "no look-around"),
    ("[z-a]", "invalid character class range", ""),
    ("a{1001}", "invalid repetition size", ""),
    (r"\Qa.b", r"a quotation with \Q", r"\E"),
    ("a*", "matches the empty text", "+ for *"),
    ("a|", "matches the empty text", ""),
    ("^", "matches the empty text", ""),
    ("(?i)$", "matches the empty text", ""),
    ("a.{900}", f"of which {MAX_PROGRAM} are the most", "repeat less"),
    (r"\pL+", "a class of Unicode", ""),
    (r"[a\PN]", "a class of Unicode", ""),
    (r"\x{e9}", "which is a byte", "the letter itself"),
    (r"\xe9", "which is a byte", ""),
    (r"\351", "which is a byte", ""),
    ("[аб]x", "a set of bytes", "(?:α|β)"),
    ("[]аб]x", "a set of bytes", ""),
    ("[[:alpha:]б]x", "a set of bytes", ""),
    ("аб+", "repeats б", "(?:б) would work"),
    (r"\Qаб\E+", "repeats the end of", ""),
]
GOOD = (
    r"\bMRN-\d{8}\b", r"(?i)project", r"^TOP$", "а|б", "(?:б)+", "機密", r"\[ж\]", r"\x41\x{0041}", r"\Qа.b\E", r"\\pL",
    r"[^\x00-\x7F]{2,4}",    r"[[:^ascii:]]", r"(?s)a.{1,20}b", r"(?P<name>x)", "[]a]b", r"\b", "a.{400}",
)  # fmt: skip


@pytest.mark.parametrize(("pattern", "what", "remedy"), FAULTS)
def test_what_cannot_be_looked_for_is_told(pattern: str, what: str, remedy: str) -> None:
    fault = find_fault(pattern)
    assert fault is not None
    assert what in fault[0]
    assert remedy in fault[1]


@pytest.mark.parametrize("pattern", GOOD)
def test_what_can_be_looked_for_passes(pattern: str) -> None:
    assert find_fault(pattern) is None


def test_a_pattern_is_found_anywhere_and_lines_have_ends() -> None:
    def finds(pattern: str, text: bytes) -> bool:
        return compile_pattern(enclose(pattern)).fullmatch(text) is not None

    assert finds("b|x", b"abc")
    assert finds("^b$", b"a\nb\nc")
    assert not finds("^b$", b"a\nbc")
    assert not finds("a.c", b"a\nc")
    assert finds("(?s)a.c", b"a\nc")
    assert finds("b", b"\xff\xed\xa0\x80\x00b\xc3")
    assert finds("жук", "Bжук".encode())
    assert not finds("B", b"b")


def test_findings_name_detector_and_pattern() -> None:
    policy = "{dataPolicy: {detectors: [{name: a, class: Internal, builtin: Email}, {name: b, class: Internal, patterns: [x, 'a(']}]}}"
    route = parse_llmroute(ROUTES.make("local", {"spec": yaml.safe_load(policy)}))
    assert isinstance(route, LLMRoute)
    (finding,) = find_pattern_faults(route.spec)
    assert str(finding).startswith(
        "spec.dataPolicy.detectors[1].patterns[1]: is no RE2 pattern: missing ): a(; RE2 has"
    )


def test_all_patterns_together_have_a_size() -> None:
    def tell(*repeats: int) -> list[str]:
        found = [{"name": f"d{n}", "class": "Internal", "patterns": [f"a.{{{n}}}z"]} for n in repeats]
        route = parse_llmroute(ROUTES.make("local", {"spec": {"dataPolicy": {"detectors": found}}}))
        assert isinstance(route, LLMRoute)
        return [str(finding) for finding in find_pattern_faults(route.spec)]

    assert tell(480, 481) == []
    (told,) = tell(480, 481, 40)
    assert told.startswith("spec.dataPolicy.detectors: have patterns of 20")


def test_patterns_of_the_table_are_good() -> None:
    """So that what the API server takes here is taken by the operator, too."""
    for case in ROUTES.rows("valid"):
        route = parse_llmroute(case.resource)
        assert isinstance(route, LLMRoute)
        assert list(find_pattern_faults(route.spec)) == []
