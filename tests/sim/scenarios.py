"""What people do to an LLMDeployment and around it, step by step. Each step begins when the one before has settled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.sim.cluster import SimCluster
from tests.sim.kinds import Key
from tests.sim.schedules import Act, Step

from fairlead.facts.alerts import Alert, Delivery

Json = dict[str, Any]
NAMESPACE, NAME, USER = "ml", "m", "kubectl"
OPERATOR_NAMESPACE = "fairlead-system"
_ENGINES = Path(__file__).parents[2] / "operator" / "fairlead" / "engines"

#: When an operator that was started anew meanwhile has told of what a predecessor left behind.
TOLD_S = 80.0
#: Longer than certificates take to follow an authority that was lost, in all of their steps.
FOLLOWED_S = 1000.0
ISSUED = f"{NAME}-pods-tls"
SERVES, FAILED, WORKS, GONE = "Current", "Failed", "InProgress", None


SCALED: Json = {"minReplicas": 1, "maxReplicas": 5, "targets": {"queuedRequests": 5}}
EXTERNAL: Json = {"mode": "External", "minReplicas": 1, "maxReplicas": 5}
BY_KEDA: Json = SCALED | {"mode": "KEDA", "keda": {"serverAddress": "http://prometheus.monitoring:9090"}}
#: KEDA asks Prometheus, which knows only engines that have metrics.
VLLM: Json = {"model": {"source": "hf://Qwen/Qwen3-0.6B"}, "engine": {"type": "vLLM"}}
#: Longer than between two steps down, and than a number is held after a hand-over.
PACED_S, HELD_S = 420.0, 330.0
DELIVERIES = 5


@dataclass(frozen=True, slots=True)
class Scenario:
    """Named steps from an empty cluster on."""

    name: str
    steps: tuple[Step, ...]


def make_resource(name: str = NAME, **spec: Any) -> Json:
    """An LLMDeployment that a small machine could run."""
    base = {"model": {"source": "ollama://qwen2.5:0.5b"}, "engine": {"type": "Ollama"}}
    return {
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "LLMDeployment",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"team": "a"}, "annotations": {"note": "mine"}},
        "spec": base | spec,
    }  # fmt: skip


def create(name: str = NAME, **spec: Any) -> Act:
    return lambda cluster: _ignore(cluster.create(USER, make_resource(name, **spec)))


def edit(name: str = NAME, drop: tuple[str, ...] = (), **spec: Any) -> Act:
    """Put these sections into the spec, and take those out."""

    def change(live: Json) -> None:
        live["spec"] |= spec
        for section in drop:
            live["spec"].pop(section, None)

    return lambda cluster: _ignore(cluster.edit(USER, "LLMDeployment", NAMESPACE, name, change))


def wait_in_engines(requests: float) -> Act:
    """From now on so many requests wait in the engines, all told."""
    return lambda cluster: cluster.waiting.append((cluster.clock(), requests))


def deliver_alert(name: str = NAME) -> Act:
    """Two Alertmanagers deliver it, again and again."""

    def act(cluster: SimCluster) -> None:
        alert = Alert("f1", "LLMDeploymentHighLatency", True, cluster.wall(), about=(NAMESPACE, name))

        def tell() -> None:
            for hear in list(cluster.hearers):
                hear(Delivery((alert,)))

        for number in range(DELIVERIES):
            for late_s in (0.0, 0.3):
                asyncio.get_running_loop().call_later(0.5 + 8.0 * number + late_s, tell)

    return act


def delete(name: str = NAME) -> Act:
    return lambda cluster: cluster.delete(USER, "LLMDeployment", NAMESPACE, name)


def both(*acts: Act) -> Act:
    """At the same instant."""

    def act(cluster: SimCluster) -> None:
        for one in acts:
            one(cluster)

    return act


def later(delay_s: float, act: Act) -> Act:
    """A moment after the step began, whatever the operator does then."""
    return lambda cluster: _ignore(asyncio.get_running_loop().call_later(delay_s, act, cluster))


def hold(name: str = NAME) -> Act:
    """Put somebody's finalizer on it: deleting then only marks it."""

    def change(live: Json) -> None:
        live["metadata"]["finalizers"] = ["example.com/hold"]

    return lambda cluster: _ignore(cluster.edit(USER, "LLMDeployment", NAMESPACE, name, change))


def let_go(name: str = NAME) -> Act:
    return lambda cluster: cluster.strip_finalizers(USER, Key("LLMDeployment", NAMESPACE, name))


def hold_child(kind: str, name: str) -> Act:
    """The same for a child."""

    def change(live: Json) -> None:
        live["metadata"]["finalizers"] = ["example.com/hold"]

    return drift(kind, name, change)


