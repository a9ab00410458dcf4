"""ConfigMaps and the Secret that hold the gateway's files, and how the pod mounts them.

One ConfigMap per kind of file, since one object holds a megabyte; all that changes under a running gateway is projected into one
directory, so that the kubelet swaps it as a whole.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

from fairlead.api.names import GROUP, gateway_part_name
from fairlead.api.resource import LLMRoute, Metadata
from fairlead.facts.observed import ObjectKey
from fairlead.gateway.envoy.clients import AUTHENTICATION_FILE
from fairlead.gateway.envoy.files import LIMIT_FILES, PUBLIC_FILE, is_untouched
from fairlead.planning.gateway import BOOTSTRAP, CLIENTS, ROUTING_PARTS
from fairlead.planning.route.metadata import make_metadata
from fairlead.planning.route.publications import Publication, write_publications

__all__ = [
    "ANNOTATION_CALLERS",
    "BOOTSTRAP",
    "CLIENTS",
    "MAX_FILE_BYTES",
    "ROUTING_PARTS",
    "digest_callers",
    "find_too_large",
    "fits",
    "make_bootstrap_map",
    "make_clients_secret",
    "make_routing_maps",
    "read_authentication",
    "read_routing",
    "routing_digest",
]

Json = dict[str, Any]
#: On the Secret with the clients: of which spec they are.
ANNOTATION_CALLERS: Final = f"{GROUP}/callers"
#: What the API server lets a ConfigMap hold.
MAX_MAP_BYTES: Final = 1024 * 1024
#: The rest is for what narrowing adds to the routes that run.
MAX_FILE_BYTES: Final = 960 * 1024


def make_bootstrap_map(owner: Metadata, files: Mapping[str, str]) -> Json:
    """What a gateway starts with."""
    return _make_map(owner, BOOTSTRAP, files)


def make_routing_maps(owner: Metadata, files: Mapping[str, str], publications: Sequence[Publication]) -> list[Json]:
    """What changes under it, one ConfigMap per part. `publications`: of the public routes."""
    return [
        _make_map(
            owner,
            part,
            {name: text for name, text in files.items() if _part_of(name) == part},
            write_publications(publications) if main == PUBLIC_FILE else {},
        )
        for part, main in ROUTING_PARTS.items()
    ]


def make_clients_secret(
    owner: Metadata, authentication: str, callers: str, publications: Sequence[Publication]
) -> Json:
    """Who is let in. `callers`: of `digest_callers`."""
    annotations = {ANNOTATION_CALLERS: callers, **write_publications(publications)}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": make_metadata(owner, gateway_part_name(owner.name, CLIENTS), annotations),
        "type": "Opaque",
        "data": {AUTHENTICATION_FILE: base64.b64encode(authentication.encode()).decode()},
    }


def digest_callers(route: LLMRoute) -> str:
    """One word for whose keys and tokens count, whatever these are at the moment."""
    way = route.spec.authentication
    said = [
        way.api_keys.secret_ref.name if way.api_keys is not None else "",
        way.jwt.model_dump_json() if way.jwt is not None else "",
    ]
    return blake2b("\0".join(said).encode(), digest_size=8).hexdigest()


def read_routing(children: Mapping[ObjectKey, Mapping[str, Any]], owner: Metadata) -> dict[str, str] | None:
    """The files that the live ConfigMaps hold; None unless all are there, and as somebody of ours wrote them: what others have changed
    by hand is no step to go on from, perhaps not even JSON, and is replaced as a whole. Limits may be missing: releases before had
    none, and what they published is to be gone on from."""
    files: dict[str, str] = {}
    for part, main in ROUTING_PARTS.items():
        live = children.get(ObjectKey("ConfigMap", owner.namespace, gateway_part_name(owner.name, part)))
        data = (live or {}).get("data") or {}
        if main not in data and main not in LIMIT_FILES:
            return None
        files |= {str(name): str(text) for name, text in data.items()}
    checked = [name for name in (*ROUTING_PARTS.values(), *LIMIT_FILES) if name in files]
    return files if all(is_untouched(files[name]) for name in checked) else None


def read_authentication(children: Mapping[ObjectKey, Mapping[str, Any]], owner: Metadata) -> str | None:
    """The text by which the live Secret lets clients in; None if it cannot be read."""
    live = children.get(ObjectKey("Secret", owner.namespace, gateway_part_name(owner.name, CLIENTS)))
    try:
        return base64.b64decode(str(((live or {}).get("data") or {})[AUTHENTICATION_FILE]), validate=True).decode()
    except (KeyError, ValueError):
        return None


def find_too_large(files: Mapping[str, str]) -> str:
    """What status says of a routing that no ConfigMap can hold; "" if it fits."""
    for part, size in _sizes(files).items():
        if size > MAX_FILE_BYTES:
            if part == "limits":
                return (
                    f"the limits of consumers would have {size // 1024} KiB, and {MAX_FILE_BYTES // 1024} KiB fit into a ConfigMap."
                    " Next: say with spec.limits what most of them have in common, or spread the consumers over several LLMRoutes."
                )
            main = ROUTING_PARTS[part]
            return (
                f"{main} would have {size // 1024} KiB, and {MAX_FILE_BYTES // 1024} KiB fit into a ConfigMap."
                " Next: spread the models over several LLMRoutes."
            )
    return ""


def fits(files: Mapping[str, str]) -> bool:
    """Whether ConfigMaps can hold it."""
    return max(_sizes(files).values()) <= MAX_MAP_BYTES


def routing_digest(files: Mapping[str, str], authentication_version: str) -> str:
    """One word for what is published, for status and for the pods' annotation."""
    text = "\0".join(f"{name}\0{files[name]}" for name in sorted(files))
    return blake2b(f"{text}\0{authentication_version}".encode(), digest_size=8).hexdigest()


def _sizes(files: Mapping[str, str]) -> dict[str, int]:
    """Part -> bytes."""
    sizes = dict.fromkeys(ROUTING_PARTS, 0)
    for name, text in files.items():
        sizes[_part_of(name)] += len(text.encode())
    return sizes


def _part_of(name: str) -> str:
    if name in LIMIT_FILES:
        return "limits"
    return next((part for part, main in ROUTING_PARTS.items() if main == name), "clusters")


def _make_map(
    owner: Metadata, part: str, files: Mapping[str, str], annotations: Mapping[str, str] | None = None
) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": make_metadata(owner, gateway_part_name(owner.name, part), annotations),
        "data": dict(files),
    }
