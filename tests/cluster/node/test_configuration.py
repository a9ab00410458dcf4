"""What a container gets: environment, command, directories, image; and the words when that fails."""

from __future__ import annotations

from typing import Any

import pytest
from tests.cluster.node.pods import (
    MOUNT,
    SHARED,
    SHELL,
    STAY,
    Json,
    Pods,
    container_status,
    phase,
    shell,
    terminated,
    waiting,
)

from fairlead_cluster.api import SERVICES

pytestmark = pytest.mark.cluster


async def environment(pods: Pods, name: str, *env: Json, **container: Any) -> dict[str, str]:
    """The variables of a container that has these."""
    main = shell("env -0", env=list(env), **container)
    resources = {"limits": {"cpu": "1500m", "memory": "128Mi"}, "requests": {"cpu": "250m"}}
    await pods.create(
        name, main | {"resources": resources}, restartPolicy="Never", annotations={"example.com/note": "hi"}
    )
    pod = await pods.finished(name)
    assert phase(pod) == "Succeeded", pod["status"]
    lines = (await pods.log(pod)).split("\0")
    return dict(line.split("=", 1) for line in lines if line)


def value_from(variable: str, kind: str, /, **reference: Any) -> Json:
    return {"name": variable, "valueFrom": {kind: reference}}


async def test_values_come_from_config_maps_secrets_fields_and_resources(pods: Pods) -> None:
    await pods.config_map("settings", color="blue", **{"two.lines": "a\nb"})
    await pods.secret("login", password="hush")
    seen = await environment(
        pods,
        "sources",
        value_from("COLOR", "configMapKeyRef", name="settings", key="color"),
        value_from("LINES_", "configMapKeyRef", name="settings", key="two.lines"),
        value_from("PASSWORD", "secretKeyRef", name="login", key="password"),
        value_from("POD", "fieldRef", fieldPath="metadata.name"),
        value_from("NAMESPACE", "fieldRef", fieldPath="metadata.namespace"),
        value_from("NOTE", "fieldRef", fieldPath="metadata.annotations['example.com/note']"),
        value_from("APP", "fieldRef", fieldPath="metadata.labels['app']"),
        value_from("IP", "fieldRef", fieldPath="status.podIP"),
        value_from("NODE", "fieldRef", fieldPath="spec.nodeName"),
        value_from("CPU", "resourceFieldRef", resource="limits.cpu"),
        value_from("MILLI", "resourceFieldRef", resource="requests.cpu", divisor="1m"),
        value_from("MEMORY", "resourceFieldRef", resource="limits.memory", divisor="1Mi"),
    )
    assert seen["COLOR"] == "blue"
    assert seen["LINES_"] == "a\nb"
    assert seen["PASSWORD"] == "hush"
    assert (seen["POD"], seen["NAMESPACE"], seen["APP"]) == ("sources", pods.namespace, "sources")
    assert seen["NOTE"] == "hi"
    assert seen["IP"].startswith("127.244.")
    assert seen["NODE"] in ("gpu-l4", "gpu-h100", "cpu")
    assert (seen["CPU"], seen["MILLI"], seen["MEMORY"]) == ("2", "250", "128")


async def test_env_from_takes_all_keys_with_a_prefix_and_env_wins(pods: Pods) -> None:
    await pods.config_map("settings", color="blue", size="big")
    await pods.secret("login", PASSWORD="hush")
    sources = [
        {"configMapRef": {"name": "settings"}, "prefix": "CM_"},
        {"secretRef": {"name": "login"}},
        {"configMapRef": {"name": "absent", "optional": True}},
    ]
    own = [{"name": "CM_size", "value": "small"}, {"name": "SAID", "value": "$(PASSWORD), $(CM_color)"}]
    seen = await environment(pods, "all", *own, envFrom=sources)
    assert (seen["CM_color"], seen["CM_size"], seen["PASSWORD"]) == ("blue", "small", "hush")
    assert seen["SAID"] == "hush, blue"


async def test_variables_expand_in_order_and_unknown_ones_stay(pods: Pods) -> None:
    seen = await environment(
        pods,
        "expanding",
        {"name": "EARLY", "value": "$(LATE)"},
        {"name": "LATE", "value": "x"},
        {"name": "BOTH", "value": "$(LATE)-$$(LATE)-$(NEVER)-$"},
    )
    assert seen["EARLY"] == "$(LATE)"
    assert seen["BOTH"] == "x-$(LATE)-$(NEVER)-$"


async def test_command_and_args_expand_and_see_later_variables(pods: Pods) -> None:
    container = {"name": "main", "image": SHELL, "command": ["echo"], "args": ["$(WORD)", "$$(WORD)", "$(NO)"]}
    await pods.create("echo", container | {"env": [{"name": "WORD", "value": "hello"}]}, restartPolicy="Never")
    assert await pods.log(await pods.finished("echo")) == "hello $(WORD) $(NO)\n"


