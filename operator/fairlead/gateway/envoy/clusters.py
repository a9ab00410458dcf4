"""Clusters: one tiny one per attempt, which leads to the egress listener, and one per backend, which leads outside. A deployment to which
some model has an affinity has a second one: how a pod is chosen is of a cluster, and whether it is chosen so is of a request.

An attempt has a cluster of its own because the public router retries by cluster; the egress listener behind it makes each attempt
a request of its own, so that nothing of one provider stays on the request for the next.
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Final

from fairlead.api.route import LLMAccess
from fairlead.gateway.envoy.settings import GatewaySettings
from fairlead.gateway.envoy.words import Json, duration, file_source, make_filter, set_header, typed
from fairlead.gateway.table import GATEWAY, Attempt, RouteTable, Upstream

__all__ = [
    "GATEWAY_AUTHORITIES",
    "SHOWN_HEADERS",
    "attempt_cluster",
    "attempt_host",
    "attempts_of",
    "authorities_name",
    "backend_of",
    "egress_host",
    "held_of",
    "holding_cluster",
    "is_gateway",
    "key_name",
    "make_clusters",
    "pinned_cluster",
    "pinned_places",
    "plain_cluster",
    "upstream_cluster",
]

_PROTOCOL: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
#: By which a caller shows who it is -> where a sidecar keeps it for the gateway: authentication takes the first away.
SHOWN_HEADERS: Final = {"authorization": "x-fairlead-authorization", "x-api-key": "x-fairlead-api-key"}
#: The SDS resource, and its file, of those who may sign for the gateway. A sidecar's pod has it, not the route.
GATEWAY_AUTHORITIES: Final = "gateway-authorities"
#: More than one gateway pod can ever hold: what bounds an outage must not keep some callers from failing over.
_NO_LIMIT: Final = 100_000
#: Of the mean of a pod's requests under way: whoever has more gets no others, so that one busy session cannot drown its pod.
_MOST_PERCENT: Final = 150


def attempt_host(attempt: Attempt) -> str:
    """The host name by which the egress listener knows an attempt; it means the same place in every generation. Its first part is
    the backend's name for the model in hexadecimal digits: `lua/egress.lua` reads it there."""
    return f"{attempt.model.encode().hex()}.{egress_host(attempt)}"


def egress_host(attempt: Attempt) -> str:
    """The virtual host of the egress that serves all attempts at this place; one at which requests wait has its own."""
    place = attempt.place if attempt.hold is None else f"{attempt.place}-{attempt.hold.id(attempt.model)}"
    return f"{place}.{attempt.backend}.{attempt.access.value.lower()}"


def attempt_cluster(attempt: Attempt) -> str:
    """The cluster that leads there."""
    return f"gateway~{attempt.place}" if attempt.backend == GATEWAY else f"to~{attempt_host(attempt)}"


def is_gateway(cluster: str) -> bool:
    """Whether such a cluster of a sidecar leads to the gateway."""
    return cluster.startswith("gateway~")


def plain_cluster(cluster: str) -> str:
    """The name of the cluster that leads to the same place without waiting there."""
    if is_gateway(cluster):
        return cluster
    model, place, backend, access = cluster.split(".")
    return ".".join((model, place.partition("-")[0], backend, access))


def holding_cluster(attempt: Attempt) -> str:
    """The cluster that leads there from where requests wait. It counts those that do."""
    assert attempt.hold is not None
    return f"hold~{attempt.backend}~{attempt.place}~{attempt.hold.pool(attempt.model)}"


def backend_of(cluster: str) -> tuple[str, LLMAccess]:
    """The backend of such a cluster, and its kind."""
    _, _, name, access = cluster.partition("~")[2].split(".")
    return name, LLMAccess(access.capitalize())


def upstream_cluster(upstream: Upstream) -> str:
    """The cluster of a backend, where it is now."""
    return f"be~{upstream.name}~{upstream.place}"


def pinned_cluster(upstream: Upstream) -> str:
    """The cluster of the same pods for requests that say which others they belong to."""
    return f"pin~{upstream.name}~{upstream.place}"


def pinned_places(table: RouteTable) -> frozenset[tuple[str, str]]:
    """(backend, place) of deployments to which some model has an affinity. Requests of other models, and those without the header, go
    to the usual cluster of the backend, so that nothing changes for them."""
    return frozenset(
        (attempt.backend, attempt.place)
        for chain in table.chains.values()
        if chain.model in table.affinities
        for attempt in chain.attempts
        if attempt.access is LLMAccess.LOCAL
    )


def held_of(table: RouteTable) -> tuple[Attempt, ...]:
    """Every attempt of a model with a hold."""
    return tuple(sorted({attempt for chain in table.chains.values() for attempt in chain.held}, key=attempt_host))


