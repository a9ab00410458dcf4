"""The objects that fairlead watches, pruned and packed, with the two guards that make reading one's own writes safe.

A write's answer is put here at once, and nothing with a lower resourceVersion may overwrite it: resource versions are
compared as integers, which Kubernetes promises since 1.35 (KEP-5504) and etcd always gave. A deleted object leaves a
tombstone, so that a late event or a list that began before cannot bring it back.

Kept as packed JSON because a parsed Deployment is fifty times as large; parsed when planning asks for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from sys import intern
from typing import Any, Final

import orjson

from fairlead.api import names
from fairlead.facts.observed import ObjectKey
from fairlead.kube.compare import fingerprint
from fairlead.kube.packing import Sample, Samples
from fairlead.kube.prune import PRUNE, find_news, prune_object
from fairlead.kube.resources import BY_KIND, CONFIG_MAP, POD

Json = dict[str, Any]
TOMBSTONES_KEPT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One cached object. `body` is JSON without resourceVersion, so that equal bytes mean: nothing that we look at changed. It is
    packed by `sample` if there is one. `owner` is the custom resource that it belongs to by the owner reference of its controller,
    or by label; `route` the LLMRoute whose gateway an engine pod, or the pods of an LLMDeployment, carry."""

    key: ObjectKey
    uid: str
    resource_version: int
    owner: ObjectKey | None
    route: ObjectKey | None
    controller_uid: str
    controller_kind: str  # "" unless it is a kind of custom resource of ours
    generation: int
    wish: bytes  # digest of all but status and generation: what somebody asked for, as against what became of it
    news: bytes  # digest of what people wait for in it: readiness and trouble
    body: bytes
    sample: Sample | None

    def is_left_behind_for(self, owner: ObjectKey, uid: str) -> bool:
        """Whether this is a child of an earlier custom resource of the same kind and name, which the garbage collector will take."""
        return self.controller_kind == owner.kind and self.owner == owner and self.controller_uid != uid

    def load(self) -> Json:
        """The object as the API server had it, less what was pruned."""
        parsed: Json = orjson.loads(self.body if self.sample is None else self.sample.unpack(self.body))
        parsed["metadata"]["resourceVersion"] = str(self.resource_version)
        return parsed


@dataclass(frozen=True, slots=True)
class Change:
    """What a put or a removal did. Both None: it was old news."""

    before: Entry | None
    after: Entry | None

    @property
    def is_meaningful(self) -> bool:
        """True when something changed that planning can see."""
        if self.before is None or self.after is None:
            return self.before is not self.after
        return self.before.body != self.after.body

    @property
    def is_status_only(self) -> bool:
        """True when the object is what it was, and only its status moved."""
        return self.before is not None and self.after is not None and self.before.wish == self.after.wish

    @property
    def is_news(self) -> bool:
        """True when something became ready, stopped being it, or got into trouble."""
        before = self.before.news if self.before is not None else b""
        after = self.after.news if self.after is not None else b""
        return before != after

    def owners(self) -> set[ObjectKey]:
        """The custom resources that this may concern: of the object as it was and as it is; of a pod that carries a gateway its
        route, too."""
        entries = [entry for entry in (self.before, self.after) if entry is not None]
        routes = [entry.route for entry in entries if entry.key.kind == POD.kind]
        return {owner for owner in (*(entry.owner for entry in entries), *routes) if owner is not None}


NO_CHANGE: Final = Change(None, None)


