"""Carries out a plan's children and deletions with the fewest requests, and touches only what is ours (law 2, law 3).

A child that the cache does not hold is created, never adopted: its first apply carries a resourceVersion that only an
absent object satisfies. A child that exists is applied with the uid and the version that the cache knows: an object which
took its name meanwhile is not taken over, and a request that arrives late, from a leader that was replaced, is refused.
One child that fails does not stop the others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fairlead.api import names
from fairlead.errors import ApiError, Conflict, Invalid, NotFound
from fairlead.facts.observed import ApplyFailure, ObjectKey
from fairlead.kube import resources
from fairlead.kube.cache import Cache, Entry, make_entry
from fairlead.kube.client import CREATE_ONLY_RESOURCE_VERSION, ApiClient
from fairlead.kube.compare import clashing_lists, first_difference
from fairlead.kube.events import Regarding
from fairlead.planning.plan import Child, Delete, Plan
from fairlead.runtime.kinds import Kind
from fairlead.runtime.leftbehind import TOLD_AFTER_S, LeftBehind, explain_left_behind, is_told_in
from fairlead.runtime.metrics import Metrics
from fairlead.runtime.refusals import (
    Refusal,
    after_attempts,
    duplicated_lists,
    explain,
    explain_conflict,
    is_immutable_field,
    is_transient,
    least_wait_s,
    retry_in_s,
)

logger = logging.getLogger(__name__)

OVERTAKEN_S: Final = 0.05  # somebody wrote an object right after us, and its event was taken for the echo of our write


class NotLeadingError(Exception):
    """The Lease was not renewed in time, between two writes maybe: the pass ends here."""


class OwnerGoneError(Exception):
    """The custom resource was deleted, and its watch has not said so yet."""


class StaleOwnerError(Exception):
    """The custom resource is newer than its watch has said yet. The cache has it now: plan again."""


class PostponedError(Exception):
    """Whether the custom resource still exists is being asked: nothing is created before the answer."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The custom resource whose children are applied."""

    kind: Kind
    namespace: str
    name: str
    uid: str

    @property
    def key(self) -> ObjectKey:
        """Its kind and name, which an earlier one may have had."""
        return ObjectKey(self.kind.name, self.namespace, self.name)

    @property
    def about(self) -> dict[str, str]:
        """As log lines call it."""
        return {"controller": self.kind.name.lower(), "namespace": self.namespace, "name": self.name, "uid": self.uid}

    @property
    def regarding(self) -> Regarding:
        """As Events call it."""
        resource = self.kind.resource
        return Regarding(resource.api_version, resource.kind, self.namespace, self.name, self.uid)


@dataclass(slots=True)
class ChildMemory:
    """What is remembered of one custom resource's children between passes, in memory only. Losing it costs nothing but requests."""

    refusals: dict[ObjectKey, Refusal] = field(default_factory=dict)
    verified: dict[ObjectKey, tuple[str, bytes]] = field(
        default_factory=dict
    )  # (digest, the live object's wish) that agree
    alive: set[ObjectKey] = field(default_factory=set)  # were there or were tried: their owner may be gone
    left_behind: dict[ObjectKey, LeftBehind] = field(default_factory=dict)  # a predecessor's, which have the name
    inherited: bool = False  # the custom resource was there when this term began, and somebody worked on it before
    current_uid: str = ""  # of the custom resource that was seen, in this term, as the API server has it

    def failures(self) -> tuple[ApplyFailure, ...]:
        """What status should tell of."""
        refused = [refusal.failure for _, refusal in sorted(self.refusals.items())]
        waiting = [self.left_behind[key].failure for key in sorted(self.left_behind)]
        return (*refused, *(failure for failure in waiting if failure is not None))


