"""What is served: the model, its number formats, and the window in which it answers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from fairlead.api.base import ApiModel, Bool, Int


class ModelTask(StrEnum):
    """What the model is served for."""

    GENERATE = "Generate"
    EMBED = "Embed"
    RERANK = "Rerank"


class QuantizationMode(StrEnum):
    """Who quantizes: the checkpoint already is, the engine does it on load, or fairlead finds out by name."""

    AUTO = "Auto"
    CHECKPOINT = "Checkpoint"
    ON_LOAD = "OnLoad"


class SecretKeyReference(ApiModel):
    """One key of a Secret in the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the Secret, in the namespace of this object. Required: without it nothing can be read."""
    key: Annotated[str, Field(min_length=1, max_length=253)]
    """Key inside the Secret's data whose value is used. Required: there is no default key."""


class ConfigMapKeyReference(ApiModel):
    """One key of a ConfigMap in the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the ConfigMap, in the namespace of this object. Required: without it nothing can be read."""
    key: Annotated[str, Field(min_length=1, max_length=253)]
    """Key inside the ConfigMap's data whose value is used. Required: there is no default key."""


class ModelSpec(ApiModel):
    """Which model, from where, and under which name clients ask for it."""

    source: Annotated[str, Field(min_length=1, max_length=512)]
    """Where the weights come from. hf://<organisation>/<repository> is Hugging Face (vLLM); ollama://<model>:<tag> is
    the Ollama registry, also ollama://hf.co/<organisation>/<repository>:<quantization> (Ollama); pvc://<claim>/<path>
    is a directory (vLLM) or a .gguf file (Ollama) on an existing PersistentVolumeClaim of the same namespace, mounted
    read-only. Required."""
    revision: Annotated[str | None, Field(min_length=1, max_length=128)] = None
    """Branch, tag or full commit (40 hexadecimal digits) of the Hugging Face repository. Only with hf:// sources.
    Absent: the repository's default branch, which may change between two starts of a pod."""
    name: Annotated[str | None, Field(min_length=1, max_length=128)] = None
    """What clients send as "model" in their requests; dots and slashes are welcome. With Ollama it is made as an alias
    inside the pod. Absent: metadata.name."""
    task: ModelTask = ModelTask.GENERATE
    """What the model is served for: Generate (chat and completions), Embed (embeddings) or Rerank (scores of documents
    against a query; vLLM only). Default: Generate."""
    secret_ref: SecretKeyReference | None = None
    """Key of a Secret that holds the Hugging Face access token. The engine gets it as HF_TOKEN by reference, so the
    value is never copied. Only with hf:// sources. Absent: the model is downloaded without a token."""
    trust_remote_code: Bool = False
    """Lets vLLM run Python code that lies in the model's repository. With hf:// it demands a revision of 40 hexadecimal
    digits, so that the code cannot change unseen. Default: false, such code is not run."""


class QuantizationSpec(ApiModel):
    """Number formats of weights and KV cache."""

    weights: Annotated[str | None, Field(min_length=1, max_length=16)] = None
    """Number format of the weights. vLLM: BF16, FP16, FP8, INT8, GPTQ, AWQ, NVFP4 or MXFP4. Ollama: BF16, FP16, MXFP4
    or a GGUF type such as Q4_K_M, Q5_K_M, Q6_K or Q8_0, which must agree with the tag of the source. Absent: what the
    checkpoint brings."""
    mode: QuantizationMode = QuantizationMode.AUTO
    """Who quantizes. Checkpoint: the weights are stored that way and the engine detects it. OnLoad: the engine converts
    BF16 or FP16 weights while it loads them (vLLM; FP8 and INT8). Auto: fairlead decides by the name of the
    source and says so in status.model.quantization. Default: Auto."""
    kv_cache: Annotated[str | None, Field(min_length=1, max_length=16)] = None
    """Number format of the KV cache, which bounds how many tokens fit. vLLM: BF16, FP16 or FP8. Ollama: F16, Q8_0 or
    Q4_0. Absent: the engine's own default, the format of the activations."""


class ContextSpec(ApiModel):
    """Context window and concurrency of one replica."""

    max_length: Annotated[Int | None, Field(ge=1, le=100000000)] = None
    """Longest sequence (prompt plus answer) that a request may have, in tokens. Larger windows need more accelerator
    memory. Absent: the model's own limit with vLLM, Ollama's default with Ollama."""
    max_sequences: Annotated[Int | None, Field(ge=1, le=65536)] = None
    """How many sequences one replica works on at the same time; further requests wait in the engine's queue. Absent:
    the engine's own default (vLLM sizes it by the accelerator, Ollama takes 1)."""
