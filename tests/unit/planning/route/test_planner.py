"""What is planned for a route: its objects, its status at each stage, and that nothing is planned twice."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.planning.kstatus import compute_kstatus as kstatus
from tests.unit.planning.route.routes import (
    NOW,
    carry_out,
    child,
    condition,
    make_facts,
    make_route,
    make_spec,
    plan,
)

from fairlead.api.conditions import ROUTE_CONDITIONS
from fairlead.facts.observed import ApplyFailure, ObjectKey, Observed
from fairlead.facts.route import ClientsSecret, GatewayPod, LocalDeployment, SecretFacts
from fairlead.planning.plan import Plan

STATS = {
    "rds-public.json": "http.public.rds.public.version_text",
    "rds-egress.json": "http.egress.rds.egress.version_text",
    "cds.json": "cluster_manager.cds.version_text",
    "limit-requests.json": "extension_config_discovery.http_filter.limit_requests.version_text",
    "limit-tokens.json": "extension_config_discovery.http_filter.limit_tokens.version_text",
    "authentication.json": "extension_config_discovery.http_filter.authentication.version_text",
}


def files_of(planned: Plan) -> dict[str, str]:
    """Everything that the gateway's pods mount and Envoy tells the version of."""
    files: dict[str, str] = {}
    for one in planned.children:
        if one.key.kind == "ConfigMap":
            files |= one.body["data"]
        elif one.key.kind == "Secret":
            files |= {name: base64.b64decode(value).decode() for name, value in one.body["data"].items()}
    return files


HEALTHY = {"local": 2, "openai": 3}


def gateway(
    name: str, planned: Plan | None, *, ready: bool = True, nudge: str = "", healthy: Mapping[str, int] = HEALTHY
) -> GatewayPod:
    """A pod that has loaded what a plan published; with None, one that has not answered."""
    if planned is None:
        return GatewayPod(name, f"uid-{name}", ready, nudge)
    files = files_of(planned)
    stats: list[Any] = [{"name": STATS[file], "value": json.loads(files[file])["version_info"]} for file in STATS]
    clusters = [one["name"] for one in json.loads(files["cds.json"])["resources"] if one["name"].startswith("be~")]
    stats += [
        {"name": f"cluster.{cluster}.membership_healthy", "value": healthy[cluster.split("~")[1]]}
        for cluster in clusters
        if cluster.split("~")[1] in healthy
    ]
    return GatewayPod(name, f"uid-{name}", ready, nudge, {"stats": stats})


def served(spec: dict[str, Any] | None = None, **facts: Any) -> tuple[Plan, Observed]:
    """The plan of a route whose two gateways have loaded all of it."""
    route = make_route(spec)
    first = plan(route, make_facts(**facts))
    observed = carry_out(first)
    gateways = (gateway("a", first), gateway("b", first))
    return plan(route, make_facts(gateways=gateways, **facts), observed), observed


