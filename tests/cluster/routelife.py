"""The life of a route on a control plane without nodes, as far as the operator's rights go: every kind of child, and a gateway pod
that must be told of its routing."""

from __future__ import annotations

import json
from typing import Any

from tests.cluster.operator_world import until

from fairlead_cluster.cluster import LocalCluster

Json = dict[str, Any]
#: What it does not show: `route/test_deaf_gateway.py` does, which takes half a minute.
NOT_LIVED = frozenset({("delete", "", "pods")})
_CHILDREN = ("configmaps", "secrets", "services", "networkpolicies", "deployments", "poddisruptionbudgets")
_SELECTOR = "fairlead.dev/llmroute=rights"


def live_a_route(cluster: LocalCluster, namespace: str) -> None:
    """Apply a route, pretend that one of its gateways is ready, and wait until that pod was told."""
    kubectl = cluster.kubectl
    clients: Json = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "clients", "namespace": namespace, "labels": {"fairlead.dev/use": "clients"}},
        "stringData": {"team-a": "sk-key-of-team-a"},
    }
    route: Json = {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "LLMRoute",
        "metadata": {"name": "rights", "namespace": namespace},
        "spec": {
            "backends": [{"name": "local", "deployment": {"name": "m"}}],
            "models": [{"name": "chat", "targets": [{"backend": "local"}]}],
            "authentication": {"apiKeys": {"secretRef": {"name": "clients"}}},
        },
    }
    kubectl.apply(clients, route)
    for kind in _CHILDREN:
        until(lambda kind=kind: kubectl("-n", namespace, "get", kind, "-l", _SELECTOR, "-o", "name"), kind)
    pod = until(lambda: kubectl("-n", namespace, "get", "pods", "-l", _SELECTOR, "-o", "name").split(), "a pod")[0]
    # Nobody listens there: a gateway that has said nothing has loaded nothing.
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-27T00:00:00Z"}
    status = {
        "status": {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}], "conditions": [ready]}
    }
    patch = ("--subresource=status", "--type=merge", "-p", json.dumps(status))
    kubectl("-n", namespace, "patch", pod, *patch)
    until(lambda: "fairlead.dev/routing" in kubectl("-n", namespace, "get", pod, "-o", "yaml"), "the pod is told")
    kubectl("-n", namespace, "delete", "llmroute", "rights")
