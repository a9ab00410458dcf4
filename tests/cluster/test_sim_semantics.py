"""The simulated API of `tests/sim` against the real one: the same requests, the same answers.

What the simulation proves is worth as much as its likeness. Both get the operator's own objects by server-side apply, edits of
others, and what must be refused; what the simulation then has must be what the real one has.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest
from tests.sim.cluster import Request, SimCluster
from tests.sim.kinds import Address

from fairlead.api.names import FIELD_MANAGER_LLMDEPLOYMENT
from fairlead.api.resource import LLMDeployment
from fairlead.api.validation import parse_llmdeployment
from fairlead.engines.loader import EngineCatalog
from fairlead.facts.observed import Observed, OperatorFacts
from fairlead.planning.deployment import plan_deployment
from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.kubectl import Kubectl

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
OURS = FIELD_MANAGER_LLMDEPLOYMENT
PLURALS = {
    "Deployment": "deployments.apps",
    "Service": "services",
    "NetworkPolicy": "networkpolicies.networking.k8s.io",
    "PodDisruptionBudget": "poddisruptionbudgets.policy",
    "PersistentVolumeClaim": "persistentvolumeclaims",
}
SPECS: tuple[Json, ...] = (
    {
        "model": {"source": "hf://org/Model-8B-FP8"},
        "engine": {"type": "vLLM"},
        "replicas": 2,
        "service": {"port": 8080},
    },
    {"model": {"source": "ollama://qwen2.5:0.5b"}, "engine": {"type": "Ollama"}, "pod": {"labels": {"team": "a"}}},
    {
        "model": {"source": "ollama://qwen2.5:0.5b"},
        "engine": {"type": "Ollama", "env": [{"name": "A", "value": "1"}]},
        "replicas": 3,
        "storage": {"type": "PersistentVolumeClaim", "size": "10Gi"},
        "service": {"port": 81, "annotations": {"a": "b"}},
    },
    {
        "model": {"source": "pvc://weights/some/dir", "name": "x"},
        "engine": {"type": "vLLM"},
        "accelerator": {"count": 2},
    },
)


def _bodies(spec: Json, namespace: str) -> list[Json]:
    """The children of one spec, as the operator applies them; without the owner, whom neither side has."""
    raw = {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": "m", "namespace": namespace, "generation": 1},
        "spec": copy.deepcopy(spec),
    }
    parsed = parse_llmdeployment(raw)
    assert isinstance(parsed, LLMDeployment), parsed
    now = SimCluster(lambda: 0.0).wall()
    plan = plan_deployment(parsed, Observed(), EngineCatalog.builtin(), OperatorFacts(), now)
    return [dict(child.body) for child in plan.children]


class Both:
    """The two API servers, asked the same."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self.kubectl = kubectl
        self.namespace = namespace
        self.sim = SimCluster(lambda: 0.0)

    def apply(self, body: Json, manager: str = OURS, *, force: bool = True) -> tuple[bool, bool]:
        """Whether the real one and the simulated one took it."""
        flags = ["--force-conflicts"] if force else []
        result = self.kubectl.run(
            "apply", "--server-side", f"--field-manager={manager}", *flags, "-f", "-", stdin=json.dumps(body)
        )
        params = {"fieldManager": manager} | ({"force": "true"} if force else {})
        address = Address(body["kind"], self.namespace, body["metadata"]["name"])
        answer = self.sim.serve(
            Request(manager, "PATCH", address, params, copy.deepcopy(body), "application/apply-patch+yaml")
        )
        return result.returncode == 0, answer.code < 300

    def merge(self, kind: str, name: str, patch: Json) -> tuple[bool, bool]:
        """A merge patch by somebody else."""
        result = self.kubectl.run(
            "-n",
            self.namespace,
            "patch",
            PLURALS[kind],
            name,
            "--type=merge",
            "--field-manager=hand",
            "-p",
            json.dumps(patch),
        )
        address = Address(kind, self.namespace, name)
        answer = self.sim.serve(
            Request(
                "hand", "PATCH", address, {"fieldManager": "hand"}, copy.deepcopy(patch), "application/merge-patch+json"
            )
        )
        return result.returncode == 0, answer.code < 300

    def agree(self, kind: str, name: str) -> None:
        """What the simulated one has, the real one has; and no list has more entries there."""
        real = self.kubectl.json("-n", self.namespace, "get", PLURALS[kind], name)
        simulated = self.sim.get(kind, self.namespace, name)
        assert simulated is not None
        for part in ("spec", "metadata"):
            wanted = simulated[part]
            if part == "metadata":
                wanted = {key: value for key, value in wanted.items() if key in ("labels", "annotations", "generation")}
            different = _uncovered(wanted, real[part], part)
            assert different is None, f"{kind}/{name}: {different}"
        if kind in ("Deployment", "NetworkPolicy", "PodDisruptionBudget"):
            extra = _uncovered(real["spec"], simulated["spec"], "spec", ignoring=_UNKNOWN)
            assert extra is None, f"{kind}/{name}: the real one also has {extra}"


