"""Every environment variable of the simulator itself, read once into one frozen value.

The engines' own variables (VLLM_*, OLLAMA_*, HF_TOKEN) are read where the engines are imitated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from fairlead_sim.latency import Speed

PREFIX = "FAIRLEAD_SIM_"
_DEFAULT = Speed()


class SettingsError(ValueError):
    """A FAIRLEAD_SIM_ variable that is unknown or has no usable value."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The simulator's parameters; docs/simulator.md describes them. None means: computed or absent."""

    load_seconds: float | None = None
    teardown_seconds: float = 0.3
    prompt_tokens_per_second: float = _DEFAULT.prompt_tokens_per_s
    output_tokens_per_second: float = _DEFAULT.output_tokens_per_s
    batch_slowdown: float = _DEFAULT.batch_slowdown
    prefill_overhead_seconds: float = _DEFAULT.prefill_overhead_s
    kv_cache_tokens: int | None = None
    answer_tokens: int = 60
    embedding_dimensions: int = 384
    hub_status: int | None = None
    engine_death_after_seconds: float | None = None
    vllm_flags: str | None = None
    pull_seconds: float = 1.0
    pull_bytes: int = 1_048_576
    registry_status: int | None = None
    ollama_version: str = "0.32.15"

    @property
    def speed(self) -> Speed:
        """The latency model's parameters."""
        return Speed(
            self.prompt_tokens_per_second,
            self.output_tokens_per_second,
            self.batch_slowdown,
            self.prefill_overhead_seconds,
        )


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Settings of an environment. Raises SettingsError, naming the variable: a mistyped one must not be ignored."""
    known = {PREFIX + field.name.upper(): field for field in fields(Settings)}
    values: dict[str, float | int | str] = {}
    for name, text in environment.items():
        if not name.startswith(PREFIX) or not text:
            continue
        if name not in known:
            raise SettingsError(f"{name} is not a setting of the simulator; there are: {', '.join(sorted(known))}")
        values[known[name].name] = _convert(name, text, str(known[name].type))
    return Settings(**values)  # type: ignore[arg-type]  # converted by the field's own annotation just above


def _convert(name: str, text: str, annotation: str) -> float | int | str:
    if "str" in annotation:
        return text
    try:
        value = float(text) if "float" in annotation else int(text)
    except ValueError:
        raise SettingsError(f"{name}: {text!r} is not a number") from None
    positive = name.endswith(("_PER_SECOND", "_TOKENS", "_BYTES", "_DIMENSIONS"))
    if value < 0 or value != value or (positive and value == 0):
        raise SettingsError(f"{name}: {text} must be {'more than' if positive else 'at least'} 0")
    return value
