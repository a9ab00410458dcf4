"""Gateways in engine pods, as the cache has them: what a route must know of the LLMDeployments that carry its gateway, and these of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from fairlead.api.names import (
    ANNOTATION_HANDS_ON,
    ANNOTATION_IMAGE,
    ANNOTATION_RECORDS,
    find_route_ref,
    headless_service_name,
)
from fairlead.facts.observed import CarriedGateway, ObjectKey
from fairlead.facts.route import Carrier, LocalDeployment
from fairlead.kube.cache import Cache, Change
from fairlead.kube.resources import LLMDEPLOYMENT, LLMROUTE, POD, SERVICE
from fairlead.planning.route.surroundings import describe_carried, describe_carrier, describe_deployment

__all__ = ["find_carriers", "find_concerned_carriers", "find_gateway", "find_gone", "find_local"]

#: Of pods that a change of the spec is not over without.
_WAITED_FOR: Final = {ANNOTATION_RECORDS, ANNOTATION_IMAGE, ANNOTATION_HANDS_ON}


def find_local(cache: Cache, namespace: str, name: str, local_images: Iterable[str]) -> LocalDeployment | None:
    """An LLMDeployment with its own headless Service and its pods; None: there is none."""
    entry = cache.get(ObjectKey(LLMDEPLOYMENT.kind, namespace, name))
    if entry is None:
        return None
    service = cache.get(ObjectKey(SERVICE.kind, namespace, headless_service_name(name)))
    is_ours = service is not None and service.controller_uid == entry.uid
    port = service.load()["spec"]["ports"][0] if is_ours and service is not None else None
    pods = [one.load() for one in cache.of_owner(entry.key) if one.key.kind == POD.kind]
    return describe_deployment(entry.load(), port, local_images, pods)


def find_carriers(cache: Cache, route: ObjectKey, local_images: Iterable[str]) -> tuple[Carrier, ...]:
    """The LLMDeployments whose pods carry the gateway of this route."""
    entries = (entry for entry in cache.carriers_of(route) if entry.key.kind == LLMDEPLOYMENT.kind)
    return tuple(describe_carrier(entry.load(), local_images) for entry in entries)


def find_gateway(cache: Cache, raw: Mapping[str, Any], local_images: tuple[str, ...]) -> CarriedGateway | None:
    """The route whose gateway this LLMDeployment's pods carry; None: they carry none."""
    name, namespace = find_route_ref(raw.get("spec")), str(raw["metadata"].get("namespace", ""))
    if not name:
        return None
    entry = cache.get(ObjectKey(LLMROUTE.kind, namespace, name))
    return describe_carried(
        str(raw["metadata"]["name"]),
        name,
        entry.load() if entry is not None else None,
        lambda deployment: find_local(cache, namespace, deployment, local_images),
    )


def find_gone(change: Change) -> ObjectKey | None:
    """The LLMDeployment one of whose pods is gone now, if others waited for that: it could write requests into its log, or hand them on."""
    gone = change.before
    if gone is None or change.after is not None or gone.key.kind != POD.kind:
        return None
    if gone.owner is None or gone.owner.kind != LLMDEPLOYMENT.kind:
        return None
    return gone.owner if _WAITED_FOR & set(gone.load()["metadata"].get("annotations") or ()) else None


def find_concerned_carriers(change: Change, cache: Cache) -> Iterator[ObjectKey]:
    """LLMDeployments that carry the gateway of a route which changed, or one of whose deployments did."""
    entry = change.after or change.before
    if entry is None or change.is_status_only:
        return
    routes: list[ObjectKey] = []
    gone = find_gone(change)
    if gone is not None:
        routes = _find_carried(cache, gone)
    elif entry.key.kind == LLMROUTE.kind:
        routes = [entry.key]
    elif entry.key.kind == LLMDEPLOYMENT.kind:
        routes = _find_carried(cache, entry.key)
    elif entry.key.kind == SERVICE.kind and entry.owner is not None and entry.owner.kind == LLMDEPLOYMENT.kind:
        routes = _find_carried(cache, entry.owner)
    for route in routes:
        yield from (carrier.key for carrier in cache.carriers_of(route) if carrier.key.kind == LLMDEPLOYMENT.kind)


def _find_carried(cache: Cache, deployment: ObjectKey) -> list[ObjectKey]:
    """Routes of which it is a backend, and whose gateway somebody carries."""
    return [route for route in cache.carried(deployment.namespace) if deployment.name in _backends_of(cache, route)]


def _backends_of(cache: Cache, route: ObjectKey) -> set[str]:
    entry = cache.get(route)
    spec = entry.load().get("spec") if entry is not None else None
    backends = (spec.get("backends") or ()) if isinstance(spec, Mapping) else ()
    return {str((backend.get("deployment") or {}).get("name")) for backend in backends}
