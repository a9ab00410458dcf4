"""Law 6, judged by looking everywhere: secrets are planted wherever a user could put one near us, everything is made to go wrong that
quotes what it was given, and then no object but a Secret, no log line, no page and no output holds one."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.canaries import MARK, find_marks, plant, search_files, search_objects, search_pages
from tests.cluster.operator_world import World, make_cr, until

from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.errors import CommandFailedError
from fairlead_cluster.operators import python_environment

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
OPERATOR = "canaries"
#: How engines, hubs and libraries print what they were given.
LAST_WORDS = (
    "OSError: You are trying to access a gated repo; token {} was refused",
    "requests.exceptions.HTTPError: 401 Client Error for https://user:{}@hub.example.com/m",
    "openai.AuthenticationError: headers {{'Authorization': 'Bearer {}'}}",
    "vllm serve m --api-key {} --port 8000",
    "HF_TOKEN={}",
)


@pytest.fixture
def world(control_plane: LocalCluster, namespace: str) -> Iterator[World]:
    """An operator that says all it can say."""
    control_plane.start_operator(["--log-level=debug"], name=OPERATOR)
    control_plane.wait_for_operator(OPERATOR)
    yield World(control_plane, namespace)
    control_plane.stop_operator(OPERATOR)


def secret(namespace: str, name: str, values: dict[str, str], kind: str = "Opaque") -> Json:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "stringData": values}


def plant_everywhere(world: World) -> None:
    """Secrets of every use that a model can make of them."""
    where = world.namespace
    registry = {"auths": {"registry.example.com": {"auth": base64.b64encode(f"u:{plant('')}".encode()).decode()}}}
    world.apply(
        secret(where, "hub", {"token": plant()}),
        secret(where, "keys", {"VLLM_API_KEY": plant("sk-")}),
        secret(where, "pull", {".dockerconfigjson": json.dumps(registry)}, "kubernetes.io/dockerconfigjson"),
    )
    from_secret = {"name": "VLLM_API_KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "VLLM_API_KEY"}}}
    world.apply(
        make_cr(
            where,
            "m",
            model={"source": "hf://meta-llama/Llama-3.1-8B-Instruct", "secretRef": {"name": "hub", "key": "token"}},
            engine={"type": "vLLM", "env": [from_secret], "envFrom": [{"secretRef": {"name": "keys"}}]},
            pod={"schedulerName": "frozen", "imagePullSecrets": [{"name": "pull"}]},
        )
    )


def crash(world: World, words: str) -> None:
    """The model's pod ended with these last words, for the fourth time."""
    (pod,) = until(lambda: world.names("pods"), "a pod")
    times = {"startedAt": "2026-11-27T08:00:00Z", "finishedAt": "2026-11-27T08:00:05Z"}
    status = {
        "name": "engine",
        "image": "vllm",
        "imageID": "",
        "ready": False,
        "restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
        "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": words, **times}},
    }
    patch = json.dumps({"status": {"phase": "Running", "containerStatuses": [status]}})
    world.kubectl("patch", "pod", pod, "--subresource=status", "--type=merge", f"--patch={patch}")


def refuse_services(world: World) -> Json:
    """A policy of the cluster that denies our Services with a secret in its words. (In two parts: it is an object, too.)"""
    token = plant()
    labels = {"kubernetes.io/metadata.name": world.namespace}
    name = world.namespace
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["services"]}]
    expression = f"'registry says: token=' + '{token[:6]}' + '{token[6:]}'"
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": rules},
            "validations": [{"expression": "object.metadata.name != 'refused'", "messageExpression": expression}],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {
            "policyName": name,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": labels}},
        },
    }
    world.apply(policy, binding)
    probe = json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "refused", "namespace": world.namespace},
            "spec": {"ports": [{"port": 80}]},
        }
    )

    def denies() -> bool:
        return MARK in world.cluster.kubectl.run("create", "--dry-run=server", "-f", "-", stdin=probe).stderr

    until(denies, "the policy holds")
    return policy


def _quoted(world: World) -> str:
    condition = world.condition("m", "Stalled")
    return str(condition["message"]) if condition.get("status") == "True" else ""


def look_everywhere(world: World) -> list[str]:
    cluster = world.cluster
    token = yaml.safe_load(cluster.operator_kubeconfig.read_text())["users"][0]["user"]["token"]
    logs = [cluster.logs_dir / f"{OPERATOR}.log"]
    findings = search_objects(cluster.kubectl, also=[token]) + search_files(logs, also=[token])
    return findings + search_pages(cluster.operator_url(OPERATOR), also=[token])


