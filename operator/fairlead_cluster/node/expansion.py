"""`$(NAME)` in command, args and env values, by the rules of Kubernetes (third_party/forked/golang/expansion)."""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$(?:(\$)|\(([^)]*)\)|(\()|(.))", re.DOTALL)


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by its value; unknown names stay as they are; `$$` is one `$`, so `$$(NAME)` is not replaced."""

    def replacement(match: re.Match[str]) -> str:
        escaped, name, unclosed, other = match.groups()
        if escaped:
            return "$"
        if name is not None:
            return variables.get(name, f"$({name})")
        return f"${unclosed or other}"

    return _REFERENCE.sub(replacement, text)
