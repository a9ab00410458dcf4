"""The CRD on the real API server: the same verdict as Python's on every case, and what kubectl shows of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from tests.cluster.verdicts import Judge
from tests.unit.api.bounds import bound_cases
from tests.unit.api.cases import ROUTES, TABLES, Case, both, case_id, make_resource, raw_cases
from tests.unit.api.generated import resources
from tests.unit.api.parsing import parse

from fairlead.api.crd import make_crds
from fairlead.api.resource import Finding, LLMDeployment, LLMRoute
from fairlead.api.validation import check_structure, parse_llmdeployment
from fairlead.engines.loader import EngineCatalog
from fairlead.facts.observed import Observed, OperatorFacts
from fairlead.planning.deployment import plan_deployment
from fairlead.rendering.documents import read_documents
from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.kubectl import Kubectl

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def judge(control_plane: LocalCluster) -> Iterator[Judge]:
    with control_plane.namespace("crd") as namespace, Judge(control_plane.admin_kubeconfig, namespace) as asked:
        yield asked


@pytest.mark.parametrize("case", both("valid"), ids=case_id)
def test_api_server_accepts_what_python_accepts(judge: Judge, case: Case) -> None:
    verdict = judge.ask(case.resource)
    assert verdict.accepted, verdict.text
    ours, stored = parse(case.resource), parse({**case.resource, "spec": verdict.spec})
    assert isinstance(ours, LLMDeployment | LLMRoute)
    assert isinstance(stored, LLMDeployment | LLMRoute)
    assert stored.spec == ours.spec, "the defaults differ"


@pytest.mark.parametrize("case", both("invalid"), ids=case_id)
def test_api_server_refuses_what_python_refuses_at_the_same_place(judge: Judge, case: Case) -> None:
    verdict = judge.ask(case.resource)
    assert not verdict.accepted, "accepted"
    assert verdict.paths == frozenset(case.paths), verdict.text


@pytest.mark.parametrize("case", [case for table in TABLES for case in bound_cases(table)], ids=case_id)
def test_api_server_refuses_what_is_out_of_bounds(judge: Judge, case: Case) -> None:
    assert_agreement(judge, case.resource)


def _is_at_or_below(path: str, other: str) -> bool:
    other = re.sub(r"\[([^\]\d][^\]]*)\]", r".\1", other)  # unknown fields are told with dots in maps, too
    return path == other or path.startswith((f"{other}.", f"{other}["))


def assert_agreement(judge: Judge, resource: dict[str, Any]) -> None:
    """Same verdict; and the same places, as far as both looked: unknown fields and wrong types end the API server's search."""
    parsed, verdict = parse(resource), judge.ask(resource)
    findings: tuple[Finding, ...] = parsed if isinstance(parsed, tuple) else ()
    assert verdict.accepted == (not findings), f"{[str(f) for f in findings]} against {verdict.text!r}"
    paths = {finding.path for finding in findings}
    if verdict.unknown:
        # A map where a list belongs has unknown fields to the API server, and is of the wrong type to Python.
        assert all(any(_is_at_or_below(path, ours) for ours in paths) for path in verdict.paths), verdict.text
    elif isinstance(check_structure(resource), tuple):
        # Python looks at rules only when the structure is right; the API server does so beside wrong bounds and enums, too.
        assert paths <= verdict.paths, verdict.text
    elif "some validation rules were not checked" in verdict.text:
        # Quantities are bounded by the schema there and by a rule here.
        assert verdict.paths, verdict.text
        assert verdict.paths <= paths, verdict.text
    else:
        assert verdict.paths == paths, verdict.text


