"""What a command line and environment mean for the simulated vLLM, checked as vLLM checks it before it loads a model."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead_sim.latency import Limits
from fairlead_sim.modelname import is_pooling
from fairlead_sim.settings import Settings
from fairlead_sim.vllm.adapters import Adapter

DEFAULT_MODEL = "Qwen/Qwen3-0.6B"
DEFAULT_MAX_MODEL_LEN = 32_768
DEFAULT_MAX_NUM_SEQS = 256
DEFAULT_BATCHED_TOKENS = 8192

#: Flags that change what the simulator does. All others are checked and then have no effect; the log names them.
EFFECTIVE = frozenset(
    {"subparser", "model_tag", "config", "host", "port", "root_path", "ssl_keyfile", "ssl_certfile", "headless", "api_key",
     "served_model_name", "revision", "runner", "convert", "quantization", "max_model_len", "max_num_seqs",
     "max_num_batched_tokens", "block_size", "enable_prefix_caching", "gpu_memory_utilization", "shutdown_timeout",
     "max_num_queued_reqs", "max_num_queued_tokens", "tensor_parallel_size", "pipeline_parallel_size",
     "data_parallel_size", "enable_auto_tool_choice", "tool_call_parser", "enable_prompt_tokens_details",
     "enable_force_include_usage", "enable_server_load_tracking", "enable_request_id_headers", "fingerprint_mode",
     "fingerprint_value", "enable_lora", "lora_modules"}
)  # fmt: skip


class StartupError(Exception):
    """vLLM would not start. The message is what its log ends with."""


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """One simulated `vllm serve`."""

    version: str
    model: str
    served_names: tuple[str, ...]
    adapters: tuple[Adapter, ...]
    host: str
    port: int
    max_model_len: int
    limits: Limits
    shutdown_timeout_s: int
    api_keys: tuple[str, ...]
    max_num_queued_reqs: int | None
    max_num_queued_tokens: int | None
    pooling: bool
    revision: str | None
    has_hub_token: bool
    auto_tools: bool
    prompt_tokens_details: bool
    force_usage: bool
    track_load: bool
    request_id_headers: bool
    root_path: str
    certificate: tuple[str, str] | None
    headless: bool
    fingerprint: str | None
    keep_alive_on_death: bool
    without_effect: tuple[str, ...]

    @property
    def name(self) -> str:
        """The first served name: metrics and answers carry it."""
        return self.served_names[0]

    def find_adapter(self, name: str) -> Adapter | None:
        """The adapter that requests by this name get. A served name is never one, as in vLLM, which looks for these first."""
        if name in self.served_names:
            return None
        return next((adapter for adapter in self.adapters if adapter.name == name), None)


def make_config(
    arguments: argparse.Namespace, flags: Mapping[str, Any], environment: Mapping[str, str], settings: Settings
) -> ServeConfig:
    """The configuration of a parsed command line. Raises StartupError where vLLM would end with an exception."""
    given: dict[str, Any] = {name: value for name, value in vars(arguments).items() if value is not None}
    _check_environment(environment)
    model = given.get("model_tag", DEFAULT_MODEL)
    _check_quantization(given.get("quantization"), flags["quantization"])
    _check_ranges(given)
    limits, max_model_len = _limits(given, settings)
    certificate = (given["ssl_certfile"], given["ssl_keyfile"]) if "ssl_keyfile" in given else None
    keys = given.get("api_key") or [environment.get("VLLM_API_KEY", "")]
    return ServeConfig(
        version=flags["version"],
        model=model,
        served_names=tuple(given.get("served_model_name") or [model]),
        adapters=_adapters(given),
        host=given.get("host") or "0.0.0.0",  # noqa: S104 - vLLM's own default
        port=given.get("port", 8000),
        max_model_len=max_model_len,
        limits=limits,
        shutdown_timeout_s=given.get("shutdown_timeout", 0),
        api_keys=tuple(key for key in keys if key),
        max_num_queued_reqs=given.get("max_num_queued_reqs"),
        max_num_queued_tokens=given.get("max_num_queued_tokens"),
        pooling=_is_pooling(given, model),
        revision=given.get("revision"),
        has_hub_token=bool(environment.get("HF_TOKEN")),
        auto_tools=bool(given.get("enable_auto_tool_choice")),
        prompt_tokens_details=bool(given.get("enable_prompt_tokens_details")),
        force_usage=bool(given.get("enable_force_include_usage")),
        track_load=bool(given.get("enable_server_load_tracking")),
        request_id_headers=bool(given.get("enable_request_id_headers")),
        root_path=(given.get("root_path") or "").rstrip("/"),
        certificate=certificate,
        headless=bool(given.get("headless")),
        fingerprint=_fingerprint(given, flags["version"], model),
        keep_alive_on_death=environment.get("VLLM_KEEP_ALIVE_ON_ENGINE_DEATH", "0") in ("1", "true", "True"),
        without_effect=tuple(sorted(name for name in given if name not in EFFECTIVE)),
    )


def _adapters(given: Mapping[str, Any]) -> tuple[Adapter, ...]:
    """vLLM loads each of them before it serves, and does not start with one that it cannot load."""
    adapters: tuple[Adapter, ...] = tuple(given.get("lora_modules", ()))
    for number, adapter in enumerate(adapters):
        if not adapter.name or not adapter.path:
            raise StartupError("ValueError: Both 'lora_name' and 'lora_path' must be provided.")
        if adapter.name in {one.name for one in adapters[:number]}:
            raise StartupError(
                f"ValueError: The lora adapter '{adapter.name}' has already been loaded. If you want to load the adapter "
                "in place, set 'load_inplace' to True."
            )
    if adapters and not given.get("enable_lora"):
        raise StartupError(
            "ValueError: Call to add_lora method failed: LoRA is not enabled. Use --enable-lora to enable LoRA."
        )
    return adapters


def _is_pooling(given: Mapping[str, Any], model: str) -> bool:
    """As --runner and --convert say; `auto` goes by the model, here by its name."""
    runner, convert = given.get("runner", "auto"), given.get("convert", "auto")
    if runner == "auto" and convert in ("auto", "none"):
        return is_pooling(model)
    return bool(runner == "pooling" or convert not in ("auto", "none"))


def _check_environment(environment: Mapping[str, str]) -> None:
    """A Service called `vllm` makes kubelet inject VLLM_PORT=tcp://..., and vLLM refuses to start."""
    port = environment.get("VLLM_PORT", "0")
    if "://" in port:
        raise StartupError(
            f"ValueError: VLLM_PORT '{port}' appears to be a URI. This may be caused by a Kubernetes service discovery "
            "issue,check the warning in: https://docs.vllm.ai/en/latest/configuration/env_vars.html"
        )
    if not port.isdigit():
        raise StartupError(f"ValueError: VLLM_PORT '{port}' must be a valid integer")


