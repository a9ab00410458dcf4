"""The OLLAMA_ variables, read as Ollama's envconfig reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fairlead_sim.durations import FOREVER_S, parse_duration

DEFAULT_PORT = 11434
DEFAULT_CONTEXT = 4096
DEFAULT_KEEP_ALIVE_S = 300.0
#: Loaded models at once without OLLAMA_MAX_LOADED_MODELS: three per device, and the simulator has one.
DEFAULT_LOADED = 3


@dataclass(frozen=True, slots=True)
class Host:
    """Where the server listens, or where the client finds it."""

    scheme: str
    name: str
    port: int

    @property
    def address(self) -> str:
        """`host:port`, with brackets around IPv6."""
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


@dataclass(frozen=True, slots=True)
class Environment:
    """What the environment asks of an Ollama server."""

    host: Host
    models: Path
    keep_alive_s: float
    load_timeout_s: float
    num_parallel: int
    max_loaded: int
    max_queue: int
    context_length: int
    kv_cache_type: str
    no_prune: bool
    no_cloud: bool


def read_host(environment: Mapping[str, str]) -> Host:
    """OLLAMA_HOST: `[scheme://]host[:port][/path]`, every part optional."""
    text = environment.get("OLLAMA_HOST", "").strip().strip("\"'")
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    default_port = {"http": 80, "https": 443}.get(scheme, DEFAULT_PORT) if separator else DEFAULT_PORT
    authority = rest.partition("/")[0]
    name, port_text = _split_port(authority)
    port = int(port_text) if port_text.isdigit() and int(port_text) <= 65535 else default_port
    return Host(scheme, name.strip("[]") or ("127.0.0.1" if not authority else ""), port)


def _split_port(authority: str) -> tuple[str, str]:
    if authority.startswith("["):
        name, _, rest = authority.partition("]")
        return name + "]", rest.removeprefix(":")
    if authority.count(":") == 1:
        name, _, port = authority.partition(":")
        return name, port
    return authority, ""


def read_environment(environment: Mapping[str, str]) -> Environment:
    """All of them. What does not parse counts as not set, as in Ollama."""
    home = Path(environment.get("HOME") or "/")
    models = environment.get("OLLAMA_MODELS", "").strip()
    load_timeout_s = _duration(environment, "OLLAMA_LOAD_TIMEOUT", 300.0)
    return Environment(
        host=read_host(environment),
        models=Path(models) if models else home / ".ollama" / "models",
        keep_alive_s=_keep_alive(environment),
        load_timeout_s=load_timeout_s if load_timeout_s > 0 else FOREVER_S,
        num_parallel=max(1, _integer(environment, "OLLAMA_NUM_PARALLEL", 1)),
        max_loaded=_integer(environment, "OLLAMA_MAX_LOADED_MODELS", 0) or DEFAULT_LOADED,
        max_queue=_integer(environment, "OLLAMA_MAX_QUEUE", 512),
        context_length=_integer(environment, "OLLAMA_CONTEXT_LENGTH", 0) or DEFAULT_CONTEXT,
        kv_cache_type=environment.get("OLLAMA_KV_CACHE_TYPE", "").strip() or "f16",
        no_prune=_flag(environment, "OLLAMA_NOPRUNE"),
        no_cloud=_flag(environment, "OLLAMA_NO_CLOUD"),
    )


def _keep_alive(environment: Mapping[str, str]) -> float:
    duration_s = _duration(environment, "OLLAMA_KEEP_ALIVE", DEFAULT_KEEP_ALIVE_S)
    return FOREVER_S if duration_s < 0 else duration_s


def _duration(environment: Mapping[str, str], name: str, default_s: float) -> float:
    text = environment.get(name, "").strip()
    if text.lstrip("-").isdigit():
        return float(text)
    try:
        return parse_duration(text) if text else default_s
    except ValueError:
        return default_s


def _integer(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "").strip()
    return int(text) if text.isdigit() else default


def _flag(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name, "").strip().lower()
    return bool(text) and text not in ("0", "false", "f")
