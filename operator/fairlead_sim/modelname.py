"""What a model's name tells about it: size, quantization, whether it makes embeddings."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", re.IGNORECASE)
_QUANTIZATION = re.compile(
    r"(?:^|[-_:])(q\d(?:_[a-z0-9]+)*|iq\d(?:_[a-z0-9]+)*|f16|bf16|fp16|f32|mxfp4)(?:$|[-:])", re.IGNORECASE
)
_POOLING = ("embed", "minilm", "bge-", "e5-", "-e5", "gte-", "rerank", "colbert")


def size_of(name: str) -> str | None:
    """`8B`, `1.5B`, `270M`; None if the name does not say."""
    match = _SIZE.search(name)
    return match.group(1) + match.group(2).upper() if match else None


def billions_of(name: str) -> float | None:
    """Parameters in billions, if the name says."""
    size = size_of(name)
    if size is None:
        return None
    return float(size[:-1]) / (1 if size.endswith("B") else 1000)


def quantization_of(name: str) -> str | None:
    """A GGUF type such as `Q4_K_M`, in upper case, if the name says."""
    match = _QUANTIZATION.search(name)
    return match.group(1).upper() if match else None


def is_pooling(name: str) -> bool:
    """Whether the name is that of an embedding or reranking model."""
    return any(word in name.lower() for word in _POOLING)
