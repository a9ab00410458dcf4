"""`python -m fairlead_cluster`: build the control plane, start and end a local cluster, say how it is."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from fairlead_cluster.build import describe, find_or_build, say_on_stderr
from fairlead_cluster.cluster import HOSTS_FILE, require_linux
from fairlead_cluster.errors import LocalClusterError, UnsupportedPlatformError
from fairlead_cluster.node.options import Engines
from fairlead_cluster.services import PRIVILEGED_PORT_OFFSET, first_bindable_port
from fairlead_cluster.supervisor import READY, State, read_state, start_in_background, stop_in_background, supervise

_DEFAULT_DIRECTORY = Path(".localcluster")
_EXIT_UNSUPPORTED = 2
_MOST_USED_PORT = 80


def main() -> int:
    """Exit status: 0 when it is done, 1 when it failed (`status`: when nothing runs), 2 when it cannot be done here."""
    arguments = _parser().parse_args()
    try:
        require_linux()
        return _run(arguments)
    except UnsupportedPlatformError as error:
        say_on_stderr(str(error))
        return _EXIT_UNSUPPORTED
    except LocalClusterError as error:
        say_on_stderr(str(error))
        return 1
    except KeyboardInterrupt:
        say_on_stderr("interrupted")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fairlead_cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="build | up | down | status")
    commands.add_parser("build", help="find the control plane's binaries, or build them into the cache")
    for name, text in (
        ("up", "start a cluster in the background"),
        ("supervise", "run a cluster in the foreground until SIGTERM (what `up` starts)"),
        ("down", "end the cluster and remove its folder"),
        ("status", "say what runs"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--dir", type=Path, default=_DEFAULT_DIRECTORY, help="the cluster's folder")
        if name in ("up", "supervise"):
            command.add_argument("--operator", action=argparse.BooleanOptionalAction, default=True)
            engines = Engines(os.environ.get("FAIRLEAD_ENGINES", Engines.AUTO))
            text = "programs in engine pods: real ones, simulated ones, or real where there are some (FAIRLEAD_ENGINES)"
            command.add_argument("--engines", type=Engines, choices=list(Engines), default=engines, help=text)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "build":
        say_on_stderr(describe(find_or_build()))
        return 0
    directory: Path = arguments.dir.resolve()
    if arguments.command == "up":
        find_or_build()  # here rather than in the background, so that its progress is seen
        options = {"operator": arguments.operator, "engines": arguments.engines}
        _print_usage(directory, start_in_background(directory, say=say_on_stderr, **options))
        return 0
    if arguments.command == "supervise":
        return supervise(directory, operator=arguments.operator, engines=arguments.engines, say=say_on_stderr)
    if arguments.command == "down":
        say_on_stderr("the local cluster is gone" if stop_in_background(directory) else "no local cluster runs here")
        return 0
    return _print_status(directory)


def _print(line: str) -> None:
    print(line)


def _print_usage(directory: Path, state: State) -> None:
    _print(f"export KUBECONFIG={directory}/kubeconfig")
    _print(f"# the operator's own, with its RBAC only: {directory}/operator.kubeconfig")
    _print(f"# kubectl: {state.kubectl}")
    _print(f"# audit log: {directory}/audit.log   logs: {directory}/logs   cluster DNS: {state.dns}")
    _print(f"# further names for the DNS, as in /etc/hosts: {directory}/{HOSTS_FILE}")
    if first_bindable_port() > _MOST_USED_PORT:
        _print(
            f"# you are not root: a Service port below {first_bindable_port()} is at {PRIVILEGED_PORT_OFFSET} + port"
        )
    if state.operator:
        _print(f"# the operator's metrics and health: {state.operator_url}/metrics")
    else:
        _print(f"# no operator runs: KUBECONFIG={directory}/operator.kubeconfig .venv/bin/fairlead run")
    _print("# end it: make cluster-down")


def _print_status(directory: Path) -> int:
    state = read_state(directory)
    if state is None:
        _print(f"no local cluster in {directory}")
        return 1
    phase = state.phase if state.is_alive or state.phase != READY else "Dead"
    _print(f"{phase}: {state.server_url} in {directory}")
    if state.message:
        _print(state.message)
    for process in (state.supervisor, *state.processes):
        _print(f"  {'runs' if process.is_alive() else 'gone':5} {process.pid:8} {process.name}")
    return 0 if phase == READY else 1


if __name__ == "__main__":
    sys.exit(main())
