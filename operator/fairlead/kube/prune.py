"""What of each watched object is kept in memory: enough to plan and to compare, no more.

A pod is 8 kB as JSON and planning needs one of it; at 1,000 deployments that decides between 10 and 80 MiB. What is not kept
also causes no work: a change of it leaves the kept bytes as they were. So whoever plans with a new field adds it here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from fairlead.api import names
from fairlead.facts.nodes import LEAVING_TAINTS, SPOT_LABELS, is_extended_resource

Json = dict[str, Any]
Prune = Callable[[Mapping[str, Any]], Json]

_DEPLOYMENT_REVISION: Final = "deployment.kubernetes.io/revision"  # its controller's own counter
_CONDITION_FIELDS: Final = ("type", "status", "reason")
_REFUSAL_FIELDS: Final = (*_CONDITION_FIELDS, "message")
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_POD_METADATA: Final = (
    "name", "namespace", "uid", "resourceVersion", "labels", "annotations", "ownerReferences", "creationTimestamp",
    "deletionTimestamp", "deletionGracePeriodSeconds",
)  # fmt: skip
_FILES: Final = names.FILE_ANNOTATION_PREFIX  # a hundred kilobytes that nobody reads here
#: What Kubernetes tolerates for every pod, for five minutes.
_OF_EVERY_POD: Final = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_CONTAINER_FIELDS: Final = ("name", "image", "restartPolicy", "resources")
_CONTAINER_STATUS_FIELDS: Final = ("name", "image", "ready", "started", "restartCount", "state", "lastState")
_POD_STATUS_FIELDS: Final = ("phase", "conditions", "reason", "message", "podIP", "startTime")
_CONTAINER_STATUS_LISTS: Final = ("initContainerStatuses", "containerStatuses")


def prune_object(live: Mapping[str, Any]) -> Json:
    """Everything but `managedFields` and kubectl's copy of the whole object in an annotation."""
    metadata = {key: value for key, value in live["metadata"].items() if key != "managedFields"}
    annotations = metadata.get("annotations")
    if annotations and _LAST_APPLIED in annotations:
        metadata["annotations"] = {key: value for key, value in annotations.items() if key != _LAST_APPLIED}
    return {**live, "metadata": metadata}


def prune_child(live: Mapping[str, Any]) -> Json:
    """A child whose status says nothing that is planned with: Service, PodDisruptionBudget, NetworkPolicy."""
    pruned = prune_object(live)
    pruned.pop("status", None)
    return pruned


def prune_claim(live: Mapping[str, Any]) -> Json:
    """A PersistentVolumeClaim, with its phase and capacity."""
    return {**prune_object(live), "status": _pick(live.get("status") or {}, ("phase", "capacity"))}


def prune_secret(live: Mapping[str, Any]) -> Json:
    """A Secret. Where only its metadata was sent, every change of it is one of what is in it: only its version tells."""
    pruned = prune_object(live)
    if live.get("kind") == "PartialObjectMetadata":
        pruned["version"] = live["metadata"].get("resourceVersion")
    return pruned


def prune_autoscaler(live: Mapping[str, Any]) -> Json:
    """A HorizontalPodAutoscaler: only what it scales."""
    metadata = _pick(live["metadata"], ("name", "namespace", "uid", "resourceVersion", "labels"))
    target = (live.get("spec") or {}).get("scaleTargetRef") or {}
    return {**_pick(live, ("apiVersion", "kind")), "metadata": metadata, "spec": {"scaleTargetRef": target}}


def prune_scaled_object(live: Mapping[str, Any]) -> Json:
    """KEDA's ScaledObject with its conditions: the rest of its status, such as when it was active last, moves all the time."""
    conditions = [_pick(one, _REFUSAL_FIELDS) for one in (live.get("status") or {}).get("conditions") or ()]
    return {**prune_object(live), "status": {"conditions": conditions}}


def prune_node(live: Mapping[str, Any]) -> Json:
    """A Node: whether it may be taken back or goes, and of one with accelerators how many, who may run there, and whether it is ready.
    Its kubelet writes status every few minutes, with times and images: of that nothing is kept."""
    metadata = _pick(live["metadata"], ("name", "uid", "resourceVersion", "deletionTimestamp", "labels"))
    spec, status = live.get("spec") or {}, live.get("status") or {}
    resources = {name: value for name, value in (status.get("allocatable") or {}).items() if is_extended_resource(name)}
    taints = [
        _pick(taint, ("key", "value", "effect"))
        for taint in spec.get("taints") or ()
        if taint.get("effect") != "PreferNoSchedule" and (resources or taint.get("key") in LEAVING_TAINTS)
    ]
    kept: Json = {"metadata": metadata, "spec": {"taints": taints} if taints else {}}
    if not resources:
        labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key in SPOT_LABELS}
        return {**kept, "metadata": {**metadata, "labels": labels}}
    if spec.get("unschedulable"):
        kept["spec"]["unschedulable"] = True
    ready = [_pick(one, ("type", "status")) for one in status.get("conditions") or () if one.get("type") == "Ready"]
    return {**kept, "status": {"allocatable": resources, "conditions": ready}}


