"""Sizes and formats by name, judged by published figures; quantities as the API server prints them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.api.formats import GGUF_TYPES, OLLAMA_WEIGHTS, VLLM_WEIGHTS
from fairlead.api.llmdeployment import QuantizationMode
from fairlead.api.quantity import parse_live_quantity
from fairlead.hardware.accelerators import find_vendor, make_product_terms
from fairlead.hardware.quantity import canonical
from fairlead.hardware.quantization import decide_quantization
from fairlead.hardware.sizing import (
    UNKNOWN_SIZE_BUDGET_S,
    estimate_model_size,
    estimate_startup_s,
    read_stored_format,
)


@pytest.mark.parametrize(
    ("scheme", "reference", "weights", "gigabytes"),
    [
        # published sizes of the files on the hub, in GB
        ("hf", "meta-llama/Llama-3.1-8B-Instruct", None, 16.1),
        ("hf", "meta-llama/Llama-3.1-70B-Instruct", None, 141.1),
        ("hf", "Qwen/Qwen3-32B", None, 65.5),
        ("hf", "Qwen/Qwen3-30B-A3B", None, 61.1),
        ("hf", "mistralai/Mixtral-8x7B-Instruct-v0.1", None, 93.4),
        ("hf", "RedHatAI/Meta-Llama-3.1-70B-Instruct-FP8", None, 72.7),
        ("hf", "hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4", None, 5.73),
        ("hf", "openai/gpt-oss-120b", None, 65.3),
        ("hf", "deepseek-ai/DeepSeek-R1", None, 688.6),
        ("ollama", "llama3.1:8b-instruct-q4_K_M", None, 4.9),
        ("ollama", "llama3.1:8b-instruct-q8_0", None, 8.5),
        ("ollama", "llama3.1:70b", None, 43.1),
        ("ollama", "qwen2.5:0.5b", None, 0.40),
        ("ollama", "llama3.2", None, 2.0),
    ],
)
def test_sizes_by_name_are_near_the_published_ones(
    scheme: str, reference: str, weights: str | None, gigabytes: float
) -> None:
    size = estimate_model_size(scheme, reference, weights)
    assert size is not None
    assert size.size_bytes / 1e9 == pytest.approx(gigabytes, rel=0.25)


@pytest.mark.parametrize("reference", ["org/model", "org/v2", "org/model-3.1", "gpt2", "org/x-4bit", "org/llama-3.1"])
def test_a_name_without_a_size_is_unknown(reference: str) -> None:
    assert estimate_model_size("hf", reference, None) is None
    assert estimate_startup_s(None, 1, downloads=True) == UNKNOWN_SIZE_BUDGET_S


def test_every_format_of_the_api_has_bits() -> None:
    for weights in {*VLLM_WEIGHTS, *OLLAMA_WEIGHTS, *GGUF_TYPES}:
        size = estimate_model_size("hf", "org/model-8b", weights)
        assert size is not None
        assert size.size_bytes <= 16_000_000_000
        if weights not in ("BF16", "FP16"):
            assert size.size_bytes < 9_000_000_000, f"{weights} is counted as 16 bits"


@pytest.mark.parametrize(
    ("scheme", "reference", "stored"),
    [
        ("hf", "RedHatAI/Llama-3.1-8B-Instruct-FP8-dynamic", "FP8"),
        ("hf", "neuralmagic/Meta-Llama-3-8B-Instruct-FP8-KV", "FP8"),
        ("hf", "Qwen/Qwen2.5-7B-Instruct-AWQ", "AWQ"),
        ("hf", "Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "GPTQ"),
        ("hf", "RedHatAI/Llama-3.1-8B-Instruct-quantized.w8a8", "INT8"),
        ("hf", "RedHatAI/Llama-3.1-8B-Instruct-quantized.w4a16", "GPTQ"),
        ("hf", "nvidia/Llama-3.1-8B-Instruct-NVFP4", "NVFP4"),
        ("hf", "openai/gpt-oss-20b", "MXFP4"),
        ("hf", "deepseek-ai/DeepSeek-V3", "FP8"),
        ("hf", "meta-llama/Llama-3.1-8B-Instruct", None),
        ("hf", "org/hawqeye-7b", None),
        ("pvc", "claim/models/llama-8b-FP8", "FP8"),
        ("pvc", "claim/llama-8b.Q4_K_M.gguf", "Q4_K_M"),
        ("ollama", "llama3.1:8b-instruct-q4_K_M", "Q4_K_M"),
        ("ollama", "llama3.1:8b-instruct-fp16", "FP16"),
        ("ollama", "llama3.1:8b", None),
        ("ollama", "hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:IQ4_XS", "IQ4_XS"),
    ],
)
def test_the_stored_format_by_name(scheme: str, reference: str, stored: str | None) -> None:
    assert read_stored_format(scheme, reference) == stored


AUTO, CHECKPOINT, ON_LOAD = QuantizationMode.AUTO, QuantizationMode.CHECKPOINT, QuantizationMode.ON_LOAD


@pytest.mark.parametrize(
    ("weights", "mode", "stored", "gpu", "on_load"),
    [
        ("FP8", AUTO, None, True, True),
        ("FP8", AUTO, "FP8", True, False),
        ("FP8", CHECKPOINT, None, True, False),
        ("FP8", ON_LOAD, "FP8", True, True),
        ("INT8", AUTO, None, True, True),
        ("INT8", AUTO, None, False, False),
        ("AWQ", AUTO, None, True, False),
        ("BF16", AUTO, None, True, False),
        ("Q4_K_M", AUTO, None, True, False),
        (None, AUTO, "AWQ", True, False),
    ],
)
def test_who_quantizes(
    weights: str | None, mode: QuantizationMode, stored: str | None, gpu: bool, on_load: bool
) -> None:
    decision = decide_quantization(weights, mode, stored, has_accelerator=gpu)
    assert (decision.weights, decision.on_load) == (weights, on_load)
    assert decision.note


def test_the_budget_counts_download_and_reading() -> None:
    size = estimate_model_size("hf", "org/model-70b", None)
    assert size is not None
    slow, fast = (estimate_startup_s(size, bandwidth, downloads=True) for bandwidth in (50_000_000, 1_000_000_000))
    stored = estimate_startup_s(size, 50_000_000, downloads=False)
    assert stored < fast < slow
    assert slow > size.size_bytes / 50_000_000
    assert slow % 60 == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000m", "1"), ("0.5", "500m"), ("1500m", "1500m"), ("2.0", "2"), ("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"),
        ("0.5Gi", "512Mi"), ("1000M", "1G"), ("1500M", "1500M"), ("1024", "1024"), ("1025Ki", "1025Ki"), ("0", "0"),
        ("0Gi", "0"), ("1e3", "1e3"), ("1000e3", "1e6"), ("64Gi", "64Gi"), ("0.0001Ki", "102400u"), ("100000000000m", "100M"),
    ],
)  # fmt: skip
def test_canonical_quantities_are_those_of_the_api_server(text: str, expected: str) -> None:
    assert canonical(text) == expected


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.decimals(0, 10**12, allow_nan=False, places=3), st.sampled_from(["", "m", "k", "M", "G", "Ki", "Mi", "Gi", "Ti"])
)
def test_canonical_keeps_the_value_and_is_its_own_canonical(number: Decimal, suffix: str) -> None:
    text = f"{number:f}{suffix}"
    once = canonical(text)
    assert parse_live_quantity(once) == parse_live_quantity(text)
    assert canonical(once) == once


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "1gi", "0x1", "1..2", "--1", "1KB"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        canonical(text)


@pytest.mark.parametrize(
    ("resource", "vendor"),
    [
        ("nvidia.com/gpu", "nvidia"), ("nvidia.com/gpu.shared", "nvidia"), ("nvidia.com/mig-3g.40gb", "nvidia"),
        ("amd.com/gpu", "amd"), ("gpu.intel.com/i915", "intel"), ("habana.ai/gaudi", "other"), ("google.com/tpu", "other"),
    ],
)  # fmt: skip
def test_vendors(resource: str, vendor: str) -> None:
    assert find_vendor(resource) == vendor


def test_a_product_is_looked_for_under_every_label_and_name() -> None:
    terms = make_product_terms("nvidia.com/gpu", ["NVIDIA-H200"])
    assert {"nvidia.com/gpu.product", "cloud.google.com/gke-accelerator"} <= {term["key"] for term in terms}
    assert all({"NVIDIA-H200", "nvidia-h200-141gb"} <= set(term["values"]) for term in terms)
    assert all("NVIDIA-L4" not in term["values"] for term in terms)
    assert make_product_terms("habana.ai/gaudi", ["g3"]) == [
        {"key": "habana.ai/product", "operator": "In", "values": ["g3"]}
    ]
