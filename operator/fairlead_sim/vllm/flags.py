"""The command line of `vllm serve`, judged as vLLM judges it: an unknown flag ends the process with exit code 2.

The flags are data (`vllm_flags.json`), dumped from the parser of the vLLM version that is imitated; nothing here knows
a flag by name except those that vLLM's own parser treats specially.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from fairlead_sim.vllm.adapters import AdaptersAction

FLAGS_FILE = Path(__file__).resolve().parent.parent / "vllm_flags.json"

_SIZE = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT])")
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


class CommandLineError(ValueError):
    """A command line that vLLM refuses with an exception (exit code 1) rather than with usage (exit code 2)."""


def parse_size(text: str) -> int:
    """vLLM's human readable integers: 1k = 1,000, 1K = 1,024, 25.6k = 25,600. Raises as argparse expects."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        return int(text)
    number, suffix = match.groups()
    if suffix.islower():
        return int(float(number) * 1000 ** _POWERS[suffix])
    if "." in number:
        raise argparse.ArgumentTypeError(
            f"Decimals are not allowed with binary suffixes like {suffix}. Did you mean to use "
            f"{number}{suffix.lower()} instead?"
        )
    return int(number) * int(1024 ** _POWERS[suffix.lower()])


def parse_size_or_auto(text: str) -> int:
    """As `parse_size`; "auto" and "-1" are -1."""
    return -1 if text.strip().lower() in ("-1", "auto") else parse_size(text)


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"Value {text} cannot be converted to <function loads>.") from error


def _json_or_str(text: str) -> Any:
    return _parse_json(text) if re.match(r"(?s)^\s*{.*}\s*$", text) else text


_CONVERTERS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "json": _parse_json,
    "json or str": _json_or_str,
    "size": parse_size,
    "size or auto": parse_size_or_auto,
}


def _converter(type_name: str) -> Callable[[str], Any]:
    if type_name.startswith("optional "):
        inner = _converter(type_name.removeprefix("optional "))

        def convert(text: str) -> Any:
            return None if text in ("", "None") else inner(text)

        convert.__name__ = type_name.removeprefix("optional ")
        return convert
    return _CONVERTERS.get(type_name, str)


class ServeParser(argparse.ArgumentParser):
    """The `serve` subcommand's parser: every flag of the data file."""

    def error(self, message: str) -> NoReturn:
        """Usage and message on stderr, exit code 2; with vLLM's hint for the former --task."""
        if re.search(r"unrecognized arguments:.*(^|\s)--task(=|\s|$)", message):
            message += (
                "\n\nHint: --task is not a vllm serve option. For embedding, reranking, or reward models, use "
                "--runner pooling. To adapt a generative model for pooling, also use --convert embed, "
                "--convert classify, or --convert reward."
            )
        super().error(message)


def load_flags(path: Path = FLAGS_FILE) -> dict[str, Any]:
    """The flag list of one vLLM version."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def make_parser(flags: dict[str, Any]) -> argparse.ArgumentParser:
    """The parser of `vllm` with its subcommand `serve`."""
    parser = ServeParser(prog="vllm", description="vLLM CLI (simulated by fairlead-sim)")
    parser.add_argument("-v", "--version", action="version", version=flags["version"])
    commands = parser.add_subparsers(required=True, dest="subparser", metavar="{serve}")
    serve = commands.add_parser("serve", prog="vllm serve", usage="vllm serve [model_tag] [options]")
    serve.add_argument("model_tag", nargs="?")
    for flag in flags["flags"]:
        if "--help" not in flag["names"]:
            _add_flag(serve, flag)
    return parser


def _add_flag(parser: argparse.ArgumentParser, flag: dict[str, Any]) -> None:
    long_names = [name for name in flag["names"] if name.startswith("--")]
    dest = (long_names or flag["names"])[0].lstrip("-").replace("-", "_")
    if flag["values"] == "none":
        # The default is vLLM's business, and differs by flag: absent here means "not given".
        parser.add_argument(*flag["names"], dest=dest, action="store_const", const=True, default=None)
        if flag.get("negative"):
            parser.add_argument(*flag["negative"], dest=dest, action="store_const", const=False, default=None)
        return
    nargs: dict[str, Any] = {"one": {}, "optional": {"nargs": "?"}, "many": {"nargs": "*"}}[flag["values"]]
    if dest == "lora_modules":
        nargs["action"] = AdaptersAction
    choices = flag.get("choices")
    convert = _converter(flag["type"])
    if choices and convert in (int, float):
        nargs["choices"] = [convert(choice) for choice in choices]
    elif choices:
        nargs["choices"] = choices
    parser.add_argument(*flag["names"], dest=dest, type=convert, default=None, **nargs)


def parse(arguments: Sequence[str], flags: dict[str, Any]) -> argparse.Namespace:
    """Parse what follows `vllm`. Ends the process as vLLM's parser does; CommandLineError where vLLM raises."""
    given = list(arguments)
    if given[:1] == ["serve"]:
        given = _move_model_to_front(given)
        if "--config" in given:
            given = _insert_config_file(given)
    try:
        return make_parser(flags).parse_args(_merge_dotted(_normalise(given)))
    except ValueError as error:  # of an action: argparse itself turns only those of a type into usage
        raise CommandLineError(f"ValueError: {error}") from error


