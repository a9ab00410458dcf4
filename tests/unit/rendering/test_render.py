"""`fairlead render` as its users meet it: what is printed where, and the exit status."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.api.cases import Case, invalid_cases, make_resource, raw_cases, valid_cases

from fairlead.cli import main
from fairlead.rendering import raw

Json = dict[str, Any]
SAMPLES = Path(__file__).parents[3] / "manifests" / "samples"
SECRET: Json = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "hf-token"},
    "stringData": {"token": "hf_VERYSECRET"},
}


def write(path: Path, *objects: Json) -> str:
    path.write_text(yaml.safe_dump_all(objects))
    return str(path)


class Result:
    """What a run of the command left behind."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err
        self.objects: list[Json] = list(yaml.safe_load_all(out))

    @property
    def kinds(self) -> list[str]:
        return [item["kind"] for item in self.objects]


@pytest.fixture
def render(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str) -> Result:
        status = main(["render", *arguments])
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return run


def test_samples_are_rendered(render: Any) -> None:
    result = render("-f", *(str(path) for path in sorted(SAMPLES.glob("llama-*.yaml"))))
    assert result.status == 0
    assert result.err == ""
    assert result.kinds.count("Deployment") == 3
    assert {item["metadata"]["namespace"] for item in result.objects} == {"default"}


def test_same_input_gives_the_same_text(render: Any) -> None:
    paths = [str(path) for path in sorted(SAMPLES.glob("llama-*.yaml"))]
    assert render("-f", *paths).out == render("-f", *paths).out


def test_objects_come_in_the_order_of_the_input(render: Any, tmp_path: Path) -> None:
    first, second = (make_resource("vllm", {"metadata": {"name": name}}) for name in ("b", "a"))
    names = [item["metadata"]["name"] for item in render("-f", write(tmp_path / "a.yaml", first, second)).objects]
    assert names.index("b") < names.index("a")
    assert names[: len(names) // 2] == [
        name.replace("a", "b", 1) if name[0] == "a" else name for name in names[len(names) // 2 :]
    ]


def test_several_files_and_options(render: Any, tmp_path: Path) -> None:
    a = write(tmp_path / "a.yaml", make_resource("vllm", {}))
    b = write(tmp_path / "b.yaml", make_resource("ollama", {"metadata": {"namespace": "own"}}))
    result = render("-f", a, "-f", b, "-n", "team", "--operator-namespace", "ops", "--monitoring-namespaces", "prom")
    assert {item["metadata"]["namespace"] for item in result.objects} == {"team", "own"}
    policy = next(item for item in result.objects if item["kind"] == "NetworkPolicy")
    admitted = json.dumps(policy["spec"]["ingress"])
    assert '"ops"' in admitted
    assert '"prom"' in admitted


def test_standard_input(render: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(yaml.safe_dump(make_resource("vllm", {}))))
    result = render("-f", "-")
    assert result.status == 0
    assert "Deployment" in result.kinds


def test_invalid_is_told_and_valid_is_printed(render: Any, tmp_path: Path) -> None:
    good = make_resource("vllm", {"metadata": {"name": "good"}})
    bad = make_resource("gpu", {"metadata": {"name": "bad"}, "spec": {"parallelism": {"tensor": 3}}})
    result = render("-f", write(tmp_path / "a.yaml", bad, good))
    assert result.status == 1
    assert {item["metadata"]["labels"]["app.kubernetes.io/instance"] for item in result.objects} == {"good"}
    assert result.err == (
        "LLMDeployment/bad: spec.parallelism.tensor: tensor 3 × pipeline 1 × data 1 is 3, but accelerator.count is 4; "
        "tensor: 4 would work\n"
    )


@pytest.mark.parametrize("case", invalid_cases(), ids=str)
def test_every_invalid_object_is_told_at_its_place(render: Any, tmp_path: Path, case: Case) -> None:
    result = render("-f", write(tmp_path / "a.yaml", case.resource))
    assert result.status == 1
    assert result.out == ""
    lines = result.err.splitlines()
    name = case.resource["metadata"].get("name")
    assert {line.split(": ")[1] for line in lines} == set(case.paths), lines
    assert all(line.startswith(f"LLMDeployment/{name}: ") and "; " in line for line in lines), lines


@pytest.mark.parametrize("case", valid_cases(), ids=str)
def test_every_valid_object_is_rendered_or_refused_by_its_engine_alone(render: Any, tmp_path: Path, case: Case) -> None:
    result = render("-f", write(tmp_path / "a.yaml", case.resource), "--prometheus-url", "http://prometheus:9090")
    if case.resource["spec"]["engine"]["type"] == "acme-engine":
        assert result.status == 1
        assert result.err.startswith("LLMDeployment/own: spec.engine.type: There is no engine 'acme-engine'")
    else:
        spec = case.resource["spec"]
        encryption, is_carrier = spec.get("encryption"), spec.get("gateway") is not None
        is_issued = encryption is not None and encryption.get("certificate") is None
        assert (result.status, bool(result.err)) == (0, is_issued or is_carrier)
        assert ("is printed without the certificate" in result.err) is is_issued
        assert ("LLMRoute" in result.err) is is_carrier
        assert "Deployment" in result.kinds


@pytest.mark.parametrize("version", ["1.34", "1.37"])
@pytest.mark.parametrize("case", raw_cases(), ids=str)
def test_raw_fields_are_checked(render: Any, tmp_path: Path, case: Case, version: str) -> None:
    result = render("-f", write(tmp_path / "a.yaml", case.resource), "--kubernetes-version", version)
    assert result.status == 1
    lines = result.err.splitlines()
    assert {line.split(": ")[1] for line in lines} == set(case.paths), lines
    assert any(case.says in line for line in lines), lines


def test_keda_must_know_whom_to_ask(render: Any, tmp_path: Path) -> None:
    autoscaling = {"mode": "KEDA", "maxReplicas": 3, "targets": {"queuedRequests": 5}}
    spec = {"model": {"source": "hf://Qwen/Qwen3-0.6B"}, "engine": {"type": "vLLM"}, "autoscaling": autoscaling}
    body = {"apiVersion": "fairlead.dev/v1alpha1", "kind": "LLMDeployment", "metadata": {"name": "m"}, "spec": spec}
    path = write(tmp_path / "a.yaml", body)
    assert render("-f", path, "--prometheus-url", "http://prometheus:9090").kinds.count("ScaledObject") == 1
    result = render("-f", path)
    assert result.status == 1
    assert result.err.startswith("LLMDeployment/m: spec.autoscaling.keda.serverAddress: ")
    wrong = render("-f", path, "--prometheus-url", "prometheus")
    assert wrong.status == 2
    assert "--prometheus-url" in wrong.err


def test_what_the_engine_file_refuses_is_told_in_the_objects_terms(render: Any, tmp_path: Path) -> None:
    result = render("-f", write(tmp_path / "a.yaml", make_resource("vllm", {"spec": {"engine": {"version": "0.5.0"}}})))
    assert result.status == 1
    assert result.err.startswith("LLMDeployment/llama: spec.engine.version: ")
    assert "; " in result.err


def test_engine_of_a_config_map_in_the_input_is_used(render: Any, tmp_path: Path) -> None:
    template = Path(__file__).parents[3].joinpath("operator/fairlead/engines/vllm.yaml.j2").read_text()
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "acme", "labels": {"fairlead.dev/engine": "acme-engine"}},
        "data": {"engine.yaml.j2": template.replace("name: vLLM", "name: acme-engine", 1)},
    }
    result = render("-f", write(tmp_path / "a.yaml", config_map, make_resource("custom", {})))
    assert result.status == 0
    assert result.err == "note: ConfigMap/acme: is used as engine acme-engine\n"
    broken = {**config_map, "data": {"engine.yaml.j2": "name: acme-engine\n"}}
    result = render("-f", write(tmp_path / "a.yaml", broken, make_resource("custom", {})))
    assert result.status == 1
    assert "spec.engine.type: The engine file is broken: ConfigMap/acme" in result.err


