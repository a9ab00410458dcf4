"""A small asynchronous Kubernetes API client for the parts of the local cluster (nodes, Services, DNS).

It shares no code with the operator's own client, because what it runs judges that one. It speaks JSON, gives objects
as plain dicts, and hides exactly two nuisances: what a watch must do to go on for ever (bookmarks, expiry, 410, broken
connections, re-listing without losing a deletion), and the several kinds of patch.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import random
import ssl
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import aiohttp
import orjson
import yaml

from fairlead_cluster.errors import LocalClusterError

Json = dict[str, Any]
EventType = Literal["ADDED", "MODIFIED", "DELETED", "SYNCED"]

_log = logging.getLogger(__name__)
_REQUEST_TIMEOUT_S = 30.0
_WATCH_MIN_S, _WATCH_MAX_S = 240, 480
_WATCH_SLACK_S = 30.0
_RETRY_FIRST_S, _RETRY_MAX_S = 0.1, 5.0
_PAGE_SIZE = 500
_MAX_CONNECTIONS = 64  # each has a TLS session of some 100 KiB here, and work at the server; watches are among them
#: Content types of the patches that Kubernetes knows.
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object as the API's paths name it. `group` is empty for the core group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As in manifests: `v1`, `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of one object, of all in a namespace, or (namespace None) of all."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if namespace is not None and self.namespaced:
            root += f"/namespaces/{namespace}"
        return "/".join([f"{root}/{self.plural}", *(part for part in (name, subresource) if part)])


NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
PODS = Resource("", "v1", "pods", "Pod")
SERVICES = Resource("", "v1", "services", "Service")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
SECRETS = Resource("", "v1", "secrets", "Secret")
EVENTS = Resource("", "v1", "events", "Event")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
PERSISTENT_VOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
PERSISTENT_VOLUME_CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
STORAGE_CLASSES = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")


class ApiError(LocalClusterError):
    """The API server said no. `status` is the HTTP status, `reason` the machine-readable word (`NotFound`)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change. SYNCED has an empty object: all that existed at the (re-)list has been reported before it."""

    type: EventType
    object: Json


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """Where the API server is and who we are, from the current context of a kubeconfig file."""

    server_url: str
    tls: ssl.SSLContext
    headers: Mapping[str, str]
    namespace: str

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a kubeconfig with a token or a client certificate. LocalClusterError if it uses anything else."""
        document = yaml.safe_load(path.read_text())
        context = _named(document["contexts"], document["current-context"])["context"]
        cluster = _named(document["clusters"], context["cluster"])["cluster"]
        user = _named(document["users"], context["user"])["user"]
        tls = ssl.create_default_context(cadata=_pem(cluster, "certificate-authority", path))
        if cluster.get("insecure-skip-tls-verify"):
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
        headers = {}
        if token := user.get("token"):
            headers["Authorization"] = f"Bearer {token}"
        elif certificate := _pem(user, "client-certificate", path):
            _load_client_certificate(tls, certificate, _pem(user, "client-key", path) or "")
        else:
            raise LocalClusterError(f"{path}: the user has neither a token nor a client certificate")
        return cls(cluster["server"].rstrip("/"), tls, headers, context.get("namespace", "default"))


