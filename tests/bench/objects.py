"""What the bench sends: custom resources, the children that a bare client applies in their place, statuses of pods."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

Json = dict[str, Any]
NAMESPACE = "default"
FROZEN = "frozen"  # a scheduler that does not exist: nobody touches these pods but the bench
TIME = "2026-01-01T00:00:00Z"
_PLURALS = {"NetworkPolicy": "networkpolicies"}


def make_resource(name: str, namespace: str = NAMESPACE) -> Json:
    """A typical custom resource, with all six children: Deployment, two Services, claim, budget, network policy."""
    return {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": {"source": "hf://meta-llama/Llama-3.1-8B-Instruct"},
            "engine": {"type": "vLLM"},
            "accelerator": {"count": 1},
            "replicas": 2,
            "storage": {"type": "PersistentVolumeClaim", "size": "50Gi", "accessModes": ["ReadWriteMany"]},
            "pod": {"schedulerName": FROZEN},
        },
    }


def path_of(body: Json) -> str:
    """URL path of an object."""
    api_version, kind, metadata = str(body["apiVersion"]), str(body["kind"]), body["metadata"]
    root = "apis" if "/" in api_version else "api"
    plural = _PLURALS.get(kind, f"{kind.lower()}s")
    return f"/{root}/{api_version}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}"


def apply_line(body: Json, subresource: str = "") -> bytes:
    """One line for the sender: a server-side apply."""
    return json.dumps({"path": path_of(body) + subresource, "body": body}).encode()


def merge_line(path: str, patch: Json) -> bytes:
    """One line for the sender: a merge patch."""
    return json.dumps({"path": path, "body": patch, "patch": "merge"}).encode()


def render_children(resource: Json) -> list[Json]:
    """What the operator makes for it, by `fairlead render`."""
    done = subprocess.run(
        [sys.executable, "-m", "fairlead", "render", "-f", "-"],
        input=yaml.safe_dump(resource),
        capture_output=True,
        text=True,
        check=True,
    )
    return list(yaml.load_all(done.stdout, Loader=yaml.CSafeLoader))


def make_bare_writes(live: Sequence[Json]) -> list[bytes]:
    """The operator's writes for these custom resources: children with owner and hash, then the status, one by one.

    Rendered once and copied by name, as the bodies differ in nothing else.
    """
    first = live[0]["metadata"]
    children = render_children(make_resource(first["name"], first["namespace"]))
    lines: list[bytes] = []
    for resource in live:
        metadata = resource["metadata"]
        owner = {
            "apiVersion": "fairlead.dev/v1alpha1",
            "kind": "LLMDeployment",
            "name": metadata["name"],
            "uid": metadata["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
        for child in json.loads(json.dumps(children).replace(first["name"], metadata["name"])):
            child["metadata"]["ownerReferences"] = [owner]
            child["metadata"].setdefault("annotations", {})["fairlead.dev/applied-hash"] = "0" * 32
            lines.append(apply_line(child))
        lines.append(apply_line(_make_status(resource), "/status"))
    return lines


def _make_status(resource: Json) -> Json:
    """As large as the operator's."""
    metadata = resource["metadata"]
    name = metadata["name"]
    kinds = (
        "Ready",
        "Reconciling",
        "Stalled",
        "ModelReady",
        "PodsScheduled",
        "Available",
        "ScalingActive",
        "HardwareFits",
    )
    condition = {"status": "False", "reason": "Progressing", "message": "0 of 2 replicas serve, at least 1 must."}
    stamped = {**condition, "observedGeneration": 1, "lastTransitionTime": TIME}
    return {
        "apiVersion": resource["apiVersion"],
        "kind": resource["kind"],
        "metadata": {key: metadata[key] for key in ("name", "namespace", "uid")},
        "status": {
            "observedGeneration": 1,
            "replicas": 2,
            "readyReplicas": 0,
            "readyOfDesired": "0/2",
            "selector": f"app.kubernetes.io/component=engine,app.kubernetes.io/instance={name}",
            "endpoint": f"http://{name}.{metadata['namespace']}.svc/v1",
            "conditions": [{**stamped, "type": kind} for kind in kinds],
        },
    }


def make_pods_ready(pods: Iterable[Json]) -> list[bytes]:
    """What a kubelet would say of each pod: its container runs and is ready."""
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": TIME}
        for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    ]
    lines = []
    for pod in pods:
        containers = [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": True,
                "started": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": TIME}},
            }
            for container in pod["spec"]["containers"]
        ]
        status = {"phase": "Running", "startTime": TIME, "conditions": conditions, "containerStatuses": containers}
        path = path_of({**pod, "apiVersion": "v1", "kind": "Pod"})
        lines.append(merge_line(f"{path}/status", {"status": status}))
    return lines
