"""Children of an LLMDeployment: what they must hold whatever the spec says, and what each field of the spec does to them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from tests.unit.engines.mini import MINI
from tests.unit.planning.specs import SPECS
from tests.unit.planning.world import OLLAMA, UID, VLLM, Json, World, merge

from fairlead.api.names import ANNOTATION_APPLIED_HASH, make_engine_labels, make_engine_selector
from fairlead.engines.loader import EngineCatalog
from fairlead.planning.plan import Plan


def planned(spec: Json, **arguments: Any) -> dict[str, Json]:
    """The planned bodies by `Kind/name`."""
    return {str(child.key): dict(child.body) for child in World(spec, **arguments).plan().children}


def pod_spec(spec: Json, **arguments: Any) -> Json:
    body: Json = planned(spec, **arguments)["Deployment/llama"]["spec"]["template"]["spec"]
    return body


def engine(spec: Json, **arguments: Any) -> Json:
    container: Json = pod_spec(spec, **arguments)["containers"][0]
    return container


def env(container: Json) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


# What holds for every valid spec.


def containers(plan: Plan) -> Iterator[Json]:
    for child in plan.children:
        if child.key.kind == "Deployment":
            pod = child.body["spec"]["template"]["spec"]
            yield from pod["containers"]
            yield from pod.get("initContainers", [])


def ports_of(value: Any) -> Iterator[Json]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "ports":
                yield from item
            else:
                yield from ports_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from ports_of(item)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(SPECS)
def test_every_child_of_every_spec(spec: Json) -> None:
    world = World(spec)
    plan = world.plan()
    assert plan == world.plan(), "the same input gives the same plan"
    for child in plan.children:
        body = child.body
        assert len(body["metadata"]["name"]) <= 63
        assert child.key.kind == body["kind"]
        assert child.key.name == body["metadata"]["name"]
        assert body["metadata"]["namespace"] == "ml"
        assert body["metadata"]["labels"] == make_engine_labels("llama")
        assert ANNOTATION_APPLIED_HASH not in body["metadata"].get("annotations", {})
        (owner,) = body["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (UID, True, True)
        assert all(port["protocol"] == "TCP" or port["port"] in (53, 5353) for port in ports_of(body))
        assert "status" not in body
    for container in containers(plan):
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]
        names = [entry["name"] for entry in container["env"]]
        assert len(names) == len(set(names))
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert len(mounts) == len(set(mounts))
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["readOnlyRootFilesystem"] is True


@settings(max_examples=150, deadline=None, derandomize=True)
@given(SPECS)
def test_the_plan_of_its_own_result_is_the_same_and_deletes_nothing(spec: Json) -> None:
    world = World(spec)
    world.settle()
    before = {
        key: {**body, "metadata": {**body["metadata"], "resourceVersion": ""}} for key, body in world.children.items()
    }
    status = world.status
    plan = world.step()
    after = {
        key: {**body, "metadata": {**body["metadata"], "resourceVersion": ""}} for key, body in world.children.items()
    }
    assert after == before
    assert plan.deletes == ()
    assert plan.events == ()
    assert plan.status == status


@settings(max_examples=60, deadline=None, derandomize=True)
@given(SPECS, SPECS)
def test_a_change_keeps_what_cannot_change(first: Json, second: Json) -> None:
    """Selectors never change, a claim's immutable fields neither, and what is no longer wanted is deleted by uid."""
    world = World(first)
    world.settle()
    before = dict(world.children)
    world.edit(second)
    plan = world.step()
    assert world.deployment["spec"]["selector"] == {"matchLabels": make_engine_selector("llama")}
    for key in before.keys() & world.children.keys():
        if key.kind == "PersistentVolumeClaim":
            old, new = before[key]["spec"], world.children[key]["spec"]
            assert old["accessModes"] == new["accessModes"]
            assert old.get("storageClassName") in (None, new.get("storageClassName"))
    assert {delete.key for delete in plan.deletes} == before.keys() - {child.key for child in plan.children}
    assert world.children.keys() == {child.key for child in plan.children}


# Engines.


