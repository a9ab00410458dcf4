"""What Prometheus is given: rules and scrape configurations as plain files, and the same as objects of the Prometheus operator."""

from __future__ import annotations

from typing import Any

from fairlead.api.names import (
    COMPONENT_ENGINE,
    LABEL_COMPONENT,
    LABEL_LLMDEPLOYMENT,
    LABEL_LLMROUTE,
    LABEL_MANAGED_BY,
    MANAGED_BY,
)
from hack.generate import GENERATED_NOTICE
from hack.generate.rbac import LABELS, NAME, NAMESPACE, dump, dump_all
from hack.generate.rules import make_groups

Json = dict[str, Any]
NOTICE = f"# {GENERATED_NOTICE} Source: hack/generate/monitoring.py, hack/generate/rules.py\n"
GROUP_VERSION = "monitoring.coreos.com/v1"
_POD_LABEL = "__meta_kubernetes_pod_label_"
#: Of engines, whose scaling is decided from the last minute where the operator asks Prometheus: docs/scaling-signals.md.
INTERVAL = "15s"


def generate() -> dict[str, str]:
    """The files of manifests/monitoring, and what the chart's template takes in."""
    return {
        "manifests/monitoring/rules.yaml": NOTICE + dump(make_groups()),
        "manifests/monitoring/scrape.yaml": NOTICE + dump({"scrape_configs": make_scrape_configs()}),
        "manifests/monitoring/objects/prometheusrule.yaml": NOTICE + dump(make_rule_object()),
        "manifests/monitoring/objects/podmonitors.yaml": NOTICE + dump_all(make_monitors()),
        "charts/fairlead/files/rules.yaml": dump(make_groups()),
        "charts/fairlead/files/podmonitors.yaml": dump_all(make_monitors()),
    }


def make_rule_object() -> Json:
    """The rules for the Prometheus operator."""
    return {
        "apiVersion": GROUP_VERSION,
        "kind": "PrometheusRule",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": dict(LABELS)},
        "spec": make_groups(),
    }


def make_monitors() -> list[Json]:
    """Engines, gateways and the operator, wherever their pods are."""
    ours = {LABEL_MANAGED_BY: MANAGED_BY}
    engine = {"relabelings": _identify(LABEL_LLMDEPLOYMENT, "llm_name"), "interval": INTERVAL}
    return [
        _make_monitor(
            "engines",
            {"matchLabels": {**ours, LABEL_COMPONENT: COMPONENT_ENGINE}},
            {"port": "http", **engine},
            # Pods with spec.encryption. No certificate names a pod's address.
            {"port": "https", "scheme": "https", "tlsConfig": {"insecureSkipVerify": True}, **engine},
        ),
        _make_monitor(
            "gateways",
            {"matchLabels": ours, "matchExpressions": [{"key": LABEL_LLMROUTE, "operator": "Exists"}]},
            {"port": "status", "relabelings": _identify(LABEL_LLMROUTE, "llm_route")},
        ),
        # Of conditions, namespace and name are those of the custom resource.
        _make_monitor(
            "operator", {"matchLabels": dict(LABELS)}, {"port": "http", "honorLabels": True}, namespace=NAMESPACE
        ),
    ]


def _make_monitor(part: str, selector: Json, *endpoints: Json, namespace: str = "") -> Json:
    return {
        "apiVersion": GROUP_VERSION,
        "kind": "PodMonitor",
        "metadata": {"name": f"{NAME}-{part}", "namespace": NAMESPACE, "labels": dict(LABELS)},
        "spec": {
            "namespaceSelector": {"matchNames": [namespace]} if namespace else {"any": True},
            "selector": selector,
            "podMetricsEndpoints": [{"path": "/metrics", **endpoint} for endpoint in endpoints],
        },
    }


def _identify(label: str, target: str) -> list[Json]:
    return [
        {"sourceLabels": ["__meta_kubernetes_namespace"], "targetLabel": "llm_namespace"},
        {"sourceLabels": [_POD_LABEL + _sanitise(label)], "targetLabel": target},
    ]


def _sanitise(label: str) -> str:
    """As Prometheus turns a label of a pod into one of its own."""
    return "".join(character if character.isalnum() else "_" for character in label)


def make_scrape_configs() -> list[Json]:
    """The same for a Prometheus without its operator."""
    engine = _keep(LABEL_MANAGED_BY, MANAGED_BY), _keep(LABEL_COMPONENT, COMPONENT_ENGINE)
    of_engine = _plain(_identify(LABEL_LLMDEPLOYMENT, "llm_name"))
    gateway = _keep(LABEL_MANAGED_BY, MANAGED_BY), _keep(LABEL_LLMROUTE, ".+"), _keep_port("status")
    operator = (*(_keep(label, value) for label, value in LABELS.items()), _keep_port("http"))
    return [
        {**_make_scrape("fairlead-engines", [*engine, _keep_port("http"), *of_engine]), "scrape_interval": INTERVAL},
        {
            **_make_scrape("fairlead-engines-tls", [*engine, _keep_port("https"), *of_engine]),
            "scrape_interval": INTERVAL,
            "scheme": "https",
            "tls_config": {"insecure_skip_verify": True},
        },
        _make_scrape("fairlead-gateways", [*gateway, *_plain(_identify(LABEL_LLMROUTE, "llm_route"))]),
        {**_make_scrape("fairlead-operator", list(operator)), "honor_labels": True},
    ]


def _make_scrape(job: str, relabelings: list[Json]) -> Json:
    """`namespace` and `pod` are what a PodMonitor gives, and what --prometheus-url asks by."""
    pod = [
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
    ]
    return {
        "job_name": job,
        "kubernetes_sd_configs": [{"role": "pod"}],
        "relabel_configs": [*relabelings, *pod],
    }


def _keep(label: str, value: str) -> Json:
    return {"source_labels": [_POD_LABEL + _sanitise(label)], "regex": value, "action": "keep"}


def _keep_port(name: str) -> Json:
    return {"source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": name, "action": "keep"}


def _plain(relabelings: list[Json]) -> list[Json]:
    return [{"source_labels": one["sourceLabels"], "target_label": one["targetLabel"]} for one in relabelings]
