"""The pod template: the rendered engine, the user's wishes, and what is the same for every engine.

`POD_BUILDER_REVISION` goes up with every change here that alters templates; running pods keep the template with which they
were planned (law 8, revision.py).
"""

from __future__ import annotations

import math
from typing import Any

from fairlead.api.llmdeployment import ProbeSpec
from fairlead.api.names import make_engine_labels
from fairlead.engines.definition import InitContainer, Probe
from fairlead.planning.deployment.arguments import merge_arguments
from fairlead.planning.deployment.encryption import (
    make_tls_annotations,
    make_tls_container,
    make_tls_volumes,
    port_number,
)
from fairlead.planning.deployment.resources import Resources, make_engine_resources, make_init_resources
from fairlead.planning.deployment.scheduling import (
    make_affinity,
    make_node_selector,
    make_spread_constraints,
    make_tolerations,
)
from fairlead.planning.deployment.serving import Serving
from fairlead.planning.deployment.sidecar import (
    make_sidecar_annotations,
    make_sidecar_container,
    make_sidecar_labels,
    make_sidecar_volumes,
)
from fairlead.planning.deployment.volumes import make_volume_mounts, make_volumes
from fairlead.policy.locality import mark_pods

__all__ = ["ENGINE_CONTAINER", "MODEL_CONTAINER", "POD_BUILDER_REVISION", "make_pod_template"]

POD_BUILDER_REVISION = 2
ENGINE_CONTAINER = "engine"
#: Init container with which engines that fetch their model themselves do it.
MODEL_CONTAINER = "model"
#: Requests wait at a gateway for a pod that wakes from zero, and this is what each of them may wait for nothing.
_STARTUP_PERIOD_S = 1

Json = dict[str, Any]


def make_pod_template(serving: Serving) -> Json:
    """PodTemplateSpec as it is applied, without the restart annotation."""
    pod = serving.spec.pod
    labels = {**make_engine_labels(serving.name), **make_sidecar_labels(serving)}
    metadata: Json = {"labels": {**(pod.labels if pod else {}), **labels}}
    annotations = {
        **(pod.annotations if pod else {}),
        **mark_pods(serving.spec),
        **make_tls_annotations(serving),
        **make_sidecar_annotations(serving),
    }
    if annotations:
        metadata["annotations"] = annotations
    return {"metadata": metadata, "spec": _make_pod_spec(serving)}


def _make_pod_spec(serving: Serving) -> Json:
    pod = serving.spec.pod
    resources = make_engine_resources(serving)
    user_context = pod.security_context if pod and pod.security_context else {}
    spec: Json = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {**serving.rendered.pod_security_context, **user_context},
        "terminationGracePeriodSeconds": serving.rendered.drain.grace_period_seconds,
        "initContainers": [
            *(_make_init_container(serving, init, resources) for init in serving.rendered.init_containers),
            *make_tls_container(serving),
            *make_sidecar_container(serving),
        ],
        "containers": [_make_engine_container(serving, resources)],
        "volumes": [*make_volumes(serving), *make_tls_volumes(serving), *make_sidecar_volumes(serving)],
        "nodeSelector": make_node_selector(serving),
        "tolerations": make_tolerations(serving),
        "affinity": make_affinity(serving),
        "topologySpreadConstraints": make_spread_constraints(serving),
    }
    if pod is not None:
        spec |= {
            "priorityClassName": pod.priority_class_name,
            "runtimeClassName": pod.runtime_class_name,
            "schedulerName": pod.scheduler_name,
            "serviceAccountName": pod.service_account_name,
            "imagePullSecrets": list(pod.image_pull_secrets),
        }
    return {key: value for key, value in spec.items() if value not in (None, {}, [])}


