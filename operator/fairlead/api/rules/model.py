"""Rules about what is served: source, revision, credentials, number formats."""

from __future__ import annotations

import re
from typing import Any, Final

from fairlead.api.formats import (
    GGUF_TYPES,
    OLLAMA,
    OLLAMA_KV_CACHE,
    OLLAMA_WEIGHTS,
    VLLM,
    VLLM_ACCELERATOR_ONLY,
    VLLM_KV_CACHE,
    VLLM_ON_LOAD,
    VLLM_WEIGHTS,
)
from fairlead.api.rules.names import DNS_SUBDOMAIN
from fairlead.api.rules.table import Rule, cel_list, choose, matches, pattern_rule

_HF_PART: Final = "[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_HF: Final = f"hf://{_HF_PART}(/{_HF_PART})?"
_OLLAMA_PART: Final = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
_OLLAMA_NAME: Final = f"({_OLLAMA_PART}/)?{_OLLAMA_PART}(:{_OLLAMA_PART})?"
_OLLAMA_SOURCE: Final = f"ollama://([A-Za-z0-9][A-Za-z0-9.-]{{0,252}}(:[0-9]{{1,5}})?/)?{_OLLAMA_NAME}"
_PATH_PART: Final = "[A-Za-z0-9_][A-Za-z0-9_.+@=-]*"
_PVC: Final = f"pvc://{DNS_SUBDOMAIN}(/{_PATH_PART})*"
_CLOUD_TAG: Final = "ollama://.*:(.*-)?cloud"
_GGUF_SOURCE: Final = "(.*[-_./])?gguf([-_./:].*)?"
_COMMIT: Final = "[0-9a-f]{40}"
_LATER: Final = ("s3://", "gs://", "oci://", "https://", "http://")