def prune_deployment(live: Mapping[str, Any]) -> Json:
    """A Deployment without the times and sentences with which its controller accompanies each step."""
    pruned = prune_object(live)
    annotations = pruned["metadata"].get("annotations")
    if annotations:
        pruned["metadata"]["annotations"] = {k: v for k, v in annotations.items() if k != _DEPLOYMENT_REVISION}
    status = live.get("status") or {}
    kept = {key: value for key, value in status.items() if key != "conditions"}
    if status.get("conditions"):
        kept["conditions"] = [
            _pick(condition, _REFUSAL_FIELDS if condition["type"] == "ReplicaFailure" else _CONDITION_FIELDS)
            for condition in status["conditions"]
        ]
    pruned["status"] = kept
    return pruned


def prune_pod(live: Mapping[str, Any]) -> Json:
    """A pod's identity, where it runs, what its containers ask for, and its whole story in status."""
    spec = live.get("spec") or {}
    status = live.get("status") or {}
    kept_spec = _pick(spec, ("nodeName", "schedulerName", "terminationGracePeriodSeconds"))
    if added := [one for one in spec.get("tolerations") or () if one.get("key") not in _OF_EVERY_POD]:
        kept_spec["tolerations"] = added
    for key in ("initContainers", "containers"):
        if spec.get(key):
            kept_spec[key] = [_pick(container, _CONTAINER_FIELDS) for container in spec[key]]
    kept_status = _pick(status, _POD_STATUS_FIELDS)
    for key in _CONTAINER_STATUS_LISTS:
        if status.get(key):
            kept_status[key] = [_pick(container, _CONTAINER_STATUS_FIELDS) for container in status[key]]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _prune_pod_metadata(live["metadata"]),
        "spec": kept_spec,
        "status": kept_status,
    }


def _prune_pod_metadata(metadata: Mapping[str, Any]) -> Json:
    kept = _pick(metadata, _POD_METADATA)
    if annotations := kept.get("annotations"):
        kept["annotations"] = {key: value for key, value in annotations.items() if not key.startswith(_FILES)}
    return kept


def _pick(source: Mapping[str, Any], keys: tuple[str, ...]) -> Json:
    return {key: source[key] for key in keys if key in source}


#: By kind; what is not named is kept by `prune_object`.
PRUNE: Final[Mapping[str, Prune]] = {
    "Deployment": prune_deployment,
    "HorizontalPodAutoscaler": prune_autoscaler,
    "NetworkPolicy": prune_child,
    "Node": prune_node,
    "PersistentVolumeClaim": prune_claim,
    "Pod": prune_pod,
    "PodDisruptionBudget": prune_child,
    "ScaledObject": prune_scaled_object,
    "Secret": prune_secret,
    "Service": prune_child,
}


def find_news(kind: str, pruned: Mapping[str, Any]) -> list[Any]:
    """What people wait for in an object's status: empty for one that is merely on its way."""
    status = pruned.get("status") or {}
    if kind == "Deployment":
        refused = [c.get("message") for c in status.get("conditions") or () if c["type"] == "ReplicaFailure"]
        counts = [status.get("readyReplicas", 0), status.get("availableReplicas", 0)]
        has_its_pods = 0 < pruned["spec"].get("replicas", 0) <= status.get("replicas", 0)
        return [*counts, refused, has_its_pods] if refused or any(counts) or has_its_pods else []
    if kind != "Pod":
        return []
    conditions = [c for c in status.get("conditions") or () if c["type"] == "Ready" and c["status"] == "True"]
    containers = [c for key in _CONTAINER_STATUS_LISTS for c in status.get(key) or ()]
    troubled = [
        (c["name"], c.get("restartCount"), c.get("state"))
        for c in containers
        if c.get("restartCount") or "waiting" in (c.get("state") or {}) or "terminated" in (c.get("state") or {})
    ]
    return [bool(conditions), troubled] if conditions or troubled else []