def _check_quantization(method: str | None, supported: list[str]) -> None:
    if method is not None and method not in supported:
        raise StartupError(
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            f"  Value error, Unknown quantization method: {method}. Must be one of {supported}."
        )


def _check_ranges(given: Mapping[str, Any]) -> None:
    utilization = given.get("gpu_memory_utilization", 0.92)
    if not 0 < utilization <= 1:
        raise StartupError(
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for CacheConfig\n"
            f"gpu_memory_utilization\n  Input should be greater than 0 and less than or equal to 1 [input={utilization}]"
        )
    for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "max_num_seqs"):
        if given.get(name, 1) < 1:
            raise StartupError(
                "pydantic_core._pydantic_core.ValidationError: 1 validation error\n"
                f"{name}\n  Input should be greater than or equal to 1 [input={given[name]}]"
            )
    if given.get("shutdown_timeout", 0) < 0:
        raise StartupError("ValueError: shutdown_timeout must be greater than or equal to 0")
    if bool(given.get("ssl_keyfile")) != bool(given.get("ssl_certfile")):
        raise StartupError("ValueError: --ssl-keyfile and --ssl-certfile go together")
    if given.get("enable_auto_tool_choice") and not given.get("tool_call_parser"):
        raise StartupError("TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser")


def _limits(given: Mapping[str, Any], settings: Settings) -> tuple[Limits, int]:
    length = given.get("max_model_len", DEFAULT_MAX_MODEL_LEN)
    block_size = given.get("block_size", 16)
    kv_tokens = settings.kv_cache_tokens or max(262_144, 4 * length)
    if length == -1:
        length = min(DEFAULT_MAX_MODEL_LEN, kv_tokens)
    if length < 1:
        raise StartupError(
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            f"max_model_len\n  Input should be greater than or equal to 1, or -1 [input={length}]"
        )
    if kv_tokens < length:
        raise StartupError(
            f"ValueError: To serve at least one request with the models's max seq len ({length}), more KV cache memory "
            f"is needed than the {kv_tokens} tokens that fit. Try increasing `gpu_memory_utilization` or decreasing "
            "`max_model_len` when initializing the engine."
        )
    limits = Limits(
        max_sequences=given.get("max_num_seqs", DEFAULT_MAX_NUM_SEQS),
        kv_blocks=-(-kv_tokens // block_size),
        block_size=block_size,
        max_batched_tokens=given.get("max_num_batched_tokens", DEFAULT_BATCHED_TOKENS),
        prefix_caching=given.get("enable_prefix_caching", True),
    )
    return limits, length


def _fingerprint(given: Mapping[str, Any], version: str, model: str) -> str | None:
    """As `--fingerprint-mode` says: full names the parallelism, and a hash stands for the configuration."""
    mode = given.get("fingerprint_mode", "full")
    if mode == "none":
        return None
    if mode == "custom":
        return given.get("fingerprint_value")
    identity = (
        model,
        given.get("revision"),
        given.get("quantization"),
        given.get("dtype"),
        given.get("kv_cache_dtype"),
    )
    parts = [f"vllm-{version}"]
    if mode == "full":
        for short, name in (("tp", "tensor"), ("pp", "pipeline"), ("dp", "data")):
            if (size := given.get(f"{name}_parallel_size", 1)) > 1:
                parts.append(f"{short}{size}")
    return "-".join([*parts, hashlib.sha256(repr(identity).encode()).hexdigest()[:8]])


def is_local(model: str) -> bool:
    """Whether the model is a path rather than a repository."""
    return model.startswith(("/", "./", "../", "~")) or Path(model).is_dir()
