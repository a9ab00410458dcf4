"""The kustomize base and the samples: valid for every supported Kubernetes, and Pod Security restricted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hack.tools.build import Tools
from tests.unit.packaging.restricted import violations
from tests.unit.planning.netpol import Caller, Target, reaches

from fairlead.api.names import make_engine_labels, make_gateway_labels
from fairlead_cluster.build import Binaries

Json = dict[str, Any]
KUBERNETES = ("1.34", "1.35", "1.36", "1.37")


def load_kustomization(folder: Path) -> list[Json]:
    """Objects of a kustomization that only lists resources; a field with a meaning of its own would fail here."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert kustomization.keys() == {"apiVersion", "kind", "resources"}
    objects: list[Json] = []
    for entry in kustomization["resources"]:
        path = folder / entry
        objects += load_kustomization(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    return objects


@pytest.fixture(scope="module")
def base(root: Path) -> list[Json]:
    return load_kustomization(root / "manifests")


def of_kind(objects: list[Json], kind: str) -> Json:
    (found,) = [one for one in objects if one["kind"] == kind]
    return found


@pytest.mark.parametrize("version", KUBERNETES)
def test_base_is_valid(base: list[Json], version: str) -> None:
    for one in base:
        kubernetes_validate.validate(one, version, strict=True)


def test_validation_would_notice_a_typo(base: list[Json]) -> None:
    deployment = of_kind(base, "Deployment")
    broken = deployment | {"spec": deployment["spec"] | {"replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES[-1], strict=True)


def test_every_file_of_the_base_is_listed(root: Path) -> None:
    for folder in ("manifests/base", "manifests/samples", "manifests/sidecars", "manifests/monitoring/objects", "crds"):
        files = {path.name for path in (root / folder).glob("*.yaml")} - {"kustomization.yaml"}
        listed = yaml.safe_load((root / folder / "kustomization.yaml").read_text())["resources"]
        assert files == {entry for entry in listed if not entry.startswith("..")}, folder


def test_operator_pod_is_restricted(base: list[Json]) -> None:
    deployment = of_kind(base, "Deployment")
    assert violations(deployment["spec"]["template"]["spec"]) == []
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert container["resources"]["limits"]["memory"]


def test_namespace_enforces_restricted(base: list[Json]) -> None:
    labels = of_kind(base, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_two_replicas_that_a_drained_node_does_not_stop(base: list[Json]) -> None:
    deployment = of_kind(base, "Deployment")
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert of_kind(base, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_selectors_meet_the_pods_and_nothing_of_a_model(base: list[Json]) -> None:
    deployment = of_kind(base, "Deployment")
    pod_labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        of_kind(base, "Service")["spec"]["selector"],
        of_kind(base, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        of_kind(base, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= pod_labels.items()
        assert selector["app.kubernetes.io/component"] == "operator"  # engine pods carry `engine`


def test_the_operator_reaches_what_it_asks_and_nothing_else_of_the_cluster(base: list[Json]) -> None:
    operator = Target("fairlead-system", of_kind(base, "Deployment")["spec"]["template"]["metadata"]["labels"], {})
    policies = [of_kind(base, "NetworkPolicy")]

    def may_ask(labels: Json, port: int) -> bool:
        return reaches(policies, operator, Caller("ml", labels), port)

    assert may_ask(make_gateway_labels("assistants"), 9901), "what a gateway has loaded, and its metrics"
    assert may_ask(make_engine_labels("llama"), 8000), "an engine's metrics"
    assert may_ask({}, 6443), "the API server may be anywhere"
    assert not may_ask({"app": "database"}, 5432)


def test_every_port_has_a_protocol_and_probes_use_it(base: list[Json]) -> None:
    (container,) = of_kind(base, "Deployment")["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port for port in container["ports"]}
    assert all(port["protocol"] == "TCP" for port in ports.values())
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports


def test_the_token_is_mounted_by_the_operators_pod_only(base: list[Json]) -> None:
    assert of_kind(base, "ServiceAccount")["automountServiceAccountToken"] is False
    assert of_kind(base, "Deployment")["spec"]["template"]["spec"]["automountServiceAccountToken"] is True


@pytest.mark.parametrize(
    ("component", "value"),
    [
        ("alerts", "alerts.existingSecret=fairlead-alerts"),
        ("prometheus", "prometheus.url=http://prometheus.monitoring:9090"),
    ],
)
def test_a_component_is_what_the_chart_makes(
    binaries: Binaries, tools: Tools, root: Path, tmp_path: Path, component: str, value: str
) -> None:
    here = os.path.relpath(root / "manifests", tmp_path)
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"{here}/base"],
        "components": [f"{here}/{component}"],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    command = [binaries.kubectl, "kustomize", tmp_path]
    built = list(yaml.safe_load_all(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    command = [tools.helm, "template", "fairlead", root / "charts/fairlead", "--namespace=fairlead-system"]
    command += [f"--set={value}"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    chart = [one for one in yaml.safe_load_all(done.stdout) if one]
    for kind in ("Deployment", "Service", "NetworkPolicy"):
        ours, theirs = of_kind(built, kind)["spec"], of_kind(chart, kind)["spec"]
        for spec in (ours, theirs) if kind == "Deployment" else ():
            pod = spec["template"]["spec"]
            pod["containers"][0]["image"] = ""
            read_url(pod["containers"][0])
            for part in (pod["volumes"], pod["containers"][0]["volumeMounts"], pod["containers"][0]["ports"]):
                part.sort(key=lambda one: str(one["name"]))
        for spec in (ours, theirs) if kind == "Service" else ():
            spec["ports"].sort(key=lambda one: str(one["name"]))
        assert ours == theirs, kind


def read_url(container: Json) -> None:
    """The URL of Prometheus as an argument, which is how the chart gives it; a component must not replace the arguments."""
    variables = {one["name"]: one.get("value") for one in container["env"]}
    if "FAIRLEAD_PROMETHEUS_URL" in variables:
        container["env"] = [one for one in container["env"] if one["name"] != "FAIRLEAD_PROMETHEUS_URL"]
        container["args"].append(f"--prometheus-url={variables['FAIRLEAD_PROMETHEUS_URL']}")
