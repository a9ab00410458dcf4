"""The LLMRoute CRD on the real API server: how large a route may be, and what kubectl shows of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from tests.unit.api.cases import make_route_resource

from fairlead.api.resource import LLMRoute
from fairlead.api.validation import parse_llmroute
from fairlead_cluster.kubectl import Kubectl

pytestmark = pytest.mark.cluster

Json = dict[str, Any]


def maximal(namespace: str, length: int, *, targets: int = 16) -> Json:
    """A route with as many entries as the schema lets it have, whose names have up to so many characters. Nothing in it is found
    early: each target names one of the last backends, each rule looks at everything."""

    def name(prefix: str, number: int, most: int = 63) -> str:
        return f"{prefix}{number:03d}".ljust(min(length, most), "x")

    backends = [name("b", number) for number in range(64)]
    roles = [name("r", number) for number in range(64)]
    spec = {
        "backends": [
            {"name": backend, "deployment": {"name": f"d{n}", "slowStart": "59m59s"}}
            for n, backend in enumerate(backends)
        ],
        "models": [
            {
                "name": name("m", number, 128),
                "targets": [
                    {"backend": backends[63 - t % 2], "model": name("t", t, 256), "weight": t % 2, "priority": t % 16}
                    for t in range(targets)
                ],
                "timeouts": {"request": "1h30m"},
                "affinity": {"header": name("x-", number, 64)},
                "hold": {"patience": "1h", "overflowAfter": "59m59s", "maxRequests": 10_000},
            }
            for number in range(256)
        ],
        "authentication": {"apiKeys": {"secretRef": {"name": "clients"}}, "anonymous": {"role": roles[-1]}},
        "roles": [
            {
                "name": role,
                "consumers": [f"c{n}-{c}" for c in range(256 if length < 60 else 16)],
                "llmAccess": ["Cloud", "Local"],
                "dataAccess": ["Public", "Internal", "Confidential", "Restricted"],
                "mayDeclare": ["Public", "Internal", "Confidential", "Restricted"],
                "floor": "Confidential",
            }
            for n, role in enumerate(roles)
        ],
        "dataPolicy": {
            "detectors": [
                {
                    "name": name("d", number),
                    "class": "Confidential",
                    "keywords": [f"k{number}-{k}".ljust(min(length, 64), "x") for k in range(8)],
                }
                for number in range(30)
            ]
            + [
                {
                    "name": name("d", number),
                    "class": "Confidential",
                    "patterns": [f"p{number}-{k}".ljust(min(length, 256), "x") for k in range(8)],
                }
                for number in (30, 31)
            ],
            "denyClasses": ["Restricted", "Confidential"],
            "floor": "Internal",
        },
    }
    return make_route_resource("local", {"metadata": {"name": "maximal", "namespace": namespace}}) | {"spec": spec}


@pytest.mark.parametrize("length", [5, 63])
def test_a_route_of_the_largest_numbers_is_stored(kubectl: Kubectl, namespace: str, length: int) -> None:
    """256 models × 16 targets, 64 backends, 64 roles, 32 detectors: the rules' actual cost stays below what one request may cost."""
    resource = maximal(namespace, length)
    assert isinstance(parse_llmroute(resource), LLMRoute)
    kubectl("create", "-f", "-", stdin=json.dumps(resource))
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(resource))
    found = kubectl.json("get", "llmrt", "maximal", "-n", namespace)
    assert len(found["spec"]["models"]) == 256


def test_the_last_target_of_the_largest_route_is_looked_at(kubectl: Kubectl, namespace: str) -> None:
    resource = maximal(namespace, 5)
    resource["spec"]["models"][-1]["targets"][-1]["backend"] = "nobody"
    refused = kubectl.run("create", "-f", "-", stdin=json.dumps(resource))
    assert refused.returncode != 0
    assert "spec.models" in refused.stderr
    assert "a target names a backend that spec.backends does not have" in refused.stderr
    assert "cost" not in refused.stderr


def test_a_route_of_the_largest_numbers_and_longest_names_is_larger_than_an_object_may_be(
    kubectl: Kubectl, namespace: str
) -> None:
    """1.5 MiB is the limit of etcd; the rules are through before, so that nobody is told of their cost instead."""
    resource = maximal(namespace, 256)
    assert isinstance(parse_llmroute(resource), LLMRoute)
    refused = kubectl.run("create", "-f", "-", stdin=json.dumps(resource))
    assert refused.returncode != 0
    assert "request is too large" in refused.stderr, refused.stderr[:1000]
    kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(resource))


