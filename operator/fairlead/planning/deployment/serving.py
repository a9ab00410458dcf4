"""What a spec comes to: engine, version, sizes, budgets, number formats. Decided once, read by every builder.

The builders beside this module only arrange what stands here; whatever can be refused is refused here (RenderError) or by
the engine file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fairlead.api.llmdeployment import LLMDeploymentSpec, QuantizationSpec, RolloutSpec
from fairlead.api.resource import LLMDeployment
from fairlead.engines.context import (
    AcceleratorContext,
    DrainContext,
    EngineContext,
    ModelContext,
    ParallelismContext,
    QuantizationContext,
    SecretKeyContext,
    SequenceContext,
    SharedMemoryContext,
)
from fairlead.engines.definition import Metrics, RenderedEngine
from fairlead.engines.loader import Engine, EngineCatalog
from fairlead.engines.version import Version, read_image_version
from fairlead.errors import RenderError
from fairlead.facts.observed import OperatorFacts
from fairlead.hardware.accelerators import find_vendor
from fairlead.hardware.quantity import canonical, format_bytes
from fairlead.hardware.quantization import decide_quantization
from fairlead.hardware.sizing import (
    ModelSize,
    estimate_model_size,
    estimate_startup_s,
    read_stored_format,
)
from fairlead.planning.deployment.duration import format_duration, to_whole_seconds
from fairlead.planning.deployment.source import ModelSource, parse_source

__all__ = ["Serving", "decide_serving"]

#: Seconds until the last client has heard that an ending pod is no endpoint any more.
ENDPOINT_REMOVAL_S = 10


@dataclass(frozen=True)
class Serving:
    """Everything that was decided for one LLMDeployment. Durations in seconds; notes are sentences for status; `image` is the
    engine's that the spec comes to, `metrics` where it tells what it measures."""

    resource: LLMDeployment
    source: ModelSource
    engine: Engine
    context: EngineContext
    image: str
    size: ModelSize | None
    startup_timeout_s: int
    startup_note: str
    quantization_note: str | None
    proxy_image: str = ""
    metrics: Metrics | None = None

    @cached_property
    def rendered(self) -> RenderedEngine:
        """What the engine file prints, which nobody may change."""
        return self.engine.render(self.context)

    def let_go(self) -> None:
        """Keep what was decided, and render the engine again for whoever builds."""
        self.__dict__.pop("rendered", None)

    @property
    def name(self) -> str:
        """Name of the CR and of most of its children."""
        return self.resource.metadata.name

    @property
    def namespace(self) -> str:
        """Namespace of the CR and of all its children."""
        return self.resource.metadata.namespace

    @property
    def spec(self) -> LLMDeploymentSpec:
        """The CR's spec."""
        return self.resource.spec

    @property
    def replicas(self) -> int:
        """Pods that must run: none while suspended."""
        return 0 if self.spec.suspend else self.resource.replicas


def decide_serving(resource: LLMDeployment, engines: EngineCatalog, facts: OperatorFacts) -> Serving:
    """Raises RenderError (the CR asks for what cannot be), EngineTemplateError (the engine file is broken) and KeyError (no
    such engine)."""
    spec = resource.spec
    engine = engines.get(spec.engine.type)
    source = parse_source(spec.model.source)
    if source.scheme not in engine.definition.sources:
        works = ", ".join(f"{scheme}://" for scheme in engine.definition.sources)
        raise RenderError(
            "spec.model.source", f"{engine.definition.name} cannot load {source.scheme}://", f"use {works}"
        )
    wanted = spec.quantization or QuantizationSpec()
    stored = read_stored_format(source.scheme, source.reference)
    decision = decide_quantization(wanted.weights, wanted.mode, stored, has_accelerator=spec.accelerator is not None)
    size = estimate_model_size(source.scheme, source.reference, None if decision.on_load else decision.weights)
    startup_timeout_s, startup_note = _decide_startup(spec, source, size, facts)
    context = EngineContext(
        name=resource.metadata.name,
        version=_decide_version(spec, engine),
        host="0.0.0.0" if spec.encryption is None else "127.0.0.1",  # noqa: S104 - a pod serves on all of its addresses
        image=spec.engine.image or None,
        architecture=_read_architecture(spec),
        model=_make_model_context(resource, source),
        quantization=QuantizationContext(decision.weights, wanted.kv_cache, decision.on_load),
        accelerator=_make_accelerator_context(spec),
        parallelism=_decide_parallelism(spec, engine),
        sequences=_make_sequence_context(spec),
        drain=DrainContext(
            delay_s=ENDPOINT_REMOVAL_S,
            timeout_s=to_whole_seconds((spec.rollout or RolloutSpec()).drain_timeout),
        ),
        shared_memory=SharedMemoryContext(size=_read_shared_memory(spec)),
        startup_timeout_s=startup_timeout_s,
    )
    rendered = engine.render(context)
    serving = Serving(
        resource=resource,
        source=source,
        engine=engine,
        context=context,
        image=rendered.image,
        size=size,
        startup_timeout_s=startup_timeout_s,
        startup_note=startup_note,
        quantization_note=decision.note,
        proxy_image=facts.gateway_image,
        metrics=rendered.metrics,
    )
    serving.__dict__["rendered"] = rendered
    return serving


