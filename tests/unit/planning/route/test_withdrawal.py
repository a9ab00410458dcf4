"""What is withdrawn is withdrawn at once, whatever else a change brings, and nothing more than that."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.planning.route.routes import (
    OPERATOR,
    PROVIDERS,
    carry_out,
    child,
    condition,
    make_facts,
    make_route,
    make_spec,
    plan,
)

from fairlead.facts.route import LocalDeployment, SecretFacts
from fairlead.gateway.envoy.withdrawal import _shorten, withdraw
from fairlead.planning.plan import Plan
from fairlead.planning.route import resolve_route

CLASSES = ("Public", "Internal", "Confidential", "Restricted")
CALLERS = ("team-a", "team-b", "team-c", "stranger", None)
Case = tuple[str | None, str, str, str]


def routes_of(planned: Plan) -> Mapping[str, Any]:
    """The public route configuration that a plan publishes."""
    (text,) = [c.body["data"]["rds-public.json"] for c in planned.children if c.key.name.endswith("-routes")]
    return dict(json.loads(text)["resources"][0])


def permissions(routes: Mapping[str, Any]) -> dict[Case, frozenset[str]]:
    """(caller, model, declared, detected) -> backends that may be tried: read as the classifier and Envoy read it."""
    (host,) = routes["virtual_hosts"]
    lookup = json.loads(host["typed_per_filter_config"]["classify"]["filter_context"]["policy"])
    actions = host["matcher"]["matcher_tree"]["exact_match_map"]["map"]
    found = {}
    for caller, model, declared, detected in itertools.product(CALLERS, lookup["models"], ("-", *CLASSES), CLASSES):
        profile = lookup.get("anonymous") if caller is None else lookup["consumers"].get(caller, lookup["known"])
        verdict = lookup["verdicts"].get(profile, {}).get(f"{declared}|{detected}")
        chain = lookup["models"][model].get(verdict)
        found[caller, model, declared, detected] = (
            backends_of(groups_of(routes, actions[f"{chain.partition('.')[0]}|true"])) if chain else frozenset()
        )
    return found


def groups_of(routes: Mapping[str, Any], action: Any) -> list[Any]:
    """Of the plugin that the action names; none for one that answers by itself."""
    route = action["action"]["typed_config"]
    if "direct_response" in route:
        return []
    plugins = {one["extension"]["name"]: one["extension"] for one in routes["cluster_specifier_plugins"]}
    return list(plugins[route["route"]["cluster_specifier_plugin"]]["typed_config"]["priority_groups"])


def backends_of(groups: list[Any]) -> frozenset[str]:
    """Of their clusters, which are called `to~<model>.<place>.<backend>.<kind>`."""
    return frozenset(cluster["cluster_name"].split(".")[2] for group in groups for cluster in group["clusters"])


ROLES = st.lists(
    st.fixed_dictionaries(
        {
            "consumers": st.lists(st.sampled_from(["team-a", "team-b", "team-c"]), unique=True),
            "llmAccess": st.lists(st.sampled_from(["Local", "Cloud"]), unique=True, min_size=1),
            "dataAccess": st.lists(st.sampled_from(CLASSES[:3]), unique=True, min_size=1),
            "mayDeclare": st.lists(st.sampled_from(CLASSES[:2]), unique=True),
        }
    ),
    min_size=1,
    max_size=3,
)
TARGETS = st.lists(st.sampled_from(["local", "openai", "groq"]), unique=True, min_size=1)


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    spec = make_spec()
    spec["backends"].append(
        {"name": "groq", "provider": {"type": "Groq", "secretRef": {"name": "groq", "key": "apiKey"}}}
    )
    spec["roles"] = [{"name": f"role-{number}", **role} for number, role in enumerate(draw(ROLES))]
    spec["models"] = [
        {"name": name, "targets": [{"backend": backend} for backend in draw(TARGETS)]} for name in ("chat", "small")
    ]
    spec["dataPolicy"] = {"default": draw(st.sampled_from(CLASSES[:3])), "denyClasses": list(CLASSES)}
    if draw(st.booleans()):
        spec["dataPolicy"]["detectors"] = [{"name": "cards", "class": "Confidential", "builtin": "PaymentCard"}]
    spec["authentication"] = {"apiKeys": {"secretRef": {"name": "clients"}}}
    if draw(st.booleans()):
        spec["authentication"]["anonymous"] = {"role": "role-0"}
    return spec


def facts() -> Any:
    base = make_facts()
    return make_facts(secrets={**base.secrets, "groq": SecretFacts("groq", "provider", frozenset({"api.groq.com"}))})


@settings(max_examples=60, deadline=None)
@given(specs(), specs())
def test_a_refused_route_withdraws_exactly_what_the_new_spec_does_not_permit(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    first = plan(make_route(old), facts())
    observed = carry_out(first)
    wanted = permissions(routes_of(plan(make_route(new), facts())))
    new["backends"][1]["provider"]["region"] = "mars"  # refused, for a reason that has nothing to do with it
    refused = plan(make_route(new, generation=2), facts(), observed)
    assert condition(refused, "Accepted")["status"] == "False"
    before, after = permissions(routes_of(first)), permissions(routes_of(refused))
    for case, backends in before.items():
        # Where openai would be is not known in the refused spec, but it is named there, and stays for whom it would be permitted.
        assert after[case] == backends & wanted.get(case, frozenset()), case
    again = plan(make_route(new, generation=2), facts(), carry_out(refused, observed))
    assert routes_of(again) == routes_of(refused), "a second pass changes nothing"


@settings(max_examples=60, deadline=None)
@given(specs(), specs())
def test_an_accepted_change_never_widens_before_its_step_and_narrows_with_the_first(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    first = plan(make_route(old), facts())
    observed = carry_out(first)
    wanted = permissions(routes_of(plan(make_route(new), facts())))
    step = plan(make_route(new, generation=2), facts(), observed)
    for case, backends in permissions(routes_of(step)).items():
        assert backends <= wanted[case], case


def test_nothing_is_touched_when_nothing_is_withdrawn() -> None:
    spec = make_spec()
    first = plan(make_route(spec))
    spec["models"].append({"name": "small", "targets": [{"backend": "local"}]})
    spec["backends"][1]["provider"]["region"] = "mars"
    refused = plan(make_route(spec, generation=2), make_facts(), carry_out(first))
    assert routes_of(refused) == routes_of(first)


@pytest.mark.parametrize("opaque", ["Confidential", "Restricted"])
def test_detectors_and_opaque_content_only_grow(opaque: str) -> None:
    spec = make_spec()
    first = plan(make_route(spec))
    spec["dataPolicy"] = {
        "detectors": [{"name": "secrets", "class": "Restricted", "builtin": "Secrets"}],
        "opaqueContent": opaque,
    }
    spec["backends"][1]["provider"]["region"] = "mars"
    refused = plan(make_route(spec, generation=2), make_facts(), carry_out(first))
    (host,) = routes_of(refused)["virtual_hosts"]
    lookup = json.loads(host["typed_per_filter_config"]["classify"]["filter_context"]["policy"])
    assert [detector["name"] for detector in lookup["detectors"]] == ["secrets", "cards"]
    assert lookup["opaque"] == opaque


def patterns_of(routes: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    """The class that the classifier knows, and detector, class and pattern as Envoy looks for them."""
    (host,) = routes["virtual_hosts"]
    filters = host["typed_per_filter_config"]
    policies = filters["patterns"]["rbac"]["shadow_rules"]["policies"] if "patterns" in filters else {}
    names = [".".join(name.split(".")[:3]) for name in sorted(policies)]
    return json.loads(filters["classify"]["filter_context"]["policy"]).get("patterns"), names


def with_patterns(*detectors: tuple[str, str, list[str]]) -> dict[str, Any]:
    spec = make_spec()
    found = [{"name": name, "class": data_class, "patterns": patterns} for name, data_class, patterns in detectors]
    spec["dataPolicy"]["detectors"] = [*spec["dataPolicy"]["detectors"], *found]
    return spec


@pytest.mark.parametrize("refused", [False, True])
def test_patterns_only_grow_with_the_first_step(refused: bool) -> None:
    first = plan(make_route(with_patterns(("old", "Confidential", ["a", "b"]), ("same", "Internal", ["c"]))))
    assert patterns_of(routes_of(first)) == (
        "Confidential",
        ["2.Confidential.old", "2.Confidential.old", "3.Internal.same"],
    )
    spec = with_patterns(("same", "Internal", ["c"]), ("new", "Restricted", ["d"]))
    spec["backends"].append({"name": "more", "deployment": {"name": "llama-70b"}})
    spec["models"][0]["targets"].append({"backend": "more", "priority": 1})
    if refused:
        spec["backends"][1]["provider"]["region"] = "mars"
    step = plan(make_route(spec, generation=2), make_facts(), carry_out(first))
    assert patterns_of(routes_of(step)) == (
        "Restricted",
        ["1.Restricted.new", "2.Confidential.old", "2.Confidential.old", "3.Internal.same"],
    )


def test_the_first_pattern_of_all_holds_with_the_first_step() -> None:
    first = plan()
    assert patterns_of(routes_of(first)) == (None, [])
    spec = with_patterns(("new", "Confidential", ["d"]))
    spec["backends"][1]["provider"]["region"] = "mars"
    refused = plan(make_route(spec, generation=2), make_facts(), carry_out(first))
    assert patterns_of(routes_of(refused)) == ("Confidential", ["2.Confidential.new"])


def test_a_pattern_that_cannot_be_holds_up_no_other() -> None:
    """Envoy would refuse all of the routes for it, and what is withdrawn with them."""
    first = plan()
    spec = with_patterns(("new", "Confidential", ["d", "a("]), ("broken", "Restricted", ["b*"]))
    spec["roles"][0]["llmAccess"] = ["Local"]
    refused = plan(make_route(spec, generation=2), make_facts(), carry_out(first))
    assert condition(refused, "Accepted")["reason"] == "PatternRefused"
    assert patterns_of(routes_of(refused)) == ("Confidential", ["2.Confidential.new"])
    reached = permissions(routes_of(refused))
    assert all("openai" not in backends for (caller, *_), backends in reached.items() if caller == "team-a")


def test_patterns_that_are_taken_back_change_nothing_by_themselves() -> None:
    first = plan(make_route(with_patterns(("old", "Confidential", ["a"]))))
    refused = make_spec()
    refused["backends"][1]["provider"]["region"] = "mars"
    assert routes_of(plan(make_route(refused, generation=2), make_facts(), carry_out(first))) == routes_of(first)


def test_what_stays_is_charged_as_before() -> None:
    """Until the next step, callers have other profiles, and their limits with them."""
    spec = make_spec()
    spec["gateway"] = {"replicas": 1}
    spec["roles"][0]["limits"] = {"tokensPerMinute": 500}
    running = carry_out(plan(make_route(spec)))
    spec["backends"][1]["provider"]["region"] = "mars"
    spec["roles"][0]["mayDeclare"] = []
    refused = plan(make_route(spec, generation=2), observed=running)
    (host,) = routes_of(refused)["virtual_hosts"]
    lookup = json.loads(host["typed_per_filter_config"]["classify"]["filter_context"]["policy"])
    assert lookup["consumers"]["team-a"] not in ("p0", "p1", "p2"), "nothing was withdrawn"
    assert lookup["tokens"] == {lookup["consumers"]["team-a"]: "500"}


def test_a_key_that_was_taken_back_is_gone_though_the_route_is_refused() -> None:
    first = plan()
    spec = make_spec()
    spec["backends"][1]["provider"]["region"] = "mars"
    from fairlead.facts.route import ClientsSecret

    clients = ClientsSecret("clients", "clients", "uid/8", {"team-b": b"key-of-team-b"})
    refused = plan(make_route(spec, generation=2), make_facts(clients=clients), carry_out(first))
    (secret,) = [c for c in refused.children if c.key.kind == "Secret"]
    import base64

    text = base64.b64decode(secret.body["data"]["authentication.json"]).decode()
    assert "key-of-team-b" in text
    assert "key-of-team-a" not in text


def test_whatever_is_drawn_all_that_stay_are_tried() -> None:
    """Three share the requests and one is withdrawn: in the chain that is left, each draw still comes to both others, each once."""
    routes = json.loads(wanted_routes(["local", "openai", "groq"]))["resources"][0]
    (host,) = routes["virtual_hosts"]
    actions = host["matcher"]["matcher_tree"]["exact_match_map"]["map"]
    many = [groups_of(routes, action) for action in actions.values()]
    all_three = next(groups for groups in many if len(backends_of(groups)) == 3)
    clusters = {cluster["cluster_name"] for group in all_three for cluster in group["clusters"]}
    for gone in clusters:
        groups = [group["clusters"] for group in _shorten(all_three, frozenset(clusters - {gone}))]
        weights = [[cluster["weight"] for cluster in group] for group in groups]
        assert len(groups) == 2
        assert weights == [[90, 10, 5]] * 2
        for column in zip(*groups, strict=True):
            assert {cluster["cluster_name"] for cluster in column} == clusters - {gone}


def test_without_shortening_nothing_is_added_and_nobody_reaches_more() -> None:
    """For a routing that would not fit: whoever loses one place of a chain loses the chain, until the next step."""
    text = wanted_routes(["local", "openai", "groq"])
    spec = make_spec()
    spec["models"][0]["targets"] = [{"backend": "local"}]
    table = resolve_route(make_route(spec), make_facts(), OPERATOR, PROVIDERS)[1]
    before, long, short = (
        json.loads(found)["resources"][0]
        for found in (text, withdraw(text, table), withdraw(text, table, shorten=False))
    )
    was, shortened, dropped = permissions(before), permissions(long), permissions(short)
    lost = {case for case in was if shortened[case] != was[case]}
    assert lost
    assert {case: dropped[case] for case in lost} == dict.fromkeys(lost, frozenset())
    assert all(dropped[case] == was[case] for case in was.keys() - lost)
    assert len(short["cluster_specifier_plugins"]) <= len(before["cluster_specifier_plugins"])


def wanted_routes(backends: list[str]) -> str:
    spec = make_spec()
    groq = {"name": "groq", "provider": {"type": "Groq", "secretRef": {"name": "groq", "key": "apiKey"}}}
    spec["backends"].append(groq)
    weights = {"local": 90, "openai": 10, "groq": 5}
    spec["models"][0]["targets"] = [{"backend": name, "model": "m", "weight": weights[name]} for name in backends]
    secrets = {**make_facts().secrets, "groq": SecretFacts("groq", "provider", frozenset({"api.groq.com"}))}
    planned = plan(make_route(spec), make_facts(secrets=secrets))
    (text,) = [c.body["data"]["rds-public.json"] for c in planned.children if c.key.name.endswith("-routes")]
    return str(text)


@pytest.mark.parametrize("refused", [False, True])
def test_a_provider_is_told_to_keep_nothing_with_the_first_step(refused: bool) -> None:
    """Also by routes that a refused spec leaves as they are, and by places that the next step takes away."""
    spec = make_spec()
    spec["dataPolicy"]["allowStore"] = True
    old = plan(make_route(spec))
    assert '"store"' not in egress_of(old)
    narrowed = make_spec()
    narrowed["models"][0]["targets"][1]["model"] = "another"
    if refused:
        narrowed["roles"][0]["dataAccess"] = ["Restricted"]
    made = plan(make_route(narrowed, generation=2), make_facts(), carry_out(old))
    hosts = json.loads(egress_of(made))["resources"][0]["virtual_hosts"]
    clouds = [host for host in hosts if host["name"].endswith(".cloud")]
    assert clouds
    for host in clouds:
        for route in host["routes"]:
            if "route" in route:
                data = route["metadata"]["filter_metadata"]["envoy.filters.http.lua"]
                assert data["store"] == "false"
                assert "/v1/responses" in data["unasked"].split()


def egress_of(planned: Plan) -> str:
    return str(child(planned, "ConfigMap", "assistants-gateway-egress")["data"]["rds-egress.json"])


@pytest.mark.parametrize("refused", [False, True])
def test_what_has_become_restricted_leaves_no_sidecar_in_the_open(refused: bool) -> None:
    """The gateway has no TLS here, so that a sidecar must not even pass it on."""
    encrypted = LocalDeployment(
        "llama-70b",
        "llama-3.1-70b",
        8443,
        ready=2,
        is_confidential=True,
        is_tls=True,
        certificate_secret="c",
        is_encrypted=True,
    )
    facts = make_facts(deployments={"llama-70b": encrypted})
    spec = make_spec()
    spec["gateway"] = {"applicationSidecars": True}
    spec["models"] = [{"name": "chat", "targets": [{"backend": "local"}]}]
    grants = ["Internal", "Confidential", "Restricted"]
    spec["roles"] = [{"name": "a", "consumers": ["team-a"], "llmAccess": ["Local"], "dataAccess": grants}]
    spec["authentication"] = {"apiKeys": {"secretRef": {"name": "clients"}}}
    spec["dataPolicy"] = {}
    old = plan(make_route(spec), facts)
    assert "gateway~" in sidecar_of(old)
    raised = {**spec, "dataPolicy": {"floor": "Restricted"}}
    if refused:
        raised["models"] = [*spec["models"], {"name": "bad", "targets": [{"backend": "openai", "model": "x"}]}]
    made = plan(make_route(raised, generation=2), facts, carry_out(old))
    assert (condition(made, "Accepted")["status"] == "False") is refused
    assert "gateway~" not in sidecar_of(made)


def sidecar_of(planned: Plan) -> str:
    """What sidecars of applications try."""
    (routes,) = [
        one
        for one in planned.children
        if one.key.name.startswith("assistants-gateway-sidecar") and one.key.name.endswith("-routes")
    ]
    return str(routes.body["data"]["rds-public.json"])
