"""`python -m fairlead_cluster.providers NAME=HOST[:PORT] …`: fake providers in the foreground, until SIGTERM or Ctrl-C.

With `--cluster DIR` their names are known to the DNS of the local cluster in that folder. Says where everything is by
one line of JSON on stdout.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from fairlead_cluster.cluster import HOSTS_FILE
from fairlead_cluster.hosts import HostsFile
from fairlead_cluster.providers.fleet import FakeProviders

_DEFAULT = ("openai=api.openai.test", "anthropic=api.anthropic.test")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 at a signal, 1 if a port is taken."""
    given = _parse(arguments)
    stop = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda _signum, _frame: stop.set())
    try:
        with tempfile.TemporaryDirectory(prefix="fairlead-providers-") as scratch:
            _run(given, given.dir or Path(scratch), stop)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(given: argparse.Namespace, directory: Path, stop: threading.Event) -> None:
    with FakeProviders(directory, admin_port=given.admin_port) as fakes:
        for one in given.providers or _DEFAULT:
            name, _, where = one.partition("=")
            host, _, port = where.partition(":")
            fakes.add(name, [host or f"api.{name}.test"], port=int(port or 0))
        hosts = None if given.cluster is None else HostsFile(given.cluster / HOSTS_FILE)
        if hosts is not None:
            hosts.update(fakes.host_records)
        urls = {name: {"url": one.url, "local": one.local_url} for name, one in fakes.by_name.items()}
        print(json.dumps({"admin": fakes.admin_url, "caCert": str(fakes.ca_cert), "providers": urls}), flush=True)
        try:
            stop.wait()
        finally:
            if hosts is not None and hosts.path.exists():  # else the cluster has gone before
                hosts.update(dict.fromkeys(fakes.host_records))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fairlead_cluster.providers", description=__doc__)
    parser.add_argument("providers", nargs="*", metavar="NAME=HOST[:PORT]", help=f"by default {' '.join(_DEFAULT)}")
    parser.add_argument("--dir", type=Path, help="where the CA and certificates go (by default a temporary folder)")
    parser.add_argument("--cluster", type=Path, help="folder of a local cluster that shall know the names")
    parser.add_argument("--admin-port", type=int, default=0, help="on 127.0.0.1; by default a free one")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
