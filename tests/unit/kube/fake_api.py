"""An API server small enough to be made to misbehave: objects, versions, lists in chunks, watches, and server-side apply.

It keeps the promises that the operator relies on (one counter of versions, optimistic locking by resourceVersion and uid,
409 and 404 where Kubernetes has them) and breaks them on command. It knows no schema, defaulting or field ownership: what
depends on those is tested on the real one.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from fairlead.kube.client import ApiClient
from fairlead.kube.resources import BY_KIND
from fairlead.kube.session import Connection

Json = dict[str, Any]
_BY_PLURAL = {resource.plural: resource for resource in BY_KIND.values()}


def _kind(name: str, kind: str, namespaced: bool = True) -> Json:
    verbs = ["list", "watch", "get", "create", "patch", "update", "delete"]
    return {"name": name, "singularName": "", "kind": kind, "namespaced": namespaced, "verbs": verbs}


def _group(name: str, version: str) -> Json:
    entry = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [entry], "preferredVersion": entry}


#: What kopf asks before it watches anything. It waits for namespaces and CRDs though it is told not to look at them.
_DISCOVERY: dict[str, Json] = {
    "/api": {"versions": ["v1"]},
    "/apis": {"groups": [_group("fairlead.dev", "v1alpha1"), _group("apiextensions.k8s.io", "v1")]},
    "/api/v1": {"resources": [_kind("namespaces", "Namespace", namespaced=False)]},
    "/apis/fairlead.dev/v1alpha1": {
        "resources": [_kind("llmdeployments", "LLMDeployment"), _kind("llmroutes", "LLMRoute")]
    },
    "/apis/apiextensions.k8s.io/v1": {
        "resources": [_kind("customresourcedefinitions", "CustomResourceDefinition", namespaced=False)]
    },
}


@dataclass(slots=True)
class Fault:
    """Answers the next `times` requests that `matches` with a Status of `code`; code 0 closes the connection."""

    matches: Callable[[web.Request], bool]
    code: int
    message: str = "injected"
    times: int = 1
    headers: Mapping[str, str] = field(default_factory=dict)
    details: Json = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Stream:
    """An open watch of a collection; None among the lines ends it."""

    path: str
    selector: str = ""
    lines: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)

    def tell(self, kind: str, collection: str, live: Json, before: Json | None) -> None:
        """A change, if it is of what this stream shows: what comes to its selection is added, what leaves it is deleted."""
        if not _in(self.path, f"{collection}/x"):
            return
        was, is_ = before is not None and selects(self.selector, before), selects(self.selector, live)
        if kind == "DELETED" or (was and not is_):
            if was:
                version = live["metadata"]["resourceVersion"]
                assert before is not None
                last = {**before, "metadata": {**before["metadata"], "resourceVersion": version}}
                self.lines.put_nowait(_line("DELETED", last))
        elif is_:
            self.lines.put_nowait(_line("MODIFIED" if was else "ADDED", live))


class FakeApi:
    """State and faults. `requests` has (method, path, query) of everything that was asked."""

    def __init__(self) -> None:
        self.objects: dict[str, Json] = {}  # path -> object
        self.version = 100
        self.oldest_version = 0  # watches from before answer 410
        self.log: list[tuple[int, str, str, Json, Json | None]] = []  # (version, type, collection path, object, before)
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.faults: list[Fault] = []
        self.streams: list[Stream] = []
        self.page_size: int | None = None
        self._uids = itertools.count(1)

    # what a test does -------------------------------------------------------------------------------------------------

    def put(self, collection: str, name: str, **content: Any) -> Json:
        """Create or replace an object as another client would, and tell the watches."""
        path = f"{collection}/{name}"
        before = self.objects.get(path)
        metadata = {"name": name, "namespace": collection.split("/namespaces/")[1].split("/")[0], "generation": 1}
        metadata |= {"uid": f"uid-{next(self._uids)}"} if before is None else {"uid": before["metadata"]["uid"]}
        metadata |= content.pop("metadata", {})
        return self._store(path, {"metadata": metadata, **content}, created=before is None)

    def remove(self, path: str, *, tell: bool = True) -> None:
        """Delete an object; `tell` False: the watches never hear of it."""
        gone = self.objects.pop(path)
        self.version += 1
        if tell:
            gone = copy.deepcopy(gone)
            gone["metadata"]["resourceVersion"] = str(self.version)
            self._tell("DELETED", path.rpartition("/")[0], gone, gone)

    def expire_watches(self) -> None:
        """End all streams; what was known up to now is too old to go on from."""
        self.version += 1
        self.oldest_version = self.version
        self.send_raw(None)

    def send_raw(self, line: bytes | None) -> None:
        """Put bytes on all open streams; None ends them."""
        for stream in self.streams:
            stream.lines.put_nowait(line)

    def fail(
        self,
        code: int,
        *,
        times: int = 1,
        method: str | None = None,
        contains: str = "",
        watch: bool | None = None,
        **more: Any,
    ) -> None:
        """Inject a fault for requests of this method, with this in their path, that are a watch or are not."""

        def matches(request: web.Request) -> bool:
            is_watch = "watch" in request.query
            return method in (None, request.method) and contains in request.path and watch in (None, is_watch)

        self.faults.append(Fault(matches, code, times=times, **more))

    def writes(self) -> list[str]:
        """`METHOD path` of the writes so far."""
        return [f"{method} {path}" for method, path, _ in self.requests if method != "GET"]

    # what the operator sees -------------------------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Any request."""
        self.requests.append((request.method, request.path, dict(request.query)))
        for fault in self.faults:
            if fault.times > 0 and fault.matches(request):
                fault.times -= 1
                if fault.code == 0:
                    assert request.transport is not None
                    request.transport.close()
                    return web.Response()
                return refuse(fault.code, fault.message, headers=fault.headers, details=fault.details)
        if request.method == "GET":
            if "watch" in request.query:
                return await self._watch(request)
            return self._get(request)
        return await getattr(self, f"_{request.method.lower()}")(request)

    def _get(self, request: web.Request) -> web.Response:
        if request.path in self.objects:
            return web.json_response(self.objects[request.path])
        if request.path in _DISCOVERY:
            return web.json_response(_DISCOVERY[request.path])
        resource = _BY_PLURAL.get(request.path.rpartition("/")[2])
        if resource is None:
            return refuse(404, f"{request.path} not found")
        items = [o for p, o in sorted(self.objects.items()) if _in(request.path, p)]
        items = [o for o in items if selects(request.query.get("labelSelector", ""), o)]
        selector = request.query.get("fieldSelector", "")
        if selector:
            items = [o for o in items if o["metadata"]["name"] == selector.partition("=")[2]]
        start = int(request.query.get("continue", "0"))
        size = self.page_size or len(items) or 1
        page = [{k: v for k, v in o.items() if k not in ("kind", "apiVersion")} for o in items[start : start + size]]
        metadata = {"resourceVersion": str(self.version)}
        if start + size < len(items):
            metadata["continue"] = str(start + size)
        head = {"apiVersion": resource.api_version, "kind": f"{resource.kind}List"}
        return web.json_response({**head, "metadata": metadata, "items": page})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        if since < self.oldest_version:
            status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
            return response
        stream = Stream(request.path, request.query.get("labelSelector", ""))
        for version, kind, collection, live, before in self.log:
            if version > since:
                stream.tell(kind, collection, live, before)
        self.streams.append(stream)
        try:
            while (line := await stream.lines.get()) is not None:
                await response.write(line)
        finally:
            self.streams.remove(stream)
        return response

    async def _patch(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        path = request.path.removesuffix("/status")
        sent = body["metadata"]
        before = self.objects.get(path)
        if before is None:
            if path != request.path:
                return refuse(404, f"{path} not found")
            if "uid" in sent:
                return refuse(
                    409,
                    f"uid mismatch: the provided object specified uid {sent['uid']}, and no existing object was found",
                )
            body["metadata"] = {**sent, "uid": f"uid-{next(self._uids)}", "generation": 1}
            return web.json_response(self._store(path, body, created=True), status=201)
        known = before["metadata"]
        if sent.get("resourceVersion") not in (None, known["resourceVersion"]):
            return refuse(409, "the object has been modified")
        if sent.get("uid") not in (None, known["uid"]):
            return refuse(422, f"metadata.uid: Invalid value: {sent['uid']}: field is immutable")
        after = copy.deepcopy(before)
        if path != request.path:
            after["status"] = body["status"]
        else:
            after = {**after, **{k: v for k, v in body.items() if k != "metadata"}}
            after["metadata"] = {**known, **{k: v for k, v in sent.items() if k != "resourceVersion"}}
            after["metadata"]["generation"] = known["generation"] + (after.get("spec") != before.get("spec"))
        if after == before:
            return web.json_response(before)
        return web.json_response(self._store(path, after, created=False))

    async def _delete(self, request: web.Request) -> web.Response:
        live = self.objects.get(request.path)
        if live is None:
            return refuse(404, "not found")
        wanted = json.loads(await request.read()).get("preconditions", {})
        for name in ("uid", "resourceVersion"):
            if wanted.get(name) not in (None, live["metadata"][name]):
                return refuse(409, f"precondition failed: {name}")
        self.remove(request.path)
        return web.json_response({"kind": "Status", "status": "Success"})

    async def _post(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        path = f"{request.path}/{body['metadata']['name']}"
        if path in self.objects:
            return refuse(409, f"{path} already exists")
        body["metadata"]["uid"] = f"uid-{next(self._uids)}"
        return web.json_response(self._store(path, body, created=True), status=201)

    async def _put(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        before = self.objects.get(request.path)
        if before is None:
            return refuse(404, "not found")
        if body["metadata"].get("resourceVersion") not in (None, before["metadata"]["resourceVersion"]):
            return refuse(409, "the object has been modified")
        return web.json_response(self._store(request.path, body, created=False))

    def _store(self, path: str, live: Json, *, created: bool) -> Json:
        self.version += 1
        live = copy.deepcopy(live)
        live["metadata"]["resourceVersion"] = str(self.version)
        before, self.objects[path] = self.objects.get(path), live
        self._tell("ADDED" if created else "MODIFIED", path.rpartition("/")[0], live, before)
        return live

    def _tell(self, kind: str, collection: str, live: Json, before: Json | None) -> None:
        self.log.append((self.version, kind, collection, copy.deepcopy(live), copy.deepcopy(before)))
        for stream in self.streams:
            stream.tell(kind, collection, live, before)


def _line(kind: str, live: Json) -> bytes:
    return json.dumps({"type": kind, "object": live}).encode() + b"\n"


def selects(selector: str, live: Json) -> bool:
    """Whether a label selector of `key`, `!key` and `key=value` shows an object."""
    labels = live["metadata"].get("labels") or {}
    for part in filter(None, selector.split(",")):
        key, equals, value = part.partition("=")
        wanted = not key.startswith("!")
        found = labels.get(key) == value if equals else key.lstrip("!") in labels
        if found is not wanted:
            return False
    return True


def _in(collection: str, path: str) -> bool:
    """Whether an object's path is in a collection, of one namespace or of all."""
    folder, plural = path.rpartition("/")[0], collection.rpartition("/")[2]
    return folder == collection or ("/namespaces/" not in collection and folder.endswith(f"/{plural}"))


def refuse(
    code: int, message: str, *, headers: Mapping[str, str] | None = None, details: Json | None = None
) -> web.Response:
    """A Status object as the API server answers."""
    status = {"kind": "Status", "status": "Failure", "code": code, "message": message, "details": details or {}}
    return web.json_response(status, status=code, headers=headers)


@asynccontextmanager
async def serving(api: FakeApi) -> AsyncIterator[tuple[ApiClient, Connection]]:
    """A client of `api`, over HTTP on loopback."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.handle)
    server = TestServer(app)
    await server.start_server(shutdown_timeout=0.1)
    connection = Connection(server=str(server.make_url("")).rstrip("/"))
    connection.open()
    try:
        yield ApiClient(connection), connection
    finally:
        api.send_raw(None)
        await connection.close()
        await server.close()
