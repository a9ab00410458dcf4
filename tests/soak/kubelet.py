"""The pods' side of the soak: every pod of a model gets the status that the model's fate says. There are no nodes and no scheduler
for them, so nobody else touches their status."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.soak.admin import PODS, Admin
from tests.soak.fleet import NAMESPACES, Fate, Model
from tests.soak.ledger import Cause

Json = dict[str, Any]
SELECTOR = "app.kubernetes.io/managed-by=fairlead"
MODEL_LABEL = "fairlead.dev/llmdeployment"
_READY_TYPES = ("Initialized", "PodScheduled", "ContainersReady", "Ready")


class Kubelet:
    """`words` is what a crashing engine says at its end."""

    def __init__(self, admin: Admin, words: str) -> None:
        self._admin = admin
        self._words = words

    def tend(self, models: Mapping[tuple[str, str], Model], enter: Callable[[Cause], None]) -> int:
        """Give every pod its fate; returns how many had another status."""
        changed = 0
        for namespace in NAMESPACES:
            for pod in self._admin.list(PODS, namespace, SELECTOR):
                model = models.get((namespace, pod["metadata"]["labels"].get(MODEL_LABEL, "")))
                if model is None or "deletionTimestamp" in pod["metadata"] or _fate_of(pod) is model.fate:
                    continue
                name = pod["metadata"]["name"]
                enter(Cause(datetime.now(UTC), "pods", namespace, model.name, f"{name} is {model.fate}:"))
                self._admin.patch(PODS, namespace, name, {"status": self._status(pod, model.fate)}, "status")
                changed += 1
        return changed

    def _status(self, pod: Json, fate: Fate) -> Json:
        (container, *_) = pod["spec"]["containers"]
        one: Json = {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": False,
            "restartCount": 0,
        }
        if fate is Fate.PENDING:
            return {"phase": "Pending", "conditions": [], "containerStatuses": []}
        if fate is Fate.READY:
            one |= {"ready": True, "started": True, "state": {"running": {"startedAt": _time()}}}
        elif fate is Fate.NO_IMAGE:
            one["state"] = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image: not found"}}
        else:
            ended = {
                "exitCode": 1,
                "reason": "Error",
                "message": self._words,
                "startedAt": _time(-5),
                "finishedAt": _time(),
            }
            one |= {
                "restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                "lastState": {"terminated": ended},
            }
        state = "True" if fate is Fate.READY else "False"
        conditions = [
            {"type": kind, "status": state if "Ready" in kind else "True", "lastTransitionTime": _time()}
            for kind in _READY_TYPES
        ]
        return {
            "phase": "Running" if fate is not Fate.NO_IMAGE else "Pending",
            "conditions": conditions,
            "containerStatuses": [one],
        }


def _fate_of(pod: Json) -> Fate:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    if not statuses:
        return Fate.PENDING
    if statuses[0].get("ready"):
        return Fate.READY
    waiting = (statuses[0].get("state") or {}).get("waiting") or {}
    return Fate.NO_IMAGE if waiting.get("reason") == "ImagePullBackOff" else Fate.CRASHES


def _time(offset_s: float = 0.0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=offset_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
