"""What the pods say: which of them serve, what the others wait for, and what a person must do about it.

Reads pods as the kubelet and the scheduler report them; nothing is asked of the pods themselves. Words of containers are
quoted, shortened, since they are the only place where an engine says why it died.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fairlead.api.conditions import Reason
from fairlead.facts.words import redact
from fairlead.planning.conditions import truncate
from fairlead.planning.deployment.pod import MODEL_CONTAINER
from fairlead.planning.deployment.trouble import LAST_WORDS_LENGTH, Trouble, diagnose_container, seconds_between

__all__ = ["UNSCHEDULABLE_GRACE_S", "PodHealth", "examine_pods"]

Json = Mapping[str, Any]

#: A pod that nothing fits is a matter for a person only after this long: in-place rollouts wait for the old pod's
#: accelerators, and cluster autoscalers need a moment to notice. Seconds.
UNSCHEDULABLE_GRACE_S = 60


@dataclass(frozen=True, slots=True)
class PodHealth:
    """All engine pods that are not ending. `loading`: engine containers that run and do not answer yet; `pulling`: pods whose
    model container runs; `unscheduled`: pods without a node; `starting_since`: when those were made that do not answer; `homeless_since`:
    since when nothing fits the ones without a node, and `scheduler_words` why; `startup_s`: how
    long the quickest of the others took to answer, None while none does; `ready_on`: the node of each of those, by name; `ready_since`:
    since when the first of them does."""

    total: int
    ready: int
    loading: int
    pulling: int
    unscheduled: int
    ending: int
    troubles: tuple[Trouble, ...]
    starting_since: tuple[datetime, ...] = ()
    homeless_since: tuple[datetime, ...] = ()
    startup_s: float | None = None
    scheduler_words: str = ""
    ready_on: tuple[str, ...] = ()
    ready_since: datetime | None = None

    @property
    def homeless(self) -> int:
        """Pods that nothing fits, and not only for a moment."""
        return sum(1 for trouble in self.troubles if trouble.reason is Reason.UNSCHEDULABLE and trouble.terminal)

    @property
    def worst(self) -> Trouble | None:
        """The trouble to speak of: terminal before passing, then in order of `Reason`'s gravity below."""
        return min(
            self.troubles, key=lambda trouble: (not trouble.terminal, _GRAVITY.index(trouble.reason)), default=None
        )


#: Which trouble explains the others, first.
_GRAVITY = (
    Reason.MODEL_ACCESS_DENIED,
    Reason.MODEL_NOT_FOUND,
    Reason.CONTAINER_CONFIG_ERROR,
    Reason.IMAGE_PULL_FAILED,
    Reason.STARTUP_TIMEOUT,
    Reason.CRASH_LOOP,
    Reason.WAITING_FOR_VOLUME,
    Reason.UNSCHEDULABLE,
)


def examine_pods(pods: Sequence[Json], startup_timeout_s: int, now: datetime) -> PodHealth:
    """Pure: `now` decides only how long a pod has been without a node."""
    alive = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp") and not _is_over(pod)]
    statuses = [_main_status(pod) for pod in alive]
    ready = [pod for pod in alive if _condition(pod, "Ready").get("status") == "True"]
    return PodHealth(
        total=len(alive),
        ready=len(ready),
        loading=sum(1 for status in statuses if "running" in (status.get("state") or {}) and not status.get("ready")),
        pulling=sum(1 for pod in alive if _is_pulling(pod)),
        unscheduled=sum(1 for pod in alive if not _has_node(pod)),
        ending=len(pods) - len(alive),
        troubles=tuple(trouble for pod in alive for trouble in _find_troubles(pod, startup_timeout_s, now)),
        starting_since=tuple(
            datetime.fromisoformat(_made_at(pod)) for pod in alive if pod not in ready and _made_at(pod)
        ),
        scheduler_words=next((words for pod in alive if (words := _read_scheduler(pod))), ""),
        homeless_since=tuple(since for pod in alive if (since := _homeless_since(pod)) is not None),
        ready_on=tuple(str((pod.get("spec") or {}).get("nodeName") or "") for pod in ready),
        startup_s=min((seconds for pod in ready if (seconds := _read_startup(pod)) is not None), default=None),
        ready_since=min((since for pod in ready if (since := _read_ready_since(pod)) is not None), default=None),
    )


