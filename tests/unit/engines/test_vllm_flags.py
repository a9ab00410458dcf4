"""Every vLLM argument line that fairlead renders is one that this version's own parser takes."""

from __future__ import annotations

import hashlib
import itertools
import json
from typing import Any

import pytest
from tests.unit.engines.vllm_flags import FOLDER, check_vllm_args, dumped_versions, read_flags

from fairlead.engines.context import (
    AcceleratorContext,
    DrainContext,
    EngineContext,
    ModelContext,
    ParallelismContext,
    QuantizationContext,
    SequenceContext,
)
from fairlead.engines.loader import EngineCatalog
from fairlead.engines.version import Version
from fairlead.errors import RenderError

GOOD = ["org/model", "--host", "0.0.0.0", "--port", "8000"]


def claimed_versions() -> list[str]:
    """The dumped versions that the engine file claims."""
    claim = EngineCatalog.builtin().get("vLLM").definition.versions
    newest = Version.parse(claim.newest)
    return [v for v in dumped_versions() if Version.parse(v).at_least(claim.minimum) and newest.at_least(v)]


# The oracle itself: it must be able to say no.


@pytest.mark.parametrize(
    ("version", "extra", "word"),
    [
        ("0.17.0", ["--shutdown-timeout", "10"], "no option --shutdown-timeout"),
        ("0.18.0", ["--swap-space", "4"], "no option --swap-space"),
        ("0.33.0", ["--task", "embed"], "no option --task"),
        ("0.12.0", ["--task", "embed"], "deprecated"),
        ("0.33.0", ["--max-model-length", "10"], "no option"),
        ("0.33.0", ["--max-model-len"], "needs a value"),
        ("0.33.0", ["--max-model-len", "lots"], "is not size"),
        ("0.33.0", ["--dtype", "bf16"], "does not take 'bf16'"),
        ("0.33.0", ["--quantization", "bitsandbytes"], "does not take 'bitsandbytes'"),
        ("0.16.0", ["--quantization", "fp8_per_tensor"], "does not take"),
        ("0.17.0", ["--kv-cache-dtype", "float16"], "does not take"),
        ("0.33.0", ["--trust-remote-code", "yes"], "one model is expected"),
        ("0.33.0", ["--trust-remote-code=yes"], "takes no value"),
        ("0.33.0", ["--port", "8001"], "twice"),
        ("0.33.0", ["another/model"], "one model is expected"),
        ("0.33.0", ["--tensor-parallel-size", "two"], "is not int"),
        ("0.33.0", ["--speculative-config", "{"], "is not optional json"),
    ],
)
def test_the_oracle_refuses(version: str, extra: list[str], word: str) -> None:
    findings = check_vllm_args(version, GOOD + extra)
    assert len(findings) == 1, findings
    assert word in findings[0]


@pytest.mark.parametrize(
    ("version", "extra"),
    [
        ("0.18.0", ["--shutdown-timeout", "10"]),
        ("0.33.0", ["-tp", "2", "-q", "fp8_per_tensor", "--max_model_len=32k", "--no-enable-prefix-caching"]),
        ("0.33.0", ["--max-model-len", "-1", "--speculative-config", '{"method": "ngram"}']),
        ("0.33.0", ["--lora-modules", "a=/a", "b=/b", "--kv-cache-dtype", "fp8", "--compilation-config.level", "3"]),
        ("0.11.0", ["--swap-space", "4"]),
    ],
)
def test_the_oracle_accepts(version: str, extra: list[str]) -> None:
    assert check_vllm_args(version, GOOD + extra) == []