class Api:
    """The client, as an async context manager: `async with Api(Kubeconfig.load(path)) as api: …`.

    All methods raise ApiError for an answer that is not a success, and aiohttp.ClientError or TimeoutError when there
    was no answer. `namespace` is needed for namespaced kinds, except in `list_all` and `watch`, where None means all.
    """

    def __init__(self, kubeconfig: Kubeconfig, *, user_agent: str = "fairlead-cluster") -> None:
        self._kubeconfig = kubeconfig
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def from_kubeconfig(cls, path: Path, *, user_agent: str = "fairlead-cluster") -> Self:
        """The client of the current context of a kubeconfig file."""
        return cls(Kubeconfig.load(path), user_agent=user_agent)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            self._kubeconfig.server_url,
            connector=aiohttp.TCPConnector(ssl=self._kubeconfig.tls, limit=_MAX_CONNECTIONS),
            headers={**self._kubeconfig.headers, "User-Agent": self._user_agent, "Accept": "application/json"},
            timeout=aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Json:
        """Read one object."""
        return await self._request("GET", resource.path(namespace, name))

    async def find(self, resource: Resource, name: str, namespace: str | None = None) -> Json | None:
        """Read one object, or None if there is none."""
        try:
            return await self.get(resource, name, namespace)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list_all(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        field_selector: str | None = None,
        label_selector: str | None = None,
    ) -> list[Json]:
        """Read all objects that match, in pages. They come without managedFields, as those of `watch` do."""
        items, _ = await self._list(resource, namespace, _selectors(field_selector, label_selector))
        return items

    async def create(self, resource: Resource, body: Json, namespace: str | None = None) -> Json:
        """Create an object; kind and apiVersion are filled in."""
        return await self._request("POST", resource.path(namespace), body=_typed(resource, body))

    async def create_subresource(
        self, resource: Resource, name: str, subresource: str, body: Json, namespace: str | None = None
    ) -> Json:
        """POST to a subresource (`token`, `eviction`, `binding`)."""
        return await self._request("POST", resource.path(namespace, name, subresource), body=body)

    async def patch(
        self,
        resource: Resource,
        name: str,
        body: Json,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
        content_type: str = MERGE_PATCH,
    ) -> Json:
        """Patch an object or its subresource: JSON merge patch, or STRATEGIC_MERGE_PATCH for built-in kinds."""
        path = resource.path(namespace, name, subresource)
        return await self._request("PATCH", path, body=body, content_type=content_type)

    async def apply(
        self,
        resource: Resource,
        body: Json,
        namespace: str | None = None,
        *,
        field_manager: str,
        force: bool = True,
        subresource: str | None = None,
    ) -> Json:
        """Server-side apply of the object that `body` names."""
        path = resource.path(namespace, body["metadata"]["name"], subresource)
        query = {"fieldManager": field_manager, "force": "true" if force else "false"}
        return await self._request("PATCH", path, body=_typed(resource, body), content_type=APPLY_PATCH, query=query)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        grace_period_s: int | None = None,
        uid: str | None = None,
    ) -> bool:
        """Delete one object, only the one with `uid` if given. False if it was gone (or is another one) already."""
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_period_s is not None:
            options["gracePeriodSeconds"] = grace_period_s
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self._request("DELETE", resource.path(namespace, name), body=options)
        except ApiError as error:
            if error.status == 404 or (error.status == 409 and uid is not None):
                return False
            raise
        return True

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        field_selector: str | None = None,
        label_selector: str | None = None,
    ) -> AsyncGenerator[WatchEvent, None]:
        """All objects as ADDED, then SYNCED, then every change, for ever: close the iterator or cancel to end it.

        After a lost connection or an expired resource version it lists again and reports what changed meanwhile, also
        deletions (with the object as last seen), then SYNCED again. An object may be reported twice, never lost.
        Connection errors and 5xx are retried with back-off; other refusals (401, 403, 404) raise ApiError.
        """
        selectors = _selectors(field_selector, label_selector)
        known: dict[tuple[str, str], Json] = {}
        delay_s = _RETRY_FIRST_S
        while True:
            try:
                items, version = await self._list(resource, namespace, selectors)
                for event in _differences(known, items):
                    yield event
                yield WatchEvent("SYNCED", {})
                delay_s = _RETRY_FIRST_S
                async with contextlib.aclosing(self._watch_from(resource, namespace, selectors, version)) as events:
                    async for event in events:
                        _remember(known, event)
                        yield event
            except (aiohttp.ClientError, TimeoutError, ApiError) as error:
                if isinstance(error, ApiError) and error.status < 500 and error.status not in (410, 429):
                    raise
                _log.info("watch of %s is set up again: %s", resource.plural, error or type(error).__name__)
                await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311
                delay_s = min(_RETRY_MAX_S, delay_s * 2)

    async def _watch_from(
        self, resource: Resource, namespace: str | None, selectors: Mapping[str, str], version: str
    ) -> AsyncGenerator[WatchEvent, None]:
        """Changes after `version`, over as many connections as it takes. Raises when a new list is needed."""
        while True:
            timeout_s = random.randint(_WATCH_MIN_S, _WATCH_MAX_S)  # noqa: S311
            query = {
                **selectors,
                "watch": "1",
                "allowWatchBookmarks": "true",
                "resourceVersion": version,
                "timeoutSeconds": str(timeout_s),
            }
            timeout = aiohttp.ClientTimeout(total=timeout_s + _WATCH_SLACK_S, sock_connect=_REQUEST_TIMEOUT_S)
            async with self._open("GET", resource.path(namespace), query=query, timeout=timeout) as response:
                async for line in _lines(response.content):
                    event = orjson.loads(line)
                    kind, found = event["type"], event["object"]
                    if kind == "ERROR":
                        raise _error_of(found, 500)
                    version = found["metadata"]["resourceVersion"]
                    if kind != "BOOKMARK":
                        yield WatchEvent(kind, _slim(resource, found))

    async def _list(
        self, resource: Resource, namespace: str | None, selectors: Mapping[str, str]
    ) -> tuple[list[Json], str]:
        items: list[Json] = []
        query = {**selectors, "limit": str(_PAGE_SIZE)}
        while True:
            page = await self._request("GET", resource.path(namespace), query=query)
            items += [_slim(resource, item) for item in page.get("items") or []]
            metadata = page["metadata"]
            if not metadata.get("continue"):
                return items, metadata["resourceVersion"]
            query["continue"] = metadata["continue"]

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Json:
        async with self._open(method, path, body=body, content_type=content_type, query=query) as response:
            answer: Json = orjson.loads(await response.read())
            return answer

    @contextlib.asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
        timeout: aiohttp.ClientTimeout | None = None,  # noqa: ASYNC109
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            raise LocalClusterError("the API client is not open: use `async with Api(…) as api`")
        data = None if body is None else orjson.dumps(body)
        headers = {} if body is None else {"Content-Type": content_type}
        extra: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
        async with self._session.request(method, path, data=data, headers=headers, params=query, **extra) as response:
            if response.status >= 400:
                raise _error_of(_parse(await response.read()), response.status)
            yield response


