"""Somebody else's admission refuses or changes our children: told in their words, tried seldom, healed without us, no fight."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster.faults.operated import Json, Operated
from tests.cluster.faults.proxy import Match
from tests.cluster.operator_world import QUIET_S, make_cr, until

pytestmark = pytest.mark.cluster

#: Attempts at one refused child: at once, and 15 s later. Its own events and those of the others may not add to them.
ATTEMPTS_IN_20_S = 3
CACHED = {"type": "PersistentVolumeClaim", "size": "5Gi"}


def matching(world: Operated) -> Json:
    """Deployments of this namespace."""
    rule = {
        "apiGroups": ["apps"],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["deployments"],
    }
    return {
        "resourceRules": [rule],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}},
    }


def policy(world: Operated, kind: str, spec: Json, binding: Json) -> list[Json]:
    """A policy and its binding, named after the namespace, since they belong to the cluster."""
    api, metadata = "admissionregistration.k8s.io/v1", {"name": world.namespace}
    return [
        {"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec | {"matchConstraints": matching(world)}},
        {
            "apiVersion": api,
            "kind": f"{kind}Binding",
            "metadata": metadata,
            "spec": {"policyName": world.namespace, **binding},
        },
    ]


def probe(world: Operated) -> str:
    """What the API server makes of a Deployment of a user: its JSON, or the refusal."""
    labels = {"app": "probe"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    body: Json = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "probe", "namespace": world.namespace},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": pod},
    }
    import json

    done = world.cluster.kubectl.run("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(body))
    return done.stdout + done.stderr


@pytest.fixture
def policies(world: Operated) -> Iterator[Any]:
    """Applies policies and takes them away at the end."""
    kinds: list[str] = []

    def install(kind: str, spec: Json, **binding: Any) -> None:
        world.apply(*policy(world, kind, spec, binding))
        kinds.extend((f"{kind}Binding", kind))

    yield install
    for kind in kinds:
        world.cluster.kubectl("delete", kind, world.namespace, "--ignore-not-found")


@pytest.mark.long
def test_children_that_policy_quota_and_limits_refuse(world: Operated, policies: Any) -> None:
    """Each by its own admission; the others are there, and all come when the refusals end, though nobody touches ours."""
    policies(
        "ValidatingAdmissionPolicy",
        {
            "validations": [
                {
                    "expression": "has(object.metadata.labels) && 'team' in object.metadata.labels",
                    "message": "every Deployment names its team",
                }
            ]
        },
        validationActions=["Deny"],
    )
    quota = {"hard": {"count/networkpolicies.networking.k8s.io": "0"}}
    limits = {"limits": [{"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}]}
    for kind, spec in (("ResourceQuota", quota), ("LimitRange", limits)):
        metadata = {"name": "strict", "namespace": world.namespace}
        world.apply({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec})
    until(lambda: "names its team" in probe(world), "the policy is in force")
    until(lambda: "used" in ((world.get("resourcequota/strict") or {}).get("status") or {}), "the quota is in force")
    since, mark = time.monotonic(), world.mark()
    world.apply(make_cr(world.namespace, "m", storage=CACHED))
    until(lambda: world.condition("m", "Ready").get("reason") == "ChildRefused", "the refusal is told")
    assert world.names("services") == ["m", "m-pods"]
    world.wait_stalled("m", "ChildRefused")
    message = world.condition("m", "Ready")["message"]
    assert any(word in message for word in ("names its team", "exceeded quota", "maximum storage"))
    assert world.metric("fairlead_applies_total", kind="Service") > 0
    time.sleep(max(0.0, since + 20 - time.monotonic()))
    refused = ("deployments", "networkpolicies", "persistentvolumeclaims")
    for resource in refused:
        attempts = world.faults.calls(Match("patch", resource, world.namespace), since)
        assert 1 <= len(attempts) <= ATTEMPTS_IN_20_S, resource
    assert len([write for write in world.writes(mark) if "status" in write]) <= 3
    world.cluster.kubectl("delete", "validatingadmissionpolicybinding", world.namespace)
    for kind in ("resourcequota", "limitrange"):
        world.kubectl("delete", kind, "strict")
    until(lambda: len(world.names("deployments,networkpolicies,persistentvolumeclaims")) == 3, "healed", 75)
    world.assert_recovered()
    assert max(world.created(mark).values()) == 1


CHANGES = {
    "a field that we do not set": ("Object{spec: Object.spec{minReadySeconds: 7}}", ("minReadySeconds", 7), 0),
    "a field that we set": ("Object{spec: Object.spec{replicas: 3}}", ("replicas", 3), 1),
}


@pytest.mark.parametrize(
    "what", ["a field that we set", pytest.param("a field that we do not set", marks=pytest.mark.long)]
)
def test_a_policy_that_changes_our_children_is_not_fought(world: Operated, policies: Any, what: str) -> None:
    """One apply more shows that the server keeps it so; then there is peace, also when pods and annotations move."""
    expression, (field, value), tries = CHANGES[what]
    mutation = {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}
    spec = {"mutations": [mutation], "failurePolicy": "Fail", "reinvocationPolicy": "Never"}
    policies("MutatingAdmissionPolicy", spec)
    until(lambda: f'"{field}": {value}' in probe(world), "the policy is in force")
    mark, since = world.mark(), time.monotonic()
    world.apply(make_cr(world.namespace, "m"))
    world.assert_recovered()
    assert (world.get("deployment/m") or {})["spec"][field] == value
    applies = world.faults.calls(Match("patch", "deployments", world.namespace), since)
    codes = [exchange.code for exchange in applies]
    assert len([code for code in codes if code < 300]) <= 1 + tries, codes
    assert codes.count(409) <= 5, "an apply may meet the Deployment controller's first steps"
    world.kubectl("label", "pods", "--all", "example.com/moved=1")
    time.sleep(QUIET_S)
    assert len(world.faults.calls(Match("patch", "deployments", world.namespace), since)) == len(applies)
    assert max(world.created(mark).values()) == 1


@pytest.mark.long
def test_a_namespace_that_goes_away_in_the_middle_of_creating(world: Operated) -> None:
    """Nothing is made in it any more, and nothing of it stays behind in memory."""
    with world.cluster.namespace() as doomed:
        there = Operated(world.cluster, doomed, world.proxy)
        there.apply(*(make_cr(doomed, f"m{number}") for number in range(8)))
        world.cluster.kubectl("delete", "namespace", doomed, "--wait=false")
        until(lambda: doomed not in world.cluster.kubectl("get", "namespaces", "-o", "name"), "it is gone", 90)
        until(lambda: world.metric("fairlead_llmdeployment_condition", namespace=doomed) == 0, "forgotten")
        wanted = f"{doomed}/"
        until(lambda: not [key for key in world.queue()["delayed"] if key.startswith(wanted)], "no key comes back", 60)
        world.settled()
        world.assert_recovered()
