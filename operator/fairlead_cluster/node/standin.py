"""Nodes whose pods are processes: registers them, hands each pod that is bound to one of them to a task of its own.

What a kubelet does that this does not: images (see `images`), users, capabilities, read-only roots and mount options
(see `rewriting`), CPU limits, ephemeral-storage limits and eviction, ephemeral containers, in-place resize, gRPC
probes, admission by free resources (the scheduler has looked at that; a pod that names its node itself is not
checked), /etc/hosts of pods, and their DNS but for Envoy (see `envoy`). One difference is deliberate: everything is
told to the pod that a real network namespace would hide, so two pods that bind port 8000 of all addresses collide
unless told 0.0.0.0 in their spec.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from fairlead_cluster.api import PODS, Api
from fairlead_cluster.cache import cache_dir
from fairlead_cluster.node.actions import Actions
from fairlead_cluster.node.addresses import AddressPool
from fairlead_cluster.node.container import Machinery
from fairlead_cluster.node.envoy import write_envoy_shims
from fairlead_cluster.node.events import EventRecorder
from fairlead_cluster.node.guardian import Guardian
from fairlead_cluster.node.images import write_shims
from fairlead_cluster.node.kubeletserver import PORT, KubeletServer
from fairlead_cluster.node.memory import MemoryWatch
from fairlead_cluster.node.options import Engines, Options
from fairlead_cluster.node.pod import NodeContext, PodRunner, PodServices
from fairlead_cluster.node.references import References
from fairlead_cluster.node.registration import Registration
from fairlead_cluster.node.simulated import SimulatedPod, is_simulated
from fairlead_cluster.node.specs import DEFAULT_NODES, NodeSpec
from fairlead_cluster.node.storage import Claims, Provisioner

Json = dict[str, Any]

_log = logging.getLogger(__name__)
_FINISHED = ("Succeeded", "Failed")
_BOUND = "spec.nodeName!="  # a field selector can exclude one value only: all bound pods, then


class NodeStandIn:
    """All nodes of the local cluster. `run` until cancelled; `ready` is set when the nodes can take pods.

    api: an open client that may do everything with nodes, pods, volumes, ConfigMaps, Secrets and events.
    data_dir: volumes, logs and pods' files; what claims hold (`data_dir/volumes`) survives a restart.
    resolver: the cluster's DNS, for the programs that can be told (Envoy).
    """

    def __init__(
        self,
        api: Api,
        nodes: Sequence[NodeSpec] = DEFAULT_NODES,
        *,
        data_dir: Path,
        options: Options | None = None,
        resolver: tuple[str, int] | None = None,
    ) -> None:
        self.ready = asyncio.Event()
        self.logs_dir = data_dir / "logs"
        self._api = api
        self._specs = {spec.name: spec for spec in nodes}
        self._data_dir = data_dir.resolve()
        self._options = options or Options()
        self._resolver = resolver
        self._contexts: dict[str, NodeContext] = {}
        self._runners: dict[str, PodRunner | SimulatedPod] = {}

    async def run(self) -> None:
        """Register the nodes and run their pods until cancelled; then kill all processes and remove the nodes."""
        self._prepare_directories()
        async with self._machinery() as machinery, self._addresses() as addresses:
            services = PodServices(
                api=self._api,
                addresses=addresses,
                claims=Claims(self._api),
                machinery=machinery,
                pods_dir=self._data_dir / "pods",
                logs_dir=self._data_dir / "logs",
            )
            registrations = self._make_nodes(addresses)
            server = KubeletServer(self._find_runner, machinery.guardian)
            node_addresses = [one.host_ip for one in self._contexts.values()]
            provisioner_events = EventRecorder(self._api, "fairlead-local-provisioner")
            provisioner = Provisioner(self._api, provisioner_events, self._data_dir / "volumes", self._specs.keys())
            try:
                async with server.serving(node_addresses, self._data_dir / "kubelet"), asyncio.TaskGroup() as group:
                    group.create_task(machinery.references.run())
                    group.create_task(machinery.memory.run())
                    group.create_task(provisioner.run())
                    for recorder in [provisioner_events, *(one.events for one in self._contexts.values())]:
                        group.create_task(recorder.run())
                    for registration in registrations:
                        await registration.register()
                        group.create_task(registration.keep_alive())
                    await self._follow_pods(services, group)
            finally:
                await asyncio.gather(*(registration.deregister() for registration in registrations))

    async def _follow_pods(self, services: PodServices, group: asyncio.TaskGroup) -> None:
        async with contextlib.aclosing(self._api.watch(PODS, field_selector=_BOUND)) as events:
            async for event in events:
                if event.type == "SYNCED":
                    self.ready.set()
                elif event.object["spec"]["nodeName"] in self._contexts:
                    self._on_pod(event.type, event.object, services, group)

    def _on_pod(self, change: str, pod: Json, services: PodServices, group: asyncio.TaskGroup) -> None:
        uid = pod["metadata"]["uid"]
        runner = self._runners.get(uid)
        if change == "DELETED":
            # Only now: late news of a pod that has ended must not start it again.
            if self._runners.pop(uid, None) is not None and runner is not None:
                runner.removed()
        elif runner is not None:
            runner.update(pod)
        elif not self._is_finished(pod):
            node = pod["spec"]["nodeName"]
            simulated = self._specs[node].simulated or is_simulated(pod)
            kind = SimulatedPod if simulated else PodRunner
            runner = self._runners[uid] = kind(pod, self._contexts[node], services)
            group.create_task(self._run_pod(runner, pod))

    def _is_finished(self, pod: Json) -> bool:
        """A pod that ended under an earlier stand-in does not run again; it only waits for its deletion."""
        return pod.get("status", {}).get("phase") in _FINISHED and "deletionTimestamp" not in pod["metadata"]

    async def _run_pod(self, runner: PodRunner | SimulatedPod, pod: Json) -> None:
        try:
            await runner.run()
        except Exception:  # noqa: BLE001  # one pod that the stand-in cannot handle must not end all others
            metadata = pod["metadata"]
            _log.exception("pod %s/%s", metadata["namespace"], metadata["name"])
            await runner.deleted.wait()
            await self._api.delete(PODS, metadata["name"], metadata["namespace"], grace_period_s=0, uid=runner.uid)

    def _find_runner(self, namespace: str, name: str) -> PodRunner | None:
        for runner in self._runners.values():
            if isinstance(runner, PodRunner) and (runner.context.namespace, runner.name) == (namespace, name):
                return runner
        return None

    def _make_nodes(self, addresses: AddressPool) -> list[Registration]:
        registrations = []
        for spec in self._specs.values():
            address = addresses.take()
            events = EventRecorder(self._api, "kubelet", spec.name)
            self._contexts[spec.name] = NodeContext(spec.name, address, spec.resources(), events)
            registrations.append(Registration(self._api, spec, address, PORT))
        return registrations

    def _prepare_directories(self) -> None:
        # Files of pods that an earlier stand-in ran: their processes are gone, and so is what was theirs.
        shutil.rmtree(self._data_dir / "pods", ignore_errors=True)
        for name in ("pods", "logs", "volumes"):
            (self._data_dir / name).mkdir(parents=True, exist_ok=True)
        write_shims(self._data_dir / "shims")
        write_envoy_shims(self._data_dir / "envoy", self._resolver)

    @contextlib.asynccontextmanager
    async def _machinery(self) -> AsyncIterator[Machinery]:
        guardian = Guardian.start()
        connector = aiohttp.TCPConnector(ssl=False, force_close=True, limit=0)
        try:
            async with aiohttp.ClientSession(connector=connector) as http:
                yield Machinery(
                    references=References(self._api),
                    actions=Actions(http, guardian),
                    guardian=guardian,
                    memory=MemoryWatch(enabled=self._options.enforce_memory_limits),
                    options=self._options,
                    search_path=make_search_path(
                        self._options.engines, self._data_dir / "shims", self._data_dir / "envoy"
                    ),
                )
        finally:
            await asyncio.to_thread(guardian.close)

    @contextlib.asynccontextmanager
    async def _addresses(self) -> AsyncIterator[AddressPool]:
        addresses = AddressPool()
        try:
            yield addresses
        finally:
            addresses.close()


def make_search_path(engines: Engines, shims: Path, *first: Path) -> str:
    """PATH of containers: real engines from the cache, the host's programs, and the simulator's shims by `engines`.

    `first`: folders of programs that must not be those of the host.
    """
    real = [str(cache_dir() / "engines" / "bin")]
    host = [os.environ.get("PATH", os.defpath)]
    parts = {
        Engines.AUTO: [*real, *host, str(shims)],
        Engines.REAL: [*real, *host],
        Engines.SIMULATED: [str(shims), *host],
    }
    return os.pathsep.join([*map(str, first), *parts[engines]])
