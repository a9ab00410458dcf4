"""The table of the chart's values, from the comments in values.yaml (`# -- text` above a key) and its defaults."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
VALUES = "charts/fairlead/values.yaml"
_KEY = re.compile(r"^(\s*)([A-Za-z]\w*):")


def make_table() -> str:
    """One row per commented key. Raises ValueError for a comment that belongs to no key."""
    text = (ROOT / VALUES).read_text()
    values = yaml.safe_load(text)
    rows = ["| Value | Default | Meaning |", "| --- | --- | --- |"]
    for path, comment in read_comments(text):
        default: Any = values
        for key in path:
            default = default[key]
        rows.append(f"| `{'.'.join(path)}` | `{json.dumps(default)}` | {comment.replace('|', chr(92) + '|')} |")
    return "\n".join(rows) + "\n"


def read_comments(text: str) -> list[tuple[tuple[str, ...], str]]:
    """(path of the key, comment) in the order of the file."""
    found: list[tuple[tuple[str, ...], str]] = []
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            comment = [stripped.removeprefix("# -- ")]
        elif stripped.startswith("#") and comment:
            comment.append(stripped.removeprefix("#").strip())
        elif match := _KEY.match(line):
            indent, key = len(match[1]), match[2]
            path = [(depth, name) for depth, name in path if depth < indent] + [(indent, key)]
            if comment:
                found.append((tuple(name for _, name in path), " ".join(comment)))
                comment = []
        elif comment:
            raise ValueError(f"{VALUES}: this comment belongs to no key: {comment[0]}")
    return found
