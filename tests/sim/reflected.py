"""Which field of a child says what a field of a custom resource asks for: written from the documentation, not from the planner.

For each declared field that must show somewhere, a statement about the children. (Acto: a declared field that changes nothing
is a bug that no test of states finds.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.sim.cluster import SimCluster

Json = Mapping[str, Any]


class Children:
    """The children of one custom resource, as they are."""

    def __init__(self, cluster: SimCluster, namespace: str, name: str) -> None:
        self.deployment: Json = cluster.get("Deployment", namespace, name) or {}
        self.service: Json = cluster.get("Service", namespace, name) or {}
        self.policy = cluster.get("NetworkPolicy", namespace, name)
        self.budget = cluster.get("PodDisruptionBudget", namespace, name)
        self.claim = cluster.get("PersistentVolumeClaim", namespace, f"{name}-cache")
        self.template: Json = self.deployment.get("spec", {}).get("template", {})
        self.pod: Json = self.template.get("spec", {})
        self.container: Json = (self.pod.get("containers") or [{}])[0]

    def texts(self) -> str:
        """Command lines and variables of all containers."""
        containers = [*(self.pod.get("containers") or ()), *(self.pod.get("initContainers") or ())]
        return " ".join(str(c.get(name)) for c in containers for name in ("command", "args", "env"))


def _shows(children: Children, value: Any) -> bool:
    return str(value) in children.texts()


def _has_entries(live: Json | None, wanted: Json) -> bool:
    return all((live or {}).get(key) == value for key, value in wanted.items())


def _bytes(quantity: str) -> float:
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "k": 10**3, "M": 10**6, "G": 10**9, "m": 1e-3}
    for unit, factor in units.items():
        if quantity.endswith(unit):
            return float(quantity.removesuffix(unit)) * factor
    return float(quantity)


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def _asks(children: Children, side: str, wanted: Json) -> bool:
    found = (children.container.get("resources") or {}).get(side) or {}
    return all(_bytes(str(found.get(name, "0"))) == _bytes(str(value)) for name, value in wanted.items())


def _mounts(children: Children, files: list[Json]) -> bool:
    mounts = children.container.get("volumeMounts") or []
    paths = [mount["mountPath"] + "/" + mount.get("subPath", "") for mount in mounts]
    return all(any(file["path"].startswith(path.rstrip("/")) for path in paths) for file in files)


def _startup_s(children: Children) -> int:
    probe = children.container.get("startupProbe") or {}
    return int(probe.get("periodSeconds", 10)) * int(probe.get("failureThreshold", 3))


def _policy_admits(children: Children, peers: list[Json]) -> bool:
    rules = (children.policy or {}).get("spec", {}).get("ingress") or []
    return all(any(peer in rule.get("from", []) for rule in rules) for peer in peers)


#: Path in the spec -> whether its value shows.
STATEMENTS: dict[str, Callable[[Children, Any], bool]] = {
    "replicas": lambda c, v: c.deployment["spec"]["replicas"] == v and (c.budget is not None) == (v >= 2),
    "service.port": lambda c, v: c.service["spec"]["ports"][0]["port"] == v,
    "service.type": lambda c, v: c.service["spec"]["type"] == v,
    "service.annotations": lambda c, v: _has_entries(c.service["metadata"].get("annotations"), v),
    "networkPolicy.mode": lambda c, v: (c.policy is None) == (v == "Disabled"),
    "networkPolicy.from": _policy_admits,
    "pod.labels": lambda c, v: _has_entries(c.template["metadata"].get("labels"), v),
    "pod.annotations": lambda c, v: _has_entries(c.template["metadata"].get("annotations"), v),
    "pod.nodeSelector": lambda c, v: _has_entries(c.pod.get("nodeSelector"), v),
    "pod.tolerations": lambda c, v: all(item in c.pod["tolerations"] for item in v),
    "pod.affinity": lambda c, v: all(key in c.pod["affinity"] for key in v),
    "pod.topologySpreadConstraints": lambda c, v: len(c.pod["topologySpreadConstraints"]) >= len(v),
    "pod.securityContext": lambda c, v: _has_entries(c.pod["securityContext"], v),
    "pod.extraVolumes": lambda c, v: {item["name"] for item in v} <= {item["name"] for item in c.pod["volumes"]},
    "resources.requests": lambda c, v: _asks(c, "requests", v),
    "resources.limits": lambda c, v: _asks(c, "limits", v),
    "accelerator.count": lambda c, v: any(str(v) == str(n) for n in c.container["resources"]["limits"].values()),
    "accelerator.resourceName": lambda c, v: v in c.container["resources"]["limits"],
    "accelerator.memoryUtilizationPercent": lambda c, v: _shows(c, f"{v / 100:g}") or _shows(c, f"{v / 100:.2f}"),
    "model.revision": _shows,
    "model.name": _shows,
    "model.source": lambda c, v: _shows(
        c, v.partition("://")[2].partition("/")[2] if v.startswith("pvc:") else v.partition("://")[2]
    ),
    "model.secretRef.name": _shows,
    "engine.version": lambda c, v: v in c.container["image"],
    "engine.args": lambda c, v: all(_shows(c, argument) for argument in v),
    "engine.env": lambda c, v: all(entry in c.container["env"] for entry in v),
    "files": _mounts,
    "context.maxLength": _shows,
    "context.maxSequences": _shows,
    "quantization.kvCache": lambda c, v: _shows(c, v.lower()),
    "probes.startupTimeout": lambda c, v: _startup_s(c) >= _seconds(v) and _startup_s(c) < _seconds(v) + 60,
    "probes.readiness.periodSeconds": lambda c, v: c.container["readinessProbe"]["periodSeconds"] == v,
}


def unreflected(cluster: SimCluster, resource: Json) -> Iterator[str]:
    """Fields whose value shows in no child. A field that is not declared says nothing."""
    metadata, spec = resource["metadata"], dict(resource["spec"])
    children = Children(cluster, metadata["namespace"], metadata["name"])
    if spec.get("suspend"):
        spec.pop("replicas", None)
        if children.deployment["spec"]["replicas"] != 0:
            yield "suspend"
    for path, holds in STATEMENTS.items():
        value = _value(spec, path)
        if value is None:
            continue
        try:
            shown = holds(children, value)
        except (KeyError, TypeError, IndexError) as error:
            shown, path = False, f"{path} ({error!r})"
        if not shown:
            yield f"{path} = {value!r}"
    storage = spec.get("storage") or {}
    if (children.claim is not None) != (
        storage.get("type") == "PersistentVolumeClaim" and not storage.get("claimName")
    ):
        yield f"storage = {storage}"
    elif children.claim is not None:
        size = children.claim["spec"]["resources"]["requests"]["storage"]
        if _bytes(size) != _bytes(storage["size"]):
            yield f"storage.size = {storage['size']}"


def _value(spec: Json, path: str) -> Any:
    node: Any = spec
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    return node
