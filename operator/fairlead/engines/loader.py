"""Engine files: read, compiled once, rendered for a context, checked. Every failure names the file, the line and the reason.

The body is rendered by Jinja, somebody else's in its immutable sandbox, and must give YAML. Every printed value passes through `tojson`, so
that a user's text is always a JSON string and can never become YAML structure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from importlib.resources import files
from typing import Any, NoReturn, TypeVar

import jinja2
import yaml
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ValidationError

from fairlead.engines.context import EngineContext
from fairlead.engines.definition import EngineDefinition, RenderedEngine
from fairlead.engines.sections import load_sections
from fairlead.engines.version import Version
from fairlead.errors import EngineTemplateError, RenderError

__all__ = ["BUILTIN_ENGINES", "Engine", "EngineCatalog"]

BUILTIN_ENGINES = {"vLLM": "vllm.yaml.j2", "Ollama": "ollama.yaml.j2"}
#: A ConfigMap may hold 1 MiB; an engine file is some hundred lines. Bounds what a mistaken override can cost.
MAX_TEXT_LENGTH = 131_072
MAX_OUTPUT_LENGTH = 262_144
_MAX_REPEAT = 10_000

Model = TypeVar("Model", bound=BaseModel)


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, without the operators that turn ten characters of template into gigabytes."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if not all(isinstance(side, int | float) and abs(side) <= _MAX_REPEAT for side in (left, right)):
            raise jinja2.exceptions.SecurityError(f"operator {operator} takes small numbers only")
        return super().call_binop(context, operator, left, right)


#: Characters that JSON takes as they are and YAML does not: unprintable to it, or line breaks.
_NOT_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def _finalize(value: Any) -> str:
    text = json.dumps(value, default=_to_plain, ensure_ascii=False)
    return _NOT_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _to_plain(value: Any) -> Any:
    if isinstance(value, jinja2.Undefined):
        str(value)  # StrictUndefined raises with the name; json would only say that it cannot be printed
    if isinstance(value, Version):
        return value.text
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"a {type(value).__name__} cannot be printed")


def _fail(path: str, message: str, remedy: str = "") -> NoReturn:
    """For templates: refuse the custom resource, in its own terms."""
    raise RenderError(path, message, remedy)


@lru_cache(maxsize=2)
def _environment(*, trusted: bool) -> jinja2.Environment:
    """`trusted`: for the files that come with fairlead, which need no sandbox and render faster without."""
    kind = jinja2.Environment if trusted else _Environment
    environment = kind(
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals.clear()
    environment.globals.update(fail=_fail)
    return environment


@dataclass(frozen=True, eq=False)
class Engine:
    """One engine file, compiled; the same text gives the same object. `source` is what messages call it; `revision` changes
    when the text does (law 8)."""

    definition: EngineDefinition
    source: str
    revision: str
    template: jinja2.Template
    body_lines: Sequence[str]
    line_offset: int

    def render(self, context: EngineContext) -> RenderedEngine:
        """Raises RenderError when the template refuses the custom resource, EngineTemplateError when the template is
        broken."""
        if not context.version.at_least(self.definition.versions.minimum):
            raise RenderError(
                "spec.engine.version",
                f"{self.definition.name} {context.version} is older than this operator knows",
                f"use {self.definition.versions.minimum} or newer, for instance {self.definition.versions.default}",
            )
        variables = {item.name: getattr(context, item.name) for item in fields(context)}
        try:
            text = self.template.render(variables)
        except RenderError:
            raise
        except Exception as error:
            # A template can raise anything: what it calls is its author's choice.
            raise EngineTemplateError(f"{self.source}:{self._line_of(error)}: {_describe(error)}") from error
        if len(text) > MAX_OUTPUT_LENGTH:
            raise EngineTemplateError(
                f"{self.source}:{self.line_offset + 1}: renders to more than {MAX_OUTPUT_LENGTH} characters"
            )
        return _parse(RenderedEngine, text, self.source, self.body_lines, self.line_offset)

    def _line_of(self, error: BaseException) -> int:
        """The template's own line: the last frame of the traceback that runs compiled template code."""
        lines = []
        traceback = error.__traceback__
        while traceback is not None:
            if traceback.tb_frame.f_code.co_filename == "<template>":
                lines.append(traceback.tb_lineno)
            traceback = traceback.tb_next
        # Jinja rewrites template frames to the template's own line numbers before it re-raises.
        return (lines[-1] if lines else 1) + self.line_offset


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300] if str(error) else type(error).__name__


