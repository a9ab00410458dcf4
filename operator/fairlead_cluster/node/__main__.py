"""`python -m fairlead_cluster.node --kubeconfig K --data-dir D`: the node stand-in alone, at any API server."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import orjson

from fairlead_cluster.api import Api
from fairlead_cluster.errors import LocalClusterError
from fairlead_cluster.node.options import Engines, Options, VolumeSync
from fairlead_cluster.node.specs import DEFAULT_NODES, NodeSpec
from fairlead_cluster.node.standin import NodeStandIn


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT; 1 when it cannot."""
    given = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    nodes: Sequence[NodeSpec] = DEFAULT_NODES
    if given.nodes is not None:
        nodes = tuple(NodeSpec.from_json(one) for one in orjson.loads(given.nodes.read_bytes()))
    options = Options(
        crash_back_off_s=given.crash_back_off_s,
        image_back_off_s=given.image_back_off_s,
        sync_retry_s=given.sync_retry_s,
        volume_sync=given.volume_sync,
        engines=given.engines,
        enforce_memory_limits=not given.no_memory_limits,
    )
    if given.simulated:
        nodes = tuple(replace(node, simulated=True) for node in nodes)
    try:
        asyncio.run(_run(given.kubeconfig, given.data_dir, nodes, options, given.dns))
    except LocalClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


async def _run(
    kubeconfig: Path, data_dir: Path, nodes: Sequence[NodeSpec], options: Options, resolver: tuple[str, int] | None
) -> None:
    loop = asyncio.get_running_loop()
    async with Api.from_kubeconfig(kubeconfig, user_agent="fairlead-node") as api:
        stand_in = NodeStandIn(api, nodes, data_dir=data_dir, options=options, resolver=resolver)
        running = asyncio.create_task(stand_in.run())
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, running.cancel)
        try:
            await running
        except asyncio.CancelledError:
            return


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fairlead_cluster.node", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True, help="volumes, logs, and files of pods")
    parser.add_argument("--nodes", type=Path, help="JSON file: a list of NodeSpec objects instead of the default nodes")
    parser.add_argument("--simulated", action="store_true", help="pods of all nodes get no processes")
    parser.add_argument("--crash-back-off-s", type=float, default=Options().crash_back_off_s)
    parser.add_argument("--image-back-off-s", type=float, default=Options().image_back_off_s)
    parser.add_argument("--sync-retry-s", type=float, default=Options().sync_retry_s)
    parser.add_argument("--volume-sync", type=VolumeSync, choices=list(VolumeSync), default=VolumeSync.QUICK)
    parser.add_argument("--engines", type=Engines, choices=list(Engines), default=Options().engines)
    parser.add_argument("--no-memory-limits", action="store_true", help="do not kill containers over their limit")
    parser.add_argument("--dns", type=_address, help="HOST:PORT of the cluster's DNS, for Envoy")
    return parser.parse_args(arguments)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return (host, int(port))


if __name__ == "__main__":
    sys.exit(main())
