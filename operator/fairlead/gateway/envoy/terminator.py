"""The Envoy beside an engine: it ends TLS and hands requests on to the engine on the loopback address, whatever they are.

Ollama, where it listens on that address, answers only who calls it localhost, so requests are called so. Each gets a connection of its
own to the engine: engines that drain count the open ones. It is configured by its arguments alone but for the certificate, which
comes from files, so that it can be renewed under it.
"""

from __future__ import annotations

import orjson

from fairlead.gateway.envoy.certificate import make_transport
from fairlead.gateway.envoy.words import Json, make_filter, typed

__all__ = ["make_terminator"]


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


def _make_listener(address: str, port: int, source_directory: str) -> Json:
    return {
        "name": "tls",
        "address": {"socket_address": {"address": address, "port_value": port}},
        "filter_chains": [
            {
                **make_transport(source_directory, ["http/1.1"]),
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
