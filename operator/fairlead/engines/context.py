"""What an engine file may read while it is rendered: frozen, plain, complete.

Every field is always there (absent things are None, empty or False), so that a misspelt name in a template is an error
and not an empty string. Nothing here is Kubernetes; the planner fills it from the custom resource.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fairlead.engines.version import Version

__all__ = [
    "AcceleratorContext",
    "DrainContext",
    "EngineContext",
    "ModelContext",
    "ParallelismContext",
    "QuantizationContext",
    "SecretKeyContext",
    "SequenceContext",
    "SharedMemoryContext",
]


@dataclass(frozen=True, slots=True)
class SecretKeyContext:
    """A key of a Secret. Templates may only pass it on in a `secretKeyRef`: the value never gets here."""

    name: str
    key: str


@dataclass(frozen=True, slots=True)
class ModelContext:
    """The model. `scheme` is hf, ollama or pvc; `reference` what follows `scheme://`; `path` (pvc only) the file or
    directory inside the container; `name` what clients call it; `task` Generate, Embed or Rerank."""

    scheme: str
    reference: str
    name: str
    path: str = ""
    revision: str | None = None
    task: str = "Generate"
    trust_remote_code: bool = False
    secret: SecretKeyContext | None = None


@dataclass(frozen=True, slots=True)
class QuantizationContext:
    """`weights` and `kv_cache` as the API has them (None: not asked for). `on_load`: the engine must quantize while it
    loads; False: the checkpoint already is, or there is nothing to do."""

    weights: str | None = None
    kv_cache: str | None = None
    on_load: bool = False


@dataclass(frozen=True, slots=True)
class AcceleratorContext:
    """`vendor` is none, nvidia, amd, intel or other; `count` 0 without accelerators;
    `memory_utilization_percent` None when the user leaves it to the engine."""

    vendor: str = "none"
    count: int = 0
    resource_name: str = ""
    memory_utilization_percent: int | None = None

    @property
    def memory_utilization(self) -> str | None:
        """The percentage as engines take it: 90 → `0.90`."""
        percent = self.memory_utilization_percent
        return None if percent is None else f"{percent // 100}.{percent % 100:02d}"


@dataclass(frozen=True, slots=True)
class ParallelismContext:
    """How one replica is spread over its accelerators; all 1 and False without them."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: bool = False


@dataclass(frozen=True, slots=True)
class SequenceContext:
    """Context window in tokens and concurrent sequences; None: the engine decides."""

    max_length: int | None = None
    max_sequences: int | None = None


@dataclass(frozen=True, slots=True)
class DrainContext:
    """`delay_s`: how long the pod waits until nobody routes to it any more; `timeout_s`: how long streams may take after
    that. Both seconds."""

    delay_s: int = 10
    timeout_s: int = 120


@dataclass(frozen=True, slots=True)
class SharedMemoryContext:
    """`/dev/shm` as the user sized it, a Kubernetes quantity, or None."""

    size: str | None = None


@dataclass(frozen=True, slots=True)
class EngineContext:
    """Everything that an engine file can see. `host` is the address that the engine must listen on, all of them or the
    loopback one; `architecture` is amd64 or arm64; `image` the user's own or None;
    `startup_timeout_s` the whole start-up budget in seconds."""

    name: str
    version: Version
    model: ModelContext
    host: str = "0.0.0.0"  # noqa: S104 - a pod serves on all of its addresses
    image: str | None = None
    architecture: str = "amd64"
    quantization: QuantizationContext = field(default_factory=QuantizationContext)
    accelerator: AcceleratorContext = field(default_factory=AcceleratorContext)
    parallelism: ParallelismContext = field(default_factory=ParallelismContext)
    sequences: SequenceContext = field(default_factory=SequenceContext)
    drain: DrainContext = field(default_factory=DrainContext)
    shared_memory: SharedMemoryContext = field(default_factory=SharedMemoryContext)
    startup_timeout_s: int = 1800
