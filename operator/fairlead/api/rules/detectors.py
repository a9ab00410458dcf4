"""Rules of an LLMRoute's detectors: what each looks for, and what the gateway could never find."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, Final

from fairlead.api.rules.table import Rule, cel_list

__all__ = ["DETECTOR_RULES", "MAX_KEYWORDS", "MAX_PATTERNS", "RESERVED_DETECTORS", "is_findable", "is_folded"]

#: What the classifier itself gives as the rule that settled a request's class.
RESERVED_DETECTORS: Final = ("default", "floor", "header", "opaque", "unchecked")
#: Of all detectors together: each is looked for in each request.
MAX_KEYWORDS: Final = 256
MAX_PATTERNS: Final = 16
#: What lies between words or is not seen, as `gateway/lua/fold.lua` has it: a keyword of nothing else could not be compiled, and
#: the gateway would refuse every request. First and last code points.
_UNFINDABLE: Final = (
    (0x01, 0x20), (0x2D, 0x2D), (0x5F, 0x5F), (0x7F, 0xA0), (0xAD, 0xAD), (0x2B0, 0x36F), (0x483, 0x489), (0x58A, 0x58A),
    (0x5BE, 0x5BE), (0x61C, 0x61C), (0x115F, 0x1160), (0x1400, 0x1400), (0x1680, 0x1680), (0x17B4, 0x17B5), (0x1806, 0x180F),
    (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x2000, 0x206F), (0x20D0, 0x20FF), (0x2212, 0x2212), (0x2796, 0x2796), (0x2800, 0x2800),
    (0x2E17, 0x2E5D), (0x3000, 0x303F), (0x30A0, 0x30A0), (0x3164, 0x3164), (0xFE00, 0xFE6F), (0xFEFF, 0xFEFF), (0xFF0D, 0xFF0D),
    (0xFF3F, 0xFF3F), (0xFFA0, 0xFFA0), (0xFFF9, 0xFFFB), (0x10EAD, 0x10EAD), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
)  # fmt: skip
_FINDABLE: Final = re.compile("[^" + "".join(f"\\U{a:08X}-\\U{b:08X}" for a, b in _UNFINDABLE) + "]")
#: CEL resolves the escapes before RE2 sees them; as a range, - needs none of its own.
_CEL_FINDABLE: Final = "[^" + "".join(f"\\U{a:08X}-\\U{b:08X}" for a, b in _UNFINDABLE) + "]"

#: Letters and signs that are never in the text which patterns are matched with, since `gateway/lua/fold.lua` writes others for them:
#: Latin ones with accents, capitals of Greek and Cyrillic, marks, dashes, what nobody sees, full width. First and last code points.
_FOLDED: Final = (
    (0x7F, 0xA0), (0xAD, 0xAD), (0xB2, 0xB3), (0xB9, 0xB9), (0xC0, 0xC5), (0xC7, 0xCF), (0xD1, 0xD6), (0xD9, 0xDD), (0xE0, 0xE5),
    (0xE7, 0xEF), (0xF1, 0xF6), (0xF9, 0xFD), (0xFF, 0x10F), (0x112, 0x125), (0x128, 0x130), (0x134, 0x137), (0x139, 0x13E),
    (0x143, 0x148), (0x14C, 0x151), (0x154, 0x165), (0x168, 0x17E), (0x300, 0x36F), (0x391, 0x3A9), (0x400, 0x42F), (0x483, 0x489),
    (0x660, 0x669), (0x6F0, 0x6F9), (0x966, 0x96F), (0x2000, 0x2015), (0x2028, 0x202F), (0x205F, 0x206F), (0x2212, 0x2212),
    (0x3000, 0x3000), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFF01, 0xFF5E), (0x1D400, 0x1D6A3),
)  # fmt: skip
_UNFOLDED: Final = re.compile("[^" + "".join(f"\\U{a:08X}-\\U{b:08X}" for a, b in _FOLDED) + "]*")
_CEL_UNFOLDED: Final = "^[^" + "".join(f"\\U{a:08X}-\\U{b:08X}" for a, b in _FOLDED) + "]*$"


def is_findable(keyword: str) -> bool:
    """True when something of the keyword can be looked for."""
    return _FINDABLE.search(keyword) is not None


def is_folded(pattern: str) -> bool:
    """True when nothing in the pattern is a sign that its text cannot have."""
    return _UNFOLDED.fullmatch(pattern) is not None


def _explain_unfolded(pattern: str) -> tuple[str, str]:
    sign = next(char for char in pattern if not is_folded(char))
    plain = unicodedata.normalize("NFKD", sign)[0].lower() if sign.isalpha() else ""
    what = f"has U+{ord(sign):04X}, which is not in the text that patterns are matched with"
    return what, f"{plain} would work" if plain and is_folded(plain) else "write it without accents and in ASCII"


_DETECTOR_KINDS: Final = ("keywords", "patterns", "builtin")


def _kinds_of(detector: Any) -> list[str]:
    return [kind for kind in _DETECTOR_KINDS if getattr(detector, kind)]


def _explain_detector(detector: Any) -> tuple[str, str]:
    kinds = _kinds_of(detector)
    if not kinds:
        return (
            "neither keywords nor patterns nor builtin is given",
            "for instance keywords: [bluebird], or builtin: PaymentCard",
        )
    given = "all three of keywords, patterns and builtin" if len(kinds) == 3 else f"both {' and '.join(kinds)}"
    return f"{given} are given", "leave all but one out, or make several detectors of it"


def _count_keywords(policy: Any) -> int:
    return sum(len(detector.keywords) for detector in policy.detectors)


def _count_patterns(policy: Any) -> int:
    return sum(len(detector.patterns) for detector in policy.detectors)


DETECTOR_RULES: Final = (
    Rule(
        id="detectors.kind",
        at="spec.dataPolicy.detectors[*]",
        holds=lambda detector: len(_kinds_of(detector)) == 1,
        cel="[has(self.keywords) && size(self.keywords) > 0, has(self.patterns) && size(self.patterns) > 0,"
        " has(self.builtin)].exists_one(given, given)",
        message="exactly one of keywords, patterns and builtin must be given",
        remedy="give one of the three",
        explain=_explain_detector,
    ),
    Rule(
        id="detectors.name.reserved",
        at="spec.dataPolicy.detectors[*].name",
        holds=lambda name: name not in RESERVED_DETECTORS,
        cel=f"!(self in {cel_list(RESERVED_DETECTORS)})",
        message="default, floor, header, opaque and unchecked are what the gateway itself calls the reasons of a class",
        remedy="take another name",
        explain=lambda name: (
            f"{name} is what the gateway itself calls a reason of a class",
            f"my-{name} would work",
        ),
    ),
    Rule(
        id="detectors.keywords.findable",
        at="spec.dataPolicy.detectors[*].keywords[*]",
        holds=is_findable,
        cel=f"self.matches('{_CEL_FINDABLE}')",
        message="has nothing that can be found: spaces, - and _ only stand between words",
        remedy="write the word itself, for instance bluebird",
    ),
    Rule(
        id="detectors.keywords.total",
        at="spec.dataPolicy",
        field=".detectors",
        holds=lambda policy: _count_keywords(policy) <= MAX_KEYWORDS,
        cel="!has(self.detectors) || self.detectors.map(d, has(d.keywords) ? size(d.keywords) : 0).sum()"
        f" <= {MAX_KEYWORDS}",
        message=f"have more than {MAX_KEYWORDS} keywords together, and each is looked for in each request",
        remedy=f"{MAX_KEYWORDS} would work",
        explain=lambda policy: (
            f"have {_count_keywords(policy)} keywords together, and each is looked for in each request",
            f"{MAX_KEYWORDS} would work",
        ),
    ),
    Rule(
        id="detectors.patterns.folded",
        at="spec.dataPolicy.detectors[*].patterns[*]",
        holds=is_folded,
        cel=f"self.matches('{_CEL_UNFOLDED}')",
        message="has a sign that is not in the text which patterns are matched with: it has no accents, no signs that nobody sees, and"
        " Greek and Cyrillic in small letters",
        remedy="write it without accents and in ASCII",
        explain=_explain_unfolded,
    ),
    Rule(
        id="detectors.patterns.total",
        at="spec.dataPolicy",
        field=".detectors",
        holds=lambda policy: _count_patterns(policy) <= MAX_PATTERNS,
        cel="!has(self.detectors) || self.detectors.map(d, has(d.patterns) ? size(d.patterns) : 0).sum()"
        f" <= {MAX_PATTERNS}",
        message=f"have more than {MAX_PATTERNS} patterns together, and each is looked for in each request",
        remedy=f"{MAX_PATTERNS} would work",
        explain=lambda policy: (
            f"have {_count_patterns(policy)} patterns together, and each is looked for in each request",
            f"{MAX_PATTERNS} would work",
        ),
    ),
)
