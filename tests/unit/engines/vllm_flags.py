"""An oracle for vLLM's argument lines: what the parser of a given version would say, from the dumped flag lists.

It knows the rules of argparse and of vLLM's own parser, not fairlead: nothing of the engine file or of the simulator is
imported here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "data" / "vllm"
_SIZE = re.compile(r"\d+|\d+(\.\d+)?[kmgt]|\d+[KMGT]")


def dumped_versions() -> list[str]:
    """Versions that there is a list for, oldest first."""
    return sorted(
        (path.stem for path in FOLDER.glob("*.json")), key=lambda text: [int(part) for part in text.split(".")]
    )


@dataclass(frozen=True)
class FlagList:
    """One dumped list: every spelling of every option."""

    version: str
    quantization: frozenset[str]
    kv_cache_dtypes: frozenset[str]
    flags: dict[str, dict[str, Any]]


@lru_cache
def read_flags(version: str) -> FlagList:
    """The list of exactly this version; FileNotFoundError when it was not dumped."""
    content = json.loads((FOLDER / f"{version}.json").read_text())
    spellings = {name: flag for flag in content["flags"] for name in [*flag["names"], *flag.get("negative", ())]}
    return FlagList(version, frozenset(content["quantization"]), frozenset(content["kvCacheDtypes"]), spellings)


def check_vllm_args(version: str, args: list[str]) -> list[str]:
    """What `vllm serve ARGS` of `version` would refuse, or take with a warning; empty when the line is good.

    Stricter than argparse where fairlead must be: no abbreviations, no option twice, no deprecated option, a model.
    """
    known = read_flags(version)
    findings: list[str] = []
    positional: list[str] = []
    seen: set[str] = set()
    index = 0
    while index < len(args):
        token = args[index]
        index += 1
        if not _is_option(token):
            positional.append(token)
            continue
        name, equals, inline = _normalise(token).partition("=")
        flag = known.flags.get(name.split(".")[0])
        if flag is None:
            findings.append(f"vLLM {version} has no option {name}")
            index += 0 if equals else len(_values_after(args, index)[:1])  # one finding for one mistake
            continue
        if flag["names"][0] in seen and "." not in name:
            findings.append(f"{name} is given twice")
        seen.add(flag["names"][0])
        values = [inline] if equals else _values_after(args, index)
        if not equals:
            if flag["values"] == "none":
                values = []
            elif flag["values"] in ("one", "optional"):
                values = values[:1]
            index += len(values)
        findings += _check_flag(known, name, flag, values)
    if len(positional) != 1:
        findings.append(f"one model is expected, not {positional}")
    return findings


def _is_option(token: str) -> bool:
    """argparse: a dash and something that is not a negative number."""
    return (
        token.startswith("-")
        and token != "-"
        and not re.fullmatch(r"-\d+|-\d*\.\d+", token)
        and " " not in token.partition("=")[0]
    )


def _normalise(token: str) -> str:
    name, equals, value = token.partition("=")
    head, dot, tail = name.partition(".")
    return (head.replace("_", "-") if head.startswith("--") else head) + dot + tail + equals + value


def _values_after(args: list[str], index: int) -> list[str]:
    values: list[str] = []
    while index < len(args) and not _is_option(args[index]):
        values.append(args[index])
        index += 1
    return values


def _check_flag(known: FlagList, name: str, flag: dict[str, Any], values: list[str]) -> list[str]:
    findings = [f"{name} is deprecated in vLLM {known.version}"] if flag.get("deprecated") else []
    if flag["values"] == "none" and values:
        findings.append(f"{name} takes no value")
    if flag["values"] == "one" and not values:
        findings.append(f"{name} needs a value")
    if "." in name:
        return findings  # a key of a JSON option: any value
    choices = flag.get("choices")
    if "--quantization" in flag["names"]:
        choices = known.quantization
    if "--kv-cache-dtype" in flag["names"]:
        choices = known.kv_cache_dtypes
    for value in values:
        if choices is not None and value not in choices:
            findings.append(f"{name} of vLLM {known.version} does not take {value!r}, but {sorted(choices)}")
        elif not _has_type(value, flag["type"]):
            findings.append(f"{name}: {value!r} is not {flag['type']}")
    return findings


def _has_type(value: str, kind: str) -> bool:
    if kind.startswith("optional "):
        return value in ("", "None") or _has_type(value, kind.removeprefix("optional "))
    if kind == "size or auto":
        return value in ("-1", "auto") or _has_type(value, "size")
    if kind == "size":
        return _SIZE.fullmatch(value) is not None
    try:
        if kind in ("int", "float"):
            {"int": int, "float": float}[kind](value)
        elif kind == "json":
            json.loads(value)
    except ValueError:
        return False
    return True
