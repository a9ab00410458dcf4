"""Whatever order the files of a step reach a gateway in, no route of it ever names a cluster that it does not have."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

import pytest
from tests.unit.planning.route.routes import carry_out, make_facts, make_route, make_spec, plan

from fairlead.facts.observed import Observed
from fairlead.planning.route.files import read_routing
from fairlead.planning.route.publishing import VERSIONED, Phase, choose_step, is_loaded

Files = Mapping[str, str]


def routing_of(spec: dict[str, Any]) -> dict[str, str]:
    """The files of a route that is published for the first time."""
    observed = carry_out(plan(make_route(spec), make_facts()))
    files = read_routing(observed.children, make_route(spec).metadata)
    assert files is not None
    return files


def clusters_named_in(node: Any) -> set[str]:
    """All clusters that routes lead to."""
    if isinstance(node, dict):
        own = {node[key] for key in ("cluster", "cluster_name") if isinstance(node.get(key), str)}
        return own.union(*(clusters_named_in(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(clusters_named_in(item) for item in node))
    return set()


def assert_consistent(files: Files) -> None:
    """Whatever the public routes can reach is there: the attempt's cluster, its virtual host of the egress, the backend's cluster, its
    key. What they cannot reach may be half there."""
    clusters = {cluster["name"]: cluster for cluster in json.loads(files["cds.json"])["resources"]}
    (egress,) = json.loads(files["rds-egress.json"])["resources"]
    hosts = {domain: host for host in egress["virtual_hosts"] for domain in host["domains"]}
    attempts = clusters_named_in(json.loads(files["rds-public.json"])["resources"])
    assert attempts
    assert attempts <= set(clusters)
    assert {name.removeprefix("to~") for name in attempts} <= set(hosts)
    backends = clusters_named_in([hosts[name.removeprefix("to~")] for name in attempts])
    assert backends <= set(clusters)
    assert {f"{name}.json" for name in _keys_in([clusters[name] for name in backends])} <= set(files)


def _keys_in(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["name"]} if "sds_config" in node else set()
        return own.union(*(_keys_in(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(_keys_in(item) for item in node))
    return set()


def with_other_targets() -> dict[str, Any]:
    spec = make_spec()
    spec["backends"].append(
        {"name": "groq", "provider": {"type": "Groq", "secretRef": {"name": "groq", "key": "apiKey"}}}
    )
    spec["models"][0]["targets"] = [{"backend": "local"}, {"backend": "groq", "model": "llama", "priority": 1}]
    return spec


def with_other_weights() -> dict[str, Any]:
    spec = make_spec()
    spec["models"][0]["targets"][0]["weight"] = 50
    return spec


def with_one_more_model() -> dict[str, Any]:
    spec = make_spec()
    spec["models"].append({"name": "small", "targets": [{"backend": "local", "model": "llama-8b"}]})
    return spec


def facts_with_groq() -> Any:
    from fairlead.facts.route import SecretFacts

    facts = make_facts()
    groq = SecretFacts("groq", "provider", frozenset({"api.groq.com"}))
    return make_facts(secrets={**facts.secrets, "groq": groq})


def wanted_files(spec: dict[str, Any]) -> dict[str, str]:
    observed = carry_out(plan(make_route(spec), facts_with_groq()))
    files = read_routing(observed.children, make_route(spec).metadata)
    assert files is not None
    return files


#: Those that refer to each other.
ORDERED = ("rds-public.json", "rds-egress.json", "cds.json")
CHANGES = [with_other_targets, with_other_weights, with_one_more_model]


@pytest.mark.parametrize("order", list(itertools.permutations(ORDERED)), ids=lambda order: "-".join(order))
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("back", [False, True])
def test_no_route_without_its_cluster_in_any_order(change: Any, back: bool, order: tuple[str, ...]) -> None:
    old, new = wanted_files(make_spec()), wanted_files(change())
    if back:
        old, new = new, old
    gateway = dict(old)
    live: dict[str, str] = dict(old)
    phases: list[Phase] = []
    for _ in range(10):
        step = choose_step(new, live, [_versions(gateway)])
        if dict(step.files) == live and step.is_last and is_loaded(live, [_versions(gateway)]):
            break
        if dict(step.files) != live:
            phases.append(step.phase)
        live = dict(step.files)
        for name in sorted(set(live) - set(ORDERED)):  # keys' sources are read with the clusters that name them
            gateway[name] = live[name]
        for file in order:
            gateway[file] = live[file]
            assert_consistent(gateway)
    assert {name: gateway[name] for name in new} == new
    assert live == new
    assert len(phases) <= 3


def test_one_step_when_nothing_is_added_or_removed() -> None:
    old, new = wanted_files(make_spec()), wanted_files(with_other_weights())
    step = choose_step(new, old, [_versions(old)])
    assert step.is_last
    assert dict(step.files) == new


def with_limits(spec: dict[str, Any] | None = None) -> dict[str, Any]:
    return {**(spec or make_spec()), "limits": {"requestsPerMinute": 60}}


def test_limits_come_with_the_first_step_and_are_waited_for() -> None:
    old, new = wanted_files(make_spec()), wanted_files(with_limits())
    step = choose_step(new, old, [_versions(old)])
    assert (dict(step.files), step.is_last) == (new, True)
    assert not is_loaded(new, [_versions(old)])
    both = wanted_files(with_limits(with_other_targets()))
    first = choose_step(both, old, [_versions(old)])
    assert first.phase is Phase.ADD
    assert first.files["limit-requests.json"] == both["limit-requests.json"]


def test_what_a_release_without_limits_has_published_is_gone_on_from() -> None:
    """Were it taken for nothing, an upgrade would switch before what it needs is added, and a refused route could withdraw nothing."""
    observed = carry_out(plan())
    key = next(key for key in observed.children if key.name.endswith("-limits"))
    earlier = Observed(children={one: body for one, body in observed.children.items() if one != key})
    live = read_routing(earlier.children, make_route().metadata)
    assert live is not None
    assert is_loaded(live, [_versions(live)])
    assert choose_step(wanted_files(with_other_targets()), live, [_versions(live)]).phase is Phase.ADD
    refused = make_spec()
    refused["backends"][1]["provider"]["region"] = "mars"
    refused["roles"][0]["llmAccess"] = ["Local"]
    planned = plan(make_route(refused, generation=2), observed=earlier)
    written = {one.key.name: one.body for one in planned.children}
    assert ".openai." not in written["assistants-gateway-routes"]["data"]["rds-public.json"]
    assert written["assistants-gateway-limits"]["data"] == {}


def test_a_step_waits_for_every_gateway() -> None:
    old, new = wanted_files(make_spec()), wanted_files(with_other_targets())
    added = dict(choose_step(new, old, [_versions(old)]).files)
    assert added["rds-public.json"] == old["rds-public.json"]
    waiting = choose_step(new, added, [_versions(added), _versions(old)])
    assert dict(waiting.files) == added
    assert not waiting.is_last
    switched = choose_step(new, added, [_versions(added), _versions(added)])
    assert switched.files["rds-public.json"] == new["rds-public.json"]
    assert switched.phase is Phase.SWITCH


def test_a_change_of_mind_halfway() -> None:
    """While one change is being added, another one is asked for: what runs stays consistent and ends as asked last."""
    first, second, third = (
        wanted_files(make_spec()),
        wanted_files(with_other_targets()),
        wanted_files(with_one_more_model()),
    )
    live = dict(choose_step(second, first, [_versions(first)]).files)
    gateway = dict(first)
    for _ in range(10):
        step = choose_step(third, live, [_versions(gateway)])
        live = dict(step.files)
        assert_consistent(live)
        gateway = dict(live)
    assert live == third


def test_unreadable_live_files_are_replaced() -> None:
    new = wanted_files(make_spec())
    for broken in (None, {}, {"cds.json": "{}"}):
        assert dict(choose_step(new, broken, []).files) == new


def _versions(files: Files) -> dict[str, str]:
    return {name: json.loads(files[name])["version_info"] for name in VERSIONED if name in files}


def test_observed_of_nothing_has_no_routing() -> None:
    assert read_routing(Observed().children, make_route().metadata) is None


@pytest.mark.parametrize("file", VERSIONED)
@pytest.mark.parametrize("spoil", [lambda t: t[:-9], lambda t: t.replace("resources", "resource"), lambda t: t[:0]])
def test_what_others_edited_counts_as_nothing(file: str, spoil: Any) -> None:
    """A ConfigMap that was changed by hand, into no JSON at all perhaps, must not stop the next plan, which puts it right."""
    observed = carry_out(plan(make_route(make_spec()), make_facts()))
    good = read_routing(observed.children, make_route().metadata)
    assert good is not None
    children = {
        key: {**body, "data": {name: spoil(text) if name == file else text for name, text in body["data"].items()}}
        if key.kind == "ConfigMap"
        else body
        for key, body in observed.children.items()
    }
    assert read_routing(children, make_route().metadata) is None
    mended = carry_out(plan(make_route(make_spec()), make_facts(), Observed(children=children)))
    assert read_routing(mended.children, make_route().metadata) == good
