"""Which flags each vLLM version's own `vllm serve` parser takes: run from the source distribution, not remembered.

An unknown flag kills the engine container, and vLLM adds, renames and drops flags every two weeks. So the argument
lines that fairlead renders are judged by lists which the parsers themselves produced. This script makes them anew:

    python tests/data/vllm/dump_flags.py 0.33.0 0.32.0 ...

It fetches the sdist with pip (its index, its cache, the hash that the index names), unpacks the Python files into a
temporary directory, makes a virtual environment with the few real packages that the parser needs, and starts itself
there with `--parse`: vLLM's own docs generator (`generate_argparse.py` of the same sdist) shows how to import the
parser without torch, and `load_parser` does the same. Nothing of vLLM is built and no GPU is needed.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import typing
import venv
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock, patch

HERE = Path(__file__).parent
#: What the parser really uses at import time; everything else (torch, transformers, …) is replaced by mocks.
PARSER_PACKAGES = ("pydantic==2.14.4", "regex==2026.11.19", "msgspec==0.22.0", "cloudpickle==3.1.3", "pyyaml==6.0.4",
                   "packaging==26.4", "typing_extensions==4.16.0", "numpy==2.4.6", "cachetools==8.0.2")  # fmt: skip
MOCKS_AT_MOST = 400
MARK = "\n---\n"  # imports may print; the result follows the last one


def fetch_sdist(version: str, folder: Path) -> tuple[Path, str]:
    """The sdist of `version` in `folder`, and its sha256 as the index names it.

    `pip download` would run setup.py for the metadata, which imports torch; so pip's own finder and session are used.
    """
    from pip._internal.commands import create_command

    command: Any = create_command("download")
    options, _ = command.parse_args(["--no-binary", ":all:", "vllm"])
    with command.main_context():
        session = command._build_session(options)
        finder = command._build_package_finder(options, session)
        links = {
            str(found.version): found.link
            for found in finder.find_all_candidates("vllm")
            if found.link.filename.endswith(".tar.gz")
        }
        if version not in links:
            raise SystemExit(f"vllm {version} has no sdist; there are: {', '.join(links)}")
        link = links[version]
        response = session.get(link.url_without_fragment, headers={"Accept-Encoding": "identity"})
        response.raise_for_status()
    digest = hashlib.sha256(response.content).hexdigest()
    if digest != link.hash:
        raise SystemExit(f"{link.filename}: sha256 is {digest}, the index says {link.hash}")
    sdist = folder / link.filename
    sdist.write_bytes(response.content)
    return sdist, digest


def unpack_python_files(sdist: Path, folder: Path) -> Path:
    """Unpack the .py and .txt files of `sdist` below `folder`; the root directory of the sources."""
    with tarfile.open(sdist) as archive:
        members = [m for m in archive.getmembers() if m.isfile() and m.name.endswith((".py", ".txt", ".in"))]
        archive.extractall(folder, members, filter="data")
    return folder / sdist.name.removesuffix(".tar.gz")


class AnyModule(MagicMock):
    """A mock that pydantic takes for a type and the import system for a package."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        name = kwargs.get("name")
        super().__init__(*args, **kwargs)
        self.__spec__ = ModuleSpec(str(name), None)
        self.__path__: list[str] = []

    def __get_pydantic_core_schema__(self, source_type: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.any_schema()


class _Registered:
    """Stands for CustomOp and PluggableLayer: a class decorator that leaves the class alone."""

    @staticmethod
    def register(*_args: Any, **_kwargs: Any) -> Any:
        return lambda cls: cls


class _Inheritable:
    """Stands for torch.nn.Module: a MagicMock as a base class clashes with ABCMeta."""


def _infer_schema(function: Any, **_kwargs: Any) -> str:
    """As torch.library.infer_schema, as far as vLLM's registries look at the answer: the number of outputs."""
    result = typing.get_type_hints(function)["return"]
    parts = typing.get_args(result) if typing.get_origin(result) is tuple else (result,)
    return "(Tensor x) -> " + ", ".join(getattr(part, "__name__", str(part)) for part in parts)


def mock_torch(root: Path) -> None:
    """Put the mocks of vLLM's own docs generator in place, for all versions at once."""
    nn = AnyModule(name="torch.nn", Parameter=object, Module=_Inheritable)
    modules: dict[str, Any] = {
        "torch": AnyModule(name="torch", nn=nn),
        "torch.nn": nn,
        "torch.library": AnyModule(name="torch.library", infer_schema=_infer_schema),
        "vllm._C": AnyModule(name="vllm._C"),
        "vllm._C_stable_libtorch": AnyModule(name="vllm._C_stable_libtorch"),
    }
    if (root / "vllm/model_executor/custom_op.py").exists():
        modules["vllm.model_executor.custom_op"] = AnyModule(
            name="vllm.model_executor.custom_op", CustomOp=_Registered, PluggableLayer=_Registered
        )
    if (root / "vllm/utils/torch_utils.py").exists():
        modules["vllm.utils.torch_utils"] = AnyModule(name="vllm.utils.torch_utils")
    sys.modules.update(modules)
    pinned: dict[str, str] = {}
    for listed in ("requirements/test/cuda.txt", "requirements/test.txt"):
        path = root / listed
        if path.exists():
            pinned = dict(line.strip().split("==", 1) for line in path.read_text().splitlines() if "==" in line)
            break
    importlib.metadata.version = lambda name: pinned.get(name, "0.0.0")  # type: ignore[assignment]


def import_with_mocks(module: str) -> ModuleType:
    """Import `module`, replacing each package that is not installed by a mock. Modules of vLLM are never replaced."""
    for _ in range(MOCKS_AT_MOST):
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as missing:
            _mock_missing(missing)
    raise SystemExit(f"{module}: still not importable after {MOCKS_AT_MOST} mocks")


def _mock_missing(missing: ModuleNotFoundError) -> None:
    """Replace the package that could not be found."""
    name = missing.name
    if name is None or name.split(".")[0] == "vllm":
        raise missing
    sys.modules[name] = AnyModule(name=name)


def load_parser(root: Path) -> argparse.ArgumentParser:
    """The parser of `vllm serve` as version `root` builds it."""
    mock_torch(root)
    sys.path.insert(0, str(root))
    rooms = ("common", "launchers", "openai")  # where the file has lived, newest first
    candidates = [f"vllm/entrypoints/{room}/cli_args.py" for room in rooms]
    path = next(c for c in candidates if (root / c).exists())
    cli_args = import_with_mocks(path.removesuffix(".py").replace("/", "."))
    for _ in range(MOCKS_AT_MOST):
        # Some modules are imported while the parser is built; a half-built parser is thrown away.
        try:
            with patch("vllm.config.DeviceConfig.__post_init__"):
                parser = cli_args.make_arg_parser(cli_args.FlexibleArgumentParser(prog="vllm serve"))
                assert isinstance(parser, argparse.ArgumentParser)
                return parser
        except ModuleNotFoundError as missing:
            _mock_missing(missing)
    raise SystemExit("the parser still cannot be built")


def quantization_methods(root: Path) -> list[str]:
    """The values of `--quantization`, read from the Literal `QuantizationMethods` (argparse does not hold them)."""
    tree = ast.parse((root / "vllm/model_executor/layers/quantization/__init__.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "QuantizationMethods" for t in node.targets):
            return [str(leaf.value) for leaf in ast.walk(node.value) if isinstance(leaf, ast.Constant)]
    raise SystemExit("QuantizationMethods not found")


def describe_action(action: argparse.Action, names: list[str], deprecated: bool) -> dict[str, Any]:
    """One flag as data; see README.md beside this file for the meaning of the keys."""
    negative: set[str] = set()
    if isinstance(action, argparse.BooleanOptionalAction):
        # Newer parsers name them; the older ones have argparse's rule only.
        named = getattr(action, "negative_option_strings", None)
        negative = set(named) if named else {name for name in names if name.startswith("--no-")}
    nargs: Any = action.nargs
    entry: dict[str, Any] = {
        "names": [name for name in names if name not in negative],
        "values": "none" if nargs == 0 else {None: "one", "?": "optional"}.get(nargs, "many"),
        "type": "bool" if nargs == 0 else type_name(action.type),
    }
    optional = {
        "negative": [name for name in names if name in negative],
        "choices": plain_choices(action.choices),
        "deprecated": deprecated,
    }
    return entry | {key: value for key, value in optional.items() if value}


def plain_choices(choices: Any) -> list[str] | None:
    """Choices as the command line spells them; None when there are none or a mock stands for them."""
    if choices is None or isinstance(choices, MagicMock):
        return None
    listed = list(choices)
    return None if any(isinstance(choice, MagicMock) for choice in listed) else [str(choice) for choice in listed]


#: vLLM's conversion functions and what they take; the rest keeps the function's name.
TYPE_NAMES = {
    "loads": "json",
    "parse_dataclass": "json",
    "union_dict_and_str": "json or str",
    "human_readable_int": "size",
    "human_readable_int_or_auto": "size or auto",
}


def type_name(function: Any) -> str:
    """What a value must look like: int, float, str, json, size (`32k`), each also `optional …` (takes `None`)."""
    if function is None:
        return "str"
    name = str(getattr(function, "__name__", "other"))
    wrapped = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    if name == "_parse_type":
        return type_name(wrapped[0])
    if name == "_optional_type":
        return f"optional {type_name(wrapped[0])}"
    return "other" if name == "<lambda>" else TYPE_NAMES.get(name, name)


def describe_parser(parser: argparse.ArgumentParser) -> list[dict[str, Any]]:
    """Every option of `parser`, sorted by its first name; hidden spellings too."""
    spelled: dict[int, list[str]] = {}
    actions: dict[int, argparse.Action] = {}
    for name, action in parser._option_string_actions.items():
        spelled.setdefault(id(action), []).append(name)
        actions[id(action)] = action
    deprecated = {id(action) for action in getattr(parser, "_deprecated", ())}
    flags = [describe_action(actions[key], names, key in deprecated) for key, names in spelled.items()]
    return sorted(flags, key=lambda flag: str(flag["names"][0]).lstrip("-"))


def parse(root: Path) -> dict[str, Any]:
    """What the child process prints."""
    parser = load_parser(root)
    kv_cache = import_with_mocks("vllm.config.cache").CacheDType
    return {
        "positional": [action.dest for action in parser._actions if not action.option_strings],
        "quantization": quantization_methods(root),
        "kvCacheDtypes": list(typing.get_args(kv_cache)),
        "flags": describe_parser(parser),
    }


def dump(version: str, python: Path, folder: Path) -> dict[str, Any]:
    """Fetch, unpack and run one version; the whole content of its JSON file."""
    sdist, digest = fetch_sdist(version, folder)
    root = unpack_python_files(sdist, folder)
    sdist.unlink()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    child = subprocess.run(
        [python, __file__, "--parse", root], env=environment, capture_output=True, text=True, check=False
    )
    if child.returncode:
        raise SystemExit(f"vllm {version}: the parser did not run:\n{child.stderr[-4000:]}")
    found = json.loads(child.stdout.rsplit(MARK, 1)[-1])
    return {"version": version, "sdist": sdist.name, "sha256": digest, "method": "run", **found}


def format_dump(content: dict[str, Any]) -> str:
    """JSON with one flag a line, so that a diff between versions reads as a list of flags."""
    head = {key: value for key, value in content.items() if key != "flags"}
    lines = ",\n".join("  " + json.dumps(flag) for flag in content["flags"])
    return json.dumps(head, indent=1)[:-2] + ',\n "flags": [\n' + lines + "\n ]\n}\n"


def main() -> None:
    """Dump the versions named on the command line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("versions", nargs="*")
    arguments.add_argument(
        "--parse", type=Path, help="run the parser of an unpacked sdist (the script calls itself so)"
    )
    given = arguments.parse_args()
    if given.parse:
        result = parse(given.parse)
        sys.stdout.write(MARK + json.dumps(result))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        venv.create(folder / "venv", with_pip=True)
        python = folder / "venv/bin/python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PARSER_PACKAGES], check=True)
        for version in given.versions:
            content = dump(version, python, folder)
            (HERE / f"{version}.json").write_text(format_dump(content))
            print(f"vllm {version}: {len(content['flags'])} flags")


if __name__ == "__main__":
    main()
