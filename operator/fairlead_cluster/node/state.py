"""What is known of a pod's containers, and the status that a kubelet writes of it: pure functions of the former."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairlead_cluster.node.times import rfc3339

Json = dict[str, Any]

# In a strategic merge patch: without it the address of an earlier run would stay beside the new one, which is refused.
_REPLACE = {"$patch": "replace"}


@dataclass(frozen=True, slots=True)
class Terminated:
    """How one run of a container ended. Times in seconds since the epoch."""

    exit_code: int
    reason: str
    message: str
    started_at_s: float
    finished_at_s: float
    container_id: str

    def to_json(self) -> Json:
        """As in `state.terminated`."""
        result: Json = {
            "exitCode": self.exit_code,
            "reason": self.reason,
            "startedAt": rfc3339(self.started_at_s),
            "finishedAt": rfc3339(self.finished_at_s),
            "containerID": self.container_id,
        }
        return result | ({"message": self.message} if self.message else {})


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a container does not run (yet)."""

    reason: str
    message: str = ""


@dataclass(slots=True)
class ContainerState:
    """One container: exactly one of waiting, running and terminated, and what was before."""

    spec: Json
    is_init: bool = False
    waiting: Waiting | None = field(default_factory=lambda: Waiting("ContainerCreating"))
    running_since_s: float | None = None
    terminated: Terminated | None = None
    last: Terminated | None = None
    restart_count: int = 0
    ready: bool = False
    started: bool = False
    container_id: str = ""

    @property
    def name(self) -> str:
        """Of the container."""
        return str(self.spec["name"])

    @property
    def is_sidecar(self) -> bool:
        """Whether it is an init container that stays."""
        return self.is_init and self.spec.get("restartPolicy") == "Always"

    def set_waiting(self, reason: str, message: str = "") -> None:
        """It does not run, for this reason; its last end (if any) moves to lastState."""
        if self.terminated is not None:
            self.last = self.terminated
        self.waiting, self.running_since_s, self.terminated = Waiting(reason, message), None, None
        self.ready = self.started = False

    def set_running(self, since_s: float) -> None:
        """It runs."""
        if self.terminated is not None:
            self.last = self.terminated
        self.waiting, self.running_since_s, self.terminated = None, since_s, None

    def set_terminated(self, end: Terminated) -> None:
        """It has ended. A regular init container that succeeded counts as ready."""
        self.waiting, self.running_since_s, self.terminated = None, None, end
        self.started = False
        self.ready = self.is_init and not self.is_sidecar and end.exit_code == 0

    def to_json(self) -> Json:
        """An item of containerStatuses."""
        image = self.spec["image"]
        return {
            "name": self.name,
            "image": image,
            "imageID": image if self.container_id else "",
            "containerID": self.container_id,
            "restartCount": self.restart_count,
            "ready": self.ready,
            "started": self.started,
            "state": self._state(),
            "lastState": {"terminated": self.last.to_json()} if self.last is not None else {},
        }

    def _state(self) -> Json:
        if self.running_since_s is not None:
            return {"running": {"startedAt": rfc3339(self.running_since_s)}}
        if self.terminated is not None:
            return {"terminated": self.terminated.to_json()}
        waiting = self.waiting or Waiting("ContainerCreating")
        return {"waiting": {"reason": waiting.reason} | ({"message": waiting.message} if waiting.message else {})}


@dataclass(slots=True)
class PodState:
    """One pod as its node knows it. `ended` is set when nothing will run any more; reason and message as in status."""

    start_time_s: float
    host_ip: str
    containers: list[ContainerState]
    init_containers: list[ContainerState]
    pod_ip: str = ""
    sandbox_ready: bool = False
    initialized: bool = False
    ended: bool = False
    reason: str = ""
    message: str = ""


def make_status(pod: Json, state: PodState, now_s: float) -> Json:
    """The status that the node reports: its own conditions only, others (PodScheduled, gates) belong to others."""
    phase = make_phase(state)
    conditions = make_conditions(pod, state, phase)
    known = {condition["type"]: condition for condition in pod.get("status", {}).get("conditions") or []}
    status: Json = {
        "observedGeneration": pod["metadata"].get("generation", 0),
        "phase": phase,
        "conditions": [_with_transition(condition, known, now_s) for condition in conditions],
        "startTime": rfc3339(state.start_time_s),
        "hostIP": state.host_ip,
        "hostIPs": [_REPLACE, {"ip": state.host_ip}],
        "containerStatuses": [one.to_json() for one in state.containers],
    }
    if state.init_containers:
        status["initContainerStatuses"] = [one.to_json() for one in state.init_containers]
    if state.pod_ip:
        status |= {"podIP": state.pod_ip, "podIPs": [_REPLACE, {"ip": state.pod_ip}]}
    if state.reason:
        status |= {"reason": state.reason, "message": state.message}
    return status


