"""A route's gateway beside the engine: what the pod is, what it does not depend on, and who reaches what. (Manifests: tests/golden.)"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.unit.api.cases import make_resource
from tests.unit.engines.mini import MINI
from tests.unit.planning.netpol import Caller, Target, admits, reaches

from fairlead.api.names import issued_certificate_name, make_engine_labels
from fairlead.api.resource import LLMDeployment
from fairlead.api.validation import parse_llmdeployment
from fairlead.engines.loader import EngineCatalog
from fairlead.facts.observed import CarriedGateway, Observed, OperatorFacts
from fairlead.facts.route import LocalDeployment
from fairlead.gateway.envoy.files import render_bootstrap
from fairlead.planning.deployment import plan_deployment, sidecar
from fairlead.planning.gateway import SIDECAR_SETTINGS
from fairlead.planning.plan import Plan
from fairlead.planning.route.surroundings import describe_carried, describe_carrier

Json = dict[str, Any]
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
GATEWAY: Json = {"gateway": {"routeRef": {"name": "assistants"}}}
ENCRYPTION: Json = {"encryption": {"certificate": {"secretName": "llama-tls"}}}
SIDECAR = CarriedGateway("assistants", "Sidecar")


def make(
    base: str = "vllm", *, seen: CarriedGateway | None = SIDECAR, engines: EngineCatalog | None = None, **spec: Any
) -> Plan:
    raw = make_resource(base, {"spec": spec})
    parsed = parse_llmdeployment(raw)
    assert isinstance(parsed, LLMDeployment), [str(finding) for finding in parsed]
    observed = Observed(gateway=seen)
    facts = OperatorFacts(gateway_image="proxy:1")
    return plan_deployment(parsed, observed, engines or EngineCatalog.builtin(), facts, NOW)


def template_of(plan: Plan) -> Json:
    (found,) = [child.body for child in plan.children if child.key.kind == "Deployment"]
    return dict(found["spec"]["template"])


def sidecar_of(plan: Plan) -> Json:
    return next(one for one in template_of(plan)["spec"]["initContainers"] if one["name"] == "gateway")


def volumes_of(plan: Plan) -> dict[str, Json]:
    return {volume["name"]: volume for volume in template_of(plan)["spec"]["volumes"]}


@pytest.mark.parametrize("base", ["vllm", "ollama"])
def test_it_is_a_native_sidecar_on_ports_of_its_own(base: str) -> None:
    plan = make(base, **GATEWAY, **ENCRYPTION)
    sidecar = sidecar_of(plan)
    assert (sidecar["image"], sidecar["restartPolicy"]) == ("proxy:1", "Always")
    assert "readinessProbe" not in sidecar, "whether the pod serves is the engine's matter"
    pod = template_of(plan)["spec"]
    ports = [port for one in [*pod["initContainers"], *pod["containers"]] for port in one.get("ports", [])]
    assert len({port["containerPort"] for port in ports}) == len({port["name"] for port in ports}) == len(ports)
    assert [one["name"] for one in pod["initContainers"]][-2:] == ["tls", "gateway"]


def test_nothing_of_the_route_but_its_name_is_in_the_pods() -> None:
    """Nor does it matter whether the route is there."""
    peers = CarriedGateway("assistants", "Sidecar", (("other", 8000),))
    worlds = (None, CarriedGateway("assistants"), SIDECAR, peers)
    assert len({json.dumps(template_of(make(seen=gateway, **GATEWAY))) for gateway in worlds}) == 1
    other = make(seen=None)
    assert "gateway" not in json.dumps(template_of(other)["spec"].get("initContainers", []))
    assert template_of(other)["metadata"]["labels"] == make_engine_labels("llama")


def test_the_files_of_the_route_may_be_missing_and_win_when_they_are_there() -> None:
    volumes = volumes_of(make(**GATEWAY))
    for name, parts in (
        ("fairlead-gateway-routing", ["routes", "egress", "clusters", "limits"]),
        ("fairlead-gateway-clients", ["clients"]),
    ):
        own, *routes = volumes[name]["projected"]["sources"]
        assert "downwardAPI" in own
        objects = [source.get("configMap") or source["secret"] for source in routes]
        assert [one["name"] for one in objects] == [f"assistants-gateway-{part}" for part in parts]
        assert all(one["optional"] for one in objects)
        assert not any("items" in one for one in objects), (
            "the API server refuses one path from two sources that name it"
        )


def test_what_it_starts_with_is_on_the_pod() -> None:
    """So that an upgrade of the operator changes it under no pod that runs."""
    plan = make(**GATEWAY)
    annotations = template_of(plan)["metadata"]["annotations"]
    assert sum(map(len, annotations.values())) < 128 * 1024, "an object may have 256 KiB of them"
    files = {key.removeprefix("fairlead.dev/gateway."): text for key, text in annotations.items()}
    assert render_bootstrap(SIDECAR_SETTINGS).items() <= files.items()
    for volume in volumes_of(plan).values():
        sources = [volume, *volume.get("projected", {}).get("sources", [])]
        for item in (item for source in sources for item in source.get("downwardAPI", {}).get("items", [])):
            assert item["fieldRef"]["fieldPath"] == f"metadata.annotations['fairlead.dev/gateway.{item['path']}']"
            assert item["path"] in files
    (listener, _) = json.loads(files["lds.json"])["resources"]
    assert listener["address"]["socket_address"]["port_value"] == 18080


def test_only_it_mounts_who_is_let_in() -> None:
    pod = template_of(make(**GATEWAY))["spec"]
    users = [
        one["name"]
        for one in [*pod["initContainers"], *pod["containers"]]
        if any(mount["name"].startswith("fairlead-gateway") for mount in one.get("volumeMounts", []))
    ]
    assert users == ["gateway"]


@pytest.mark.parametrize(
    ("encryption", "secret_name"), [(ENCRYPTION, "llama-tls"), ({"encryption": {}}, issued_certificate_name("llama"))]
)
def test_with_encryption_it_can_verify_the_deployments_own_pods(encryption: Json, secret_name: str) -> None:
    plan = make(**GATEWAY, **encryption)
    (mount,) = [
        one for one in sidecar_of(plan)["volumeMounts"] if one["mountPath"].startswith("/etc/envoy/authorities")
    ]
    assert mount["mountPath"] == f"/etc/envoy/authorities/{secret_name}"
    secret = volumes_of(plan)[mount["name"]]["secret"]
    assert (secret["secretName"], [item["key"] for item in secret["items"]]) == (secret_name, ["ca.crt"])


def test_streams_through_it_have_the_drain_timeout() -> None:
    plan = make(**GATEWAY, rollout={"drainTimeout": "5m"})
    assert sidecar_of(plan)["lifecycle"] == {"preStop": {"sleep": {"seconds": 300}}}
    assert template_of(plan)["spec"]["terminationGracePeriodSeconds"] > 300
    assert "lifecycle" not in sidecar_of(make(**GATEWAY, rollout={"drainTimeout": "0s"}))


@pytest.mark.parametrize("port", [18080, 9901])
def test_an_engine_on_its_ports_is_refused(port: int) -> None:
    text = MINI.replace("port: 9000", f"port: {port}").replace("name: Mini", "name: acme-engine")
    engines = EngineCatalog.builtin().with_overrides({"acme-engine": ("a ConfigMap", text)})
    plan = make("custom", engines=engines, **GATEWAY)
    stalled = next(c for c in plan.status["conditions"] if c["type"] == "Stalled")
    assert stalled["status"] == "True"
    assert f"spec.gateway: the engine listens on {port}, which is the gateway's; let the engine" in stalled["message"]
    assert plan.children == ()


@pytest.mark.parametrize(
    ("gateway", "said"),
    [
        (CarriedGateway("assistants"), "there is no LLMRoute assistants in this namespace"),
        (CarriedGateway("assistants", "Deployment"), "LLMRoute assistants does not say gateway.mode: Sidecar"),
        (SIDECAR, ""),
    ],
)
def test_a_route_that_leads_nobody_there_is_told_and_takes_nothing_back(gateway: CarriedGateway, said: str) -> None:
    raw = make_resource("vllm", {"metadata": {"uid": "u-1"}, "spec": GATEWAY})
    parsed = parse_llmdeployment(raw)
    assert isinstance(parsed, LLMDeployment)
    first = plan_deployment(parsed, Observed(gateway=gateway), EngineCatalog.builtin(), OperatorFacts(), NOW)
    children = {child.key: {**child.body} for child in first.children}
    for key, body in children.items():
        if key.kind == "Deployment":
            body["status"] = {"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}
            body["metadata"] = {**body["metadata"], "generation": 0}
    observed = Observed(children=children, gateway=gateway)
    plan = plan_deployment(parsed, observed, EngineCatalog.builtin(), OperatorFacts(), NOW)
    ready = next(c for c in plan.status["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("True", "Serving")
    assert said in ready["message"]
    assert ("spec.gateway" in ready["message"]) is bool(said)
    assert ("Next: " in ready["message"]) is bool(said)


def policies_of(plan: Plan) -> list[Json]:
    return [dict(child.body) for child in plan.children if child.key.kind == "NetworkPolicy"]


def pod_of(plan: Plan) -> Target:
    pod = template_of(plan)
    named = [port for one in [*pod["spec"]["initContainers"], *pod["spec"]["containers"]] for port in one["ports"]]
    return Target("default", pod["metadata"]["labels"], {port["name"]: port["containerPort"] for port in named})


def test_anybody_reaches_the_gateway_and_nobody_new_the_engine() -> None:
    plan = make(**GATEWAY)
    policies, pod = policies_of(plan), pod_of(plan)
    outside, elsewhere = Caller(address="192.0.2.7"), Caller("web")
    operator = Caller("fairlead-system", {}, {"kubernetes.io/metadata.name": "fairlead-system"})
    for caller in (outside, elsewhere, operator):
        assert admits(policies, pod, caller, 18080)
    assert [admits(policies, pod, caller, 9901) for caller in (outside, elsewhere, operator)] == [False, False, True]
    assert [admits(policies, pod, caller, 8000) for caller in (outside, elsewhere, operator)] == [False, False, True]
    plain = make()
    assert not admits(policies_of(plain), pod_of_engine(plain), operator, 18080)


def pod_of_engine(plan: Plan) -> Target:
    pod = template_of(plan)
    return Target("default", pod["metadata"]["labels"], {"http": 8000})


def test_where_egress_is_closed_only_engines_of_the_route_are_reached_besides() -> None:
    plan = make(seen=CarriedGateway("assistants", "Sidecar", (("other", 8000), ("tls", 8443))), **GATEWAY)
    policies, pod = policies_of(plan), pod_of(plan)

    def engine(name: str, namespace: str = "default") -> Caller:
        return Caller(namespace, make_engine_labels(name))

    assert reaches(policies, pod, engine("other"), 8000)
    assert reaches(policies, pod, engine("tls"), 8443)
    for there, port in (
        (engine("other"), 8443),
        (engine("third"), 8000),
        (engine("other", "elsewhere"), 8000),
        (Caller(address="192.0.2.7"), 8000),
        (Caller("default"), 8000),
    ):
        assert not reaches(policies, pod, there, port)


def test_it_adds_no_egress_rule_where_egress_is_open() -> None:
    """One rule would close the rest."""
    peers = CarriedGateway("assistants", "Sidecar", (("other", 8000),))
    (policy,) = policies_of(make(seen=peers, engine={"type": "vLLM", "image": "acme/engine:0.33.0"}, **GATEWAY))
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    assert "egress" not in policy["spec"]


def test_peers_are_those_that_keep_what_they_are_sent() -> None:
    raw = {
        "spec": {
            "gateway": {"mode": "Sidecar"},
            "backends": [
                {"name": name, "deployment": {"name": name}} for name in ("kept", "leaky", "new", "missing", "kept2")
            ],
        }
    }
    known = {
        "kept": LocalDeployment("kept", "m", 8000, is_confidential=True),
        "kept2": LocalDeployment("kept2", "m", 8443, is_confidential=True),
        "leaky": LocalDeployment("leaky", "m", 8000, why_not="its image"),
        "new": LocalDeployment("new", "m", None, is_confidential=True),
    }
    found = describe_carried("llama", "assistants", raw, known.get)
    assert found == CarriedGateway("assistants", "Sidecar", (("kept", 8000), ("kept2", 8443)))
    own = describe_carried("leaky", "assistants", raw, known.get)
    assert own.peers == (("kept", 8000), ("kept2", 8443), ("leaky", 8000)), "its own pods are as it is"
    for other in ({"spec": {"backends": raw["spec"]["backends"]}}, {"spec": {"gateway": {"mode": "Deployment"}}}):
        assert describe_carried("llama", "assistants", other, known.get) == CarriedGateway("assistants", "Deployment")
    assert describe_carried("llama", "assistants", None, known.get) == CarriedGateway("assistants")


def test_a_carrier_is_read_from_the_object_as_it_is() -> None:
    carrier = describe_carrier(make_resource("vllm", {"spec": {**GATEWAY, **ENCRYPTION, "replicas": 3}}), ())
    assert (carrier.replicas, carrier.certificate_secret, carrier.is_closed) == (3, "llama-tls", True)
    open_one = describe_carrier(
        make_resource("vllm", {"spec": {**GATEWAY, "suspend": True, "networkPolicy": {"mode": "Disabled"}}}), ()
    )
    assert (open_one.replicas, open_one.certificate_secret, open_one.is_closed) == (0, "", False)


@pytest.mark.parametrize(
    ("spec", "status", "replicas"),
    [
        ({}, {}, 1),
        ({"minReplicas": 2}, {}, 2),
        ({}, {"scaling": {"desiredReplicas": 4}, "replicas": 2}, 4),
        ({}, {"scaling": {"desiredReplicas": 2}, "replicas": 4}, 4),
        ({"mode": "External"}, {"scaling": {"desiredReplicas": 5}, "replicas": 5}, 5),
        ({"policy": "Recommend", "minReplicas": 2}, {"scaling": {"recommendedReplicas": 6}, "replicas": 1}, 1),
        ({"minReplicas": 0}, {"scaling": {"desiredReplicas": 0}, "replicas": 0}, 0),
        (None, {"replicas": 3}, 1),
        (None, {"replicas": 3, "conditions": [{"type": "ScalingActive", "reason": "ExternallyManaged"}]}, 3),
    ],
)
def test_a_carrier_has_as_many_replicas_as_are_decided_or_still_there(spec: Any, status: Json, replicas: int) -> None:
    """The limits of its route are divided by them."""
    scaling: Json = {} if spec is None else {"autoscaling": {"maxReplicas": 8, **spec}}
    raw = make_resource("vllm", {"spec": {**GATEWAY, **scaling}})
    assert describe_carrier({**raw, "status": status}, ()).replicas == replicas
    raw["spec"]["suspend"] = True
    assert describe_carrier({**raw, "status": status}, ()).replicas == 0


def test_an_upgrade_changes_it_under_no_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = make_resource("vllm", {"metadata": {"uid": "u-1"}, "spec": GATEWAY})
    parsed = parse_llmdeployment(raw)
    assert isinstance(parsed, LLMDeployment)

    def plan(observed: Observed) -> Plan:
        return plan_deployment(parsed, observed, EngineCatalog.builtin(), OperatorFacts(), NOW)

    before = plan(Observed(gateway=SIDECAR))
    observed = Observed(children={child.key: child.body for child in before.children}, gateway=SIDECAR)
    bootstrap, *others = sidecar._render_files()
    monkeypatch.setattr(sidecar, "_render_files", lambda: ({**bootstrap, "lds.json": "{}"}, *others))
    assert template_of(plan(Observed(gateway=SIDECAR))) != template_of(before)
    assert template_of(plan(observed)) == template_of(before)
