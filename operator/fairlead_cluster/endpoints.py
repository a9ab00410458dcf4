"""Which pods stand behind a Service: pure, from the Service and the pods as the API server has them.

The endpoint controllers cannot do it here (EndpointSlices refuse loopback addresses), so the rules of Kubernetes'
endpointslice controller and of kube-proxy are restated: ready pods; if there are none, those that still serve while
they terminate; all of them where the Service publishes addresses that are not ready.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address of one pod's port."""

    ip: str
    port: int


def is_headless(service: Json) -> bool:
    """Whether clients find the pods by DNS alone, without a cluster IP."""
    return bool(service["spec"].get("clusterIP") == "None")


def cluster_ip(service: Json) -> str | None:
    """The address that a forwarder must listen on, None for headless and ExternalName Services."""
    ip = service["spec"].get("clusterIP")
    return ip if ip and ip != "None" else None


def backing_pods(service: Json, pods: Iterable[Json]) -> list[Json]:
    """The pods that get the Service's traffic now, in the order of their names.

    `pods` are those of the Service's namespace (others are passed over).
    """
    selected = [pod for pod in pods if _is_selected(service, pod)]
    selected.sort(key=lambda pod: str(pod["metadata"]["name"]))
    if service["spec"].get("publishNotReadyAddresses"):
        return selected
    ready = [pod for pod in selected if is_ready(pod)]
    if staying := [pod for pod in ready if not is_terminating(pod)]:
        return staying
    # kube-proxy's fallback (KEP-1669): better a pod that drains than a refused connection.
    return [] if is_headless(service) else ready


def endpoints(service: Json, port: Json, pods: Iterable[Json]) -> tuple[Endpoint, ...]:
    """Where connections to one port of the Service may go; `port` is an item of its `spec.ports`."""
    found = []
    for pod in backing_pods(service, pods):
        target = resolve_target_port(pod, port)
        if target is not None:
            found.append(Endpoint(pod["status"]["podIP"], target))
    return tuple(found)


def resolve_target_port(pod: Json, port: Json) -> int | None:
    """The pod's port number for a Service port: `targetPort` as a number or as a name, by default the same number.

    None if the pod has no port of that name; the pod then gets no traffic for it.
    """
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    protocol = port.get("protocol", "TCP")
    for container in _serving_containers(pod["spec"]):
        for candidate in container.get("ports", []):
            if candidate.get("name") == target and candidate.get("protocol", "TCP") == protocol:
                return int(candidate["containerPort"])
    return None


def is_ready(pod: Json) -> bool:
    """Whether the pod's Ready condition is true."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def is_terminating(pod: Json) -> bool:
    """Whether somebody asked for the pod's deletion."""
    return "deletionTimestamp" in pod["metadata"]


def _serving_containers(spec: Mapping[str, Any]) -> list[Json]:
    sidecars = [one for one in spec.get("initContainers", []) if one.get("restartPolicy") == "Always"]
    return [*spec["containers"], *sidecars]


def _is_selected(service: Json, pod: Json) -> bool:
    selector = service["spec"].get("selector")
    status = pod.get("status", {})
    if not selector or not status.get("podIP") or status.get("phase") in ("Succeeded", "Failed"):
        return False
    if pod["metadata"].get("namespace") != service["metadata"].get("namespace"):
        return False
    labels = pod["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in selector.items())