def make_phase(state: PodState) -> str:
    """By the rules of kubelet's getPhase."""
    if state.ended:
        if state.reason or not all(_has_succeeded(one) for one in state.containers):
            return "Failed"
        return "Succeeded"
    if not state.initialized:
        return "Pending"
    waiting = [one for one in state.containers if one.waiting is not None and one.last is None]
    return "Pending" if waiting else "Running"


def make_conditions(pod: Json, state: PodState, phase: str) -> list[Json]:
    """The kubelet's five, without times."""
    generation = pod["metadata"].get("generation", 0)
    containers = _containers_ready(state, phase)
    found = [
        _condition("PodReadyToStartContainers", state.sandbox_ready and not state.ended),
        _initialized(state, phase),
        _ready(pod, containers),
        containers,
    ]
    return [condition | {"observedGeneration": generation} for condition in found]


def _containers_ready(state: PodState, phase: str) -> Json:
    if phase == "Succeeded":
        return _condition("ContainersReady", False, "PodCompleted")
    if phase == "Failed":
        return _condition("ContainersReady", False, "PodFailed")
    relevant = [*state.containers, *(one for one in state.init_containers if one.is_sidecar)]
    unready = [one.name for one in relevant if not one.ready]
    if unready:
        message = f"containers with unready status: [{' '.join(unready)}]"
        return _condition("ContainersReady", False, "ContainersNotReady", message)
    return _condition("ContainersReady", True)


def _ready(pod: Json, containers_ready: Json) -> Json:
    if containers_ready["status"] != "True":
        return containers_ready | {"type": "Ready"}
    known = {one["type"]: one["status"] for one in pod.get("status", {}).get("conditions") or []}
    complaints = []
    for gate in pod["spec"].get("readinessGates") or []:
        kind = gate["conditionType"]
        if kind not in known:
            complaints.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif known[kind] != "True":
            complaints.append(f'the status of pod readiness gate "{kind}" is not "True", but {known[kind]}')
    if complaints:
        return _condition("Ready", False, "ReadinessGatesNotReady", ", ".join(complaints))
    return _condition("Ready", True)


def _initialized(state: PodState, phase: str) -> Json:
    if state.initialized or phase == "Succeeded":
        return _condition("Initialized", True, "PodCompleted" if phase == "Succeeded" else "")
    incomplete = [one.name for one in state.init_containers if not (one.started if one.is_sidecar else one.ready)]
    if not incomplete:
        return _condition("Initialized", True)
    message = f"containers with incomplete status: [{' '.join(incomplete)}]"
    return _condition("Initialized", False, "ContainersNotInitialized", message)


def _condition(kind: str, holds: bool, reason: str = "", message: str = "") -> Json:
    condition: Json = {"type": kind, "status": "True" if holds else "False"}
    # Explicit nulls: a strategic merge patch would leave an old reason or message in place.
    return condition | {"reason": reason or None, "message": message or None}


def _with_transition(condition: Json, known: Mapping[str, Json], now_s: float) -> Json:
    old = known.get(condition["type"])
    same = old is not None and old["status"] == condition["status"] and old.get("lastTransitionTime")
    return condition | {"lastTransitionTime": old["lastTransitionTime"] if old and same else rfc3339(now_s)}


def _has_succeeded(container: ContainerState) -> bool:
    return container.terminated is not None and container.terminated.exit_code == 0


def make_states(containers: Sequence[Json], statuses: Iterable[Json], *, is_init: bool) -> list[ContainerState]:
    """Fresh states for a pod's containers; those that ran under an earlier stand-in count on from there."""
    known = {status["name"]: status for status in statuses}
    result = []
    for spec in containers:
        state = ContainerState(spec, is_init=is_init)
        status = known.get(spec["name"], {})
        if status.get("containerID"):
            state.restart_count = int(status.get("restartCount", 0)) + 1
        result.append(state)
    return result