def test_what_is_made() -> None:
    made = plan()
    assert [str(one.key) for one in made.children] == [
        "ConfigMap/assistants-gateway-bootstrap",
        "Secret/assistants-gateway-clients",
        "ConfigMap/assistants-gateway-routes",
        "ConfigMap/assistants-gateway-egress",
        "ConfigMap/assistants-gateway-clusters",
        "ConfigMap/assistants-gateway-limits",
        "Service/assistants-gateway",
        "NetworkPolicy/assistants-gateway",
        "Deployment/assistants-gateway",
        "PodDisruptionBudget/assistants-gateway",
    ]
    for one in made.children:
        metadata = one.body["metadata"]
        assert metadata["labels"]["fairlead.dev/llmroute"] == "assistants"
        assert metadata["labels"]["app.kubernetes.io/component"] == "gateway"
        (owner,) = metadata["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["controller"]) == ("LLMRoute", "assistants", True)


def test_the_pod_passes_restricted() -> None:
    pod = child(plan(), "Deployment", "assistants-gateway")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    context = container["securityContext"]
    assert context == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    kinds = {next(key for key in volume if key != "name") for volume in pod["volumes"]}
    assert kinds == {"configMap", "projected", "secret", "emptyDir"}
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_no_secret_outside_of_secrets() -> None:
    made = plan()
    for one in made.children:
        if one.key.kind != "Secret":
            assert "key-of-team" not in json.dumps(one.body)
    assert "key-of-team-a" in files_of(made)["authentication.json"]
    assert "key-of-team" not in json.dumps(made.status) + repr(make_facts())


def test_a_route_is_ready_when_its_gateways_say_so() -> None:
    first = plan()
    assert condition(first, "Ready")["status"] == "False"
    assert condition(first, "Programmed")["reason"] == "GatewaysPending"
    made, _ = served()
    assert [c["type"] for c in made.status["conditions"]] == [kind.value for kind in ROUTE_CONDITIONS]
    for kind in ("Ready", "Accepted", "ResolvedRefs", "Programmed", "BackendsHealthy"):
        assert condition(made, kind)["status"] == "True", condition(made, kind)
    assert condition(made, "Reconciling")["status"] == condition(made, "Stalled")["status"] == "False"
    assert made.status["gateways"] == "2/2"
    assert made.status["endpoint"] == "http://assistants-gateway.ml.svc/v1"
    assert made.requeue_after_s is None
    assert made.nudges == ()


@pytest.mark.parametrize(
    ("status", "generation"),
    [
        ({}, 1),
        ({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 1}, 1),
        ({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 2}, 1),
        ({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2}, 2),
    ],
    ids=["nothing is said yet", "the first one", "an old one is left", "not seen yet"],
)
def test_a_route_whose_gateways_are_being_replaced_is_ready_and_not_done(
    status: dict[str, int], generation: int
) -> None:
    made, observed = served()
    key = ObjectKey("Deployment", "ml", "assistants-gateway")
    live = dict(observed.children[key])
    live = {**live, "metadata": {**live["metadata"], "generation": generation}, "status": status}
    gateways = (gateway("a", made), gateway("b", made))
    rolling = plan(make_route(), make_facts(gateways=gateways), Observed(children={**observed.children, key: live}))
    assert condition(rolling, "Ready")["status"] == "True"
    assert condition(rolling, "Reconciling")["status"] == "True"
    assert condition(rolling, "Reconciling")["reason"] == "RollingOut"
    assert "of 2 are new" in condition(rolling, "Reconciling")["message"]
    assert condition(made, "Reconciling")["status"] == "False"


def test_nothing_to_do_when_all_is_done() -> None:
    made, observed = served()
    assert {c.key: c.digest for c in made.children} == {
        c.key: c.digest for c in plan(make_route(), make_facts(), observed).children
    }
    assert made.deletes == ()


def test_gateways_that_lag_are_nudged_at_once_and_again() -> None:
    first = plan()
    observed = carry_out(first)
    lagging = make_facts(gateways=(gateway("a", first), gateway("b", None)))
    told = plan(make_route(), lagging, observed)
    (nudge,) = told.nudges
    assert (nudge.pod, nudge.uid, nudge.annotation) == ("b", "uid-b", "fairlead.dev/routing")
    assert told.requeue_after_s == pytest.approx(0.2)
    assert condition(told, "Programmed")["reason"] == "Publishing"
    pods = (gateway("a", first), gateway("b", None, nudge=nudge.value))
    assert plan(make_route(), make_facts(gateways=pods), observed, NOW + timedelta(milliseconds=500)).nudges == ()
    (again,) = plan(make_route(), make_facts(gateways=pods), observed, NOW + timedelta(seconds=1)).nudges
    assert again.value.split("#")[0] == nudge.value.split("#")[0]
    assert again.value != nudge.value


def test_a_gateway_that_never_loads_holds_nobody_back() -> None:
    spec = make_spec()
    spec["models"].append({"name": "small", "targets": [{"backend": "local", "model": "llama-8b"}]})
    old = plan()
    observed = carry_out(old)
    stuck = (gateway("a", old), gateway("b", None))
    waiting = plan(make_route(spec, generation=2), make_facts(gateways=stuck), observed)
    (nudge,) = plan(make_route(), make_facts(gateways=stuck), observed).nudges
    assert files_of(waiting)["rds-public.json"] == files_of(old)["rds-public.json"]
    late = (gateway("a", old), gateway("b", None, nudge=nudge.value))
    later = plan(make_route(spec, generation=2), make_facts(gateways=late), observed, NOW + timedelta(seconds=31))
    assert files_of(later)["cds.json"] != files_of(old)["cds.json"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"deployments": {}}, "There is no LLMDeployment llama-70b"),
        ({"secrets": {}}, "kubectl label secret openai fairlead.dev/use=provider"),
        (
            {"secrets": {"openai": SecretFacts("openai", "provider", frozenset({"evil.example.com"}))}},
            "kubectl annotate",
        ),
        ({"secrets": {"openai": SecretFacts("openai", "", frozenset({"api.openai.com"}))}}, "is not labelled"),
        ({"clients": None}, "kubectl label secret clients fairlead.dev/use=clients"),
        ({"clients": ClientsSecret("clients", "", "1", {"team-a": b"key-of-team-a"})}, "is not labelled"),
    ],
)
def test_what_is_missing_is_told_with_what_mends_it(change: dict[str, Any], problem: str) -> None:
    made, _ = served(**change)
    resolved = condition(made, "ResolvedRefs")
    assert resolved["status"] == "False"
    assert problem in resolved["message"]
    assert condition(made, "Accepted")["status"] == "True"


