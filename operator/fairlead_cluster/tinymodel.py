"""Writes tiny GGUF models with random weights: real files for real engines, without a download and without meaning.

A model of half a megabyte loads in a blink and still goes the whole way: GGUF header, tokenizer, weights, KV cache,
sampling, streaming. The weights are random but not careless: the end-of-text token and raw bytes can never win, so an
answer is printable text and exactly as long as the request allows.

Needs the packages `gguf` and `numpy`, which only the workshop installs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

_CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
_WORDS = ("the", "a", "of", "to", "and", "in", "is", "you", "it", "for", "line", "rope", "ship", "sail", "wind", "tide")
_BLANK = "▁"  # what SentencePiece writes for a blank
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
_UNK_ID, _BOS_ID, _EOS_ID = 0, 1, 2


@dataclass(frozen=True, slots=True)
class TinyModel:
    """Size and purpose. The defaults give about half a megabyte and thousands of tokens a second on one core;
    `embedding_length=1024, blocks=16` gives 0.6 GB and a stream that lasts."""

    name: str = "tiny-random"
    embedding_length: int = 64
    blocks: int = 2
    context_length: int = 2048
    seed: int = 0
    embeds: bool = False  # pools its tokens into one vector instead of writing text

    heads: int = 4
    kv_heads: int = 2


def write_tiny_model(path: Path, model: TinyModel | None = None) -> Path:
    """Write `model` to `path` (the folder must exist) and return `path`. The same model gives the same bytes."""
    model = model or TinyModel()
    writer = gguf.GGUFWriter(path, "llama")
    tokens, types = _vocabulary()
    _add_metadata(writer, model, tokens, types)
    _add_tensors(writer, model, types)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _vocabulary() -> tuple[list[bytes], list[int]]:
    """A SentencePiece vocabulary: special tokens, every byte as fallback, printable characters and a few words."""
    tokens = [b"<unk>", b"<s>", b"</s>"]
    types = [_UNKNOWN, _CONTROL, _CONTROL]
    tokens += [b"<0x%02X>" % byte for byte in range(256)]
    types += [_BYTE] * 256
    plain = [_BLANK, *(chr(code) for code in range(33, 127)), *(_BLANK + word for word in _WORDS)]
    tokens += [word.encode() for word in plain]
    types += [_NORMAL] * len(plain)
    return tokens, types


def _add_metadata(writer: gguf.GGUFWriter, model: TinyModel, tokens: list[bytes], types: list[int]) -> None:
    writer.add_name(model.name)
    writer.add_context_length(model.context_length)
    writer.add_embedding_length(model.embedding_length)
    writer.add_block_count(model.blocks)
    writer.add_feed_forward_length(model.embedding_length * 2)
    writer.add_head_count(model.heads)
    writer.add_head_count_kv(model.kv_heads)
    writer.add_rope_dimension_count(model.embedding_length // model.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    if model.embeds:
        writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(index) if kind == _NORMAL else 0.0 for index, kind in enumerate(types)])
    writer.add_token_types(types)
    writer.add_bos_token_id(_BOS_ID)
    writer.add_eos_token_id(_EOS_ID)
    writer.add_unk_token_id(_UNK_ID)
    writer.add_add_bos_token(True)
    writer.add_chat_template(_CHAT_TEMPLATE)


def _add_tensors(writer: gguf.GGUFWriter, model: TinyModel, types: list[int]) -> None:
    random = np.random.default_rng(model.seed)
    width, inner = model.embedding_length, model.embedding_length * 2
    kv_width = model.kv_heads * (width // model.heads)
    ones = np.ones(width, np.float32)

    def weights(*shape: int) -> NDArray[np.float32]:
        scale = np.float32(0.6 / shape[-1] ** 0.5)
        return random.standard_normal(shape).astype(np.float32) * scale

    output = weights(len(types), width) * 6
    # A logit of exactly 0 is never among the best of some hundred random ones: no end of text, no broken UTF-8.
    output[[index for index, kind in enumerate(types) if kind != _NORMAL]] = 0
    writer.add_tensor("token_embd.weight", random.standard_normal((len(types), width)).astype(np.float32))
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("output.weight", output.astype(np.float32))
    for block in range(model.blocks):
        shapes = {
            "attn_q": (width, width),
            "attn_k": (kv_width, width),
            "attn_v": (kv_width, width),
            "attn_output": (width, width),
            "ffn_gate": (inner, width),
            "ffn_up": (inner, width),
            "ffn_down": (width, inner),
        }
        writer.add_tensor(f"blk.{block}.attn_norm.weight", ones)
        writer.add_tensor(f"blk.{block}.ffn_norm.weight", ones)
        for name, shape in shapes.items():
            writer.add_tensor(f"blk.{block}.{name}.weight", weights(*shape))
