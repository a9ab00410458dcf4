"""A world for the planner: custom resources as users write them, and a cluster that takes what a plan says.

The cluster here keeps objects as the planner sent them (no defaults: what the API server adds is judged by the cluster
tests), gives them uid, resourceVersion and generation, and lets a test say how far the pods are.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fairlead.api.resource import LLMDeployment
from fairlead.api.validation import parse_llmdeployment
from fairlead.engines.loader import EngineCatalog
from fairlead.facts.observed import ApplyFailure, ObjectKey, Observed, OperatorFacts
from fairlead.facts.scaling import Signals
from fairlead.planning.deployment import Draw, draw_blueprint, plan_deployment
from fairlead.planning.plan import Plan

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
UID = "11111111-2222-3333-4444-555555555555"
Json = dict[str, Any]

VLLM: Json = {
    "model": {"source": "hf://meta-llama/Llama-3.1-8B-Instruct"},
    "engine": {"type": "vLLM"},
    "accelerator": {"count": 1},
}
OLLAMA: Json = {"model": {"source": "ollama://qwen2.5:0.5b"}, "engine": {"type": "Ollama"}}


def merge(base: Json, **changes: Any) -> Json:
    """A spec with sections replaced; `section__field` replaces one field of a section, None removes."""
    spec = copy.deepcopy(base)
    for key, value in changes.items():
        section, _, name = key.partition("__")
        target = spec.setdefault(section, {}) if name else spec
        if value is None:
            target.pop(name or section, None)
        else:
            target[name or section] = value
    return spec


def make_raw(
    spec: Json, *, name: str = "llama", generation: int = 1, status: Json | None = None, **metadata: Any
) -> Json:
    """A custom resource as the API server has it."""
    return {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name, "namespace": "ml", "uid": UID, "generation": generation, **metadata},
        "spec": spec,
        "status": status or {},
    }


def make_resource(spec: Json, **arguments: Any) -> LLMDeployment:
    """The same, parsed. A spec that does not pass validation is a mistake of the test."""
    parsed = parse_llmdeployment(make_raw(spec, **arguments))
    assert isinstance(parsed, LLMDeployment), [str(finding) for finding in parsed]
    return parsed


@dataclass
class World:
    """One LLMDeployment and its surroundings; `plan()` decides, `apply()` carries it out."""

    spec: Json
    name: str = "llama"
    generation: int = 1
    annotations: dict[str, str] = field(default_factory=dict)
    status: Json = field(default_factory=dict)
    children: dict[ObjectKey, Json] = field(default_factory=dict)
    pods: list[Json] = field(default_factory=list)
    failures: list[ApplyFailure] = field(default_factory=list)
    engines: EngineCatalog = field(default_factory=EngineCatalog.builtin)
    facts: OperatorFacts = field(default_factory=OperatorFacts)
    now: datetime = NOW
    signals: Signals = field(default_factory=Signals)
    verdict: tuple[str, datetime] | None = None
    has_keda: bool = True

    @property
    def resource(self) -> LLMDeployment:
        return make_resource(
            self.spec,
            name=self.name,
            generation=self.generation,
            status=self.status,
            annotations=self.annotations,
        )

    @property
    def observed(self) -> Observed:
        return Observed(
            children=self.children,
            pods=self.pods,
            failures=self.failures,
            signals=replace(self.signals, verdict=self.verdict),
            has_keda=self.has_keda,
        )

    def plan(self, draw: Draw = draw_blueprint) -> Plan:
        return plan_deployment(self.resource, self.observed, self.engines, self.facts, self.now, draw)

    def step(self) -> Plan:
        """One pass: decide and carry out."""
        plan = self.plan()
        self.apply(plan)
        return plan

    def apply(self, plan: Plan) -> None:
        for child in plan.children:
            self._put(child.key, copy.deepcopy(dict(child.body)))
        for delete in plan.deletes:
            assert self.children[delete.key]["metadata"]["uid"] == delete.uid
            del self.children[delete.key]
        self.status = copy.deepcopy(dict(plan.status))
        self.verdict = plan.verdict

    def _put(self, key: ObjectKey, body: Json) -> None:
        live = self.children.get(key)
        if live is None:
            body["metadata"] |= {"uid": f"uid-{key.kind}-{key.name}", "generation": 1, "resourceVersion": "1"}
        else:
            changed = live["spec"] != body["spec"]
            old = live["metadata"]
            body["metadata"] |= {
                "uid": old["uid"],
                "generation": old["generation"] + changed,
                "resourceVersion": str(int(old["resourceVersion"]) + 1),
            }
            if "status" in live:
                body["status"] = live["status"]
        self.children[key] = body

    def edit(self, spec: Json) -> None:
        """A user's change."""
        self.spec = spec
        self.generation += 1

    def child(self, kind: str, suffix: str = "") -> Json:
        return self.children[ObjectKey(kind, "ml", self.name + suffix)]

    @property
    def deployment(self) -> Json:
        return self.child("Deployment")

    def report(self, *, replicas: int, updated: int, ready: int, **more: Any) -> None:
        """What the Deployment's controller says; it has seen the newest generation."""
        self.deployment["status"] = {
            "observedGeneration": self.deployment["metadata"]["generation"],
            "replicas": replicas,
            "updatedReplicas": updated,
            "readyReplicas": ready,
            "availableReplicas": ready,
            **more,
        }

    def serve(self) -> None:
        """All replicas run the current template and are ready."""
        wanted = self.deployment["spec"]["replicas"]
        self.report(replicas=wanted, updated=wanted, ready=wanted)
        self.pods = [make_pod(f"pod-{index}", ready=True) for index in range(wanted)]

    def settle(self) -> Plan:
        """From nothing to serving."""
        self.step()
        self.serve()
        return self.step()

    def condition(self, condition_type: str) -> Json:
        return next(c for c in self.status["conditions"] if c["type"] == condition_type)

    def states(self) -> dict[str, str]:
        """`{"Ready": "True/Serving", …}`."""
        return {c["type"]: f"{c['status']}/{c['reason']}" for c in self.status["conditions"]}


