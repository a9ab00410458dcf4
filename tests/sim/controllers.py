"""The cluster's own controllers: Deployments make ReplicaSets and pods, pods come up or fail, claims are bound, the garbage
collector follows owner references, a namespace that ends takes everything with it.

Each works a moment after a change, one step at a time, as the real ones do; `Pace` says how long a moment is and in which
order dependents go.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from tests.sim.cluster import CONTROLLERS, Entry, SimCluster
from tests.sim.kinds import Key

Json = dict[str, Any]
KUBELET = "kubelet"
COLLECTOR = "generic-garbage-collector"
#: What an image is called that no registry has.
BROKEN_IMAGE = "broken"


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds that a step of each controller takes. `reverse`: the collector takes dependents from the end."""

    workload_s: float = 0.02
    pod_s: float = 0.3
    collect_s: float = 0.4
    reverse: bool = False


class Controllers:
    """All of them on one cluster. They work as long as the loop runs."""

    def __init__(self, cluster: SimCluster, pace: Pace | None = None) -> None:
        self._cluster = cluster
        self.pace = pace or Pace()
        self._due: set[str] = set()
        cluster.listeners.append(self._heard)

    @property
    def busy(self) -> bool:
        """Whether a step is due."""
        return bool(self._due)

    def end_namespace(self, namespace: str) -> None:
        """`kubectl delete namespace`: nothing new may be made there, and what is there goes."""
        self._cluster.terminating.add(namespace)
        self._wake("collect", self.pace.collect_s, self._collect)

    def _heard(self, entry: Entry) -> None:
        kind = entry.key.kind
        if kind in ("Deployment", "ReplicaSet", "Pod"):
            self._wake("workloads", self.pace.workload_s, self._run_workloads)
        if kind == "Pod":
            self._wake("pods", self.pace.pod_s, self._run_pods)
        if kind in ("PersistentVolumeClaim", "Pod"):
            self._wake("claims", self.pace.pod_s, self._run_claims)
        if entry.after is None or entry.type == "ADDED":
            self._wake("collect", self.pace.collect_s, self._collect)

    def _wake(self, name: str, delay_s: float, work: Callable[[], None]) -> None:
        if name in self._due:
            return
        self._due.add(name)

        def run() -> None:
            self._due.discard(name)
            work()

        asyncio.get_running_loop().call_later(delay_s, run)

    # Deployments ------------------------------------------------------------------------------------------------------

    def _run_workloads(self) -> None:
        for deployment in self._cluster.all("Deployment"):
            if "deletionTimestamp" not in deployment["metadata"]:
                self._run_deployment(deployment)

    def _run_deployment(self, deployment: Json) -> None:
        metadata, wanted = deployment["metadata"], int(deployment["spec"]["replicas"])
        current = self._replica_set(deployment)
        pods = [pod for pod in self._cluster.all("Pod", metadata["namespace"]) if _belongs(pod, metadata["uid"])]
        alive = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        new = [pod for pod in alive if _owner_name(pod) == current["metadata"]["name"]]
        old = [pod for pod in alive if pod not in new]
        surge, unavailable = self._limits(deployment, wanted)
        recreate = deployment["spec"]["strategy"]["type"] == "Recreate"
        doomed = self._choose_doomed(wanted, new, old, 0 if not recreate else len(old), unavailable)
        for pod in doomed:
            self._cluster.delete(CONTROLLERS, "Pod", metadata["namespace"], pod["metadata"]["name"])
        kept = [pod for pod in alive if pod not in doomed]
        if not (recreate and any(pod not in new for pod in pods)):
            for _ in range(min(wanted - len([pod for pod in new if pod not in doomed]), wanted + surge - len(kept))):
                self._make_pod(deployment, current)
        self._report(metadata["namespace"], metadata["name"], current["metadata"]["name"])

    def _choose_doomed(
        self, wanted: int, new: list[Json], old: list[Json], at_once: int, unavailable: int
    ) -> list[Json]:
        """Surplus pods: the broken ones first, then those that may go without too few being ready."""
        doomed = new[wanted:]
        doomed += [pod for pod in old if not _is_ready(pod)] or old[:at_once]
        ready = [pod for pod in [*new[:wanted], *old] if _is_ready(pod)]
        may_go = max(0, len(ready) - max(0, wanted - unavailable))
        doomed += [pod for pod in old if _is_ready(pod) and pod not in doomed][:may_go]
        return doomed if wanted else [*new, *old]

    def _limits(self, deployment: Json, wanted: int) -> tuple[int, int]:
        rolling = deployment["spec"]["strategy"].get("rollingUpdate") or {}
        surge, unavailable = rolling.get("maxSurge", 0), rolling.get("maxUnavailable", 0)
        return (
            surge if isinstance(surge, int) else -(-wanted * int(surge[:-1]) // 100),
            unavailable if isinstance(unavailable, int) else wanted * int(unavailable[:-1]) // 100,
        )

    def _replica_set(self, deployment: Json) -> Json:
        metadata, template = deployment["metadata"], deployment["spec"]["template"]
        digest = hashlib.sha256(orjson.dumps(template, option=orjson.OPT_SORT_KEYS)).hexdigest()[:8]
        name = f"{metadata['name']}-{digest}"
        found = self._cluster.get("ReplicaSet", metadata["namespace"], name)
        if found is not None and _belongs(found, metadata["uid"]):
            return found
        if found is not None:  # of a predecessor of the same name: it is on its way out
            name = f"{name}-{metadata['uid']}"
            again = self._cluster.get("ReplicaSet", metadata["namespace"], name)
            if again is not None:
                return again
        body = {
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": name, "namespace": metadata["namespace"], "labels": template["metadata"].get("labels") or {},
                "ownerReferences": [_reference("apps/v1", "Deployment", metadata)],
            },
            "spec": {"template": template},
        }  # fmt: skip
        return self._cluster.create(CONTROLLERS, body)

    def _make_pod(self, deployment: Json, replica_set: Json) -> None:
        metadata, template = deployment["metadata"], deployment["spec"]["template"]
        base = replica_set["metadata"]["name"]
        number = self._cluster.count(base)
        body = {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": f"{base}-{number}", "namespace": metadata["namespace"],
                "labels": template["metadata"].get("labels") or {},
                "ownerReferences": [_reference("apps/v1", "ReplicaSet", replica_set["metadata"])],
                "annotations": {"sim/deployment-uid": metadata["uid"]},
            },
            "spec": template["spec"], "status": {"phase": "Pending"},
        }  # fmt: skip
        self._cluster.create(CONTROLLERS, body)

    def _report(self, namespace: str, name: str, current: str) -> None:
        deployment = self._cluster.get("Deployment", namespace, name)
        assert deployment is not None
        pods = [p for p in self._cluster.all("Pod", namespace) if _belongs(p, deployment["metadata"]["uid"])]
        alive = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        updated = [pod for pod in alive if _owner_name(pod) == current]
        ready = [pod for pod in alive if _is_ready(pod)]
        wanted = deployment["spec"]["replicas"]
        counts = {
            "replicas": len(alive), "updatedReplicas": len(updated), "readyReplicas": len(ready),
            "availableReplicas": len(ready), "unavailableReplicas": max(0, wanted - len(ready)),
        }  # fmt: skip
        done = len(updated) == len(alive) == len(ready) == wanted
        conditions = [
            _condition("Available", len(ready) >= wanted, "MinimumReplicasAvailable", "MinimumReplicasUnavailable"),
            _condition("Progressing", True, "NewReplicaSetAvailable" if done else "ReplicaSetUpdated", ""),
        ]
        status = {"observedGeneration": deployment["metadata"]["generation"], "conditions": conditions}
        status |= {key: count for key, count in counts.items() if count}
        annotations = {
            **(deployment["metadata"].get("annotations") or {}),
            "deployment.kubernetes.io/revision": current,
        }

        def change(live: Json) -> None:
            live["metadata"]["annotations"] = annotations
            live["status"] = status

        if deployment.get("status") != status or deployment["metadata"].get("annotations") != annotations:
            self._cluster.edit_status(CONTROLLERS, "Deployment", namespace, name, change)

    # pods and claims --------------------------------------------------------------------------------------------------

    def _run_pods(self) -> None:
        for pod in self._cluster.all("Pod"):
            metadata = pod["metadata"]
            if "deletionTimestamp" in metadata:
                self._cluster.erase(Key("Pod", metadata["namespace"], metadata["name"]))
                continue
            status = _next_pod_status(pod, self._cluster.stamp())
            if status is not None and status != pod.get("status"):

                def change(live: Json, status: Json = status) -> None:
                    live["status"] = status

                self._cluster.edit_status(KUBELET, "Pod", metadata["namespace"], metadata["name"], change)

    def _run_claims(self) -> None:
        for claim in self._cluster.all("PersistentVolumeClaim"):
            metadata = claim["metadata"]
            key = Key("PersistentVolumeClaim", metadata["namespace"], metadata["name"])
            if "deletionTimestamp" in metadata:
                if not any(_mounts(pod, key) for pod in self._cluster.all("Pod", key.namespace)):
                    self._cluster.strip_finalizers(CONTROLLERS, key)
            elif claim["status"]["phase"] == "Pending":
                self._bind(key)

    def _bind(self, key: Key) -> None:
        def spec(live: Json) -> None:
            live["spec"]["volumeName"] = f"pv-{live['metadata']['uid']}"
            if not live["spec"].get("storageClassName"):
                live["spec"]["storageClassName"] = "standard"

        def status(live: Json) -> None:
            size = live["spec"]["resources"]["requests"]["storage"]
            live["status"] = {
                "phase": "Bound",
                "accessModes": live["spec"]["accessModes"],
                "capacity": {"storage": size},
            }

        self._cluster.edit(CONTROLLERS, key.kind, key.namespace, key.name, spec)
        self._cluster.edit_status(CONTROLLERS, key.kind, key.namespace, key.name, status)

    # garbage ----------------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Delete one object whose owners are all gone; the next a moment later."""
        garbage = list(self._find_garbage())
        if not garbage:
            return
        key, uid = garbage[-1 if self.pace.reverse else 0]
        self._cluster.delete(COLLECTOR, key.kind, key.namespace, key.name, uid)
        self._wake("collect", self.pace.collect_s, self._collect)

    def _find_garbage(self) -> Iterator[tuple[Key, str]]:
        uids = {record.live["metadata"]["uid"] for record in self._cluster.records.values()}
        for key, record in sorted(self._cluster.records.items()):
            metadata = record.live["metadata"]
            owners = metadata.get("ownerReferences") or []
            orphan = owners and not any(owner["uid"] in uids for owner in owners)
            if "deletionTimestamp" not in metadata and (orphan or key.namespace in self._cluster.terminating):
                yield key, metadata["uid"]


