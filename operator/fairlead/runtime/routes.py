"""Plans LLMRoutes: what a route refers to is gathered here, from the cache, from its gateways, and from the clients' Secret.

Of the Secrets of providers, and of the one with the gateway's certificate, only labels, annotations and the type are ever asked for.
The clients' Secret is read by name, when it is another one than the last time, and its values go nowhere but into the plan.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from fairlead.api.names import (
    ANNOTATION_INTERFACE,
    ANNOTATION_ROUTING,
    ANNOTATION_TLS,
    COMPONENT_ENGINE,
    COMPONENT_GATEWAY,
    LABEL_COMPONENT,
    LABEL_LLMDEPLOYMENT,
    LABEL_USE,
)
from fairlead.api.resource import LLMRoute
from fairlead.api.validation import parse_llmroute
from fairlead.config import OperatorConfig
from fairlead.facts.observed import ObjectKey, Observed
from fairlead.facts.route import Carrier, ClientsSecret, GatewayPod, KeySet, LocalDeployment, RouteFacts, SecretFacts
from fairlead.kube.cache import Cache, Change
from fairlead.kube.client import ApiClient
from fairlead.kube.resources import CONFIG_MAP, LLMDEPLOYMENT, LLMROUTE, POD, SECRET, SERVICE
from fairlead.planning.gateway import GATEWAY_CONTAINER
from fairlead.planning.plan import Plan
from fairlead.planning.route import plan_invalid_route, plan_route
from fairlead.planning.route.carriers import is_carried
from fairlead.planning.route.certificate import certificate_secret
from fairlead.planning.route.surroundings import count_replicas, describe_secret
from fairlead.planning.route.tokens import locate_keys
from fairlead.providers.loader import ProviderCatalog
from fairlead.runtime.carrying import find_carriers, find_gone, find_local
from fairlead.sources.gateway import GatewaySource

__all__ = ["RoutePlanner", "find_concerned_routes"]

#: Of gateways' pods. One that is forgotten counts as if it had never answered.
_ANSWERS_KEPT: Final = 4096
#: Clients' Secrets whose values are remembered, so that a pass over an unchanged route reads none.
_SECRETS_KEPT: Final = 64


class RoutePlanner:
    """Gathers, and then decides as `plan_route` does."""

    def __init__(self, config: OperatorConfig, cache: Cache, client: ApiClient, source: GatewaySource) -> None:
        self._facts = config.facts
        self._cache = cache
        self._client = client
        self._source = source
        self._providers = ProviderCatalog.builtin()
        self._clients: OrderedDict[ObjectKey, ClientsSecret] = OrderedDict()
        self._certificates: OrderedDict[str, None] = OrderedDict()  # uids of Secrets that are of the type
        self._answers: OrderedDict[str, Mapping[str, Any]] = OrderedDict()  # uid of a gateway's pod -> its last answer

    async def plan(self, raw: Mapping[str, Any], observed: Observed, now: datetime) -> Plan:
        """The plan. Raises ApiError when the clients' Secret cannot be read: nobody is locked out for that."""
        parsed = await asyncio.to_thread(parse_llmroute, raw) if _is_large(raw) else parse_llmroute(raw)
        if not isinstance(parsed, LLMRoute):
            facts = RouteFacts(gateways=await self._ask_gateways(observed.pods))
            return plan_invalid_route(raw, parsed, observed, facts, now)
        clients, key_set, certificates, gateways = await asyncio.gather(
            self._read_clients(parsed),
            self._read_key_set(parsed),
            self._find_certificate(parsed),
            self._ask_gateways(observed.pods),
        )
        facts = RouteFacts(
            deployments=dict(self._find_deployments(parsed)),
            secrets={**dict(self._find_secrets(parsed)), **certificates},
            clients=clients,
            key_set=key_set,
            gateways=gateways,
            carriers=self._find_carriers(parsed),
        )
        return (
            await asyncio.to_thread(plan_route, parsed, observed, facts, self._facts, self._providers, now)
            if _is_large(raw)
            else plan_route(parsed, observed, facts, self._facts, self._providers, now)
        )

    def _find_carriers(self, route: LLMRoute) -> tuple[Carrier, ...]:
        key = ObjectKey(LLMROUTE.kind, route.metadata.namespace, route.metadata.name)
        return find_carriers(self._cache, key, self._facts.local_images) if is_carried(route) else ()

    async def close(self) -> None:
        """Give the connections back."""
        await self._source.close()

    async def _ask_gateways(self, pods: Iterable[Mapping[str, Any]]) -> tuple[GatewayPod, ...]:
        found = [pod for pod in pods if _is_running_gateway(pod)]
        answers = await self._source.ask(str(pod["status"]["podIP"]) for pod in found if _may_answer(pod))
        for pod in found:
            answer = answers.get(str(pod["status"]["podIP"]))
            if answer is not None:
                self._remember(str(pod["metadata"]["uid"]), answer)
        return tuple(
            GatewayPod(
                name=str(pod["metadata"]["name"]),
                uid=str(pod["metadata"]["uid"]),
                is_ready=_is_ready(pod),
                nudge=_read_annotation(pod, ANNOTATION_ROUTING),
                certificate=_read_annotation(pod, ANNOTATION_TLS),
                carrier=_carrier_of(pod),
                interface=_read_annotation(pod, ANNOTATION_INTERFACE),
                loaded=answers.get(str(pod["status"]["podIP"])),
                last=self._answers.get(str(pod["metadata"]["uid"])),
                created=datetime.fromisoformat(str(pod["metadata"]["creationTimestamp"])),
            )
            for pod in found
        )

    def _remember(self, uid: str, answer: Mapping[str, Any]) -> None:
        self._answers[uid] = answer
        self._answers.move_to_end(uid)
        if len(self._answers) > _ANSWERS_KEPT:
            self._answers.popitem(last=False)

    async def _read_clients(self, route: LLMRoute) -> ClientsSecret | None:
        spec = route.spec.authentication.api_keys
        return await self._read_secret(route.metadata.namespace, spec.secret_ref.name) if spec is not None else None

    async def _read_key_set(self, route: LLMRoute) -> KeySet | None:
        """Public keys, from a Secret as the clients' keys are, or from a ConfigMap that is in the cache as a whole."""
        spec = route.spec.authentication.jwt
        if spec is None:
            return None
        kind, name, key = locate_keys(spec.jwks)
        if kind == SECRET.kind:
            secret = await self._read_secret(route.metadata.namespace, name)
            return KeySet(kind, name, secret.use, secret.data.get(key)) if secret is not None else None
        entry = self._cache.get(ObjectKey(kind, route.metadata.namespace, name))
        if entry is None:
            return None
        live = entry.load()
        text = (live.get("data") or {}).get(key)
        use = str((live["metadata"].get("labels") or {}).get(LABEL_USE, ""))
        return KeySet(kind, name, use, str(text).encode() if text is not None else None)

    async def _read_secret(self, namespace: str, name: str) -> ClientsSecret | None:
        key = ObjectKey(SECRET.kind, namespace, name)
        entry = self._cache.get(key)
        if entry is None:
            self._clients.pop(key, None)
            return None
        version = f"{entry.uid}/{entry.resource_version}"
        known = self._clients.get(key)
        if known is None or known.version != version:
            live = await self._client.find(SECRET, key.namespace, key.name)
            if live is None:
                return None
            known = _read_secret(live)
            self._clients[key] = known
        self._clients.move_to_end(key)
        if len(self._clients) > _SECRETS_KEPT:
            self._clients.popitem(last=False)
        return known

    async def _find_certificate(self, route: LLMRoute) -> dict[str, SecretFacts]:
        """By name, the Secret with the gateway's certificate. That it has both keys is told by its type, which cannot change: the API
        server lets none of that type lack one. So it is asked once, and no value is sent."""
        name = certificate_secret(route)
        entry = self._cache.get(ObjectKey(SECRET.kind, route.metadata.namespace, name)) if name is not None else None
        if name is None or entry is None:
            return {}
        if entry.uid not in self._certificates and await self._client.has_type(
            SECRET, route.metadata.namespace, name, "kubernetes.io/tls"
        ):
            self._certificates[entry.uid] = None
            if len(self._certificates) > _SECRETS_KEPT:
                self._certificates.popitem(last=False)
        return {name: describe_secret(entry.load()["metadata"], is_tls=entry.uid in self._certificates)}

    def _find_deployments(self, route: LLMRoute) -> Iterator[tuple[str, LocalDeployment]]:
        namespace = route.metadata.namespace
        for backend in route.spec.backends:
            if backend.deployment is None:
                continue
            name = backend.deployment.name
            found = find_local(self._cache, namespace, name, self._facts.local_images)
            if found is not None:
                yield name, found

    def _find_secrets(self, route: LLMRoute) -> Iterator[tuple[str, SecretFacts]]:
        for backend in route.spec.backends:
            if backend.provider is None:
                continue
            name = backend.provider.secret_ref.name
            entry = self._cache.get(ObjectKey(SECRET.kind, route.metadata.namespace, name))
            if entry is not None:
                yield name, describe_secret(entry.load()["metadata"])


