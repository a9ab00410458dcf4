"""The Helm chart: its values are checked, it says the same as the manifests, and it renders the same bytes each time."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from hack.tools.build import Tools
from tests.unit.packaging.chartvalues import CASES, EVERYTHING
from tests.unit.packaging.restricted import violations

from fairlead.config import OperatorConfig, make_config

Json = dict[str, Any]
KUBERNETES = ("1.34", "1.35", "1.36", "1.37")
NAMESPACE = "fairlead-system"
#: What a chart says about itself on each object; kustomize has no counterpart.
CHART_LABELS = ("app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart")


@pytest.fixture(scope="module")
def chart(root: Path) -> Path:
    return root / "charts/fairlead"


@pytest.fixture(scope="module")
def schema(chart: Path) -> Json:
    loaded: Json = json.loads((chart / "values.schema.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def values(chart: Path) -> Json:
    loaded: Json = yaml.safe_load((chart / "values.yaml").read_text())
    return loaded


class Helm:
    """`helm template` of the chart."""

    def __init__(self, helm: Path, chart: Path, home: Path) -> None:
        self._helm, self._chart = helm, chart
        self._environment = {"PATH": "/usr/bin:/bin", "HOME": str(home)}

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """A helm command in an empty home."""
        command = [self._helm, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=self._environment)

    def render(self, values: Json, release: str = "fairlead") -> str:
        """The manifest; fails the test with Helm's words if there is none."""
        done = self.template(values, release)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def template(
        self, values: Json, release: str = "fairlead", capabilities: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """`helm template` with values, for a cluster that has these APIs, too."""
        assignments = [f"--set-json={key}={json.dumps(value)}" for key, value in values.items()]
        assignments += [f"--api-versions={api}" for api in capabilities]
        return self.run("template", release, self._chart, "--namespace", NAMESPACE, *assignments)

    def objects(self, values: Json, release: str = "fairlead") -> list[Json]:
        """The manifest's objects."""
        return [one for one in yaml.safe_load_all(self.render(values, release)) if one]


@pytest.fixture(scope="module")
def helm(tools: Tools, chart: Path, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(tools.helm, chart, tmp_path_factory.mktemp("helm-home"))


def of_kind(objects: list[Json], kind: str) -> list[Json]:
    return [one for one in objects if one["kind"] == kind]


# --- without Helm


@pytest.mark.parametrize("name", CASES)
def test_schema_accepts(schema: Json, values: Json, name: str) -> None:
    jsonschema.validate(merge(values, CASES[name]), schema)


def merge(base: Json, over: Json) -> Json:
    """As Helm merges values: maps by key, everything else replaced."""
    merged = dict(base)
    for key, value in over.items():
        both_maps = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = merge(base[key], value) if both_maps else value
    return merged


@pytest.mark.parametrize(
    "wrong",
    [
        {"replicaCount": 2},
        {"replicas": "2"},
        {"image": {"tag": 1.5}},
        {"image": {"name": "x"}},
        {"image": {"digest": "sha256:abc"}},
        {"image": {"pullPolicy": "Sometimes"}},
        {"watchNamespaces": "ml"},
        {"watchNamespaces": ["ML"]},
        {"watchNamespaces": ["ml", "ml"]},
        {"nodes": "Watched"},
        {"nodes": {"watch": True}},
        {"crds": {"install": True}},
        {"rbac": {"create": "yes"}},
        {"logLevel": "verbose"},
        {"downloadBandwidth": "fast"},
        {"extraEnv": [{"name": "POD_NAMESPACE", "value": "x"}]},
        {"networkPolicy": {"apiServerPorts": []}},
        {"networkPolicy": {"prometheusPorts": [0]}},
        {"resources": {"limit": {}}},
        {"podLabels": {"a": 1}},
        {"sidecars": {"enabled": "yes"}},
        {"sidecars": {"image": "x"}},
        {"monitoring": {"runbookURL": "https://docs.example/runbooks/"}},
        {"monitoring": {"runbookURL": "a b"}},
        {"monitoring": {"interval": "30s"}},
        {"alerts": {"existingSecret": "A_B"}},
        {"alerts": {"key": "../x"}},
        {"alerts": {"token": "x"}},
        {"prometheus": {"url": "http://p:99999"}},
        {"prometheus": {"url": "http://:9090"}},
        {"prometheus": {"url": "http://p", "headers": {"X-A": "b\nX-C: d"}}},
        {"prometheus": {"url": "http://p", "headers": {"X-A": "b,c"}}},
        {"prometheus": {"url": "http://p", "headers": {"X A": "b"}}},
        # Of nobody: they would be dropped.
        {"prometheus": {"headers": {"X-A": "b"}}},
        {"prometheus": {"tokenSecret": {"name": "t"}}},
        {"prometheus": {"caConfigMap": {"name": "c"}}},
        {"prometheus": {"timeoutSeconds": 7}},
        {"prometheus": {"podLabel": "p"}},
        {"prometheus": {"namespaceLabel": "n"}},
        {"global": "x"},
    ],
    ids=str,
)
def test_schema_refuses(schema: Json, values: Json, wrong: Json) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(merge(values, wrong), schema)


def objects_with_properties(schema: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Every schema of an object with named properties."""
    if "properties" in schema:
        yield path, schema
    for key, value in schema.items():
        if isinstance(value, dict) and key not in ("if", "then"):  # these close nothing
            yield from objects_with_properties(value, f"{path}.{key}" if path else key)


def test_schema_refuses_unknown_keys_at_every_level(schema: Json) -> None:
    open_ones = [path for path, one in objects_with_properties(schema) if one.get("additionalProperties") is not False]
    assert open_ones == []


def test_every_value_is_in_the_schema_and_every_property_has_a_default(schema: Json, values: Json) -> None:
    def compare(properties: Json, defaults: Json, path: str) -> None:
        assert properties.keys() - {"global"} == defaults.keys(), path
        for key, default in defaults.items():
            inner = properties[key].get("properties")
            if inner is not None and key != "resources":  # what is in there is Kubernetes' business
                compare(inner, default, f"{path}.{key}")

    compare(schema["properties"], values, "values")


def test_every_value_is_used_and_explained(chart: Path, values: Json) -> None:
    templates = "".join(path.read_text() for path in (chart / "templates").iterdir())
    text = (chart / "values.yaml").read_text()
    for key, default in values.items():
        leaves = [f"{key}.{inner}" for inner in default] if isinstance(default, dict) and default else [key]
        for leaf in leaves:
            assert f".Values.{leaf}" in templates or f".Values.{key} |" in templates, leaf
            assert re.search(rf"# -- [^\n]+\n(\s*#[^\n]*\n)*\s*{leaf.split('.')[-1]}:", text) or key == "resources", (
                leaf
            )


def test_templates_know_neither_chance_nor_the_cluster(chart: Path) -> None:
    # Under `helm template`, Argo CD and Flux these differ from render to render: OutOfSync for ever.
    forbidden = re.compile(
        r"\b(lookup|genCA|genSelfSignedCert|genSignedCert|genPrivateKey|rand\w+|now|date|uuidv4|env)\b"
    )
    for path in sorted((chart / "templates").iterdir()):
        code = " ".join(re.findall(r"{{(.*?)}}", path.read_text(), flags=re.DOTALL))
        assert not forbidden.search(re.sub(r'"[^"]*"', "", code)), path.name


def test_no_hooks(chart: Path) -> None:
    assert not any("helm.sh/hook" in path.read_text() for path in (chart / "templates").iterdir())


def test_version_follows_the_package(chart: Path, root: Path) -> None:
    package = re.search(r'^version = "([^"]+)"', (root / "pyproject.toml").read_text(), re.MULTILINE)
    metadata = yaml.safe_load((chart / "Chart.yaml").read_text())
    assert package is not None
    assert metadata["appVersion"] == package[1]
    assert metadata["version"].startswith(re.match(r"\d+\.\d+\.\d+", package[1])[0])  # type: ignore[index]


# --- as Helm renders it


def test_lint(helm: Helm, chart: Path) -> None:
    done = helm.run("lint", chart, "--strict")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", CASES)
def test_rendering_is_deterministic(helm: Helm, name: str) -> None:
    assert helm.render(CASES[name]) == helm.render(CASES[name])


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", CASES)
def test_rendered_objects_are_valid(helm: Helm, name: str, version: str) -> None:
    objects = helm.objects(CASES[name])
    assert objects
    for one in objects:
        kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("name", CASES)
def test_operator_pod_is_restricted(helm: Helm, name: str) -> None:
    (deployment,) = of_kind(helm.objects(CASES[name]), "Deployment")
    assert violations(deployment["spec"]["template"]["spec"]) == []


def test_defaults_are_the_kustomize_base(helm: Helm, root: Path) -> None:
    from tests.unit.packaging.test_manifests import load_kustomization

    def key(one: Json) -> tuple[str, str]:
        return one["kind"], one["metadata"]["name"]

    def plain(one: Json) -> Json:
        one = json.loads(json.dumps(one))
        for label in CHART_LABELS:
            one["metadata"].get("labels", {}).pop(label, None)
        if one["kind"] == "CustomResourceDefinition":  # where people look; the chart adds its labels and keeps it
            one["metadata"] = {"name": one["metadata"]["name"]}
        if one["kind"] == "Deployment":
            container = one["spec"]["template"]["spec"]["containers"][0]
            container["image"] = container["image"].partition(":")[0]
        return one

    chart = {key(one): plain(one) for one in helm.objects({})}
    base = {key(one): plain(one) for one in load_kustomization(root / "manifests") if one["kind"] != "Namespace"}
    assert chart.keys() == base.keys()
    assert chart == base


def test_prometheus_is_told_of_mounted_for_and_let_out_to(helm: Helm) -> None:
    objects = helm.objects(EVERYTHING)
    (deployment,), (policy,) = of_kind(objects, "Deployment"), of_kind(objects, "NetworkPolicy")
    spec = deployment["spec"]["template"]["spec"]
    config = make_config(_flags(spec["containers"][0]["args"]), {})
    assert config.prometheus_url == "https://thanos.example:10902/prometheus"
    assert config.prometheus_headers == ("X-Scope-OrgID=ml",)
    assert (config.prometheus_namespace_label, config.prometheus_pod_label) == ("exported_namespace", "exported_pod")
    assert config.prometheus_timeout_s == 10
    mounts = {mount["name"]: mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
    for file, volume, key in (
        (config.prometheus_token_file, "prometheus-token", "bearer"),
        (config.prometheus_ca_file, "prometheus-ca", "ca.pem"),
    ):
        (found,) = [one for one in spec["volumes"] if one["name"] == volume]
        (item,) = (found.get("secret") or found.get("configMap"))["items"]
        assert (f"{mounts[volume]}/{item['path']}", item["key"]) == (file, key)
    assert ports_of_prometheus(policy) == [10902, 9090]


@pytest.mark.parametrize(
    ("url", "pods", "ports"),
    [
        ("http://p", [9090], [80, 9090]),  # a Service of port 80 before pods that listen on 9090
        ("https://p/x", [], [443]),
        ("http://p:9090/x", [9090], [9090]),
        ("http://[::1]:9", [10902, 8080], [9, 10902, 8080]),
    ],
)
def test_the_ports_of_prometheus_are_those_of_its_url_and_of_its_pods(
    helm: Helm, url: str, pods: list[int], ports: list[int]
) -> None:
    values: Json = {"prometheus": {"url": url}, "networkPolicy": {"prometheusPorts": pods}}
    (policy,) = of_kind(helm.objects(values), "NetworkPolicy")
    assert ports_of_prometheus(policy) == ports


def ports_of_prometheus(policy: Json) -> list[int]:
    """Of the rule behind those for DNS, the API server, and what fairlead manages."""
    rule = policy["spec"]["egress"][3]
    assert {port["protocol"] for port in rule["ports"]} == {"TCP"}
    return [port["port"] for port in rule["ports"]]


def _flags(arguments: Sequence[str]) -> Json:
    pairs = (argument.removeprefix("--").split("=", 1) for argument in arguments if argument.startswith("--prometheus"))
    return {name.replace("-", "_"): value for name, value in pairs}


def test_watched_namespaces_get_roles_and_nothing_is_cluster_wide(helm: Helm) -> None:
    values = {"watchNamespaces": ["ml", "research"], "rbac": {"aggregateClusterRoles": False}, "nodes": "Ignored"}
    objects = helm.objects(values)
    assert of_kind(objects, "ClusterRole") == []
    assert of_kind(objects, "ClusterRoleBinding") == []
    bindings = {(one["metadata"]["namespace"], one["roleRef"]["name"]) for one in of_kind(objects, "RoleBinding")}
    assert bindings == {
        ("ml", "fairlead"),
        ("research", "fairlead"),
        (NAMESPACE, "fairlead-own-namespace"),
    }
    roles = {(one["metadata"]["namespace"], one["metadata"]["name"]): one["rules"] for one in of_kind(objects, "Role")}
    (cluster_role,) = [one for one in of_kind(helm.objects({}), "ClusterRole") if one["metadata"]["name"] == "fairlead"]
    assert roles[("ml", "fairlead")] == roles[("research", "fairlead")] == cluster_role["rules"]
    (deployment,) = of_kind(objects, "Deployment")
    assert "--watch-namespaces=ml,research" in deployment["spec"]["template"]["spec"]["containers"][0]["args"]


@pytest.mark.parametrize("namespaces", [[], ["ml"]])
def test_nodes_are_seen_by_a_right_of_its_own(helm: Helm, namespaces: list[str]) -> None:
    values = {"watchNamespaces": namespaces, "rbac": {"aggregateClusterRoles": False}}
    objects = helm.objects(values)
    name = "fairlead-nodes"
    (role,) = [one for one in of_kind(objects, "ClusterRole") if one["metadata"]["name"] == name]
    assert role["rules"] == [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"]}]
    (binding,) = [one for one in of_kind(objects, "ClusterRoleBinding") if one["metadata"]["name"] == name]
    assert (binding["roleRef"]["name"], binding["subjects"][0]["namespace"]) == (name, NAMESPACE)
    for mode in ("Counted", "OnDemand", "Ignored"):
        objects = helm.objects(values | {"nodes": mode})
        (deployment,) = of_kind(objects, "Deployment")
        said = f"--nodes={mode}" in deployment["spec"]["template"]["spec"]["containers"][0]["args"]
        assert said == (mode != "Counted"), "the default is not repeated"
        granted = [one["metadata"]["name"] for one in of_kind(objects, "ClusterRole")]
        assert (name in granted) == (mode != "Ignored")


def test_watching_its_own_namespace_makes_no_object_twice(helm: Helm) -> None:
    objects = helm.objects({"watchNamespaces": [NAMESPACE]})
    names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects]
    assert len(names) == len(set(names))


def test_another_release_name_changes_all_names_and_the_lease(helm: Helm) -> None:
    objects = helm.objects({}, release="second")
    names = {one["metadata"]["name"] for one in objects if one["kind"] != "CustomResourceDefinition"}
    assert all(name.startswith("second-fairlead") for name in names)
    (deployment,) = of_kind(objects, "Deployment")
    assert "--lease-name=second-fairlead" in deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    limited = [rule for one in of_kind(objects, "Role") for rule in one["rules"] if "resourceNames" in rule]
    assert [(rule["resources"], rule["resourceNames"]) for rule in limited] == [
        (["secrets"], ["fairlead-ca"]),
        (["leases"], ["second-fairlead"]),
    ]


def test_arguments_are_what_the_operator_takes(helm: Helm) -> None:
    from fairlead.config import make_config

    for values in CASES.values():
        (deployment,) = of_kind(helm.objects(values), "Deployment")
        command, *flags = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
        assert command == "run"
        parsed = {}
        for flag in flags:
            name, _, value = flag.removeprefix("--").partition("=")
            parsed[name.replace("-", "_")] = value
        assert parsed.keys() <= OperatorConfig.model_fields.keys()
        assert make_config(parsed, {})


def test_alerts_are_taken_where_there_is_a_token(helm: Helm) -> None:
    objects = helm.objects({"alerts": {"existingSecret": "tokens"}})
    (deployment,) = of_kind(objects, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert "--alerts-token-file=/etc/fairlead/alerts/token" in container["args"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounts["/etc/fairlead/alerts"]["readOnly"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes[mounts["/etc/fairlead/alerts"]["name"]] == {"name": "alerts", "secret": {"secretName": "tokens"}}
    (service,), (policy,) = of_kind(objects, "Service"), of_kind(objects, "NetworkPolicy")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports["alerts"] == OperatorConfig.model_fields["alerts_port"].default
    assert [(port["name"], port["port"]) for port in service["spec"]["ports"]] == [("http", 8080), ("alerts", 8081)]
    assert [port["port"] for port in policy["spec"]["ingress"][0]["ports"]] == ["http", "alerts"]


MONITORING = ["monitoring.coreos.com/v1/PodMonitor", "monitoring.coreos.com/v1/PrometheusRule"]


def monitoring_objects(
    helm: Helm, values: Json, release: str = "fairlead", apis: Sequence[str] = MONITORING
) -> list[Json]:
    done = helm.template(values, release, apis)
    assert done.returncode == 0, done.stderr
    objects = [one for one in yaml.safe_load_all(done.stdout) if one]
    return [one for one in objects if one["apiVersion"].startswith("monitoring.coreos.com/")]


def test_monitors_and_rules_are_those_of_the_manifests_where_the_cluster_knows_them(helm: Helm, root: Path) -> None:
    def plain(one: Json) -> Json:
        one["metadata"]["labels"] = {k: v for k, v in one["metadata"]["labels"].items() if k not in CHART_LABELS}
        return one

    folder = root / "manifests/monitoring/objects"
    objects = [one for path in sorted(folder.glob("p*.yaml")) for one in yaml.safe_load_all(path.read_text())]
    assert [plain(one) for one in monitoring_objects(helm, {})] == objects
    assert monitoring_objects(helm, {"monitoring": {"enabled": False}}) == []
    assert {one["kind"] for one in monitoring_objects(helm, {}, apis=MONITORING[1:])} == {"PrometheusRule"}


def test_monitors_of_another_release_find_its_own_pods(helm: Helm) -> None:
    values = {
        "watchNamespaces": ["ml"],
        "monitoring": {"labels": {"release": "p"}, "runbookURL": "https://docs.example/r"},
    }
    engines, gateways, operator, rule = monitoring_objects(helm, values, "second")
    assert [one["metadata"]["name"] for one in (engines, gateways, operator, rule)] == [
        "second-fairlead-engines",
        "second-fairlead-gateways",
        "second-fairlead-operator",
        "second-fairlead",
    ]
    assert all(one["metadata"]["labels"]["release"] == "p" for one in (engines, gateways, operator, rule))
    assert engines["spec"]["namespaceSelector"] == gateways["spec"]["namespaceSelector"] == {"matchNames": ["ml"]}
    assert operator["spec"]["namespaceSelector"] == {"matchNames": [NAMESPACE]}
    assert operator["spec"]["selector"]["matchLabels"]["app.kubernetes.io/instance"] == "second"
    alerts = [one for group in rule["spec"]["groups"] for one in group["rules"] if "alert" in one]
    assert all(one["annotations"]["runbook_url"] == f"https://docs.example/r/{one['alert']}.md" for one in alerts)
    assert "{{ $labels.llm_name }}" in alerts[0]["annotations"]["summary"]


POLICIES = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"


def sidecars_of(helm: Helm, values: Json, capabilities: Sequence[str] = (POLICIES,)) -> list[Json]:
    done = helm.template(values, capabilities=capabilities)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one and one["kind"].startswith("MutatingAdmission")]


def test_sidecars_only_where_the_api_server_has_the_policy(helm: Helm, root: Path) -> None:
    assert sidecars_of(helm, {}, ()) == []
    assert sidecars_of(helm, {"sidecars": {"enabled": False}}) == []
    policy, binding = sidecars_of(helm, {})
    base, base_binding = yaml.safe_load_all((root / "manifests/sidecars/policy.yaml").read_text())
    assert (policy["spec"], binding["spec"]) == (base["spec"], base_binding["spec"])
    assert policy["metadata"]["name"] == base["metadata"]["name"]
    for one in (policy, binding):
        kubernetes_validate.validate(one, "1.37", strict=True)


def test_sidecars_follow_the_values(helm: Helm) -> None:
    values = {"gatewayImage": "mirror.example/envoy:1.40", "watchNamespaces": ["ml"], "fullnameOverride": "second"}
    policy, binding = sidecars_of(helm, values)
    expression = policy["spec"]["mutations"][0]["jsonPatch"]["expression"]
    assert "image: 'mirror.example/envoy:1.40'" in expression
    assert "FAIRLEAD_GATEWAY_IMAGE" not in expression
    assert (
        policy["metadata"]["name"] == binding["metadata"]["name"] == binding["spec"]["policyName"] == "second-sidecars"
    )
    names = binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
    assert names == [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["ml"]}]


def test_crds_are_kept_unless_told_otherwise(helm: Helm) -> None:
    def policies(values: Json) -> set[str | None]:
        crds = of_kind(helm.objects(values), "CustomResourceDefinition")
        return {one["metadata"].get("annotations", {}).get("helm.sh/resource-policy") for one in crds}

    assert policies({}) == {"keep"}
    assert policies({"crds": {"keep": False}}) == {None}
    assert policies({"crds": {"enabled": False}}) == set()


def test_typos_are_refused_by_helm_itself(helm: Helm) -> None:
    done = helm.template({"watchNamespace": ["ml"]})
    assert done.returncode != 0
    assert "watchNamespace" in done.stderr


def test_one_replica_has_no_disruption_budget(helm: Helm) -> None:
    # It would keep every node that the pod is on from being drained.
    assert of_kind(helm.objects({"replicas": 1}), "PodDisruptionBudget") == []
