"""Run the operator until SIGTERM or SIGINT.

Every option has an environment variable too: FAIRLEAD_ and its name in capitals, as FAIRLEAD_LOG_FORMAT.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from typing import Final

from fairlead.config import ConfigError, OperatorConfig, make_config
from fairlead.errors import FairleadError

#: Options under another name than their field's.
_ALIASES: Final = {"watch_namespaces": ["--watch-namespaces", "--namespaces"], "log_level": ["--log-level"]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One option per field of the configuration; validation is the model's."""
    for name, info in OperatorConfig.model_fields.items():
        flags = _ALIASES.get(name, ["--" + name.replace("_", "-")])
        if info.annotation is bool:
            parser.add_argument(
                *flags, dest=name, action=argparse.BooleanOptionalAction, default=None, help=info.description
            )
        elif name in ("watch_namespaces", "monitoring_namespaces"):
            parser.add_argument(*flags, dest=name, action="append", metavar="NAMES", help=info.description)
        else:
            parser.add_argument(*flags, dest=name, metavar="VALUE", help=info.description)


def run(arguments: argparse.Namespace) -> int:
    """0 after a clean stop, 1 when the operator ended by itself, 2 for options that make no sense."""
    flags = {name: getattr(arguments, name) for name in OperatorConfig.model_fields}
    try:
        config = make_config(flags, os.environ)
    except ConfigError as error:
        print(f"fairlead run: {error}", file=sys.stderr)
        return 2
    return _run(config)


def _run(config: OperatorConfig) -> int:
    # Here and not above: kopf and uvloop cost most of a second, which `fairlead render` should not pay.
    import uvloop

    from fairlead.runtime.kinds import make_kinds
    from fairlead.runtime.logs import configure_logging
    from fairlead.runtime.main import run_operator

    configure_logging(config.log_format, config.log_level)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run_operator(config, make_kinds))
    except (FairleadError, OSError) as error:
        logging.getLogger("fairlead").error("The operator cannot run: %s", error)
        return 1
    except Exception:
        logging.getLogger("fairlead").exception("The operator ended by itself")
        return 1
    return 0
