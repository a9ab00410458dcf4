"""The files of a gateway: names and content. The same table and settings give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import orjson

from fairlead.gateway.envoy.bootstrap import make_bootstrap
from fairlead.gateway.envoy.certificate import CERTIFICATE_FILE, make_certificate_source
from fairlead.gateway.envoy.clusters import attempts_of, authorities_name, key_name, make_clusters
from fairlead.gateway.envoy.egress import make_egress_routes
from fairlead.gateway.envoy.limits import Measure, limit_file, make_limit
from fairlead.gateway.envoy.listeners import make_listeners
from fairlead.gateway.envoy.routes import make_public_routes
from fairlead.gateway.envoy.settings import GatewaySettings
from fairlead.gateway.envoy.words import Json, make_discovery
from fairlead.gateway.table import RouteTable, Upstream

__all__ = [
    "CLUSTERS_FILE",
    "EGRESS_FILE",
    "LIMIT_FILES",
    "PUBLIC_FILE",
    "ROUTING_INTERFACE",
    "GatewayFiles",
    "dump_resources",
    "is_untouched",
    "read_resources",
    "render_bootstrap",
    "render_files",
    "version_of",
]

PUBLIC_FILE: Final = "rds-public.json"
EGRESS_FILE: Final = "rds-egress.json"
CLUSTERS_FILE: Final = "cds.json"
#: What gateways of releases before limits do not have.
LIMIT_FILES: Final = tuple(limit_file(measure) for measure in Measure)
#: What routing files take for granted of listeners, filters and Lua texts. It grows when gateways that an earlier release started could
#: not carry out what this one publishes: those are replaced.
ROUTING_INTERFACE: Final = 3

_LISTENER: Final = "envoy.config.listener.v3.Listener"
_CLUSTER: Final = "envoy.config.cluster.v3.Cluster"
_ROUTES: Final = "envoy.config.route.v3.RouteConfiguration"
_FILTER: Final = "envoy.config.core.v3.TypedExtensionConfig"
_SDS: Final = "envoy.extensions.transport_sockets.tls.v3.Secret"


@dataclass(frozen=True, slots=True)
class GatewayFiles:
    """File name -> text. `bootstrap` is what a pod starts with, `routing` changes under it."""

    bootstrap: Mapping[str, str]
    routing: Mapping[str, str]


def render_files(table: RouteTable, settings: GatewaySettings) -> GatewayFiles:
    """All files but those that hold secrets."""
    routes = {
        PUBLIC_FILE: (_ROUTES, [make_public_routes(table, settings)]),
        EGRESS_FILE: (_ROUTES, [make_egress_routes(table, settings)]),
        CLUSTERS_FILE: (_CLUSTER, make_clusters(table, settings)),
    } | {limit_file(measure): (_FILTER, [make_limit(table, measure)]) for measure in Measure}
    routing = {name: dump_resources(kind, found) for name, (kind, found) in routes.items()}
    used = {attempt.backend for attempt in attempts_of(table)}
    for upstream in table.upstreams:
        for number in range(len(upstream.credentials)) if upstream.name in used else ():
            routing[f"{key_name(upstream, number)}.json"] = _dump(_make_key_source(upstream, number, settings))
        if upstream.authorities is not None and upstream.name in used:
            routing[f"{authorities_name(upstream)}.json"] = _dump(_make_authorities_source(upstream, settings))
    return GatewayFiles(bootstrap=render_bootstrap(settings), routing=routing)


def render_bootstrap(settings: GatewaySettings) -> dict[str, str]:
    """The files that a gateway starts with. They say nothing of a route."""
    bootstrap = {
        "bootstrap.json": _dump(make_bootstrap(settings)),
        settings.listeners_file: dump_resources(_LISTENER, make_listeners(settings)),
    }
    if settings.is_tls:
        bootstrap[CERTIFICATE_FILE] = _dump(make_certificate_source(settings.certificate_directory))
    return bootstrap


def _make_key_source(upstream: Upstream, number: int, settings: GatewaySettings) -> Json:
    """Where Envoy finds a provider's key: in the mounted Secret, which it reads again when the kubelet swaps it."""
    credential = upstream.credentials[number]
    directory = settings.key_directory(credential.secret)
    source = {"filename": f"{directory}/{credential.key}", "watched_directory": {"path": directory}}
    return make_discovery(_SDS, "1", {"name": key_name(upstream, number), "generic_secret": {"secret": source}})


def _make_authorities_source(upstream: Upstream, settings: GatewaySettings) -> Json:
    """The same for those who may sign for a backend."""
    assert upstream.authorities is not None
    secret, key = upstream.authorities
    directory = settings.authorities_directory_of(secret)
    trusted = {"trusted_ca": {"filename": f"{directory}/{key}"}, "watched_directory": {"path": directory}}
    return make_discovery(_SDS, "1", {"name": authorities_name(upstream), "validation_context": trusted})


def dump_resources(kind: str, resources: Sequence[Json]) -> str:
    """A file of resources, whose version is a digest of them: Envoy tells it once it has loaded them."""
    version = blake2b(orjson.dumps(resources, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()
    return _dump(make_discovery(kind, version, *resources))


def read_resources(text: str) -> tuple[str, list[Json]]:
    """Their type and the resources of such a file, as `dump_resources` takes them. Raises ValueError for anything else."""
    file = orjson.loads(text)
    resources = [dict(resource) for resource in file["resources"]]
    kinds = {str(resource.pop("@type")).rpartition("/")[2] for resource in resources}
    return (kinds.pop() if kinds else ""), resources


def is_untouched(text: str) -> bool:
    """Whether a file is as `dump_resources` wrote it, whichever release did: its version is the digest of what it holds."""
    try:
        return dump_resources(*read_resources(text)) == text
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def version_of(text: str) -> str:
    """The version that such a file has. Raises ValueError for what is none."""
    return str(orjson.loads(text)["version_info"])


def _dump(value: Json) -> str:
    return orjson.dumps(value).decode()
