"""Which of vLLM's flags belong to fields of the API: `spec.engine.args` may not say the same thing a second time.

vLLM's parser takes `_` for `-`, `--flag=value`, `--no-flag`, short spellings, and (argparse) every unambiguous abbreviation.
The patterns here match all of these, and the same text is used by CEL and by Python.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fairlead.api.formats import OLLAMA, VLLM
from fairlead.api.rules.table import Rule

#: Where the first letters alone are another flag's name: `--device` was one.
_SHORTEST_ABBREVIATION: Final = {"--device-memory-utilization": len("device-m")}


def _abbreviations(flag: str) -> str:
    """A pattern for a long flag without its dashes and all its abbreviations, with `_` or `-` between words: `p(o(r(t)?)?)?`."""
    name = [("[-_]" if character == "-" else character) for character in flag.removeprefix("--")]
    shortest = _SHORTEST_ABBREVIATION.get(flag, 1)
    pattern = ""
    for character in reversed(name[shortest:]):
        pattern = f"({character}{pattern})?"
    return "".join(name[:shortest]) + pattern


def flag_pattern(flags: Sequence[str], short: Sequence[str] = ()) -> str:
    """A pattern for the beginning of an argument that is one of `flags` (long) or `short` (with the value attached or not)."""
    spelled = "|".join(_abbreviations(flag) for flag in flags)
    # A value may be attached: -tp4, -qfp8. Longer names that begin alike (-dph) are other flags, so only digits follow those.
    attached = "".join(f"|^{alias}([=0-9]|$)" if len(alias) > 2 else f"|^{alias}" for alias in short)
    return f"^--(no[-_])?({spelled})(=|$){attached}"


@dataclass(frozen=True, slots=True)
class FieldFlags:
    """Flags that a field of the API renders. `given` is True when the object sets the field, `cel_given` says it in CEL."""

    path: str
    given: Callable[[Any], bool]
    cel_given: str
    flags: tuple[str, ...]
    short: tuple[str, ...] = ()


_QUANTIZATION: Final = "has(self.quantization) && has(self.quantization.{})"

#: Rendered by fairlead for every object, or never to be given as an argument.
PROTECTED_FLAGS: Final = {
    "--host": "the address belongs to fairlead",
    "--port": "the port belongs to fairlead",
    "--uds": "the address belongs to fairlead",
    "--model": "spec.model.source says it",
    "--served-model-name": "spec.model.name says it",
    "--api-key": "a key would stand in every listing of processes; set VLLM_API_KEY in spec.engine.env with valueFrom",
    "--hf-token": "a token would stand in every listing of processes; set spec.model.secretRef",
    "--trust-remote-code": "spec.model.trustRemoteCode says it, with a pinned revision",
    "--code-revision": "spec.model.revision pins the code, too",
}

FIELD_FLAGS: Final = (
    FieldFlags(
        "spec.model.revision",
        lambda spec: spec.model.revision is not None,
        "has(self.model.revision)",
        ("--revision",),
    ),
    FieldFlags(
        "spec.model.task",
        lambda spec: spec.model.task != "Generate",
        "self.model.task != 'Generate'",
        ("--runner",),
    ),
    FieldFlags(
        "spec.quantization.weights",
        lambda spec: spec.quantization is not None and spec.quantization.weights is not None,
        _QUANTIZATION.format("weights"),
        ("--quantization", "--dtype"),
        ("-q",),
    ),
    FieldFlags(
        "spec.quantization.kvCache",
        lambda spec: spec.quantization is not None and spec.quantization.kv_cache is not None,
        _QUANTIZATION.format("kvCache"),
        ("--kv-cache-dtype",),
    ),
    FieldFlags(
        "spec.accelerator.memoryUtilizationPercent",
        lambda spec: spec.accelerator is not None and spec.accelerator.memory_utilization_percent is not None,
        "has(self.accelerator) && has(self.accelerator.memoryUtilizationPercent)",
        ("--gpu-memory-utilization", "--device-memory-utilization"),
    ),
    *(
        FieldFlags(path, lambda spec: spec.parallelism is not None, "has(self.parallelism)", flags, (short,))
        for path, flags, short in (
            ("spec.parallelism.tensor", ("--tensor-parallel-size",), "-tp"),
            ("spec.parallelism.pipeline", ("--pipeline-parallel-size",), "-pp"),
            ("spec.parallelism.data", ("--data-parallel-size",), "-dp"),
            ("spec.parallelism.expert", ("--enable-expert-parallel", "--disable-expert-parallel"), "-ep"),
        )
    ),
    FieldFlags(
        "spec.context.maxLength",
        lambda spec: spec.context is not None and spec.context.max_length is not None,
        "has(self.context) && has(self.context.maxLength)",
        ("--max-model-len",),
    ),
    FieldFlags(
        "spec.context.maxSequences",
        lambda spec: spec.context is not None and spec.context.max_sequences is not None,
        "has(self.context) && has(self.context.maxSequences)",
        ("--max-num-seqs",),
    ),
    FieldFlags(
        "spec.rollout",
        lambda spec: spec.rollout is not None,
        "has(self.rollout)",
        ("--shutdown-timeout",),
    ),
)


def _first(pattern: str, args: Sequence[str]) -> str:
    """The flag of the first argument that matches, without its value: that may be a secret."""
    return re.split(r"[=\s]", next(argument for argument in args if re.search(pattern, argument, re.ASCII)))[0]


def _field_rule(row: FieldFlags) -> Rule:
    pattern = flag_pattern(row.flags, row.short)
    return Rule(
        id=f"engine.args.{row.path.removeprefix('spec.')}",
        at="spec",
        field=".engine.args",
        holds=lambda spec: (
            spec.engine.type != VLLM
            or not row.given(spec)
            or not any(re.search(pattern, argument, re.ASCII) for argument in spec.engine.args)
        ),
        cel=f"self.engine.type != 'vLLM' || !({row.cel_given}) || !has(self.engine.args)"
        f" || !self.engine.args.exists(a, a.matches(r'{pattern}'))",
        message=f"{', '.join((*row.flags, *row.short))} repeats {row.path}",
        remedy="leave one of the two out",
        explain=lambda spec: (f"{_first(pattern, spec.engine.args)} repeats {row.path}", "leave one of the two out"),
    )


def _explain_protected(engine: Any) -> tuple[str, str]:
    for argument in engine.args:
        for flag, reason in PROTECTED_FLAGS.items():
            if re.search(flag_pattern((flag,)), argument, re.ASCII):
                return f"{_first(flag_pattern((flag,)), [argument])} is not yours to set", reason
    raise AssertionError("no protected flag among the arguments")


def _protected_rule(number: int, flags: tuple[str, ...]) -> Rule:
    """Some of the protected flags: all of them in one expression would cost CEL more than it may."""
    pattern = flag_pattern(flags)
    return Rule(
        id=f"engine.args.protected.{number}",
        at="spec.engine",
        field=".args",
        holds=lambda engine: (
            engine.type != VLLM or not any(re.search(pattern, argument, re.ASCII) for argument in engine.args)
        ),
        cel=f"self.type != 'vLLM' || !has(self.args) || !self.args.exists(a, a.matches(r'{pattern}'))",
        message=f"{', '.join(flags)} belong to fairlead or to fields of this object",
        remedy="leave them out; API keys go into VLLM_API_KEY by spec.engine.env with valueFrom",
        explain=_explain_protected,
    )


_PROTECTED: Final = tuple(PROTECTED_FLAGS)
_WHOLE_LINE: Final = r"^--?[A-Za-z][-A-Za-z0-9_.]*[ \t]"

RULES: Final = (
    _protected_rule(1, _PROTECTED[:4]),
    _protected_rule(2, _PROTECTED[4:7]),
    _protected_rule(3, _PROTECTED[7:]),
    Rule(
        id="engine.args.line",
        at="spec.engine",
        field=".args",
        holds=lambda engine: not any(re.search(_WHOLE_LINE, argument, re.ASCII) for argument in engine.args),
        cel=f"!has(self.args) || !self.args.exists(a, a.matches(r'{_WHOLE_LINE}'))",
        message="an argument holds a flag and its value in one string",
        remedy="write two items, or flag=value",
        explain=lambda engine: (
            f"{_first(_WHOLE_LINE, engine.args)} and its value are one string",
            f"write two items, or {_first(_WHOLE_LINE, engine.args)}=…",
        ),
    ),
    Rule(
        id="engine.args.first",
        at="spec.engine",
        field=".args",
        holds=lambda engine: (
            engine.type != VLLM or not engine.args or not engine.args[0] or engine.args[0].startswith("-")
        ),
        cel="self.type != 'vLLM' || !has(self.args) || size(self.args) == 0 || self.args[0] == '' || self.args[0].startsWith('-')",
        message="must begin with a flag: fairlead renders the command and the model itself",
        remedy="leave vllm, serve and the model out",
    ),
    Rule(
        id="engine.args.Ollama",
        at="spec.engine",
        field=".args",
        holds=lambda engine: engine.type != OLLAMA or not engine.args,
        cel="self.type != 'Ollama' || !has(self.args) || size(self.args) == 0",
        message="ollama serve takes no arguments",
        remedy="set environment variables (OLLAMA_…) in spec.engine.env",
    ),
    *(_field_rule(row) for row in FIELD_FLAGS),
)
