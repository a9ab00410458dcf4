"""YAML in which most sections are the same every time: each is parsed once, however many custom resources are rendered.

Reading what a template printed costs more than printing it, and of all that a vLLM file prints only the arguments differ between
two models. The answer is that of `yaml.load`, or the whole is read by it: what cannot be cut between two lines is not cut.
What differs is mostly printed by `{{ }}`, which prints JSON: a section of one line of it is read as what it is.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import orjson
import yaml

__all__ = ["load_sections"]

_SECTIONS_KEPT = 256
#: Where one top-level key ends and the next begins.
_CUT = re.compile(r"(?<=\n)(?=[A-Za-z])")
#: Documents, directives, anchors and merge keys reach over sections.
_WHOLE = re.compile(r"^(?:---|\.\.\.|%)|&|<<", re.MULTILINE)
#: A mapping that is indented as a whole has its cuts elsewhere.
_INDENTED = re.compile(r"(?:[ \t]*(?:#.*)?\n)*[ \t]+[^ \t\n#]")
#: `key: JSON` of tokens that mean the same in YAML. Not there: escapes, what is not ASCII, numbers that may be no integers of 64
#: bits, strings too long for a key, and the words that YAML takes for a truth value where we want a key.
_JSON_LINE = re.compile(
    r"(?!(?:y|n|yes|no|on|off|true|false|null):)([A-Za-z]\w*): "
    r"""((?:"[ !#-\[\]-~]{0,1000}"|[][{},: ]|-?\d{1,18}(?![\d.eE])|true|false|null)+)\n\Z""",
    re.ASCII | re.IGNORECASE,
)


def load_sections(text: str) -> Any:
    """What `yaml.load` with CSafeLoader makes of it; nobody may change the answer. Raises yaml.YAMLError."""
    if not _WHOLE.search(text) and not _INDENTED.match(text):
        merged: dict[Any, Any] = {}
        try:
            for section in _CUT.split(text):
                merged |= _load_section(section)
        except (yaml.YAMLError, _NotASectionError):
            pass  # a value that spans sections, or a mistake: the whole text knows which
        else:
            return merged
    return yaml.load(text, Loader=yaml.CSafeLoader)


class _NotASectionError(Exception):
    """Cut at this place, it is no mapping."""


@lru_cache(maxsize=_SECTIONS_KEPT)
def _load_section(section: str) -> dict[Any, Any]:
    line = _JSON_LINE.match(section)
    if line is not None:
        try:
            return {line[1]: orjson.loads(line[2])}
        except orjson.JSONDecodeError:
            pass  # flow style with plain words
    value = yaml.load(section, Loader=yaml.CSafeLoader)
    if not isinstance(value, dict):
        raise _NotASectionError
    return value
