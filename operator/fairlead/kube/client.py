"""The API server as fairlead uses it: server-side apply, list in chunks, watch, delete by uid, create.

Errors are mapped here, once, to `fairlead.errors`; nobody above sees an HTTP status or an aiohttp exception.
Bodies go out and come in as JSON by orjson. There is no retry inside: the work queue and the informers retry.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson
from yarl import URL

from fairlead import errors
from fairlead.kube.resources import Resource
from fairlead.kube.session import Connection

REQUEST_TIMEOUT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 5.0
#: Bookmarks come every minute where etcd tells of its progress (kubeadm's does), but every ten minutes with etcd's default:
#: silence is no proof of a dead connection, only a reason to ask again. Below the 180 s of the watchdog.
WATCH_INACTIVITY_S: Final = 150.0
WATCH_SERVER_TIMEOUT_S: Final = 600  # bounded streams, so that rights are checked anew; few enough to be quiet
LIST_CHUNK_SIZE: Final = 100  # parsed, an object takes six times as much memory as on the wire
#: An apply with this resourceVersion creates an object and answers 409 when there is one already, whoever owns it and
#: even when no field differs (measured on 1.36: 201 on absence, "the object has been modified" otherwise). Without it an
#: apply that is merely not forced would silently join a user's object whose fields happen to agree with ours.
CREATE_ONLY_RESOURCE_VERSION: Final = "1"

_TYPED_PATCH_PREFIXES: Final = ("failed to create typed patch object", "failed to convert new object")
#: How the API server begins an event of a watch: `name` and `resourceVersion` stand before everything that is long.
_EVENT_HEAD: Final = re.compile(
    rb'\{"type":"(?:ADDED|MODIFIED)","object":\{"kind":"[A-Za-z]+","apiVersion":"[a-z0-9./]+","metadata":\{"name":"([^"\\]+)",'
    rb'(?:"generateName":"[^"\\]*",)?"namespace":"([^"\\]+)","uid":"([^"\\]+)","resourceVersion":"([0-9]+)"'
)
_BY_STATUS: Final[Mapping[int, type[errors.ApiError]]] = {
    400: errors.Invalid,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    405: errors.Invalid,
    406: errors.Invalid,
    409: errors.Conflict,
    410: errors.Gone,
    413: errors.Invalid,
    415: errors.Invalid,
    422: errors.Invalid,
}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """One chunk of a list. `resource_version` is the list's own; `last` marks the final chunk."""

    items: list[Json]
    resource_version: str
    last: bool


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """`type` is ADDED, MODIFIED, DELETED or BOOKMARK; an ERROR is raised instead. KNOWN: added or modified, and old news; only the
    resourceVersion is there."""

    type: str
    object: Json


@dataclass(frozen=True, slots=True)
class Applied:
    """The object after an apply, and whether this apply made it."""

    object: Json
    created: bool


#: Asks for nothing but the metadata of objects.
_METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

#: namespace, name, uid, resourceVersion -> whether this state of the object, or a newer one, is known
IsKnown = Callable[[str, str, str, int], bool]


