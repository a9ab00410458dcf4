"""Objects as YAML that people like to read and kubectl takes: keys as the builders put them, long texts as blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from fairlead.rendering.documents import is_plain_text

__all__ = ["to_yaml"]


class _Dumper(yaml.SafeDumper):
    """Lists indented under their key, texts of several lines as blocks, no anchors."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - PyYAML's signature
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None if is_plain_text(text) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def to_yaml(objects: Sequence[Any]) -> str:
    """Documents, each begun by `---`; the same objects always give the same text."""
    return "".join(
        "---\n" + yaml.dump(item, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120) for item in objects
    )
