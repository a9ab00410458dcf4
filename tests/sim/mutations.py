"""Faults put into the operator's core on purpose. Each must be caught by the sweep, or the sweep proves nothing.

A mutation names the scenarios that should show it first; it is caught when any schedule of them is found wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from fairlead.kube import cache, client, informer
from fairlead.kube.cache import Cache, Change, Entry
from fairlead.planning import ownership
from fairlead.planning.deployment import planner
from fairlead.planning.plan import Child, Plan
from fairlead.runtime import applier, controller, decide, feed, main, refusals, statuswriter
from fairlead.runtime.applier import Applier
from fairlead.runtime.controller import Controller
from fairlead.runtime.queue import Queue
from fairlead.runtime.statuswriter import StatusWriter

Json = dict[str, Any]
Patch = pytest.MonkeyPatch
HELD = "recreate while a child is held"


@dataclass(frozen=True, slots=True)
class Mutation:
    """A name that says what is wrong, how it is put in, and where it should show."""

    name: str
    put_in: Callable[[Patch], None]
    shows_in: tuple[str, ...]

    def __str__(self) -> str:
        return self.name


def _forced_first_apply(patch: Patch) -> None:
    async def create(self: Any, owner: Any, child: Any, desired_hash: str, *rest: Any) -> None:
        body = applier._with_metadata(child.body, desired_hash, {})
        await self._apply(owner, child, body, "create", rest[-1], force=True)

    patch.setattr(Applier, "_create", create)


def _unforced_first_apply(patch: Patch) -> None:
    async def create(self: Any, owner: Any, child: Any, desired_hash: str, *rest: Any) -> None:
        body = applier._with_metadata(child.body, desired_hash, {})
        await self._apply(owner, child, body, "create", rest[-1], force=False)

    patch.setattr(Applier, "_create", create)


def _no_uid_on_updates(patch: Patch) -> None:
    plain = applier._with_metadata

    def with_metadata(body: Any, desired_hash: str, extra: Mapping[str, str]) -> Json:
        created = {key: value for key, value in extra.items() if value == client.CREATE_ONLY_RESOURCE_VERSION}
        return plain(body, desired_hash, created)

    patch.setattr(applier, "_with_metadata", with_metadata)


def _no_precondition_on_deletes(patch: Patch) -> None:
    async def delete(self: Any, resource: Any, namespace: str, name: str, **_: Any) -> Json:
        status, answer = await self._request("DELETE", resource.path(namespace, name), body=b"{}")
        assert status
        return dict(answer)

    patch.setattr(client.ApiClient, "delete", delete)


def _never_asks(patch: Patch) -> None:
    async def ask_for(self: Any, owner: Any, memory: Any, *, again: bool = False) -> None:
        return

    patch.setattr(Applier, "_ask_for", ask_for)


def _asks_at_deletions_only(patch: Patch) -> None:
    plain = Applier._ask_for

    async def ask_for(self: Any, owner: Any, memory: Any, *, again: bool = False) -> None:
        if again:
            await plain(self, owner, memory, again=True)

    patch.setattr(Applier, "_ask_for", ask_for)


def _asks_once_per_term_only(patch: Patch) -> None:
    plain = Applier._ask_for

    async def ask_for(self: Any, owner: Any, memory: Any, *, again: bool = False) -> None:
        await plain(self, owner, memory)

    patch.setattr(Applier, "_ask_for", ask_for)


def _status_without_version(patch: Patch) -> None:
    plain = client.ApiClient.apply

    async def apply(self: Any, resource: Any, namespace: str, name: str, body: Any, **more: Any) -> Any:
        if more.get("subresource") == "status":
            metadata = {key: value for key, value in body["metadata"].items() if key != "resourceVersion"}
            body = {**body, "metadata": metadata}
        return await plain(self, resource, namespace, name, body, **more)

    patch.setattr(client.ApiClient, "apply", apply)


class _Forgetful:
    """A cache into which own writes do not come."""

    def __init__(self, inner: Cache) -> None:
        self._inner = inner

    def put(self, live: Any, kind: str | None = None) -> Change:
        return cache.NO_CHANGE

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _own_writes_not_cached(patch: Patch) -> None:
    plain = Applier.__init__

    def init(self: Any, client_: Any, cache_: Any, *args: Any, **more: Any) -> None:
        plain(self, client_, _Forgetful(cache_), *args, **more)  # type: ignore[arg-type]

    patch.setattr(Applier, "__init__", init)


def _prune_by_name(patch: Patch) -> None:
    def is_ours(live: Any, owner: Any) -> bool:
        return (live["metadata"].get("labels") or {}).get("fairlead.dev/llmdeployment") == owner.name

    async def carry_out_delete(self: Any, owner: Any, delete: Any, memory: Any, outcome: Any) -> None:
        await self._delete(delete.key, delete.uid, None, outcome)

    patch.setattr(ownership, "is_ours", is_ours)
    patch.setattr(Applier, "_carry_out_delete", carry_out_delete)


def _never_prunes(patch: Patch) -> None:
    patch.setattr(planner, "find_deletes", lambda *_: ())


def _no_tombstones(patch: Patch) -> None:
    patch.setattr(Cache, "_bury", lambda *_: None)


def _older_overwrites_newer(patch: Patch) -> None:
    def put(self: Any, live: Any, kind: str | None = None) -> Change:
        entry = cache.make_entry(live, kind)
        before = self._entries.get(entry.key)
        self._store(entry, before)
        return Change(before, entry)

    patch.setattr(Cache, "put", put)


def _lists_drop_nothing(patch: Patch) -> None:
    patch.setattr(Cache, "retain", lambda *_: [])


def _goes_on_after_410(patch: Patch) -> None:
    plain = informer.Informer._list

    async def list_(self: Any) -> None:
        if not self.synced.is_set():
            await plain(self)
        else:
            async for page in self._client.list(self.selection.resource, None, label_selector="no=such"):
                self._resource_version = page.resource_version

    patch.setattr(informer.Informer, "_list", list_)


def _status_always_written(patch: Patch) -> None:
    patch.setattr(StatusWriter, "differs", lambda *_: True)


def _status_written_once(patch: Patch) -> None:
    patch.setattr(StatusWriter, "differs", lambda *args: (args[2].get("status") or {}).get("observedGeneration") == -1)


def _always_applies(patch: Patch) -> None:
    patch.setattr(applier, "first_difference", lambda *_: "spec")
    patch.setattr(Cache, "is_settled", lambda *_: False)


def _no_drift_seen(patch: Patch) -> None:
    patch.setattr(applier, "first_difference", lambda *_: None)


def _hash_not_compared(patch: Patch) -> None:
    patch.setattr(Child, "digest", property(lambda _: "the same for all"))


def _left_behind_is_a_conflict(patch: Patch) -> None:
    patch.setattr(Entry, "is_left_behind_for", lambda *_: False)


def _told_is_not_known_after_a_restart(patch: Patch) -> None:
    patch.setattr(applier, "is_told_in", lambda _: False)


def _left_behind_is_not_told(patch: Patch) -> None:
    def refused(self: applier.ChildMemory) -> Any:
        return tuple(refusal.failure for _, refusal in sorted(self.refusals.items()))

    patch.setattr(applier.ChildMemory, "failures", refused)


def _refusals_hold_for_ever(patch: Patch) -> None:
    patch.setattr(refusals.Refusal, "still_holds", lambda *_: True)
    patch.setattr(applier.Outcome, "retry_after", lambda *_: None)


def _refusals_forgotten(patch: Patch) -> None:
    patch.setattr(Applier, "_refuse", lambda *_: None)


def _queue_drops_what_comes_at_work(patch: Patch) -> None:
    plain = Queue.add

    def add(self: Any, key: Any, *args: Any) -> None:
        if key not in self._busy:
            plain(self, key, *args)

    patch.setattr(Queue, "add", add)


def _errors_not_retried(patch: Patch) -> None:
    patch.setattr(Queue, "retry", lambda *_, **__: 1.0)


def _impatient(patch: Patch) -> None:
    patch.setattr(refusals, "least_wait_s", lambda _: 0.0)
    patch.setattr(controller, "least_wait_s", lambda _: 0.0)
    patch.setattr(applier, "least_wait_s", lambda _: 0.0)


def _writes_without_the_lease(patch: Patch) -> None:
    patch.setattr(main.Operator, "_may_write", lambda _: True)

    async def stop(self: Any, grace_s: float) -> None:
        return

    patch.setattr(Controller, "stop", stop)


def _works_on_what_is_marked(patch: Patch) -> None:
    plain = Entry.load

    def load(self: Any) -> Json:
        live = plain(self)
        if self.key.kind == "LLMDeployment":
            live["metadata"].pop("deletionTimestamp", None)
        return live

    _never_asks(patch)
    patch.setattr(Entry, "load", load)


def _ready_too_early(patch: Patch) -> None:
    plain = planner.read_rollout

    def read_rollout(live: Any, planned: Any, desired: int) -> Any:
        found = plain(live, planned, desired)
        return dataclasses.replace(found, complete=True, available=desired)

    patch.setattr(planner, "read_rollout", read_rollout)


def _status_tells_the_last_generation(patch: Patch) -> None:
    plain = planner._make_counts

    def make_counts(metadata: Any, rollout: Any) -> Json:
        return plain(metadata, rollout) | {"observedGeneration": max(1, metadata.generation - 1)}

    patch.setattr(planner, "_make_counts", make_counts)


def _a_child_is_forgotten(patch: Patch) -> None:
    plain = decide._decide

    def decide_(*args: Any, **more: Any) -> Plan:
        plan = plain(*args, **more)
        children = tuple(child for child in plan.children if child.key.kind != "PodDisruptionBudget")
        return dataclasses.replace(plan, children=children)

    patch.setattr(decide, "_decide", decide_)


def _invalid_spec_takes_everything_down(patch: Patch) -> None:
    plain = planner._plan_standstill

    def stand_still(metadata: Any, previous: Any, fault: Any, observed: Any, now: Any, *, desired: int) -> Plan:
        plan = plain(metadata, previous, fault, observed, now, desired=desired)
        return dataclasses.replace(plan, deletes=planner.find_deletes(observed, set(), metadata))

    patch.setattr(planner, "_plan_standstill", stand_still)


def _child_changes_unheard(patch: Patch) -> None:
    patch.setattr(main.Operator, "_on_child_change", lambda *_: None)
    patch.setattr(main.Operator, "_find_concerned", lambda *_: [])


def _resource_events_unheard(patch: Patch) -> None:
    plain = feed.CustomResourceFeed.on_event

    def on_event(self: Any, event: Any) -> None:
        if event["type"] in (None, "ADDED"):
            plain(self, event)

    patch.setattr(feed.CustomResourceFeed, "on_event", on_event)


def _status_writes_the_resource(patch: Patch) -> None:
    plain = client.ApiClient.apply

    async def apply(self: Any, resource: Any, namespace: str, name: str, body: Any, **more: Any) -> Any:
        if more.pop("subresource", None):
            body = {**body, "metadata": {**body["metadata"], "annotations": {"fairlead.dev/seen": "true"}}}
        return await plain(self, resource, namespace, name, body, **more)

    patch.setattr(client.ApiClient, "apply", apply)


def _freed_names_unheard(patch: Patch) -> None:
    patch.setattr(main.Operator, "_on_name_free", lambda *_: None)
    patch.setattr(main.Operator, "_find_concerned", lambda *_: [])
    patch.setattr(applier, "retry_in_s", lambda *_: 5000.0)


def _urgent_status_at_once(patch: Patch) -> None:
    """Not a fault but a waste: status is written at each step of a rollout."""
    patch.setattr(statuswriter.StatusTiming, "due_in_s", lambda *_, **__: 0.0)


def _carried_out_unwritten(patch: Patch) -> None:
    """The Deployment gets what was decided before status has it."""
    plain = planner.plan_deployment

    def plan(
        resource: Any, observed: Any, engines: Any, facts: Any, now: Any, draw: Any = planner.draw_blueprint
    ) -> Plan:
        decided: Plan = plain(resource, observed, engines, facts, now, draw)
        if not decided.acts_on_status:
            return decided
        told = dataclasses.replace(resource, status=decided.status)
        children = plain(told, observed, engines, facts, now, draw).children
        return dataclasses.replace(decided, children=children)

    patch.setattr(decide, "plan_deployment", plan)


def _decided_from_what_is_there(patch: Patch) -> None:
    """The last decision is not looked up: the Deployment is taken for it."""
    plain = planner.follow

    def follow(spec: Any, previous: Any, live_replicas: Any, signals: Any, now: Any) -> Any:
        scaling = {key: value for key, value in (previous.get("scaling") or {}).items() if key != "desiredReplicas"}
        return plain(spec, {**previous, "scaling": scaling}, live_replicas, signals, now)

    patch.setattr(planner, "follow", follow)


MUTATIONS = (
    Mutation("the first apply is forced", _forced_first_apply, ("name taken",)),
    Mutation("the first apply joins what is there", _unforced_first_apply, ("name taken by a twin",)),
    Mutation("no uid on updates", _no_uid_on_updates, ("child swapped",)),
    Mutation("no precondition on deletes", _no_precondition_on_deletes, ("child swapped",)),
    Mutation("never asks whether the resource lives", _never_asks, ("storage", "delete")),
    Mutation("asks only where a child was deleted", _asks_at_deletions_only, ("storage", "replicas")),
    Mutation("asks only once in a term", _asks_once_per_term_only, ("create and delete when it serves",)),
    Mutation("status is written without the version", _status_without_version, ("edits in a row", "spec changes")),
    Mutation("own writes are not cached", _own_writes_not_cached, ("create",)),
    Mutation("prunes by name", _prune_by_name, ("name taken later", "child swapped")),
    Mutation("never prunes", _never_prunes, ("replicas",)),
    Mutation("no tombstones", _no_tombstones, ("edits in a row", "create and delete at once", "delete")),
    Mutation("older news overwrites newer", _older_overwrites_newer, ("edits in a row",)),
    Mutation("lists drop nothing", _lists_drop_nothing, ("children deleted",)),
    Mutation("goes on after 410 without a list", _goes_on_after_410, ("children deleted",)),
    Mutation("status is always written", _status_always_written, ("create",)),
    Mutation("status is written once", _status_written_once, ("create",)),
    Mutation("always applies", _always_applies, ("create",)),
    Mutation("no drift is seen", _no_drift_seen, ("drift",)),
    Mutation("the hash is not compared", _hash_not_compared, ("spec changes",)),
    Mutation("a predecessor's child is a conflict", _left_behind_is_a_conflict, ("recreate",)),
    Mutation("what was told is not known after a restart", _told_is_not_known_after_a_restart, (HELD,)),
    Mutation("a predecessor's child is never told of", _left_behind_is_not_told, (HELD,)),
    Mutation("refusals hold for ever", _refusals_hold_for_ever, ("name taken",)),
    Mutation("refusals are forgotten", _refusals_forgotten, ("name taken by a twin",)),
    Mutation("the queue drops what comes at work", _queue_drops_what_comes_at_work, ("edits in a row",)),
    Mutation("errors are not tried again", _errors_not_retried, ("create", "spec changes")),
    Mutation("Retry-After is not kept", _impatient, ("create",)),
    Mutation("writes without the Lease", _writes_without_the_lease, ("create", "create with everything")),
    Mutation("works on what is marked for deletion", _works_on_what_is_marked, ("delete and wait",)),
    Mutation("Ready too early", _ready_too_early, ("replicas", "spec changes")),
    Mutation("status tells the last generation", _status_tells_the_last_generation, ("spec changes",)),
    Mutation("a child is forgotten", _a_child_is_forgotten, ("replicas",)),
    Mutation("an invalid spec takes everything down", _invalid_spec_takes_everything_down, ("invalid spec",)),
    Mutation("changes of children are not heard", _child_changes_unheard, ("drift",)),
    Mutation("changes of resources are not heard", _resource_events_unheard, ("spec changes",)),
    Mutation("a status write touches the resource", _status_writes_the_resource, ("create",)),
    Mutation("freed names are not heard", _freed_names_unheard, ("name taken",)),
    Mutation("a decision is carried out before it is written", _carried_out_unwritten, ("autoscaling",)),
    Mutation("a decision is not looked up", _decided_from_what_is_there, ("autoscaling",)),
    Mutation("status at every step", _urgent_status_at_once, ("create with everything", "replicas")),
)