def _parse(model: type[Model], printed: str, source: str, lines: Sequence[str], offset: int) -> Model:
    """`printed` as YAML, as `model`. `lines` are the lines of the file that `printed` comes from, `offset` how many lines of the
    file stand before them: a mistake in what was printed is told with the line that printed it, as far as that can be seen.
    """
    try:
        value = load_sections(printed)
    except yaml.YAMLError as error:
        # Where the parser was when it began to wonder tells more than where it gave up.
        mark = getattr(error, "context_mark", None) or getattr(error, "problem_mark", None)
        wrong = printed.splitlines()[mark.line : mark.line + 1] if mark else []
        quoted = wrong[0].strip()[:120] if wrong else ""
        line = offset + _find_line(lines, quoted)
        problem = getattr(error, "problem", None) or str(error)
        raise EngineTemplateError(f"{source}:{line}: not YAML: {problem}, near {quoted!r}") from error
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        line = offset + _find_line(lines, f"{first['loc'][0]}:" if first["loc"] else "")
        raise EngineTemplateError(f"{source}:{line}: {where or 'the whole'}: {first['msg']}") from error


def _find_line(lines: Sequence[str], printed: str) -> int:
    """Number (from 1) of the line that holds `printed`, or else begins with its key; 1 when there is none."""
    stripped = [line.strip() for line in lines]
    if printed in stripped:
        return stripped.index(printed) + 1
    key = printed.partition(":")[0]
    return next((number for number, line in enumerate(stripped, 1) if key and line.startswith(f"{key}:")), 1)


@lru_cache(maxsize=128)
def _compile(source: str, text: str) -> Engine:
    if len(text) > MAX_TEXT_LENGTH:
        raise EngineTemplateError(
            f"{source}:1: {len(text)} characters are more than an engine file may have ({MAX_TEXT_LENGTH})"
        )
    lines = text.splitlines(keepends=True)
    split = next((number for number, line in enumerate(lines) if line.rstrip() == "---" and number > 0), None)
    if split is None:
        raise EngineTemplateError(f"{source}:1: no line `---` between the header and the template")
    definition = _parse(EngineDefinition, "".join(lines[:split]), source, lines[:split], 0)
    body = lines[split + 1 :]
    try:
        trusted = (source, text) in _builtin_texts().values()
        template = _environment(trusted=trusted).from_string("".join(body))
    except jinja2.TemplateSyntaxError as error:
        raise EngineTemplateError(f"{source}:{error.lineno + split + 1}: {error.message}") from error
    revision = blake2b(text.encode(), digest_size=5).hexdigest()
    return Engine(definition, source, revision, template, tuple(body), split + 1)


@lru_cache(maxsize=1)
def _builtin_texts() -> dict[str, tuple[str, str]]:
    folder = files("fairlead.engines")
    return {
        name: (f"engines/{file}", (folder / file).read_text(encoding="utf-8")) for name, file in BUILTIN_ENGINES.items()
    }


@dataclass(frozen=True)
class EngineCatalog:
    """The engines of an installation: built-in ones, and what ConfigMaps override or add.

    `texts` maps the engine's name to (what messages call its source, its text). Immutable; a broken engine is found when
    it is asked for, so that it stalls only those who use it.
    """

    texts: Mapping[str, tuple[str, str]]

    @classmethod
    def builtin(cls) -> EngineCatalog:
        """The engines that come with fairlead."""
        return cls(_builtin_texts())

    def with_overrides(self, overrides: Mapping[str, tuple[str, str]]) -> EngineCatalog:
        """A catalog in which `overrides` (name → (source, text)) replace or add engines."""
        return replace(self, texts={**self.texts, **overrides})

    @property
    def names(self) -> list[str]:
        """Names of all engines, sorted."""
        return sorted(self.texts)

    def get(self, name: str) -> Engine:
        """The compiled engine. Raises EngineTemplateError when it is broken, KeyError when there is none."""
        source, text = self.texts[name]
        engine = _compile(source, text)
        if engine.definition.name != name:
            raise EngineTemplateError(
                f"{source}:1: name: is {engine.definition.name!r}, but the engine is called {name!r}"
            )
        return engine