def find_concerned_routes(change: Change, cache: Cache) -> Iterator[ObjectKey]:
    """Routes that name an LLMDeployment, one of its Services, a Secret or a ConfigMap of somebody's own that changed."""
    entry = change.after or change.before
    if entry is not None and entry.key.kind == POD.kind:
        yield from _find_routes_of_a_pod(change, cache)
        return
    if entry is None or entry.key.kind not in (LLMDEPLOYMENT.kind, SERVICE.kind, SECRET.kind, CONFIG_MAP.kind):
        return
    if entry.key.kind == CONFIG_MAP.kind and entry.owner is not None:
        return  # a child
    named = entry.key.name
    if entry.key.kind == LLMDEPLOYMENT.kind and (not change.is_status_only or _is_scaled(change)):
        yield from {one.route for one in (change.before, change.after) if one is not None and one.route is not None}
    if entry.key.kind == SERVICE.kind:
        if entry.owner is None or entry.owner.kind != LLMDEPLOYMENT.kind:
            return
        named = entry.owner.name
    for key in cache.keys(LLMROUTE.kind, entry.key.namespace):
        route = cache.get(key)
        if route is not None and named in set(_names_in(route.load().get("spec"), entry.key.kind)):
            yield key


def _is_scaled(change: Change) -> bool:
    """Whether an LLMDeployment whose pods carry a gateway is to have more or fewer of them, by status alone."""
    before, after = change.before, change.after
    if before is None or after is None or after.route is None:
        return False
    return count_replicas(before.load()) != count_replicas(after.load())


