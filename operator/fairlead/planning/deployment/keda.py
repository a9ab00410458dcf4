"""mode: KEDA: the ScaledObject by which KEDA scales an LLMDeployment.

KEDA writes spec.replicas of the LLMDeployment by its scale subresource; fairlead follows, as it follows any autoscaler. What wakes it
from zero is a gateway's word, which fairlead hears within a second or two and passes on: an annotation that KEDA acts on at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from fairlead.api.autoscaling import AutoscalingMode, AutoscalingSpec, DecisionPolicy
from fairlead.api.llmdeployment import LLMDeploymentSpec
from fairlead.api.names import API_VERSION, LLMDEPLOYMENT
from fairlead.api.quantity import parse_duration_s
from fairlead.errors import RenderError
from fairlead.facts.observed import ObjectKey, Observed, OperatorFacts
from fairlead.facts.prometheus import PrometheusFacts
from fairlead.facts.scaling import TIMES, Measure
from fairlead.planning.deployment.following import Following
from fairlead.planning.deployment.kedaqueries import make_activity_query, make_selector, make_target_query
from fairlead.planning.deployment.metadata import make_metadata
from fairlead.planning.deployment.scalingpolicy import IDLE_S, make_behaviors, read_targets
from fairlead.planning.deployment.serving import Serving
from fairlead.planning.plan import Child
from fairlead.scaling.decision import Behavior

__all__ = [
    "PAUSED",
    "WAKING",
    "Waking",
    "choose_scaled_object",
    "find_waking",
    "is_by_keda",
    "make_scaled_object",
    "scaled_object_key",
]

Json = dict[str, Any]

#: Annotations of a ScaledObject that KEDA acts on.
PAUSED: Final = "autoscaling.keda.sh/paused"
WAKING: Final = "autoscaling.keda.sh/force-activation"
#: Seconds between two questions: Prometheus knows nothing new sooner, with the scrape intervals that are usual.
POLLING_S: Final = 15
#: Questions in a row without an answer, before the number is at least the fallback's.
FAILURES: Final = 3
#: For how long KEDA is told of a waking after a pod is ready: some scrapes, and some of its questions.
AFTERWARDS: Final = timedelta(seconds=60)
#: A threshold that no number of requests reaches: such a trigger says whether anything is to be done, not how much.
_NEVER: Final = "1000000"


def is_by_keda(spec: LLMDeploymentSpec) -> bool:
    """Whether the spec asks for KEDA."""
    return spec.autoscaling is not None and spec.autoscaling.mode is AutoscalingMode.KEDA


def scaled_object_key(namespace: str, name: str) -> ObjectKey:
    """What the ScaledObject of an LLMDeployment is called."""
    return ObjectKey("ScaledObject", namespace, name)


@dataclass(frozen=True, slots=True)
class Waking:
    """Whether KEDA is told that somebody wants it; `due_s`: when not any more, None where that is not known."""

    is_told: bool = False
    due_s: float | None = None


def find_waking(
    held: int | None, replicas: int, live: Mapping[str, Any] | None, ready_since: datetime | None, now: datetime
) -> Waking:
    """`held`: requests that wait, None where nobody has been asked; `live`: our ScaledObject; `ready_since`: since when a pod answers.
    From the first request until a pod has been there for a while: whoever waited may have given up by then, and KEDA, which learns of
    requests from pods that are scraped, counts from when it was last told."""
    is_told = WAKING in (((live or {}).get("metadata") or {}).get("annotations") or {})
    if ready_since is not None:
        left_s = (AFTERWARDS - (now - ready_since)).total_seconds()
        return Waking(is_told and left_s > 0.0, left_s if is_told and left_s > 0.0 else None)
    if replicas or held is None:
        return Waking(bool(replicas) or is_told)
    return Waking(held > 0)


def choose_scaled_object(
    serving: Serving, facts: OperatorFacts, observed: Observed, following: Following, waking: Waking
) -> tuple[Child, ...]:
    """The ScaledObject, where the spec asks for one and the cluster can have it. Not beside another autoscaler: that one is left to decide,
    and there are never two. Raises RenderError as `make_scaled_object`."""
    if not is_by_keda(serving.spec) or following.writer:
        return ()
    key = scaled_object_key(serving.namespace, serving.name)
    # Made in any case: a spec that cannot be carried out is told of without KEDA, too.
    body = make_scaled_object(serving, facts, is_woken=waking.is_told)
    return (Child.of(key, body),) if observed.has_keda else ()


def make_scaled_object(serving: Serving, facts: OperatorFacts, *, is_woken: bool) -> Json:
    """`is_woken`: KEDA is told that somebody wants it. Raises RenderError where KEDA would have nobody to ask, or
    nothing to ask for."""
    spec = serving.spec
    autoscaling = spec.autoscaling
    assert autoscaling is not None
    annotations = {}
    if autoscaling.policy is DecisionPolicy.PAUSE or spec.suspend:
        annotations[PAUSED] = "true"
    elif is_woken and autoscaling.min_replicas == 0:
        annotations[WAKING] = "true"
    least = max(1, autoscaling.min_replicas)
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": make_metadata(serving.resource.metadata, serving.name, annotations),
        "spec": {
            "scaleTargetRef": {"apiVersion": API_VERSION, "kind": LLMDEPLOYMENT, "name": serving.name},
            "minReplicaCount": autoscaling.min_replicas,
            "maxReplicaCount": autoscaling.max_replicas,
            "pollingInterval": POLLING_S,
            **(_make_cooldown(autoscaling) if autoscaling.min_replicas == 0 else {}),
            # Without an answer the number stays, and is never none: what is not known is no reason for fewer.
            "fallback": {"failureThreshold": FAILURES, "replicas": least, "behavior": "currentReplicasIfHigher"},
            "advanced": {
                "restoreToOriginalReplicaCount": False,
                "horizontalPodAutoscalerConfig": {"behavior": _make_behavior(autoscaling)},
            },
            "triggers": [*_make_triggers(serving, autoscaling, facts), *_make_schedules(autoscaling)],
        },
    }


def _make_cooldown(autoscaling: AutoscalingSpec) -> Json:
    """For a new ScaledObject as for one that was active: the first replica would go before anybody could ask."""
    idle_s = int(parse_duration_s(autoscaling.idle_timeout) if autoscaling.idle_timeout is not None else IDLE_S)
    return {"cooldownPeriod": idle_s, "initialCooldownPeriod": idle_s}


def _make_triggers(serving: Serving, autoscaling: AutoscalingSpec, facts: OperatorFacts) -> list[Json]:
    names = serving.metrics.by_measure() if serving.metrics is not None else {}
    prometheus = _find_prometheus(autoscaling, facts)
    keda = autoscaling.keda
    selector = make_selector(serving.namespace, serving.name, prometheus.labels)
    headers = {"customHeaders": ",".join(prometheus.headers)} if prometheus.headers else {}
    reference = keda.authentication_ref if keda is not None else None

    def make(name: str, query: str, threshold: str) -> Json:
        metadata = {
            "serverAddress": prometheus.url,
            "query": query,
            "threshold": threshold,
            "ignoreNullValues": "false",
        }
        trigger = {
            "type": "prometheus",
            "name": name,
            "metricType": "Value",
            "metadata": headers | (keda.metadata if keda is not None else {}) | metadata,
        }
        if reference is not None:
            trigger["authenticationRef"] = {"name": reference.name, "kind": reference.kind.value}
        return trigger

    triggers = []
    for measure, target in read_targets(autoscaling).items():
        _check(names, measure, serving)
        threshold = 1000 * target if measure in TIMES else target
        query = make_target_query(measure, names, selector, prometheus.labels)
        triggers.append(make(measure.value, query, _format(threshold)))
    if autoscaling.min_replicas == 0:
        for measure in (Measure.RUNNING_REQUESTS, Measure.QUEUED_REQUESTS, Measure.LATENCY):
            _check(names, measure, serving)
        triggers.append(make("activity", make_activity_query(names, selector), _NEVER))
    return triggers


def _find_prometheus(autoscaling: AutoscalingSpec, facts: OperatorFacts) -> PrometheusFacts:
    """Whom KEDA asks. Of the operator's own Prometheus it must have the credentials by itself: fairlead passes none on."""
    keda, known = autoscaling.keda, facts.prometheus
    if keda is not None and keda.server_address is not None:
        return PrometheusFacts(keda.server_address.rstrip("/"), labels=facts.pod_labels)
    if known is None:
        raise RenderError(
            "spec.autoscaling.keda.serverAddress",
            "KEDA must know the Prometheus that scrapes the engines, and the operator was started without --prometheus-url: name one,"
            " for instance http://prometheus.monitoring:9090, or mode: Operator would work",
        )
    if known.is_guarded and (keda is None or (keda.authentication_ref is None and not keda.metadata)):
        raise RenderError(
            "spec.autoscaling.keda.authenticationRef",
            "the operator's Prometheus wants a token or has a certificate of its own, which KEDA must have by itself: name a"
            " TriggerAuthentication with them, and in keda.metadata authModes (for instance bearer)",
        )
    has_own = keda is not None and "customHeaders" in keda.metadata
    if not has_own and any("=" in header.partition("=")[2] or "," in header for header in known.headers):
        raise RenderError(
            "spec.autoscaling.keda.serverAddress",
            "a header of the operator's Prometheus has = or a comma in its value, which KEDA cannot send: name another Prometheus, or"
            " keda.metadata.customHeaders",
        )
    return known


