"""Fields of a pod and resources of its containers, as `fieldRef` and `resourceFieldRef` name them (downward API)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fairlead_cluster.node.quantity import divided_up

Json = dict[str, Any]

_WITH_KEY = re.compile(r"^metadata\.(labels|annotations)\['(.*)'\]$")


@dataclass(frozen=True, slots=True)
class PodContext:
    """What a pod's containers may know about it and its node. `host_ip` is the node's address."""

    pod: Json
    pod_ip: str
    host_ip: str
    allocatable: Mapping[str, str]

    @property
    def namespace(self) -> str:
        """The pod's."""
        return str(self.pod["metadata"]["namespace"])

    @property
    def description(self) -> str:
        """As the kubelet's messages name a pod."""
        metadata = self.pod["metadata"]
        return f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"


def field_value(context: PodContext, path: str) -> str:
    """The value of a `fieldRef`. ValueError for a path that the API server would not have let through."""
    metadata, spec = context.pod["metadata"], context.pod["spec"]
    if match := _WITH_KEY.match(path):
        return str((metadata.get(match[1]) or {}).get(match[2], ""))
    simple = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "metadata.labels": format_map(metadata.get("labels")),
        "metadata.annotations": format_map(metadata.get("annotations")),
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.podIP": context.pod_ip,
        "status.podIPs": context.pod_ip,
        "status.hostIP": context.host_ip,
        "status.hostIPs": context.host_ip,
    }
    if path not in simple:
        raise ValueError(f"unsupported fieldPath: {path}")
    return str(simple[path])


def resource_value(context: PodContext, reference: Json, default_container: str) -> str:
    """The value of a `resourceFieldRef`; a limit that is not set is what the node has."""
    name = reference.get("containerName") or default_container
    spec = context.pod["spec"]
    containers = [*spec["containers"], *spec.get("initContainers", [])]
    container = next((one for one in containers if one["name"] == name), None)
    if container is None:
        raise ValueError(f"container {name} not found")
    kind, _, resource = reference["resource"].partition(".")
    resources = container.get("resources") or {}
    quantity = (resources.get(kind) or {}).get(resource)
    if quantity is None and kind == "limits":
        quantity = context.allocatable.get(resource)
    return divided_up(quantity or "0", reference.get("divisor") or "1")


def format_map(values: Mapping[str, str] | None) -> str:
    """Labels or annotations as a file of the downward API: sorted `key="escaped value"` lines."""
    return "\n".join(f"{key}={_quoted(value)}" for key, value in sorted((values or {}).items()))


def _quoted(text: str) -> str:
    """Go's %q for what occurs in labels and annotations."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(one, one) for one in text) + '"'