async def test_optional_references_that_are_missing_leave_no_variable(pods: Pods) -> None:
    await pods.config_map("settings", color="blue")
    seen = await environment(
        pods,
        "optional",
        value_from("NO_MAP", "configMapKeyRef", name="absent", key="x", optional=True),
        value_from("NO_KEY", "configMapKeyRef", name="settings", key="absent", optional=True),
        value_from("NO_SECRET", "secretKeyRef", name="absent", key="x", optional=True),
    )
    assert not {"NO_MAP", "NO_KEY", "NO_SECRET"} & set(seen)


async def test_nothing_of_the_hosts_environment_is_inherited(pods: Pods) -> None:
    seen = await environment(pods, "clean")
    own = {"PATH", "HOME", "TMPDIR", "HOSTNAME", "FAIRLEAD_CONTAINER", "PWD", "SHLVL", "_", "OLDPWD"}
    assert {name for name in seen if not name.startswith("KUBERNETES_")} <= own
    assert seen["HOSTNAME"] == "clean"


async def test_services_become_variables_unless_links_are_off(pods: Pods) -> None:
    service = {"metadata": {"name": "my-api"}, "spec": {"ports": [{"name": "http", "port": 8080}]}}
    created = await pods.api.create(SERVICES, service, pods.namespace)
    address = created["spec"]["clusterIP"]
    for links in (True, False):
        name = f"links-{links}".lower()
        await pods.create(name, shell("env"), restartPolicy="Never", enableServiceLinks=links)
        lines = (await pods.log(await pods.finished(name))).splitlines()
        assert (f"MY_API_SERVICE_HOST={address}" in lines) is links
        assert ("MY_API_SERVICE_PORT_HTTP=8080" in lines) is links
        assert (f"MY_API_PORT=tcp://{address}:8080" in lines) is links
        assert any(line.startswith("KUBERNETES_SERVICE_HOST=") for line in lines)


MISSING = [
    (value_from("X", "configMapKeyRef", name="absent", key="x"), 'configmap "absent" not found'),
    (value_from("X", "secretKeyRef", name="absent", key="x"), 'secret "absent" not found'),
    (value_from("X", "configMapKeyRef", name="there", key="x"), "couldn't find key x in ConfigMap {namespace}/there"),
    (value_from("X", "secretKeyRef", name="there", key="x"), "couldn't find key x in Secret {namespace}/there"),
]


@pytest.mark.parametrize(("variable", "words"), MISSING)
async def test_what_is_missing_is_said_as_a_kubelet_says_it_and_tried_again(
    pods: Pods, variable: Json, words: str
) -> None:
    await pods.config_map("there", other="1")
    await pods.secret("there", other="1")
    await pods.create("missing", shell(STAY, env=[variable]))

    pod = await pods.until("missing", lambda pod: waiting(pod).get("reason") == "CreateContainerConfigError")
    words = words.format(namespace=pods.namespace)
    assert waiting(pod)["message"] == words
    assert phase(pod) == "Pending"
    await pods.event("missing", "Failed", containing=f"Error: {words}")

    reference = next(iter(variable["valueFrom"].values()))
    make = pods.config_map if "configMapKeyRef" in variable["valueFrom"] else pods.secret
    await make(reference["name"], x="now")
    pod = await pods.ready("missing")
    assert container_status(pod)["restartCount"] == 0


async def test_an_unknown_image_is_a_pull_error_that_backs_off(pods: Pods) -> None:
    await pods.create("pulling", {"name": "main", "image": "example.com/no/such:1"})

    pod = await pods.until("pulling", lambda pod: waiting(pod).get("reason") == "ErrImagePull")
    assert "example.com/no/such:1: not found" in waiting(pod)["message"]
    assert phase(pod) == "Pending"
    pod = await pods.until("pulling", lambda pod: waiting(pod).get("reason") == "ImagePullBackOff")
    assert waiting(pod)["message"].startswith('Back-off pulling image "example.com/no/such:1": ErrImagePull: ')
    await pods.until("pulling", lambda pod: waiting(pod).get("reason") == "ErrImagePull")
    await pods.event("pulling", "Failed", containing='Failed to pull image "example.com/no/such:1"')
    await pods.event("pulling", "BackOff", containing="Back-off pulling image")


@pytest.mark.parametrize(
    ("image", "policy", "reason"),
    [
        ("example.com/no/such:1", "Never", "ErrImageNeverPull"),
        ("fairlead.test/shell:missing", "IfNotPresent", "ErrImagePull"),
        ("docker.io/library/nothing", "Always", "ErrImagePull"),
        ("UPPER/case", "IfNotPresent", "InvalidImageName"),
    ],
)
async def test_image_errors_have_the_kubelets_reasons(pods: Pods, image: str, policy: str, reason: str) -> None:
    await pods.create("image", {"name": "main", "image": image, "imagePullPolicy": policy})
    await pods.until("image", lambda pod: waiting(pod).get("reason") == reason)


