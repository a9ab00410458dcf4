"""Pods without processes: Running and Ready after a delay, gone when deleted. For a thousand of them at once.

A node with `simulated=True`, or the pod's annotation `fairlead.dev/stand-in: simulated`, asks for it. Images, volumes
and configuration are not looked at.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

from fairlead_cluster.api import PODS
from fairlead_cluster.node.pod import NodeContext, PodServices
from fairlead_cluster.node.state import PodState, make_states
from fairlead_cluster.node.statuswriter import StatusWriter

Json = dict[str, Any]

ANNOTATION = "fairlead.dev/stand-in"
SIMULATED = "simulated"


def is_simulated(pod: Json) -> bool:
    """Whether the pod asks for it."""
    return bool((pod["metadata"].get("annotations") or {}).get(ANNOTATION) == SIMULATED)


class SimulatedPod:
    """As PodRunner, without anything that runs. Two writes for its life, one for its end."""

    def __init__(self, pod: Json, node: NodeContext, services: PodServices) -> None:
        self._pod = pod
        self._services = services
        self.uid: str = pod["metadata"]["uid"]
        spec = pod["spec"]
        self.state = PodState(
            start_time_s=time.time(),
            host_ip=node.host_ip,
            containers=make_states(spec["containers"], [], is_init=False),
            init_containers=make_states(spec.get("initContainers") or [], [], is_init=True),
        )
        self._status = StatusWriter(services.api, lambda: self._pod, self.state)
        self.deleted = asyncio.Event()
        self._removed = False
        self.update(pod)

    def update(self, pod: Json) -> None:
        """The object has changed."""
        self._pod = pod
        self._status.changed()
        if "deletionTimestamp" in pod["metadata"]:
            self.deleted.set()

    def removed(self) -> None:
        """The object is gone."""
        self._removed = True
        self.deleted.set()

    async def run(self) -> None:
        """Until the object is gone."""
        self.state.pod_ip = self._services.addresses.take()
        self.state.sandbox_ready = True
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._status.run())
                try:
                    async with asyncio.timeout(self._services.machinery.options.simulated_ready_delay_s):
                        await self.deleted.wait()
                except TimeoutError:
                    self._become_ready()
                await self.deleted.wait()
                writer.cancel()
            if not self._removed:
                metadata = self._pod["metadata"]
                await self._services.api.delete(
                    PODS, metadata["name"], metadata["namespace"], grace_period_s=0, uid=self.uid
                )
        finally:
            self._services.addresses.give_back(self.state.pod_ip)

    def _become_ready(self) -> None:
        self.state.initialized = True
        for one in [*self.state.init_containers, *self.state.containers]:
            one.container_id = f"fairlead-simulated://{secrets.token_hex(32)}"
            one.set_running(time.time())
            one.ready = one.started = True
        self._status.changed()
