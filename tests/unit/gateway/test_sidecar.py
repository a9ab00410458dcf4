"""What a sidecar routes by: deployments first where that changes nothing, the gateway for all else, and nothing that needs a key."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from tests.gateway.world import CATALOG, TRUSTED_HOST, _facts, backend_entries, make_route_table, parse_route

from fairlead.facts.observed import OperatorFacts
from fairlead.gateway.envoy.sidecar import render_sidecar_files
from fairlead.gateway.sidecar import make_gateway_upstream, make_sidecar_table
from fairlead.gateway.table import GATEWAY, Chain, RouteTable
from fairlead.planning.route.backends import resolve_backends

Json = dict[str, Any]
HOST = "assistants-gateway.ml.svc"


def gateway(*, is_tls: bool = False) -> Any:
    return make_gateway_upstream(f"{HOST}.cluster.local.", 443 if is_tls else 80, HOST, is_tls=is_tls)


def table_of(targets: list[Json], encrypted: tuple[str, ...] = (), **spec: Any) -> RouteTable:
    route = parse_route(
        {
            "backends": backend_entries(),
            "models": [{"name": "chat", "targets": targets}],
            "authentication": {"anonymous": {"role": "all"}},
            "roles": [
                {
                    "name": "all",
                    "llmAccess": ["Local", "Cloud"],
                    "dataAccess": ["Public", "Internal", "Confidential", "Restricted"],
                    "mayDeclare": ["Public"],
                }
            ],
            **spec,
        }
    )
    facts = _facts()
    facts = replace(
        facts,
        deployments={
            name: replace(one, is_tls=True, is_encrypted=True, certificate_secret="own") if name in encrypted else one
            for name, one in facts.deployments.items()
        },
    )
    operator = OperatorFacts(trusted_hosts=frozenset({TRUSTED_HOST}))
    return make_route_table(route, resolve_backends(route, facts, operator, CATALOG))


def tried(targets: list[Json], wanted: str = "Public", *, is_tls: bool = False, **more: Any) -> list[list[str]]:
    """Backends of each attempt of the chain for one class."""
    return [[one.attempt.backend for one in group] for group in chain_of(targets, wanted, is_tls=is_tls, **more).groups]


def chain_of(targets: list[Json], wanted: str, *, is_tls: bool = False, **more: Any) -> Chain:
    table = make_sidecar_table(table_of(targets, **more), gateway(is_tls=is_tls))
    (found,) = {chain for chain in table.chains.values() if chain.data_class == wanted}
    return found


def to(*names: str, weight: int = 1, priority: int = 0) -> list[Json]:
    return [{"backend": name, "weight": weight, "priority": priority} for name in names]


def test_a_chain_of_deployments_needs_no_gateway() -> None:
    targets = [*to("alpha", "beta"), *to("gamma", priority=1)]
    assert tried(targets) == [["alpha", "beta"], ["beta", "alpha"], ["gamma"]]
    assert make_sidecar_table(table_of(targets), gateway()).gateway is None


def test_deployments_that_come_first_are_tried_here_and_the_gateway_last() -> None:
    targets = [*to("alpha"), *to("openai", priority=1), *to("beta", priority=2)]
    assert tried(targets) == [["alpha"], [GATEWAY]]
    # To whom the cloud is closed there is nobody but deployments, and so no gateway.
    assert tried(targets, "Confidential") == [["alpha"], ["beta"]]


def test_a_choice_between_a_deployment_and_a_provider_is_the_gateways() -> None:
    assert tried([*to("alpha", weight=90), *to("openai", weight=10)]) == [[GATEWAY]]
    assert tried([*to("alpha"), *to("beta", "groq", priority=1)]) == [["alpha"], [GATEWAY]]


def test_a_provider_without_weight_comes_after_the_deployments_beside_it() -> None:
    assert tried([*to("alpha", "beta"), *to("openai", weight=0)]) == [["alpha", "beta"], ["beta", "alpha"], [GATEWAY]]


def test_deployments_with_tls_are_reached_through_the_gateway() -> None:
    assert tried(to("alpha"), "Confidential", encrypted=("alpha",)) == [[GATEWAY]]
    assert tried([*to("alpha"), *to("beta", priority=1)], "Internal", encrypted=("beta",)) == [["alpha"], [GATEWAY]]


def test_restricted_requests_go_on_over_tls_only() -> None:
    assert tried(to("alpha"), "Restricted", encrypted=("alpha",), is_tls=True) == [[GATEWAY]]
    assert tried(to("alpha"), "Restricted", encrypted=("alpha",)) == []


def test_a_route_with_limits_is_passed_on_as_a_whole() -> None:
    table = make_sidecar_table(table_of(to("alpha"), limits={"requestsPerMinute": 60}), gateway())
    assert {tuple(one.backend for one in chain.attempts) for chain in table.chains.values()} == {(GATEWAY,)}
    assert {(profile.limits.requests, profile.limits.tokens) for profile in table.profiles} == {(None, None)}
    assert table.upstreams == ()


def test_the_gateway_is_waited_for_as_long_as_it_may_wait_itself() -> None:
    own = chain_of([*to("alpha"), *to("beta", priority=1)], "Public").timeouts
    passed = chain_of([*to("alpha"), *to("openai", "groq", priority=1)], "Public").timeouts
    assert own.response_headers_s == 10
    assert passed.response_headers_s == 31
    assert (passed.idle_s, passed.request_s) == (own.idle_s, own.request_s)


def test_a_request_without_stream_is_waited_for_as_well() -> None:
    targets = [*to("alpha"), *to("openai", priority=1)]
    assert chain_of(targets, "Public").timeouts.attempt_s is None
    spec = {"models": [{"name": "chat", "targets": targets, "timeouts": {"attempt": "20s"}}]}
    assert chain_of(targets, "Public", **spec).timeouts.attempt_s == 41.0
    own = {"models": [{"name": "chat", "targets": to("alpha"), "timeouts": {"attempt": "20s"}}]}
    assert chain_of(to("alpha"), "Public", **own).timeouts.attempt_s == 20.0, "nobody is waited for behind it"


def test_who_may_what_is_the_same_as_at_the_gateway() -> None:
    table = table_of([*to("alpha"), *to("openai", priority=1)])
    made = make_sidecar_table(table, gateway())
    assert made.chains.keys() == table.chains.keys()
    assert made.policy == table.policy
    assert [profile.verdicts for profile in made.profiles] == [profile.verdicts for profile in table.profiles]


@pytest.mark.parametrize("is_tls", [False, True])
def test_no_provider_is_in_the_files(is_tls: bool) -> None:
    targets = [*to("alpha", "openai"), *to("trusted", "groq", priority=1), *to("beta", priority=2)]
    files = render_sidecar_files(make_sidecar_table(table_of(targets), gateway(is_tls=is_tls)))
    text = json.dumps(files)
    assert not [word for word in ("openai", "groq", "trusted", "key-", "injected_credentials") if word in text]
    clusters = [one["name"] for one in json.loads(files["cds.json"])["resources"]]
    assert {name.split("~")[1] for name in clusters if name.startswith("be~")} == {"alpha", "beta"}
    assert len([name for name in clusters if name.startswith("gateway~")]) == 1


def test_files_of_equal_routes_are_equal_and_another_gateway_is_another_cluster() -> None:
    table = table_of([*to("alpha"), *to("openai", priority=1)])
    made = render_sidecar_files(make_sidecar_table(table, gateway()))
    assert made == render_sidecar_files(make_sidecar_table(table, gateway()))
    assert made != render_sidecar_files(make_sidecar_table(table, gateway(is_tls=True)))