def test_a_vllm_pod_of_the_classic_two_gpu_example() -> None:
    spec = merge(
        VLLM,
        accelerator={"count": 2, "memoryUtilizationPercent": 90},
        model={
            "source": "hf://meta-llama/Llama-3.1-8B-Instruct",
            "secretRef": {"name": "hf", "key": "token"},
            "name": "llama-8b",
        },
        context={"maxLength": 8192, "maxSequences": 64},
    )
    container = engine(spec)
    assert container["command"] == ["vllm", "serve"]
    args = container["args"]
    assert args[0] == "meta-llama/Llama-3.1-8B-Instruct"
    pairs = dict(zip(args[1::2], args[2::2], strict=True))
    assert pairs["--tensor-parallel-size"] == "2"
    assert pairs["--gpu-memory-utilization"] == "0.90"
    assert pairs["--served-model-name"] == "llama-8b"
    assert (pairs["--host"], pairs["--port"]) == ("0.0.0.0", "8000")
    assert (pairs["--max-model-len"], pairs["--max-num-seqs"]) == ("8192", "64")
    assert pairs["--shutdown-timeout"] == "120"
    assert container["image"] == "vllm/vllm-openai:v0.33.0"
    assert env(container)["HF_TOKEN"] == {"secretKeyRef": {"name": "hf", "key": "token"}}
    limits = container["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == container["resources"]["requests"]["nvidia.com/gpu"] == "2"
    shm = next(v for v in pod_spec(spec)["volumes"] if v["name"] == "fairlead-shm")
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}


@pytest.mark.parametrize(
    ("accelerator", "pod", "image", "arch"),
    [
        (None, {}, "vllm/vllm-openai-cpu:v0.33.0-x86_64", "amd64"),
        (None, {"nodeSelector": {"kubernetes.io/arch": "arm64"}}, "vllm/vllm-openai-cpu:v0.33.0-arm64", "arm64"),
        ({"count": 1}, {}, "vllm/vllm-openai:v0.33.0", None),
        ({"count": 1, "resourceName": "nvidia.com/mig-1g.10gb"}, {}, "vllm/vllm-openai:v0.33.0", None),
        ({"count": 1, "resourceName": "amd.com/gpu"}, {}, "vllm/vllm-openai-rocm:v0.33.0", None),
        ({"count": 1, "resourceName": "gpu.intel.com/xe"}, {}, "vllm/vllm-openai-xpu:v0.33.0", None),
    ],
)
def test_the_image_follows_accelerator_and_architecture(
    accelerator: Json | None, pod: Json, image: str, arch: str | None
) -> None:
    spec = merge(VLLM, accelerator=accelerator, pod=pod)
    assert engine(spec)["image"] == image
    assert pod_spec(spec).get("nodeSelector", {}).get("kubernetes.io/arch") == arch


def test_an_own_image_tells_its_version_by_the_tag_and_binds_no_architecture() -> None:
    spec = merge(
        VLLM,
        accelerator=None,
        engine={"type": "vLLM", "image": "reg.example.com/vllm:cu130-v0.17.1", "version": "0.33.0"},
    )
    assert "--shutdown-timeout" not in engine(spec)["args"]
    assert "nodeSelector" not in pod_spec(spec)


def test_the_users_arguments_come_last_and_replace_defaults() -> None:
    spec = merge(VLLM, engine__args=["--shutdown_timeout=5", "--no-enable-prefix-caching"])
    args = engine(spec)["args"]
    assert args[-2:] == ["--shutdown_timeout=5", "--no-enable-prefix-caching"]
    assert args.count("--shutdown-timeout") == 0


@pytest.mark.parametrize("argument", ["--host=::", "--port", "--api-key=x", "--served_model_name"])
def test_the_operators_flags_are_refused_even_if_validation_let_them_through(argument: str) -> None:
    from fairlead.errors import RenderError
    from fairlead.planning.deployment.arguments import merge_arguments

    with pytest.raises(RenderError, match=r"spec\.engine\.args\[1\]"):
        merge_arguments([["m"]], ["--x", argument], {}, ["--host", "--port", "--api-key", "--served-model-name"])


def test_the_users_environment_replaces_ours_and_reaches_init_containers() -> None:
    spec = merge(
        OLLAMA, engine__env=[{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "HOME", "value": "/cache"}]
    )
    (init,) = pod_spec(spec)["initContainers"]
    for container in (engine(spec), init):
        assert env(container)["HTTPS_PROXY"] == "http://proxy:3128"
        assert env(container)["HOME"] == "/cache"
    assert env(init)["OLLAMA_HOST"] == "127.0.0.1:11434"
    assert env(engine(spec))["OLLAMA_HOST"] == "0.0.0.0:11434"


