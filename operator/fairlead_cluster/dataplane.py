"""The data plane process: what runs on a real cluster's nodes (kubelets, kube-proxy) and its DNS, in one process.

A process of its own, so that its work is not on the event loop of the tests or the demo, and that its end (or its
crash, in a test) is the end of all nodes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from fairlead_cluster.api import PODS, SERVICES, Api, Kubeconfig, Store
from fairlead_cluster.dns import DnsServer
from fairlead_cluster.endpoints import Endpoint
from fairlead_cluster.hosts import HostsFile
from fairlead_cluster.node.images import Image
from fairlead_cluster.node.options import Engines, Options, VolumeSync
from fairlead_cluster.node.specs import NodeSpec
from fairlead_cluster.node.standin import NodeStandIn
from fairlead_cluster.services import ServiceProxy, first_bindable_port

Json = dict[str, Any]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DataPlaneConfig:
    """What the parent process wants, passed as a JSON file."""

    kubeconfig: Path
    data_dir: Path  # volumes, logs and files of pods
    nodes: Sequence[NodeSpec]
    options: Options
    dns_port: int
    hosts_file: Path  # further names for the DNS; need not exist
    ready_file: Path  # created when everything runs

    @classmethod
    def read(cls, path: Path) -> DataPlaneConfig:
        """Parse what `write` wrote."""
        data = orjson.loads(path.read_bytes())
        paths = {key: Path(data[key]) for key in ("kubeconfig", "data_dir", "hosts_file", "ready_file")}
        nodes = tuple(NodeSpec.from_json(node) for node in data["nodes"])
        return cls(nodes=nodes, options=_parse_options(data["options"]), dns_port=data["dns_port"], **paths)

    def write(self, path: Path) -> None:
        """For the process that `python -m fairlead_cluster.dataplane PATH` starts."""
        path.write_bytes(orjson.dumps(dataclasses.asdict(self), default=str, option=orjson.OPT_INDENT_2))


def _parse_options(data: Json) -> Options:
    enums = {"volume_sync": VolumeSync(data["volume_sync"]), "engines": Engines(data["engines"])}
    images = {pattern: Image(**_with_tuples(image)) for pattern, image in data["images"].items()}
    return Options(**{**data, **enums, "images": images})


def _with_tuples(data: Json) -> Json:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


class Network:
    """kube-proxy and DNS: follows Services and pods, and keeps forwarders and answers in step with them."""

    def __init__(self, api: Api, api_server: Endpoint, dns: tuple[str, int], hosts: HostsFile) -> None:
        self._services = Store(api, SERVICES)
        self._pods = Store(api, PODS)
        self._changed_namespaces: set[str] = set()
        self._changed = asyncio.Event()
        for store in (self._services, self._pods):
            store.subscribe(self._on_change)
        # The API server has no pods: its Service is the one whose endpoints are known without looking.
        self._proxy = ServiceProxy(first_bindable_port(), {("default", "kubernetes"): (api_server,)})
        self._dns = DnsServer(*dns, self._lookup, hosts.find)

    async def run(self, ready: asyncio.Event) -> None:
        """Until cancelled; sets `ready` when the Services and pods that exist are known and forwarded."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._services.run())
            group.create_task(self._pods.run())
            await self._services.synced.wait()
            await self._pods.synced.wait()
            await self._dns.start()
            try:
                while True:
                    await self._sync()
                    ready.set()
                    await self._changed.wait()
            finally:
                await self._dns.close()
                await self._proxy.close()

    async def _sync(self) -> None:
        self._changed.clear()
        namespaces, self._changed_namespaces = self._changed_namespaces, set()
        for namespace in namespaces:
            await self._proxy.sync(namespace, self._services.values(namespace), self._pods.values(namespace))

    def _on_change(self, old: Json | None, new: Json | None) -> None:
        for found in (old, new):
            if found is not None:
                self._changed_namespaces.add(found["metadata"]["namespace"])
        self._changed.set()

    def _lookup(self, namespace: str, name: str) -> tuple[Json, Iterable[Json]] | None:
        service = self._services.get(name, namespace)
        return None if service is None else (service, self._pods.values(namespace))


def api_server_endpoint(server_url: str) -> Endpoint:
    """Address of the API server at a URL."""
    parts = urlsplit(server_url)
    return Endpoint(str(parts.hostname), parts.port or 443)


async def run(config: DataPlaneConfig) -> None:
    """Run nodes, Services and DNS until SIGTERM. Raises what broke."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    kubeconfig = Kubeconfig.load(config.kubeconfig)
    async with Api(kubeconfig, user_agent="fairlead-data-plane") as api:
        dns = ("127.0.0.1", config.dns_port)
        network = Network(api, api_server_endpoint(kubeconfig.server_url), dns, HostsFile(config.hosts_file))
        network_ready = asyncio.Event()
        nodes = NodeStandIn(api, config.nodes, data_dir=config.data_dir, options=config.options, resolver=dns)
        async with asyncio.TaskGroup() as group:  # the end of any part is the end of all
            parts = [group.create_task(network.run(network_ready)), group.create_task(nodes.run())]
            await network_ready.wait()
            await nodes.ready.wait()
            config.ready_file.touch()
            await stop.wait()
            for part in parts:
                part.cancel()


def main(arguments: Sequence[str]) -> int:
    """`python -m fairlead_cluster.dataplane CONFIG.json`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(run(DataPlaneConfig.read(Path(arguments[0]))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