def make_pod(name: str, *, ready: bool = False, **status: Any) -> Json:
    """An engine pod with a node, its engine running."""
    conditions = [
        {"type": "PodScheduled", "status": "True"},
        {"type": "Ready", "status": "True" if ready else "False"},
    ]
    container = {"name": "engine", "image": "x:1", "ready": ready, "restartCount": 0, "state": {"running": {}}}
    return {
        "metadata": {"name": name, "namespace": "ml"},
        "status": {"phase": "Running", "conditions": conditions, "containerStatuses": [container], **status},
    }


def make_homeless_pod(name: str, message: str, *, since: datetime) -> Json:
    """A pod for which the scheduler found no node."""
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastTransitionTime": since.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return {"metadata": {"name": name}, "status": {"phase": "Pending", "conditions": [condition]}}


def waiting(reason: str, message: str = "", **more: Any) -> Json:
    """A container status in state waiting."""
    state = {"waiting": {"reason": reason, "message": message}}
    return {"name": "engine", "image": "vllm/vllm-openai:v9", "ready": False, "restartCount": 0, "state": state, **more}


def ended(
    message: str,
    *,
    exit_code: int = 1,
    restarts: int = 1,
    lived_s: int = 20,
    reason: str = "Error",
    name: str = "engine",
) -> Json:
    """A container status of one that ended and is waiting for its next start."""
    finished = NOW
    last = {
        "exitCode": exit_code,
        "reason": reason,
        "message": message,
        "startedAt": (finished - timedelta(seconds=lived_s)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "finishedAt": finished.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    back_off = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}}
    return {
        "name": name,
        "image": "x:1",
        "ready": False,
        "restartCount": restarts,
        "state": back_off,
        "lastState": {"terminated": last},
    }