def test_other_kinds_are_passed_over_and_secrets_never_shown(render: Any, tmp_path: Path) -> None:
    bad = make_resource("vllm", {"spec": {"engine": {"env": [{"name": "HF_TOKEN", "value": "hf_VERYSECRET"}]}}})
    result = render("-f", write(tmp_path / "a.yaml", SECRET, bad))
    assert result.status == 1
    assert "note: Secret/hf-token: is passed over" in result.err
    assert "VERYSECRET" not in result.out + result.err


@pytest.mark.parametrize(
    "engine",
    [
        {"args": ["--api-key VERYSECRET"]},
        {"args": ["--api-key=VERYSECRET"]},
        {"args": ["--hf-token", "VERYSECRET"]},
        {"env": [{"name": "HF_TOKEN", "value": "VERYSECRET"}]},
        {"env": [{"name": "A_PASSWORD", "value": {"x": "VERYSECRET"}}]},
        {"env": [{"name": "A", "value": "VERYSECRET" * 5000}]},
        {"env": [{"name": "A", "valueFrom": {"secretKeyRef": "VERYSECRET"}}]},
        {"env": "HF_TOKEN=VERYSECRET"},
    ],
)
def test_secret_in_the_wrong_place_is_not_repeated(render: Any, tmp_path: Path, engine: Json) -> None:
    result = render("-f", write(tmp_path / "a.yaml", make_resource("vllm", {"spec": {"engine": engine}})))
    assert result.status == 1
    assert "VERYSECRET" not in result.out + result.err


