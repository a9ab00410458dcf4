"""An API server in memory, with the promises that the operator relies on: one counter of versions, a log of changes, server-side
apply with managers, merge patch, preconditions, the status subresource, generations, defaults, finalizers, selectors, watches
that resume, and lists of an older state on demand.

No sockets and no clock of its own: time is the event loop's. Every write is recorded with what it did, which is what the
oracles read. `tests/cluster/test_sim_semantics.py` asks the same questions of the real API server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.sim import fieldsets, schema
from tests.sim.answers import Answer, refuse
from tests.sim.entries import Entry, Record, Request, Write, clone
from tests.sim.fieldsets import Manager, Owned
from tests.sim.kinds import KINDS, Address, Key

from fairlead.facts.alerts import Delivery

Json = dict[str, Any]
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
#: Who writes as part of the cluster itself.
CONTROLLERS = "kube-controller-manager"


class SimCluster:
    """The state and its laws. `clock` tells seconds, `on_change` is told of every entry of the log."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.version = 1000
        self.floor = 0  # watches from before answer 410
        self.records: dict[Key, Record] = {}
        self.log: list[Entry] = []
        self.writes: list[Write] = []
        self.listeners: list[Callable[[Entry], None]] = []
        self.terminating: set[str] = set()
        self.hearers: list[Callable[[Delivery], None]] = []  # operators that take alerts
        self.waiting: list[tuple[float, float]] = []  # since when how many requests wait in the engines
        self._uids = 0
        self._ips = 0
        self._counts: dict[str, int] = {}

    # what tests and the cluster's own controllers do -------------------------------------------------------------------

    def get(self, kind: str, namespace: str, name: str) -> Json | None:
        """A copy, or None."""
        record = self.records.get(Key(kind, namespace, name))
        return None if record is None else clone(record.live)

    def all(self, kind: str, namespace: str | None = None) -> list[Json]:
        """Copies, in the order of names."""
        return [
            clone(record.live)
            for key, record in sorted(self.records.items())
            if key.kind == kind and namespace in (None, key.namespace)
        ]

    def create(self, actor: str, live: Mapping[str, Any]) -> Json:
        """As `kubectl create`. Raises AssertionError when it is refused: tests know what they do."""
        return self._direct(actor, "POST", live["kind"], live["metadata"]["namespace"], None, live)

    def edit(self, actor: str, kind: str, namespace: str, name: str, change: Callable[[Json], None]) -> Json | None:
        """Read, change, write back. None when there is no such object."""
        live = self.get(kind, namespace, name)
        if live is None:
            return None
        change(live)
        return self._direct(actor, "PUT", kind, namespace, name, live)

    def edit_status(self, actor: str, kind: str, namespace: str, name: str, change: Callable[[Json], None]) -> None:
        """As `edit`, through the status subresource."""
        live = self.get(kind, namespace, name)
        if live is not None:
            change(live)
            self._direct(actor, "PUT", kind, namespace, name, live, "status")

    def delete(self, actor: str, kind: str, namespace: str, name: str, uid: str | None = None) -> None:
        """As `kubectl delete --wait=false`; with `uid` only that one."""
        live = self.get(kind, namespace, name)
        if live is not None and uid in (None, live["metadata"]["uid"]):
            self._direct(actor, "DELETE", kind, namespace, name, None)

    def strip_finalizers(self, actor: str, key: Key) -> None:
        """What a controller does when it is done with an object that is being deleted."""

        def strip(live: Json) -> None:
            live["metadata"].pop("finalizers", None)

        self.edit(actor, key.kind, key.namespace, key.name, strip)

    def count(self, name: str) -> int:
        """1, 2, 3 … for each name."""
        self._counts[name] = self._counts.get(name, 0) + 1
        return self._counts[name]

    def fork(self, clock: Callable[[], float]) -> SimCluster:
        """Another cluster that goes on from here, with the same past and nobody listening."""
        twin = SimCluster(clock)
        twin.version, twin.floor, twin.log = self.version, self.floor, list(self.log)
        twin.records = {key: Record(record.live, record.owned) for key, record in self.records.items()}
        twin.terminating, twin._counts = set(self.terminating), dict(self._counts)
        twin._uids, twin._ips = self._uids, self._ips
        twin.waiting = list(self.waiting)
        return twin

    def wall(self) -> datetime:
        """The time that objects are stamped with."""
        return _EPOCH + timedelta(seconds=self.clock())

    def stamp(self) -> str:
        """`wall` as in metadata."""
        return self.wall().strftime("%Y-%m-%dT%H:%M:%SZ")

    def compact(self) -> None:
        """Forget the log for watches: whoever resumes from before now gets 410."""
        self.floor = self.version

    def version_behind(self, count: int, kinds: frozenset[str]) -> int:
        """The version as of `count` changes of these kinds ago."""
        seen = [entry.version for entry in self.log if entry.key.kind in kinds]
        if count == 0 or not seen:
            return self.version
        return seen[-count] - 1 if count <= len(seen) else seen[0] - 1

    def _direct(
        self, actor: str, method: str, kind: str, namespace: str, name: str | None, body: Any, subresource: str = ""
    ) -> Json:
        address = Address(kind, namespace, name, subresource)
        answer = self.serve(Request(actor, method, address, {"fieldManager": actor}, clone(body)))
        assert answer.code < 300, f"{actor} {method} {address}: {answer.body}"
        return answer.body

    # the API ------------------------------------------------------------------------------------------------------------

    def serve(self, request: Request) -> Answer:
        """Any request but a watch."""
        if request.method == "GET":
            return self._read(request)
        at, before_version = request.address, self.version
        answer = self._write(request)
        name = at.name or (request.body or {}).get("metadata", {}).get("name", "")
        key = Key(at.kind, at.namespace or "", name)
        before, after = self._change_since(before_version, key)
        write = Write(self.clock(), request.actor, request.method, key, at.subresource, answer.code, before, after)
        self.writes.append(write)
        return answer

    def note_refused(self, request: Request, code: int) -> None:
        """Record a write that something before the API server refused."""
        at = request.address
        name = at.name or str((request.body or {}).get("metadata", {}).get("name", ""))
        key = Key(at.kind, at.namespace or "", name)
        self.writes.append(Write(self.clock(), request.actor, request.method, key, at.subresource, code))

    def _change_since(self, version: int, key: Key) -> tuple[Json | None, Json | None]:
        if self.log and self.log[-1].version > version and self.log[-1].key == key:
            return self.log[-1].before, self.log[-1].after
        return None, None

    def _read(self, request: Request, view: int | None = None) -> Answer:
        at = request.address
        if at.name is not None:
            live = self.get(at.kind, at.namespace or "", at.name)
            return refuse(404, "NotFound", f"{at} not found") if live is None else Answer(200, live)
        return self.list(request, view)

    def list(self, request: Request, view: int | None = None) -> Answer:
        """A collection, as it is or (`view`) as it was at an older version."""
        at, params = request.address, request.params
        version = self.version if view is None else min(view, self.version)
        field_selector = params.get("fieldSelector", "")
        items = []
        for key, live in self.snapshot(at.kind, version):
            if at.namespace not in (None, key.namespace) or not selects(params.get("labelSelector", ""), live):
                continue
            if field_selector and field_selector != f"metadata.name={key.name}":
                continue
            items.append({name: value for name, value in live.items() if name not in ("apiVersion", "kind")})
        listed = {"kind": f"{at.kind}List", "metadata": {"resourceVersion": str(version)}, "items": items}
        return Answer(200, listed)

    def snapshot(self, kind: str, version: int) -> Iterator[tuple[Key, Json]]:
        """The objects of a kind as they were at a version."""
        if version >= self.version:
            yield from ((key, self._shown(record)) for key, record in sorted(self.records.items()) if key.kind == kind)
            return
        state: dict[Key, Json] = {}
        for entry in self.log:
            if entry.version > version:
                break
            if entry.key.kind != kind:
                continue
            if entry.after is None:
                state.pop(entry.key, None)
            else:
                state[entry.key] = entry.after
        yield from sorted(state.items())

    def _shown(self, record: Record) -> Json:
        metadata = {**record.live["metadata"], "managedFields": fieldsets.describe(record.owned)}
        return {**record.live, "metadata": metadata}

    def _write(self, request: Request) -> Answer:
        at = request.address
        key = Key(at.kind, at.namespace or "", at.name or str((request.body or {})["metadata"]["name"]))
        record = self.records.get(key)
        if request.method == "DELETE":
            return self._delete(key, record, request.body or {})
        if request.method == "POST":
            if record is not None:
                return refuse(409, "AlreadyExists", f'{KINDS[at.kind].plural} "{key.name}" already exists')
            return self._create(request, key, request.body)
        if request.method == "PUT":
            if record is None:
                return refuse(404, "NotFound", f"{key} not found")
            return self._guarded(request, key, record, request.body)
        if request.content_type == "application/merge-patch+json":
            if record is None:
                return refuse(404, "NotFound", f"{key} not found")
            return self._guarded(request, key, record, _merge_patch(clone(record.live), request.body))
        return self._apply(request, key, record)

    def _apply(self, request: Request, key: Key, record: Record | None) -> Answer:
        wish, at = request.body, request.address
        manager = Manager(request.params["fieldManager"], "Apply", at.subresource)
        sent = wish["metadata"]
        if record is None:
            if at.subresource:
                return refuse(404, "NotFound", f"{key} not found")
            if sent.get("uid"):
                text = (
                    f"uid mismatch: the provided object specified uid {sent['uid']}, and no existing object was found"
                )
                return refuse(409, "Conflict", text)
            if (refused := self._refuse_new(key)) is not None:
                return refused
            live: Json = {"apiVersion": wish["apiVersion"], "kind": wish["kind"], "metadata": {}}
            owned: Owned = {}
        else:
            if (refused := self._precondition(key, record, sent)) is not None:
                return refused
            live, owned = clone(record.live), record.owned
        if at.subresource == "status":
            wish = {"apiVersion": wish["apiVersion"], "kind": wish["kind"], "metadata": {}, "status": wish["status"]}
        elif schema.has_status(key.kind):
            wish = {name: value for name, value in wish.items() if name != "status"}
        force = request.params.get("force") == "true"
        try:
            after, owned = fieldsets.apply(key.kind, live, owned, manager, wish, force=force)
        except fieldsets.ApplyConflictError as error:
            causes = [
                {"reason": "FieldManagerConflict", "field": path, "message": who} for who, path in error.conflicts
            ]
            return refuse(409, "Conflict", f"Apply failed with {len(causes)} conflict: {error}", causes)
        except fieldsets.DuplicateKeyError as error:
            return refuse(
                500, "InternalError", f"failed to create typed patch object: .{error}: duplicate entries for key"
            )
        if record is None:
            after["metadata"] |= {"name": key.name, "namespace": key.namespace}
            return self._insert(key, after, owned, manager)
        return self._replace(request, key, record, after, owned)

    def _create(self, request: Request, key: Key, body: Json) -> Answer:
        if (refused := self._refuse_new(key)) is not None:
            return refused
        manager = Manager(request.params.get("fieldManager", request.actor), "Update")
        owned = {manager: frozenset(fieldsets.leaves(key.kind, body))}
        return self._insert(key, body, owned, manager)

    def _refuse_new(self, key: Key) -> Answer | None:
        if key.namespace not in self.terminating:
            return None
        why = f"namespace {key.namespace} is being terminated"
        causes = [{"reason": "NamespaceTerminating", "message": why, "field": "metadata.namespace"}]
        text = f'{KINDS[key.kind].plural} "{key.name}" is forbidden: unable to create new content in it: {why}'
        return refuse(403, "Forbidden", text, causes)

    def _insert(self, key: Key, body: Json, owned: Owned, manager: Manager) -> Answer:
        live = clone(body)
        if schema.has_status(key.kind) and key.kind != "Pod":
            live.pop("status", None)
        self._uids += 1
        metadata = live["metadata"]
        for name in ("resourceVersion", "uid", "generation", "managedFields", "deletionTimestamp"):
            metadata.pop(name, None)
        metadata |= {"uid": f"uid-{self._uids:04}", "creationTimestamp": self.stamp()}
        if key.kind in schema.COUNTED:
            metadata["generation"] = 1
        if key.kind == "PersistentVolumeClaim":
            metadata["finalizers"] = ["kubernetes.io/pvc-protection"]
        try:
            schema.default(key.kind, live)
            schema.check(key.kind, live, None)
        except schema.InvalidError as error:
            return self._invalid(key, error)
        if key.kind == "Service":
            self._allocate(live)
        return Answer(201, self._store(key, "ADDED", None, Record(live, owned)))

    def _allocate(self, live: Json) -> None:
        spec = live["spec"]
        if not spec.get("clusterIP"):
            self._ips += 1
            spec["clusterIP"] = f"10.96.0.{self._ips}"
        spec["clusterIPs"] = [spec["clusterIP"]]
        for port in spec.get("ports") or () if spec["type"] in ("NodePort", "LoadBalancer") else ():
            if not port.get("nodePort"):
                self._ips += 1
                port["nodePort"] = 30000 + self._ips

    def _guarded(self, request: Request, key: Key, record: Record, body: Json) -> Answer:
        """A whole new object in the place of an old one."""
        if (refused := self._precondition(key, record, body["metadata"])) is not None:
            return refused
        sub = request.address.subresource
        before, after = record.live, clone(record.live)
        after["metadata"] |= (
            {"annotations": body["metadata"].get("annotations")} if sub and key.kind == "Deployment" else {}
        )
        if sub == "status":
            after["status"] = body.get("status")
        else:
            fixed = (
                "uid",
                "resourceVersion",
                "generation",
                "creationTimestamp",
                "deletionTimestamp",
                "name",
                "namespace",
            )
            metadata = {name: value for name, value in body["metadata"].items() if name not in fixed}
            metadata |= {name: before["metadata"][name] for name in fixed if name in before["metadata"]}
            metadata.pop("managedFields", None)
            status = before.get("status") if schema.has_status(key.kind) else body.get("status")
            after = {**clone(body), "metadata": metadata} | ({"status": status} if status is not None else {})
        after["metadata"] = {name: value for name, value in after["metadata"].items() if value is not None}
        manager = Manager(request.params.get("fieldManager", request.actor), "Update", sub)
        owned = fieldsets.update(key.kind, before, after, record.owned, manager)
        return self._replace(request, key, record, after, owned)

    def _precondition(self, key: Key, record: Record, sent: Mapping[str, Any]) -> Answer | None:
        known = record.live["metadata"]
        if sent.get("uid") not in (None, known["uid"]):
            causes = [{"reason": "FieldValueInvalid", "field": "metadata.uid", "message": "field is immutable"}]
            text = (
                f'{key.kind} "{key.name}" is invalid: metadata.uid: Invalid value: "{sent["uid"]}": field is immutable'
            )
            return refuse(422, "Invalid", text, causes)
        if sent.get("resourceVersion") not in (None, known["resourceVersion"]):
            text = f'Operation cannot be fulfilled on {key.kind} "{key.name}": the object has been modified'
            return refuse(409, "Conflict", text)
        return None

    def _replace(self, request: Request, key: Key, record: Record, after: Json, owned: Owned) -> Answer:
        before = record.live
        try:
            if not request.address.subresource:
                schema.default(key.kind, after)
                if key.kind == "Service":
                    self._allocate(after)
                schema.check(key.kind, after, before)
        except schema.InvalidError as error:
            return self._invalid(key, error)
        if not request.address.subresource and schema.bumps_generation(key.kind, before, after):
            after["metadata"]["generation"] = before["metadata"]["generation"] + 1
        if after == before and owned == record.owned:
            return Answer(200, self._shown(record))
        if "deletionTimestamp" in after["metadata"] and not after["metadata"].get("finalizers"):
            self._erase(key, Record(after, owned))
            return Answer(200, after)
        return Answer(200, self._store(key, "MODIFIED", before, Record(after, owned)))

    def _invalid(self, key: Key, error: schema.InvalidError) -> Answer:
        causes = [{"field": field, "reason": reason, "message": message} for field, reason, message in error.causes]
        return refuse(422, "Invalid", f'{key.kind} "{key.name}" is invalid: {error}', causes)

    def _delete(self, key: Key, record: Record | None, options: Mapping[str, Any]) -> Answer:
        if record is None:
            return refuse(404, "NotFound", f"{key} not found")
        metadata = record.live["metadata"]
        for name, wanted in (options.get("preconditions") or {}).items():
            if wanted != metadata[name]:
                text = f"Precondition failed: {name} in precondition: {wanted}, in object meta: {metadata[name]}"
                return refuse(409, "Conflict", text)
        if metadata.get("finalizers") or key.kind == "Pod":
            if "deletionTimestamp" in metadata:
                return Answer(200, self._shown(record))
            after = clone(record.live)
            after["metadata"] |= {"deletionTimestamp": self.stamp(), "deletionGracePeriodSeconds": 0}
            return Answer(200, self._store(key, "MODIFIED", record.live, Record(after, record.owned)))
        self._erase(key, record)
        return Answer(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})

    def erase(self, key: Key) -> None:
        """The end of an object whose grace is over, as the kubelet ends a pod."""
        record = self.records.get(key)
        if record is not None:
            self._erase(key, record)

    def _erase(self, key: Key, record: Record) -> None:
        before = self.records.pop(key).live
        self.version += 1
        last = clone(record.live)
        last["metadata"]["resourceVersion"] = str(self.version)
        self._note(
            Entry(
                self.version, "DELETED", key, before | {"metadata": {**before["metadata"], **_version_of(last)}}, None
            )
        )

    def _store(self, key: Key, type_: str, before: Json | None, record: Record) -> Json:
        self.version += 1
        record.live = clone(record.live)
        record.live["metadata"]["resourceVersion"] = str(self.version)
        self.records[key] = record
        self._note(Entry(self.version, type_, key, before, record.live))
        return self._shown(record)

    def _note(self, entry: Entry) -> None:
        self.log.append(entry)
        for listener in self.listeners:
            listener(entry)


def _version_of(live: Mapping[str, Any]) -> Json:
    return {"resourceVersion": live["metadata"]["resourceVersion"]}


def selects(selector: str, live: Mapping[str, Any]) -> bool:
    """Whether a label selector (`a=b`, `a`; with commas) picks this object."""
    labels = live["metadata"].get("labels") or {}
    for part in filter(None, selector.split(",")):
        name, equals, value = part.partition("=")
        if name not in labels or (equals and labels[name] != value):
            return False
    return True


def _merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge_patch(merged.get(name), value)
    return merged


__all__ = ["CONTROLLERS", "Entry", "Key", "Record", "Request", "SimCluster", "Write", "clone", "selects"]
