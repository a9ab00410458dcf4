"""Users' patterns: what each becomes when it is looked for in a text, and what is wrong with one that cannot be.

The CRD cannot compile a pattern, so this is said by `fairlead render` and by the operator. It is asked of RE2, the library with which
the gateway matches, and as Envoy asks it: in Latin-1, which makes a byte of UTF-8 what a pattern takes for a character. What would
mean something else then is refused, so that no pattern is in force that finds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import re2

from fairlead.api.resource import Finding
from fairlead.api.route import LLMRouteSpec

__all__ = ["MAX_PROGRAM", "MAX_PROGRAMS", "compile_pattern", "enclose", "find_fault", "find_pattern_faults"]

#: Instructions of a compiled pattern. Time is linear in the text; this bounds by how much for the worst of patterns.
MAX_PROGRAM: Final = 1_000
#: And of all patterns of a route together.
MAX_PROGRAMS: Final = 2_000
#: What a pattern consists of, as far as it matters here. A class may hold ] as its first sign, and classes such as [:alpha:].
_PARTS: Final = re.compile(
    r"(?P<quoted>\\Q(?:(?!\\E).)*(?:\\E)?)"
    r"|(?P<unicode>\\[pP])"
    r"|(?P<code>\\x(?:\{0*(?:[89A-Fa-f][0-9A-Fa-f]|[1-9A-Fa-f][0-9A-Fa-f]{2,})\}|[89A-Fa-f][0-9A-Fa-f])|\\[23][0-7]{2})"
    r"|\\."
    r"|(?P<set>\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]?)"
    r"|(?P<repeated>[^\x00-\x7F])(?=[*+?{])"
    r"|.",
    re.DOTALL,
)


def enclose(pattern: str) -> str:
    """What matches a whole text exactly if `pattern` is found somewhere in it. ^ and $ are the ends of a line."""
    return rf"\C*(?m:{pattern})\C*"


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> Any:
    """As Envoy does it; texts are bytes. Raises re2.error."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    return re2.compile(pattern.encode(), options)


@lru_cache(maxsize=1024)
def find_fault(pattern: str) -> tuple[str, str] | None:
    """What is wrong with it, and what would work; None if nothing is."""
    try:
        alone = compile_pattern(pattern)
    except re2.error as error:
        remedy = r"RE2 has no look-around and no backreferences; for instance \bMRN-\d{8}\b"
        return f"is no RE2 pattern: {_tell(error)}", remedy
    try:
        whole = compile_pattern(enclose(pattern))
    except re2.error:
        return r"begins a quotation with \Q that does not end", r"end it with \E"
    if compile_pattern(f"(?m:{pattern})").search(b"") is not None:
        return "matches the empty text, and so every request", "+ for * would work, or leave out what is optional"
    size = max(alone.programsize, whole.programsize)
    if size > MAX_PROGRAM:
        return f"becomes a program of {size} instructions, of which {MAX_PROGRAM} are the most", "repeat less of it"
    return _find_bytes(pattern)


def _find_bytes(pattern: str) -> tuple[str, str] | None:
    """What would be taken for single bytes, of which a letter outside of ASCII has two to four."""
    for part in _PARTS.finditer(pattern):
        kind, text = part.lastgroup, part[0]
        if kind == "unicode":
            return f"has {text}, a class of Unicode, which finds nothing in bytes", r"for instance [^\x00-\x7F]{2,4}"
        if kind == "code":
            return f"has {text}, which is a byte there and no letter", "write the letter itself"
        if kind == "repeated":
            return f"repeats {text}, of which only the last byte would be repeated", f"(?:{text}) would work"
        if kind == "set" and {r"\p", r"\P"} & set(re.findall(r"\\.", text)):
            return f"has {text}, a class of Unicode, which finds nothing in bytes", r"for instance [^\x00-\x7F]{2,4}"
        if kind == "set" and not text.isascii():
            return f"has {text}, which would be a set of bytes", "(?:α|β) for [αβ] would work"
        if kind == "quoted" and not text.isascii() and pattern[part.end() : part.end() + 1] in tuple("*+?{"):
            return f"repeats the end of {text}, of which only the last byte would be repeated", "put (?:…) around it"
    return None


def find_pattern_faults(spec: LLMRouteSpec) -> Iterator[Finding]:
    """What is wrong with a route's patterns."""
    detectors = spec.data_policy.detectors if spec.data_policy is not None else ()
    size = 0
    for number, detector in enumerate(detectors):
        for index, pattern in enumerate(detector.patterns):
            fault = find_fault(pattern)
            if fault is not None:
                yield Finding(f"spec.dataPolicy.detectors[{number}].patterns[{index}]", *fault)
            else:
                size += compile_pattern(enclose(pattern)).programsize
    if size > MAX_PROGRAMS:
        what = f"have patterns of {size} instructions together, of which {MAX_PROGRAMS} are the most"
        yield Finding("spec.dataPolicy.detectors", what, "repeat less of them")


def _tell(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said)