class Cache:
    """All kinds in one store. Not for threads: every method returns without giving up the loop.

    `on_change` is told of every change that planning can see, whoever brought the news: a watch, a list, or the answer to a write of
    our own, of which the watches then say nothing new.
    """

    def __init__(self, on_change: Callable[[Change], None] | None = None) -> None:
        self._on_change = on_change
        self._entries: dict[ObjectKey, Entry] = {}
        self._by_kind: dict[str, dict[ObjectKey, None]] = {}
        self._by_owner: dict[ObjectKey, set[ObjectKey]] = {}
        self._by_route: dict[ObjectKey, set[ObjectKey]] = {}
        self._tombstones: OrderedDict[tuple[ObjectKey, str], int] = OrderedDict()
        self._settled: dict[ObjectKey, tuple[str, str]] = {}
        self._samples = Samples()
        self._missing: set[tuple[str, str | None]] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: ObjectKey) -> Entry | None:
        """The entry, or None."""
        return self._entries.get(key)

    def of_owner(self, owner: ObjectKey) -> Iterator[Entry]:
        """Everything that belongs to this custom resource, in the order of keys."""
        for key in sorted(self._by_owner.get(owner, ())):
            yield self._entries[key]

    def carriers_of(self, route: ObjectKey) -> Iterator[Entry]:
        """The LLMDeployments and engine pods that carry this route's gateway, in the order of keys."""
        for key in sorted(self._by_route.get(route, ())):
            yield self._entries[key]

    def carried(self, namespace: str) -> list[ObjectKey]:
        """The LLMRoutes, there or not, whose gateways something in the namespace carries."""
        return [route for route in self._by_route if route.namespace == namespace]

    def keys(self, kind: str, namespace: str | None = None) -> list[ObjectKey]:
        """All keys of a kind, in one namespace or in all."""
        return [key for key in self._by_kind.get(kind, ()) if namespace is None or key.namespace == namespace]

    def counts(self) -> dict[str, int]:
        """Objects per kind, for the metrics."""
        return {kind: len(keys) for kind, keys in self._by_kind.items() if keys}

    def is_served(self, kind: str, namespace: str | None) -> bool:
        """False for a kind that the cluster does not have, or that the operator may not see there: what is known of it says nothing."""
        return (kind, None) not in self._missing and (kind, namespace) not in self._missing

    def set_served(self, kind: str, namespace: str | None, *, is_served: bool) -> None:
        """Whoever watches the kind there, or everywhere, found that out."""
        (self._missing.discard if is_served else self._missing.add)((kind, namespace))

    def put(self, live: Mapping[str, Any], kind: str | None = None) -> Change:
        """Store what the API server said about an object, unless something newer is known. (Items of lists have no `kind`.)"""
        kind = kind or str(live["kind"])
        metadata = live["metadata"]
        key = ObjectKey(kind, metadata.get("namespace", ""), metadata["name"])
        if self.is_known(key, metadata.get("uid", ""), int(metadata.get("resourceVersion", 0))):
            return NO_CHANGE
        entry, before = make_entry(live, kind, self._samples, self._share), self._entries.get(key)
        self._store(entry, before)
        return self._told(Change(before, entry))

    def is_known(self, key: ObjectKey, uid: str, resource_version: int) -> bool:
        """True when this state of an object is nothing new: it, or a newer one, is here, or the object is gone since."""
        before = self._entries.get(key)
        if before is not None:
            if before.uid == uid:
                if before.resource_version >= resource_version:
                    return True
            elif before.resource_version > resource_version:
                return True  # news of a predecessor that had the same name
        died_at = self._tombstones.get((key, uid))
        return died_at is not None and resource_version <= died_at

    def remove(self, key: ObjectKey, uid: str, resource_version: int) -> Change:
        """Forget an object that was deleted, or that left the selection of the watch, at `resource_version`.

        An object of another uid under that name stays. So does a newer state of the same one: a watch says DELETED also
        when our label was stripped, and we may have put it back before the news of the stripping arrives.
        """
        self._bury(key, uid, resource_version)
        before = self._entries.get(key)
        if before is None or before.uid != uid or before.resource_version > resource_version:
            return NO_CHANGE
        self._drop(before)
        return self._told(Change(before, None))

    def retain(
        self,
        kind: str,
        namespace: str | None,
        listed: set[ObjectKey],
        list_version: int,
        is_anothers: Callable[[Entry], bool] | None = None,
    ) -> list[Change]:
        """Drop what a full list at `list_version` did not show; what was written after the list began is kept, and so is what
        `is_anothers`: an object that another selection of this kind shows, not the listed one."""
        changes = []
        for key in self.keys(kind, namespace):
            entry = self._entries[key]
            if key in listed or entry.resource_version > list_version:
                continue
            if is_anothers is None or not is_anothers(entry):
                changes.append(self.remove(key, entry.uid, list_version))
        return changes

    def drop_kind(self, kind: str, namespace: str | None) -> list[Change]:
        """Forget all of a kind that is not served any more. What comes back when it is may be of the same versions."""
        changes = []
        for key in self.keys(kind, namespace):
            entry = self._entries[key]
            self._drop(entry)
            changes.append(self._told(Change(entry, None)))
        return changes

    def settle(self, key: ObjectKey, desired_hash: str, live: Mapping[str, Any]) -> None:
        """Remember that applying this wish left this object as it was: comparing them again would only find the same
        difference of spelling, for ever."""
        self._settled[key] = (desired_hash, fingerprint(live))

    def is_settled(self, key: ObjectKey, desired_hash: str, live: Mapping[str, Any]) -> bool:
        """True when `settle` was told of just this pair."""
        settled = self._settled.get(key)
        return settled is not None and settled[0] == desired_hash and settled[1] == fingerprint(live)

    def _told(self, change: Change) -> Change:
        if self._on_change is not None and change.is_meaningful:
            self._on_change(change)
        return change

    def _share(self, owner: ObjectKey) -> ObjectKey:
        """The key that the owner's other children have already: one for all of them instead of one for each."""
        for sibling in self._by_owner.get(owner, ()):
            return self._entries[sibling].owner or owner
        return owner

    def _store(self, entry: Entry, before: Entry | None) -> None:
        if before is not None and (before.owner, before.route) != (entry.owner, entry.route):
            self._unindex(before)
        self._entries[entry.key] = entry
        self._by_kind.setdefault(entry.key.kind, {})[entry.key] = None
        if entry.owner is not None:
            self._by_owner.setdefault(entry.owner, set()).add(entry.key)
        if entry.route is not None:
            self._by_route.setdefault(entry.route, set()).add(entry.key)

    def _drop(self, entry: Entry) -> None:
        del self._entries[entry.key]
        del self._by_kind[entry.key.kind][entry.key]
        self._settled.pop(entry.key, None)
        self._unindex(entry)

    def _unindex(self, entry: Entry) -> None:
        for index, indexed in ((self._by_owner, entry.owner), (self._by_route, entry.route)):
            keys = index.get(indexed) if indexed is not None else None
            if indexed is not None and keys is not None:
                keys.discard(entry.key)
                if not keys:
                    del index[indexed]

    def _bury(self, key: ObjectKey, uid: str, resource_version: int) -> None:
        grave = (key, uid)
        self._tombstones[grave] = max(resource_version, self._tombstones.pop(grave, 0))
        while len(self._tombstones) > TOMBSTONES_KEPT:
            self._tombstones.popitem(last=False)


