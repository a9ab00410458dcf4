"""What is in a configMap, secret, downwardAPI or projected volume: from its specification to files."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fairlead_cluster.api import CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS, Api
from fairlead_cluster.node.atomicwriter import File
from fairlead_cluster.node.podfields import PodContext, field_value, resource_value
from fairlead_cluster.node.references import MissingReferenceError, Reference, References, files

Json = dict[str, Any]

_DEFAULT_MODE = 0o644
_REFRESH_AT = 0.8  # of a token's life, as the kubelet does


class UnsupportedVolumeError(Exception):
    """A volume that this stand-in cannot make."""


@dataclass(slots=True)
class _Token:
    text: str
    refresh_at_s: float


class Projection:
    """The files of one volume of one pod; `collect` reads them as they should be now."""

    def __init__(self, api: Api, references: References, volume: Json) -> None:
        self._api = api
        self._references = references
        self._volume = volume
        self._tokens: dict[str, _Token] = {}

    @staticmethod
    def covers(volume: Json) -> bool:
        """Whether a volume of a pod's spec is of the kinds that are made of files."""
        return any(kind in volume for kind in ("configMap", "secret", "downwardAPI", "projected"))

    def watched(self, namespace: str) -> list[Reference]:
        """The ConfigMaps and Secrets whose changes matter."""
        found = []
        for source, _ in self._sources():
            if "configMap" in source:
                found.append(Reference(CONFIG_MAPS, namespace, source["configMap"]["name"]))
            if "secret" in source:
                found.append(Reference(SECRETS, namespace, _secret_name(source["secret"])))
        return found

    async def collect(self, context: PodContext) -> dict[str, File]:
        """All files by path. MissingReferenceError (kubelet's words) if something is missing and not optional."""
        collected: dict[str, File] = {}
        for source, mode in self._sources():
            for kind, specification in source.items():
                collected |= await self._collect_one(context, kind, specification, mode)
        return collected

    def _sources(self) -> Iterable[tuple[Json, int]]:
        if "projected" in self._volume:
            projected = self._volume["projected"]
            mode = _mode(projected.get("defaultMode"), _DEFAULT_MODE)
            return [(source, mode) for source in projected.get("sources") or []]
        kind = next(kind for kind in ("configMap", "secret", "downwardAPI") if kind in self._volume)
        specification = self._volume[kind]
        return [({kind: specification}, _mode(specification.get("defaultMode"), _DEFAULT_MODE))]

    async def _collect_one(self, context: PodContext, kind: str, specification: Json, mode: int) -> dict[str, File]:
        if kind == "configMap":
            reference = Reference(CONFIG_MAPS, context.namespace, specification["name"])
            return await self._from_object(reference, specification, mode)
        if kind == "secret":
            reference = Reference(SECRETS, context.namespace, _secret_name(specification))
            return await self._from_object(reference, specification, mode)
        if kind == "downwardAPI":
            return _from_pod(context, specification, mode)
        if kind == "serviceAccountToken":
            return {specification["path"]: File((await self._token(context, specification)).encode(), mode)}
        raise UnsupportedVolumeError(f"the node stand-in does not make projected sources of kind {kind}")

    async def _from_object(self, reference: Reference, specification: Json, mode: int) -> dict[str, File]:
        optional = bool(specification.get("optional"))
        found = await (self._references.find(reference) if optional else self._references.get(reference))
        content = {} if found is None else files(found)
        items = specification.get("items")
        if not items:
            return {key: File(data, mode) for key, data in content.items()}
        selected = {}
        for item in items:
            if item["key"] in content:
                selected[item["path"]] = File(content[item["key"]], _mode(item.get("mode"), mode))
            elif not optional:
                kind = "config" if reference.resource is CONFIG_MAPS else "secret"
                raise MissingReferenceError(f"references non-existent {kind} key: {item['key']}")
        return selected

    async def _token(self, context: PodContext, specification: Json) -> str:
        path = specification["path"]
        known = self._tokens.get(path)
        if known is not None and time.monotonic() < known.refresh_at_s:
            return known.text
        metadata, spec = context.pod["metadata"], context.pod["spec"]
        lifetime_s = int(specification.get("expirationSeconds") or 3600)
        bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
        audience = specification.get("audience")
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": lifetime_s,
                "boundObjectRef": bound,
            },
        }
        account = spec.get("serviceAccountName") or "default"
        answer = await self._api.create_subresource(SERVICE_ACCOUNTS, account, "token", request, context.namespace)
        token = _Token(answer["status"]["token"], time.monotonic() + lifetime_s * _REFRESH_AT)
        self._tokens[path] = token
        return token.text


def _from_pod(context: PodContext, specification: Json, mode: int) -> dict[str, File]:
    collected = {}
    for item in specification.get("items") or []:
        if "fieldRef" in item:
            text = field_value(context, item["fieldRef"]["fieldPath"])
        else:
            text = resource_value(context, item["resourceFieldRef"], "")
        collected[item["path"]] = File(text.encode(), _mode(item.get("mode"), mode))
    return collected


def _secret_name(specification: Json) -> str:
    return str(specification.get("secretName") or specification.get("name"))


def _mode(given: int | None, default: int) -> int:
    return default if given is None else int(given)
