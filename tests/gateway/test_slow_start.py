"""Slow start with the real Envoy: it takes the configuration and has it; what it makes of it over time is Envoy's own matter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
from tests.gateway.asking import ask, make_body
from tests.gateway.pods import several_pods
from tests.gateway.world import Gateway, World, backend_entries, make_world


def make_spec() -> dict[str, Any]:
    (alpha,) = backend_entries("alpha")
    alpha["deployment"]["slowStart"] = "1m30s"
    return {
        "backends": [alpha],
        "models": [
            {"name": "chat", "targets": [{"backend": "alpha"}], "affinity": {"header": "x-session-id"}},
            {"name": "plain", "targets": [{"backend": "alpha"}]},
        ],
        "authentication": {"anonymous": {}},
    }


def running_clusters(gateway: Gateway) -> dict[str, Any]:
    """As Envoy has them, by the first part of their name."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=gateway.settings.admin_socket)) as admin:
        dump = admin.get("http://admin/config_dump?resource=dynamic_active_clusters", timeout=5).text
    clusters = [entry["cluster"] for entry in json.loads(dump)["configs"]]
    return {cluster["name"].partition("~")[0]: cluster for cluster in clusters}


async def test_a_new_pod_begins_slowly_where_no_affinity_decides(tmp_path: Path, client: httpx.AsyncClient) -> None:
    with make_world(make_spec(), tmp_path) as world:
        running = running_clusters(world.gateway)
        assert running["be"]["least_request_lb_config"] == {
            "slow_start_config": {"slow_start_window": "90s", "min_weight_percent": {"value": 10}}
        }
        assert running["pin"]["lb_policy"] == "MAGLEV"
        assert "least_request_lb_config" not in running["pin"]
        assert world.gateway.rejected() == ()
        await assert_all_serve(world, client)


async def assert_all_serve(world: World, client: httpx.AsyncClient) -> None:
    """Pods that are all new have the same share."""
    with several_pods(world, "alpha", ("alpha", "beta", "gamma")):
        for _ in range(60):
            answer = await ask(client, world.gateway.url, make_body("plain"))
            assert answer.is_success, answer
        assert min(len(ids) for ids in world.seen().values()) >= 8, world.seen()
        assert len(world.seen()) == 3