def make_entry(
    live: Mapping[str, Any],
    kind: str | None = None,
    samples: Samples | None = None,
    share: Callable[[ObjectKey], ObjectKey] | None = None,
) -> Entry:
    """Prune an object and work out whose it is. For one that will be kept: `samples` to pack it, and `share`, which knows an equal
    key of its owner."""
    kind = kind or str(live["kind"])
    prune = PRUNE.get(kind, prune_object)
    # Items of a list come without apiVersion and kind; with them everywhere, equal states are equal bytes.
    pruned: Json = {"apiVersion": BY_KIND[kind].api_version, "kind": kind} | prune(live)
    metadata = pruned["metadata"] = dict(pruned["metadata"])
    version = int(metadata.pop("resourceVersion", 0))
    # The same few words are in all objects of a custom resource: as one string each they take a third of the memory.
    namespace = intern(metadata.get("namespace", ""))
    controller = controller_of(live)
    owner = owner_of(metadata, namespace)
    body = orjson.dumps(pruned)
    # ConfigMaps are few, unlike each other, and read in each pass.
    sample = samples.of(kind, body) if samples is not None and kind != CONFIG_MAP.kind else None
    return Entry(
        key=ObjectKey(kind, namespace, intern(metadata["name"])),
        uid=intern(metadata.get("uid", "")),
        resource_version=version,
        owner=share(owner) if share is not None and owner is not None else owner,
        route=_route_of(kind, pruned, namespace),
        controller_uid=intern(controller.get("uid", "")),
        controller_kind=intern(controller["kind"]) if _is_custom_resource(controller) else "",
        generation=int(metadata.get("generation", 0)),
        wish=_digest_wish(pruned),
        news=_digest(find_news(kind, pruned)),
        # orjson leaves its buffer's unused rest, some 4 kB, behind the bytes that it returns; a copy has just its size.
        body=sample.pack(body) if sample is not None else bytes(memoryview(body)),
        sample=sample,
    )


def _digest(value: Any) -> bytes:
    return blake2b(orjson.dumps(value), digest_size=8).digest() if value else b""


def _digest_wish(pruned: Mapping[str, Any]) -> bytes:
    metadata = {key: value for key, value in pruned["metadata"].items() if key != "generation"}
    rest = {key: value for key, value in pruned.items() if key != "status"}
    return _digest({**rest, "metadata": metadata})


def owner_of(metadata: Mapping[str, Any], namespace: str) -> ObjectKey | None:
    """Which custom resource of ours an object is about: its controller if that is one, else what its label says."""
    for reference in metadata.get("ownerReferences") or ():
        if reference.get("controller") and _is_custom_resource(reference):
            return ObjectKey(intern(reference["kind"]), namespace, intern(reference["name"]))
    labels = metadata.get("labels") or {}
    for kind, label in names.OWNER_LABELS.items():
        if name := labels.get(label):
            return ObjectKey(kind, namespace, intern(name))
    return None


def _route_of(kind: str, pruned: Mapping[str, Any], namespace: str) -> ObjectKey | None:
    """The LLMRoute whose gateway is carried."""
    name: object = None
    if kind == POD.kind:
        labels = pruned["metadata"].get("labels") or {}
        name = labels.get(names.LABEL_LLMROUTE) if names.LABEL_LLMDEPLOYMENT in labels else None
    elif kind == names.LLMDEPLOYMENT:
        name = names.find_route_ref(pruned.get("spec"))
    return ObjectKey(names.LLMROUTE, namespace, intern(str(name))) if name else None


def _is_custom_resource(reference: Mapping[str, Any]) -> bool:
    """Whether an owner reference names one of ours. Somebody else's kind of the same name is another kind."""
    group = str(reference.get("apiVersion", "")).partition("/")[0]
    return group == names.GROUP and reference.get("kind") in names.OWNER_LABELS


def controller_of(live: Mapping[str, Any]) -> Mapping[str, Any]:
    """The owner reference with `controller: true`, or an empty mapping."""
    references: Iterable[Mapping[str, Any]] = (live.get("metadata") or {}).get("ownerReferences") or ()
    return next((reference for reference in references if reference.get("controller")), {})
