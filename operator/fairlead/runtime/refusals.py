"""What it means for a custom resource that the API server refused one of its children, and when to try again.

A refusal is put back into the words of the custom resource where that is possible: its author never wrote a Deployment,
so `.spec.template.spec.affinity.nodeAffinity.required` is told as `spec.pod.affinity.nodeAffinity.required`. Which field
of a child comes from which of the custom resource's is a matter of its kind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from fairlead.api.conditions import Reason
from fairlead.errors import ApiError, Forbidden, Invalid, NotFound, TooManyRequests
from fairlead.facts.observed import ApplyFailure, ObjectKey
from fairlead.facts.words import redact

MESSAGE_MAX_LENGTH: Final = 1024
#: Somebody else's change may mend it (a quota, a right, a policy, the other object), and nobody will tell us.
SLOW_RETRY_FIRST_S: Final = 15.0
SLOW_RETRY_MAX_S: Final = 600.0
#: A server that has just started answers 403 for a moment, and the objects and rights of one `kubectl apply` arrive in any order.
QUICK_RETRY_S: Final = 2.0

_TEMPLATE: Final = r"spec\.template\.spec\."
_CONTAINER: Final = rf"{_TEMPLATE}(?:containers|initContainers)\[[^]]*\]\."
_POD_FIELDS: Final = (
    "affinity|tolerations|nodeSelector|topologySpreadConstraints|priorityClassName|runtimeClassName|schedulerName"
    "|serviceAccountName|imagePullSecrets|securityContext"
)
#: (child's kind, path of its field, path in the custom resource); what follows the matched part stays. The first match wins.
FieldPaths = tuple[tuple[str, re.Pattern[str], str], ...]
_LLMDEPLOYMENT_TABLE: Final = (
    ("Deployment", rf"{_TEMPLATE}({_POD_FIELDS})", r"spec.pod.\1"),
    ("Deployment", rf"{_CONTAINER}(env|envFrom|args|image|imagePullPolicy)\b", r"spec.engine.\1"),
    ("Deployment", rf"{_CONTAINER}resources", "spec.resources"),
    ("Deployment", rf"{_CONTAINER}securityContext", "spec.pod.containerSecurityContext"),
    ("Deployment", rf"{_CONTAINER}volumeMounts", "spec.pod.extraVolumeMounts"),
    ("Deployment", rf"{_TEMPLATE}volumes", "spec.pod.extraVolumes"),
    ("Deployment", r"spec\.template\.metadata\.(labels|annotations)", r"spec.pod.\1"),
    ("Deployment", r"spec\.replicas", "spec.replicas"),
    ("Service", r"spec\.(type|externalTrafficPolicy)", r"spec.service.\1"),
    ("Service", r"spec\.ports\[[^]]*\]\.(?:port|nodePort)", "spec.service.port"),
    ("Service", r"metadata\.annotations", "spec.service.annotations"),
    ("PersistentVolumeClaim", r"spec\.resources\.requests\.storage", "spec.storage.size"),
    ("PersistentVolumeClaim", r"spec\.(storageClassName|accessModes)", r"spec.storage.\1"),
    ("NetworkPolicy", r"spec\.ingress\[[^]]*\]\.from", "spec.networkPolicy.from"),
)
LLMDEPLOYMENT_PATHS: Final[FieldPaths] = tuple(
    (kind, re.compile(pattern), replacement) for kind, pattern, replacement in _LLMDEPLOYMENT_TABLE
)
_TYPED_PATCH_FIELD: Final = re.compile(r"(?:^|[\s:])\.((?:metadata|spec)[^\s:]*(?:\[[^]]*\][^\s:]*)*): (.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A child that was refused: for which wish and which live state, and when to try that pair again at the earliest."""

    desired_hash: str
    live_version: int | None
    failure: ApplyFailure
    attempts: int
    retry_at: float

    def still_holds(self, desired_hash: str, live_version: int | None, now: float) -> bool:
        """True while neither side changed and it is too early for another attempt."""
        return self.desired_hash == desired_hash and self.live_version == live_version and now < self.retry_at


def is_transient(error: ApiError) -> bool:
    """Whether the fault is the API server's or a race, so that the same request is worth repeating soon."""
    return error.retryable and not isinstance(error, Forbidden)