class ApiClient:
    """Calls on the session that kopf uses too. Safe for many tasks of one loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
        self._watch_timeout = aiohttp.ClientTimeout(
            total=WATCH_SERVER_TIMEOUT_S + 15.0, sock_connect=CONNECT_TIMEOUT_S, sock_read=WATCH_INACTIVITY_S
        )

    async def apply(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        body: Mapping[str, Any],
        *,
        field_manager: str,
        force: bool,
        subresource: str | None = None,
    ) -> Applied:
        """Server-side apply. Raises Conflict when a field belongs to another manager and `force` is off, or when the
        body's uid or resourceVersion is not the object's."""
        path = f"{resource.path(namespace, name, subresource)}?fieldManager={field_manager}{'&force=true' if force else ''}"
        status, answer = await self._request(
            "PATCH",
            path,
            body=orjson.dumps(body),
            content_type="application/apply-patch+yaml",
        )
        return Applied(answer, created=status == 201)

    async def merge(
        self, resource: Resource, namespace: str, name: str, patch: Mapping[str, Any], *, field_manager: str
    ) -> Json:
        """JSON merge patch: maps are merged, lists replaced whole. Raises Conflict when the patch's resourceVersion is not
        the object's."""
        _, answer = await self._request(
            "PATCH",
            resource.path(namespace, name),
            params={"fieldManager": field_manager},
            body=orjson.dumps(patch),
            content_type="application/merge-patch+json",
        )
        return answer

    async def get(self, resource: Resource, namespace: str, name: str) -> Json:
        """One object. Raises NotFound."""
        return (await self._request("GET", resource.path(namespace, name)))[1]

    async def find(self, resource: Resource, namespace: str, name: str) -> Json | None:
        """One object or None, by a list of one: the `list` right is needed for the caches anyway, `get` is not."""
        params = {"fieldSelector": f"metadata.name={name}", "limit": "1"}
        _, answer = await self._request("GET", resource.path(namespace), params=params)
        items = answer.get("items") or []
        return items[0] if items else None

    async def has_type(self, resource: Resource, namespace: str, name: str, wanted: str) -> bool:
        """Whether the object, a Secret or an Event, is there and of this `type`. Nothing of it but its metadata is sent."""
        params = {"fieldSelector": f"metadata.name={name},type={wanted}", "limit": "1"}
        _, answer = await self._request("GET", resource.path(namespace), params=params, accept=_METADATA_LIST)
        return bool(answer.get("items"))

    async def create(self, resource: Resource, namespace: str, body: Mapping[str, Any], *, field_manager: str) -> Json:
        """POST. Raises Conflict when the name is taken."""
        params = {"fieldManager": field_manager}
        path = resource.path(namespace)
        return (await self._request("POST", path, params=params, body=orjson.dumps(body)))[1]

    async def replace(self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any]) -> Json:
        """PUT. Raises Conflict when the body's resourceVersion is not the object's."""
        return (await self._request("PUT", resource.path(namespace, name), body=orjson.dumps(body)))[1]

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str,
        resource_version: str | None = None,
        grace_s: int | None = None,
    ) -> Json:
        """Delete exactly this object; its dependents follow in the background. Answers the object where a finalizer holds it, or where
        it is a pod that takes its time to end: `grace_s` seconds, if not what it says itself.

        Raises NotFound when it is gone already, Conflict when the name belongs to another object by now, or when it
        changed since `resource_version`.
        """
        preconditions = {"uid": uid} | ({"resourceVersion": resource_version} if resource_version else {})
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": preconditions,
        } | ({"gracePeriodSeconds": grace_s} if grace_s is not None else {})
        return (await self._request("DELETE", resource.path(namespace, name), body=orjson.dumps(body)))[1]

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        label_selector: str | None = None,
        name: str | None = None,
        metadata_only: bool = False,
    ) -> AsyncIterator[Page]:
        """All objects, or the one of this `name`, in chunks of one consistent snapshot. Raises Gone when it expired between two chunks."""
        accept = _METADATA_LIST if metadata_only else "application/json"
        token = ""
        while True:
            params = {"limit": str(LIST_CHUNK_SIZE)} | _selectors(label_selector, name)
            if token:
                params["continue"] = token
            _, answer = await self._request("GET", resource.path(namespace), params=params, accept=accept)
            metadata = answer.get("metadata") or {}
            token = metadata.get("continue") or ""
            yield Page(answer.get("items") or [], str(metadata.get("resourceVersion", "")), last=not token)
            if not token:
                return

    async def watch(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        name: str | None = None,
        metadata_only: bool = False,
        is_known: IsKnown | None = None,
        on_begin: Callable[[], None] | None = None,
    ) -> AsyncIterator[WatchEvent]:
        """Changes after `resource_version` until the server ends the stream or it has been silent for 150 s. Raises Gone
        when that version is too old, Unavailable when the stream breaks. `on_begin` is called when the server took the watch.

        What `is_known` says yes to is not parsed: half of all events are echoes of our own writes.
        """
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(WATCH_SERVER_TIMEOUT_S),
        } | _selectors(label_selector, name)
        path = resource.path(namespace)
        headers = {"Accept": _METADATA if metadata_only else "application/json"}
        response = await self._send("GET", path, params=params, headers=headers, timeout=self._watch_timeout)
        try:
            if response.status != 200:
                raise error_of(response.status, await response.read(), response.headers)
            if on_begin is not None:
                on_begin()
            async for line in _lines(response.content):
                if is_known is not None and (version := _known_version(line, is_known)):
                    yield WatchEvent("KNOWN", {"metadata": {"resourceVersion": version}})
                    continue
                event = orjson.loads(line)
                if event["type"] == "ERROR":
                    raise _error_of_status(event["object"])
                yield WatchEvent(event["type"], event["object"])
        except aiohttp.ServerTimeoutError:
            return
        except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError) as error:
            raise errors.Unavailable(f"watch of {resource.plural} broke: {_describe(error)}") from error
        finally:
            response.close()

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> tuple[int, Json]:
        headers = {"Accept": accept} | ({"Content-Type": content_type} if body is not None else {})
        response = await self._send(method, path, params=params, body=body, headers=headers)
        try:
            raw = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise errors.Unavailable(
                f"{method} {path.partition('?')[0]}: the answer broke off: {_describe(error)}"
            ) from error
        finally:
            response.release()
        if response.status >= 400:
            raise error_of(response.status, raw, response.headers)
        try:
            return response.status, orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise errors.Unavailable(f"{method} {path.partition('?')[0]}: the answer is not JSON: {error}") from error

    async def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: aiohttp.ClientTimeout | None = None,  # noqa: ASYNC109 - aiohttp's own, per phase
    ) -> aiohttp.ClientResponse:
        await self._connection.ready.wait()
        session = self._connection.session
        if session is None:
            raise errors.Unavailable("not logged in to the API server")
        try:
            return await session.request(
                method,
                # Names of objects and of field managers need no quoting, and parsing a URL takes longer than building it.
                URL(self._connection.server + path, encoded=True),
                params=params,
                data=body,
                headers=headers,
                timeout=timeout or self._timeout,
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise errors.Unavailable(f"{method} {path.partition('?')[0]}: {_describe(error)}") from error
        except RuntimeError as error:
            # kopf closes the shared session when it logs in again; the next attempt finds the new one.
            if session.closed:
                raise errors.Unavailable(
                    f"{method} {path.partition('?')[0]}: the session was renewed meanwhile"
                ) from error
            raise


def _selectors(label_selector: str | None, name: str | None) -> dict[str, str]:
    """The right to list and to watch can be of one name only, if the request says so."""
    named = {"fieldSelector": f"metadata.name={name}"} if name else {}
    return named | ({"labelSelector": label_selector} if label_selector else {})


def error_of(status: int, raw: bytes, headers: Mapping[str, str]) -> errors.ApiError:
    """The exception for a refusal: `raw` is the body, a Status object or whatever a proxy in between wrote."""
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict) or document.get("kind") != "Status":
        document = {"message": raw[:512].decode(errors="replace") or f"HTTP {status}"}
    document["code"] = status
    return _error_of_status(document, headers.get("Retry-After"))