def test_unseen_route_is_not_current(kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply(make_route_resource("local", {"metadata": {"namespace": namespace}}))
    assert kubectl.json("get", "llmrt", "assistants", "-n", namespace)["status"] == {"observedGeneration": -1}


def test_columns_and_names(kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply(make_route_resource("mixed", {"metadata": {"namespace": namespace}}))
    ready = {
        "type": "Ready", "status": "True", "reason": "Serving", "message": "2 of 2 gateways serve.",
        "lastTransitionTime": "2026-11-25T10:00:00Z", "observedGeneration": 1,
    }  # fmt: skip
    status = {
        "observedGeneration": 1, "conditions": [ready], "gateways": "2/2", "modelCount": 2, "routing": "0a1b",
        "endpoint": "http://assistants-gateway.x.svc/v1",
        "backends": [{"name": "local", "kind": "Local", "state": "Ready"}],
        "models": [{"name": "chat", "targets": {"Public": "local, openai"}}],
    }  # fmt: skip
    patch = json.dumps({"status": status})
    kubectl("patch", "llmrt", "assistants", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
    narrow = kubectl("get", "llmrt", "-n", namespace).splitlines()
    assert narrow[0].split() == ["NAME", "READY", "GATEWAYS", "MODELS", "ENDPOINT", "AGE"]
    assert narrow[1].split()[:5] == ["assistants", "True", "2/2", "2", "http://assistants-gateway.x.svc/v1"]
    wide = kubectl("get", "llm", "-n", namespace, "-o", "wide")
    assert "REASON" in wide.splitlines()[0].split()
    assert "Serving" in wide
    assert "assistants" in kubectl("get", "llmroutes", "-n", namespace)
    kubectl("wait", "--for=condition=Ready", "llmrt/assistants", "-n", namespace, "--timeout=10s")


def test_a_route_cannot_be_scaled_by_itself(kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply(make_route_resource("local", {"metadata": {"namespace": namespace}}))
    assert kubectl.run("scale", "llmrt/assistants", "-n", namespace, "--replicas=3").returncode != 0


def test_status_fields_that_are_not_declared_are_told(kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply(make_route_resource("local", {"metadata": {"namespace": namespace}}))
    refused = kubectl.run(
        "patch", "llmrt", "assistants", "-n", namespace, "--subresource=status", "--type=merge", "-p", '{"status": {"phase": "Ready"}}',
    )  # fmt: skip
    assert "unknown field" in refused.stderr


@pytest.mark.parametrize(
    "path",
    ["", ".spec", ".spec.backends.provider.tls.caSecretRef", ".spec.models.targets.weight", ".spec.roles.consumers", ".status.models"],
)  # fmt: skip
def test_explain_shows_the_descriptions(kubectl: Kubectl, path: str) -> None:
    explained = kubectl("explain", f"llmrt{path}")
    assert "DESCRIPTION" in explained
    assert "<empty>" not in explained


def test_two_owners_keep_lists_by_their_keys(kubectl: Kubectl, namespace: str) -> None:
    """Backends, models, roles, detectors and consumers may each come from another pipeline; the classes of a role may not."""
    kubectl.apply(make_route_resource("mixed", {"metadata": {"namespace": namespace}}))

    def apply(spec: Json, manager: str) -> Any:
        envelope = {"apiVersion": "fairlead.dev/v1alpha1", "kind": "LLMRoute"}
        body = {**envelope, "metadata": {"name": "assistants", "namespace": namespace}, "spec": spec}
        return kubectl.run(
            "apply", "--server-side", f"--field-manager={manager}", "-f", "-", stdin=yaml.safe_dump(body)
        )

    mine = {"name": "developer", "consumers": ["team-z"]}
    added = apply({"roles": [mine], "models": [{"name": "mine", "targets": [{"backend": "local"}]}]}, "mine")
    assert added.returncode == 0, added.stderr
    spec = kubectl.json("get", "llmrt", "assistants", "-n", namespace)["spec"]
    assert [model["name"] for model in spec["models"]] == ["chat", "small", "mine"]
    assert spec["roles"][0]["consumers"] == ["team-a", "team-z"]
    widened = apply({"roles": [{**mine, "dataAccess": ["Public", "Internal", "Confidential"]}]}, "mine")
    assert widened.returncode != 0
    assert "conflict" in widened.stderr
