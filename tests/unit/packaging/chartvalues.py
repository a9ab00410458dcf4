"""Values with which the chart is rendered in tests."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

#: Every switch once, so that each template's branches are rendered.
EVERYTHING: Json = {
    "fullnameOverride": "llm-operator",
    "image": {"repository": "registry.example/fairlead", "digest": f"sha256:{'a' * 64}", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "replicas": 3,
    "watchNamespaces": ["ml", "research"],
    "nodes": "OnDemand",
    "crds": {"enabled": True, "keep": False},
    "serviceAccount": {"name": "operator-account", "annotations": {"example.com/role": "x"}},
    "monitoringNamespaces": ["observability", "monitoring"],
    "monitoring": {"labels": {"release": "prometheus"}, "runbookURL": "https://docs.example/runbooks"},
    "alerts": {"existingSecret": "fairlead-alerts", "key": "bearer"},
    "downloadBandwidth": "200Mi",
    "prometheus": {
        "url": "https://thanos.example:10902/prometheus",
        "headers": {"X-Scope-OrgID": "ml"},
        "tokenSecret": {"name": "thanos-token", "key": "bearer"},
        "caConfigMap": {"name": "thanos-ca", "key": "ca.pem"},
        "timeoutSeconds": 10,
        "namespaceLabel": "exported_namespace",
        "podLabel": "exported_pod",
    },
    "logLevel": "debug",
    "extraArgs": ["--workers=32"],
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}],
    "commonLabels": {"team": "platform"},
    "podLabels": {"team": "platform"},
    "podAnnotations": {"example.com/x": "y"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "infra", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "infra", "operator": "Exists"}]}]}}},
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
    "priorityClassName": "system-cluster-critical",
    "service": {"annotations": {"prometheus.io/scrape": "true"}},
    "networkPolicy": {"apiServerPorts": [8443], "prometheusPorts": [9090], "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]},
}  # fmt: skip
NOTHING: Json = {
    "replicas": 1,
    "crds": {"enabled": False},
    "rbac": {"create": False},
    "admissionPolicies": {"enabled": False},
    "serviceAccount": {"create": False, "name": "theirs"},
    "monitoringNamespaces": [],
    "networkPolicy": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
}
CASES = {"defaults": {}, "everything": EVERYTHING, "nothing": NOTHING}
