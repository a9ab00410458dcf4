"""LoRA adapters that `--lora-modules` names, read as vLLM reads them. Nothing is loaded from where they are."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Adapter:
    """One entry of the flag. `base`: the served name that it says it belongs to, if it says one."""

    name: str
    path: str
    base: str | None = None


class AdaptersAction(argparse.Action):
    """`name=path`, or a JSON object per adapter. As in vLLM a value with a comma is JSON, whatever else is in it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,  # noqa: ARG002 - argparse gives it by name
    ) -> None:
        """Keep the adapters. Ends the process with usage where vLLM does, ValueError where vLLM raises it."""
        items = values if isinstance(values, list) else []
        setattr(namespace, self.dest, [_read(item, parser) for item in items if item])


def _read(item: str, parser: argparse.ArgumentParser) -> Adapter:
    if "=" in item and "," not in item:
        name, path = item.split("=")
        return Adapter(name, path)
    try:
        said = json.loads(item)
    except ValueError:
        parser.error(f"Invalid JSON format for --lora-modules: {item}")
    try:
        return _make(**said)
    except TypeError as error:
        parser.error(f"Invalid fields for --lora-modules: {item} - {error}")


def _make(*, name: str, path: str, base_model_name: str | None = None, is_3d_lora_weight: bool = False) -> Adapter:
    del is_3d_lora_weight  # known, and without effect here
    return Adapter(name, path, base_model_name)