@pytest.mark.parametrize("version", dumped_versions())
def test_a_list_is_whole_and_names_its_source(version: str) -> None:
    content = json.loads((FOLDER / f"{version}.json").read_text())
    assert content["version"] == version
    assert content["sdist"] == f"vllm-{version}.tar.gz"
    assert len(bytes.fromhex(content["sha256"])) == hashlib.sha256().digest_size
    flags = read_flags(version)
    for always in ("--host", "--port", "--served-model-name", "--max-model-len", "--tensor-parallel-size", "--dtype"):
        assert always in flags.flags
    assert "--no-trust-remote-code" in flags.flags
    assert {"auto", "fp8"} <= flags.kv_cache_dtypes
    assert {"fp8", "gptq", "awq"} <= flags.quantization


# What fairlead renders.


def contexts(version: str) -> list[EngineContext]:
    """Every combination of what changes vLLM's argument line."""
    parsed = Version.parse(version)
    models = [
        ModelContext("hf", "org/model", "some/name.7b"),
        ModelContext("hf", "org/model", "m", revision="a" * 40, task="Embed", trust_remote_code=True),
        ModelContext("pvc", "claim/dir", "m", path="/model/dir", task="Rerank"),
    ]
    weights = [None, "BF16", "FP16", "FP8", "INT8", "GPTQ", "AWQ", "NVFP4", "MXFP4"]
    quantizations = [
        QuantizationContext(weights=weight, kv_cache=kv_cache, on_load=on_load)
        for weight, kv_cache, on_load in itertools.product(weights, [None, "FP8", "BF16", "FP16"], [False, True])
    ]
    sizes = [
        (AcceleratorContext(), ParallelismContext(), SequenceContext()),
        (
            AcceleratorContext("nvidia", 8, "nvidia.com/gpu", 90),
            ParallelismContext(2, 2, 2, expert=True),
            SequenceContext(32768, 256),
        ),
        (AcceleratorContext("amd", 1, "amd.com/gpu", 5), ParallelismContext(), SequenceContext(max_length=1)),
    ]
    return [
        EngineContext(
            "m",
            parsed,
            model,
            quantization=quantization,
            accelerator=accelerator,
            parallelism=parallelism,
            sequences=sequences,
            drain=DrainContext(10, 120),
        )
        for model, quantization, (accelerator, parallelism, sequences) in itertools.product(
            models, quantizations, sizes
        )
    ]


def rendered_args(context: EngineContext) -> list[str]:
    """The argument line behind `vllm serve`. RenderError when the engine file refuses the combination."""
    rendered = EngineCatalog.builtin().get("vLLM").render(context)
    assert rendered.command == ["vllm", "serve"]
    return [word for argument in rendered.args for word in argument]


@pytest.mark.parametrize("version", claimed_versions())
def test_every_combination_renders_a_line_that_this_version_takes(version: str) -> None:
    lines: dict[tuple[str, ...], EngineContext] = {}
    refusals: list[RenderError] = []
    for context in contexts(version):
        try:
            lines[tuple(rendered_args(context))] = context
        except RenderError as refusal:
            refusals.append(refusal)
    wrong: dict[str, Any] = {}
    for line, context in lines.items():
        for finding in check_vllm_args(version, list(line)):
            wrong.setdefault(finding, context)
    assert wrong == {}
    assert len(lines) > 100
    assert refusals, "AWQ while loading cannot be had from any version"
    assert all(refusal.path.startswith("spec.") and refusal.remedy for refusal in refusals)


def test_the_claim_is_covered_by_lists() -> None:
    """The oldest and the newest version that the engine file claims are among the dumped ones, and so is the default."""
    claim = EngineCatalog.builtin().get("vLLM").definition.versions
    assert {claim.minimum, claim.newest, claim.default} <= set(claimed_versions())
    assert len(claimed_versions()) >= 8


def test_a_version_newer_than_the_lists_renders_as_the_newest() -> None:
    newest = dumped_versions()[-1]
    model = ModelContext("hf", "org/model", "m")
    assert rendered_args(EngineContext("m", Version.parse("9.0.0"), model)) == rendered_args(
        EngineContext("m", Version.parse(newest), model)
    )