def _explain_scheme(source: str) -> tuple[str, str]:
    hub = re.search(r"(?:huggingface\.co|hf\.co)/([^/\s]+/[^/\s?#]+)", source)
    if source.count("://") > 1 or re.search(r"[\s,]", source):
        return "names more than one source", "one model has one source; make a second LLMDeployment for the other"
    if hub:
        return "is a web address", f"hf://{hub[1]} would work"
    if source.startswith(_LATER):
        return f"{source.split('://')[0]}:// is not built yet", "hf://, ollama:// or pvc:// would work"
    if re.fullmatch(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+", source):
        return "has no scheme", f"hf://{source} would work"
    if re.fullmatch(r"[a-z0-9._-]+:[A-Za-z0-9._-]+", source):
        return "has no scheme", f"ollama://{source} would work"
    return "begins with none of hf://, ollama://, pvc://", "for instance hf://meta-llama/Llama-3.1-8B-Instruct"


def _explain_hf(source: str) -> tuple[str, str]:
    name, _, revision = source.partition("@")
    if revision:
        return "carries a revision", f"write {name} and revision: {revision}"
    if ":" in source.removeprefix("hf://"):
        return "carries a tag, which Hugging Face does not have", "use spec.model.revision for a branch, tag or commit"
    return "is not hf://<organisation>/<repository>", "for instance hf://meta-llama/Llama-3.1-8B-Instruct"


def _explain_revision(revision: str) -> tuple[str, str]:
    return (
        f"{revision!r} is not a branch, tag or commit",
        "for instance main, or the 40 digits that the hub shows as commit",
    )


def _shortened_commit(revision: str) -> bool:
    hexadecimal = re.fullmatch("[0-9a-f]{7,39}|[0-9a-f]{41,}", revision) is not None
    return hexadecimal and re.search("[0-9]", revision) is not None and re.search("[a-f]", revision) is not None


def tag_format(source: str) -> str | None:
    """The number format that the tag of an ollama:// source ends with (`8b-instruct-q4_K_M` → Q4_K_M), if it does."""
    tag = source.rsplit(":", 1)[-1].upper()
    if not source.startswith("ollama://") or "/" in tag:
        return None
    known = (*OLLAMA_WEIGHTS, "F16")
    found = next((k for k in known if tag == k or tag.endswith(f"-{k}")), None)
    return "FP16" if found == "F16" else found


def _disagrees(spec: Any) -> bool:
    weights = spec.quantization.weights if spec.quantization else None
    tagged = tag_format(spec.model.source) if spec.engine.type == OLLAMA else None
    return bool(weights and tagged) and weights != tagged


def _explain_disagreement(spec: Any) -> tuple[str, str]:
    tagged = tag_format(spec.model.source)
    return f"the tag of spec.model.source says {tagged}", f"{tagged} would work, or another tag"


def _weights(spec: Any) -> str | None:
    return spec.quantization.weights if spec.quantization else None


def _kv_cache(spec: Any) -> str | None:
    return spec.quantization.kv_cache if spec.quantization else None


def _on_load(spec: Any) -> bool:
    return bool(spec.quantization and spec.quantization.mode == "OnLoad")


def _explain_weights(known: tuple[str, ...], engine: str) -> Any:
    def explain(spec: Any) -> tuple[str, str]:
        value = spec.quantization.weights
        if engine == VLLM and value.upper() in GGUF_TYPES:
            return f"{value} is a GGUF type, and vLLM serves no GGUF", "FP8 or AWQ would work, or engine.type: Ollama"
        return f"{value!r} is not a number format of {engine}", choose(value, known)

    return explain


def _explain_kv_cache(known: tuple[str, ...], engine: str) -> Any:
    def explain(spec: Any) -> tuple[str, str]:
        return f"{spec.quantization.kv_cache!r} is not a KV cache format of {engine}", choose(
            spec.quantization.kv_cache, known
        )

    return explain


def _value_rules(engine: str, field: str, cel_field: str, known: tuple[str, ...]) -> Rule:
    weights = field == "weights"
    read = _weights if weights else _kv_cache
    explain = (_explain_weights if weights else _explain_kv_cache)(known, engine)
    return Rule(
        id=f"quantization.{field}.{engine}",
        at="spec",
        field=f".quantization.{cel_field}",
        holds=lambda spec: spec.engine.type != engine or read(spec) is None or read(spec) in known,
        cel=f"self.engine.type != '{engine}' || !has(self.quantization) || !has(self.quantization.{cel_field})"
        f" || self.quantization.{cel_field} in {cel_list(known)}",
        message=f"is not one that {engine} knows",
        remedy=f"one of {', '.join(known)}",
        explain=explain,
    )


_HAS_WEIGHTS: Final = "has(self.quantization) && has(self.quantization.weights)"
_ON_LOAD: Final = "has(self.quantization) && self.quantization.mode == 'OnLoad'"

SOURCE_RULES: Final = (
    Rule(
        id="model.source.scheme",
        at="spec.model.source",
        holds=lambda source: re.match("(hf|ollama|pvc)://", source) is not None,
        cel="self.matches('^(hf|ollama|pvc)://')",
        message="must begin with hf://, ollama:// or pvc://",
        remedy="for instance hf://meta-llama/Llama-3.1-8B-Instruct",
        explain=_explain_scheme,
    ),
    Rule(
        id="model.source.hf",
        at="spec.model.source",
        holds=lambda source: not source.startswith("hf://") or re.fullmatch(_HF, source, re.ASCII) is not None,
        cel=f"!self.startsWith('hf://') || {matches(_HF)}",
        message="must be hf://<organisation>/<repository>, without tag or revision",
        remedy="a branch, tag or commit goes into spec.model.revision",
        explain=_explain_hf,
    ),
    Rule(
        id="model.source.ollama",
        at="spec.model.source",
        holds=lambda source: (
            not source.startswith("ollama://") or re.fullmatch(_OLLAMA_SOURCE, source, re.ASCII) is not None
        ),
        cel=f"!self.startsWith('ollama://') || {matches(_OLLAMA_SOURCE)}",
        message="must be ollama://[host/][namespace/]model[:tag]",
        remedy="for instance ollama://llama3.2:3b-instruct-q4_K_M or ollama://hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M",
    ),
    Rule(
        id="model.source.pvc",
        at="spec.model.source",
        holds=lambda source: not source.startswith("pvc://") or re.fullmatch(_PVC, source, re.ASCII) is not None,
        cel=f"!self.startsWith('pvc://') || {matches(_PVC)}",
        message="must be pvc://<claim>/<path>, the path relative to the root of the volume, without . or .. in it",
        remedy="for instance pvc://models/llama-3.1-8b",
    ),
    Rule(
        id="model.source.cloud",
        at="spec.model.source",
        holds=lambda source: re.fullmatch(_CLOUD_TAG, source, re.ASCII | re.IGNORECASE) is None,
        cel=f"!{matches(_CLOUD_TAG, 'self.lowerAscii()')}",
        message="a cloud tag sends every request to a service outside the cluster",
        remedy="take a tag whose weights are downloaded, such as gpt-oss:20b",
    ),
    Rule(
        id="model.source.vLLM",
        at="spec",
        field=".model.source",
        holds=lambda spec: spec.engine.type != VLLM or not spec.model.source.startswith("ollama://"),
        cel="self.engine.type != 'vLLM' || !self.model.source.startsWith('ollama://')",
        message="vLLM cannot read the Ollama registry",
        remedy="hf://<organisation>/<repository> would work, or engine.type: Ollama",
    ),
    Rule(
        id="model.source.vLLM.gguf",
        at="spec",
        field=".model.source",
        holds=lambda spec: (
            spec.engine.type != VLLM
            or spec.model.source.startswith("ollama://")
            or re.fullmatch(_GGUF_SOURCE, spec.model.source.lower(), re.ASCII) is None
        ),
        cel="self.engine.type != 'vLLM' || self.model.source.startsWith('ollama://')"
        f" || !{matches(_GGUF_SOURCE, 'self.model.source.lowerAscii()')}",
        message="vLLM serves no GGUF files (they left it with version 0.24)",
        remedy="take the original or an FP8, AWQ or GPTQ repository, or engine.type: Ollama with ollama://hf.co/…",
    ),
    Rule(
        id="model.source.Ollama",
        at="spec",
        field=".model.source",
        holds=lambda spec: spec.engine.type != OLLAMA or not spec.model.source.startswith("hf://"),
        cel="self.engine.type != 'Ollama' || !self.model.source.startsWith('hf://')",
        message="Ollama pulls GGUF repositories of Hugging Face by its own syntax",
        remedy="ollama://hf.co/<organisation>/<repository>:<quantization> would work",
        explain=lambda spec: (
            "Ollama pulls GGUF repositories of Hugging Face by its own syntax",
            f"ollama://hf.co/{spec.model.source.removeprefix('hf://')}:Q4_K_M would work if it holds GGUF files",
        ),
    ),
    Rule(
        id="model.source.Ollama.pvc",
        at="spec",
        field=".model.source",
        holds=lambda spec: (
            spec.engine.type != OLLAMA
            or not spec.model.source.startswith("pvc://")
            or spec.model.source.endswith(".gguf")
        ),
        cel="self.engine.type != 'Ollama' || !self.model.source.startsWith('pvc://') || self.model.source.endsWith('.gguf')",
        message="Ollama makes its model from one GGUF file",
        remedy="pvc://<claim>/<path>.gguf would work",
    ),
)

MODEL_RULES: Final = (
    Rule(
        id="model.revision.scheme",
        at="spec.model",
        field=".revision",
        holds=lambda model: model.revision is None or model.source.startswith("hf://"),
        cel="!has(self.revision) || self.source.startsWith('hf://')",
        message="only hf:// sources have revisions",
        remedy="leave it out; with ollama:// the tag says which model it is",
    ),
    pattern_rule(
        "model.revision.format",
        "spec.model.revision",
        "[A-Za-z0-9][A-Za-z0-9_-]*([./][A-Za-z0-9_-]+)*",
        "is not a branch, tag or commit",
        "for instance main, or the 40 hexadecimal digits of a commit",
        explain=_explain_revision,
    ),
    Rule(
        id="model.revision.commit",
        at="spec.model.revision",
        holds=lambda revision: not _shortened_commit(revision),
        cel="!(self.matches('^([0-9a-f]{7,39}|[0-9a-f]{41,})$') && self.matches('[0-9]') && self.matches('[a-f]'))",
        message="looks like a commit, but a commit has exactly 40 hexadecimal digits",
        remedy="copy the whole commit from the hub",
        explain=lambda revision: (
            f"looks like a commit, but has {len(revision)} hexadecimal digits instead of 40",
            "copy the whole commit from the hub",
        ),
    ),
    Rule(
        id="model.secretRef.scheme",
        at="spec.model",
        field=".secretRef",
        holds=lambda model: model.secret_ref is None or model.source.startswith("hf://"),
        cel="!has(self.secretRef) || self.source.startsWith('hf://')",
        message="only hf:// sources take a token (the Ollama registry and volumes need none)",
        remedy="leave it out",
    ),
    Rule(
        id="model.trustRemoteCode.pinned",
        at="spec.model",
        field=".trustRemoteCode",
        holds=lambda model: (
            not model.trust_remote_code
            or not model.source.startswith("hf://")
            or (model.revision is not None and re.fullmatch(_COMMIT, model.revision, re.ASCII) is not None)
        ),
        cel="!has(self.trustRemoteCode) || !self.trustRemoteCode || !self.source.startsWith('hf://')"
        f" || (has(self.revision) && {matches(_COMMIT, 'self.revision')})",
        message="would run code that can change at any time",
        remedy="pin spec.model.revision to a commit of 40 hexadecimal digits",
    ),
    Rule(
        id="model.trustRemoteCode.Ollama",
        at="spec",
        field=".model.trustRemoteCode",
        holds=lambda spec: spec.engine.type != OLLAMA or not spec.model.trust_remote_code,
        cel="self.engine.type != 'Ollama' || !has(self.model.trustRemoteCode) || !self.model.trustRemoteCode",
        message="Ollama runs no code of models",
        remedy="leave it out",
    ),
    Rule(
        id="model.task.Ollama",
        at="spec",
        field=".model.task",
        holds=lambda spec: spec.engine.type != OLLAMA or spec.model.task != "Rerank",
        cel="self.engine.type != 'Ollama' || self.model.task != 'Rerank'",
        message="Ollama does not rerank",
        remedy="Generate or Embed would work, or engine.type: vLLM",
    ),
    pattern_rule(
        "model.name.format",
        "spec.model.name",
        "[A-Za-z0-9]+([._:/@+-]+[A-Za-z0-9]+)*",
        "is not a model name: letters and digits, and . _ : / @ + - between them",
        "for instance llama-3.1-70b",
    ),
    Rule(
        id="model.name.Ollama",
        at="spec",
        field=".model.name",
        holds=lambda spec: (
            spec.engine.type != OLLAMA
            or spec.model.name is None
            or re.fullmatch(_OLLAMA_NAME, spec.model.name, re.ASCII) is not None
        ),
        cel=f"self.engine.type != 'Ollama' || !has(self.model.name) || {matches(_OLLAMA_NAME, 'self.model.name')}",
        message="Ollama takes names of the form [namespace/]model[:tag] of letters, digits, _, - and .",
        remedy="for instance acme/assistant",
    ),
)

FORMAT_RULES: Final = (
    _value_rules(VLLM, "weights", "weights", VLLM_WEIGHTS),
    _value_rules(OLLAMA, "weights", "weights", OLLAMA_WEIGHTS),
    _value_rules(VLLM, "kvCache", "kvCache", VLLM_KV_CACHE),
    _value_rules(OLLAMA, "kvCache", "kvCache", OLLAMA_KV_CACHE),
    pattern_rule(
        "quantization.weights.format",
        "spec.quantization.weights",
        "[A-Za-z0-9_]+",
        "is not a number format",
        "for instance FP8 or Q4_K_M",
    ),
    pattern_rule(
        "quantization.kvCache.format",
        "spec.quantization.kvCache",
        "[A-Za-z0-9_]+",
        "is not a number format",
        "for instance FP8 or Q8_0",
    ),
    Rule(
        id="quantization.weights.tag",
        at="spec",
        field=".quantization.weights",
        holds=lambda spec: not _disagrees(spec),
        cel=f"self.engine.type != 'Ollama' || !({_HAS_WEIGHTS}) || !self.model.source.matches(':[^/:]*$')"
        f" || !{cel_list((*OLLAMA_WEIGHTS, 'F16'))}.exists(k, self.model.source.upperAscii().endsWith(':' + k)"
        " || (self.model.source.upperAscii().endsWith('-' + k)))"
        " || self.model.source.upperAscii().endsWith(':' + self.quantization.weights)"
        " || self.model.source.upperAscii().endsWith('-' + self.quantization.weights)"
        " || (self.quantization.weights == 'FP16' && self.model.source.upperAscii().matches('[:-]F16$'))",
        message="disagrees with the tag of spec.model.source",
        remedy="leave it out or take another tag",
        explain=_explain_disagreement,
    ),
    Rule(
        id="quantization.mode.OnLoad.Ollama",
        at="spec",
        field=".quantization.mode",
        holds=lambda spec: spec.engine.type != OLLAMA or not _on_load(spec),
        cel=f"self.engine.type != 'Ollama' || !({_ON_LOAD})",
        message="Ollama takes GGUF files as they are",
        remedy="take the tag of another quantization",
    ),
    Rule(
        id="quantization.mode.OnLoad.weights",
        at="spec",
        field=".quantization.mode",
        holds=lambda spec: spec.engine.type != VLLM or not _on_load(spec) or _weights(spec) in VLLM_ON_LOAD,
        cel=f"self.engine.type != 'vLLM' || !({_ON_LOAD})"
        f" || (has(self.quantization.weights) && self.quantization.weights in {cel_list(VLLM_ON_LOAD)})",
        message=f"vLLM can convert only to {', '.join(VLLM_ON_LOAD)} while it loads",
        remedy="set weights to one of them, or mode: Checkpoint with a checkpoint that is stored so",
    ),
    Rule(
        id="quantization.mode.OnLoad.accelerator",
        at="spec",
        field=".quantization.mode",
        holds=lambda spec: spec.engine.type != VLLM or not _on_load(spec) or spec.accelerator is not None,
        cel=f"self.engine.type != 'vLLM' || !({_ON_LOAD}) || has(self.accelerator)",
        message="vLLM converts weights on accelerators only",
        remedy="set spec.accelerator, or take a checkpoint that is stored so",
    ),
    Rule(
        id="quantization.weights.accelerator",
        at="spec",
        field=".quantization.weights",
        holds=lambda spec: (
            spec.engine.type != VLLM or _weights(spec) not in VLLM_ACCELERATOR_ONLY or spec.accelerator is not None
        ),
        cel=f"self.engine.type != 'vLLM' || !({_HAS_WEIGHTS}) || has(self.accelerator)"
        f" || !(self.quantization.weights in {cel_list(VLLM_ACCELERATOR_ONLY)})",
        message=f"vLLM has no CPU kernels for {', '.join(VLLM_ACCELERATOR_ONLY)}",
        remedy="BF16, INT8, GPTQ or AWQ would work on CPU, or set spec.accelerator",
    ),
)

RULES: Final = (*SOURCE_RULES, *MODEL_RULES, *FORMAT_RULES)