def test_a_checkpoint_that_is_quantized_gets_no_flag_and_one_that_is_not_gets_it() -> None:
    stored = merge(
        VLLM, model={"source": "hf://RedHatAI/Llama-3.1-8B-Instruct-FP8-dynamic"}, quantization={"weights": "FP8"}
    )
    assert "--quantization" not in engine(stored)["args"]
    on_load = merge(VLLM, quantization={"weights": "FP8"})
    args = engine(on_load)["args"]
    assert args[args.index("--quantization") + 1] == "fp8_per_tensor"
    settled = merge(VLLM, quantization={"weights": "FP8", "mode": "Checkpoint"})
    assert "--quantization" not in engine(settled)["args"]
    awq = merge(VLLM, quantization={"weights": "AWQ"})
    assert "--quantization" not in engine(awq)["args"]


def test_weights_on_a_claim_are_mounted_read_only_and_nothing_is_downloaded() -> None:
    spec = merge(VLLM, model={"source": "pvc://weights/llama/8b"})
    assert engine(spec)["args"][0] == "/model/llama/8b"
    assert env(engine(spec))["HF_HUB_OFFLINE"] == "1"
    assert {"name": "fairlead-model", "mountPath": "/model", "readOnly": True} in engine(spec)["volumeMounts"]
    volume = next(v for v in pod_spec(spec)["volumes"] if v["name"] == "fairlead-model")
    assert volume["persistentVolumeClaim"] == {"claimName": "weights", "readOnly": True}


def test_an_ollama_pod_pulls_by_itself_and_is_ready_only_with_the_model() -> None:
    spec = merge(
        OLLAMA,
        model__name="acme/small",
        context={"maxLength": 2048, "maxSequences": 4},
        quantization={"kvCache": "Q8_0"},
    )
    (init,) = pod_spec(spec)["initContainers"]
    assert init["name"] == "model"
    assert init["args"] == ["qwen2.5:0.5b", "acme/small", ""]
    container = engine(spec)
    assert "ollama ps" in container["readinessProbe"]["exec"]["command"][2]
    values = env(container)
    assert values["OLLAMA_KEEP_ALIVE"] == "-1"
    assert (values["OLLAMA_CONTEXT_LENGTH"], values["OLLAMA_NUM_PARALLEL"]) == ("2048", "4")
    assert (values["OLLAMA_KV_CACHE_TYPE"], values["OLLAMA_FLASH_ATTENTION"]) == ("q8_0", "1")
    assert values["OLLAMA_NO_CLOUD"] == "1"
    assert not re.search(r"\b(curl|wget|bash)\b", str(pod_spec(spec)))


# Start-up, drain, rollout.


def test_everything_that_gives_up_early_follows_the_startup_budget() -> None:
    spec = merge(VLLM, probes={"startupTimeout": "40m"})
    container = engine(spec)
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 2400
    assert probe["httpGet"] == container["readinessProbe"]["httpGet"]
    assert env(container)["VLLM_ENGINE_READY_TIMEOUT_S"] == "2400"
    assert planned(spec)["Deployment/llama"]["spec"]["progressDeadlineSeconds"] > 2400


@pytest.mark.parametrize("spec", [VLLM, OLLAMA], ids=["vllm", "ollama"])
@pytest.mark.parametrize("period", [None, 20])
def test_a_pod_that_loads_is_asked_every_second(spec: dict[str, Any], period: int | None) -> None:
    """Whoever waits at the gateway for a model at zero waits for this question; how often a pod that serves is asked is another one."""
    changes = {"probes": {"readiness": {"periodSeconds": period}}} if period else {}
    container = engine(merge(spec, **changes))
    assert container["startupProbe"]["periodSeconds"] == 1
    assert "initialDelaySeconds" not in container["startupProbe"]
    assert container["readinessProbe"]["periodSeconds"] == (period or 5)


def test_the_budget_grows_with_the_model_and_is_half_an_hour_when_nothing_is_known() -> None:
    def budget(source: str) -> int:
        return int(env(engine(merge(VLLM, model={"source": source})))["VLLM_ENGINE_READY_TIMEOUT_S"])

    assert budget("hf://org/thing") == 1800
    assert budget("hf://org/Model-1B") < budget("hf://org/Model-8B") < budget("hf://org/Model-70B")
    assert budget("hf://org/Model-70B") >= 70e9 * 2 / 50e6, "the download alone takes this long"


def test_the_grace_period_holds_prestop_and_drain() -> None:
    pod = pod_spec(merge(VLLM, rollout={"drainTimeout": "5m"}))
    container = pod["containers"][0]
    delay = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert container["args"][container["args"].index("--shutdown-timeout") + 1] == "300"
    assert pod["terminationGracePeriodSeconds"] >= delay + 300 + 10