def test_a_missing_provider_secret_is_no_outage() -> None:
    made, _ = served(secrets={})
    assert condition(made, "Ready")["status"] == "True"
    assert "openai" not in files_of(made)["cds.json"]


def test_without_its_only_backend_a_route_is_not_ready_and_not_stalled() -> None:
    made, _ = served(deployments={}, secrets={})
    assert condition(made, "Ready")["reason"] == "BackendsNotReady"
    assert condition(made, "Stalled")["status"] == "False"


def test_a_deployment_that_is_not_there_yet() -> None:
    starting = LocalDeployment("llama-70b", "llama-3.1-70b", 8000, ready=0, desired=2, is_confidential=True)
    made, _ = served(deployments={"llama-70b": starting}, secrets={})
    assert condition(made, "Ready")["reason"] == "BackendsNotReady"
    (row,) = [row for row in made.status["backends"] if row["name"] == "local"]
    assert row["state"] == "NotReady"


@pytest.mark.parametrize("is_tls", [False, True])
def test_a_deployment_that_is_to_be_encrypted_gets_nothing_before_it_is(is_tls: bool) -> None:
    """Its Service may still be the one of before."""
    local = LocalDeployment(
        "llama-70b",
        "llama-3.1-70b",
        8443,
        ready=2,
        is_confidential=True,
        is_tls=is_tls,
        certificate_secret="own",
        is_encrypted=True,
    )
    made = plan(facts=make_facts(deployments={"llama-70b": local}))
    clusters = {one["name"].split("~")[1]: one for one in json.loads(files_of(made)["cds.json"])["resources"]}
    assert ("local" in clusters) == is_tls
    (row,) = [row for row in made.status["backends"] if row["name"] == "local"]
    assert ("does not serve TLS yet" in row.get("message", "")) != is_tls
    pod = child(made, "Deployment", "assistants-gateway")["spec"]["template"]["spec"]
    mounted = [
        volume["secret"]["items"] for volume in pod["volumes"] if volume.get("secret", {}).get("secretName") == "own"
    ]
    assert mounted == [[{"key": "ca.crt", "path": "ca.crt"}]]


def test_a_missing_clients_secret_lets_nobody_in() -> None:
    made = plan(make_route(), make_facts(clients=None))
    assert '"credentials":[]' in files_of(made)["authentication.json"]


def test_a_key_that_two_share_lets_neither_in() -> None:
    clients = ClientsSecret(
        "clients", "clients", "1", {"team-a": b"shared-key-1\nown-key-of-a", "team-b": b"shared-key-1"}
    )
    made = plan(make_route(), make_facts(clients=clients))
    text = files_of(made)["authentication.json"]
    assert "shared-key-1" not in text
    assert "own-key-of-a" in text
    assert "team-b" in condition(made, "ResolvedRefs")["message"]
    assert "shared-key-1" not in json.dumps(made.status)


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (
            {"targets": [{"backend": "openai", "model": "gpt-5.6"}]},
            "NoPermittedTarget",
            "chat has no target that may take Internal",
        ),
        ({"trusted": True}, "ProviderRefused", "spec.backends[1].provider.trusted"),
        ({"region": "mars"}, "ProviderRefused", "spec.backends[1].provider.region"),
        ({"baseURL": "https://169.254.169.254/v1"}, "ProviderRefused", "spec.backends[1].provider.baseURL"),
    ],
)
def test_a_route_that_is_not_accepted_changes_nothing(change: dict[str, Any], reason: str, words: str) -> None:
    spec = make_spec()
    if "targets" in change:
        spec["models"][0]["targets"] = change["targets"]
    else:
        spec["backends"][1]["provider"] |= change
    made = plan(make_route(spec, generation=2))
    assert made.children == made.deletes == ()
    for kind, status in (("Accepted", "False"), ("Stalled", "True"), ("Ready", "False"), ("Reconciling", "False")):
        assert (condition(made, kind)["status"], condition(made, kind)["reason"]) == (status, reason)
    assert words in condition(made, "Accepted")["message"]
    assert made.status["observedGeneration"] == 2


