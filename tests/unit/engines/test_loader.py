"""Engine files: a broken one names file, line and reason; what a user writes can never become structure."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import SandboxedEnvironment
from tests.unit.engines.mini import MINI

from fairlead.engines.context import AcceleratorContext, EngineContext, ModelContext, SequenceContext
from fairlead.engines.loader import BUILTIN_ENGINES, EngineCatalog
from fairlead.engines.version import Version, read_image_version
from fairlead.errors import EngineTemplateError, RenderError

CONTEXT = EngineContext("x", Version.parse("1.1"), ModelContext("hf", "org/model", "m"))


def render(text: str, context: EngineContext = CONTEXT) -> object:
    return EngineCatalog({"Mini": ("mini.yaml.j2", text)}).get("Mini").render(context)


def line_of(needle: str) -> int:
    return next(number for number, line in enumerate(MINI.splitlines(), 1) if needle in line)


def test_the_smallest_engine_renders() -> None:
    rendered = EngineCatalog({"Mini": ("mini", MINI)}).get("Mini").render(CONTEXT)
    assert rendered.image == "example.com/mini:1.1"
    assert rendered.args == [["org/model"], ["--name", "m"]]
    assert rendered.drain.grace_period_seconds == 125


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("model.reference", "model.refrence", line_of("args:"), "no attribute 'refrence'"),
        ("drain.timeout_s", "missing.timeout_s", line_of("drain:"), "'missing' is undefined"),
        ("{% endif %}\n", "", None, "endif"),
        ("port: 9000", "port: {{ 1 / 0 }}", line_of("port: 9000"), "ZeroDivisionError"),
        ("port: 9000", "port: {{ model.__class__ }}", line_of("port: 9000"), "SecurityError"),
        ("port: 9000", "port: {{ 'a' * 1000000000 }}", line_of("port: 9000"), "small numbers only"),
        ("port: 9000", "port: {{ cycler }}", line_of("port: 9000"), "'cycler' is undefined"),
        ("port: 9000", "port: 70000", line_of("port: 9000"), "port"),
        ("port: 9000", "prot: 9000", line_of("---") + 1, "port: Field required"),
        ("command: [mini]", "command: [mini", line_of("command:"), "not YAML"),
        ("sources: [hf, pvc]", "sources: [hf", 3, "not YAML"),
        ("sources: [hf, pvc]", "source: [hf]", 1, "sources"),
        ('minimum: "1.0"', "minimum: soon", 2, "is not a version"),
        ("tcpSocket: {port: http}", "tcpSocket: {port: http}, exec: {}", line_of("probes:"), "exactly one of"),
        ("name: Mini", "name: Maxi", 1, "'Maxi'"),
        ("\n---\n", "\n", 1, "---"),
    ],
)
def test_a_broken_engine_names_file_line_and_reason(old: str, new: str, line: int | None, words: str) -> None:
    assert old in MINI
    with pytest.raises(EngineTemplateError) as caught:
        render(MINI.replace(old, new))
    message = str(caught.value)
    match = re.match(r"mini\.yaml\.j2:(\d+): ", message)
    assert match, message
    assert words in message
    if line is not None:
        assert int(match[1]) == line, message


def test_a_template_may_refuse_the_resource_in_its_own_terms() -> None:
    with pytest.raises(RenderError) as caught:
        render(MINI, replace(CONTEXT, sequences=SequenceContext(max_sequences=3)))
    assert caught.value.path == "spec.context.maxSequences"
    assert caught.value.remedy == "leave it out"


def test_a_version_older_than_the_engine_file_knows_is_refused_a_newer_one_is_not() -> None:
    with pytest.raises(RenderError, match=r"1\.0 or newer"):
        render(MINI, replace(CONTEXT, version=Version.parse("0.9")))
    assert render(MINI, replace(CONTEXT, version=Version.parse("7.0.1rc2")))


def test_overrides_replace_and_add_and_a_broken_one_harms_nobody_else() -> None:
    catalog = EngineCatalog.builtin().with_overrides({"Mini": ("a", MINI), "Broken": ("b", "nothing")})
    assert catalog.names == ["Broken", "Mini", "Ollama", "vLLM"]
    assert catalog.get("Mini").render(CONTEXT)
    with pytest.raises(EngineTemplateError, match="b:1"):
        catalog.get("Broken")
    with pytest.raises(KeyError):
        catalog.get("Nobody")
    assert EngineCatalog.builtin().names == sorted(BUILTIN_ENGINES)


def test_the_revision_follows_the_text() -> None:
    one, two = (EngineCatalog({"Mini": ("m", text)}).get("Mini").revision for text in (MINI, MINI + "# \n"))
    assert one != two
    assert one == EngineCatalog({"Mini": ("elsewhere", MINI)}).get("Mini").revision


HOSTILE = st.text(max_size=60) | st.sampled_from(
    ["{{ 7 * 7 }}", 'a"\n- b: c', "x\n---\ny", "#", "- !!python/object:os", "a\u2028b\x85\x7f\ufeff😀", "${HOME}", "%x"]
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(HOSTILE, HOSTILE)
def test_what_a_user_writes_is_a_value_and_nothing_else(reference: str, name: str) -> None:
    context = replace(CONTEXT, model=ModelContext("hf", reference, name))
    mini = EngineCatalog({"Mini": ("mini", MINI)}).get("Mini").render(context)
    context = replace(context, version=Version.parse("0.33.0"))
    assert mini.args == [[reference], ["--name", name]]
    vllm = EngineCatalog.builtin().get("vLLM").render(context)
    assert vllm.args[0] == [reference]
    assert ["--served-model-name", name] in vllm.args
    assert vllm.image == "vllm/vllm-openai-cpu:v0.33.0-x86_64"
    ollama_context = replace(context, model=ModelContext("ollama", reference, name))
    ollama = EngineCatalog.builtin().get("Ollama").render(ollama_context)
    assert ollama.init_containers[0].args == [reference, name, ""]
    assert ollama.command[:2] == ["/bin/sh", "-c"]
    assert (
        ollama.command[2]
        == EngineCatalog.builtin()
        .get("Ollama")
        .render(replace(context, model=ModelContext("ollama", "a", "b")))
        .command[2]
    )


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("vllm/vllm-openai:v0.33.0", "0.33.0"),
        ("reg:5000/vllm-openai-cpu:v0.33.0-x86_64", "0.33.0"),
        ("reg:5000/vllm", None),
        ("x:latest", None),
        ("x:cu130-v0.20.1", "0.20.1"),
        ("x:0.11", "0.11"),
        ("x:v1", None),
        ("x@sha256:0.1", None),
        ("x:v0.9.2@sha256:abcdef", "0.9.2"),
    ],
)
def test_versions_in_image_tags(image: str, version: str | None) -> None:
    assert read_image_version(image) == version


def test_versions_compare_by_number() -> None:
    assert Version.parse("0.18.0").at_least("0.18")
    assert Version.parse("0.100.0").at_least("0.18")
    assert Version.parse("v1.0rc1").at_least("0.33")
    assert not Version.parse("0.17.9").at_least("0.18")
    with pytest.raises(ValueError, match="latest"):
        Version.parse("latest")


@pytest.mark.parametrize("name", BUILTIN_ENGINES)
def test_only_what_comes_with_fairlead_is_rendered_without_a_sandbox(name: str) -> None:
    builtin = EngineCatalog.builtin()
    source, text = builtin.texts[name]
    copied = builtin.with_overrides({name: (f"ConfigMap a/b {source}", text)})
    changed = builtin.with_overrides({name: (source, text + "\n")})
    context = replace(CONTEXT, version=Version.parse(builtin.get(name).definition.versions.default))
    context = replace(context, accelerator=AcceleratorContext("nvidia", 1, "nvidia.com/gpu"))
    kinds = [isinstance(one.get(name).template.environment, SandboxedEnvironment) for one in (builtin, copied, changed)]
    assert kinds == [False, True, True]
    assert builtin.get(name).render(context) == copied.get(name).render(context)