def _next_pod_status(pod: Json, stamp: str) -> Json | None:
    """Without a node, then starting, then ready; or never, when its image cannot be pulled."""
    status, containers = pod.get("status") or {}, pod["spec"]["containers"]
    if not status.get("conditions"):
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp}
        return {"phase": "Pending", "conditions": [scheduled]}
    scheduled = status["conditions"][0]
    broken = any(BROKEN_IMAGE in container["image"] for container in containers)
    if broken:
        state: Json = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
        return {"phase": "Pending", "conditions": [scheduled], "containerStatuses": _statuses(containers, state, False)}
    if status.get("phase") == "Pending":
        statuses = _statuses(containers, {"running": {"startedAt": stamp}}, False)
        return {"phase": "Running", "conditions": [scheduled], "containerStatuses": statuses}
    if any(not container["ready"] for container in status["containerStatuses"]):
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": stamp}
        state = status["containerStatuses"][0]["state"]
        return {
            "phase": "Running",
            "conditions": [scheduled, ready],
            "containerStatuses": _statuses(containers, state, True),
        }
    return None


def _statuses(containers: list[Json], state: Json, ready: bool) -> list[Json]:
    return [
        {"name": c["name"], "image": c["image"], "ready": ready, "started": ready, "restartCount": 0, "state": state}
        for c in containers
    ]


def _condition(type_: str, true: bool, reason: str, otherwise: str) -> Json:
    return {"type": type_, "status": "True" if true else "False", "reason": reason if true else otherwise}


def _reference(api_version: str, kind: str, metadata: Json) -> Json:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }


def _belongs(live: Json, uid: str) -> bool:
    if (live["metadata"].get("annotations") or {}).get("sim/deployment-uid") == uid:
        return True
    return any(owner["uid"] == uid for owner in live["metadata"].get("ownerReferences") or ())


def _owner_name(pod: Json) -> str:
    return str(pod["metadata"]["ownerReferences"][0]["name"])


def _is_ready(pod: Json) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _mounts(pod: Json, claim: Key) -> bool:
    volumes = pod["spec"].get("volumes") or ()
    return any((volume.get("persistentVolumeClaim") or {}).get("claimName") == claim.name for volume in volumes)