def _move_model_to_front(given: list[str]) -> list[str]:
    """`vllm serve --flag x --model M` is `vllm serve M --flag x`."""
    for index, argument in enumerate(given):
        if argument == "--model" and index + 1 < len(given):
            return ["serve", given[index + 1], *given[1:index], *given[index + 2 :]]
        if argument.startswith("--model="):
            return ["serve", argument.removeprefix("--model="), *given[1:index], *given[index + 1 :]]
    served = any(re.match(r"^--served[-_]model[-_]name(=|$)", argument) for argument in given)
    configured = any(re.match(r"^--config(=|$)", argument) for argument in given)
    if len(given) > 1 and given[1].startswith("-") and served and not configured:
        raise CommandLineError(
            "`model` should be provided as the first positional argument when using `vllm serve`. "
            "i.e. `vllm serve <model> --<arg> <value>`."
        )
    return given


def _insert_config_file(given: list[str]) -> list[str]:
    """Flags of the file go right behind the model, so that those of the command line win."""
    index = given.index("--config")
    if index == len(given) - 1:
        raise CommandLineError("No config file specified! Please check your command-line arguments.")
    path = given[index + 1]
    if not path.endswith((".yaml", ".yml")):
        raise CommandLineError(f"Config file must be of a yaml/yml type. {path.split('.')[-1]} supplied")
    configured: list[str] = []
    model: list[str] = []
    for key, value in (yaml.safe_load(Path(path).read_text()) or {}).items():
        if key == "model":
            model = [str(value)]
        elif isinstance(value, bool):
            configured += [f"--{key}"] if value else []
        elif isinstance(value, list):
            configured += [f"--{key}", *map(str, value)] if value else []
        elif isinstance(value, dict):
            configured += [f"--{key}", json.dumps(value)]
        else:
            configured += [f"--{key}", str(value)]
    rest = [*given[1:index], *given[index + 2 :]]
    if len(given) > 1 and not given[1].startswith("-"):
        return ["serve", given[1], *configured, *rest[1:]]
    if not model:
        raise CommandLineError(
            "No model specified! Please specify model either as a positional argument or in a config file."
        )
    return ["serve", *model, *configured, *rest]


def _normalise(given: list[str]) -> list[str]:
    """Underscores in flag names are dashes, up to the first dot; -O3 is --optimization-level 3."""
    result: list[str] = []
    for argument in given:
        if argument.startswith("--"):
            name, equals, value = argument.partition("=")
            head, dot, tail = name.partition(".")
            result.append("--" + head[2:].replace("_", "-") + dot + tail + equals + value)
        elif argument.startswith("-O") and argument != "-O":
            result += ["--optimization-level", argument[3:] if argument[2] == "=" else argument[2:]]
        else:
            result.append(argument)
    return result


def _merge_dotted(given: list[str]) -> list[str]:
    """`--x.a.b 1 --x.c 2` is `--x '{"a": {"b": 1}, "c": 2}'`; `--x.a+ p,q` adds to a list."""
    kept: list[str] = []
    merged: dict[str, dict[str, Any]] = {}
    index = 0
    while index < len(given):
        argument = given[index]
        index += 1
        name, equals, value = argument.partition("=")
        if not name.startswith("-") or "." not in name:
            kept.append(argument)
            continue
        if not equals:
            value = given[index] if index < len(given) else ""
            index += 1
        if name.endswith("+"):
            name, value = name[:-1], json.dumps(value.split(","))
        flag, *keys = name.split(".")
        nested: Any = _loose_value(value)
        for key in reversed(keys):
            nested = {key: nested}
        _update(merged.setdefault(flag, {}), nested)
    for flag, content in merged.items():
        kept += [flag, json.dumps(content)]
    return kept


def _loose_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return parse_size(text)
    except (ValueError, argparse.ArgumentTypeError):
        return text


def _update(original: dict[str, Any], update: dict[str, Any]) -> None:
    for key, value in update.items():
        if isinstance(value, dict) and isinstance(original.get(key), dict):
            _update(original[key], value)
        elif isinstance(value, list) and isinstance(original.get(key), list):
            original[key] += value
        else:
            original[key] = value
