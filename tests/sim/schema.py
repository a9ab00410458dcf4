"""What the API server makes of objects beyond storing them: defaults, what may not change, and when a generation counts up.

For the fields that occur here only. The CRD's own defaults are read from `crds/`, as the API server reads them.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]
CRD_FILE = Path(__file__).parents[2] / "crds" / "llmdeployments.fairlead.dev.yaml"

#: Kinds that count generations, and the top fields that count.
COUNTED = {"Deployment", "LLMDeployment", "PodDisruptionBudget", "NetworkPolicy", "ReplicaSet", "Pod", "ScaledObject"}
#: Kinds with a status that only its subresource writes.
_WITH_STATUS = {
    "Deployment",
    "LLMDeployment",
    "PodDisruptionBudget",
    "PersistentVolumeClaim",
    "Service",
    "ReplicaSet",
    "Pod",
    "ScaledObject",
}


def has_status(kind: str) -> bool:
    """Whether writes of the object leave its status alone."""
    return kind in _WITH_STATUS


class InvalidError(Exception):
    """422 with causes: (field, reason, message) each."""

    def __init__(self, causes: list[tuple[str, str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {message}" for field, _, message in causes))
        self.causes = causes


def default(kind: str, live: Json) -> None:
    """Fill in what the API server fills in."""
    found = _DEFAULTS.get(kind)
    if found is not None:
        found(live)


def check(kind: str, live: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
    """Raises InvalidError for what the API server refuses."""
    found = _CHECKS.get(kind)
    if found is not None:
        causes = found(live, before)
        if causes:
            raise InvalidError(causes)


def bumps_generation(kind: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether this change of the main resource counts up."""
    if kind not in COUNTED:
        return False
    if kind == "Deployment":  # annotations count too there: so its controller hears of them
        old, new = before["metadata"].get("annotations") or {}, after["metadata"].get("annotations") or {}
        if old != new:
            return True
    return before.get("spec") != after.get("spec")


def _set(target: Json, **values: Any) -> None:
    for key, value in values.items():
        if target.get(key) is None:
            target[key] = copy.deepcopy(value)


def _default_deployment(live: Json) -> None:
    spec = live["spec"]
    _set(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600, strategy={"type": "RollingUpdate"})
    if spec["strategy"].get("type") == "RollingUpdate":
        _set(spec["strategy"], rollingUpdate={})
        _set(spec["strategy"]["rollingUpdate"], maxSurge="25%", maxUnavailable="25%")
    template = spec["template"]
    template.setdefault("metadata", {})
    _default_pod_spec(template["spec"])


