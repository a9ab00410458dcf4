"""Models that the simulator makes up when it is asked to pull one from a registry that it does not speak to.

Their content follows from the name alone, so two pods that pull the same model have the same digests.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from fairlead_sim.modelname import is_pooling, quantization_of, size_of
from fairlead_sim.ollama import gguf
from fairlead_sim.ollama.names import ModelName
from fairlead_sim.ollama.store import CONFIG_TYPE, LAYER_TYPE

TEMPLATE = (
    "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
    "{{ if .Tools }}{{ .Tools }}{{ end }}<|im_start|>assistant\n"
)


@dataclass(frozen=True, slots=True)
class Blob:
    """A layer's content."""

    media_type: str
    data: bytes

    @property
    def digest(self) -> str:
        """sha256 with its prefix."""
        return "sha256:" + hashlib.sha256(self.data).hexdigest()


def make_model(name: ModelName, *, size_bytes: int, dimensions: int) -> tuple[Blob, list[Blob]]:
    """Config and layers of a made-up model whose weights have this size."""
    text = f"{name.model}:{name.tag}"
    family = re.split(r"[\d.:_-]", name.model.lower(), maxsplit=1)[0] or "llama"
    embedder = is_pooling(name.model)
    metadata: dict[str, str | int] = {
        "general.architecture": family,
        "general.name": f"{name.short} (simulated)",
        f"{family}.context_length": 131_072,
        f"{family}.embedding_length": dimensions,
        f"{family}.block_count": 16,
    }
    if embedder:
        metadata[f"{family}.pooling_type"] = 1
    header = gguf.make_header(metadata)
    weights = header + _filling(name.short, max(0, size_bytes - len(header)))
    layers = [Blob(LAYER_TYPE + "model", weights)]
    if not embedder:
        layers.append(Blob(LAYER_TYPE + "template", TEMPLATE.encode()))
        layers.append(Blob(LAYER_TYPE + "params", json.dumps({"stop": ["<|im_start|>", "<|im_end|>"]}).encode()))
    config = {
        "model_format": "gguf",
        "model_family": family,
        "model_families": [family],
        "model_type": size_of(text) or "1B",
        "file_type": quantization_of(text) or "Q4_K_M",
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
    }
    return Blob(CONFIG_TYPE, json.dumps(config).encode()), layers


def _filling(seed: str, size_bytes: int) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(size_bytes)
