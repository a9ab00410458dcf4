"""Providers outside of the cluster: Envoy finds them by the cluster's DNS, checks who they are, and goes on when they fail."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.node import envoys
from tests.cluster.node.envoys import until

from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.providers import FakeProvider, FakeProviders, Fault, Kind

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": True}).encode()
_TYPES = "type.googleapis.com/envoy"


@dataclass(frozen=True)
class World:
    """A gateway with two providers behind it, the second one for what the first one fails at."""

    address: tuple[str, int]
    first: FakeProvider
    second: FakeProvider

    def ask(self) -> tuple[int, str]:
        """Status and body of one chat completion."""
        connection = http.client.HTTPConnection(*self.address, timeout=10)
        try:
            connection.request("POST", "/v1/chat/completions", CHAT, {"authorization": "Bearer k", "X-Odd": "1"})
            response = connection.getresponse()
            try:
                return response.status, response.read().decode()
            except http.client.IncompleteRead as error:
                return -1, error.partial.decode()
        finally:
            connection.close()


def provider_cluster(name: str, provider: FakeProvider, host: str) -> Json:
    """TLS with the name in SNI and checked in the certificate."""
    (cluster,) = json.loads(envoys.clusters(f"{host}.", provider.address[1]))["resources"]
    exact = {"san_type": "DNS", "matcher": {"exact": host}}
    context = {
        "trusted_ca": {"filename": f"{envoys.KEYS}/ca.crt"},
        "match_typed_subject_alt_names": [exact],
    }
    tls = {
        "@type": f"{_TYPES}.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": host,
        "common_tls_context": {"validation_context": context},
    }
    del cluster["@type"]
    socket = {"name": "envoy.transport_sockets.tls", "typed_config": tls}
    return {**cluster, "name": name, "transport_socket": socket}


def failover_clusters(*providers: FakeProvider) -> str:
    """A cluster for each, and `backend` of all in order."""
    members = [provider_cluster(one.name, one, one.hosts[0]) for one in providers]
    kind = f"{_TYPES}.extensions.clusters.aggregate.v3.ClusterConfig"
    both = {
        "name": "backend",
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {"@type": kind, "clusters": [one["name"] for one in members]},
        },
    }
    resources = [{"@type": f"{_TYPES}.config.cluster.v3.Cluster", **one} for one in (*members, both)]
    return json.dumps({"resources": resources})


def failover_routes() -> Json:
    """One more try, at the next cluster."""
    kind = f"{_TYPES}.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
    routes = envoys.route_config("1")
    routes["virtual_hosts"][0]["routes"][0]["route"]["retry_policy"] = {
        "retry_on": "5xx,retriable-status-codes,reset,connect-failure",
        "num_retries": 1,
        "retriable_status_codes": [429, 529],
        "retry_priority": {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {"@type": kind, "update_frequency": 1},
        },
    }
    return routes


@pytest.fixture
def world(cluster: LocalCluster, cluster_namespace: str, tmp_path: Path) -> Iterator[World]:
    """On the shared cluster."""
    pytest.importorskip("envoy")
    namespace = cluster_namespace
    with FakeProviders(tmp_path / "fakes") as fakes:
        first, second = (fakes.add(name, [f"api.{name}.{namespace}.test"]) for name in ("p0", "p1"))
        cluster.hosts_file.update(fakes.host_records)
        lds, cds = envoys.listeners(routes=failover_routes()), failover_clusters(first, second)
        objects = envoys.gateway(namespace, 1, host="")
        objects[1] = envoys.config_map(namespace, "listen", lds_json=lds, cds_json=cds)
        objects[3] = envoys.secret(namespace, "keys", **{"ca.crt": fakes.ca_cert.read_text()})
        cluster.kubectl.apply(*objects)
        cluster.kubectl("rollout", "status", "deployment/gateway", "-n", namespace, "--timeout=30s")
        running = World(cluster.service_address(namespace, "gateway", envoys.PORT), first, second)
        until(lambda: running.ask()[0] == 200)
        for one in (first, second):
            one.clear()
        yield running
        cluster.hosts_file.update(dict.fromkeys(fakes.host_records))


def test_a_gateway_passes_on_and_over(world: World) -> None:
    status, body = world.ask()
    assert status == 200
    assert body.count("data: ") == 11
    (recorded,) = world.first.recorded
    assert recorded.server_name == world.first.hosts[0]
    assert recorded.request.body == CHAT
    assert recorded.request.header("authorization") == "Bearer k"
    assert recorded.request.target == "/v1/chat/completions"
    assert world.second.recorded == []

    for fault in (Fault(Kind.STATUS, code=429), Fault(Kind.STATUS, code=529), Fault(Kind.RESET), Fault(Kind.GARBAGE)):
        world.first.fail(fault)
        world.second.clear()
        status, body = world.ask()
        assert (status, '"content": "p1"' in body) == (200, True), fault
        assert len(world.second.recorded) == 1, fault
    world.first.fail()
    world.first.refuse()
    world.second.clear()
    assert world.ask()[0] == 200
    assert len(world.second.recorded) == 1
    world.first.accept()


def test_a_stream_that_breaks_off_is_not_tried_again(world: World) -> None:
    world.first.fail(Fault(Kind.CUT, after_chunks=3))
    status, body = world.ask()
    assert status == -1
    assert body.count("data: ") == 3
    assert world.second.recorded == []
