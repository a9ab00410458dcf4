"""Both texts inside of the real Envoy: data from the virtual host, the body read once, the chain found, the model edited.

The configuration is the least that has both filters in it; the gateway's own is tested elsewhere.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.unit.gateway.envoy_process import EnvoyProcess, Recorder, running_envoy, running_recorder
from tests.unit.gateway.scripts import make_lookup

from fairlead.gateway.lua import load_classifier, load_egress, pack_lookup
from fairlead_cluster.ports import free_ports

TYPES = "type.googleapis.com/envoy."
DETECTORS = [
    {"name": "cards", "class": "Confidential", "builtin": "PaymentCard"},
    {"name": "words", "class": "Restricted", "keywords": ["secretword"]},
]
LOOKUP = make_lookup(detectors=DETECTORS, models={"chat": {"p1|-|Public": "c1"}, "other": {}})


def typed(name: str, /, **fields: Any) -> dict[str, Any]:
    return {"@type": TYPES + name, **fields}


def http(prefix: str, filters: list[dict[str, Any]], **fields: Any) -> list[dict[str, Any]]:
    router = {"name": "envoy.filters.http.router", "typed_config": typed("extensions.filters.http.router.v3.Router")}
    manager = typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=prefix,
        http_filters=[*filters, router],
        **fields,
    )
    return [{"filters": [{"name": "http", "typed_config": manager}]}]


def lua(name: str, text: str) -> dict[str, Any]:
    """As `gateway.envoy.listeners` has them: a header that is taken away changes no route."""
    source = {"inline_string": text}
    config = typed("extensions.filters.http.lua.v3.Lua", default_source_code=source, clear_route_cache=False)
    return {"name": name, "typed_config": config}


def action(**route: Any) -> dict[str, Any]:
    return {"action": {"name": "route", "typed_config": typed("config.route.v3.Route", match={"prefix": "/"}, **route)}}


#: As `attempt_host` makes it.
UP = b'up"stream'.hex() + ".up"


def public_host(name: str, per_route: dict[str, Any], model: str = UP) -> dict[str, Any]:
    to_egress = action(route={"cluster": "to-egress", "host_rewrite_literal": model})
    models = action(direct_response={"status": 200, "body": {"inline_string": "models of p1"}})
    key = typed("extensions.matching.common_inputs.network.v3.FilterStateInput", key="fairlead.key")
    return {
        "name": name,
        "domains": [f"{name}.test"],
        "request_body_buffer_limit": 1 << 25,
        "typed_per_filter_config": {"classify": typed("extensions.filters.http.lua.v3.LuaPerRoute", **per_route)},
        "matcher": {
            "matcher_tree": {
                "input": {"name": "key", "typed_config": key},
                "exact_match_map": {"map": {"c1|true": to_egress, "c1|false": to_egress, "models|p1": models}},
            },
            "on_no_match": action(direct_response={"status": 403, "body": {"inline_string": "no chain"}}),
        },
    }


def make_routes(lookup: dict[str, Any]) -> dict[str, Any]:
    hosts = [
        public_host("good", {"filter_context": pack_lookup(lookup)}),
        public_host("broken", {"filter_context": {"policy": "{"}}),
        public_host("empty", {}),
        public_host("off", {"disabled": True}),
        public_host("nameless", {"filter_context": pack_lookup(lookup)}, model="nameless"),
    ]
    return {"resources": [typed("config.route.v3.RouteConfiguration", name="public", virtual_hosts=hosts)]}


def make_bootstrap(port: int, upstream_port: int, directory: Path) -> dict[str, Any]:
    key = {
        "name": "key",
        "typed_config": typed(
            "extensions.filters.http.set_filter_state.v3.Config",
            clear_route_cache=True,
            on_request_headers=[
                {
                    "object_key": "fairlead.key",
                    "factory_key": "envoy.string",
                    "format_string": {
                        "text_format_source": {
                            "inline_string": "%DYNAMIC_METADATA(fairlead:chain)%|%DYNAMIC_METADATA(fairlead:stream)%"
                        }
                    },
                }
            ],
        ),
    }
    buffer = {
        "name": "buffer",
        "typed_config": typed("extensions.filters.http.buffer.v3.Buffer", max_request_bytes=1 << 25),
    }
    egress_hosts = [
        {
            "name": host,
            "domains": [host],
            "request_body_buffer_limit": 1 << 25,
            "routes": [
                {"match": {"prefix": "/"}, "route": {"cluster": "provider"}, "metadata": {"filter_metadata": data}}
            ],
        }
        for host, data in {
            UP: {"envoy.filters.http.lua": {"usage": "true"}},
            "nameless": {},
        }.items()
    ]
    source = {
        "path_config_source": {"path": str(directory / "routes.json"), "watched_directory": {"path": str(directory)}},
        "resource_api_version": "V3",
    }
    public = http(
        "public",
        [buffer, lua("classify", load_classifier()), key],
        rds={"route_config_name": "public", "config_source": source},
    )
    egress = http(
        "egress", [lua("envoy.filters.http.lua", load_egress())], route_config={"virtual_hosts": egress_hosts}
    )
    return {
        "node": {"id": "test", "cluster": "test"},
        "bootstrap_extensions": [
            {"name": "internal", "typed_config": typed("extensions.bootstrap.internal_listener.v3.InternalListener")}
        ],
        "static_resources": {
            "listeners": [
                {"name": "public", "address": address(port), "filter_chains": public},
                {"name": "egress", "internal_listener": {}, "filter_chains": egress},
            ],
            "clusters": [
                cluster("to-egress", {"envoy_internal_address": {"server_listener_name": "egress"}}),
                cluster("provider", address(upstream_port)),
            ],
        },
    }


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def cluster(name: str, endpoint: dict[str, Any]) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": endpoint}}]}]
    return {"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name, "endpoints": endpoints}}


@dataclass
class Gateway:
    """A running Envoy, the provider behind it, and a client in front of it."""

    envoy: EnvoyProcess
    provider: Recorder
    client: httpx.Client

    def post(self, content: Any, host: str = "good", **fields: Any) -> httpx.Response:
        headers = [("host", f"{host}.test"), ("content-type", "application/json"), *fields.pop("headers", [])]
        data = content if isinstance(content, bytes) or hasattr(content, "__next__") else json.dumps(content).encode()
        return self.client.post("/v1/chat/completions", content=data, headers=headers, **fields)

    def publish(self, lookup: dict[str, Any]) -> None:
        """As the kubelet does it: a new file takes the place of the old one."""
        fresh = self.envoy.directory / "routes.new"
        fresh.write_text(json.dumps({"version_info": str(id(lookup)), **make_routes(lookup)}))
        fresh.rename(self.envoy.directory / "routes.json")
        self.envoy.wait_for("/config_dump?resource=dynamic_route_configs", str(id(lookup)))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory, port = tmp_path_factory.mktemp("envoy"), free_ports(1)[0]
    (directory / "routes.json").write_text(json.dumps(make_routes(LOOKUP)))
    with (
        running_recorder() as provider,
        running_envoy(make_bootstrap(port, provider.port, directory), directory) as envoy,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        yield Gateway(envoy, provider, client)


def message(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "chat", "messages": [{"role": "user", "content": text}], **fields}


def test_a_request_reaches_its_provider_under_the_providers_name(gateway: Gateway) -> None:
    body = b' {"n": 9007199254740993, "mod\\u0065l" : "chat", "x": {"model": "chat"}, "messages": [] }'
    assert gateway.post(body).status_code == 200
    (received,) = gateway.provider.take()
    assert received.body == body.replace(b': "chat",', b': "up\\u0022stream",', 1)
    assert int(received.headers["content-length"]) == len(received.body)


def test_a_stream_asks_for_its_usage(gateway: Gateway) -> None:
    assert gateway.post(message("hello", stream=True)).status_code == 200
    (received,) = gateway.provider.take()
    expected = message("hello", stream=True) | {"model": 'up"stream', "stream_options": {"include_usage": True}}
    assert json.loads(received.body) == expected


def test_a_body_in_chunks_is_read_whole(gateway: Gateway) -> None:
    data = json.dumps(message("hello " * 1000)).encode()
    assert gateway.post(iter([data[:5], data[5:1000], data[1000:]])).status_code == 200
    assert json.loads(gateway.provider.take()[0].body)["model"] == 'up"stream'
    data = json.dumps(message("4111 1111 1111 1111")).encode()
    half = data.index(b"1111 ")
    assert gateway.post(iter([data[:half], data[half:]])).status_code == 403
    assert gateway.provider.take() == []


REFUSED: list[tuple[str, Any, dict[str, Any], int, str]] = [
    ("a card", message("4111-1111-1111-1111"), {}, 403, "data_class_denied"),
    ("a word", message("the SecretWord"), {}, 403, "data_class_denied"),
    (
        "a declared class",
        message("a"),
        {"headers": [("x-data-classification", "Restricted")]},
        403,
        "data_class_denied",
    ),
    (
        "two header lines",
        message("a"),
        {"headers": [("x-data-classification", "Internal")] * 2},
        400,
        "invalid_data_class",
    ),
    ("an unknown class", message("a"), {"headers": [("x-data-classification", "Top")]}, 400, "invalid_data_class"),
    ("an image", message("a", x=[{"image_url": "http://x"}]), {}, 403, "data_class_denied"),
    ("an unknown model", {"model": "chat2"}, {}, 404, "model_not_found"),
    ("a NUL in the model", {"model": "chat\0"}, {}, 404, "model_not_found"),
    ("a model without a chain", {"model": "other"}, {}, 403, "data_class_denied"),
    ("no body", b"", {}, 400, "invalid_json"),
    ("a byte order mark", b"\xef\xbb\xbf" + json.dumps(message("a")).encode(), {}, 400, "invalid_json"),
    ("a key twice", b'{"model":"chat","messages":[],"messages":[]}', {}, 400, "duplicate_key"),
    ("bad UTF-8", b'{"model":"chat","x":"\xff"}', {}, 400, "invalid_utf8"),
    ("text behind", b'{"model":"chat"}x', {}, 400, "invalid_json"),
    (
        "gzip",
        gzip.compress(b'{"model":"chat"}'),
        {"headers": [("content-encoding", "gzip")]},
        415,
        "unsupported_content_encoding",
    ),
    ("a stranger", message("a"), {"headers": [("x-fairlead-consumer", "nobody")]}, 403, "no_role"),
]


@pytest.mark.parametrize(
    ("body", "fields", "status", "code"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_what_is_refused_reaches_nobody(
    gateway: Gateway, body: Any, fields: dict[str, Any], status: int, code: str
) -> None:
    response = gateway.post(body, **fields)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
    assert response.json()["error"]["code"] == code
    assert gateway.provider.take() == []


def test_another_content_type_is_refused(gateway: Gateway) -> None:
    response = gateway.client.post(
        "/v1/chat/completions", content=b"{}", headers={"host": "good.test", "content-type": "text/plain"}
    )
    assert (response.status_code, response.json()["error"]["code"]) == (415, "unsupported_content_type")


def test_ten_mebibytes(gateway: Gateway) -> None:
    text = "The quick brown fox jumps over the lazy dog, 12 times. " * (10 * 2**20 // 55)
    body = json.dumps(message(text)).encode()
    assert gateway.post(body).status_code == 200
    (received,) = gateway.provider.take()
    assert received.body == body.replace(b'"chat"', b'"up\\u0022stream"', 1)
    assert gateway.post(message(text + "4111 1111 1111 1111")).json()["error"]["code"] == "data_class_denied"
    assert gateway.provider.take() == []


@pytest.mark.parametrize("host", ["broken", "empty"])
def test_a_classifier_that_fails_lets_nothing_pass(gateway: Gateway, host: str) -> None:
    response = gateway.post(message("hello"), host)
    assert (response.status_code, response.json()["error"]["code"]) == (500, "classifier_failed")
    assert gateway.provider.take() == []


def test_without_a_classifier_nothing_is_routed(gateway: Gateway) -> None:
    response = gateway.post(message("hello"), "off")
    assert (response.status_code, response.text) == (403, "no chain")
    assert gateway.provider.take() == []


def test_an_egress_route_that_names_no_model_sends_nothing(gateway: Gateway) -> None:
    response = gateway.post(message("hello"), "nameless")
    assert (response.status_code, response.json()["error"]["code"]) == (500, "egress_failed")
    assert gateway.provider.take() == []


def test_other_methods_are_not_there_and_models_are_listed(gateway: Gateway) -> None:
    host = {"host": "good.test"}
    for method in ("GET", "PUT", "DELETE"):
        answer = gateway.client.request(method, "/v1/chat/completions", headers=host)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_endpoint")
    assert gateway.client.get("/v1/models", headers=host).text == "models of p1"
    assert gateway.provider.take() == []


def test_new_data_counts_from_the_next_request_on(gateway: Gateway) -> None:
    assert gateway.post(message("a newword")).status_code == 200
    new = {**LOOKUP, "detectors": [*DETECTORS, {"name": "new", "class": "Restricted", "keywords": ["newword"]}]}
    try:
        gateway.publish(new)
        assert gateway.post(message("a newword")).status_code == 403
        assert gateway.post(message("another")).status_code == 200
    finally:
        gateway.publish(dict(LOOKUP))
    assert gateway.post(message("a newword")).status_code == 200
    assert len(gateway.provider.take()) == 3
