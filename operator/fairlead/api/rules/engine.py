"""Rules about what serves the model: engine, version, image, environment and files."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from fairlead.api.formats import KNOWN_ENGINES, OLLAMA, VLLM
from fairlead.api.rules.table import Rule, cel_list, matches, pattern_rule

_VERSION: Final = "v?[0-9]+([.][0-9]+)+([-.+]?[A-Za-z0-9]+)*"
_IMAGE: Final = (
    "[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
#: An image whose tag says a version (`v0.33.0-x86_64`, `0.11`, `cu130-v0.20.1`).
_TAGGED: Final = "(.*/)?[^/:@]+:([^/:@]*[^0-9./:@])?[0-9]+[.][0-9]+[^/:@]*(@.*)?"
_FILE_PATH: Final = "(/[^/:]+){2,}"
_CONFIDENTIAL: Final = "(.*_)?(API_KEY|PASSWORD|SECRET|SECRET_ACCESS_KEY|ACCESS_TOKEN|AUTH_TOKEN|HF_TOKEN|HUB_TOKEN)"
#: The directory of a file is mounted as a whole (so that changes arrive), and hides what the image has there.
_SYSTEM_DIRECTORY: Final = (
    "/(bin|boot|dev|etc|home|lib|lib64|media|mnt|opt|root|run|sbin|srv|tmp|usr|var|cache|model)"
    "|/(usr|usr/local|var)/(bin|lib|lib64|sbin|share|local|tmp|run)|/home/fairlead|/dev/shm"
)
_OCCUPIED: Final = f"({_SYSTEM_DIRECTORY})/[^/]+|/(proc|sys|dev)/.*"

#: Environment variables that carry what fairlead promises of every pod of that engine.
RESERVED_ENV: Final = {
    VLLM: {"VLLM_SERVER_DEV_MODE": "it opens endpoints that change the engine from outside"},
    OLLAMA: {
        "OLLAMA_HOST": "the address belongs to fairlead",
        "OLLAMA_MODELS": "spec.storage says where models are kept",
        "OLLAMA_KEEP_ALIVE": "readiness means that the model is loaded, so it stays loaded",
        "OLLAMA_NO_CLOUD": "prompts stay in the cluster",
    },
}


def _env_names(spec: Any) -> set[str]:
    return {entry["name"] for entry in spec.engine.env}


def _env_rule(
    rule_id: str, path: str, names: tuple[str, ...], given: Callable[[Any], bool], cel_given: str, engine: str = ""
) -> Rule:
    """An environment variable that carries a field which is set may not be given a second time."""
    guard = f"self.engine.type != '{engine}' || " if engine else ""
    return Rule(
        id=rule_id,
        at="spec",
        field=".engine.env",
        holds=lambda spec: (
            (bool(engine) and spec.engine.type != engine) or not given(spec) or _env_names(spec).isdisjoint(names)
        ),
        cel=f"{guard}!({cel_given}) || !has(self.engine.env) || !self.engine.env.exists(e, e.name in {cel_list(names)})",
        message=f"{', '.join(names)} repeats {path}",
        remedy="leave one of the two out",
        explain=lambda spec: (
            f"{min(_env_names(spec).intersection(names))} repeats {path}",
            "leave one of the two out",
        ),
    )


def _reserved_env_rule(engine: str) -> Rule:
    names = RESERVED_ENV[engine]

    def explain(node: Any) -> tuple[str, str]:
        name = next(entry["name"] for entry in node.env if entry["name"] in names)
        return f"{name} is not yours to set: {names[name]}", "leave it out"

    return Rule(
        id=f"engine.env.reserved.{engine}",
        at="spec.engine",
        field=".env",
        holds=lambda node: node.type != engine or not any(entry["name"] in names for entry in node.env),
        cel=f"self.type != '{engine}' || !has(self.env) || !self.env.exists(e, e.name in {cel_list(names)})",
        message=f"{', '.join(names)} carries what fairlead promises of every pod",
        remedy="leave it out",
        explain=explain,
    )


def _explain_type(name: str) -> tuple[str, str]:
    return f"engines are spelled {' and '.join(KNOWN_ENGINES)}", next(
        k for k in KNOWN_ENGINES if k.lower() == name.lower()
    )


def _prefixed(files: Any) -> bool:
    paths = [file.path for file in files]
    return any(inner.startswith(f"{outer}/") for outer in paths for inner in paths)


ENGINE_RULES: Final = (
    pattern_rule(
        "engine.type.format",
        "spec.engine.type",
        "[A-Za-z][-A-Za-z0-9]{0,38}[A-Za-z0-9]",
        "is not the name of an engine: 2 to 40 letters, digits and -, beginning with a letter",
        "vLLM or Ollama, or the name of an engine that an administrator added",
    ),
    Rule(
        id="engine.type.case",
        at="spec.engine.type",
        holds=lambda name: name in KNOWN_ENGINES or name.lower() not in ("vllm", "ollama"),
        cel=f"self in {cel_list(KNOWN_ENGINES)} || !(self.lowerAscii() in ['vllm', 'ollama'])",
        message="engines are spelled vLLM and Ollama",
        remedy="vLLM or Ollama would work",
        explain=_explain_type,
    ),
    Rule(
        id="engine.version.format",
        at="spec.engine",
        field=".version",
        holds=lambda engine: (
            engine.type not in KNOWN_ENGINES
            or not engine.version
            or re.fullmatch(_VERSION, engine.version, re.ASCII) is not None
        ),
        cel=f"!(self.type in {cel_list(KNOWN_ENGINES)}) || !has(self.version) || self.version == ''"
        f" || {matches(_VERSION, 'self.version')}",
        message="is not a version",
        remedy="for instance 0.33.0; leave it out for the version that fairlead was tested with",
    ),
    pattern_rule(
        "engine.version.charset",
        "spec.engine.version",
        "[A-Za-z0-9][-A-Za-z0-9_.+]*",
        "is not a version: letters, digits, -, _, . and +",
        "for instance 0.33.0",
        empty=True,
    ),
    Rule(
        id="engine.version.image",
        at="spec.engine",
        field=".version",
        holds=lambda engine: (
            engine.type not in KNOWN_ENGINES
            or not engine.image
            or bool(engine.version)
            or re.fullmatch(_TAGGED, engine.image, re.ASCII) is not None
        ),
        cel=f"!(self.type in {cel_list(KNOWN_ENGINES)}) || !has(self.image) || self.image == ''"
        f" || (has(self.version) && self.version != '') || {matches(_TAGGED, 'self.image')}",
        message="is needed because the tag of spec.engine.image does not say which version is inside",
        remedy="set the version of the engine in that image, for instance 0.33.0",
    ),
    pattern_rule(
        "engine.image.format",
        "spec.engine.image",
        _IMAGE,
        "is not an image: [registry/]name[:tag][@sha256:digest], without https://",
        "for instance registry.example.com/vllm-openai:v0.33.0",
        empty=True,
    ),
)

ENVIRONMENT_RULES: Final = (
    pattern_rule(
        "engine.env.name",
        "spec.engine.env[*].name",
        "[-._a-zA-Z][-._a-zA-Z0-9]*",
        "is not the name of an environment variable: letters, digits, -, _ and ., not beginning with a digit",
        "for instance VLLM_LOGGING_LEVEL",
    ),
    Rule(
        id="engine.env.one",
        at="spec.engine.env[*]",
        field=".valueFrom",
        holds=lambda entry: entry.get("value", "") == "" or "valueFrom" not in entry,
        cel="!has(self.value) || self.value == '' || !has(self.valueFrom)",
        message="has both value and valueFrom",
        remedy="leave one of the two out",
    ),
    Rule(
        id="engine.env.secret",
        at="spec.engine.env[*]",
        field=".value",
        holds=lambda entry: (
            entry.get("value", "") == "" or re.fullmatch(_CONFIDENTIAL, entry["name"], re.ASCII) is None
        ),
        cel=f"!has(self.value) || self.value == '' || !{matches(_CONFIDENTIAL, 'self.name')}",
        message="a secret would be readable by everybody who can read this object",
        remedy="put it into a Secret and refer to it by valueFrom.secretKeyRef",
    ),
    _reserved_env_rule(VLLM),
    _reserved_env_rule(OLLAMA),
    _env_rule(
        "engine.env.secretRef",
        "spec.model.secretRef",
        ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
        lambda spec: spec.model.secret_ref is not None,
        "has(self.model.secretRef)",
    ),
    _env_rule(
        "engine.env.maxLength",
        "spec.context.maxLength",
        ("OLLAMA_CONTEXT_LENGTH",),
        lambda spec: spec.context is not None and spec.context.max_length is not None,
        "has(self.context) && has(self.context.maxLength)",
        OLLAMA,
    ),
    _env_rule(
        "engine.env.maxSequences",
        "spec.context.maxSequences",
        ("OLLAMA_NUM_PARALLEL",),
        lambda spec: spec.context is not None and spec.context.max_sequences is not None,
        "has(self.context) && has(self.context.maxSequences)",
        OLLAMA,
    ),
    _env_rule(
        "engine.env.kvCache",
        "spec.quantization.kvCache",
        ("OLLAMA_KV_CACHE_TYPE",),
        lambda spec: spec.quantization is not None and spec.quantization.kv_cache is not None,
        "has(self.quantization) && has(self.quantization.kvCache)",
        OLLAMA,
    ),
)

FILE_RULES: Final = (
    Rule(
        id="files.one",
        at="spec.files[*]",
        holds=lambda file: (file.config_map_ref is None) != (file.secret_ref is None),
        cel="has(self.configMapRef) != has(self.secretRef)",
        message="must have exactly one of configMapRef and secretRef",
        remedy="one file comes from one key",
    ),
    pattern_rule(
        "files.path.absolute",
        "spec.files[*].path",
        _FILE_PATH,
        "must be an absolute path of a file in a directory, without // or : or a / at the end",
        "for instance /etc/llm/chat.jinja",
    ),
    Rule(
        id="files.path.clean",
        at="spec.files[*].path",
        holds=lambda path: re.search("/[.][.]?(/|$)", path) is None,
        cel="!self.matches('/[.][.]?(/|$)')",
        message="must not hold . or .. as a directory",
        remedy="write the path that it means",
    ),
    Rule(
        id="files.path.system",
        at="spec.files[*].path",
        holds=lambda path: re.fullmatch(_OCCUPIED, path, re.ASCII) is None,
        cel=f"!{matches(_OCCUPIED)}",
        message="lies directly in a directory of the system or of fairlead, which the file would hide",
        remedy="take a directory of its own, for instance /etc/llm/chat.jinja",
        explain=lambda path: (
            f"lies directly in {path.rpartition('/')[0]}, whose other files it would hide",
            f"/etc/llm/{path.rpartition('/')[2]} would work",
        ),
    ),
    Rule(
        id="files.path.nested",
        at="spec",
        field=".files",
        holds=lambda spec: not _prefixed(spec.files),
        cel="!has(self.files) || !self.files.exists(f, self.files.exists(g, g.path.startsWith(f.path + '/')))",
        message="one path is a directory of another one",
        remedy="give the files different directories",
    ),
)

RULES: Final = (*ENGINE_RULES, *ENVIRONMENT_RULES, *FILE_RULES)
