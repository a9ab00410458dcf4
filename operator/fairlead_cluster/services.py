"""The kube-proxy of the local cluster: a forwarder for each TCP port of each Service that has a cluster IP.

Cluster IPs are loopback addresses (127.96.0.0/16), so the host's own curl, Python and browser reach Services directly,
without root and without a network set-up.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead_cluster.endpoints import Endpoint, cluster_ip, endpoints
from fairlead_cluster.forwarder import Forwarder

Json = dict[str, Any]

_log = logging.getLogger(__name__)
#: Added to a Service port that only root may bind, where we are not root: port 80 is then reached at 10080.
PRIVILEGED_PORT_OFFSET = 10000
_CAP_NET_BIND_SERVICE = 10


def first_bindable_port() -> int:
    """The lowest port that this process may listen on (0 for root; 1024 for others, unless the sysctl says less)."""
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    if int(effective, 16) >> _CAP_NET_BIND_SERVICE & 1:
        return 0
    return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())


def forwarded_port(port: int, first_bindable: int) -> int:
    """Where a Service port is really listened on: the same, or moved by PRIVILEGED_PORT_OFFSET if it must be."""
    return port if port >= first_bindable else port + PRIVILEGED_PORT_OFFSET


@dataclass(frozen=True, slots=True)
class _Address:
    ip: str
    port: int


class ServiceProxy:
    """Keeps forwarders in step with the Services and pods of a namespace, each time `sync` is called.

    `fixed` names endpoints that do not come from pods: the API server behind `default/kubernetes`.
    """

    def __init__(
        self, first_bindable: int, fixed: Mapping[tuple[str, str], tuple[Endpoint, ...]] | None = None
    ) -> None:
        self._first_bindable = first_bindable
        self._fixed = dict(fixed or {})
        self._forwarders: dict[str, dict[_Address, Forwarder]] = {}
        self._noted: set[tuple[str, str, str]] = set()

    async def sync(self, namespace: str, services: Iterable[Json], pods: Iterable[Json]) -> None:
        """Make the forwarders of one namespace what its Services and pods say. Never raises for one bad Service."""
        wanted = self._wanted(services, list(pods))
        current = self._forwarders.setdefault(namespace, {})
        for address in current.keys() - wanted.keys():
            await current.pop(address).close()
        for address, found in wanted.items():
            forwarder = current.setdefault(address, Forwarder(address.ip, address.port))
            if forwarder.endpoints != found or forwarder.is_listening != bool(found):
                try:
                    await forwarder.set_endpoints(found)
                except OSError as error:
                    _log.error("cannot listen on %s:%d: %s", address.ip, address.port, error)
        if not current:
            del self._forwarders[namespace]

    async def close(self) -> None:
        """End all forwarders and their connections."""
        for forwarders in self._forwarders.values():
            for forwarder in forwarders.values():
                await forwarder.close()
        self._forwarders.clear()

    def _wanted(self, services: Iterable[Json], pods: list[Json]) -> dict[_Address, tuple[Endpoint, ...]]:
        wanted: dict[_Address, tuple[Endpoint, ...]] = {}
        for service in services:
            ip = cluster_ip(service)
            if ip is None:
                continue
            self._note_limits(service)
            key = (service["metadata"]["namespace"], service["metadata"]["name"])
            for port in service["spec"].get("ports", []):
                if port.get("protocol", "TCP") == "TCP":
                    address = _Address(ip, forwarded_port(port["port"], self._first_bindable))
                    wanted[address] = self._fixed.get(key) or endpoints(service, port, pods)
        return wanted

    def _note_limits(self, service: Json) -> None:
        """Say once what this proxy does not do, instead of doing silently something else."""
        spec = service["spec"]
        limits = [
            ("sessionAffinity ClientIP", spec.get("sessionAffinity") == "ClientIP"),
            ("internalTrafficPolicy Local", spec.get("internalTrafficPolicy") == "Local"),
            (f"type {spec.get('type')} (only its cluster IP works)", spec.get("type") in ("NodePort", "LoadBalancer")),
            ("UDP and SCTP ports", any(port.get("protocol", "TCP") != "TCP" for port in spec.get("ports", []))),
        ]
        for what, applies in limits:
            note = (service["metadata"]["namespace"], service["metadata"]["name"], what)
            if applies and note not in self._noted:
                self._noted.add(note)
                _log.warning("Service %s/%s: %s is not supported by the local cluster", *note)
