"""Which pods are asked how an LLMDeployment is doing, as the cache has them: those that are ready and not about to end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fairlead.api.names import COMPONENT_ENGINE, COMPONENT_GATEWAY, LABEL_COMPONENT, LABEL_LLMDEPLOYMENT
from fairlead.facts.observed import ObjectKey
from fairlead.facts.scaling import Target
from fairlead.kube.cache import Cache, Entry
from fairlead.kube.resources import LLMROUTE, POD
from fairlead.planning.deployment.encryption import TLS_CONTAINER

__all__ = ["Targets"]

#: Of one LLMRoute: LLMDeployment -> what the route calls it.
_Backends = Mapping[str, frozenset[str]]


class Targets:
    """Finds them. What routes call their backends is remembered for as long as a route is as it was, of no more routes than there are."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._backends: dict[ObjectKey, tuple[int, _Backends]] = {}

    def find_engines(self, key: ObjectKey) -> list[Target]:
        """Its engine pods."""
        pods = self._cache.of_owner(key)
        return [target for entry in pods if (target := _read_pod(entry, COMPONENT_ENGINE)) is not None]

    def find_gateways(self, key: ObjectKey) -> list[Target]:
        """Those of the gateways that lead to it, wherever these run."""
        return list(self._find_gateways(key))

    def clear(self) -> None:
        """Forget what is remembered."""
        self._backends.clear()

    def _find_gateways(self, key: ObjectKey) -> Iterator[Target]:
        if len(self._backends) > self._cache.counts().get(LLMROUTE.kind, 0):
            self._backends = {one: what for one, what in self._backends.items() if self._cache.get(one) is not None}
        for route in self._cache.keys(LLMROUTE.kind, key.namespace):
            backends = self._backends_of(route).get(key.name)
            if not backends:
                continue
            for entry in self._cache.of_owner(route):
                if (target := _read_pod(entry, COMPONENT_GATEWAY, backends)) is not None:
                    yield target
            for entry in self._cache.carriers_of(route):
                if (target := _read_pod(entry, COMPONENT_ENGINE, backends)) is not None:
                    yield target

    def _backends_of(self, route: ObjectKey) -> _Backends:
        entry = self._cache.get(route)
        if entry is None:
            return {}
        known = self._backends.get(route)
        if known is None or known[0] != entry.resource_version:
            known = (entry.resource_version, _read_backends(entry.load().get("spec")))
            self._backends[route] = known
        return known[1]


def _read_backends(spec: Any) -> _Backends:
    """The spec need not be valid."""
    named: dict[str, set[str]] = {}
    for backend in (spec.get("backends") or ()) if isinstance(spec, Mapping) else ():
        deployment = (backend.get("deployment") or {}).get("name")
        if deployment:
            named.setdefault(str(deployment), set()).add(str(backend.get("name")))
    return {deployment: frozenset(names) for deployment, names in named.items()}


def _read_pod(entry: Entry, component: str, backends: frozenset[str] = frozenset()) -> Target | None:
    if entry.key.kind != POD.kind:
        return None
    pod = entry.load()
    metadata, status = pod["metadata"], pod.get("status") or {}
    labels = metadata.get("labels") or {}
    is_of_engine = LABEL_LLMDEPLOYMENT in labels and labels.get(LABEL_COMPONENT) == COMPONENT_ENGINE
    is_wanted = is_of_engine if component == COMPONENT_ENGINE else labels.get(LABEL_COMPONENT) == component
    if not is_wanted or "deletionTimestamp" in metadata or not status.get("podIP") or not _is_ready(status):
        return None
    sidecars = (pod.get("spec") or {}).get("initContainers") or ()
    is_tls = is_of_engine and any(one.get("name") == TLS_CONTAINER for one in sidecars)
    return Target(entry.key.name, entry.uid, str(status["podIP"]), is_tls, backends)


def _is_ready(status: Mapping[str, Any]) -> bool:
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in status.get("conditions") or ())