def _check(names: Mapping[Measure, tuple[str, ...]], measure: Measure, serving: Serving) -> None:
    if measure not in names:
        raise RenderError(
            "spec.autoscaling.mode",
            f"the engine {serving.spec.engine.type} has no metric for {measure.value} that Prometheus could have:"
            " mode: Operator would work, which asks gateways",
        )


def _make_schedules(autoscaling: AutoscalingSpec) -> list[Json]:
    return [
        {
            "type": "cron",
            "name": f"schedule-{schedule.name}",
            "metadata": {
                "timezone": schedule.time_zone,
                "start": schedule.start,
                "end": schedule.end,
                "desiredReplicas": str(schedule.min_replicas),
            },
        }
        for schedule in autoscaling.schedules
    ]


def _make_behavior(autoscaling: AutoscalingSpec) -> Json:
    up, down = make_behaviors(autoscaling)
    return {"scaleUp": _make_rules(up), "scaleDown": _make_rules(down)}


def _make_rules(behavior: Behavior) -> Json:
    policies = [
        {
            "type": "Percent" if limit.percent else "Pods",
            "value": limit.percent or limit.pods,
            "periodSeconds": int(limit.period_s),
        }
        for limit in behavior.limits
    ]
    select = "Disabled" if behavior.is_disabled else "Min" if behavior.takes_least else "Max"
    return {
        "stabilizationWindowSeconds": int(behavior.window_s),
        "selectPolicy": select,
        "policies": policies,
    }


def _format(value: float) -> str:
    """Without an exponent, which KEDA would read and people would not."""
    return f"{value:.6f}".rstrip("0").rstrip(".")