def _find_routes_of_a_pod(change: Change, cache: Cache) -> Iterator[ObjectKey]:
    """Routes that wait for the end of a pod that may write requests into its log, or hand them on."""
    owner = find_gone(change)
    for key in cache.keys(LLMROUTE.kind, owner.namespace) if owner is not None else ():
        route = cache.get(key)
        if (
            route is not None
            and owner is not None
            and owner.name in set(_names_in(route.load().get("spec"), LLMDEPLOYMENT.kind))
        ):
            yield key


def _names_in(spec: Any, kind: str) -> Iterator[str]:
    """Names of Secrets, ConfigMaps or deployments that a raw spec refers to. It need not be valid."""
    if not isinstance(spec, Mapping):
        return
    ways = spec.get("authentication") or {}
    jwks = (ways.get("jwt") or {}).get("jwks") or {}
    if kind == CONFIG_MAP.kind:
        yield str((jwks.get("configMapRef") or {}).get("name"))
        return
    for backend in spec.get("backends") or ():
        if kind != SECRET.kind:
            yield str((backend.get("deployment") or {}).get("name"))
            continue
        provider = backend.get("provider") or {}
        yield str((provider.get("secretRef") or {}).get("name"))
    if kind == SECRET.kind:
        yield str(((spec.get("gateway") or {}).get("tls") or {}).get("secretName"))
        yield str(((ways.get("apiKeys") or {}).get("secretRef") or {}).get("name"))
        yield str((jwks.get("secretRef") or {}).get("name"))


def _read_secret(live: Mapping[str, Any]) -> ClientsSecret:
    metadata = live["metadata"]
    data: dict[str, bytes] = {}
    for name, value in (live.get("data") or {}).items():
        try:
            data[str(name)] = base64.b64decode(str(value), validate=True)
        except binascii.Error:
            continue  # the API server lets none pass
    return ClientsSecret(
        name=str(metadata["name"]),
        use=str((metadata.get("labels") or {}).get(LABEL_USE, "")),
        version=f"{metadata['uid']}/{metadata['resourceVersion']}",
        data=data,
    )


def _is_running_gateway(pod: Mapping[str, Any]) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return (
        (labels.get(LABEL_COMPONENT) == COMPONENT_GATEWAY or _carrier_of(pod) != "")
        and "deletionTimestamp" not in pod["metadata"]
        and bool((pod.get("status") or {}).get("podIP"))
    )


def _carrier_of(pod: Mapping[str, Any]) -> str:
    """The LLMDeployment whose engine runs in the pod, "" in a gateway's own. Whose gateway it carries was asked before."""
    labels = pod["metadata"].get("labels") or {}
    return str(labels.get(LABEL_LLMDEPLOYMENT, "")) if labels.get(LABEL_COMPONENT) == COMPONENT_ENGINE else ""


def _may_answer(pod: Mapping[str, Any]) -> bool:
    """A gateway beside an engine runs long before the pod is ready."""
    statuses = (pod.get("status") or {}).get("initContainerStatuses") or ()
    runs = any(one.get("name") == GATEWAY_CONTAINER and "running" in (one.get("state") or {}) for one in statuses)
    return _is_ready(pod) or runs


def _read_annotation(pod: Mapping[str, Any], name: str) -> str:
    return str((pod["metadata"].get("annotations") or {}).get(name, ""))


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _is_large(raw: Mapping[str, Any]) -> bool:
    """Rendering hundreds of models takes long enough that other work should not wait for it."""
    return len((raw.get("spec") or {}).get("models") or ()) > 32
