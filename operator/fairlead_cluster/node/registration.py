"""A node at the API server: its object with capacity and conditions, its Lease as heartbeat, and its removal."""

from __future__ import annotations

import asyncio
import logging
import platform
from typing import Any

import aiohttp

from fairlead_cluster.api import LEASES, NODES, STRATEGIC_MERGE_PATCH, Api, ApiError
from fairlead_cluster.node.specs import KUBELET_VERSION, NodeSpec
from fairlead_cluster.node.times import now_micro, now_rfc3339

Json = dict[str, Any]

_log = logging.getLogger(__name__)
_LEASE_NAMESPACE = "kube-node-lease"
_LEASE_DURATION_S = 40
_RENEW_INTERVAL_S = 10.0
_STATUS_INTERVAL_S = 300.0
_FIELD_MANAGER = "fairlead-node"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_HEALTHY = {
    "MemoryPressure": ("False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    "DiskPressure": ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    "PIDPressure": ("False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    "Ready": ("True", "KubeletReady", "kubelet is posting ready status"),
}


class Registration:
    """Registers one node, keeps it alive, and removes it."""

    def __init__(self, api: Api, spec: NodeSpec, address: str, kubelet_port: int) -> None:
        self._api = api
        self._spec = spec
        self._address = address
        self._kubelet_port = kubelet_port

    async def register(self) -> None:
        """Make the node ready for pods. Takes an object of that name over if there is one."""
        await self._api.apply(NODES, make_node(self._spec), field_manager=_FIELD_MANAGER)
        await self._write_status()
        await self._renew()

    async def keep_alive(self) -> None:
        """Renew the Lease every 10 s and the conditions every 5 minutes, until cancelled."""
        rounds = round(_STATUS_INTERVAL_S / _RENEW_INTERVAL_S)
        while True:
            for _ in range(rounds):
                await asyncio.sleep(_RENEW_INTERVAL_S)
                await self._attempt(self._renew)
            await self._attempt(self._write_status)

    async def deregister(self) -> None:
        """Remove the node; its pods' objects go by garbage collection."""
        try:
            await self._api.delete(NODES, self._spec.name)
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            _log.warning("node %s is not removed: %s", self._spec.name, error or type(error).__name__)

    async def _attempt(self, write: Any) -> None:
        try:
            await write()
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            _log.warning("heartbeat of node %s: %s", self._spec.name, error or type(error).__name__)

    async def _write_status(self) -> None:
        status = make_node_status(self._spec, self._address, self._kubelet_port)
        body = {"status": status}
        name = self._spec.name
        await self._api.patch(NODES, name, body, subresource="status", content_type=STRATEGIC_MERGE_PATCH)

    async def _renew(self) -> None:
        lease = {
            "metadata": {"name": self._spec.name},
            "spec": {
                "holderIdentity": self._spec.name,
                "leaseDurationSeconds": _LEASE_DURATION_S,
                "renewTime": now_micro(),
            },
        }
        await self._api.apply(LEASES, lease, _LEASE_NAMESPACE, field_manager=_FIELD_MANAGER)


def make_node(spec: NodeSpec) -> Json:
    """The object without its status."""
    architecture = _architecture()
    labels = {
        "kubernetes.io/hostname": spec.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": architecture,
        **spec.labels,
    }
    taints = [dict(taint) for taint in spec.taints]
    return {"metadata": {"name": spec.name, "labels": labels}, "spec": {"taints": taints} if taints else {}}


def make_node_status(spec: NodeSpec, address: str, kubelet_port: int) -> Json:
    """Capacity, conditions, addresses and nodeInfo, as a kubelet reports them."""
    now = now_rfc3339()
    resources = spec.resources()
    return {
        "capacity": resources,
        "allocatable": resources,
        "conditions": [
            {
                "type": kind,
                "status": value,
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": now,
                "lastTransitionTime": now,
            }
            for kind, (value, reason, message) in _HEALTHY.items()
        ],
        # No Hostname: the API server would prefer it, and nobody resolves it.
        "addresses": [{"type": "InternalIP", "address": address}],
        "nodeInfo": {
            "architecture": _architecture(),
            "operatingSystem": "linux",
            "osImage": "Fairlead node stand-in",
            "kernelVersion": platform.release(),
            "kubeletVersion": KUBELET_VERSION,
            "kubeProxyVersion": "",
            "containerRuntimeVersion": "fairlead://0",
            "machineID": spec.name,
            "systemUUID": spec.name,
            "bootID": spec.name,
        },
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet_port}},
        # Without it the API server would speak SPDY for `kubectl exec`.
        "declaredFeatures": ["ExtendWebSocketsToKubelet"],
    }


def _architecture() -> str:
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)
