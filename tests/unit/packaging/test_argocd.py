"""The Lua health check that is shipped, run as Argo CD runs it (standard libraries off), against kstatus' verdict."""

from __future__ import annotations

import copy
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lupa.lua51
import pytest
import yaml
from hack.tools.build import Tools

from fairlead.api.conditions import ConditionType, Reason
from fairlead.facts.observed import ObjectKey, Observed, OperatorFacts
from fairlead.runtime.decide import decide

Json = dict[str, Any]
#: What kstatus calls the state that Argo CD calls so. Suspended has no counterpart there: it is not ready.
KSTATUS = {"Healthy": "Current", "Progressing": "InProgress", "Degraded": "Failed", "Suspended": "InProgress"}


def make_object(
    status: Json | None, *, generation: int = 3, spec: Json | None = None, conditions: dict[str, str] | None = None
) -> Json:
    """An LLMDeployment whose conditions are given as type -> status."""
    body: Json = {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": "m", "namespace": "ml", "generation": generation},
        "spec": spec or {},
    }
    if status is not None:
        body["status"] = dict(status)
        if conditions is not None:
            body["status"]["conditions"] = [
                {
                    "type": type_,
                    "status": value,
                    "reason": Reason.PROGRESSING.value,
                    "message": f"about {type_}",
                    "lastTransitionTime": "2026-11-25T00:00:00Z",
                    "observedGeneration": status["observedGeneration"],
                }
                for type_, value in conditions.items()
            ]
    return body


SEEN = {"observedGeneration": 3}
READY, RECONCILING, STALLED = ConditionType.READY.value, ConditionType.RECONCILING.value, ConditionType.STALLED.value
CASES = {
    "nobody has seen it, no status": (make_object(None), "Progressing", "Waiting for the operator"),
    "nobody has seen it, schema default": (make_object({"observedGeneration": -1}), "Progressing", "Waiting for"),
    "loading": (
        make_object(SEEN, conditions={READY: "False", RECONCILING: "True", STALLED: "False"}),
        "Progressing",
        "about Reconciling",
    ),
    "ready": (
        make_object(SEEN, conditions={READY: "True", RECONCILING: "False", STALLED: "False"}),
        "Healthy",
        "about Ready",
    ),
    "scaled to zero on purpose": (
        make_object(SEEN, spec={"replicas": 0}, conditions={READY: "True", RECONCILING: "False", STALLED: "False"}),
        "Healthy",
        "about Ready",
    ),
    "spec changed since": (
        make_object({"observedGeneration": 2}, conditions={READY: "True", RECONCILING: "False", STALLED: "False"}),
        "Progressing",
        "generation 3",
    ),
    "stalled": (
        make_object(SEEN, conditions={READY: "False", RECONCILING: "False", STALLED: "True"}),
        "Degraded",
        "about Stalled",
    ),
    "stalled while old pods serve": (
        make_object(SEEN, conditions={READY: "True", RECONCILING: "False", STALLED: "True"}),
        "Degraded",
        "about Stalled",
    ),
    "stalled for an older generation": (
        make_object({"observedGeneration": 2}, conditions={READY: "False", STALLED: "True"}),
        "Progressing",
        "generation 3",
    ),
    "rolling out while old pods serve": (
        make_object(SEEN, conditions={READY: "True", RECONCILING: "True", STALLED: "False"}),
        "Progressing",
        "about Reconciling",
    ),
    "replicas lost": (
        make_object(SEEN, conditions={READY: "False", RECONCILING: "False", STALLED: "False"}),
        "Progressing",
        "about Ready",
    ),
    "suspended": (
        make_object(SEEN, spec={"suspend": True}, conditions={READY: "False", RECONCILING: "False", STALLED: "False"}),
        "Suspended",
        "suspend",
    ),
    "to be suspended, not yet seen": (
        make_object({"observedGeneration": 2}, spec={"suspend": True}, conditions={READY: "True"}),
        "Progressing",
        "generation 3",
    ),
}