def _make_engine_container(serving: Serving, resources: Resources) -> Json:
    engine, spec = serving.rendered, serving.spec
    definition = serving.engine.definition
    readiness, liveness = engine.probes.readiness, engine.probes.liveness
    container: Json = {
        "name": ENGINE_CONTAINER,
        "image": engine.image,
        "imagePullPolicy": spec.engine.image_pull_policy.value if spec.engine.image_pull_policy else None,
        "command": engine.command,
        "args": merge_arguments(engine.args, spec.engine.args, definition.flag_aliases, definition.protected_flags),
        "env": _merge_env(engine.env, spec.engine.env),
        "envFrom": list(spec.engine.env_from),
        # With encryption nobody reaches the engine but the container in front of it.
        "ports": [{"name": "http", "containerPort": engine.port, "protocol": "TCP"}] if not spec.encryption else [],
        "resources": resources,
        "startupProbe": _make_startup_probe(serving, readiness),
        "readinessProbe": _make_probe(serving, readiness, spec.probes.readiness if spec.probes else None),
        "livenessProbe": _make_probe(serving, liveness, spec.probes.liveness if spec.probes else None),
        "lifecycle": {"preStop": engine.drain.pre_stop} if engine.drain.pre_stop else None,
        "securityContext": _make_security_context(serving),
        # An engine that dies says why in its last lines; the kubelet hands them on when nothing else was said.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": make_volume_mounts(serving),
    }
    return {key: value for key, value in container.items() if value not in (None, {}, [])}


def _make_init_container(serving: Serving, init: InitContainer, resources: Resources) -> Json:
    spec = serving.spec
    container: Json = {
        "name": init.name,
        "image": init.image or serving.rendered.image,
        "imagePullPolicy": spec.engine.image_pull_policy.value if spec.engine.image_pull_policy else None,
        "command": init.command,
        "args": init.args,
        # The user's variables too: proxies and registries matter most here.
        "env": _merge_env(_merge_env(serving.rendered.env, spec.engine.env), init.env),
        "envFrom": list(spec.engine.env_from),
        "resources": make_init_resources(resources),
        "securityContext": _make_security_context(serving),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": make_volume_mounts(serving),
    }
    return {key: value for key, value in container.items() if value not in (None, {}, [])}


def _make_security_context(serving: Serving) -> Json:
    pod = serving.spec.pod
    user = pod.container_security_context if pod and pod.container_security_context else {}
    return {**serving.rendered.security_context, **user}


def _merge_env(first: list[Json], second: list[Json]) -> list[Json]:
    """Both lists in order; a name that is in both keeps only the second's."""
    names = {entry["name"] for entry in second}
    return [entry for entry in first if entry["name"] not in names] + list(second)


def _make_startup_probe(serving: Serving, readiness: Probe) -> Json:
    """Asks what readiness asks, every second, and gives up when the start-up budget is spent. An engine that loads refuses at once; one
    that takes a question and lets it hang is given up later by as much. The kubelet asks for readiness as soon as this one holds."""
    return {
        **_make_handler(serving, readiness),
        "periodSeconds": _STARTUP_PERIOD_S,
        "timeoutSeconds": readiness.timeout_seconds,
        "failureThreshold": max(1, math.ceil(serving.startup_timeout_s / _STARTUP_PERIOD_S)),
    }


def _make_probe(serving: Serving, probe: Probe, user: ProbeSpec | None) -> Json:
    return {
        **_make_handler(serving, probe),
        "periodSeconds": (user and user.period_seconds) or probe.period_seconds,
        "timeoutSeconds": (user and user.timeout_seconds) or probe.timeout_seconds,
        "failureThreshold": (user and user.failure_threshold) or probe.failure_threshold,
    }


def _make_handler(serving: Serving, probe: Probe) -> Json:
    """With encryption the kubelet, too, reaches the engine through the TLS in front of it. It does not verify certificates."""
    if serving.spec.encryption is not None and probe.http_get is not None:
        return {"httpGet": {**probe.http_get, "port": port_number(serving), "scheme": "HTTPS"}}
    if serving.spec.encryption is not None and probe.tcp_socket is not None:
        return {"tcpSocket": {**probe.tcp_socket, "port": port_number(serving)}}
    for key, handler in (("httpGet", probe.http_get), ("exec", probe.exec), ("tcpSocket", probe.tcp_socket)):
        if handler is not None:
            return {key: handler}
    raise AssertionError("EngineDefinition admits no probe without a handler")