def _default_pod_spec(spec: Json) -> None:
    _set(spec, restartPolicy="Always", dnsPolicy="ClusterFirst", schedulerName="default-scheduler")
    _set(spec, terminationGracePeriodSeconds=30, securityContext={})
    for container in [*spec.get("containers", ()), *spec.get("initContainers", ())]:
        _set(container, terminationMessagePath="/dev/termination-log", terminationMessagePolicy="File", resources={})
        latest = container["image"].endswith(":latest") or ":" not in container["image"].rpartition("/")[2]
        _set(container, imagePullPolicy="Always" if latest else "IfNotPresent")
        for port in container.get("ports") or ():
            _set(port, protocol="TCP")
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            if container.get(name):
                _set(container[name], timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
                if "httpGet" in container[name]:
                    _set(container[name]["httpGet"], scheme="HTTP", path="/")
    for volume in spec.get("volumes") or ():
        for source in ("configMap", "secret", "projected"):
            if source in volume:
                _set(volume[source], defaultMode=420)


def _default_service(live: Json) -> None:
    spec = live["spec"]
    _set(spec, type="ClusterIP", sessionAffinity="None", internalTrafficPolicy="Cluster")
    _set(spec, ipFamilies=["IPv4"], ipFamilyPolicy="SingleStack")
    for port in spec.get("ports") or ():
        _set(port, protocol="TCP", targetPort=port["port"])
    if spec["type"] in ("NodePort", "LoadBalancer"):
        _set(spec, externalTrafficPolicy="Cluster")
    else:
        spec.pop("externalTrafficPolicy", None)
        for port in spec.get("ports") or ():
            port.pop("nodePort", None)
    if spec.get("publishNotReadyAddresses") is False:
        del spec["publishNotReadyAddresses"]
    live.setdefault("status", {"loadBalancer": {}})


def _default_claim(live: Json) -> None:
    _set(live["spec"], volumeMode="Filesystem")
    live.setdefault("status", {"phase": "Pending"})


def _default_policy(live: Json) -> None:
    _set(live["spec"], policyTypes=["Ingress"])


def _default_custom_resource(live: Json) -> None:
    _default_by_schema(live, custom_resource_schema())


@cache
def custom_resource_schema() -> Json:
    """`openAPIV3Schema` of the CRD."""
    documents = [document for document in yaml.safe_load_all(CRD_FILE.read_text(encoding="utf-8")) if document]
    schema: Json = documents[0]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def _default_by_schema(value: Any, schema: Mapping[str, Any]) -> None:
    if isinstance(value, dict):
        for name, inner in (schema.get("properties") or {}).items():
            if name not in value and "default" in inner:
                value[name] = copy.deepcopy(inner["default"])
            if name in value:
                _default_by_schema(value[name], inner)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            _default_by_schema(item, schema["items"])


_DEFAULTS: dict[str, Callable[[Json], None]] = {
    "Deployment": _default_deployment,
    "Service": _default_service,
    "PersistentVolumeClaim": _default_claim,
    "NetworkPolicy": _default_policy,
    "LLMDeployment": _default_custom_resource,
}

Causes = list[tuple[str, str, str]]


def _check_deployment(live: Mapping[str, Any], before: Mapping[str, Any] | None) -> Causes:
    spec = live["spec"]
    if before is not None and before["spec"]["selector"] != spec["selector"]:
        return [("spec.selector", "FieldValueInvalid", "Invalid value: field is immutable")]
    if spec["strategy"].get("type") == "Recreate" and spec["strategy"].get("rollingUpdate"):
        return [
            (
                "spec.strategy.rollingUpdate",
                "FieldValueForbidden",
                "may not be specified when strategy `type` is 'Recreate'",
            )
        ]
    names = [container["name"] for container in spec["template"]["spec"].get("containers") or ()]
    if not names:
        return [("spec.template.spec.containers", "FieldValueRequired", "Required value")]
    return []


def _check_service(live: Mapping[str, Any], before: Mapping[str, Any] | None) -> Causes:
    spec = live["spec"]
    if before is not None and before["spec"].get("clusterIP") and before["spec"]["clusterIP"] != spec.get("clusterIP"):
        return [("spec.clusterIPs[0]", "FieldValueInvalid", "Invalid value: may not change once set")]
    causes = []
    names: set[str] = set()
    for index, port in enumerate(spec.get("ports") or ()):
        if port.get("name") in names:
            causes.append((f"spec.ports[{index}].name", "FieldValueDuplicate", f'Duplicate value: "{port["name"]}"'))
        names.add(port.get("name", ""))
    return causes


def _check_claim(live: Mapping[str, Any], before: Mapping[str, Any] | None) -> Causes:
    if before is None:
        return []
    old, new = copy.deepcopy(before["spec"]), copy.deepcopy(live["spec"])
    old_size, new_size = (spec["resources"]["requests"].pop("storage") for spec in (old, new))
    for late in ("storageClassName", "volumeName"):  # may come later
        if not old.get(late):
            old.pop(late, None)
            new.pop(late, None)
    if old != new:
        return [
            ("spec", "FieldValueForbidden", "Forbidden: spec is immutable after creation except resources.requests")
        ]
    if _bytes(new_size) < _bytes(old_size):
        return [
            (
                "spec.resources.requests.storage",
                "FieldValueForbidden",
                "Forbidden: field can not be less than previous value",
            )
        ]
    return []


def _bytes(quantity: str) -> float:
    match = re.fullmatch(r"([0-9.]+)([KMGT]?)(i?)", str(quantity))
    assert match is not None, quantity
    power = " KMGT".index(match[2] or " ")
    return float(match[1]) * (1024.0 if match[3] else 1000.0) ** power


_CHECKS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any] | None], Causes]] = {
    "Deployment": _check_deployment,
    "Service": _check_service,
    "PersistentVolumeClaim": _check_claim,
}