#: What the real one fills in that the simulation leaves out, because nothing depends on it.
_UNKNOWN = frozenset({"serviceAccount", "creationTimestamp", "divisor"})
_ALLOCATED = frozenset({"clusterIP", "clusterIPs", "nodePort", "volumeName", "storageClassName"})


def _uncovered(wanted: Any, found: Any, path: str, ignoring: frozenset[str] = frozenset()) -> str | None:
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        for key, value in wanted.items():
            if key in _ALLOCATED or key in ignoring:
                continue
            if (different := _uncovered(value, found.get(key), f"{path}.{key}", ignoring)) is not None:
                return different
        return None
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for index, (one, other) in enumerate(zip(wanted, found, strict=True)):
            if (different := _uncovered(one, other, f"{path}[{index}]", ignoring)) is not None:
                return different
        return None
    if wanted in (None, {}, []) and found in (None, {}, []):
        return None
    return None if wanted == found else f"{path}: {wanted!r} and {found!r}"


@pytest.fixture
def both(control_plane: LocalCluster, namespace: str) -> Both:
    return Both(control_plane.kubectl, namespace)


@pytest.mark.long
def test_every_spec_after_every_other_leads_to_the_same_objects(both: Both) -> None:
    """Whatever an apply takes away, defaults of a handler that goes included, and in whatever order lists end up."""
    order = (0, 1, 0, 2, 1, 3, 2, 0, 3, 1)
    for number in order:
        for body in _bodies(SPECS[number], both.namespace):
            taken = both.apply(body)
            assert taken == (True, True), f"{body['kind']} of spec {number}: {taken}"
            if body["kind"] != "PersistentVolumeClaim":
                both.agree(body["kind"], body["metadata"]["name"])


def test_managers_get_in_each_others_way_alike(both: Both) -> None:
    bodies = {body["kind"]: body for body in _bodies(SPECS[0], both.namespace) if body["metadata"]["name"] == "m"}
    deployment, service = bodies["Deployment"], bodies["Service"]
    for body in (deployment, service):
        assert both.apply(body) == (True, True)
    theirs = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "m", "namespace": both.namespace}}
    for spec, force, taken in (
        ({"replicas": 7}, False, False),  # ours, and another value
        ({"replicas": deployment["spec"]["replicas"]}, False, True),  # the same value: owned by both
        ({"replicas": 7}, True, True),
        ({"minReadySeconds": 3}, False, True),  # nobody's; and replicas, no longer in their wish, ...
    ):
        assert both.apply({**theirs, "spec": spec}, "somebody", force=force) == (taken, taken), spec
        both.agree("Deployment", "m")
    assert both.apply(deployment, force=False) == (True, True)
    both.agree("Deployment", "m")
    assert both.merge("Deployment", "m", {"spec": {"replicas": 9}, "metadata": {"annotations": {"x": "y"}}}) == (
        True,
        True,
    )
    both.agree("Deployment", "m")
    assert both.apply(deployment, force=False) == (False, False)
    assert both.apply(deployment) == (True, True)
    both.agree("Deployment", "m")
    assert both.merge("Service", "m", {"spec": {"ports": [{"name": "http", "port": 8999, "targetPort": "http"}]}}) == (
        True,
        True,
    )
    both.agree("Service", "m")
    assert both.apply(service) == (False, False), "two ports of one name"
    assert both.merge("Service", "m", {"spec": {"ports": service["spec"]["ports"]}}) == (True, True)
    assert both.apply(service) == (True, True)
    both.agree("Service", "m")


def test_preconditions_and_immutable_fields_are_refused_alike(both: Both) -> None:
    bodies = {
        body["kind"]: body for body in _bodies(SPECS[2], both.namespace) if body["metadata"]["name"].startswith("m")
    }
    claim = bodies["PersistentVolumeClaim"]
    create_only = {**claim, "metadata": {**claim["metadata"], "resourceVersion": "1"}}
    assert both.apply({**claim, "metadata": {**claim["metadata"], "uid": "not-there"}}) == (False, False)
    assert both.apply(create_only, force=False) == (True, True)
    assert both.apply(create_only, force=False) == (False, False)
    assert both.apply({**claim, "metadata": {**claim["metadata"], "uid": "another"}}) == (False, False)
    for change in ({"accessModes": ["ReadWriteMany"]}, {"resources": {"requests": {"storage": "1Gi"}}}):
        assert both.apply({**claim, "spec": {**claim["spec"], **change}}) == (False, False), change
    deployment = bodies["Deployment"]
    assert both.apply(deployment) == (True, True)
    selector = {"matchLabels": {"other": "labels"}}
    assert both.apply({**deployment, "spec": {**deployment["spec"], "selector": selector}}) == (False, False)
