"""Manifests as kubectl reads them: many documents in a file, JSON's types only, no key twice.

PyYAML and kubectl do not agree on every word (`10:30`, `2024-01-31`, `y`), and what kubectl sends is what counts. Messages
never quote the text of a file: a Secret may stand in it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

__all__ = ["Document", "InputError", "is_plain_text", "read_documents"]

Json = dict[str, Any]


class InputError(Exception):
    """A file that cannot be used at all. The message names the file and the line."""


@dataclass(frozen=True, slots=True)
class Document:
    """One object of a file. `source` is what messages call the file, `number` counts documents from 1."""

    source: str
    number: int
    body: Json

    @property
    def kind(self) -> str:
        """The object's kind, or `?`."""
        return str(self.body.get("kind") or "?")

    @property
    def name(self) -> str:
        """The object's name, or where it stands."""
        metadata = self.body.get("metadata")
        name = metadata.get("name") if isinstance(metadata, Mapping) else None
        return name if isinstance(name, str) and name else f"(document {self.number} of {self.source})"

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


class _Loader(yaml.SafeLoader):
    """SafeLoader with kubectl's idea of plain words."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        self.flatten_mapping(node)
        mapping: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = self._key_text(self.construct_object(key_node, deep=True))
            if key is None:
                raise yaml.constructor.ConstructorError(None, None, "a key is null", key_node.start_mark)
            if key in mapping and not getattr(node, "merged", False):
                raise yaml.constructor.ConstructorError(None, None, "a key stands twice", key_node.start_mark)
            mapping[key] = self.construct_object(value_node, deep=deep)
        return mapping

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """With a merge key (`<<`) the object's own keys may stand a second time: they win."""
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            node.merged = True  # type: ignore[attr-defined]
        super().flatten_mapping(node)

    @staticmethod
    def _key_text(key: Any) -> str | None:
        """Keys are text in JSON."""
        if isinstance(key, bool):
            return str(key).lower()
        return None if key is None else str(key)


_INTEGER = re.compile(r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BOOLEAN = re.compile("y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF")


def _construct_integer(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    text = str(loader.construct_scalar(node)).replace("_", "")
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    base = next((b for prefix, b in (("0b", 2), ("0o", 8), ("0x", 16)) if digits.startswith(prefix)), 0)
    value = int(digits[2:], base) if base else int(digits, 8 if len(digits) > 1 and digits.startswith("0") else 10)
    return sign * value if value < 2**64 else float(sign * value)


def _construct_text(loader: _Loader, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


def _construct_boolean(loader: _Loader, node: yaml.ScalarNode) -> bool:
    return str(loader.construct_scalar(node)).lower() in ("y", "yes", "true", "on")


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float | int | str:
    text = str(loader.construct_scalar(node))
    value = float(text)
    if math.isinf(value):
        return text
    return int(value) if value.is_integer() and abs(value) < 2**63 else value  # kubectl sends 2.0 as 2


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rsplit(":", 1)[-1] in ("null", "merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in (
    ("bool", _BOOLEAN, "yYnNtTfFoO"),
    ("int", _INTEGER, "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern.pattern})$"), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_integer)
_Loader.add_constructor("tag:yaml.org,2002:bool", _construct_boolean)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _construct_text)


def is_plain_text(word: str) -> bool:
    """False when a plain `word` in YAML is a number or a boolean to kubectl."""
    return not any(pattern.fullmatch(word) for pattern in (_INTEGER, _FLOAT, _BOOLEAN))


def read_documents(text: str, source: str) -> list[Document]:
    """The objects of a file; a List counts as its items. Raises InputError when there are none, or when it is not YAML."""
    documents: list[Document] = []
    try:
        for body in yaml.load_all(text, Loader=_Loader):
            documents += [Document(source, len(documents) + 1, item) for item in _unfold(body, source)]
    except yaml.YAMLError as error:
        # A reader's error quotes what it could not read; the others keep to what they expected.
        problem = getattr(error, "problem", None) or "it holds what cannot be read"
        raise InputError(f"{source}{_where(error)}: is not YAML: {problem}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{source}: is not YAML that JSON could hold") from None
    if not documents:
        raise InputError(f"{source}: is empty")
    return documents


def _unfold(body: Any, source: str) -> Iterator[Json]:
    if body is None:
        return
    if not isinstance(body, dict):
        raise InputError(f"{source}: is not an object, or holds something that is none")
    if body.get("kind") == "List" and isinstance(body.get("items"), list):
        for item in body["items"]:
            yield from _unfold(item, source)
    else:
        yield body


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return f":{mark.line + 1}:{mark.column + 1}" if mark else ""