RWO = {"type": "PersistentVolumeClaim", "size": "10Gi"}
RWX = {**RWO, "accessModes": ["ReadWriteMany"]}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (0, 1)),  # accelerators: no surge pod
        ({"accelerator": None}, (1, 0)),
        ({"rollout": {"strategy": "Surge"}}, (1, 0)),
        ({"accelerator": None, "rollout": {"strategy": "InPlace"}}, (0, 1)),
        ({"accelerator": None, "storage": RWX}, (1, 0)),
        ({"accelerator": None, "storage": RWO, "replicas": 2}, (0, 1)),
        ({"accelerator": None, "storage": RWO}, "Recreate"),
        ({"accelerator": None, "storage": {"type": "PersistentVolumeClaim", "claimName": "x"}}, "Recreate"),
        ({"storage": RWX, "replicas": 3}, (0, 1)),
    ],
)
def test_the_rollout_strategy(changes: Json, expected: Any) -> None:
    strategy = planned(merge(VLLM, **changes))["Deployment/llama"]["spec"]["strategy"]
    if expected == "Recreate":
        assert strategy == {"type": "Recreate"}
    else:
        surge, unavailable = expected
        assert strategy == {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable},
        }


# Scheduling, resources, files.


def test_products_are_anded_into_every_term_of_the_users_affinity() -> None:
    term_a = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
    term_b = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
    preferred = [{"weight": 1, "preference": term_a}]
    node_affinity = {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term_a, term_b]},
        "preferredDuringSchedulingIgnoredDuringExecution": preferred,
    }
    spec = merge(
        VLLM,
        accelerator={"count": 1, "products": ["NVIDIA-L4", "NVIDIA-H100-80GB-HBM3"]},
        pod={"affinity": {"nodeAffinity": node_affinity, "podAffinity": {}}},
    )
    affinity = pod_spec(spec)["affinity"]
    assert affinity["podAffinity"] == {}
    assert affinity["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] == preferred
    terms = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    labels = {term["matchExpressions"][-1]["key"] for term in terms}
    assert {"nvidia.com/gpu.product", "cloud.google.com/gke-accelerator"} <= labels
    assert len(terms) == 2 * len(labels)
    for term in terms:
        *own, product = term["matchExpressions"]
        assert {"NVIDIA-L4", "NVIDIA-H100-80GB-HBM3", "nvidia-l4"} <= set(product["values"])
        assert own == term_a["matchExpressions"] or term.get("matchFields") == term_b["matchFields"]


def test_tolerations_by_resource_name_beside_the_users() -> None:
    spot = {"key": "spot", "operator": "Exists"}
    spec = merge(VLLM, accelerator={"count": 1, "resourceName": "nvidia.com/mig-1g.10gb"}, pod={"tolerations": [spot]})
    tolerations = pod_spec(spec)["tolerations"]
    assert [t["key"] for t in tolerations] == ["nvidia.com/mig-1g.10gb", "nvidia.com/gpu", "spot"]
    assert "tolerations" not in pod_spec(merge(VLLM, accelerator=None))


HUGE = {"hugepages-2Mi": "512Mi"}


@pytest.mark.parametrize(
    ("resources", "requests", "limits"),
    [
        ({"limits": {"memory": "8Gi"}}, {"memory": "8Gi"}, {"memory": "8Gi"}),
        ({"requests": {"memory": "8192Mi", "cpu": "1500m"}}, {"memory": "8Gi", "cpu": "1500m"}, {"memory": "8Gi"}),
        ({"requests": {"cpu": "1000m"}, "limits": {"cpu": "2.0", "memory": "64Gi"}}, {"cpu": "1", "memory": "64Gi"}, {"cpu": "2"}),
        ({"requests": HUGE, "limits": HUGE}, HUGE, HUGE),
    ],
)  # fmt: skip
def test_requests_and_limits(resources: Json, requests: Json, limits: Json) -> None:
    got = engine(merge(VLLM, accelerator=None, resources=resources))["resources"]
    assert requests.items() <= got["requests"].items()
    assert limits.items() <= got["limits"].items()


def test_memory_by_default_holds_the_model_and_shared_memory_on_cpu() -> None:
    def gib(source: str, shared: str) -> int:
        spec = merge(VLLM, accelerator=None, model={"source": source}, resources={"sharedMemory": shared})
        return int(engine(spec)["resources"]["limits"]["memory"].removesuffix("Gi"))

    assert gib("hf://org/Model-8B", "1Gi") > 16
    assert gib("hf://org/Model-8B", "5Gi") == gib("hf://org/Model-8B", "1Gi") + 4


def test_files_are_mounted_as_whole_directories() -> None:
    files = [
        {"path": "/etc/llm/chat.jinja", "configMapRef": {"name": "templates", "key": "chat"}},
        {"path": "/etc/llm/key.pem", "secretRef": {"name": "keys", "key": "pem"}},
        {"path": "/opt/x/y", "configMapRef": {"name": "templates", "key": "y"}},
    ]
    pod = pod_spec(merge(VLLM, files=files))
    mounts = {m["mountPath"]: m for m in pod["containers"][0]["volumeMounts"] if m["name"].startswith("fairlead-files")}
    assert mounts.keys() == {"/etc/llm", "/opt/x"}
    assert all("subPath" not in mount for mount in mounts.values())
    volume = next(v for v in pod["volumes"] if v["name"] == mounts["/etc/llm"]["name"])
    assert volume["projected"]["sources"] == [
        {"configMap": {"name": "templates", "items": [{"key": "chat", "path": "chat.jinja"}]}},
        {"secret": {"name": "keys", "items": [{"key": "pem", "path": "key.pem"}]}},
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"files": [{"path": "/data/x", "configMapRef": {"name": "t", "key": "k"}}]},
        {"pod": {"extraVolumes": [{"name": "v"}], "extraVolumeMounts": [{"name": "v", "mountPath": "/data"}]}},
    ],
)
def test_a_mount_that_would_hide_the_engines_own_is_refused(change: Json) -> None:
    """Where built-in engines mount is known to validation; where somebody's own does is known here only."""
    engines = EngineCatalog.builtin().with_overrides({"Mini": ("mini", MINI)})
    world = World(merge(VLLM, engine={"type": "Mini"}, accelerator=None, **change), engines=engines)
    plan = world.step()
    assert world.states()["Stalled"] == "True/InvalidSpec"
    assert "spec.files[0].path" in world.condition("Stalled")["message"] or "spec.pod.extraVolumeMounts[0]" in str(
        plan.status
    )
    assert plan.children == ()


