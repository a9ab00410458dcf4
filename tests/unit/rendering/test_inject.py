"""`fairlead inject`: the policy's sidecar in manifests, once, and nothing else touched."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hack.generate.sidecars import make_expression, to_cel
from tests.unit.packaging.restricted import violations

from fairlead.cli import main
from fairlead.planning.route.injection import make_injection
from fairlead.rendering.documents import InputError
from fairlead.rendering.inject import inject

Json = dict[str, Any]
IMAGE = "envoyproxy/envoy:distroless-v1.40.0"
SECURE = "{allowPrivilegeEscalation: false, runAsNonRoot: true, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}"
POD = f"""metadata: {{labels: {{app: web, fairlead.dev/gateway: assistants}}}}
spec:
  containers: [{{name: app, image: example.com/app:1, securityContext: {SECURE}}}]
"""
OTHERS = """# A comment that stays.
apiVersion: v1
kind: ConfigMap
metadata: {name: a}   # as it is written
data: {x: "---", time: 10:30}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: plain, labels: {fairlead.dev/gateway: assistants}}
spec: {selector: {}, template: {metadata: {labels: {app: x}}, spec: {containers: []}}}
"""


def indented(text: str, by: int) -> str:
    return "".join(f"{' ' * by}{line}\n" for line in text.splitlines())


def workload(kind: str) -> str:
    if kind == "Pod":
        return f"apiVersion: v1\nkind: Pod\n{POD}".replace("metadata: {", "metadata: {name: app, ")
    if kind == "CronJob":
        template = POD.replace("spec:\n", "spec:\n  restartPolicy: Never\n")
        job = f"spec:\n  template:\n{indented(template, 4)}"
        head = "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: app}\nspec:\n  schedule: '@daily'\n"
        return f"{head}  jobTemplate:\n{indented(job, 4)}"
    if kind == "Job":
        template = POD.replace("spec:\n", "spec:\n  restartPolicy: Never\n")
        return f"apiVersion: batch/v1\nkind: Job\nmetadata: {{name: app}}\nspec:\n  template:\n{indented(template, 4)}"
    more = "  serviceName: app\n" if kind == "StatefulSet" else ""
    head = f"apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: app}}\nspec:\n  selector: {{matchLabels: {{app: web}}}}\n{more}"
    return f"{head}  template:\n{indented(POD, 4)}"


def pod_of(body: Json) -> Json:
    found = body
    for key in {"Pod": (), "CronJob": ("spec", "jobTemplate", "spec", "template")}.get(
        body["kind"], ("spec", "template")
    ):
        found = found[key]
    return found


KINDS = ("Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_workload_gets_it(kind: str) -> None:
    made = inject(workload(kind), "f.yaml", IMAGE)
    assert made.objects == [f"{kind}/app"]
    (body,) = yaml.safe_load_all(made.text)
    pod = pod_of(body)
    expected = make_injection("assistants", IMAGE)
    assert pod["spec"]["initContainers"] == [expected.container]
    assert pod["spec"]["volumes"] == expected.volumes
    assert pod["metadata"]["annotations"] == expected.annotations
    assert pod["metadata"]["labels"] == {"app": "web", "fairlead.dev/gateway": "assistants"}
    assert [one["name"] for one in pod["spec"]["containers"]] == ["app"]
    assert violations(pod["spec"]) == []
    for version in ("1.34", "1.36", "1.37"):
        kubernetes_validate.validate(body, version, strict=True)


@pytest.mark.parametrize("kind", KINDS)
def test_once_more_changes_nothing(kind: str) -> None:
    once = inject(workload(kind), "f.yaml", IMAGE).text
    assert inject(once, "f.yaml", IMAGE).text == once


def test_everything_else_is_as_it_was() -> None:
    assert inject(OTHERS, "f.yaml", IMAGE).text == OTHERS
    text = f"{OTHERS}---\n{workload('Pod')}"
    assert inject(text, "f.yaml", IMAGE).text.startswith(f"{OTHERS}---\napiVersion: v1\nkind: Pod\n")
    ours = workload("Pod").replace("app: web", "app.kubernetes.io/managed-by: fairlead")
    assert inject(ours, "f.yaml", IMAGE).text == ours
    foreign = workload("Job").replace("batch/v1", "batch.example.com/v1")
    assert inject(foreign, "f.yaml", IMAGE).text == foreign


def test_an_earlier_one_is_brought_up_and_what_is_beside_it_stays() -> None:
    (body,) = yaml.safe_load_all(inject(workload("Pod"), "f.yaml", "old:1").text)
    own = {"name": "own", "image": "x"}
    body["spec"]["initContainers"].insert(0, own)
    body["spec"]["volumes"].append({"name": "own", "emptyDir": {}})
    (made,) = yaml.safe_load_all(inject(yaml.safe_dump(body), "f.yaml", IMAGE).text)
    assert made["spec"]["initContainers"] == [own, make_injection("assistants", IMAGE).container]
    assert made["spec"]["volumes"][0]["name"] == "own"
    assert len(made["spec"]["volumes"]) == 3


def test_authorities_come_from_a_secret_that_the_pod_names() -> None:
    text = workload("Pod").replace(
        "metadata: {", "metadata: {annotations: {fairlead.dev/gateway-authorities: corp-ca}, "
    )
    (made,) = yaml.safe_load_all(inject(text, "f.yaml", IMAGE).text)
    sources = made["spec"]["volumes"][0]["projected"]["sources"]
    secrets = [one["secret"] for one in sources if "secret" in one]
    items = [{"key": "ca.crt", "path": "ca.crt"}]
    assert secrets[1] == {"name": "corp-ca", "optional": True, "items": items}
    assert all(one[next(iter(one))].get("optional") for one in sources[1:]), "nothing keeps the pod from starting"
    said = json.loads(made["metadata"]["annotations"]["fairlead.dev/sidecar-gateway-authorities"])
    assert said["resources"][0]["validation_context"]["trusted_ca"]["filename"].endswith("/..data/ca.crt")


def test_a_list_comes_out_as_its_items() -> None:
    items = [*yaml.safe_load_all(OTHERS), yaml.safe_load(workload("Pod"))]
    made = inject(yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items}), "f.yaml", IMAGE)
    assert [body["kind"] for body in yaml.safe_load_all(made.text)] == ["ConfigMap", "Deployment", "Pod"]


@pytest.mark.parametrize("label", ["''", "Assistants", "a.b", "9a"])
def test_a_label_that_names_no_route_is_told(label: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = workload("Deployment").replace("gateway: assistants", f"gateway: {label}")
    (tmp_path / "f.yaml").write_text(text)
    assert main(["inject", "-f", str(tmp_path / "f.yaml")]) == 1
    out, err = capsys.readouterr()
    assert out == text
    assert "Deployment/app: spec.template.metadata.labels[fairlead.dev/gateway]: is no name of an LLMRoute" in err


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f.yaml").write_text(workload("Pod"))
    monkeypatch.setattr(sys, "stdin", io.StringIO(OTHERS))
    assert main(["inject", "-f", str(tmp_path / "f.yaml"), "-", "--gateway-image", "mirror/envoy:1"]) == 0
    first, *others = yaml.safe_load_all(capsys.readouterr().out)
    assert first["spec"]["initContainers"][0]["image"] == "mirror/envoy:1"
    assert [body["kind"] for body in others] == ["ConfigMap", "Deployment"]
    (tmp_path / "g.yaml").write_text(OTHERS)
    assert main(["inject", "-f", str(tmp_path / "g.yaml")]) == 0
    assert "nothing was added" in capsys.readouterr().err
    assert main(["inject", "-f", str(tmp_path / "none.yaml")]) == 2
    with pytest.raises(InputError):
        inject("a: [", "f.yaml", IMAGE)


def test_the_policy_is_written_from_the_same() -> None:
    expression = make_expression(IMAGE)
    container = make_injection("x", IMAGE).container
    for text in (*container["args"], container["image"]):
        assert to_cel(text, "") in expression
    assert "__" not in expression
    assert expression.count("variables.route") == 2 * (5 + 2)  # names of objects, and twice in the message
    assert expression.count("'--config-yaml'") == 1


def test_nothing_that_opens_anything_is_mounted() -> None:
    made = make_injection("assistants", IMAGE, "corp-ca")
    text = json.dumps([made.container, made.volumes, made.annotations])
    assert "tls.key" not in text
    assert "serviceAccountToken" not in text
    assert {one["mountPath"] for one in made.container["volumeMounts"]} == {
        "/etc/fairlead/gateway", "/run/fairlead", "/var/run/secrets/kubernetes.io/serviceaccount",
    }  # fmt: skip
    assert not [probe for probe in made.container if probe.endswith("Probe")]
