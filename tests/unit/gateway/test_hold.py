"""How attempts wait for a deployment at zero replicas, as the table and the rendered files say it. That Envoy does so is tested with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.gateway.world import CATALOG, TRUSTED_HOST, _facts, backend_entries, make_route_table, parse_route
from tests.unit.gateway.test_sidecar import HOST

from fairlead.api.resource import LLMRoute
from fairlead.api.route import DataClass
from fairlead.facts.observed import OperatorFacts
from fairlead.gateway.envoy import GatewaySettings, render_files
from fairlead.gateway.envoy.clusters import attempt_cluster, backend_of, plain_cluster
from fairlead.gateway.envoy.withdrawal import withdraw
from fairlead.gateway.sidecar import make_gateway_upstream, make_sidecar_table
from fairlead.gateway.table import GATEWAY, Chain, RouteTable
from fairlead.planning.route.backends import Resolved, resolve_backends
from fairlead.rendering.explain import Question, explain
from fairlead.rendering.routes import RenderedRoute
from fairlead.rendering.telling import to_json, to_text

Json = dict[str, Any]
TWO = [{"backend": "alpha"}, {"backend": "openai", "model": "gpt", "priority": 1}]


def table_of(targets: list[Json], hold: Json | None, *waking: str, timeouts: Json | None = None) -> RouteTable:
    return _read(targets, hold, *waking, timeouts=timeouts)[2]


def _read(
    targets: list[Json], hold: Json | None, *waking: str, timeouts: Json | None = None
) -> tuple[LLMRoute, tuple[Resolved, ...], RouteTable]:
    chat = {"name": "chat", "targets": targets, **({"hold": hold} if hold is not None else {})}
    role = {
        "name": "all",
        "llmAccess": ["Local", "Cloud"],
        "dataAccess": ["Public", "Confidential"],
        "mayDeclare": ["Public"],
    }
    spec = {
        "backends": backend_entries(),
        "models": [{**chat, **({"timeouts": timeouts} if timeouts is not None else {})}],
        "authentication": {"anonymous": {"role": "all"}},
        "roles": [role],
    }
    route = parse_route(spec)
    operator = OperatorFacts(trusted_hosts=frozenset({TRUSTED_HOST}))
    resolved = resolve_backends(route, _facts(frozenset(waking)), operator, CATALOG)
    return route, resolved, make_route_table(route, resolved)


def chain_of(table: RouteTable, wanted: str = "Public") -> Chain:
    (found,) = {chain for chain in table.chains.values() if chain.data_class == wanted}
    return found


def waits(table: RouteTable, wanted: str = "Public") -> list[list[float | None]]:
    """For each attempt how long its members wait for a pod."""
    groups = chain_of(table, wanted).groups
    return [[one.attempt.hold.wait_s if one.attempt.hold else -1 for one in group] for group in groups]


@pytest.mark.parametrize(
    ("hold", "public", "confidential"),
    [
        ({"patience": "30s"}, [[30], [None]], [[30]]),
        ({"patience": "30s", "overflowAfter": "5s"}, [[5], [None]], [[30]]),
        ({"patience": "30s", "overflowAfter": "0s"}, [[0], [None]], [[30]]),
        ({}, [[120], [None]], [[120]]),
    ],
)
def test_who_has_another_target_that_may_take_it_waits_for_less(
    hold: Json, public: list[list[float | None]], confidential: list[list[float | None]]
) -> None:
    table = table_of(TWO, hold, "alpha")
    assert waits(table) == public
    assert waits(table, "Confidential") == confidential


CANARY = [{"backend": "alpha", "weight": 9}, {"backend": "beta", "weight": 1}]


def names(table: RouteTable, wanted: str = "Public") -> list[str]:
    """Of each attempt the backends, in the order of the shares."""
    return [" ".join(one.attempt.backend for one in group) for group in chain_of(table, wanted).groups]


def test_of_two_that_sleep_a_request_waits_for_that_into_whose_share_it_falls_and_looks_whether_the_other_is_awake() -> (
    None
):
    table = table_of(CANARY, {"overflowAfter": "5s"}, "alpha", "beta")
    assert waits(table) == [[5, 5], [0, 0], [120, 120], [120, 120]]
    assert names(table) == ["alpha beta", "beta alpha", "alpha beta", "beta alpha"]
    assert [[one.weight for one in group] for group in chain_of(table).groups] == [[9, 1]] * 4


def test_without_overflow_a_canary_is_waited_for_and_then_the_other_one() -> None:
    table = table_of(CANARY, {"patience": "30s"}, "alpha", "beta")
    assert (waits(table), names(table)) == ([[30, 30], [30, 30]], ["alpha beta", "beta alpha"])


@pytest.mark.parametrize("waking", ["alpha", "beta"])
def test_one_that_never_sleeps_is_where_the_others_requests_go(waking: str) -> None:
    """And who finds it down waits for the one that sleeps until patience ends."""
    table = table_of(CANARY, {"overflowAfter": "5s"}, waking)
    own = ["alpha", "beta"].index(waking)
    assert [group[own] for group in waits(table)] == [5, None]
    assert [group[1 - own] for group in waits(table)] == [None, 120]


def test_with_somebody_of_the_next_priority_nobody_comes_back() -> None:
    """It serves; and of two that sleep before it a request waits for one, not for one after the other."""
    table = table_of(
        [*CANARY, {"backend": "openai", "model": "gpt", "priority": 1}], {"overflowAfter": "5s"}, "alpha", "beta"
    )
    assert waits(table) == [[5, 5], [0, 0], [None]]
    assert waits(table, "Confidential") == [[5, 5], [0, 0], [120, 120], [120, 120]]


def test_each_attempt_leads_to_a_cluster_that_is_there() -> None:
    """A wait of nothing is the same wait whoever says so."""
    files = render_files(table_of(CANARY, {"overflowAfter": "0s"}, "alpha", "beta"), GatewaySettings()).routing
    (routes,) = json.loads(files["rds-public.json"])["resources"]
    groups = [one["extension"]["typed_config"]["priority_groups"] for one in routes["cluster_specifier_plugins"]]
    led = {cluster["cluster_name"] for many in groups for group in many for cluster in group["clusters"]}
    assert len(led) == 4
    assert led <= {cluster["name"] for cluster in json.loads(files["cds.json"])["resources"]}


def test_sleepers_of_two_priorities_are_waited_for_one_after_the_other() -> None:
    targets = [{"backend": "alpha"}, {"backend": "beta", "priority": 1}]
    assert waits(table_of(targets, {"overflowAfter": "5s"}, "alpha", "beta")) == [[5], [120]]


def test_an_adapter_and_its_model_are_one_that_sleeps() -> None:
    """Each is answered by that into whose share it falls."""
    targets = [{"backend": "alpha", "weight": 9}, {"backend": "alpha", "model": "acme", "weight": 1}]
    table = table_of(targets, {"overflowAfter": "5s"}, "alpha")
    assert waits(table) == [[5, 5], [0, 0], [120, 120], [120, 120]]
    assert [one.attempt.model for one in chain_of(table).groups[2]] == ["alpha-model", "acme"]


def test_nobody_waits_for_what_does_not_wake_or_without_a_hold() -> None:
    for table in (table_of(TWO, {}, "beta"), table_of(TWO, None, "alpha")):
        assert waits(table) == [[-1], [-1]]
        assert "hold~" not in str(render_files(table, GatewaySettings()).routing)
        assert "x-fairlead-flags" not in str(render_files(table, GatewaySettings()).routing)


def test_a_chain_is_another_one_with_a_hold_and_the_same_without() -> None:
    plain, held = table_of(TWO, None), table_of(TWO, {}, "alpha")
    assert chain_of(plain).route == chain_of(table_of(TWO, {}, "beta")).route
    assert (
        len({chain_of(plain).route, chain_of(held).route, chain_of(table_of(TWO, {"patience": "1m"}, "alpha")).route})
        == 3
    )
    assert chain_of(plain).attempts == chain_of(held).attempts


def test_times_of_the_public_side_leave_room_for_waiting() -> None:
    table = table_of(
        TWO, {"patience": "10s"}, "alpha", timeouts={"responseHeaders": "2s", "idle": "3s", "attempt": "4s"}
    )
    routes = public_routes(table)
    longest = chain_of(table).waits_s[0]
    assert 10 <= longest < 16
    stream, other = (routes[f"{chain_of(table).route}|{kind}"]["route"] for kind in ("true", "false"))
    assert stream["retry_policy"]["per_try_timeout"] == f"{longest + 2:g}s"
    assert other["retry_policy"]["per_try_timeout"] == f"{longest + 4:g}s"
    assert float(stream["idle_timeout"].removesuffix("s")) >= longest + 2 * 2 + 3
    policies = [
        route["route"]["retry_policy"] for host in holding_hosts(table) for route in host["routes"] if "route" in route
    ]
    assert {policy["per_try_timeout"] for policy in policies} == {"2s", "4s"}


def public_routes(table: RouteTable) -> Json:
    (routes,) = json.loads(render_files(table, GatewaySettings()).routing["rds-public.json"])["resources"]
    actions = routes["virtual_hosts"][0]["matcher"]["matcher_tree"]["exact_match_map"]["map"]
    return {key: action["action"]["typed_config"] for key, action in actions.items()}


def holding_hosts(table: RouteTable) -> list[Json]:
    (routes,) = json.loads(render_files(table, GatewaySettings()).routing["rds-egress.json"])["resources"]
    return [host for host in routes["virtual_hosts"] if "-" in host["name"].partition(".")[0]]


def test_a_changed_or_new_or_withdrawn_hold_takes_nothing_away_from_what_runs() -> None:
    tables = [table_of(TWO, hold, "alpha") for hold in (None, {}, {"patience": "1m"}, {"overflowAfter": "1s"})]
    texts = [render_files(table, GatewaySettings()).routing["rds-public.json"] for table in tables]
    assert len(set(texts)) == len(texts)
    assert all(withdraw(text, table) == text for text in texts for table in tables)


def test_a_target_that_goes_is_withdrawn_where_requests_wait_for_it() -> None:
    text = render_files(table_of(TWO, {}, "alpha"), GatewaySettings()).routing["rds-public.json"]
    left = withdraw(text, table_of(TWO[:1], {}, "alpha"))
    assert ".openai.cloud" in text
    assert ".openai.cloud" not in left
    assert ".alpha.local" in left


def test_a_cluster_with_a_hold_is_of_the_same_backend() -> None:
    plain, held = chain_of(table_of(TWO, {}, "alpha")).attempts[0], chain_of(table_of(TWO, {}, "alpha")).held[0]
    assert attempt_cluster(plain) != attempt_cluster(held)
    assert plain_cluster(attempt_cluster(held)) == attempt_cluster(plain) == plain_cluster(attempt_cluster(plain))
    assert backend_of(attempt_cluster(held)) == backend_of(attempt_cluster(plain))


def test_the_limit_counts_all_that_wait_for_a_model_at_a_backend() -> None:
    """Public requests overflow, and Confidential ones wait: two attempts, one number."""
    table = table_of(TWO, {"overflowAfter": "5s", "maxRequests": 7}, "alpha")
    clusters = json.loads(render_files(table, GatewaySettings()).routing["cds.json"])["resources"]
    holding = {cluster["name"]: cluster for cluster in clusters if cluster["name"].startswith("hold~")}
    assert sorted(name.split("~")[1] for name in holding) == ["alpha", "openai"]
    alpha = next(cluster for name, cluster in holding.items() if name.startswith("hold~alpha~"))
    assert alpha["circuit_breakers"]["thresholds"][0]["max_retries"] == 7
    led = [route["route"]["cluster"] for host in holding_hosts(table) for route in host["routes"] if "route" in route]
    assert led.count(alpha["name"]) == 4


def test_no_backend_says_of_itself_that_somebody_waited_for_it() -> None:
    """What waited is in no histogram."""
    for table in (table_of(TWO, None), table_of(TWO, {}, "alpha")):
        (routes,) = json.loads(render_files(table, GatewaySettings()).routing["rds-egress.json"])["resources"]
        leaving = [
            one
            for host in routes["virtual_hosts"]
            for one in host["routes"]
            if "host_rewrite_literal" in one.get("route", {})
        ]
        assert leaving
        assert all("x-fairlead-looks" in one["response_headers_to_remove"] for one in leaving)


def test_the_more_may_wait_the_smaller_their_bodies() -> None:
    for most, size in ((1, 32 * 1024 * 1024), (6, 32 * 1024 * 1024), (100, 2_013_265), (10_000, 20_132)):
        hosts = holding_hosts(table_of(TWO, {"maxRequests": most}, "alpha"))
        assert {host["request_body_buffer_limit"] for host in hosts} == {size}


def test_all_that_wait_in_one_gateway_fit_into_it_together() -> None:
    """Of the targets only those count that are waited for."""
    both = [
        {"backend": "alpha"},
        {"backend": "beta", "priority": 1},
        {"backend": "openai", "model": "gpt", "priority": 2},
    ]
    hosts = holding_hosts(table_of(both, {}, "alpha", "beta"))
    assert {host["request_body_buffer_limit"] for host in hosts} == {192 * 1024 * 1024 // 2 // 100}


def test_a_sidecar_leaves_to_the_gateway_what_may_have_to_wake() -> None:
    table = table_of([*TWO, {"backend": "beta", "priority": 2}], {"patience": "30s"}, "alpha")
    gateway = make_gateway_upstream(f"{HOST}.cluster.local.", 80, HOST, is_tls=False)
    chain = chain_of(make_sidecar_table(table, gateway))
    assert [one.backend for one in chain.attempts] == [GATEWAY]
    assert chain.held == ()
    assert chain.timeouts.response_headers_s >= 3 * 10 + 30
    plain = chain_of(make_sidecar_table(table_of(TWO, None, "alpha"), gateway))
    assert [one.backend for one in plain.attempts] == [GATEWAY]


def test_it_is_explained_how_long_a_request_waits_and_where() -> None:
    hold = {"patience": "30s", "overflowAfter": "5s"}
    route, resolved, table = _read(TWO, hold, "alpha")
    rendered = RenderedRoute(route, _facts(), resolved, table, (), (), (), (), frozenset())
    public = explain(rendered, Question("chat", None, DataClass.PUBLIC))
    told = "alpha (as alpha-model, waiting up to 5s for its first pod), then openai (as gpt)\n"
    assert told in to_text(rendered, public)
    assert to_json(rendered, public)["stages"][0][0]["tried"] == [
        {"backend": "alpha", "model": "alpha-model", "waitSeconds": 5},
        {"backend": "openai", "model": "gpt"},
    ]
    confidential = explain(rendered, Question("chat", None, DataClass.CONFIDENTIAL))
    assert "alpha (as alpha-model, waiting up to 30s for its first pod)\n" in to_text(rendered, confidential)
