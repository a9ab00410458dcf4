"""The schema of the status: the planner builds it as a dict, the API server prunes what is not declared here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fairlead.api.base import ApiModel, Atomic, Int, ListMap


class ConditionStatus(ApiModel):
    """One condition, as all Kubernetes tools read it."""

    type: Annotated[str, Field(max_length=316)]
    """What the condition speaks of: Ready, Reconciling, Stalled, ModelReady, PodsScheduled, Available, ScalingActive."""
    status: Annotated[str, Field(max_length=7)]
    """True, False or Unknown; Unknown until the operator has looked."""
    reason: Annotated[str, Field(max_length=1024)]
    """One CamelCase word for machines; docs/conditions.md explains each of them."""
    message: Annotated[str, Field(max_length=32768)]
    """A sentence for people: what is the case, and the next step if one is needed."""
    last_transition_time: Annotated[str, Field(max_length=64)]
    """When status last changed (RFC 3339, UTC); other changes leave it alone."""
    observed_generation: Annotated[Int | None, Field(ge=0)] = None
    """metadata.generation that this condition speaks of. Absent: none was seen yet."""


class ModelStatus(ApiModel):
    """What is known of the model that is served."""

    source: Annotated[str | None, Field(max_length=1024)] = None
    """Source and revision as they are served. Absent until the first plan."""
    name: Annotated[str | None, Field(max_length=256)] = None
    """What clients send as "model". Absent until the first plan."""
    size_bytes: Annotated[Int | None, Field(ge=0)] = None
    """Size of the weights in bytes, known or estimated by name. Absent: unknown."""
    quantization: Annotated[str | None, Field(max_length=1024)] = None
    """Number format of the weights and how it was decided. Absent: what the checkpoint brings."""
    startup_timeout: Annotated[str | None, Field(max_length=256)] = None
    """How long a pod may take to become ready, as a duration, and where it comes from."""
    state: Annotated[str | None, Field(max_length=64)] = None
    """Where the model is: Pending, Loading, Loaded or Failed. Absent until pods were seen."""
    progress: Annotated[str | None, Field(max_length=1024)] = None
    """What the pods say about the download. Absent: nothing is under way."""


class EngineStatus(ApiModel):
    """The engine that was planned."""

    type: Annotated[str | None, Field(max_length=63)] = None
    """Name of the engine as the spec asks for it, such as vLLM or Ollama."""
    version: Annotated[str | None, Field(max_length=64)] = None
    """Version for which arguments were rendered. Absent: the version is not known."""
    image: Annotated[str | None, Field(max_length=512)] = None
    """Image of the engine container that was planned for the pods."""


class AcceleratorStatus(ApiModel):
    """The accelerators that were planned."""

    summary: Annotated[str | None, Field(max_length=1024)] = None
    """Accelerators per replica in words, such as "4 × nvidia.com/gpu (H100)". Absent: CPU."""


class ScalingDecisionStatus(ApiModel):
    """One decision that changed the number of replicas."""

    time: Annotated[str, Field(max_length=64)]
    """When it was made (RFC 3339, UTC)."""
    from_: Annotated[Int, Field(ge=0, alias="from")]
    """How many replicas there were before it."""
    to: Annotated[Int, Field(ge=0)]
    """How many replicas it asks for."""
    requests: Annotated[Int | None, Field(ge=0)] = None
    """Requests in flight when it was made. Absent: that was not known."""
    inputs: Annotated[dict[str, Annotated[str, Field(max_length=64)]] | None, Field(max_length=16)] = None
    """What was measured then, by its name. Absent: nothing was."""
    reason: Annotated[str, Field(max_length=256)]
    """One CamelCase word for machines; docs/conditions.md explains each of them."""
    message: Annotated[str, Field(max_length=1024)]
    """A sentence for people, with the numbers that decided."""


class ScalingAlertStatus(ApiModel):
    """One alert that fires, as Alertmanager delivered it."""

    fingerprint: Annotated[str, Field(max_length=64)]
    """By which Alertmanager knows it."""
    name: Annotated[str | None, Field(max_length=128)] = None
    """Its label alertname. Absent: it has none."""
    starts_at: Annotated[str, Field(max_length=64)]
    """Since when it fires (RFC 3339, UTC); with the fingerprint it names this firing."""
    last_seen: Annotated[str, Field(max_length=64)]
    """When it was last delivered (RFC 3339, UTC), to the minute. Five minutes later it no longer counts."""


class ScalingStatus(ApiModel):
    """How many replicas were decided, and why."""

    mode: Annotated[str | None, Field(max_length=32)] = None
    """Who says how many: Operator; External or Fixed, spec.replicas; Recommend, spec.replicas, while decisions are only recommended.
    Absent: nobody yet."""
    desired_replicas: Annotated[Int | None, Field(ge=0)] = None
    """The decision that counts; pods follow it. Absent: spec.replicas counts."""
    recommended_replicas: Annotated[Int | None, Field(ge=0)] = None
    """With policy Recommend: what would be decided. Absent: another policy, or nothing to recommend from."""
    spec_replicas: Annotated[Int | None, Field(ge=0)] = None
    """spec.replicas as it was last seen, by which a change of it is noticed. Absent: not seen yet."""
    held_until: Annotated[str | None, Field(max_length=64)] = None
    """Until when the number from before a hand-over stays, unless spec.replicas changes. Absent: nothing is held."""
    decisions: Annotated[list[ScalingDecisionStatus] | None, Atomic, Field(max_length=20)] = None
    """The last changes of the number with what decided them, newest last. Absent: none yet."""
    alerts: Annotated[list[ScalingAlertStatus] | None, Atomic, Field(max_length=16)] = None
    """Alerts about this deployment that fire, by which it is decided anew at once. Absent: none."""


class LLMDeploymentStatus(ApiModel):
    """What the operator saw and decided; written by the operator only."""

    observed_generation: Annotated[Int, Field(ge=-1)] = -1
    """metadata.generation for which this status holds. Default: -1, no operator has seen the object yet; tools that
    wait then know that it is not ready."""
    conditions: Annotated[list[ConditionStatus], ListMap("type"), Field(max_length=32)] = Field(default_factory=list)
    """The state in the form that kubectl wait, Helm, Argo CD and Flux read. Absent: no operator has seen the object
    yet."""
    replicas: Annotated[Int | None, Field(ge=0)] = None
    """Engine pods that exist, read by the scale subresource. Absent: not seen yet."""
    ready_replicas: Annotated[Int | None, Field(ge=0)] = None
    """Engine pods that answer requests right now. Absent: not seen yet."""
    ready_of_desired: Annotated[str | None, Field(max_length=32)] = None
    """Ready and desired replicas for the printer column, such as "2/3". Absent: not seen yet."""
    scaling: ScalingStatus | None = None
    """The last decisions of spec.autoscaling. Absent: spec.replicas counts."""
    selector: Annotated[str | None, Field(max_length=1024)] = None
    """Label selector of the engine pods as text, read by the scale subresource and autoscalers."""
    endpoint: Annotated[str | None, Field(max_length=1024)] = None
    """Base URL of the OpenAI-compatible API inside the cluster. Absent until the Service is planned."""
    model: ModelStatus | None = None
    """What is served, and how it was decided. Absent until the first plan."""
    engine: EngineStatus | None = None
    """The engine, version and image that were planned. Absent until the first plan."""
    accelerator: AcceleratorStatus | None = None
    """The accelerators that were planned. Absent: the model runs on CPU."""
    revision: Annotated[str | None, Field(max_length=128)] = None
    """Revision of engine file and pod builder with which the pods were planned. Absent until then."""