def test_numeric_secret_is_not_repeated(render: Any, tmp_path: Path) -> None:
    engine = {"env": [{"name": "A_PASSWORD", "value": 987654321}], "args": ["--api-key", 987654321]}
    result = render("-f", write(tmp_path / "a.yaml", make_resource("vllm", {"spec": {"engine": engine}})))
    assert result.status == 1
    assert "987654321" not in result.err


def test_an_issued_certificate_is_printed_as_what_it_is_not(render: Any, tmp_path: Path) -> None:
    encrypted = make_resource("vllm", {"spec": {"encryption": {}}})
    name = f"{encrypted['metadata']['name']}-pods-tls"
    result = render("-f", write(tmp_path / "in.yaml", encrypted))
    assert result.status == 0
    secret = result.objects[0]
    assert (secret["metadata"]["name"], secret["type"]) == (name, "kubernetes.io/tls")
    assert set(secret["stringData"].values()) == {"not shown: the operator issues it"}
    assert "data" not in secret
    assert f"Secret/{name} is printed without the certificate" in result.err


def test_same_object_twice_is_told(render: Any, tmp_path: Path) -> None:
    result = render("-f", write(tmp_path / "a.yaml", make_resource("vllm", {}), make_resource("vllm", {})))
    assert result.status == 1
    assert result.err.splitlines() == [
        "LLMDeployment/llama: metadata.name: stands twice in the input; give it another name"
    ]
    assert result.kinds.count("Deployment") == 1


@pytest.mark.parametrize("api_version", ["fairlead.dev/v1", "fairlead.dev/v1beta1"])
def test_another_version_is_told(render: Any, tmp_path: Path, api_version: str) -> None:
    result = render("-f", write(tmp_path / "a.yaml", {**make_resource("vllm", {}), "apiVersion": api_version}))
    assert result.status == 1
    assert result.err == f"LLMDeployment/llama: apiVersion: is '{api_version}'; fairlead.dev/v1alpha1 would work\n"


def test_object_without_a_name_is_told_by_its_place(render: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", {**make_resource("vllm", {}), "metadata": {"generateName": "llama-"}})
    result = render("-f", path)
    assert result.status == 1
    assert result.err.startswith(f"LLMDeployment/(document 1 of {path}): metadata.name: is required")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("# nothing\n---\n---\n", "is empty"),
        ("a: [1\n", "is not YAML"),
        ("a: b: c\n", "is not YAML"),
        ("just text\n", "is not an object"),
        ("- a\n", "is not an object"),
        ("\x00", "is not YAML"),
        ("a: 1\na: 2\n", "a key stands twice"),
        ("a: !!python/object:os.system {}\n", "is not YAML"),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n", "holds no LLMDeployment"),
    ],
)
def test_input_that_is_wrong_as_a_whole_is_status_2(render: Any, tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    good = write(tmp_path / "good.yaml", make_resource("vllm", {}))
    result = render("-f", good, str(path))
    assert result.status == 2
    assert result.out == ""
    assert f"{path}" in result.err
    assert says in result.err


def test_text_of_a_broken_file_is_not_shown(render: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("stringData:\n  token: hf_VERYSECRET: x\n")
    result = render("-f", str(path))
    assert result.status == 2
    assert ":2:" in result.err
    assert "VERYSECRET" not in result.err


def test_missing_and_unreadable_files_are_status_2(render: Any, tmp_path: Path) -> None:
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"\xff\xfe\xff")
    result = render("-f", str(tmp_path / "none.yaml"), str(binary), str(tmp_path))
    assert result.status == 2
    assert len(result.err.splitlines()) == 3
    assert "No such file" in result.err


@pytest.mark.parametrize("arguments", [["--kubernetes-version", "1.2"], ["--download-bandwidth", "fast"]])
def test_options_that_make_no_sense_are_status_2(render: Any, tmp_path: Path, arguments: list[str]) -> None:
    result = render("-f", write(tmp_path / "a.yaml", make_resource("vllm", {})), *arguments)
    assert result.status == 2
    assert arguments[1] in result.err


def test_files_are_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["render"])
    assert ended.value.code == 2
    assert "--filename" in capsys.readouterr().err


def test_without_the_extra_a_note_says_what_was_not_checked(
    render: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes_validate", None)
    raw._library.cache_clear()
    raw._validator.cache_clear()
    try:
        misspelled = make_resource("vllm", {"spec": {"pod": {"affinity": {"nodeAfinity": {}}}}})
        result = render("-f", write(tmp_path / "a.yaml", misspelled))
    finally:
        raw._library.cache_clear()
    assert result.status == 0
    assert result.err == "note: raw Kubernetes fields were not checked: pip install 'fairlead[render]'\n"


def test_list_of_kubectl_is_unfolded(render: Any, tmp_path: Path) -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": [make_resource("vllm", {}), make_resource("ollama", {})]}
    result = render("-f", write(tmp_path / "a.yaml", listed))
    assert result.status == 0
    assert result.kinds.count("Deployment") == 2