def _made_at(pod: Json) -> str:
    return str(pod["metadata"].get("creationTimestamp") or "")


def _read_ready_since(pod: Json) -> datetime | None:
    at = _condition(pod, "Ready").get("lastTransitionTime")
    return datetime.fromisoformat(str(at)) if at else None


def _read_startup(pod: Json) -> float | None:
    """One that lost its readiness and found it again seems to have taken longer: the quickest of several counts."""
    return seconds_between(_made_at(pod) or None, _condition(pod, "Ready").get("lastTransitionTime"))


def _find_troubles(pod: Json, startup_timeout_s: int, now: datetime) -> Iterator[Trouble]:
    if _condition(pod, "Ready").get("status") == "True":
        return
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False" and scheduled.get("reason") != "SchedulingGated":
        yield _describe_unscheduled(pod, scheduled, now)
        return
    for container in _container_statuses(pod):
        trouble = diagnose_container(_name(pod), container, startup_timeout_s)
        if trouble is not None:
            yield trouble
            return


def _describe_unscheduled(pod: Json, scheduled: Json, now: datetime) -> Trouble:
    words = truncate(redact(str(scheduled.get("message") or "no node fits")), LAST_WORDS_LENGTH)
    waiting = _waits_for_volume(words)
    age_s = seconds_between(scheduled.get("lastTransitionTime"), now.isoformat())
    left_s = None if age_s is None else max(0.0, UNSCHEDULABLE_GRACE_S - age_s)
    step = (
        "check the claim's storage class"
        if waiting
        else "free capacity, add nodes, or change accelerator, resources or pod scheduling"
    )
    return Trouble(
        reason=Reason.WAITING_FOR_VOLUME if waiting else Reason.UNSCHEDULABLE,
        message=f"Pod {_name(pod)} has no node: {words} Next: {step}.",
        pod=_name(pod),
        terminal=left_s == 0.0,
        due_s=left_s or None,
    )


def _homeless_since(pod: Json) -> datetime | None:
    """Since when no node fits it, None where one does or something else is waited for."""
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") != "False" or scheduled.get("reason") == "SchedulingGated":
        return None
    if _waits_for_volume(str(scheduled.get("message") or "")) or not scheduled.get("lastTransitionTime"):
        return None
    return datetime.fromisoformat(str(scheduled["lastTransitionTime"]))


def _read_scheduler(pod: Json) -> str:
    """Why no node fits it, in the scheduler's words, "" where one does or something else is waited for."""
    if _homeless_since(pod) is None:
        return ""
    words = truncate(redact(str(_condition(pod, "PodScheduled").get("message") or "no node fits")), LAST_WORDS_LENGTH)
    return words.rstrip(". ")


def _waits_for_volume(words: str) -> bool:
    return "unbound immediate PersistentVolumeClaims" in words


def _container_statuses(pod: Json) -> Iterator[Json]:
    """Init containers that are not done yet, then the others: the first that is in trouble is the one to speak of."""
    status = pod.get("status") or {}
    for init in status.get("initContainerStatuses") or []:
        if ((init.get("state") or {}).get("terminated") or {}).get("exitCode") != 0:
            yield init
    yield from status.get("containerStatuses") or []


def _main_status(pod: Json) -> Json:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return statuses[0] if statuses else {}


def _is_pulling(pod: Json) -> bool:
    inits = (pod.get("status") or {}).get("initContainerStatuses") or []
    return any(init.get("name") == MODEL_CONTAINER and "running" in (init.get("state") or {}) for init in inits)


def _has_node(pod: Json) -> bool:
    """A pod that no scheduler has looked at yet has no PodScheduled condition at all."""
    return bool((pod.get("spec") or {}).get("nodeName")) or _condition(pod, "PodScheduled").get("status") == "True"


def _is_over(pod: Json) -> bool:
    """Evicted and completed pods stay as objects; their Deployment has replaced them."""
    return (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")


def _condition(pod: Json, condition_type: str) -> Json:
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition.get("type") == condition_type:
            found: Json = condition
            return found
    return {}


def _name(pod: Json) -> str:
    return str(pod["metadata"]["name"])
