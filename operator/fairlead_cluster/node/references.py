"""ConfigMaps and Secrets that pods refer to: read freshly when needed, watched to know when that is again.

A value is never taken from the watch: it may lag behind what a test has just written, and a kubelet that starts a pod
reads the object then, too.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fairlead_cluster.api import CONFIG_MAPS, SECRETS, SERVICES, Api, Resource, Store

Json = dict[str, Any]


class MissingReferenceError(Exception):
    """A ConfigMap, a Secret or a key is not there; `str()` is the kubelet's message."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A ConfigMap or Secret, with the words that messages use for it."""

    resource: Resource
    namespace: str
    name: str

    @property
    def lower(self) -> str:
        """`configmap` or `secret`."""
        return self.resource.kind.lower()


class References:
    """Reads ConfigMaps, Secrets and Services, and calls back when a watched ConfigMap or Secret changes."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._stores = {resource.plural: Store(api, resource) for resource in (CONFIG_MAPS, SECRETS)}
        self._listeners: dict[tuple[str, str, str], set[Callable[[], None]]] = {}
        for store in self._stores.values():
            store.subscribe(self._on_change)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            for store in self._stores.values():
                group.create_task(store.run())

    async def find(self, reference: Reference) -> Json | None:
        """The object as it is now, or None."""
        return await self._api.find(reference.resource, reference.name, reference.namespace)

    async def get(self, reference: Reference) -> Json:
        """The object as it is now; MissingReferenceError if there is none."""
        found = await self.find(reference)
        if found is None:
            raise MissingReferenceError(f'{reference.lower} "{reference.name}" not found')
        return found

    async def services(self, namespace: str) -> list[Json]:
        """All Services of a namespace, for the variables that a kubelet makes of them."""
        return await self._api.list_all(SERVICES, namespace)

    def subscribe(self, reference: Reference, listener: Callable[[], None]) -> None:
        """Call `listener` when the object appears, changes or goes."""
        self._listeners.setdefault(_key(reference), set()).add(listener)

    def unsubscribe(self, reference: Reference, listener: Callable[[], None]) -> None:
        """The opposite."""
        listeners = self._listeners.get(_key(reference), set())
        listeners.discard(listener)
        if not listeners:
            self._listeners.pop(_key(reference), None)

    def _on_change(self, old: Json | None, new: Json | None) -> None:
        found = new or old
        if found is not None:
            key = (found["kind"], found["metadata"]["namespace"], found["metadata"]["name"])
            for listener in list(self._listeners.get(key, ())):
                listener()


def texts(found: Json) -> dict[str, str]:
    """What environment variables may take from a ConfigMap (`data`) or a Secret."""
    if found["kind"] == "Secret":
        decoded = {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
        return {key: value.decode(errors="surrogateescape") for key, value in decoded.items()}
    return dict(found.get("data") or {})


def files(found: Json) -> dict[str, bytes]:
    """What volumes may take: texts and binary data."""
    encoded = found.get("data" if found["kind"] == "Secret" else "binaryData") or {}
    content = {key: base64.b64decode(value) for key, value in encoded.items()}
    if found["kind"] == "ConfigMap":
        content |= {key: value.encode() for key, value in (found.get("data") or {}).items()}
    return content


def _key(reference: Reference) -> tuple[str, str, str]:
    return (reference.resource.kind, reference.namespace, reference.name)
