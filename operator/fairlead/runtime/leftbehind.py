"""A child of an earlier custom resource of the same name, which is in the way of its successor's until the garbage collector has
taken it: how often it is looked at, and what status says of it.

Mostly that is over within a second and not worth a word. But a finalizer can hold an object for ever, and a garbage collector
can stand still; then a person must know where to look. So status tells of it after a minute, as of something that is under
way: nothing of it is for fairlead to mend, and it may pass by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fairlead.api.conditions import Reason
from fairlead.facts.observed import ApplyFailure, ObjectKey

TOLD_AFTER_S: Final = 60.0
#: Its last event comes before that, unless a watch lost it.
LEFT_BEHIND_S: Final = 30.0
#: Its labels were stripped, so that no watch has it, or the watch is behind and will have it in a moment.
UNWATCHED_RETRY_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """One such object. `since`: when it was first in the way, seconds of the applier's clock; `is_watched`: its end will be heard
    of; `failure`: what status should say, None while it is too early."""

    uid: str
    since: float
    is_watched: bool
    failure: ApplyFailure | None

    def retry_in_s(self, now: float) -> float:
        """Seconds until it should be looked at again: in time to tell of it, and soon at first where nobody else tells that it is gone."""
        age_s = now - self.since
        patience_s = LEFT_BEHIND_S if self.is_watched else min(LEFT_BEHIND_S, max(UNWATCHED_RETRY_S, age_s))
        return patience_s if self.failure is not None else min(patience_s, TOLD_AFTER_S - age_s)


def is_told_in(status: Mapping[str, Any]) -> bool:
    """Whether a custom resource's status tells of such an object already: then its minute is over, whoever saw it."""
    conditions = status.get("conditions") or ()
    return any(condition.get("reason") == Reason.WAITING_FOR_DELETION.value for condition in conditions)


def explain_left_behind(key: ObjectKey, live: Mapping[str, Any], kind: str) -> ApplyFailure:
    """What status says of it. `kind`: of the custom resource that it is in the way of. Nothing in the words moves by itself, so that
    they are written once."""
    metadata = live["metadata"]
    finalizers = ", ".join(map(str, metadata.get("finalizers") or ()))
    if "deletionTimestamp" not in metadata:
        state = "still there: the garbage collector has not begun to delete it"
        step = "see that kube-controller-manager works, or delete it"
    elif finalizers:
        state = f"still being deleted; its metadata.finalizers hold it: {finalizers}"
        step = "see why they are not removed"
    else:
        state, step = "still being deleted", "see its metadata and events"
    return ApplyFailure(
        key=key,
        reason=Reason.WAITING_FOR_DELETION.value,
        message=f"{key} of an earlier {kind} of this name is {state}. Next: {step}; it is made anew once it is gone.",
        terminal=False,
        is_sentence=True,
    )
