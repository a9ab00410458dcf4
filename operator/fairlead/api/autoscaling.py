"""How many replicas, and who decides it: by what is measured of the model, or by somebody else."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from fairlead.api.base import ApiModel, Atomic, Int, ListMap

__all__ = [
    "AutoscalingMode",
    "AutoscalingSpec",
    "BehaviorSpec",
    "DecisionPolicy",
    "KedaAuthenticationKind",
    "KedaAuthenticationRef",
    "KedaSpec",
    "LimitSpec",
    "LimitType",
    "ScalingRulesSpec",
    "ScheduleSpec",
    "SelectPolicy",
    "SpotSpec",
    "TargetsSpec",
]


class AutoscalingMode(StrEnum):
    """Who decides how many replicas there are."""

    OPERATOR = "Operator"
    KEDA = "KEDA"
    EXTERNAL = "External"


class DecisionPolicy(StrEnum):
    """What becomes of the operator's decisions."""

    APPLY = "Apply"
    RECOMMEND = "Recommend"
    PAUSE = "Pause"


class LimitType(StrEnum):
    """Whether a limit counts pods or percent."""

    PODS = "Pods"
    PERCENT = "Percent"


class SelectPolicy(StrEnum):
    """Which of several limits counts."""

    MAX = "Max"
    MIN = "Min"
    DISABLED = "Disabled"


class TargetsSpec(ApiModel):
    """What each replica should keep to. The one that is missed most decides."""

    time_to_first_token: Annotated[str | None, Field(min_length=2, max_length=32)] = None
    """Duration until the first token, at the 90th percentile, such as 500ms. Absent: no target."""
    latency: Annotated[str | None, Field(min_length=2, max_length=32)] = None
    """Duration of a whole request, at the 90th percentile, such as 5s. It grows with the length of answers, so the others
    tell more. Absent: no target."""
    output_token_latency: Annotated[str | None, Field(min_length=2, max_length=32)] = None
    """Duration per token after the first, at the 90th percentile, such as 50ms. Absent: no target."""
    queued_requests: Annotated[Int | None, Field(ge=1, le=10000)] = None
    """Requests that wait in an engine, per ready replica. Absent: no target."""
    running_requests: Annotated[Int | None, Field(ge=1, le=10000)] = None
    """Requests that an engine works on, per ready replica. Absent: no target."""
    kv_cache_usage_percent: Annotated[Int | None, Field(ge=1, le=100)] = None
    """Percent of the KV cache that is in use, mean of all replicas. Absent: no target."""


class LimitSpec(ApiModel):
    """How much may change within a period, as in a HorizontalPodAutoscaler."""

    type: LimitType
    """What value counts: Pods, or Percent of the replicas at the beginning of the period. Required."""
    value: Annotated[Int, Field(ge=1, le=1000)]
    """Pods or percent that may be added or taken away within the period. Required."""
    period_seconds: Annotated[Int, Field(ge=1, le=1800)]
    """Seconds for which the value holds. Required."""


class ScalingRulesSpec(ApiModel):
    """One direction, with the meaning that a HorizontalPodAutoscaler gives it."""

    stabilization_window_seconds: Annotated[Int | None, Field(ge=0, le=3600)] = None
    """Seconds of which the most careful recommendation counts: the lowest for more replicas, the highest for fewer.
    Absent: 0 for more, 180 for fewer."""
    policies: Annotated[list[LimitSpec] | None, Atomic, Field(min_length=1, max_length=8)] = None
    """How fast the number may change. Absent: at most 100 percent or 4 pods more in 60 seconds, whichever is more, and 1
    pod fewer in 60 seconds."""
    select_policy: SelectPolicy | None = None
    """Which of several policies counts: Max, the one that permits most; Min, the one that permits least; Disabled, no
    change in this direction. Absent: Max."""


class BehaviorSpec(ApiModel):
    """How fast, as in a HorizontalPodAutoscaler."""

    scale_up: ScalingRulesSpec | None = None
    """How replicas are added. Absent: the defaults of its fields."""
    scale_down: ScalingRulesSpec | None = None
    """How replicas are taken away, each after its requests have ended or rollout.drainTimeout is over. Absent: the defaults
    of its fields."""