def test_a_pattern_that_cannot_be_looked_for_is_not_accepted() -> None:
    spec = make_spec()
    detector = {"name": "own", "class": "Confidential", "patterns": ["ok", "a(", "x*"]}
    spec["dataPolicy"]["detectors"].append(detector)
    made = plan(make_route(spec, generation=2))
    assert made.children == made.deletes == ()
    for kind in ("Accepted", "Stalled", "Ready"):
        assert condition(made, kind)["reason"] == "PatternRefused"
    message = condition(made, "Accepted")["message"]
    assert "spec.dataPolicy.detectors[1].patterns[1]: is no RE2 pattern: missing ): a(;" in message
    assert "spec.dataPolicy.detectors[1].patterns[2]: matches the empty text, and so every request;" in message
    assert "patterns[0]" not in message


def test_a_pattern_changes_no_listener() -> None:
    """An LDS change would cut streams at drain time."""
    spec = make_spec()
    spec["dataPolicy"]["detectors"].append({"name": "own", "class": "Confidential", "patterns": [r"\bMRN-\d{8}\b"]})
    bootstrap = "assistants-gateway-bootstrap"
    assert child(plan(make_route(spec)), "ConfigMap", bootstrap) == child(plan(), "ConfigMap", bootstrap)


def test_a_denied_class_closes_the_gap() -> None:
    spec = make_spec()
    spec["models"][0]["targets"] = [{"backend": "openai", "model": "gpt-5.6"}]
    spec["dataPolicy"]["denyClasses"] = ["Internal", "Confidential"]
    spec["roles"] = [spec["roles"][0]]
    spec["authentication"] = {"apiKeys": {"secretRef": {"name": "clients"}}}
    assert condition(plan(make_route(spec)), "Accepted")["status"] == "True"


def test_names_of_others_are_left_alone() -> None:
    foreign = {"metadata": {"name": "assistants-gateway", "ownerReferences": []}}
    observed = Observed(children={ObjectKey("Service", "ml", "assistants-gateway"): foreign})
    made = plan(observed=observed)
    assert "Service/assistants-gateway" not in [str(one.key) for one in made.children]
    assert condition(made, "Stalled")["reason"] == "NameConflict"
    assert "rename this LLMRoute" in condition(made, "Stalled")["message"]


def test_refused_children_show() -> None:
    failure = ApplyFailure(
        ObjectKey("ConfigMap", "ml", "assistants-gateway-routes"), "ChildRefused", "quota", terminal=True
    )
    made = plan(observed=Observed(failures=(failure,)))
    assert condition(made, "Stalled")["reason"] == "ChildRefused"


def test_kstatus_agrees() -> None:
    made, _ = served()
    base = {"metadata": {"generation": 1}}
    assert kstatus({**base, "status": made.status}) == "Current"
    assert kstatus({**base, "status": plan().status}) == "InProgress"
    spec = make_spec()
    spec["backends"][1]["provider"]["trusted"] = True
    assert kstatus({**base, "status": plan(make_route(spec)).status}) == "Failed"


def test_one_replica_has_no_budget() -> None:
    spec = make_spec()
    spec["gateway"] = {"replicas": 1}
    route = make_route(spec)
    observed = carry_out(plan())
    made = plan(route, make_facts(), observed)
    assert "PodDisruptionBudget/assistants-gateway" not in [str(one.key) for one in made.children]
    assert [str(delete.key) for delete in made.deletes] == ["PodDisruptionBudget/assistants-gateway"]


def test_why_a_deployment_may_not_take_confidential_requests() -> None:
    leaking = LocalDeployment(
        "llama-70b", "llama-3.1-70b", 8000, ready=1, why_not="spec.engine.envFrom may set anything"
    )
    made = plan(make_route(), make_facts(deployments={"llama-70b": leaking}))
    assert condition(made, "Accepted")["reason"] == "NoPermittedTarget"
    assert "LLMDeployment llama-70b: spec.engine.envFrom" in condition(made, "Accepted")["message"]


