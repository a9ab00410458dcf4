"""What is published for sidecars in application pods: nothing unless asked for, no provider ever, narrowed at once, listeners that stay."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from tests.unit.planning.route.routes import carry_out, condition, make_facts, make_route, make_spec, plan
from tests.unit.planning.route.test_planner import served
from tests.unit.planning.route.test_revision import newer

from fairlead.facts.observed import ObjectKey, Observed
from fairlead.planning.plan import Plan
from fairlead.planning.route import sidecars

__all__ = ["newer"]

Json = dict[str, Any]
PARTS = ("clusters", "egress", "routes", "listeners")


def spec(**gateway: Any) -> Json:
    made = make_spec()
    made["models"][0]["targets"][1]["priority"] = 1
    return {**made, "gateway": {"applicationSidecars": True, **gateway}}


def files(planned: Plan) -> dict[str, Mapping[str, str]]:
    """Part -> what its ConfigMap holds."""
    prefix = "assistants-gateway-sidecar1-"
    return {
        child.key.name.removeprefix(prefix): dict(child.body["data"])
        for child in planned.children
        if child.key.name.startswith(prefix)
    }


def test_nothing_unless_the_route_asks_for_it() -> None:
    assert files(plan()) == {}
    found = files(plan(make_route(spec())))
    assert tuple(found) == PARTS
    assert [list(data) for data in found.values()] == [
        ["cds.json"],
        ["rds-egress.json"],
        ["rds-public.json"],
        ["lds.json"],
    ]


def test_what_is_published_is_published_once() -> None:
    first = plan(make_route(spec()))
    again = plan(make_route(spec()), observed=carry_out(first))
    assert {child.key: child.digest for child in again.children} == {
        child.key: child.digest for child in first.children
    }
    assert again.deletes == ()


def test_no_gateway_is_replaced_for_it() -> None:
    before, _ = served()
    after = {child.key: child.digest for child in plan(make_route(spec())).children}
    for kind, name in (("Deployment", "assistants-gateway"), ("ConfigMap", "assistants-gateway-bootstrap")):
        key = ObjectKey(kind, "ml", name)
        assert after[key] == {child.key: child.digest for child in before.children}[key]


@pytest.mark.parametrize("gateway", [{}, {"tls": {"secretName": "assistants-tls"}}, {"service": {"port": 8000}}])
def test_nothing_that_a_provider_needs_is_in_it(gateway: Json) -> None:
    text = json.dumps(files(plan(make_route(spec(**gateway)))))
    for word in ("openai", "key-", "injected_credentials", "assistants-tls", "tls.key"):
        assert word not in text
    assert "assistants-gateway.ml.svc.cluster.local." in text
    port = {"service": "8000", "tls": "443"}.get(next(iter(gateway), ""), "80")
    assert f'\\"port_value\\":{port}' in text


def test_taken_back_nothing_is_left_in_it() -> None:
    made = plan(make_route(spec()))
    observed = carry_out(made)
    after = plan(make_route(generation=2), observed=observed)
    assert files(after) == {part: {} for part in PARTS}
    assert after.deletes == ()
    assert files(plan(make_route(generation=2), observed=carry_out(after, observed))) == files(after)


def test_what_is_no_longer_permitted_goes_at_once_though_the_rest_is_refused() -> None:
    made = spec()
    observed = carry_out(plan(make_route(made)))
    assert reaches(files(plan(make_route(made), observed=observed))["routes"], "local")
    # Nobody may use deployments any more, and a provider that is not trusted may not be called so.
    made["roles"] = [{**role, "llmAccess": ["Cloud"], "dataAccess": ["Public"]} for role in made["roles"]]
    made["backends"][1]["provider"]["trusted"] = True
    after = plan(make_route(made, generation=2), observed=observed)
    assert condition(after, "Accepted")["status"] == "False"
    found = files(after)
    assert list(found) == ["routes"]
    assert not reaches(found["routes"], "local")


def test_what_does_not_fit_when_it_is_narrowed_is_narrowed_further() -> None:
    route = make_route(spec())
    observed = carry_out(plan(route))

    def narrow(text: str, *, shorten: bool = True) -> str:
        return text + " " * 1024 * 1024 if shorten else text

    (made,) = sidecars.narrow_sidecar_maps(route, narrow, observed)
    assert len(made["data"]["rds-public.json"]) < 1024 * 1024


def test_a_limit_in_a_spec_that_is_refused_takes_nothing_from_anybody() -> None:
    made = spec()
    first = plan(make_route(made))
    made["limits"] = {"requestsPerMinute": 60}
    made["backends"][1]["provider"]["trusted"] = True
    after = plan(make_route(made, generation=2), observed=carry_out(first))
    assert files(after) == {"routes": files(first)["routes"]}


def reaches(routes: Mapping[str, str], backend: str) -> bool:
    """Whether some chain tries it."""
    return f".{backend}.local" in json.dumps(json.loads(routes["rds-public.json"]))


def test_listeners_stay_as_long_as_those_of_the_gateways(request: pytest.FixtureRequest, monkeypatch: Any) -> None:
    route = make_route(spec())
    first = plan(route)
    observed = carry_out(first)
    request.getfixturevalue("newer")
    render = sidecars.render_sidecar_files

    def other(*arguments: Any) -> dict[str, str]:
        made = render(*arguments)
        return {**made, "lds.json": made["lds.json"].replace('"10s"', '"11s"')}

    monkeypatch.setattr(sidecars, "render_sidecar_files", other)
    assert files(plan(route, observed=observed)) == files(first)
    latest = plan(make_route(spec(revision="Latest"), generation=2), observed=observed)
    assert '"11s"' in files(latest)["listeners"]["lds.json"]
    # Listeners that could not carry out what is published, or that somebody has changed, are no reason to keep them.
    key = ObjectKey("ConfigMap", "ml", "assistants-gateway-sidecar1-listeners")
    for change in ({"metadata": {"annotations": {"fairlead.dev/revision": "1"}}}, {"data": {"lds.json": "{}"}}):
        live = json.loads(json.dumps(observed.children[key]))
        for part, said in change.items():
            live[part] |= said
        found = files(plan(route, observed=Observed(children={**observed.children, key: live})))
        assert '"11s"' in found["listeners"]["lds.json"]


def test_they_hold_nothing_back() -> None:
    plain, sidecar = plan(make_route(), make_facts()), plan(make_route(spec()), make_facts())
    assert [c["reason"] for c in sidecar.status["conditions"]] == [c["reason"] for c in plain.status["conditions"]]