def _decide_version(spec: LLMDeploymentSpec, engine: Engine) -> Version:
    """The tag of the user's own image tells what is inside; then the field; then what this release was made for."""
    tagged = read_image_version(spec.engine.image) if spec.engine.image else None
    text = tagged or spec.engine.version or engine.definition.versions.default
    try:
        return Version.parse(text)
    except ValueError as error:
        raise RenderError(
            "spec.engine.version", str(error), f"for instance {engine.definition.versions.default}"
        ) from error


def _decide_startup(
    spec: LLMDeploymentSpec, source: ModelSource, size: ModelSize | None, facts: OperatorFacts
) -> tuple[int, str]:
    if spec.probes is not None and spec.probes.startup_timeout is not None:
        seconds = to_whole_seconds(spec.probes.startup_timeout)
        return seconds, f"{format_duration(seconds)} (spec.probes.startupTimeout)"
    downloads = source.scheme != "pvc"
    seconds = estimate_startup_s(size, facts.download_bytes_per_s, downloads=downloads)
    if size is None:
        why = "the size of the model is not known"
    elif downloads:
        why = f"{format_bytes(size.size_bytes)} at {format_bytes(facts.download_bytes_per_s)}/s"
    else:
        why = f"{format_bytes(size.size_bytes)} from a volume"
    return seconds, f"{format_duration(seconds)} ({why})"


def _decide_parallelism(spec: LLMDeploymentSpec, engine: Engine) -> ParallelismContext:
    wanted, count = spec.parallelism, spec.accelerator.count if spec.accelerator else 0
    if not engine.definition.parallel_by_process or (wanted is None and count == 0):
        return ParallelismContext()
    pipeline, data = (wanted.pipeline, wanted.data) if wanted else (1, 1)
    tensor = wanted.tensor if wanted and wanted.tensor else max(1, count // (pipeline * data))
    if count and tensor * pipeline * data != count:
        raise RenderError(
            "spec.parallelism",
            f"tensor {tensor} × pipeline {pipeline} × data {data} is {tensor * pipeline * data}, but accelerator.count is {count}",
            f"set accelerator.count to {tensor * pipeline * data} or change the factors",
        )
    return ParallelismContext(tensor=tensor, pipeline=pipeline, data=data, expert=bool(wanted and wanted.expert))


def _make_model_context(resource: LLMDeployment, source: ModelSource) -> ModelContext:
    model = resource.spec.model
    return ModelContext(
        scheme=source.scheme,
        reference=source.reference,
        path=source.path,
        name=model.name or resource.metadata.name,
        revision=model.revision,
        task=model.task.value,
        trust_remote_code=model.trust_remote_code,
        secret=SecretKeyContext(name=model.secret_ref.name, key=model.secret_ref.key) if model.secret_ref else None,
    )


def _make_accelerator_context(spec: LLMDeploymentSpec) -> AcceleratorContext:
    accelerator = spec.accelerator
    if accelerator is None:
        return AcceleratorContext()
    return AcceleratorContext(
        vendor=find_vendor(accelerator.resource_name),
        count=accelerator.count,
        resource_name=accelerator.resource_name,
        memory_utilization_percent=accelerator.memory_utilization_percent,
    )


def _make_sequence_context(spec: LLMDeploymentSpec) -> SequenceContext:
    context = spec.context
    if context is None:
        return SequenceContext()
    return SequenceContext(max_length=context.max_length, max_sequences=context.max_sequences)


def _read_shared_memory(spec: LLMDeploymentSpec) -> str | None:
    size = spec.resources.shared_memory if spec.resources else None
    return canonical(size) if size else None


def _read_architecture(spec: LLMDeploymentSpec) -> str:
    """The node architecture that the pod is bound to, for images that exist per architecture: the user's node selector or
    required affinity, else amd64."""
    if spec.pod is None:
        return "amd64"
    wanted = spec.pod.node_selector.get("kubernetes.io/arch")
    if wanted is None:
        terms = _required_node_terms(spec.pod.affinity or {})
        values = {
            tuple(requirement.get("values") or ()) for term in terms for requirement in _architecture_requirements(term)
        }
        wanted = next(iter(values))[0] if len(values) == 1 and len(next(iter(values))) == 1 else "amd64"
    return "arm64" if wanted == "arm64" else "amd64"


def _required_node_terms(affinity: Mapping[str, Any]) -> list[dict[str, Any]]:
    required = (affinity.get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    return list(required.get("nodeSelectorTerms") or [])


def _architecture_requirements(term: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        requirement
        for requirement in term.get("matchExpressions") or []
        if requirement.get("key") == "kubernetes.io/arch" and requirement.get("operator") == "In"
    ]
