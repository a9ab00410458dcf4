"""Law 8 for gateways: what another release of the operator would render is not taken by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.planning.route.routes import (
    NOW,
    OPERATOR,
    PROVIDERS,
    carry_out,
    make_facts,
    make_route,
    make_spec,
    plan,
)
from tests.unit.planning.route.test_planner import gateway, served

from fairlead.facts.observed import ObjectKey, Observed
from fairlead.facts.route import LocalDeployment
from fairlead.gateway.envoy.files import GatewayFiles
from fairlead.planning.plan import Plan
from fairlead.planning.route import plan_route, planner, revision

Json = dict[str, Any]
GATEWAY = ObjectKey("Deployment", "ml", "assistants-gateway")
BOOTSTRAP = ObjectKey("ConfigMap", "ml", "assistants-gateway-bootstrap")


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the operator is another release: image, probe and listeners of its gateways differ."""
    template, files = planner.make_template, planner.render_files

    def other_template(*arguments: Any) -> Json:
        made = template(*arguments)
        made["spec"]["containers"][0]["readinessProbe"]["periodSeconds"] = 7
        return made

    def other_files(*arguments: Any) -> GatewayFiles:
        made = files(*arguments)
        lds = made.bootstrap["lds.json"].replace('"10s"', '"11s"')
        assert lds != made.bootstrap["lds.json"]
        return replace(made, bootstrap={**made.bootstrap, "lds.json": lds})

    monkeypatch.setattr(planner, "make_template", other_template)
    monkeypatch.setattr(planner, "render_files", other_files)


def body(made: Plan, key: ObjectKey) -> Json:
    (child,) = [child for child in made.children if child.key == key]
    return dict(child.body)


def pods(made: Plan) -> Json:
    """All that a gateway is."""
    return {"template": body(made, GATEWAY)["spec"]["template"], "files": body(made, BOOTSTRAP)["data"]}


def ready(made: Plan) -> tuple[str, str, str]:
    (found,) = [one for one in made.status["conditions"] if one["type"] == "Ready"]
    return found["status"], found["reason"], found["message"]


def test_another_release_replaces_no_gateway_and_says_that_it_could(request: pytest.FixtureRequest) -> None:
    before, observed = served()
    gateways = (gateway("a", before), gateway("b", before))
    request.getfixturevalue("newer")
    after = plan(make_route(), make_facts(gateways=gateways), observed)
    assert pods(after) == pods(before)
    assert {child.key: child.digest for child in after.children} == {c.key: c.digest for c in before.children}
    status, reason, message = ready(after)
    assert (status, reason) == ("True", "RevisionAvailable")
    assert "gateway.revision: Latest" in message
    fresh = plan(make_route({**make_spec(), "gateway": {"revision": "Latest"}}, generation=2), make_facts(), observed)
    newer_revision = body(fresh, GATEWAY)["metadata"]["annotations"]["fairlead.dev/revision"]
    assert newer_revision in message


@pytest.mark.usefixtures("newer")
def test_a_new_route_gets_the_newest() -> None:
    made = pods(plan())
    assert made["template"]["spec"]["containers"][0]["readinessProbe"]["periodSeconds"] == 7
    assert '"11s"' in made["files"]["lds.json"]


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: {**spec, "gateway": {"revision": "Latest"}},
        lambda spec: {**spec, "gateway": {"drainTimeout": "5m"}},
        lambda spec: {
            **spec,
            "backends": [
                *spec["backends"],
                {"name": "more", "provider": {"type": "Mistral", "secretRef": {"name": "mistral", "key": "k"}}},
            ],
        },
    ],
    ids=["Latest", "drainTimeout", "another Secret"],
)
def test_it_is_taken_when_asked_for_or_when_gateways_are_replaced_anyway(
    change: Callable[[Json], Json], request: pytest.FixtureRequest
) -> None:
    before, observed = served()
    request.getfixturevalue("newer")
    made = plan(make_route(change(make_spec()), generation=2), make_facts(), observed)
    assert pods(made)["template"]["spec"]["containers"][0]["readinessProbe"]["periodSeconds"] == 7
    assert pods(made)["files"] != pods(before)["files"]
    again = plan(make_route(change(make_spec()), generation=2), make_facts(), carry_out(made, observed))
    assert pods(again) == pods(made)
    assert "Revision " not in ready(again)[2]


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: {**spec, "gateway": {"replicas": 5}},
        lambda spec: {**spec, "gateway": {"service": {"type": "LoadBalancer", "port": 8080}}},
        lambda spec: {**spec, "models": [{"name": "other", "targets": [{"backend": "local"}]}]},
        lambda spec: {
            **spec,
            "dataPolicy": {"default": "Confidential", "denyClasses": ["Public", "Internal", "Confidential"]},
        },
    ],
    ids=["replicas", "service", "models", "policy"],
)
def test_what_replaces_no_gateway_takes_nothing(change: Callable[[Json], Json], request: pytest.FixtureRequest) -> None:
    before, observed = served()
    request.getfixturevalue("newer")
    made = plan(make_route(change(make_spec()), generation=2), make_facts(), observed)
    assert pods(made) == pods(before)