def _error_of_status(document: Mapping[str, Any], retry_after: str | None = None) -> errors.ApiError:
    code = int(document.get("code") or 500)
    message = str(document.get("message") or f"HTTP {code}")
    reason = str(document.get("reason") or "")
    details = document.get("details") or {}
    if code == 429:
        wait = retry_after or details.get("retryAfterSeconds")
        return errors.TooManyRequests(message, retry_after_s=_seconds(wait), reason=reason or "TooManyRequests")
    if code == 500 and message.startswith(_TYPED_PATCH_PREFIXES):
        return errors.Invalid(message, status=code, reason=reason, details=details)
    if reason == "Expired":
        return errors.Gone(message, status=code, reason=reason, details=details)
    kind = _BY_STATUS.get(code, errors.Unavailable if code >= 500 else errors.Invalid)
    return kind(message, status=code, reason=reason, details=details)


def _known_version(line: bytes, is_known: IsKnown) -> str:
    """The resourceVersion of an event that brings nothing new, or "". Decided from how the line begins."""
    head = _EVENT_HEAD.match(line)
    if head is None:
        return ""
    name, namespace, uid, version = (part.decode() for part in head.groups())
    return version if is_known(namespace, name, uid, int(version)) else ""


def _seconds(value: object) -> float:
    try:
        return max(0.0, float(str(value)))
    except ValueError:
        return 1.0  # an HTTP date, or nothing: the API server itself always sends a number


def _describe(error: BaseException) -> str:
    return str(error) or type(error).__name__


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    # StreamReader's own line iteration refuses lines over 128 KiB; a watched object may have 1.5 MiB.
    buffer = bytearray()
    async for data in content.iter_any():
        buffer += data
        while (end := buffer.find(b"\n")) >= 0:
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            if line.strip():
                yield line
    if buffer.strip():
        raise aiohttp.ClientPayloadError("the stream ended inside a line")