class ScheduleSpec(ApiModel):
    """Times at which there are more replicas at least, from a start to the next end."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """What it is called in messages: lower-case letters, digits and -. Required."""
    start: Annotated[str, Field(min_length=9, max_length=128)]
    """When it begins: a cron expression of five fields (minute, hour, day of month, month, day of week), such as 0 8 * * MON-FRI.
    Required."""
    end: Annotated[str, Field(min_length=9, max_length=128)]
    """When it ends: a cron expression of five fields. One that comes before the start of the same day ends it after midnight. Required."""
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = "UTC"
    """Time zone of both, by its IANA name such as Europe/Berlin. Default: UTC."""
    min_replicas: Annotated[Int, Field(ge=1, le=1000)]
    """Replicas that there are at least meanwhile; at most maxReplicas. Required."""


class KedaAuthenticationKind(StrEnum):
    """Where KEDA has its credentials from."""

    TRIGGER = "TriggerAuthentication"
    CLUSTER = "ClusterTriggerAuthentication"


class KedaAuthenticationRef(ApiModel):
    """Credentials for Prometheus, which KEDA reads."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the TriggerAuthentication in this namespace, or of the ClusterTriggerAuthentication. Required."""
    kind: KedaAuthenticationKind = KedaAuthenticationKind.TRIGGER
    """TriggerAuthentication or ClusterTriggerAuthentication. Default: TriggerAuthentication."""


class KedaSpec(ApiModel):
    """Which Prometheus KEDA asks, and how."""

    server_address: Annotated[str | None, Field(min_length=8, max_length=512)] = None
    """URL of the Prometheus that scrapes the engines, with the prefix of its API. Absent: the one that the operator asks
    (--prometheus-url)."""
    authentication_ref: KedaAuthenticationRef | None = None
    """Credentials, for a Prometheus that wants some. Absent: none."""
    metadata: Annotated[dict[str, Annotated[str, Field(max_length=1024)]], Field(max_length=16)] = Field(
        default_factory=dict
    )
    """Further metadata of each Prometheus trigger, as KEDA has it: authModes, customHeaders, queryParameters, namespace, awsRegion,
    identityOwner, timeout, unsafeSsl. No secrets. Default: none, but for the customHeaders of the operator's Prometheus where that one
    is asked."""


class SpotSpec(ApiModel):
    """What holds while pods run on nodes that their cloud may take back at any time."""

    min_replicas: Annotated[Int, Field(ge=2, le=1000)]
    """Replicas that there are at least while a ready pod runs on such a node, so that others serve when it is taken away; at most
    maxReplicas. A pod whose node is about to go does not count. Required."""


class AutoscalingSpec(ApiModel):
    """How many replicas, and who decides it."""

    mode: AutoscalingMode = AutoscalingMode.OPERATOR
    """Who decides: Operator, by the targets below, whatever spec.replicas says; KEDA, by the same targets, with a ScaledObject that
    fairlead writes; or External, whoever writes spec.replicas, such as a HorizontalPodAutoscaler of your own, between minReplicas and
    maxReplicas. Default: Operator."""
    min_replicas: Annotated[Int, Field(ge=0, le=1000)] = 1
    """Replicas that there are at least, whatever is measured or asked for. 0: with mode Operator or KEDA the last one goes after
    idleTimeout, and comes back when a gateway has a request for it. Default: 1."""
    max_replicas: Annotated[Int, Field(ge=1, le=1000)]
    """Replicas that there are at most, whatever is measured or asked for. Required."""
    idle_timeout: Annotated[str | None, Field(min_length=2, max_length=32)] = None
    """Duration without any request after which the last replica goes, such as 10m, with minReplicas 0. Absent: 5m."""
    schedules: Annotated[list[ScheduleSpec], ListMap("name"), Field(max_length=32)] = Field(default_factory=list)
    """Times at which there are more replicas at least, with mode Operator or KEDA. Where several hold, the largest counts. Default:
    none."""
    spot: SpotSpec | None = None
    """What holds, with mode Operator, while pods run on nodes that their cloud may take back at any time (spot, preemptible), by the nodes'
    labels. Where the operator may not see nodes it holds always. Absent: nothing."""
    policy: DecisionPolicy = DecisionPolicy.APPLY
    """With mode Operator: Apply the decisions, only Recommend them in status.scaling while spec.replicas counts, or Pause at
    the last decision. With mode KEDA: Apply, or Pause its ScaledObject. Default: Apply."""
    targets: TargetsSpec | None = None
    """What replicas are added for. Required with mode Operator or KEDA, unless there is one at most and none at least."""
    behavior: BehaviorSpec | None = None
    """How fast the number changes, with mode Operator or KEDA. Absent: the defaults of its fields."""
    keda: KedaSpec | None = None
    """Which Prometheus KEDA asks, with mode KEDA. Absent: the one that the operator asks (--prometheus-url)."""
