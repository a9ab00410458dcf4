"""The command line: one module per command, found by its presence here; each has `add_arguments(parser)` and `run(arguments)`.

A command's module must be cheap to import (`fairlead --help` imports them all): what is heavy is imported in its `run`.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status; argparse itself exits with 2 for a wrong command line."""
    parser = argparse.ArgumentParser(prog="fairlead", description="One YAML to a served model.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module_info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        if module_info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        summary = (module.__doc__ or "").strip().splitlines()[0]
        command = commands.add_parser(module_info.name, help=summary, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    arguments = parser.parse_args(argv)
    status: int = arguments.run(arguments)
    return status
