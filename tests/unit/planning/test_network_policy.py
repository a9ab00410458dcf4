"""Who reaches the engine, as a table, judged by an evaluator that knows NetworkPolicy and nothing of fairlead."""

from __future__ import annotations

import pytest
from tests.unit.planning.netpol import Caller, Target, admits, reaches
from tests.unit.planning.world import OLLAMA, VLLM, Json, World, merge

from fairlead.facts.observed import OperatorFacts

FACTS = OperatorFacts(namespace="fairlead-system", monitoring_namespaces=("monitoring", "observability"))


def caller(namespace: str, **labels: str) -> Caller:
    """A pod with recommended labels, given by their last word: `managed_by` is app.kubernetes.io/managed-by."""
    full = {f"app.kubernetes.io/{name.replace('_', '-')}": value for name, value in labels.items()}
    return Caller(namespace, full, {"kubernetes.io/metadata.name": namespace})


def engine_of(spec: Json) -> tuple[list[Json], Target]:
    """The policies and the engine pod that the planner makes of a spec."""
    world = World(spec, facts=FACTS)
    plan = world.plan()
    policies = [dict(child.body) for child in plan.children if child.key.kind == "NetworkPolicy"]
    template = next(child.body for child in plan.children if child.key.kind == "Deployment")["spec"]["template"]
    ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
    return policies, Target("ml", template["metadata"]["labels"], ports)


ALLOWED = [
    ("an application of the own namespace", caller("ml", name="chat")),
    ("a pod without any label in the own namespace", Caller("ml")),
    ("a gateway of fairlead in the own namespace", caller("ml", component="gateway", managed_by="fairlead")),
    ("a gateway of fairlead elsewhere", caller("edge", component="gateway", managed_by="fairlead")),
    ("the operator", caller("fairlead-system", name="fairlead")),
    ("monitoring", caller("monitoring", name="prometheus")),
    ("more monitoring", caller("observability")),
]
DENIED = [
    ("an application elsewhere", caller("web", name="chat")),
    ("somebody's gateway elsewhere", caller("edge", component="gateway", managed_by="helm")),
    ("an engine of fairlead elsewhere", caller("edge", component="engine", managed_by="fairlead")),
    ("a namespace that only sounds like monitoring", caller("monitoring-2")),
    ("an address outside the cluster", Caller(address="192.0.2.7")),
]


@pytest.mark.parametrize("spec", [VLLM, OLLAMA], ids=["vLLM", "Ollama"])
@pytest.mark.parametrize(("who", "source"), ALLOWED, ids=[who for who, _ in ALLOWED])
def test_admitted(spec: Json, who: str, source: Caller) -> None:
    policies, target = engine_of(spec)
    assert admits(policies, target, source, target.ports["http"])


@pytest.mark.parametrize("spec", [VLLM, OLLAMA], ids=["vLLM", "Ollama"])
@pytest.mark.parametrize(("who", "source"), DENIED, ids=[who for who, _ in DENIED])
def test_kept_out(spec: Json, who: str, source: Caller) -> None:
    policies, target = engine_of(spec)
    assert not admits(policies, target, source, target.ports["http"])


def test_only_the_engines_port_is_open() -> None:
    """Engines open further ports that nobody authenticates (torch.distributed, ZMQ)."""
    policies, target = engine_of(VLLM)
    inside = caller("ml")
    assert admits(policies, target, inside, 8000)
    for port in (29501, 5555, 22):
        assert not admits(policies, target, inside, port)
    assert not admits(policies, target, inside, 8000, "UDP")


def test_the_users_peers_are_added_and_nobody_loses_access() -> None:
    peers = [
        {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}},
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "web"}}},
    ]
    policies, target = engine_of(merge(VLLM, networkPolicy={"from": peers}))
    assert admits(policies, target, Caller(address="192.0.2.7"), 8000)
    assert not admits(policies, target, Caller(address="192.0.2.200"), 8000)
    assert admits(policies, target, caller("web"), 8000)
    for _, source in ALLOWED:
        assert admits(policies, target, source, 8000)


def test_opting_out_leaves_it_to_others() -> None:
    policies, target = engine_of(merge(VLLM, networkPolicy={"mode": "Disabled"}))
    assert policies == []
    assert admits(policies, target, caller("web"), 8000)


def test_the_policy_selects_the_engine_pods_and_no_others() -> None:
    policies, target = engine_of(VLLM)
    neighbour = Target("ml", {**target.labels, "app.kubernetes.io/instance": "other"}, target.ports)
    gateway = Target("ml", {**target.labels, "app.kubernetes.io/component": "gateway"}, target.ports)
    for bystander in (neighbour, gateway):
        assert admits(policies, bystander, caller("web"), 8000), "not ours to close"


def test_the_evaluator_can_say_no_and_yes() -> None:
    deny_all = {"metadata": {"namespace": "ml"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}
    target = Target("ml", {}, {})
    assert not admits([deny_all], target, caller("ml"), 1)
    assert admits([deny_all], Target("web", {}, {}), caller("ml"), 1)
    open_to_all = {**deny_all, "spec": {**deny_all["spec"], "ingress": [{}]}}
    assert admits([deny_all, open_to_all], target, Caller(), 1)


OUTSIDE = Caller(address="192.0.2.7")
#: What makes it unknown where an engine has to reach: then its egress stays open, and it takes nothing Confidential.
UNKNOWN = [
    {"engine": {**VLLM["engine"], "image": "registry.example.com/vllm:v0.33.0"}},
    {"engine": {**VLLM["engine"], "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]}},
    {"engine": {**VLLM["engine"], "env": [{"name": "HF_ENDPOINT", "value": "https://hub.example.com"}]}},
    {"engine": {**VLLM["engine"], "envFrom": [{"configMapRef": {"name": "settings"}}]}},
]


@pytest.mark.parametrize("spec", [VLLM, OLLAMA], ids=["vLLM", "Ollama"])
def test_an_engine_reaches_names_and_downloads_and_nothing_else(spec: Json) -> None:
    policies, engine = engine_of(spec)
    assert reaches(policies, engine, OUTSIDE, 443)
    assert reaches(policies, engine, caller("kube-system"), 53, "UDP")
    assert reaches(policies, engine, caller("kube-system"), 53, "TCP")
    for port in (22, 80, 587, 3306, 8000, 8080, 11434):
        assert not reaches(policies, engine, OUTSIDE, port)
        assert not reaches(policies, engine, caller("ml", name="collector"), port)


def test_a_model_on_a_volume_needs_no_way_out() -> None:
    policies, engine = engine_of(merge(VLLM, model={"source": "pvc://models/llama"}))
    assert reaches(policies, engine, caller("kube-system"), 53, "UDP")
    assert not reaches(policies, engine, OUTSIDE, 443)


@pytest.mark.parametrize("change", UNKNOWN, ids=["image", "proxy", "endpoint", "envFrom"])
def test_egress_stays_open_where_nobody_knows_where_it_must_reach(change: Json) -> None:
    policies, engine = engine_of(merge(VLLM, **change))
    assert reaches(policies, engine, OUTSIDE, 3128)
    assert reaches(policies, engine, OUTSIDE, 443)