def attempts_of(table: RouteTable) -> tuple[Attempt, ...]:
    """Every place that some chain tries by itself."""
    tried = {attempt for chain in table.chains.values() for attempt in chain.attempts}
    return tuple(sorted(attempt for attempt in tried if attempt.backend != GATEWAY))


def make_clusters(table: RouteTable, settings: GatewaySettings) -> list[Json]:
    """All of CDS, in the order of names."""
    used = {attempt.backend for attempt in attempts_of(table)}
    pinned = pinned_places(table)
    upstreams = [upstream for upstream in table.upstreams if upstream.name in used]
    clusters = [
        *(_make_attempt_cluster(attempt) for attempt in (*attempts_of(table), *held_of(table))),
        *_make_holding_clusters(table),
        *(_make_upstream_cluster(upstream, settings) for upstream in upstreams),
        *(
            _make_pinned_cluster(upstream, settings)
            for upstream in upstreams
            if (upstream.name, upstream.place) in pinned
        ),
        *([_make_gateway_cluster(table.gateway, settings)] if table.gateway is not None else []),
    ]
    return sorted(clusters, key=lambda cluster: str(cluster["name"]))


def _make_holding_clusters(table: RouteTable) -> list[Json]:
    """Envoy counts each request that waits as one that is being retried."""
    holding = {holding_cluster(attempt): attempt for attempt in held_of(table)}
    clusters = []
    for name, attempt in holding.items():
        assert attempt.hold is not None
        cluster = _make_attempt_cluster(replace(attempt, hold=None)) | {"name": name}
        cluster["load_assignment"]["cluster_name"] = name
        cluster["circuit_breakers"]["thresholds"][0]["max_retries"] = attempt.hold.limit
        clusters.append(cluster)
    return clusters


def _make_attempt_cluster(attempt: Attempt) -> Json:
    name, host = attempt_cluster(attempt), attempt_host(attempt)
    endpoint = {
        "hostname": host,
        "address": {"envoy_internal_address": {"server_listener_name": "egress", "endpoint_id": host}},
    }
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [_unlimited()]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    }


