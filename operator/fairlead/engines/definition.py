"""What an engine file must hold. Two halves, because the first is needed to render the second.

The header (first YAML document, no Jinja) says who the engine is and which versions it knows; the body (second document,
Jinja) renders to a `RenderedEngine` for one custom resource. Both refuse unknown keys: a typo in an override must not be
silently ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from fairlead.engines.version import Version
from fairlead.facts.scaling import Measure

__all__ = ["Drain", "EngineDefinition", "InitContainer", "Metrics", "Probe", "Probes", "RenderedEngine", "SharedMemory"]

Json = dict[str, Any]
#: A flag with its values, kept together so that a user's flag can replace the engine file's.
Argument = Annotated[list[str], Field(min_length=1)]


class EngineModel(BaseModel):
    """camelCase in YAML as in Kubernetes, frozen, unknown keys refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")


class Versions(EngineModel):
    """`default` is used when the CR names none; older than `minimum` is refused; newer than `newest` is rendered as it."""

    default: str
    minimum: str
    newest: str

    @field_validator("default", "minimum", "newest")
    @classmethod
    def _is_version(cls, value: str) -> str:
        Version.parse(value)
        return value


class EngineDefinition(EngineModel):
    """The header of an engine file.

    `sources`: model schemes that the engine can load. `parallel_by_process`: tensor × pipeline × data must be the
    accelerator count. `flag_aliases`: short spellings → the one that the body uses. `protected_flags`: the operator's own.
    `loopback`: the body lets the engine listen on `host` and nowhere else, so that TLS can be put before it.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,38}[A-Za-z0-9]$")]
    versions: Versions
    sources: list[str]
    parallel_by_process: bool = False
    flag_aliases: dict[str, str] = Field(default_factory=dict)
    protected_flags: list[str] = Field(default_factory=list)
    loopback: bool = False


class Probe(EngineModel):
    """One probe: exactly one question, and how often it is asked."""

    http_get: Json | None = None
    exec: Json | None = None
    tcp_socket: Json | None = None
    period_seconds: int = Field(default=10, ge=1)
    timeout_seconds: int = Field(default=5, ge=1)
    failure_threshold: int = Field(default=3, ge=1)

    @model_validator(mode="after")
    def _asks_one_question(self) -> Probe:
        if sum(handler is not None for handler in (self.http_get, self.exec, self.tcp_socket)) != 1:
            raise ValueError("exactly one of httpGet, exec and tcpSocket")
        return self


class Probes(EngineModel):
    """Readiness means that the model answers. Startup asks the same question with the start-up budget."""

    readiness: Probe
    liveness: Probe


class Drain(EngineModel):
    """How a pod ends. `preStop` runs wholly before SIGTERM; the grace period covers it, the drain and the engine's own end."""

    pre_stop: Json | None = None
    grace_period_seconds: int = Field(ge=1)


class SharedMemory(EngineModel):
    """`/dev/shm` as a memory-backed volume; its size counts as memory of the container."""

    size: str


#: What engine files call the measures of scaling. kvCacheUsage is a share, 0 to 1.
MEASURES: Final = {
    "timeToFirstToken": Measure.TIME_TO_FIRST_TOKEN,
    "latency": Measure.LATENCY,
    "outputTokenLatency": Measure.OUTPUT_TOKEN_LATENCY,
    "running": Measure.RUNNING_REQUESTS,
    "waiting": Measure.QUEUED_REQUESTS,
    "kvCacheUsage": Measure.KV_CACHE_USAGE,
}
MeasureName = Literal["timeToFirstToken", "latency", "outputTokenLatency", "running", "waiting", "kvCacheUsage"]
MetricName = Annotated[str, Field(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$", max_length=200)]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Metrics(EngineModel):
    """Where the engine's metrics are (Prometheus' text, on the port that is served), and what it calls the ones that scaling needs.

    `names`: a name or several, newest first; the first one that a pod tells counts. Times are histograms in seconds, named without
    `_bucket`; running and waiting are numbers of requests, kvCacheUsage a share from 0 to 1.
    """

    path: Annotated[str, Field(pattern=r"^/[^\s?#]*$", max_length=200)]
    names: dict[
        MeasureName, Annotated[tuple[MetricName, ...], BeforeValidator(_as_list), Field(min_length=1, max_length=8)]
    ] = Field(default_factory=dict)

    def by_measure(self) -> dict[Measure, tuple[str, ...]]:
        """The names, as facts have them."""
        return {MEASURES[name]: names for name, names in self.names.items()}


class InitContainer(EngineModel):
    """A container that must succeed before the engine starts, in the engine's own image unless it names another."""

    name: str
    image: str | None = None
    command: list[str]
    args: list[str] = Field(default_factory=list)
    env: list[Json] = Field(default_factory=list)


class RenderedEngine(EngineModel):
    """The body of an engine file, rendered.

    The planner adds what is the same for every engine: volumes `fairlead-cache` (`spec.storage`), `fairlead-model`
    (pvc:// sources) and `fairlead-shm`, resources, the user's env and args, probe budgets. The engine mounts the volumes
    that it needs by these names; `volumes` are its own in addition. `env` is given to init containers too.
    """

    image: Annotated[str, Field(min_length=1)]
    command: list[str] = Field(default_factory=list)
    args: list[Argument] = Field(default_factory=list)
    env: list[Json] = Field(default_factory=list)
    port: int = Field(ge=1, le=65535)
    probes: Probes
    drain: Drain
    pod_security_context: Json
    security_context: Json
    volumes: list[Json] = Field(default_factory=list)
    volume_mounts: list[Json] = Field(default_factory=list)
    node_selector: dict[str, str] = Field(default_factory=dict)
    init_containers: list[InitContainer] = Field(default_factory=list)
    shared_memory: SharedMemory | None = None
    metrics: Metrics | None = None

    @field_validator("env")
    @classmethod
    def _env_has_unique_names(cls, value: list[Json]) -> list[Json]:
        names = [entry.get("name") for entry in value]
        if None in names or len(names) != len(set(names)):
            raise ValueError("every entry needs a name, and every name once")
        return value
