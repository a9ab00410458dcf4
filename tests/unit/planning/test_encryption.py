"""TLS up to the engine pods: what the pod is, what it is not, and what is refused. (Whole manifests: tests/golden/*-encrypted.yaml.)"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.unit.api.cases import make_resource

from fairlead.api.llmdeployment import LLMDeploymentSpec
from fairlead.api.resource import LLMDeployment
from fairlead.api.validation import parse_llmdeployment
from fairlead.engines.loader import EngineCatalog
from fairlead.facts.observed import Observed, OperatorFacts
from fairlead.planning.deployment import plan_deployment
from fairlead.planning.plan import Plan
from fairlead.planning.route.surroundings import describe_deployment
from fairlead.policy.locality import find_record

Json = dict[str, Any]
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
ENCRYPTION: Json = {"encryption": {"certificate": {"secretName": "llama-tls"}}}


def make(base: str = "vllm", **spec: Any) -> Plan:
    raw = make_resource(base, {"spec": spec})
    parsed = parse_llmdeployment(raw)
    assert isinstance(parsed, LLMDeployment), [str(finding) for finding in parsed]
    return plan_deployment(parsed, Observed(), EngineCatalog.builtin(), OperatorFacts(gateway_image="proxy:1"), NOW)


def pod_of(plan: Plan) -> Json:
    (found,) = [child.body for child in plan.children if child.key.kind == "Deployment"]
    return dict(found["spec"]["template"]["spec"])


def containers(plan: Plan) -> dict[str, Json]:
    pod = pod_of(plan)
    return {one["name"]: one for one in [*pod.get("initContainers", []), *pod["containers"]]}


@pytest.mark.parametrize("base", ["vllm", "ollama"])
def test_the_engine_listens_on_loopback_and_only_the_proxy_has_a_port(base: str) -> None:
    found = containers(make(base, **ENCRYPTION))
    engine, proxy = found["engine"], found["tls"]
    assert "ports" not in engine
    assert "0.0.0.0" not in json.dumps([engine["args"], engine["env"]])
    assert "127.0.0.1" in json.dumps([engine["args"], engine["env"]])
    assert [port["containerPort"] for port in proxy["ports"]] == [8443]
    assert (proxy["image"], proxy["restartPolicy"]) == ("proxy:1", "Always")
    config = json.loads(proxy["args"][1])["static_resources"]
    (target,) = config["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"]
    port = {"vllm": 8000, "ollama": 11434}[base]
    assert target["endpoint"]["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": port}
    assert [one["name"] for one in config["listeners"]] == ["tls"]


@pytest.mark.parametrize("base", ["vllm", "ollama"])
def test_probes_ask_through_the_proxy_or_inside_the_container(base: str) -> None:
    engine = containers(make(base, **ENCRYPTION))["engine"]
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = engine[name].get("httpGet")
        assert asked is None or (asked["scheme"], asked["port"]) == ("HTTPS", 8443), name
        assert asked is not None or "exec" in engine[name]


def test_only_the_proxy_mounts_the_key() -> None:
    plan = make(**ENCRYPTION)
    volumes = {volume["name"]: volume for volume in pod_of(plan)["volumes"]}
    keys = {name for name, volume in volumes.items() if volume.get("secret", {}).get("secretName") == "llama-tls"}
    users = {n for n, one in containers(plan).items() if keys & {mount["name"] for mount in one["volumeMounts"]}}
    assert users == {"tls"}


@pytest.mark.parametrize("encryption", [{}, {"inTransit": "Required"}, {"certificate": None}])
def test_without_a_certificate_pods_and_gateways_mount_the_one_that_is_issued(encryption: Json) -> None:
    spec = {"encryption": encryption}
    (volume,) = [one for one in pod_of(make(**spec))["volumes"] if one["name"] == "fairlead-tls"]
    raw = make_resource("vllm", {"spec": spec})
    name = f"{raw['metadata']['name']}-pods-tls"
    assert volume["secret"]["secretName"] == name
    found = describe_deployment(raw, {"name": "https", "port": 8443}, ())
    assert (found.certificate_secret, found.is_encrypted) == (name, True)
    named = make(encryption={"certificate": {"secretName": name}})
    assert pod_of(make(**spec)) == pod_of(named), "all else is the same"


def test_services_policy_and_endpoint_speak_of_tls() -> None:
    plan = make(**ENCRYPTION)
    for child in plan.children:
        if child.key.kind == "Service":
            (port,) = child.body["spec"]["ports"]
            assert (port["name"], port["targetPort"]) == ("https", "https")
        if child.key.kind == "NetworkPolicy":
            assert child.body["spec"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": "https"}]
    assert plan.status["endpoint"].startswith("https://")
    assert plan.status["endpoint"].endswith(".svc/v1")
    assert make(**ENCRYPTION, service={"port": 80}).status["endpoint"].endswith(".svc:80/v1")


def test_without_it_nothing_is_there() -> None:
    plan = make()
    assert set(containers(plan)) == {"engine"}
    assert "tls" not in json.dumps([child.body["spec"] for child in plan.children]).replace("metadata", "")
    assert plan.status["endpoint"].startswith("http://")


def test_an_engine_that_does_not_say_where_it_listens_is_refused() -> None:
    """The rules of the spec refuse what users could say about it; an engine file of somebody else may not know of it at all."""
    parsed = parse_llmdeployment(make_resource("vllm", {"spec": {**ENCRYPTION, "engine": {"type": "Other"}}}))
    assert isinstance(parsed, LLMDeployment), [str(finding) for finding in parsed]
    text = EngineCatalog.builtin().texts["vLLM"][1].replace("name: vLLM", "name: Other")
    plans = [
        plan_deployment(
            parsed,
            Observed(),
            EngineCatalog.builtin().with_overrides({"Other": ("a ConfigMap", other)}),
            OperatorFacts(),
            NOW,
        )
        for other in (text, text.replace("loopback: true\n", ""))
    ]
    assert plans[0].children
    assert plans[1].children == ()
    (stalled,) = [one for one in plans[1].status["conditions"] if one["type"] == "Stalled"]
    assert (stalled["status"], stalled["reason"]) == ("True", "InvalidSpec")
    assert "spec.encryption: the engine file of Other does not say loopback: true" in stalled["message"]


@pytest.mark.parametrize(
    "engine",
    [
        {"args": ["--enable-log-requests"]},
        {"args": ["--enable-log-outputs"]},
        {"args": ["--enable_log_requests"]},
        {"args": ["--enable-log-req"]},
        {"args": ["--log_config_file=/x"]},
        {"args": ["--config=/etc/llm/c.yaml"]},
        {"args": ["--kv-events-config", "{}"]},
        {"env": [{"name": "VLLM_LOGGING_LEVEL", "value": "DEBUG"}]},
        {"env": [{"name": "OLLAMA_DEBUG", "value": "1"}]},
    ],
)
def test_what_may_log_requests_is_not_encrypted_all_the_way(engine: Json) -> None:
    raw = make_resource("vllm", {"spec": {**ENCRYPTION, "engine": {"type": "vLLM", **engine}}})
    found = describe_deployment(raw, {"name": "https", "port": 8443}, ())
    assert (found.is_tls, found.is_encrypted) == (True, False)
    assert "log" in found.why_not_encrypted


def test_usual_arguments_log_nothing() -> None:
    raw = make_resource(
        "vllm", {"spec": {"engine": {"args": ["--max-num-seqs", "8", "--disable-log-stats", "--max-log-len", "100"]}}}
    )
    parsed = parse_llmdeployment(raw)
    assert isinstance(parsed, LLMDeployment)
    assert isinstance(parsed.spec, LLMDeploymentSpec)
    assert find_record(parsed.spec) == ""


@pytest.mark.parametrize(
    ("spec", "port", "is_tls", "is_encrypted", "why"),
    [
        (ENCRYPTION, {"name": "https", "port": 8443}, True, True, ""),
        (ENCRYPTION, {"name": "http", "port": 8000}, False, True, ""),
        (ENCRYPTION, None, False, True, ""),
        ({}, {"name": "http", "port": 8000}, False, False, "spec.encryption is not set"),
        ({}, {"name": "https", "port": 8443}, True, False, "spec.encryption is not set"),
        ({**ENCRYPTION, "replicas": -1}, {"name": "https", "port": 8443}, True, False, "its spec is invalid"),
    ],
)
def test_what_a_route_is_told(spec: Json, port: Json | None, is_tls: bool, is_encrypted: bool, why: str) -> None:
    """How the pods are reached is as they are; whether the law may count on it is as the spec says."""
    found = describe_deployment(make_resource("vllm", {"spec": spec}), port, ())
    assert (found.is_tls, found.is_encrypted) == (is_tls, is_encrypted)
    assert why in found.why_not_encrypted
    assert found.certificate_secret == ("llama-tls" if spec else "")


def test_pods_of_an_earlier_spec_count_until_they_are_gone() -> None:
    """The spec says by now that nothing is logged; the pods of before still serve."""
    logging = make(**ENCRYPTION, engine={"type": "vLLM", "args": ["--enable-log-requests"]})
    (deployment,) = [child.body for child in logging.children if child.key.kind == "Deployment"]
    old = {"metadata": {"name": "llama-1", **deployment["spec"]["template"]["metadata"]}}
    port = {"name": "https", "port": 8443}
    raw = make_resource("vllm", {"spec": ENCRYPTION})
    found = describe_deployment(raw, port, (), [old])
    assert not found.is_encrypted
    assert "pod llama-1 is of an earlier spec: spec.engine.args has --enable-log-requests" in found.why_not_encrypted
    (deployment,) = [child.body for child in make(**ENCRYPTION).children if child.key.kind == "Deployment"]
    new = {"metadata": {"name": "llama-2", **deployment["spec"]["template"]["metadata"]}}
    assert describe_deployment(raw, port, (), [new]).is_encrypted


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        ({"image": "proxy.example.com/forwarder:1"}, "spec.engine.image is an image of its own"),
        ({"env": [{"name": "OPENAI_BASE_URL", "value": "https://elsewhere.example.com"}]}, "sets OPENAI_BASE_URL"),
        ({"envFrom": [{"configMapRef": {"name": "anything"}}]}, "spec.engine.envFrom may set anything"),
        ({"args": ["--tool-server=https://elsewhere.example.com"]}, "spec.engine.args has --tool-server"),
    ],
)
def test_pods_that_may_hand_requests_on_count_until_they_are_gone(engine: Json, why: str) -> None:
    """Confidential requests wait for their end, not for the spec that says it."""
    leaking = make(engine={"type": "vLLM", "version": "0.33.0", **engine})
    (deployment,) = [child.body for child in leaking.children if child.key.kind == "Deployment"]
    old = {"metadata": {"name": "llama-1", **deployment["spec"]["template"]["metadata"]}}
    port = {"name": "http", "port": 8000}
    raw = make_resource("vllm", {"spec": {}})
    assert describe_deployment(raw, port, ()).is_confidential
    found = describe_deployment(raw, port, (), [old])
    assert not found.is_confidential
    assert found.why_not.startswith("pod llama-1 is of an earlier spec: ")
    assert why in found.why_not
    trusted = describe_deployment(raw, port, ("proxy.example.com/*",), [old])
    assert trusted.is_confidential is ("image" in engine)
    (deployment,) = [child.body for child in make().children if child.key.kind == "Deployment"]
    new = {"metadata": {"name": "llama-2", **deployment["spec"]["template"]["metadata"]}}
    assert describe_deployment(raw, port, (), [new]).is_confidential
