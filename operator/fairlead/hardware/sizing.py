"""How large a model is, by what its name says, and how long a pod may therefore take to start.

An estimate that errs high: a budget that is too small kills a pod that would have come up, one that is too large only makes
a broken one known later. What the name does not tell stays unknown.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml

__all__ = ["UNKNOWN_SIZE_BUDGET_S", "ModelSize", "estimate_model_size", "estimate_startup_s", "read_stored_format"]

#: Start-up budget when nothing is known of the size, seconds.
UNKNOWN_SIZE_BUDGET_S = 1800
#: Python, kernels, compilation and graph capture on a slow machine, seconds (engines.md §5: 100 s measured, doubled and
#: rounded up, because nothing is gained by a tight bound).
_FLOOR_S = 300
#: Reading weights from a network volume, bytes per second.
_READ_BYTES_PER_S = 200_000_000
#: Downloads rarely keep the assumed bandwidth.
_DOWNLOAD_MARGIN = 1.5

_PARAMETERS = re.compile(r"(?<![a-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)([bm])(?![a-z0-9])")
_STORED_FORMATS = (
    (re.compile(r"(?:^|[-_.])(?:fp8(?:[-_](?:dynamic|block|kv|static))?|w8a8[-_]?fp8)(?:$|[-_.])"), "FP8"),
    (re.compile(r"(?:^|[-_.])nvfp4(?:$|[-_.])|(?:^|[-_.])fp4(?:$|[-_.])"), "NVFP4"),
    (re.compile(r"(?:^|[-_.])mxfp4(?:$|[-_.])"), "MXFP4"),
    (re.compile(r"(?:^|[-_.])awq(?:$|[-_.])"), "AWQ"),
    (re.compile(r"(?:^|[-_.])(?:gptq(?:[-_]int[48])?|w4a16)(?:$|[-_.])"), "GPTQ"),
    (re.compile(r"(?:^|[-_.])(?:w8a8|int8|w8a16)(?:$|[-_.])"), "INT8"),
)
_GGUF_TYPE = re.compile(r"(?:^|[-_.:])(i?q\d(?:_[0-9a-z]+){0,2}|fp16|f16|bf16|fp32|f32)(?=$|[-.:])")


@dataclass(frozen=True, slots=True)
class ModelSize:
    """`parameters` in single parameters, `weights` the format they were counted in, `size_bytes` of the checkpoint."""

    parameters: float
    weights: str
    size_bytes: int


@lru_cache(maxsize=1)
def _catalog() -> dict[str, Any]:
    text = (files("fairlead.hardware") / "models.yaml").read_text(encoding="utf-8")
    catalog: dict[str, Any] = yaml.load(text, Loader=yaml.CSafeLoader)
    return catalog


def read_stored_format(scheme: str, reference: str) -> str | None:
    """The number format that a checkpoint's name says it is stored in (`…-FP8-dynamic` → FP8), or None: 16 bits, or not told.

    `reference` is what follows `scheme://`. Ollama tags are GGUF types in upper case (`7b-instruct-q4_K_M` → Q4_K_M).
    """
    name = reference.rpartition("/")[2].lower()
    if scheme == "ollama" or name.endswith(".gguf"):
        match = _GGUF_TYPE.search(name.removesuffix(".gguf"))
        return match[1].upper() if match else None
    for entry in _catalog()["models"]:
        if "weights" in entry and re.fullmatch(entry["pattern"], name):
            return str(entry["weights"])
    return next((weights for pattern, weights in _STORED_FORMATS if pattern.search(name)), None)


def _count_parameters(scheme: str, reference: str) -> float | None:
    name = reference.rpartition("/")[2].lower()
    for entry in _catalog()["models"]:
        if re.fullmatch(entry["pattern"], name.partition(":")[0] if scheme == "ollama" else name):
            return float(entry["parameters"]) * 1e9
    sizes = [
        int(experts or 1) * float(number) * (1e9 if unit == "b" else 1e6)
        for experts, number, unit in _PARAMETERS.findall(name.replace("_", "-").replace(":", "-"))
    ]
    if sizes:
        return max(sizes)  # `30b-a3b`: the active part does not count
    defaults = _catalog()["ollamaDefaults"]
    family = name.partition(":")[0]
    return float(defaults[family]) * 1e9 if scheme == "ollama" and family in defaults else None


def estimate_model_size(scheme: str, reference: str, weights: str | None) -> ModelSize | None:
    """Size of the checkpoint that is downloaded. `weights`: the format it is stored in, None for what the name says, then 16
    bits (Q4_K_M for Ollama). None: the name does not tell how many parameters there are."""
    parameters = _count_parameters(scheme, reference)
    if parameters is None:
        return None
    stored = weights or read_stored_format(scheme, reference) or ("Q4_K_M" if scheme == "ollama" else "BF16")
    bits = float(_catalog()["bitsPerWeight"].get(stored, 16))
    return ModelSize(parameters=parameters, weights=stored, size_bytes=int(parameters * bits / 8))


def estimate_startup_s(size: ModelSize | None, download_bytes_per_s: int, *, downloads: bool) -> int:
    """Seconds that a pod may take from container start to ready, rounded up to whole minutes.

    `downloads`: False when the weights already lie on a volume. Unknown size: `UNKNOWN_SIZE_BUDGET_S`.
    """
    if size is None:
        return UNKNOWN_SIZE_BUDGET_S
    seconds = _FLOOR_S + size.size_bytes / _READ_BYTES_PER_S
    if downloads:
        seconds += _DOWNLOAD_MARGIN * size.size_bytes / max(1, download_bytes_per_s)
    return 60 * math.ceil(seconds / 60)