def test_no_planted_secret_is_anywhere_but_in_secrets(world: World) -> None:
    plant_everywhere(world)
    world.wait_observed("m")
    crash(world, "\n".join(words.format(plant()) for words in LAST_WORDS))
    message = until(lambda: _quoted(world), "status quotes the last words")
    for words in LAST_WORDS:
        assert words.partition("{")[0].split()[0] in message
    assert message.count("<redacted>") == len(LAST_WORDS)
    policy = refuse_services(world)
    try:
        world.apply(make_cr(world.namespace, "refused", pod={"schedulerName": "frozen"}))
        until(lambda: "registry says" in str(world.status("refused")), "status quotes the policy")
        assert "token=<redacted>" in str(world.status("refused"))
        assert look_everywhere(world) == []
    finally:
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            world.cluster.kubectl("delete", kind, policy["metadata"]["name"])
    events = world.kubectl("get", "events.events.k8s.io", "-o=jsonpath={..note}")
    assert "<redacted>" in events, "an Event quoted what status did"


def test_whoever_looks_would_find_one(world: World) -> None:
    """The search itself: a ConfigMap with a secret in it is found, and so is one in an annotation, encoded."""
    canary = plant()
    metadata = {
        "name": "leak",
        "namespace": world.namespace,
        "annotations": {"x": base64.b64encode(canary.encode()).decode()},
    }
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"key": canary}}
    world.apply(config_map)
    try:
        found = search_objects(world.cluster.kubectl)
        assert len([one for one in found if f"ConfigMap {world.namespace}/leak" in one]) >= 2
    finally:
        world.kubectl("delete", "configmap", "leak")


WRONG_PLACES: list[Json] = [
    {"engine": {"type": "vLLM", "args": ["--api-key", "{}"]}},
    {"engine": {"type": "vLLM", "args": ["--hf-token={}"]}},
    {"engine": {"type": "vLLM", "env": [{"name": "HF_TOKEN", "value": "{}"}]}},
    {"engine": {"type": "vLLM", "env": [{"name": "VLLM_API_KEY", "value": "{}"}]}},
    {"model": {"source": "https://user:{}@models.example.com/m"}},
    {"model": {"source": "s3://bucket/m?X-Amz-Security-Token={}"}},
]


@pytest.mark.parametrize("wrong", WRONG_PLACES, ids=lambda spec: json.dumps(spec)[:60])
def test_a_secret_in_the_wrong_place_is_refused_without_repeating_it(
    control_plane: LocalCluster, namespace: str, tmp_path: Path, wrong: Json
) -> None:
    """By the API server, as far as the rules of the CRD reach, and by `fairlead render`."""
    resource = make_cr(namespace, "m", **json.loads(json.dumps(wrong).replace("{}", plant())))
    rendered = render(tmp_path, resource)
    assert rendered.returncode == 1
    assert list(find_marks(rendered.stdout + rendered.stderr)) == []
    try:
        control_plane.kubectl.apply(resource)
        control_plane.kubectl("delete", "llmdeployment", "m", f"--namespace={namespace}")
    except CommandFailedError as error:
        # kubectl itself repeats the value that a rule is about, as the API server tells it; what the rule says must not.
        said = str(error.stderr if hasattr(error, "stderr") else error)
        assert MARK not in said.replace(json.dumps(resource), "") or "Invalid value" in said


def render(directory: Path, *documents: Json) -> subprocess.CompletedProcess[str]:
    path = directory / "input.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    command = [sys.executable, "-m", "fairlead", "render", "-f", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=python_environment())


def test_render_reads_a_secret_beside_the_model_and_says_nothing_of_it(tmp_path: Path) -> None:
    model = make_cr("ml", "m", model={"source": "hf://a/b", "secretRef": {"name": "hub", "key": "token"}})
    done = render(tmp_path, secret("ml", "hub", {"token": plant()}), model)
    assert done.returncode == 0, done.stderr
    assert "secretKeyRef" in done.stdout
    assert list(find_marks(done.stdout + done.stderr)) == []
    (tmp_path / "input.yaml").write_text(f"kind: Secret\nstringData:\n  token: {plant()}: broken\n")
    command = [sys.executable, "-m", "fairlead", "render", "-f", str(tmp_path / "input.yaml")]
    broken = subprocess.run(command, capture_output=True, text=True, check=False, env=python_environment())
    assert broken.returncode == 2
    assert list(find_marks(broken.stdout + broken.stderr)) == []