def duplicated_lists(error: ApiError) -> frozenset[str]:
    """Names of the lists right under `spec` in which two entries collide, when that is all that is wrong; else empty."""
    causes = error.details.get("causes")
    if not isinstance(causes, list) or not causes:
        return frozenset()
    found = [re.match(r"spec\.(\w+)\[", str(cause.get("field"))) for cause in causes if isinstance(cause, dict)]
    if not all(cause.get("reason") == "FieldValueDuplicate" for cause in causes) or not all(found):
        return frozenset()
    return frozenset(match[1] for match in found if match)


def is_immutable_field(error: ApiError) -> bool:
    """Whether the server refused because the field cannot change on an object that exists."""
    return isinstance(error, Invalid) and error.status == 422 and "immutable" in error.message


def slow_retry_s(attempts: int) -> float:
    """Seconds until the next attempt at something that only somebody else can mend: 15 s doubling to 10 minutes."""
    return float(min(SLOW_RETRY_MAX_S, SLOW_RETRY_FIRST_S * 2 ** min(attempts, 10)))


def retry_in_s(failure: ApplyFailure, attempts: int) -> float:
    """Seconds until a refused child is tried again, after so many attempts before this one."""
    if not _may_pass(failure):
        return slow_retry_s(attempts)
    return QUICK_RETRY_S if attempts == 0 else slow_retry_s(attempts - 1)


def after_attempts(failure: ApplyFailure, attempts: int) -> ApplyFailure:
    """The failure as status tells of it after so many attempts before this one: what is refused again needs a person."""
    return replace(failure, terminal=True) if attempts > 0 and _may_pass(failure) else failure


def _may_pass(failure: ApplyFailure) -> bool:
    return failure.reason == Reason.CHILD_REFUSED.value and "being terminated" not in failure.message


def least_wait_s(error: ApiError) -> float:
    """What the server asked us to wait, seconds."""
    return error.retry_after_s if isinstance(error, TooManyRequests) else 0.0


def explain(key: ObjectKey, error: ApiError, paths: FieldPaths) -> ApplyFailure:
    """The failure that status tells of."""
    path, message = _field_of(key, error, paths)
    reason, terminal = _judge(error)
    return ApplyFailure(
        key=key, reason=reason.value, message=redact(message)[:MESSAGE_MAX_LENGTH], terminal=terminal, path=path
    )


def explain_conflict(key: ObjectKey, message: str) -> ApplyFailure:
    """Law 2: the name belongs to somebody else. `message` says to whom, in the words of the owner's planner."""
    return ApplyFailure(key=key, reason=Reason.NAME_CONFLICT.value, message=message, terminal=True, is_sentence=True)


def _judge(error: ApiError) -> tuple[Reason, bool]:
    if is_immutable_field(error):
        return Reason.IMMUTABLE_FIELD, True
    by_policy = "admission" in error.message.lower()  # webhooks and admission policies say so, whatever their code
    if isinstance(error, Invalid) and not by_policy:
        return Reason.INVALID_CHILD, True
    if isinstance(error, (Forbidden, NotFound, Invalid)):
        return Reason.CHILD_REFUSED, False
    return Reason.API_UNAVAILABLE, False


def _field_of(key: ObjectKey, error: ApiError, paths: FieldPaths) -> tuple[str, str]:
    match = _TYPED_PATCH_FIELD.search(error.message) if error.status == 500 else None
    if match is not None:
        return to_custom_resource_path(paths, key.kind, match.group(1)), match.group(2).strip()
    causes = error.details.get("causes")
    if isinstance(causes, list) and causes:
        first = causes[0]
        field, message = str(first.get("field") or ""), str(first.get("message") or error.message)
        return to_custom_resource_path(paths, key.kind, field), message
    return "", error.message


def to_custom_resource_path(paths: FieldPaths, kind: str, path: str) -> str:
    """The field of the custom resource behind a child's field; the child's own path where there is none."""
    for of_kind, pattern, replacement in paths:
        if of_kind == kind and (match := pattern.match(path)):
            return match.expand(replacement) + path[match.end() :]
    return f"{kind} {path}" if path else ""
