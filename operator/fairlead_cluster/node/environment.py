"""The environment of a container as the kubelet makes it: Services, then envFrom, then env in order, expanded.

Errors carry the kubelet's words, because people and tests look for them in `waiting.message`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fairlead_cluster.api import CONFIG_MAPS, SECRETS
from fairlead_cluster.node.expansion import expand
from fairlead_cluster.node.podfields import PodContext, field_value, resource_value
from fairlead_cluster.node.references import MissingReferenceError, Reference, References, texts

Json = dict[str, Any]


async def make_environment(references: References, context: PodContext, container: Json) -> dict[str, str]:
    """All variables that the pod's spec gives to a container.

    Raises MissingReferenceError when a ConfigMap, a Secret or a key is not there and not optional.
    """
    services = await _service_variables(references, context)
    result: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        result |= await _from_source(references, context, source)
    for variable in container.get("env") or []:
        value: str | None = variable.get("value") or ""
        if value:
            # Later variables see earlier ones, and Services only where no variable has that name.
            value = expand(value, {**services, **result})
        elif value_from := variable.get("valueFrom"):
            value = await _value_from(references, context, container, value_from)
        if value is not None:
            result[variable["name"]] = value
    return {**services, **result}


async def _from_source(references: References, context: PodContext, source: Json) -> dict[str, str]:
    resource, selector = (
        (CONFIG_MAPS, source["configMapRef"]) if "configMapRef" in source else (SECRETS, source["secretRef"])
    )
    reference = Reference(resource, context.namespace, selector["name"])
    if selector.get("optional"):
        found = await references.find(reference)
        if found is None:
            return {}
    else:
        found = await references.get(reference)
    prefix = source.get("prefix", "")
    return {f"{prefix}{key}": value for key, value in texts(found).items() if key and "=" not in key}


async def _value_from(references: References, context: PodContext, container: Json, source: Json) -> str | None:
    """The value, or None when an optional one is missing: then the variable does not exist."""
    if field := source.get("fieldRef"):
        return field_value(context, field["fieldPath"])
    if resource := source.get("resourceFieldRef"):
        return resource_value(context, resource, container["name"])
    for key, resource_kind in (("configMapKeyRef", CONFIG_MAPS), ("secretKeyRef", SECRETS)):
        if selector := source.get(key):
            reference = Reference(resource_kind, context.namespace, selector["name"])
            return await _key_of(references, reference, selector)
    raise MissingReferenceError(f"valueFrom has no source that a node knows: {sorted(source)}")


async def _key_of(references: References, reference: Reference, selector: Json) -> str | None:
    optional = bool(selector.get("optional"))
    found = await references.find(reference) if optional else await references.get(reference)
    value = None if found is None else texts(found).get(selector["key"])
    if value is None and not optional:
        kind = reference.resource.kind
        raise MissingReferenceError(
            f"couldn't find key {selector['key']} in {kind} {reference.namespace}/{reference.name}"
        )
    return value


async def _service_variables(references: References, context: PodContext) -> dict[str, str]:
    """`FOO_SERVICE_HOST` and its kin, of the own namespace unless switched off, and of `default/kubernetes` always."""
    wanted = []
    if context.pod["spec"].get("enableServiceLinks", True):
        wanted = await references.services(context.namespace)
    if not any(one["metadata"]["name"] == "kubernetes" for one in wanted):
        master = await references.services("default")
        wanted += [one for one in master if one["metadata"]["name"] == "kubernetes"]
    return service_variables(wanted)


def service_variables(services: Iterable[Json]) -> dict[str, str]:
    """The variables of Services with a cluster IP (kubelet/envvars: the plain ones and Docker's links)."""
    result: dict[str, str] = {}
    for service in services:
        address, ports = service["spec"].get("clusterIP"), service["spec"].get("ports") or []
        if not address or address == "None" or not ports:
            continue
        name = _variable_name(service["metadata"]["name"])
        result[f"{name}_SERVICE_HOST"] = address
        result[f"{name}_SERVICE_PORT"] = str(ports[0]["port"])
        for port in ports:
            if port.get("name"):
                result[f"{name}_SERVICE_PORT_{_variable_name(port['name'])}"] = str(port["port"])
        for index, port in enumerate(ports):
            protocol = port.get("protocol", "TCP")
            url = f"{protocol.lower()}://{address}:{port['port']}"
            prefix = f"{name}_PORT_{port['port']}_{protocol}"
            if index == 0:
                result[f"{name}_PORT"] = url
            result |= {
                prefix: url,
                f"{prefix}_PROTO": protocol.lower(),
                f"{prefix}_PORT": str(port["port"]),
                f"{prefix}_ADDR": address,
            }
    return result


def _variable_name(name: str) -> str:
    return name.upper().replace("-", "_").replace(".", "_")