@dataclass(slots=True)
class Outcome:
    """What became of a plan. `retry_s`: when a refused child is worth another attempt; `errors`: transient, to be retried soon."""

    written: list[str] = field(default_factory=list)
    errors: list[ApiError] = field(default_factory=list)
    retry_s: float | None = None
    has_asked: bool = False  # for the custom resource, while carrying out this plan

    def retry_after(self, delay_s: float) -> None:
        """Remember the earliest."""
        self.retry_s = delay_s if self.retry_s is None else min(self.retry_s, delay_s)

    @property
    def least_wait_s(self) -> float:
        """The longest Retry-After that any answer asked for, seconds."""
        return max((least_wait_s(error) for error in self.errors), default=0.0)


class Applier:
    """Applies and deletes. `may_write` is asked before every write, `may_create` before an object is made."""

    def __init__(
        self,
        client: ApiClient,
        cache: Cache,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        may_write: Callable[[], bool],
        may_create: Callable[[ObjectKey], bool],
    ) -> None:
        self._client = client
        self._cache = cache
        self._metrics = metrics
        self._clock = clock
        self._may_write = may_write
        self._may_create = may_create
        #: Children that are being applied at this moment. What a watch says of them meanwhile is most likely the echo.
        self.in_flight: set[ObjectKey] = set()

    async def carry_out(self, owner: Owner, plan: Plan, memory: ChildMemory) -> Outcome:
        """Apply the children in the plan's order, then delete.

        Raises NotLeadingError, PostponedError, OwnerGoneError or StaleOwnerError, never an ApiError.
        """
        outcome = Outcome()
        planned = {child.key for child in plan.children}
        for stale in set(memory.refusals) - planned - {delete.key for delete in plan.deletes}:
            del memory.refusals[stale]
        for stale in set(memory.left_behind) - planned:
            del memory.left_behind[stale]
        for child in plan.children:
            await self._carry_out_child(owner, child, memory, outcome)
        for delete in plan.deletes:
            await self._carry_out_delete(owner, delete, memory, outcome)
        return outcome

    async def _carry_out_child(self, owner: Owner, child: Child, memory: ChildMemory, outcome: Outcome) -> None:
        desired_hash = child.digest
        live = self._cache.get(child.key)
        version = live.resource_version if live is not None else None
        refusal = memory.refusals.get(child.key)
        if refusal is not None and refusal.still_holds(desired_hash, version, self._clock()):
            outcome.retry_after(refusal.retry_at - self._clock())
            return
        in_the_way = None
        try:
            if live is None:
                in_the_way = await self._make_anew(owner, child, desired_hash, memory, outcome)
            elif live.is_left_behind_for(owner.key, owner.uid):
                in_the_way = live
            elif live.controller_uid != owner.uid:
                raise _NameTakenError(live.load())
            else:
                await self._update(owner, child, live, desired_hash, memory, outcome)
        except _NameTakenError as taken:
            failure = explain_conflict(child.key, owner.kind.describe_taken(child.key, taken.found))
            self._refuse(child.key, desired_hash, failure, memory, outcome)
        except ApiError as error:
            if live is None:
                memory.alive.add(child.key)  # by the next attempt the custom resource may be gone: ask before it
            if is_transient(error):
                outcome.errors.append(error)
                logger.warning("%s was not applied: %s", child.key, error, extra={"about": owner.about})
                return  # what was known before is known still
            self._refuse(child.key, desired_hash, explain(child.key, error, owner.kind.paths), memory, outcome)
        else:
            memory.refusals.pop(child.key, None)
        if in_the_way is not None:
            self._wait_for_end_of(in_the_way, owner, memory, outcome)
        else:
            memory.left_behind.pop(child.key, None)

    def _wait_for_end_of(self, left: Entry, owner: Owner, memory: ChildMemory, outcome: Outcome) -> None:
        """A predecessor's child has the name. Its last event brings the key back, if a watch sees it; else we look again."""
        now = self._clock()
        before = memory.left_behind.get(left.key)
        if before is not None and before.uid == left.uid:
            since = before.since
        else:
            known = self._cache.get(owner.key)
            told = known is not None and is_told_in(known.load().get("status") or {})
            since = now - TOLD_AFTER_S if told else now
        watched = self._cache.get(left.key)
        is_due = now - since >= TOLD_AFTER_S
        failure = explain_left_behind(left.key, left.load(), owner.kind.name) if is_due else None
        waiting = LeftBehind(left.uid, since, watched is not None and watched.uid == left.uid, failure)
        memory.left_behind[left.key] = waiting
        outcome.retry_after(waiting.retry_in_s(now))

    def _refuse(
        self, key: ObjectKey, desired_hash: str, failure: ApplyFailure, memory: ChildMemory, outcome: Outcome
    ) -> None:
        live = self._cache.get(key)
        version = live.resource_version if live is not None else None
        before = memory.refusals.get(key)
        attempts = before.attempts + 1 if before is not None and before.desired_hash == desired_hash else 0
        delay_s = retry_in_s(failure, attempts)
        memory.refusals[key] = Refusal(
            desired_hash, version, after_attempts(failure, attempts), attempts, self._clock() + delay_s
        )
        outcome.retry_after(delay_s)

    async def _make_anew(
        self, owner: Owner, child: Child, desired_hash: str, memory: ChildMemory, outcome: Outcome
    ) -> Entry | None:
        """Create a child that the cache does not hold. Returns the predecessor's child that has its name, if one has."""
        known = memory.left_behind.get(child.key)
        if known is not None and not known.is_watched:
            # Nobody tells that it is gone. While it is there, another attempt would only be refused.
            found = await self._client.find(resources.BY_KIND[child.key.kind], child.key.namespace, child.key.name)
            entry = make_entry(found, child.key.kind) if found is not None else None
            if entry is not None and entry.is_left_behind_for(owner.key, owner.uid):
                return entry
        if child.key in memory.alive or memory.inherited:
            await self._ask_for(owner, memory, outcome, again=child.key in memory.alive)
            memory.alive.discard(child.key)
        in_the_way = await self._create(owner, child, desired_hash, memory, outcome)
        memory.alive.add(child.key)
        return in_the_way

    async def _create(
        self, owner: Owner, child: Child, desired_hash: str, memory: ChildMemory, outcome: Outcome
    ) -> Entry | None:
        if not self._may_create(owner.key):
            raise PostponedError
        known = self._cache.get(owner.key)
        if known is None or known.uid != owner.uid:
            raise OwnerGoneError  # heard of while this pass waited for answers, which may take minutes
        body = _with_metadata(child.body, desired_hash, {"resourceVersion": CREATE_ONLY_RESOURCE_VERSION})
        try:
            applied = await self._apply(owner, child, body, "create", outcome, force=False)
            self._take_for_verified(child, applied, memory)
        except Conflict:
            found = await self._client.find(resources.BY_KIND[child.key.kind], child.key.namespace, child.key.name)
            if found is None:
                raise  # it went as fast as it came: try again
            entry = make_entry(found, child.key.kind)
            if entry.is_left_behind_for(owner.key, owner.uid):
                return entry
            if entry.controller_uid != owner.uid:
                raise _NameTakenError(found) from None
            # Ours after all: the watch is behind, or its label was stripped. Then no watch follows it, and what the cache held of it
            # would stay as it is now: should this attempt be refused, the next one has to look again.
            if _is_followed(found):
                self._cache.put(found, child.key.kind)
            if "deletionTimestamp" in found["metadata"]:
                raise
            if _applied_hash(found) != desired_hash:
                # Another leader may have made it for a newer spec.
                await self._ask_for(owner, memory, outcome, again=True)
            body = _with_metadata(child.body, desired_hash, _precondition(entry))
            await self._apply(owner, child, body, "drift", outcome, force=True)
        return None

    async def _ask_for(self, owner: Owner, memory: ChildMemory, outcome: Outcome, *, again: bool = False) -> None:
        """Make sure that the custom resource lives, and is as we know it, before anything that others may know better is
        written: once in a term, and (`again`) each time before a child that was deleted is made anew, or one that bears a wish
        which is not known to be ours is changed.

        Its children and itself come by different watches. When the garbage collector takes the children of a deleted one,
        that may be heard first. And whoever begins to lead with a watch that fell silent would carry out an old spec over a
        newer one: pods would roll back, and a claim would go with what is on it. A status that was written proves the same,
        so that what is new in this term costs no read.
        """
        if memory.current_uid == owner.uid and not again:
            return
        found = await self._client.find(owner.kind.resource, owner.namespace, owner.name)
        if found is None or found["metadata"]["uid"] != owner.uid:
            raise OwnerGoneError
        if "deletionTimestamp" in found["metadata"]:
            self._cache.put(found, owner.kind.name)
            raise OwnerGoneError
        memory.current_uid, outcome.has_asked = owner.uid, True
        if self._cache.put(found, owner.kind.name).is_meaningful:
            raise StaleOwnerError

    async def _update(
        self, owner: Owner, child: Child, live: Entry, desired_hash: str, memory: ChildMemory, outcome: Outcome
    ) -> None:
        memory.alive.add(child.key)
        proof = (desired_hash, live.wish)
        if memory.verified.get(child.key) == proof:
            self._metrics.apply_skipped.labels(child.key.kind).inc()
            return
        current = live.load()
        if "deletionTimestamp" in current["metadata"]:
            return  # its last event brings the key back, and then it is made anew
        cause = "change" if _applied_hash(current) != desired_hash else "drift"
        if cause == "drift":
            difference = first_difference(child.body, current)
            if difference is None or self._cache.is_settled(child.key, desired_hash, current):
                memory.verified[child.key] = proof
                self._metrics.apply_skipped.labels(child.key.kind).inc()
                return
            await self._ask_for(owner, memory, outcome)
            cause_text = f"{child.key} ({difference} was changed)"
            if lists := clashing_lists(child.body, current):
                await self._replace_lists(owner, child, live, lists, outcome)
                return
        else:
            known = memory.verified.get(child.key)
            # A wish that is not the one we know of was put there by another leader, who may have heard of a newer spec.
            foreign = not outcome.has_asked if known is None else _applied_hash(current) != known[0]
            await self._ask_for(owner, memory, outcome, again=foreign)
            cause_text = str(child.key)
        body = _with_metadata(child.body, desired_hash, _precondition(live))
        try:
            applied = await self._apply(owner, child, body, cause, outcome, force=True, what=cause_text)
            self._take_for_verified(child, applied, memory)
        except Invalid as error:
            if "metadata.uid" in error.message:
                raise Conflict(error.message, status=409, reason="Conflict") from error
            if lists := duplicated_lists(error):
                # What such a replacement once wrote is no part of our applied fields, so an apply cannot take it away.
                await self._replace_lists(owner, child, live, lists, outcome)
                replaced = self._cache.get(child.key) or live
                body = _with_metadata(child.body, desired_hash, _precondition(replaced))
                await self._apply(owner, child, body, cause, outcome, force=True, what=cause_text)
                return
            if not (is_immutable_field(error) and child.replace_on_immutable):
                raise
            await self._delete(child.key, live.uid, None, outcome)
            memory.alive.discard(child.key)
            return
        if int(applied["metadata"]["resourceVersion"]) == live.resource_version:
            self._cache.settle(child.key, desired_hash, current)

    async def _replace_lists(
        self, owner: Owner, child: Child, live: Entry, lists: frozenset[str], outcome: Outcome
    ) -> None:
        """Put whole lists back where a foreign entry of one makes every apply of ours invalid.

        Somebody who edits a Service's port 80 to 81 makes, in the merge's eyes, another entry; ours comes back beside it
        under the same name, and the server refuses both. A merge patch replaces the list, and nothing else.
        """
        self._check_leading()
        metadata = {"uid": live.uid, "resourceVersion": str(live.resource_version)}
        patch = {"metadata": metadata, "spec": {name: child.body["spec"][name] for name in sorted(lists)}}
        resource = resources.BY_KIND[child.key.kind]
        answer = await self._client.merge(
            resource, child.key.namespace, child.key.name, patch, field_manager=owner.kind.field_manager
        )
        self._cache.put(answer, child.key.kind)
        self._metrics.applies.labels(child.key.kind, "drift").inc()
        outcome.written.append(f"drift {child.key} (spec.{', spec.'.join(sorted(lists))} replaced)")

    async def _apply(
        self,
        owner: Owner,
        child: Child,
        body: Mapping[str, Any],
        cause: str,
        outcome: Outcome,
        *,
        force: bool,
        what: str = "",
    ) -> Mapping[str, Any]:
        self._check_leading()
        resource, key = resources.BY_KIND[child.key.kind], child.key
        self.in_flight.add(key)
        try:
            applied = await self._client.apply(
                resource, key.namespace, key.name, body, field_manager=owner.kind.field_manager, force=force
            )
        finally:
            self.in_flight.discard(key)
        self._cache.put(applied.object, key.kind)
        known = self._cache.get(key)
        if known is not None and known.resource_version > int(applied.object["metadata"]["resourceVersion"]):
            outcome.retry_after(OVERTAKEN_S)
        self._metrics.applies.labels(child.key.kind, cause).inc()
        outcome.written.append(f"{cause} {what or child.key}")
        return applied.object

    def _take_for_verified(self, child: Child, applied: Mapping[str, Any], memory: ChildMemory) -> None:
        """The API server has just answered how the object looks with our wish in it: comparing the two finds nothing to send."""
        known = self._cache.get(child.key)
        if known is not None and known.resource_version == int(applied["metadata"]["resourceVersion"]):
            memory.verified[child.key] = (child.digest, known.wish)

    async def _carry_out_delete(self, owner: Owner, delete: Delete, memory: ChildMemory, outcome: Outcome) -> None:
        live = self._cache.get(delete.key)
        if live is None or live.uid != delete.uid or live.controller_uid != owner.uid:
            return
        if "deletionTimestamp" in live.load()["metadata"]:
            return
        try:
            await self._ask_for(owner, memory, outcome)
            await self._delete(delete.key, delete.uid, delete.resource_version, outcome)
        except ApiError as error:
            if is_transient(error):
                outcome.errors.append(error)
            else:
                self._refuse(delete.key, "", explain(delete.key, error, owner.kind.paths), memory, outcome)
        else:
            memory.refusals.pop(delete.key, None)
            memory.alive.discard(delete.key)

    async def _delete(self, key: ObjectKey, uid: str, resource_version: str | None, outcome: Outcome) -> None:
        self._check_leading()
        resource = resources.BY_KIND[key.kind]
        try:
            answer = await self._client.delete(
                resource, key.namespace, key.name, uid=uid, resource_version=resource_version
            )
        except NotFound:
            answer = {}
        outcome.written.append(f"delete {key}")
        if answer.get("kind") == resource.kind and "deletionTimestamp" in answer.get("metadata", {}):
            self._cache.put(answer, key.kind)  # a finalizer holds it
        elif (live := self._cache.get(key)) is not None:
            self._cache.remove(key, uid, live.resource_version)

    def _check_leading(self) -> None:
        if not self._may_write():
            raise NotLeadingError


class _NameTakenError(Exception):
    """The object of this name is somebody else's."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        super().__init__()
        self.found = found


def _with_metadata(body: Mapping[str, Any], desired_hash: str, extra: Mapping[str, str]) -> dict[str, Any]:
    metadata = dict(body["metadata"])
    annotations = dict(metadata.get("annotations") or {})
    annotations[names.ANNOTATION_APPLIED_HASH] = desired_hash
    return {**body, "metadata": {**metadata, "annotations": annotations, **extra}}


def _is_followed(live: Mapping[str, Any]) -> bool:
    return (live["metadata"].get("labels") or {}).get(names.LABEL_MANAGED_BY) == names.MANAGED_BY


def _applied_hash(live: Mapping[str, Any]) -> str | None:
    return (live["metadata"].get("annotations") or {}).get(names.ANNOTATION_APPLIED_HASH)


def _precondition(live: Entry) -> dict[str, str]:
    """The server takes an update only for the very state that it was decided from. Without this, a request that a frozen process
    or a slow network delivers late would set the object back to what a replaced leader wanted."""
    return {"uid": live.uid, "resourceVersion": str(live.resource_version)}