FEW = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
MANY = settings(max_examples=6000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(resource=resources())
@FEW
def test_verdicts_agree_on_generated_objects(judge: Judge, resource: dict[str, Any]) -> None:
    assert_agreement(judge, resource)


@given(resource=resources(ROUTES))
@FEW
def test_verdicts_agree_on_generated_routes(judge: Judge, resource: dict[str, Any]) -> None:
    assert_agreement(judge, resource)


@pytest.mark.long
@given(resource=resources())
@MANY
def test_verdicts_agree_on_many_generated_objects(judge: Judge, resource: dict[str, Any]) -> None:
    assert_agreement(judge, resource)


@pytest.mark.long
@given(resource=resources(ROUTES))
@MANY
def test_verdicts_agree_on_many_generated_routes(judge: Judge, resource: dict[str, Any]) -> None:
    assert_agreement(judge, resource)


def _stretch(schema: Any, factor: float) -> Any:
    """The same schema with longer strings: the rules' estimated cost grows in proportion."""
    if isinstance(schema, dict):
        longer = {"maxLength": int(schema["maxLength"] * factor)} if isinstance(schema.get("maxLength"), int) else {}
        return {key: _stretch(value, factor) for key, value in schema.items()} | longer
    return [_stretch(item, factor) for item in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("crd", make_crds(), ids=lambda crd: crd["spec"]["names"]["kind"])
def test_rules_leave_room_in_the_cost_budget(kubectl: Kubectl, crd: dict[str, Any]) -> None:
    """The API server refuses a CRD whose rules could cost too much; later fields and other minor versions need room."""
    version = crd["spec"]["versions"][0]
    version["schema"] = _stretch(version["schema"], 1.6)
    kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-", stdin=json.dumps(crd))


def test_unseen_object_is_not_current(kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply({**make_resource("vllm", {"metadata": {"namespace": namespace}})})
    status = kubectl.json("get", "llmdep", "llama", "-n", namespace)["status"]
    assert status == {"observedGeneration": -1}


def test_columns_scale_and_names(kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply({**make_resource("vllm", {"metadata": {"namespace": namespace}})})
    ready = {
        "type": "Ready", "status": "True", "reason": "Serving", "message": "2 of 2 replicas serve.",
        "lastTransitionTime": "2026-11-25T10:00:00Z", "observedGeneration": 1,
    }  # fmt: skip
    status = {
        "observedGeneration": 1, "conditions": [ready], "replicas": 2, "readyReplicas": 2, "readyOfDesired": "2/2",
        "selector": "app.kubernetes.io/instance=llama", "endpoint": "http://llama.x.svc/v1",
        "accelerator": {"summary": "1 × nvidia.com/gpu"},
    }  # fmt: skip
    kubectl(
        "patch",
        "llmdep",
        "llama",
        "-n",
        namespace,
        "--subresource=status",
        "--type=merge",
        "-p",
        json.dumps({"status": status}),
    )
    narrow = kubectl("get", "llmdep", "-n", namespace).splitlines()
    assert narrow[0].split() == ["NAME", "READY", "REPLICAS", "MODEL", "ENGINE", "AGE"]
    assert narrow[1].split()[:5] == ["llama", "True", "2/2", "hf://meta-llama/Llama-3.1-8B-Instruct", "vLLM"]
    wide = kubectl("get", "llm", "-n", namespace, "-o", "wide").splitlines()
    assert {"REASON", "ACCELERATOR", "ENDPOINT"} <= set(wide[0].split())
    assert "Serving" in wide[1]
    kubectl("scale", "llmdep/llama", "-n", namespace, "--replicas=3")
    found = kubectl.json("get", "llmdep", "llama", "-n", namespace)
    assert found["spec"]["replicas"] == 3
    scale = kubectl.json("get", "llmdep", "llama", "-n", namespace, "--subresource=scale")
    assert scale["status"] == {"replicas": 2, "selector": "app.kubernetes.io/instance=llama"}
    kubectl("wait", "--for=jsonpath={.status.readyReplicas}=2", "llmdep/llama", "-n", namespace, "--timeout=10s")


def test_a_scale_beyond_the_bounds_is_refused(kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply({**make_resource("vllm", {"metadata": {"namespace": namespace}})})
    refused = kubectl.run("scale", "llmdep/llama", "-n", namespace, "--replicas=1001")
    assert refused.returncode != 0
    assert "spec.replicas" in refused.stderr


def test_status_fields_that_are_not_declared_are_dropped_by_no_one(kubectl: Kubectl, namespace: str) -> None:
    """Strict validation names a status field that the schema lacks: the planner's own test feeds its status through this."""
    resource = make_resource("vllm", {"metadata": {"namespace": namespace}})
    kubectl.apply(resource)
    refused = kubectl.run(
        "patch", "llmdep", "llama", "-n", namespace, "--subresource=status", "--type=merge", "-p", '{"status": {"phase": "Ready"}}',
    )  # fmt: skip
    assert "unknown field" in refused.stderr


@pytest.mark.parametrize(
    "path", ["", ".spec", ".spec.model.source", ".spec.pod.extraVolumes.name", ".status.model.sizeBytes"]
)
def test_explain_shows_the_descriptions(kubectl: Kubectl, path: str) -> None:
    explained = kubectl("explain", f"llmdep{path}")
    assert "DESCRIPTION" in explained
    assert "<empty>" not in explained


# --- what render says offline, asked of the real thing


@pytest.mark.parametrize("case", raw_cases(), ids=str)
def test_what_render_refuses_in_raw_fields_is_refused_in_the_child(judge: Judge, kubectl: Kubectl, case: Case) -> None:
    assert judge.ask(case.resource).accepted, "the CRD is not expected to see it"
    parsed = parse_llmdeployment(case.resource)
    assert isinstance(parsed, LLMDeployment)
    plan = plan_deployment(parsed, Observed(), EngineCatalog.builtin(), OperatorFacts(), datetime.now(UTC))
    children = [json.dumps(child.body) for child in plan.children]
    refused = [
        kubectl.run("apply", "--server-side", "--validate=false", "--dry-run=server", "-f", "-", stdin=child).returncode
        for child in children
    ]
    assert any(refused)


WORDS = [
    "10:30", "2024-01-31", "yes", "y", "N", "on", "off", "~", "null", "Null", "12", "1_000", "0x10", "010", "0o17", "0b11", "-3", "+3",
    "09", "1.5", "2.0", "1e3", "1E-3", ".5", "5.", "1.2.3", "1605565b", "'12'", "64Gi", "=", "True", "TRUE", "tRUE", "1__0", "_1", "0",
    "-0", "1e400", "0x", "123456789012345678901234567890", "1.0e+2",
]  # fmt: skip


def test_words_are_read_as_kubectl_reads_them(kubectl: Kubectl, namespace: str) -> None:
    """The same file, by kubectl to the API server and by `fairlead render`."""
    lines = "".join(f"      word{number}: {word}\n" for number, word in enumerate(WORDS))
    text = (
        "apiVersion: fairlead.dev/v1alpha1\nkind: LLMDeployment\nmetadata: {name: words}\nspec:\n"
        "  model: {source: hf://a/b}\n  engine: {type: vLLM}\n  pod:\n    affinity:\n" + lines
    )
    seen = json.loads(kubectl("create", "-n", namespace, "--dry-run=server", "-o", "json", "-f", "-", stdin=text))
    [document] = read_documents(text, "text")
    theirs, ours = seen["spec"]["pod"]["affinity"], document.body["spec"]["pod"]["affinity"]
    different = {WORDS[int(key[4:])]: (theirs.get(key), ours[key]) for key in ours if theirs.get(key) != ours[key]}
    assert different == {}


@pytest.mark.parametrize("text", ["{1: a, true: b}", "{y: a}", "{1.5: a}"])
def test_keys_are_read_as_kubectl_reads_them(kubectl: Kubectl, namespace: str, text: str) -> None:
    whole = (
        "{apiVersion: fairlead.dev/v1alpha1, kind: LLMDeployment, metadata: {name: keys}, spec: {model: {source: 'hf://a/b'}, "
        f"engine: {{type: vLLM}}, pod: {{affinity: {text}}}}}}}"
    )
    seen = json.loads(kubectl("create", "-n", namespace, "--dry-run=server", "-o", "json", "-f", "-", stdin=whole))
    [document] = read_documents(whole, "text")
    assert document.body["spec"]["pod"]["affinity"] == seen["spec"]["pod"]["affinity"]
