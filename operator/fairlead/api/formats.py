"""The words of the API for number formats: what `spec.quantization` may say, per engine.

What a value means for an engine's command line is not here but in `fairlead.hardware.quantization`.
"""

from __future__ import annotations

from typing import Final

VLLM: Final = "vLLM"
OLLAMA: Final = "Ollama"
#: Engines whose rules this release knows; any other name is an engine that an administrator added.
KNOWN_ENGINES: Final = (VLLM, OLLAMA)

VLLM_WEIGHTS: Final = ("BF16", "FP16", "FP8", "INT8", "GPTQ", "AWQ", "NVFP4", "MXFP4")
#: vLLM converts BF16 or FP16 weights to these while it loads them.
VLLM_ON_LOAD: Final = ("FP8", "INT8")
#: vLLM's CPU backend has no kernels for these.
VLLM_ACCELERATOR_ONLY: Final = ("FP8", "NVFP4", "MXFP4")
VLLM_KV_CACHE: Final = ("BF16", "FP16", "FP8")

GGUF_TYPES: Final = (
    "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_0", "Q4_1", "Q4_K_S", "Q4_K_M", "Q5_0", "Q5_1", "Q5_K_S", "Q5_K_M",
    "Q6_K", "Q8_0", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M",
    "IQ4_XS", "IQ4_NL",
)  # fmt: skip
OLLAMA_WEIGHTS: Final = ("BF16", "FP16", "MXFP4", *GGUF_TYPES)
OLLAMA_KV_CACHE: Final = ("F16", "Q8_0", "Q4_0")