def _make_upstream_cluster(upstream: Upstream, settings: GatewaySettings) -> Json:
    name = upstream_cluster(upstream)
    address = {"socket_address": {"address": upstream.host, "port_value": upstream.port}}
    is_local = upstream.access is LLMAccess.LOCAL
    cluster: Json = {
        "name": name,
        "cluster_type": _make_resolution(is_local=is_local),
        "connect_timeout": "1s" if is_local else "3s",
        "lb_policy": "LEAST_REQUEST",
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "per_connection_buffer_limit_bytes": 1_048_576,
        "circuit_breakers": {"thresholds": [_unlimited()]},
        "outlier_detection": {
            "consecutive_5xx": 5,
            "consecutive_local_origin_failure": 3,
            "split_external_local_origin_errors": True,
            "interval": "2s",
            "base_ejection_time": "10s",
            "max_ejection_percent": 50,
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "typed_extension_protocol_options": {_PROTOCOL: _make_protocol(upstream, settings)},
    }
    if upstream.slow_start_s:
        slow = {"slow_start_window": duration(upstream.slow_start_s), "min_weight_percent": {"value": 10}}
        cluster["least_request_lb_config"] = {"slow_start_config": slow}
    if upstream.is_tls:
        cluster["transport_socket"] = _make_tls(upstream, settings)
    return cluster


def _make_gateway_cluster(gateway: Upstream, settings: GatewaySettings) -> Json:
    """From a sidecar to the gateway: the request as the caller sent it, credentials included. What was noted on it here the gateway drops,
    and finds it out again."""
    name, host = f"gateway~{gateway.place}", gateway.authority
    changes: list[Json] = [{"append": set_header(theirs, f"%REQ({ours})%")} for theirs, ours in SHOWN_HEADERS.items()]
    changes += [{"remove": ours} for ours in SHOWN_HEADERS.values()]
    protocol = {
        **_make_protocol(replace(gateway, credentials=()), settings),
        "http_filters": [
            make_filter(
                "credentials",
                "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
                mutations={"request_mutations": changes},
            ),
            make_filter("codec", "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"),
        ],
    }
    endpoint = {
        "hostname": host,
        "address": {"socket_address": {"address": gateway.host, "port_value": gateway.port}},
    }
    cluster = _make_upstream_cluster(gateway, settings)
    # One address stands for all gateways: left out for what they answer about one model it would be missing for all others.
    del cluster["outlier_detection"]
    return {
        **cluster,
        "name": name,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
        "typed_extension_protocol_options": {_PROTOCOL: protocol},
    }


def _make_pinned_cluster(upstream: Upstream, settings: GatewaySettings) -> Json:
    """Consistent hashing by Maglev: when a pod goes, what it had is spread, and of the rest hardly anything moves. (Envoy's ring gives each
    pod more points when there are fewer pods, so that a sixth of what the other two of three pods had would move as well.)"""
    name = pinned_cluster(upstream)
    cluster = _make_upstream_cluster(replace(upstream, slow_start_s=0), settings)
    balancing = {
        "lb_policy": "MAGLEV",
        "common_lb_config": {
            **cluster["common_lb_config"],
            "consistent_hashing_lb_config": {"hash_balance_factor": _MOST_PERCENT},
        },
    }
    return {
        **cluster,
        **balancing,
        "name": name,
        "load_assignment": {**cluster["load_assignment"], "cluster_name": name},
    }


def _make_resolution(*, is_local: bool) -> Json:
    """One host per address. A pod that is gone must not be asked for long; a provider's address seldom changes."""
    return {
        "name": "envoy.clusters.dns",
        "typed_config": typed(
            "envoy.extensions.clusters.dns.v3.DnsCluster",
            dns_refresh_rate="1s" if is_local else "30s",
            dns_failure_refresh_rate={"base_interval": "1s", "max_interval": "2s"},
            respect_dns_ttl=False,
        ),
    }


def _make_protocol(upstream: Upstream, settings: GatewaySettings) -> Json:
    options = typed(
        _PROTOCOL,
        explicit_http_config={"http_protocol_options": {}},
        common_http_protocol_options={"idle_timeout": "60s"},
    )
    if upstream.credentials:
        options["http_filters"] = [
            *(_make_injection(upstream, number, settings) for number in range(len(upstream.credentials))),
            make_filter("codec", "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"),
        ]
    return options


def key_name(upstream: Upstream, number: int) -> str:
    """The SDS resource, and its file, of one of a backend's keys."""
    return f"key-{upstream.name}-{upstream.place}-{number}"


def _make_injection(upstream: Upstream, number: int, settings: GatewaySettings) -> Json:
    """Sets the header. Without the key nothing is sent."""
    credential, name = upstream.credentials[number], key_name(upstream, number)
    injected = typed(
        "envoy.extensions.http.injected_credentials.generic.v3.Generic",
        header=credential.header,
        credential={"name": name, "sds_config": file_source(settings.routing_directory, f"{name}.json")},
        **({"header_value_prefix": credential.prefix} if credential.prefix else {}),
    )
    return make_filter(
        f"credential{number}",
        "envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
        overwrite=True,
        credential={"name": "envoy.http.injected_credentials.generic", "typed_config": injected},
    )


def authorities_name(upstream: Upstream) -> str:
    """The SDS resource, and its file, of those who may sign for a backend."""
    return f"ca-{upstream.name}-{upstream.place}"


def _make_tls(upstream: Upstream, settings: GatewaySettings) -> Json:
    """The certificate must be by these authorities and for this name: there is no other way. Authorities from a Secret may come later than
    the cluster, and others may come in their place."""
    kind: Json = {"san_type": "IP_ADDRESS" if _is_address(upstream.server_name) else "DNS"}
    names = {"match_typed_subject_alt_names": [{**kind, "matcher": {"exact": upstream.server_name}}]}
    server: Json = {} if _is_address(upstream.server_name) else {"sni": upstream.server_name}
    if upstream.name == GATEWAY:
        source = {
            "name": GATEWAY_AUTHORITIES,
            "sds_config": file_source(settings.routing_directory, f"{GATEWAY_AUTHORITIES}.json"),
        }
        common: Json = {
            "combined_validation_context": {
                "default_validation_context": names,
                "validation_context_sds_secret_config": source,
            }
        }
    elif upstream.authorities is None:
        common = {"validation_context": {"trusted_ca": {"filename": settings.default_authorities}, **names}}
    else:
        name = authorities_name(upstream)
        config = file_source(settings.routing_directory, f"{name}.json")
        # Read again when the Secret comes, not when routes change: what the file says is the same as long as the cluster is.
        secret = settings.authorities_directory_of(upstream.authorities[0])
        config["path_config_source"]["watched_directory"] = {"path": secret}
        source = {"name": name, "sds_config": config}
        common = {
            "combined_validation_context": {
                "default_validation_context": names,
                "validation_context_sds_secret_config": source,
            }
        }
    context = typed("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", common_tls_context=common, **server)
    return {"name": "tls", "typed_config": context}


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _unlimited() -> Json:
    return {
        "max_connections": _NO_LIMIT,
        "max_pending_requests": _NO_LIMIT,
        "max_requests": _NO_LIMIT,
        "max_retries": _NO_LIMIT,
    }