# The other children.


def test_children_by_spec() -> None:
    base = {"NetworkPolicy/llama", "Service/llama", "Service/llama-pods", "Deployment/llama"}
    assert planned(VLLM).keys() == base
    assert planned(merge(VLLM, replicas=2)).keys() == base | {"PodDisruptionBudget/llama"}
    assert planned(merge(VLLM, replicas=2, suspend=True)).keys() == base
    assert planned(merge(VLLM, networkPolicy={"mode": "Disabled"})).keys() == base - {"NetworkPolicy/llama"}
    assert planned(merge(VLLM, storage=RWO)).keys() == base | {"PersistentVolumeClaim/llama-cache"}
    assert planned(merge(VLLM, storage={"type": "PersistentVolumeClaim", "claimName": "x"})).keys() == base


def test_labels_and_annotations_of_the_resource_are_never_copied() -> None:
    world = World(
        merge(VLLM, pod={"labels": {"team": "a"}, "annotations": {"x": "y"}}), annotations={"argocd.argoproj.io/x": "1"}
    )
    plan = world.plan()
    assert "argocd" not in str([child.body for child in plan.children])
    template = next(c.body for c in plan.children if c.key.kind == "Deployment")["spec"]["template"]["metadata"]
    assert template["labels"] == {"team": "a", **make_engine_labels("llama")}
    assert template["annotations"] == {"x": "y"}


def test_services_point_at_the_named_port() -> None:
    bodies = planned(merge(OLLAMA, service={"port": 8080, "type": "NodePort", "annotations": {"a": "b"}}))
    service, headless = bodies["Service/llama"], bodies["Service/llama-pods"]
    assert service["spec"]["type"] == "NodePort"
    assert service["spec"]["ports"] == [{"name": "http", "port": 8080, "targetPort": "http", "protocol": "TCP"}]
    assert service["metadata"]["annotations"] == {"a": "b"}
    assert headless["spec"]["clusterIP"] == "None"
    assert headless["spec"]["ports"][0]["port"] == 11434
    assert World(merge(OLLAMA, service={"port": 8080})).plan().status["endpoint"] == "http://llama.ml.svc:8080/v1"


def test_the_network_policy_adds_the_users_peers() -> None:
    peer = {"ipBlock": {"cidr": "10.0.0.0/8"}}
    spec = planned(merge(VLLM, networkPolicy={"from": [peer]}))["NetworkPolicy/llama"]["spec"]
    (rule,) = spec["ingress"]
    assert rule["from"][0] == {"podSelector": {}}
    assert rule["from"][-1] == peer
    assert rule["ports"] == [{"protocol": "TCP", "port": "http"}]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