class Store:
    """The last known state of all objects of one kind, kept by `run`; `changed` callbacks get (old, new)."""

    def __init__(self, api: Api, resource: Resource, *, field_selector: str | None = None) -> None:
        self._api = api
        self._resource = resource
        self._field_selector = field_selector
        self._objects: dict[tuple[str, str], Json] = {}
        self._listeners: list[Callable[[Json | None, Json | None], None]] = []
        self.synced = asyncio.Event()

    def subscribe(self, listener: Callable[[Json | None, Json | None], None]) -> None:
        """Call `listener(old, new)` at every change: old is None for a new object, new is None for a deleted one."""
        self._listeners.append(listener)

    def get(self, name: str, namespace: str = "") -> Json | None:
        """The object, or None."""
        return self._objects.get((namespace, name))

    def values(self, namespace: str | None = None) -> list[Json]:
        """All objects, or those of one namespace."""
        return [found for (where, _), found in self._objects.items() if namespace in (None, where)]

    async def run(self) -> None:
        """Watch until cancelled."""
        async with contextlib.aclosing(self._api.watch(self._resource, field_selector=self._field_selector)) as events:
            async for event in events:
                if event.type == "SYNCED":
                    self.synced.set()
                    continue
                key = _key(event.object)
                old = self._objects.get(key)
                _remember(self._objects, event)
                new = self._objects.get(key)
                for listener in self._listeners:
                    listener(old, new)


def _named(items: list[Json], name: str) -> Json:
    for item in items:
        if item["name"] == name:
            return item
    raise LocalClusterError(f"the kubeconfig has no entry named {name!r}")


def _pem(section: Json, key: str, kubeconfig: Path) -> str | None:
    """The PEM text of `<key>-data`, or of the file that `<key>` names (relative to the kubeconfig)."""
    if data := section.get(f"{key}-data"):
        return base64.b64decode(data).decode()
    if path := section.get(key):
        return (kubeconfig.parent / str(path)).read_text()
    return None


def _load_client_certificate(tls: ssl.SSLContext, certificate: str, key: str) -> None:
    handle, path = tempfile.mkstemp()  # the ssl module reads certificates from files only; mkstemp makes it private
    try:
        with os.fdopen(handle, "w") as file:
            file.write(f"{certificate}\n{key}")
        tls.load_cert_chain(path)
    finally:
        Path(path).unlink()


def _selectors(field_selector: str | None, label_selector: str | None) -> dict[str, str]:
    found = {"fieldSelector": field_selector, "labelSelector": label_selector}
    return {key: value for key, value in found.items() if value}


def _typed(resource: Resource, body: Json) -> Json:
    return {"apiVersion": resource.api_version, "kind": resource.kind, **body}


def _slim(resource: Resource, found: Json) -> Json:
    """Without managedFields: often the larger half of an object, and nobody here reads them."""
    found["metadata"].pop("managedFields", None)
    return _typed(resource, found)


def _parse(data: bytes) -> Json:
    try:
        parsed = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {"message": data.decode(errors="replace").strip()}
    return parsed if isinstance(parsed, dict) else {}


def _error_of(status: Json, http_status: int) -> ApiError:
    return ApiError(int(status.get("code") or http_status), status.get("reason") or "", status.get("message") or "")


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length (readline of aiohttp refuses those over 64 KiB, and one object may have 1.5 MiB)."""
    rest = b""
    async for chunk in stream.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line


def _key(found: Json) -> tuple[str, str]:
    return found["metadata"].get("namespace", ""), found["metadata"]["name"]


def _remember(known: dict[tuple[str, str], Json], event: WatchEvent) -> None:
    if event.type == "DELETED":
        known.pop(_key(event.object), None)
    else:
        known[_key(event.object)] = event.object


def _differences(known: dict[tuple[str, str], Json], items: list[Json]) -> list[WatchEvent]:
    """What a new list says against what was known; `known` is brought up to date.

    An object that was deleted and made again under the same name is a deletion and an addition.
    """
    listed = {_key(item): item for item in items}
    events = []
    for key, old in list(known.items()):
        if key not in listed or listed[key]["metadata"]["uid"] != old["metadata"]["uid"]:
            events.append(WatchEvent("DELETED", old))
            del known[key]
    for key, item in listed.items():
        if key not in known:
            events.append(WatchEvent("ADDED", item))
        elif known[key]["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
            events.append(WatchEvent("MODIFIED", item))
    known.update(listed)
    return events
