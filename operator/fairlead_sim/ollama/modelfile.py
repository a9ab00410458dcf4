"""Modelfiles: FROM, PARAMETER, TEMPLATE, SYSTEM, LICENSE. What the simulator cannot do is refused, not passed over."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_COMMAND = re.compile(
    r'(?ms)^[ \t]*(?P<name>[A-Za-z]+)[ \t]+(?:"""(?P<block>.*?)"""|"(?P<quoted>[^"\n]*)"|(?P<plain>[^\n]*))'
)
_COMMENT = re.compile(r"(?m)^[ \t]*#[^\n]*\n?")
#: Parameters of which a Modelfile may have several.
_LISTS = frozenset({"stop"})


class ModelfileError(Exception):
    """What the command prints after `Error: `."""


def read_modelfile(path: Path) -> tuple[dict[str, Any], list[Path]]:
    """The request for /api/create without the model's name, and the GGUF files to send. Raises ModelfileError."""
    request: dict[str, Any] = {}
    files: list[Path] = []
    parameters: dict[str, Any] = {}
    text = _COMMENT.sub("", path.read_text())
    for match in _COMMAND.finditer(text):
        name = match["name"].lower()
        value = next(part for part in (match["block"], match["quoted"], match["plain"]) if part is not None)
        value = value if match["block"] is not None else value.strip()
        if name == "from":
            _add_source(request, files, path.parent, value)
        elif name == "parameter":
            _add_parameter(parameters, value)
        elif name in ("template", "system", "license"):
            request[name] = value
        else:
            raise ModelfileError(f"the simulator does not know the Modelfile command {match['name']}")
    if not files and "from" not in request:
        raise ModelfileError("no FROM line")
    if parameters:
        request["parameters"] = parameters
    return request, files


def _add_source(request: dict[str, Any], files: list[Path], folder: Path, value: str) -> None:
    file = folder / Path(value).expanduser()
    if file.is_file():
        files.append(file)
    elif value.startswith(("/", ".", "~")):
        raise ModelfileError(f"{value}: no such file or directory")
    else:
        request["from"] = value


def _add_parameter(parameters: dict[str, Any], value: str) -> None:
    key, _, raw = value.partition(" ")
    parsed: Any = raw.strip().strip('"')
    if key in _LISTS:
        parameters.setdefault(key, []).append(parsed)
        return
    for convert in (int, float):
        try:
            parsed = convert(raw)
            break
        except ValueError:
            continue
    parameters[key] = {"true": True, "false": False}.get(parsed, parsed) if isinstance(parsed, str) else parsed