@pytest.mark.parametrize("healthy", [{"local": 0, "openai": 3}, {"openai": 3}])
def test_a_model_whose_hosts_a_gateway_does_not_know_yet_is_not_ready(healthy: Mapping[str, int]) -> None:
    route = make_route()
    first = plan(route, make_facts(secrets={}))
    pods = (gateway("a", first), gateway("b", first, healthy=healthy))
    made = plan(route, make_facts(secrets={}, gateways=pods), carry_out(first))
    assert condition(made, "Ready")["reason"] == "BackendsNotReady"
    assert condition(made, "Programmed")["status"] == "True"
    assert made.requeue_after_s == pytest.approx(1.0)


def test_status_has_no_targets_for_classes_below_a_floor() -> None:
    spec = make_spec()
    status = plan(make_route(spec)).status
    assert status is not None
    assert list(status["models"][0]["targets"]) == ["Public", "Internal", "Confidential"]
    spec["roles"][0]["floor"] = "Internal"
    status = plan(make_route(spec)).status
    assert status is not None
    assert list(status["models"][0]["targets"]) == ["Internal", "Confidential"]
    spec["dataPolicy"]["floor"] = "Confidential"
    status = plan(make_route(spec)).status
    assert status is not None
    assert status["models"][0]["targets"] == {"Confidential": "local"}


def many_models(targets: int) -> dict[str, Any]:
    """A local first, then one name after the other at the provider."""
    spec = make_spec()
    spec["models"] = [
        {
            "name": f"model-number-{number}",
            "targets": [
                {"backend": "local"},
                *(
                    {"backend": "openai", "model": f"model-number-{number}-{other}", "priority": other}
                    for other in range(1, targets)
                ),
            ],
        }
        for number in range(256)
    ]
    return spec


def test_256_models_fit() -> None:
    made = plan(make_route(many_models(targets=2)))
    assert condition(made, "Accepted")["status"] == "True", condition(made, "Accepted")
    sizes = {name: len(text) for name, text in files_of(made).items()}
    assert max(sizes.values()) < 960 * 1024
    assert sizes["rds-egress.json"] < 64 * 1024  # one virtual host per backend, however many models it has


def test_what_no_config_map_can_hold_is_refused_and_nothing_is_written() -> None:
    running = carry_out(plan())
    made = plan(make_route(many_models(targets=16)), observed=running)
    assert condition(made, "Accepted")["reason"] == "TooLarge"
    assert "spread the models over several LLMRoutes" in condition(made, "Accepted")["message"]
    written = {str(one.key): one.body for one in made.children if one.key.kind == "ConfigMap"}
    before = {str(key): body for key, body in running.children.items() if key.kind == "ConfigMap"}
    assert all("model-number" not in str(body) for body in written.values())
    assert set(written) <= set(before)


#: What the API server lets a ConfigMap hold.
MIB = 1024 * 1024


def sizes_of(planned: Plan) -> dict[str, int]:
    """ConfigMap -> bytes of its data."""
    maps = [one for one in planned.children if one.key.kind == "ConfigMap"]
    return {one.key.name: sum(len(text.encode()) for text in one.body["data"].values()) for one in maps}


@pytest.mark.parametrize("is_refused", [False, True])
def test_what_is_withdrawn_from_a_large_routing_still_fits(is_refused: bool) -> None:
    """Were it larger than a ConfigMap, the API server would refuse it, and everybody would go on as before."""
    spec = many_models(targets=2)
    running = carry_out(plan(make_route(spec)))
    spec["roles"][0]["llmAccess"] = ["Local"]
    if is_refused:
        spec["backends"][1]["provider"]["region"] = "mars"
    made = plan(make_route(spec, generation=2), observed=running)
    assert condition(made, "Accepted")["status"] == ("False" if is_refused else "True")
    sizes = sizes_of(made)
    assert "assistants-gateway-routes" in sizes
    assert max(sizes.values()) <= MIB
    assert ".openai.cloud" not in files_of(made)["rds-public.json"]


def test_steps_that_no_config_map_can_hold_are_left_out() -> None:
    """All models are renamed at the provider: both sets of clusters together are too large, each of them alone is not."""
    spec = many_models(targets=5)
    running = carry_out(plan(make_route(spec)))
    assert condition(plan(make_route(spec)), "Accepted")["status"] == "True"
    for model in spec["models"]:
        for target in model["targets"][1:]:
            target["model"] += "-new"
    route = make_route(spec, generation=2)
    made = plan(route, observed=running)
    assert max(sizes_of(made).values()) <= MIB
    assert files_of(made) == files_of(plan(route))