def test_a_release_that_publishes_otherwise_replaces_them(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    before, observed = served()
    request.getfixturevalue("newer")
    monkeypatch.setattr(revision, "ROUTING_INTERFACE", revision.ROUTING_INTERFACE + 1)
    made = plan(make_route(), make_facts(), observed)
    assert pods(made) != pods(before)
    assert pods(plan(make_route(), make_facts(), carry_out(made, observed))) == pods(made)


def test_a_downgrade_moves_nothing_either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    request.getfixturevalue("newer")
    newest, observed = served()
    monkeypatch.undo()
    made = plan(make_route(), make_facts(), observed)
    assert pods(made) == pods(newest)


@pytest.mark.parametrize("broken", ["record", "files", "no files", "of others"])
def test_what_cannot_be_kept_is_replaced(broken: str, request: pytest.FixtureRequest) -> None:
    before, observed = served()
    children = {key: dict(value) for key, value in observed.children.items()}
    if broken == "record":
        metadata = children[GATEWAY]["metadata"]
        children[GATEWAY]["metadata"] = {
            **metadata,
            "annotations": {**metadata["annotations"], "fairlead.dev/template": "x"},
        }
    elif broken == "files":
        children[BOOTSTRAP]["data"] = {**children[BOOTSTRAP]["data"], "lds.json": "{}"}
    elif broken == "no files":
        del children[BOOTSTRAP]
    else:
        children[BOOTSTRAP]["metadata"] = {**children[BOOTSTRAP]["metadata"], "ownerReferences": []}
    request.getfixturevalue("newer")
    made = plan(make_route(), make_facts(), Observed(children=children))
    assert body(made, GATEWAY)["spec"]["template"] != pods(before)["template"]
    files = [child.body["data"] for child in made.children if child.key == BOOTSTRAP]
    assert all('"11s"' in found["lds.json"] for found in files)


def test_a_restart_is_a_restart_and_nothing_else(request: pytest.FixtureRequest) -> None:
    before, observed = served()
    request.getfixturevalue("newer")
    route = make_route()
    asked = replace(
        route, metadata=replace(route.metadata, annotations={"fairlead.dev/restartedAt": "2026-11-28T10:00:00Z"})
    )
    made = plan_route(asked, observed, make_facts(), OPERATOR, PROVIDERS, NOW)
    template, old = pods(made)["template"], pods(before)["template"]
    assert template["spec"] == old["spec"]
    assert template["metadata"]["annotations"] == {
        **old["metadata"]["annotations"],
        "fairlead.dev/restartedAt": "2026-11-28T10:00:00Z",
    }
    kept = plan(make_route(), make_facts(), carry_out(made, observed))
    assert pods(kept) == pods(before)


def test_a_deployment_that_is_made_anew_costs_no_gateway_its_streams() -> None:
    """While it is missing nobody knows the Secret with its authorities."""
    local = LocalDeployment(
        "llama-70b",
        "llama",
        8443,
        ready=2,
        is_confidential=True,
        is_tls=True,
        certificate_secret="own",
        is_encrypted=True,
    )
    there = {"deployments": {"llama-70b": local}}
    before, observed = served(**there)
    missing = plan(make_route(), make_facts(deployments={}), observed)
    assert pods(missing) == pods(before)
    other = replace(local, certificate_secret="another")
    changed = plan(make_route(), make_facts(deployments={"llama-70b": other}), observed)
    assert pods(changed) != pods(before)
