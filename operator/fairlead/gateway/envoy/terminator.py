"""The Envoy beside an engine: it ends TLS and hands requests on to the engine on the loopback address, whatever they are.

Ollama, where it listens on that address, answers only who calls it localhost, so requests are called so. Each gets a connection of its
own to the engine: engines that drain count the open ones. It is configured by its arguments alone but for the certificate, which
comes from files, so that it can be renewed under it.
"""

from __future__ import annotations

from typing import Final

import orjson

from fairlead.gateway.envoy.words import Json, file_source, make_discovery, make_filter, swapped_path, typed

__all__ = ["CERTIFICATE_FILE", "make_certificate_source", "make_terminator"]

#: The file that says where the certificate is.
CERTIFICATE_FILE: Final = "certificate.json"
_TYPE: Final = "envoy.extensions.transport_sockets.tls.v3.Secret"
_NAME: Final = "certificate"


def make_terminator(address: str, port: int, engine_port: int, source_directory: str) -> str:
    """What its --config-yaml says. A request takes as long as client and engine let it: there are no time-outs here."""
    config = {
        "node": {"id": "tls", "cluster": "engine"},  # Envoy asks for both where a certificate comes from files
        "static_resources": {
            "listeners": [_make_listener(address, port, source_directory)],
            "clusters": [_make_engine_cluster(engine_port)],
        },
    }
    return orjson.dumps(config).decode()


def make_certificate_source(certificate_directory: str) -> str:
    """The content of CERTIFICATE_FILE: a certificate in a mounted Secret, read again when the kubelet swaps it."""
    certificate = {
        "certificate_chain": {"filename": swapped_path(certificate_directory, "tls.crt")},
        "private_key": {"filename": swapped_path(certificate_directory, "tls.key")},
        "watched_directory": {"path": certificate_directory},
    }
    return orjson.dumps(make_discovery(_TYPE, "1", {"name": _NAME, "tls_certificate": certificate})).decode()


def _make_listener(address: str, port: int, source_directory: str) -> Json:
    context = typed(
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        common_tls_context={
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "alpn_protocols": ["http/1.1"],
            "tls_certificate_sds_secret_configs": [
                {"name": _NAME, "sds_config": file_source(source_directory, CERTIFICATE_FILE)}
            ],
        },
    )
    return {
        "name": "tls",
        "address": {"socket_address": {"address": address, "port_value": port}},
        "filter_chains": [
            {
                "transport_socket": {"name": "tls", "typed_config": context},
                "transport_socket_connect_timeout": "10s",
                "filters": [{"name": "http", "typed_config": _make_proxy()}],
            }
        ],
    }


def _make_proxy() -> Json:
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": "engine", "timeout": "0s", "host_rewrite_literal": "localhost"},
    }
    return typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="tls",
        codec_type="HTTP1",
        stream_idle_timeout="0s",
        generate_request_id=False,
        server_header_transformation="PASS_THROUGH",
        route_config={"name": "engine", "virtual_hosts": [{"name": "engine", "domains": ["*"], "routes": [route]}]},
        http_filters=[
            make_filter("router", "envoy.extensions.filters.http.router.v3.Router", suppress_envoy_headers=True)
        ],
    )


def _make_engine_cluster(port: int) -> Json:
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    most = {"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000}
    protocol = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = typed(
        protocol,
        explicit_http_config={"http_protocol_options": {}},
        common_http_protocol_options={"max_requests_per_connection": 1},
    )
    return {
        "name": "engine",
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [most]},
        "typed_extension_protocol_options": {protocol: options},
        "load_assignment": {"cluster_name": "engine", "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    }