def let_go_of_child(kind: str, name: str) -> Act:
    return lambda cluster: cluster.strip_finalizers(USER, Key(kind, NAMESPACE, name))


def drift(kind: str, name: str, change: Callable[[Json], None]) -> Act:
    return lambda cluster: _ignore(cluster.edit(USER, kind, NAMESPACE, name, change))


def delete_child(kind: str, name: str) -> Act:
    return lambda cluster: cluster.delete(USER, kind, NAMESPACE, name)


def create_foreign(kind: str, name: str) -> Act:
    """Somebody else's object under a name that ours would have; it even carries our labels."""
    bodies: dict[str, Json] = {
        "Service": {"selector": {"app": "theirs"}, "ports": [{"name": "theirs", "port": 8443, "targetPort": 1}]},
        "PodDisruptionBudget": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "theirs"}}},
        "NetworkPolicy": {"podSelector": {"matchLabels": {"app": "theirs"}}, "policyTypes": ["Ingress"]},
        "PersistentVolumeClaim": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}},
    }
    versions = {"PodDisruptionBudget": "policy/v1", "NetworkPolicy": "networking.k8s.io/v1"}
    labels = {"app.kubernetes.io/managed-by": "fairlead", "fairlead.dev/llmdeployment": NAME}
    body = {
        "apiVersion": versions.get(kind, "v1"), "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels, "annotations": {"owner": "theirs"}},
        "spec": bodies[kind],
    }  # fmt: skip
    return lambda cluster: _ignore(cluster.create(USER, body))


def create_twin(name: str) -> Act:
    """Somebody else's Service that says just what ours would, without our labels: an apply finds nothing to differ about."""
    selector = {
        "app.kubernetes.io/component": "engine",
        "app.kubernetes.io/instance": NAME,
        "app.kubernetes.io/managed-by": "fairlead",
    }
    port = {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}
    metadata = {"name": name, "namespace": NAMESPACE, "annotations": {"owner": "theirs"}}
    spec = {"type": "ClusterIP", "selector": selector, "ports": [port]}
    body = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
    return lambda cluster: _ignore(cluster.create(USER, body))


def put_engine(text: str) -> Act:
    """The ConfigMap by which an installation replaces an engine."""

    def act(cluster: SimCluster) -> None:
        metadata = {"name": "my-ollama", "namespace": OPERATOR_NAMESPACE, "labels": {"fairlead.dev/engine": "Ollama"}}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"engine.yaml.j2": text}}
        if cluster.get("ConfigMap", OPERATOR_NAMESPACE, "my-ollama") is None:
            cluster.create(USER, body)
        else:
            cluster.edit(
                USER, "ConfigMap", OPERATOR_NAMESPACE, "my-ollama", lambda live: live.update(data=body["data"])
            )

    return act


def builtin_engine() -> str:
    return (_ENGINES / "ollama.yaml.j2").read_text(encoding="utf-8")


def _ignore(_: object) -> None:
    return None


def _change_port(live: Json) -> None:
    live["spec"]["ports"][0]["port"] = 8081


def _rename_port(live: Json) -> None:
    live["spec"]["ports"][0]["name"] = "web"


def _scale(live: Json) -> None:
    live["spec"]["replicas"] = 7


def _strip_labels(live: Json) -> None:
    live["metadata"]["labels"] = {"by": "hand"}


def _strip_hash(live: Json) -> None:
    live["metadata"]["annotations"] = {}


def _open_policy(live: Json) -> None:
    live["spec"]["ingress"] = [{}]


def _lose_key(live: Json) -> None:
    live["data"]["tls.key"] = ""


def delete_authority(cluster: SimCluster) -> None:
    cluster.delete(USER, "Secret", OPERATOR_NAMESPACE, "fairlead-ca")


CLAIM = {"type": "PersistentVolumeClaim", "size": "10Gi"}
CREATE = Step("create", create())