async def test_never_is_fine_when_the_image_is_there(pods: Pods) -> None:
    await pods.create("never", shell(STAY, imagePullPolicy="Never"))
    await pods.ready("never")


@pytest.mark.parametrize(
    ("image", "context", "words"),
    [
        (SHELL, {"runAsNonRoot": True}, "container has runAsNonRoot and image will run as root"),
        (SHELL, {"runAsNonRoot": True, "runAsUser": 0}, "container's runAsUser breaks non-root policy"),
        ("fairlead.test/named-user:1", {"runAsNonRoot": True}, "image has non-numeric user (app), cannot verify"),
    ],
)
async def test_root_is_refused_where_the_pod_says_so(pods: Pods, image: str, context: Json, words: str) -> None:
    await pods.create("root", {"name": "main", "image": image, "securityContext": context})
    pod = await pods.until("root", lambda pod: waiting(pod).get("reason") == "CreateContainerConfigError")
    assert words in waiting(pod)["message"]


@pytest.mark.parametrize(
    ("image", "context"),
    [(SHELL, {"runAsNonRoot": True, "runAsUser": 1000}), ("fairlead.test/nonroot:1", {"runAsNonRoot": True})],
)
async def test_others_are_not(pods: Pods, image: str, context: Json) -> None:
    await pods.create("user", shell(STAY) | {"image": image}, securityContext=context)
    await pods.ready("user")


async def test_home_and_tmp_are_the_containers_own_and_writable(pods: Pods) -> None:
    script = 'for d in "$HOME" "$TMPDIR" .; do touch "$d/file" || exit 1; done; pwd'
    containers = [shell(script, name) for name in ("one", "two")]
    await pods.create("homes", *containers, restartPolicy="Never")
    pod = await pods.finished("homes")
    assert phase(pod) == "Succeeded"
    assert await pods.log(pod, "one") != await pods.log(pod, "two")


async def test_home_in_a_volume_is_in_that_volume(pods: Pods) -> None:
    container = shell(
        'echo hi >"$HOME/.file"; cat /shared/home/.file', env=[{"name": "HOME", "value": "/shared/home"}], **MOUNT
    )
    init = shell("mkdir /shared/home", "init", **MOUNT)
    await pods.create("home", container, initContainers=[init], restartPolicy="Never", **SHARED)
    pod = await pods.finished("home")
    assert await pods.log(pod) == "hi\n"


async def test_a_read_only_root_leaves_no_place_but_volumes(pods: Pods) -> None:
    context = {"securityContext": {"readOnlyRootFilesystem": True}}
    script = 'touch "$HOME/x" 2>/dev/null || echo home; touch "$TMPDIR/x" 2>/dev/null || echo tmp; touch /shared/x && echo shared'
    await pods.create("readonly", shell(script, **context, **MOUNT), restartPolicy="Never", **SHARED)
    assert await pods.log(await pods.finished("readonly")) == "home\ntmp\nshared\n"


async def test_volumes_below_home_and_tmp_are_found_from_there(pods: Pods) -> None:
    mounts = [
        {"name": "shared", "mountPath": "/home/app/.cache/models", "subPath": "models"},
        {"name": "shared", "mountPath": "/tmp/shared", "subPath": "tmp"},
        {"name": "shared", "mountPath": "/all"},
    ]
    script = 'echo m >"$HOME/.cache/models/file"; echo t >/tmp/shared/file; echo own >/tmp/own; cat /all/*/file "$TMPDIR/own"'
    env = [{"name": "HOME", "value": "/home/app"}]
    await pods.create("below", shell(script, env=env, volumeMounts=mounts), restartPolicy="Never", **SHARED)
    assert await pods.log(await pods.finished("below")) == "m\nt\nown\n"


async def test_the_working_directory_is_the_specs(pods: Pods) -> None:
    container = shell("echo here >file; cat /shared/work/file", workingDir="/shared/work", **MOUNT)
    await pods.create("work", container, restartPolicy="Never", **SHARED)
    pod = await pods.finished("work")
    assert await pods.log(pod) == "here\n"
    assert terminated(pod)["exitCode"] == 0


async def test_the_simulator_runs_in_an_engine_image(pods: Pods) -> None:
    container = {"name": "main", "image": "vllm/vllm-openai:v0.33.0", "command": ["vllm", "--version"]}
    await pods.create("engine", container, restartPolicy="Never")
    pod = await pods.finished("engine")
    assert terminated(pod)["reason"] != "StartError"
