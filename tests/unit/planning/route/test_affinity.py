"""Which cluster of a deployment a model's requests go to, and what stays as it is for everybody else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.planning.route.routes import make_route, make_spec, plan
from tests.unit.planning.route.test_planner import files_of, many_models

from fairlead.gateway.lua import unpack_lookup

Json = dict[str, Any]
AFFINITY = {"header": "x-session-id"}


def render(spec: Json) -> dict[str, str]:
    return files_of(plan(make_route(spec)))


def clusters(files: dict[str, str]) -> dict[str, Json]:
    """By the first two parts of their names."""
    found = json.loads(files["cds.json"])["resources"]
    return {one["name"].rpartition("~")[0]: one for one in found if not one["name"].startswith("to~")}


def with_affinity(spec: Json, *models: str) -> Json:
    for model in spec["models"]:
        if model["name"] in models:
            model["affinity"] = dict(AFFINITY)
    return spec


def two_models() -> Json:
    spec = make_spec()
    spec["models"].append({"name": "plain", "targets": [{"backend": "local"}]})
    return spec


def test_the_usual_cluster_stays_as_it_is_and_a_second_one_comes() -> None:
    before, after = clusters(render(two_models())), clusters(render(with_affinity(two_models(), "chat")))
    assert set(after) - set(before) == {"pin~local"}
    assert {name: after[name] for name in before} == before
    assert after["pin~local"]["lb_policy"] == "MAGLEV"
    same = after["pin~local"].keys() - {"name", "lb_policy", "common_lb_config", "load_assignment"}
    assert {key: after["pin~local"][key] for key in same} == {key: after["be~local"][key] for key in same}


def test_no_route_changes_and_the_classifier_is_told() -> None:
    def actions(spec: Json) -> dict[str, Json]:
        (routes,) = json.loads(render(spec)["rds-public.json"])["resources"]
        return dict(routes["virtual_hosts"][0]["matcher"]["matcher_tree"]["exact_match_map"]["map"])

    assert actions(two_models()) == actions(with_affinity(two_models(), "chat"))
    (routes,) = json.loads(render(with_affinity(two_models(), "chat"))["rds-public.json"])["resources"]
    context = routes["virtual_hosts"][0]["typed_per_filter_config"]["classify"]["filter_context"]
    assert unpack_lookup(context)["affinities"] == {"chat": {"header": "x-session-id"}}


@pytest.mark.parametrize("affinity", [False, True])
def test_slow_start_is_of_the_usual_cluster_and_moves_nobody(affinity: bool) -> None:
    spec = with_affinity(two_models(), *(["chat"] if affinity else []))
    before = render(spec)
    spec["backends"][0]["deployment"]["slowStart"] = "1m30s"
    after = render(spec)
    changed = [name for name in clusters(after) if clusters(after)[name] != clusters(before)[name]]
    assert changed == ["be~local"]
    slow = clusters(after)["be~local"]["least_request_lb_config"]["slow_start_config"]
    assert slow == {"slow_start_window": "90s", "min_weight_percent": {"value": 10}}
    assert {name for name in after if after[name] != before[name]} == {"cds.json"}


def test_256_models_with_affinities_of_their_own_fit() -> None:
    spec = many_models(targets=2)
    for number, model in enumerate(spec["models"]):
        model["affinity"] = {"header": f"x-{number:03d}".ljust(64, "x")}
    sizes = {name: len(text) for name, text in render(spec).items()}
    assert max(sizes.values()) < 960 * 1024
    assert sizes["rds-egress.json"] < 96 * 1024