SCENARIOS = (
    Scenario("create", (CREATE,)),
    Scenario("create with everything", (Step("create", create(replicas=3, storage=CLAIM, service={"port": 8080})),)),
    Scenario(
        "spec changes",
        (
            CREATE,
            Step("one child", edit(service={"port": 8080})),
            Step("the pods", edit(resources={"requests": {"cpu": "2"}})),
            Step(
                "several children",
                edit(service={"port": 81, "annotations": {"a": "b"}}, replicas=2, context={"maxLength": 4096}),
            ),
            Step("a section is removed", edit(drop=("service", "resources"))),
        ),
    ),
    Scenario("replicas", (CREATE, Step("1 to 3", edit(replicas=3)), Step("back to 1", edit(replicas=1)))),
    Scenario("replicas zero", (CREATE, Step("to 0", edit(replicas=0)), Step("to 1", edit(replicas=1)))),
    Scenario(
        "storage",
        (
            CREATE,
            Step("a claim", edit(storage=CLAIM)),
            Step("a larger claim", edit(storage=CLAIM | {"size": "20Gi"})),
            Step("a smaller one", edit(storage=CLAIM), FAILED),
            Step("no claim", edit(drop=("storage",))),
        ),
    ),
    Scenario("delete", (Step("create", create(replicas=2, storage=CLAIM)), Step("delete", delete(), GONE))),
    Scenario(
        "recreate",
        (
            Step("create", create(replicas=2, storage=CLAIM)),
            Step("delete and create at once", both(delete(), create(service={"port": 8080}))),
        ),
    ),
    Scenario(
        "edits in a row",
        (
            CREATE,
            Step("two at once", both(edit(replicas=2), edit(replicas=3))),
            Step(
                "one, and another while it is carried out",
                both(edit(replicas=2), later(0.0045, edit(service={"port": 8080}))),
                passing=True,
            ),
            Step("there and back", both(edit(replicas=1), later(0.3, edit(replicas=2))), passing=True),
            Step("edit and delete at once", both(edit(replicas=3), delete()), GONE),
        ),
    ),
    Scenario(
        "recreate while a child is mended",
        (
            CREATE,
            Step(
                "the Service goes, then another custom resource comes",
                both(delete_child("Service", NAME), later(0.1, both(delete(), create(service={"port": 8080})))),
                passing=True,
            ),
        ),
    ),
    Scenario(
        "recreate while a child is held",
        (
            CREATE,
            Step("somebody holds the Deployment", hold_child("Deployment", NAME)),
            Step("it is told of after a minute", both(delete(), create()), WORKS, passing=True, quiet_s=TOLD_S),
            Step("it goes", let_go_of_child("Deployment", NAME)),
        ),
    ),
    Scenario("create and delete at once", (Step("both", both(create(replicas=2), delete()), GONE, passing=True),)),
    Scenario(
        "create and delete soon after",
        (Step("both", both(create(replicas=2), later(0.008, delete())), GONE, passing=True),),
    ),
    Scenario(
        "create and delete when it serves",
        (Step("both", both(create(replicas=2), later(6.0, delete())), GONE, passing=True),),
    ),
    Scenario(
        "delete and wait",
        (
            Step("create", create(replicas=2)),
            Step("somebody holds it", hold()),
            Step(
                "it is marked, and its children go",
                both(
                    delete(),
                    later(0.001, both(delete_child("Service", NAME), delete_child("PodDisruptionBudget", NAME))),
                ),
                GONE,
            ),
            Step("it goes", let_go(), GONE),
        ),
    ),
    Scenario(
        "recreate the same", (Step("create", create()), Step("delete and create at once", both(delete(), create())))
    ),
    Scenario(
        "drift",
        (
            Step("create", create(replicas=2)),
            Step("a port's number", drift("Service", NAME, _change_port)),
            Step("a port's name", drift("Service", NAME, _rename_port)),
            Step("replicas", drift("Deployment", NAME, _scale)),
            Step("all labels", drift("Service", f"{NAME}-pods", _strip_labels)),
            Step("all annotations", drift("Deployment", NAME, _strip_hash)),
            Step("a policy", drift("NetworkPolicy", NAME, _open_policy)),
        ),
    ),
    Scenario(
        "children deleted",
        (
            Step("create", create(replicas=2, storage=CLAIM)),
            Step("Service", delete_child("Service", NAME)),
            Step("Deployment", delete_child("Deployment", NAME)),
            Step("PodDisruptionBudget", delete_child("PodDisruptionBudget", NAME)),
            Step("claim", delete_child("PersistentVolumeClaim", f"{NAME}-cache")),
            Step("two at once", both(delete_child("NetworkPolicy", NAME), delete_child("Service", f"{NAME}-pods"))),
        ),
    ),
    Scenario("suspend", (CREATE, Step("suspend", edit(suspend=True), WORKS), Step("resume", edit(suspend=False)))),
    Scenario(
        "invalid spec",
        (
            CREATE,
            Step("invalid", edit(engine={"type": "Ollama", "args": ["--port=1"]}, replicas=2), FAILED),
            Step("back", edit(engine={"type": "Ollama"}, replicas=1)),
        ),
    ),
    Scenario(
        "unknown engine",
        (CREATE, Step("unknown", edit(engine={"type": "Mine"}), FAILED), Step("back", edit(engine={"type": "Ollama"}))),
    ),
    Scenario(
        "network policy",
        (
            CREATE,
            Step("Disabled", edit(networkPolicy={"mode": "Disabled"})),
            Step("back", edit(drop=("networkPolicy",))),
        ),
    ),
    Scenario(
        "name taken",
        (
            Step("a foreign Service, then create", both(create_foreign("Service", NAME), create()), FAILED),
            Step("the Service goes", delete_child("Service", NAME)),
        ),
    ),
    Scenario(
        "name taken by a twin",
        (
            Step("a Service that agrees, then create", both(create_twin(NAME), create()), FAILED),
            Step("the Service goes", both(delete_child("Service", NAME), edit(service={"port": 8080}))),
        ),
    ),
    Scenario(
        "name taken later",
        (
            CREATE,
            Step(
                "a foreign budget, then 3", both(create_foreign("PodDisruptionBudget", NAME), edit(replicas=3)), FAILED
            ),
            Step("the budget goes", delete_child("PodDisruptionBudget", NAME)),
        ),
    ),
    Scenario(
        "child swapped",
        (
            Step("create", create(replicas=3)),
            Step(
                "its Service is replaced by a foreign one while the spec changes",
                both(delete_child("Service", NAME), create_foreign("Service", NAME), edit(service={"port": 8080})),
                FAILED,
            ),
            Step("the Service goes", delete_child("Service", NAME)),
            Step(
                "its budget is replaced by a foreign one when it is no longer wanted",
                both(
                    delete_child("PodDisruptionBudget", NAME),
                    create_foreign("PodDisruptionBudget", NAME),
                    edit(replicas=1, service={"port": 80}),
                ),
            ),
        ),
    ),
    Scenario(
        "engine override",
        (
            CREATE,
            Step("the same text", put_engine(builtin_engine())),
            Step("broken", both(put_engine("{% if %}"), edit(resources={"requests": {"cpu": "2"}})), FAILED),
            Step("mended", put_engine(builtin_engine())),
        ),
    ),
    Scenario(
        "bad image",
        (
            CREATE,
            Step("broken", edit(engine={"type": "Ollama", "image": "example.com/broken:0.33.0"}), FAILED),
            Step("back", edit(engine={"type": "Ollama"})),
        ),
    ),
    Scenario(
        "a certificate",
        (
            Step("create", create(encryption={})),
            Step("its Secret goes", delete_child("Secret", ISSUED)),
            Step("its key is lost", drift("Secret", ISSUED, _lose_key)),
            Step("the authority goes", delete_authority, passing=True, quiet_s=FOLLOWED_S),
        ),
    ),
    Scenario(
        "autoscaling",
        (
            Step("create", create(autoscaling=SCALED)),
            Step("requests wait", wait_in_engines(12.0), quiet_s=PACED_S),
            Step("none waits", wait_in_engines(0.0), quiet_s=PACED_S),
            Step("an alert, many times", both(wait_in_engines(9.0), deliver_alert()), quiet_s=PACED_S),
            Step("and none waits", wait_in_engines(0.0), quiet_s=PACED_S),
            Step("more at least", edit(autoscaling=SCALED | {"minReplicas": 3})),
            Step("fewer at most", edit(autoscaling=SCALED | {"maxReplicas": 2})),
            Step("kubectl scale", edit(replicas=4)),
        ),
    ),
    Scenario(
        "autoscaling by another",
        (
            Step("create", create(autoscaling=SCALED | {"minReplicas": 3})),
            Step("somebody else decides", edit(autoscaling=EXTERNAL)),
            Step("and writes", edit(replicas=4)),
            Step("the operator decides", edit(autoscaling=SCALED)),
            Step("it is held for a while", edit(replicas=1, autoscaling=EXTERNAL), quiet_s=HELD_S),
            Step("fixed", edit(replicas=2, drop=("autoscaling",))),
        ),
    ),
    Scenario(
        "two neighbours",
        (
            Step("create both", both(create(), create("n", replicas=2)), SERVES),
            Step("edit one, delete the other", both(edit("n", replicas=1), delete())),
        ),
    ),
    Scenario(
        "autoscaling by KEDA",
        (
            Step("create", create(autoscaling=SCALED | {"minReplicas": 3}, **VLLM)),
            Step("KEDA decides", edit(autoscaling=BY_KEDA)),
            Step("and writes", edit(replicas=4)),
            Step("its ScaledObject goes", delete_child("ScaledObject", NAME)),
            Step("it is paused", edit(autoscaling=BY_KEDA | {"policy": "Pause"})),
            Step("the operator decides", edit(autoscaling=SCALED)),
            Step("and goes", delete(), GONE),
        ),
    ),
)
