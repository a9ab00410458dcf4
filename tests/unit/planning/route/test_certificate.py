"""TLS of the gateway: what it changes, and what holds while there is no certificate."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.planning.kstatus import compute_kstatus as kstatus
from tests.unit.planning.route.routes import carry_out, child, condition, make_facts, make_route, make_spec, plan
from tests.unit.planning.route.test_planner import gateway

from fairlead.facts.observed import Observed
from fairlead.facts.route import RouteFacts, SecretFacts
from fairlead.planning.plan import Plan

Json = dict[str, Any]
GOOD = SecretFacts("chat-tls", "gateway-tls", is_tls=True)
UNUSABLE = {
    "missing": (None, "kubectl label secret chat-tls fairlead.dev/use=gateway-tls"),
    "no label": (SecretFacts("chat-tls", "", is_tls=True), "secretTemplate.labels"),
    "another label": (SecretFacts("chat-tls", "provider", is_tls=True), "is not labelled fairlead.dev/use=gateway-tls"),
    "another type": (SecretFacts("chat-tls", "gateway-tls"), "kubectl create secret tls chat-tls"),
}
HELD = ("ConfigMap/assistants-gateway-bootstrap", "Deployment/assistants-gateway", "Service/assistants-gateway")


def secure(**gateway: Any) -> Json:
    return {**make_spec(), "gateway": {"tls": {"secretName": "chat-tls"}, **gateway}}


def facts(secret: SecretFacts | None = GOOD) -> RouteFacts:
    found = {"chat-tls": secret} if secret is not None else {}
    return make_facts(secrets={**make_facts().secrets, **found})


def secured(**gateway: Any) -> Plan:
    return plan(make_route(secure(**gateway)), facts())


def keys_of(planned: Plan) -> set[str]:
    return {str(one.key) for one in planned.children}


def bootstrap_of(planned: Plan) -> Mapping[str, str]:
    found: Mapping[str, str] = child(planned, "ConfigMap", "assistants-gateway-bootstrap")["data"]
    return found


def test_the_public_listener_has_tls_and_the_others_do_not() -> None:
    files = bootstrap_of(secured())
    assert sorted(files) == ["bootstrap.json", "certificate.json", "lds-tls.json"]
    public, egress = json.loads(files["lds-tls.json"])["resources"]
    (chain,) = public["filter_chains"]
    context = chain["transport_socket"]["typed_config"]
    assert context["@type"].endswith(".DownstreamTlsContext")
    common = context["common_tls_context"]
    assert common["tls_params"] == {"tls_minimum_protocol_version": "TLSv1_2"}
    assert common["alpn_protocols"] == ["h2", "http/1.1"]
    assert "transport_socket" not in egress["filter_chains"][0]
    bootstrap = json.loads(files["bootstrap.json"])
    assert bootstrap["dynamic_resources"]["lds_config"]["path_config_source"]["path"].endswith("/lds-tls.json")
    assert "transport_socket" not in bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]
    plain = json.loads(bootstrap_of(plan())["lds.json"])["resources"]
    assert chain.pop("transport_socket_connect_timeout") == "10s"
    del chain["transport_socket"]
    assert [public, egress] == plain


def test_the_file_with_the_certificate_never_changes() -> None:
    """A renewed certificate is read anew from where the Secret is mounted."""
    files = bootstrap_of(secured())
    other = plan(
        make_route({**secure(), "gateway": {"tls": {"secretName": "other"}}}),
        make_facts(secrets={"other": SecretFacts("other", "gateway-tls", is_tls=True)}),
    )
    assert files == bootstrap_of(other)
    (secret,) = json.loads(files["certificate.json"])["resources"]
    assert secret["tls_certificate"] == {
        "certificate_chain": {"filename": "/etc/envoy/certificate/..data/tls.crt"},
        "private_key": {"filename": "/etc/envoy/certificate/..data/tls.key"},
        "watched_directory": {"path": "/etc/envoy/certificate"},
    }


def test_the_pod_mounts_the_certificate_and_nothing_else_of_the_secret() -> None:
    pod = child(secured(), "Deployment", "assistants-gateway")["spec"]["template"]["spec"]
    (volume,) = [one for one in pod["volumes"] if one["name"] == "certificate"]
    assert volume["secret"] == {
        "secretName": "chat-tls",
        "defaultMode": 0o440,
        "items": [{"key": "tls.crt", "path": "tls.crt"}, {"key": "tls.key", "path": "tls.key"}],
    }
    (container,) = pod["containers"]
    assert {"name": "certificate", "mountPath": "/etc/envoy/certificate", "readOnly": True} in container["volumeMounts"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/healthz", "port": "https", "scheme": "HTTPS"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/generation", "port": "status"}
    assert [port["name"] for port in container["ports"]] == ["https", "status"]


@pytest.mark.parametrize(
    ("gateway", "port", "endpoint"),
    [
        ({"tls": {"secretName": "chat-tls"}}, 443, "https://assistants-gateway.ml.svc/v1"),
        ({"tls": {"secretName": "chat-tls"}, "service": {}}, 443, "https://assistants-gateway.ml.svc/v1"),
        (
            {"tls": {"secretName": "chat-tls"}, "service": {"port": 80}},
            80,
            "https://assistants-gateway.ml.svc:80/v1",
        ),
        (
            {"tls": {"secretName": "chat-tls"}, "service": {"port": 8443}},
            8443,
            "https://assistants-gateway.ml.svc:8443/v1",
        ),
        ({}, 80, "http://assistants-gateway.ml.svc/v1"),
        ({"service": {"type": "LoadBalancer"}}, 80, "http://assistants-gateway.ml.svc/v1"),
        ({"service": {"port": 443}}, 443, "http://assistants-gateway.ml.svc:443/v1"),
    ],
)
def test_port_and_endpoint(gateway: Json, port: int, endpoint: str) -> None:
    made = plan(make_route({**make_spec(), "gateway": gateway}), facts())
    name = "https" if "tls" in gateway else "http"
    ports = child(made, "Service", "assistants-gateway")["spec"]["ports"]
    assert ports == [{"name": name, "port": port, "targetPort": name, "protocol": "TCP"}]
    assert made.status["endpoint"] == endpoint


def test_a_change_replaces_pods_and_takes_no_listener_from_those_that_run() -> None:
    before = plan()
    after = plan(make_route(secure(), generation=2), facts(), carry_out(before))

    def annotation(planned: Plan) -> str:
        template = child(planned, "Deployment", "assistants-gateway")["spec"]["template"]
        return str(template["metadata"]["annotations"]["fairlead.dev/bootstrap"])

    assert annotation(before) != annotation(after)
    back = plan(make_route(generation=3), facts(), carry_out(after))
    assert annotation(back) == annotation(before)
    assert "lds.json" not in bootstrap_of(after), "a pod that watches it keeps what it has"
    assert "lds-tls.json" not in bootstrap_of(before)


@pytest.mark.parametrize("case", UNUSABLE)
def test_without_a_certificate_no_gateway_is_started(case: str) -> None:
    secret, words = UNUSABLE[case]
    made = plan(make_route(secure()), facts(secret))
    assert keys_of(made) == keys_of(secured()) - set(HELD)
    assert "endpoint" not in made.status
    for kind in ("Ready", "ResolvedRefs", "Programmed"):
        assert (condition(made, kind)["status"], condition(made, kind)["reason"]) == ("False", "RefNotResolved"), kind
        assert "spec.gateway.tls: Secret chat-tls" in condition(made, kind)["message"]
        assert words in condition(made, kind)["message"]
    assert condition(made, "Accepted")["status"] == "True"
    # A Secret may be under way; one of another type never becomes one.
    status = kstatus({"metadata": {"generation": 1}, "status": made.status})
    assert status == ("Failed" if case == "another type" else "InProgress")


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_gateway_that_runs_without_tls_stays_as_it_is(case: str) -> None:
    """It is not changed to one that cannot start. The routing goes on."""
    first = plan()
    observed = carry_out(first)
    status = dict(first.status)
    spec = secure()
    spec["models"].append({"name": "small", "targets": [{"backend": "local", "model": "small-7b"}]})
    made = plan(make_route(spec, generation=2, status=status), facts(UNUSABLE[case][0]), observed)
    assert not keys_of(made) & set(HELD)
    assert made.deletes == ()
    assert made.status["endpoint"] == "http://assistants-gateway.ml.svc/v1"
    assert condition(made, "Ready")["reason"] == condition(made, "Programmed")["reason"] == "RefNotResolved"
    egress = ("ConfigMap", "assistants-gateway-egress")
    assert child(made, *egress) != child(first, *egress), "another model is published all the same"


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_gateway_that_has_the_certificate_serves_on(case: str) -> None:
    """Pods that run keep what they mounted; status tells that the next one will not start."""
    first = secured()
    observed = carry_out(first)
    made = plan(make_route(secure(), status=dict(first.status)), facts(UNUSABLE[case][0]), observed)
    assert not keys_of(made) & set(HELD)
    assert condition(made, "ResolvedRefs")["reason"] == "RefNotResolved"
    assert condition(made, "Ready")["reason"] == "GatewaysPending", "as its pods are, not as its Secret"
    assert made.status["endpoint"] == "https://assistants-gateway.ml.svc/v1"


def test_the_secret_that_comes_starts_the_gateway() -> None:
    observed = carry_out(plan(make_route(secure()), facts(None)))
    made = plan(make_route(secure()), facts(), observed)
    assert keys_of(made) == keys_of(secured())
    assert condition(made, "ResolvedRefs")["status"] == "True"


def test_another_secret_that_is_not_there_changes_nothing() -> None:
    observed = carry_out(secured())
    spec = secure(tls={"secretName": "other"})
    made = plan(make_route(spec, generation=2), facts(), observed)
    assert not keys_of(made) & set(HELD)
    assert condition(made, "Ready")["reason"] == "RefNotResolved"
    assert "Secret other" in condition(made, "Ready")["message"]


def test_pods_of_before_keep_up_and_do_not_count() -> None:
    """The Service no longer leads to them, so the route is ready when one with the certificate is."""
    first = plan()
    route = make_route(secure(), generation=2)
    observed = carry_out(plan(route, facts(), carry_out(first)), carry_out(first))
    plain = (gateway("a", first), gateway("b", None))
    made = plan(route, replace(facts(), gateways=plain), observed)
    assert condition(made, "Ready")["reason"] == "GatewaysPending"
    assert made.status["gateways"] == "0/2"
    assert [nudge.pod for nudge in made.nudges] == ["b"]
    fresh = replace(gateway("c", first), certificate="chat-tls")
    made = plan(route, replace(facts(), gateways=(gateway("a", first), fresh)), observed)
    assert condition(made, "Ready")["status"] == "True"
    assert made.status["gateways"] == "1/2"
    back = plan(make_route(generation=3), replace(facts(), gateways=(fresh,)), observed)
    assert condition(back, "Ready")["reason"] == "GatewaysPending"


def test_tls_changes_nothing_that_is_published_to_running_gateways() -> None:
    with_tls, without = secured(), plan()
    for kind, part in (
        ("ConfigMap", "routes"),
        ("ConfigMap", "egress"),
        ("ConfigMap", "clusters"),
        ("Secret", "clients"),
    ):
        name = f"assistants-gateway-{part}"
        assert child(with_tls, kind, name) == child(without, kind, name)
    text = base64.b64decode(child(with_tls, "Secret", "assistants-gateway-clients")["data"]["authentication.json"])
    assert b"tls" not in text


def test_nothing_to_do_when_all_is_done() -> None:
    observed: Observed = carry_out(secured())
    again = plan(make_route(secure()), facts(), observed)
    assert {one.key: one.digest for one in again.children} == {one.key: one.digest for one in secured().children}
