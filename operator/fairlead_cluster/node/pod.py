"""The life of one pod on its node: volumes, init containers and sidecars in order, main containers, and its end.

The order and the grace are the kubelet's: init containers one after the other; a sidecar (an init container with
restartPolicy Always) only has to have started; main containers are started in order, each after the postStart hook of
the one before. At the end all main containers are stopped at once, sidecars after them in reverse order; the pod's
object goes last, when nothing of it runs any more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead_cluster.api import PODS, Api, ApiError
from fairlead_cluster.node.addresses import AddressPool
from fairlead_cluster.node.container import Container, Machinery
from fairlead_cluster.node.containerlogs import ContainerLogs
from fairlead_cluster.node.deadline import Deadline
from fairlead_cluster.node.events import EventRecorder
from fairlead_cluster.node.launch import ContainerDirectory
from fairlead_cluster.node.podfields import PodContext
from fairlead_cluster.node.state import ContainerState, PodState, make_states
from fairlead_cluster.node.statuswriter import StatusWriter
from fairlead_cluster.node.storage import Claims, MountError
from fairlead_cluster.node.volumes import PodVolumes

Json = dict[str, Any]

_log = logging.getLogger(__name__)
_MOUNT_RETRY_FIRST_S = 0.5
_ORPHAN_GRACE_S = 2.0  # of a pod whose object was removed by force


@dataclass(frozen=True, slots=True)
class NodeContext:
    """What a pod must know of its node."""

    name: str
    host_ip: str
    allocatable: Mapping[str, str]
    events: EventRecorder


@dataclass(frozen=True, slots=True)
class PodServices:
    """What all pods of a stand-in share."""

    api: Api
    addresses: AddressPool
    claims: Claims
    machinery: Machinery
    pods_dir: Path
    logs_dir: Path


class PodRunner:
    """Runs one pod until its object is gone. `update` and `removed` bring the news of the watch."""

    def __init__(self, pod: Json, node: NodeContext, services: PodServices) -> None:
        self._pod = pod
        self._node = node
        self._services = services
        metadata, spec = pod["metadata"], pod["spec"]
        self.uid: str = metadata["uid"]
        self.name: str = metadata["name"]
        status = pod.get("status", {})
        self.state = PodState(
            start_time_s=time.time(),
            host_ip=node.host_ip,
            containers=make_states(spec["containers"], status.get("containerStatuses") or [], is_init=False),
            init_containers=make_states(
                spec.get("initContainers") or [], status.get("initContainerStatuses") or [], is_init=True
            ),
        )
        if self.state.init_containers:
            for one in self.state.containers:
                one.set_waiting("PodInitializing")
        # Short names: a socket's path may not have more than 107 characters.
        self._directory = services.pods_dir / self.uid[:8]
        self.volumes = PodVolumes(
            services.api, services.machinery.references, services.claims, self._directory, services.machinery.options
        )
        self._status = StatusWriter(services.api, lambda: self._pod, self.state)
        self.deleted = asyncio.Event()
        self._removed = asyncio.Event()
        self._deadline: Deadline | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._containers: dict[str, Container] = {}
        log_name = f"{metadata['namespace']}_{metadata['name']}_{self.uid}"
        self._containers = {
            one.name: self._make_container(one, services.logs_dir / log_name) for one in self._all_states()
        }
        self.note_deletion()

    @property
    def context(self) -> PodContext:
        """The pod as it is now, for its containers."""
        return PodContext(self._pod, self.state.pod_ip, self._node.host_ip, self._node.allocatable)

    @property
    def containers(self) -> Mapping[str, Container]:
        """By name, init containers first."""
        return self._containers

    def changed(self) -> None:
        """Some state of a container has changed."""
        self._status.changed()

    def emit(self, kind: str, reason: str, message: str, container: ContainerState) -> None:
        """Write an event about a container."""
        where = "initContainers" if container.is_init else "containers"
        self._node.events.emit(self._pod, kind, reason, message, field_path=f"spec.{where}{{{container.name}}}")

    def update(self, pod: Json) -> None:
        """The object has changed."""
        before, self._pod = self._pod, pod
        if _differ(before, pod):  # a kubelet does not look again because of its own status
            self.volumes.poke()
        self._status.changed()
        self.note_deletion()

    def removed(self) -> None:
        """The object is gone."""
        self._removed.set()
        self._shorten(_ORPHAN_GRACE_S)
        self.deleted.set()

    def note_deletion(self) -> None:
        """Take notice if somebody has asked for the pod's deletion, or for a quicker one than before."""
        metadata = self._pod["metadata"]
        if "deletionTimestamp" in metadata:
            self._shorten(float(metadata.get("deletionGracePeriodSeconds") or 0))
            self.deleted.set()

    async def run(self) -> None:
        """From admission to the removal of the object. When cancelled, all its processes are killed at once."""
        if self.deleted.is_set():
            return await self._finish()  # its time was over before it began
        try:
            async with asyncio.TaskGroup() as background:
                writer = background.create_task(self._status.run())
                await self._live_and_end(background)
                writer.cancel()
            await self._finish()
        finally:
            await asyncio.to_thread(self.volumes.tear_down, self.uid)
            if self.state.pod_ip and not self._pod["spec"].get("hostNetwork"):
                self._services.addresses.give_back(self.state.pod_ip)

    async def _live_and_end(self, background: asyncio.TaskGroup) -> None:
        life = background.create_task(self._live(background))
        deleted = background.create_task(self.deleted.wait())
        active_s = self._pod["spec"].get("activeDeadlineSeconds")
        await asyncio.wait({life, deleted}, timeout=active_s, return_when=asyncio.FIRST_COMPLETED)
        if not life.done():
            if not deleted.done():
                self.state.reason = "DeadlineExceeded"
                self.state.message = "Pod was active on the node longer than the specified deadline"
            life.cancel()
            await asyncio.wait({life})
        await self._stop_all()
        self.state.ended = True
        self._status.changed()
        await deleted
        if self._keeper is not None:
            self._keeper.cancel()

    async def _live(self, background: asyncio.TaskGroup) -> None:
        """All of a pod's life but its end; returns when its containers have nothing more to do."""
        self.state.pod_ip = (
            self._node.host_ip if self._pod["spec"].get("hostNetwork") else self._services.addresses.take()
        )
        self._status.changed()
        await self._mount()
        self.state.sandbox_ready = True
        self._keeper = background.create_task(self.volumes.keep_current(lambda: self.context))
        self._status.changed()
        if not await self._initialize(background):
            return
        self.state.initialized = True
        for one in self.state.containers:
            if one.waiting is not None and one.waiting.reason == "PodInitializing":
                one.set_waiting("ContainerCreating")
        self._status.changed()
        for one in self.state.containers:
            container = self._containers[one.name]
            background.create_task(container.run())
            await container.first_attempt_over.wait()
        for one in self.state.containers:
            await self._containers[one.name].done.wait()

    async def _mount(self) -> None:
        delay_s = _MOUNT_RETRY_FIRST_S
        while True:
            try:
                await self.volumes.set_up(self.context)
            except MountError as error:
                self._node.events.emit(self._pod, "Warning", error.reason, str(error))
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, self._services.machinery.options.mount_retry_max_s)
            else:
                return

    async def _initialize(self, background: asyncio.TaskGroup) -> bool:
        """Init containers in order. False if one failed for good, and with it the pod."""
        for one in self.state.init_containers:
            container = self._containers[one.name]
            background.create_task(container.run())
            await (container.started if one.is_sidecar else container.done).wait()
            if not one.is_sidecar and (one.terminated is None or one.terminated.exit_code != 0):
                return False
        return True

    async def _stop_all(self) -> None:
        """Stop what runs: main and regular init containers at once, sidecars after them from the last to the first."""
        deadline = self._deadline or Deadline(float(self._pod["spec"].get("terminationGracePeriodSeconds", 30)))
        self._deadline = deadline
        running = [one for one in self._containers.values() if one.is_active()]
        earlier = [one for one in running if not one.state.is_sidecar]
        async with asyncio.TaskGroup() as group:
            for container in earlier:
                group.create_task(container.stop(deadline))
            for container in reversed([one for one in running if one.state.is_sidecar]):
                group.create_task(container.stop(deadline, _all_done(earlier)))
                earlier = [*earlier, container]

    async def _finish(self) -> None:
        """The last status, then the end of the object."""
        if self._removed.is_set():
            return
        metadata = self._pod["metadata"]
        while not self._removed.is_set():
            try:
                if not self.state.ended or await self._status.flush():
                    await self._services.api.delete(
                        PODS, metadata["name"], metadata["namespace"], grace_period_s=0, uid=self.uid
                    )
                    return
            except ApiError as error:
                _log.warning("deleting pod %s: %s", self.context.description, error)
            await asyncio.sleep(1.0)

    def _shorten(self, grace_s: float) -> None:
        if self._deadline is None:
            self._deadline = Deadline(grace_s)
        else:
            self._deadline.shorten_to(grace_s)
        for container in self._containers.values():
            container.hasten(grace_s)

    def _all_states(self) -> list[ContainerState]:
        return [*self.state.init_containers, *self.state.containers]

    def _make_container(self, state: ContainerState, logs_dir: Path) -> Container:
        directory = ContainerDirectory(self._directory / "containers" / state.name)
        return Container(state, self, self._services.machinery, directory, ContainerLogs(logs_dir / state.name))


def _differ(before: Json, now: Json) -> bool:
    """Whether something has changed that a kubelet acts on (podsDifferSemantically)."""
    if before["spec"] != now["spec"]:
        return True
    return any(before["metadata"].get(key) != now["metadata"].get(key) for key in ("labels", "annotations"))


async def _all_done(containers: list[Container]) -> None:
    for container in containers:
        await container.done.wait()