def argo_health(lua_text: str, resource: Json) -> tuple[str, str]:
    """Run a health script with `obj` as its only input and no standard library but what plain Lua needs."""
    runtime = lupa.lua51.LuaRuntime(register_eval=False, register_builtins=False)
    for library in ("os", "io", "package", "require", "dofile", "loadfile", "debug", "python"):
        runtime.execute(f"{library} = nil")
    runtime.globals().obj = runtime.table_from(resource, recursive=True)
    result = runtime.execute(lua_text)
    return str(result["status"]), str(result["message"])


@pytest.fixture(scope="module")
def lua_text(root: Path) -> str:
    return (root / "manifests/argocd/health.lua").read_text()


@pytest.mark.parametrize("name", CASES)
def test_health(lua_text: str, name: str) -> None:
    resource, status, message = CASES[name]
    health = argo_health(lua_text, resource)
    assert health[0] == status
    assert message in health[1]


def test_the_config_map_carries_the_very_script(root: Path, lua_text: str) -> None:
    config_map = yaml.safe_load((root / "manifests/argocd/argocd-cm.yaml").read_text())
    key = "resource.customizations.health.fairlead.dev_LLMDeployment"
    assert config_map["data"][key].rstrip("\n") == lua_text.rstrip("\n")


def test_agrees_with_kstatus(lua_text: str, tools: Tools) -> None:
    names = [name for name, (resource, *_) in CASES.items() if "status" in resource]  # without one kstatus says Current
    resources = [CASES[name][0] for name in names]
    done = subprocess.run([tools.kstatus], input=json.dumps(resources), capture_output=True, text=True, check=True)
    kstatus = dict(zip(names, (verdict["status"] for verdict in json.loads(done.stdout)), strict=True))
    argo = {name: argo_health(lua_text, CASES[name][0])[0] for name in names}
    assert kstatus == {name: KSTATUS[health] for name, health in argo.items()}


def make_resource(**spec: Any) -> Json:
    """A valid LLMDeployment as the API server has it before anybody looked at it."""
    return {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": "m", "namespace": "ml", "uid": "u1", "generation": 1},
        "spec": {"model": {"source": "hf://org/model"}, "engine": {"type": "vLLM"}, "replicas": 1} | spec,
        "status": {"observedGeneration": -1},
    }


def decide_status(resource: Json, ready: int | None = None) -> Json:
    """The status that the operator itself decides; `ready` pods of a Deployment that it made earlier (None: it has none)."""
    now = datetime(2026, 11, 25, tzinfo=UTC)
    first = decide(resource, Observed(), {}, OperatorFacts(), now)
    children: dict[ObjectKey, Json] = {}
    for child in first.children if ready is not None else ():
        live = copy.deepcopy(dict(child.body))
        live["metadata"] |= {"uid": str(child.key), "generation": 1, "resourceVersion": "1"}
        if child.key.kind == "Deployment":
            wanted = live["spec"]["replicas"]
            live["status"] = {"observedGeneration": 1, "replicas": wanted, "updatedReplicas": wanted}
            live["status"] |= {"readyReplicas": ready, "availableReplicas": ready}
        children[child.key] = live
    return dict(decide(resource, Observed(children=children), {}, OperatorFacts(), now).status)


@pytest.mark.parametrize(
    ("spec", "ready", "health"),
    [
        ({}, None, "Progressing"),
        ({}, 0, "Progressing"),
        ({}, 1, "Healthy"),
        ({"replicas": 3}, 2, "Progressing"),
        ({"replicas": 0}, 0, "Healthy"),
        ({"suspend": True}, 0, "Suspended"),
        ({"engine": {"type": "vllm"}}, None, "Degraded"),
        ({"engine": {"type": "NoSuchEngine"}}, None, "Degraded"),
    ],
    ids=str,
)
def test_health_of_what_the_operator_writes(lua_text: str, spec: Json, ready: int | None, health: str) -> None:
    resource = make_resource(**spec)
    resource["status"] = decide_status(resource, ready)
    assert argo_health(lua_text, resource)[0] == health
