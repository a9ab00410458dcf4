"""Rules of LLMRoute that repeat what somebody else says: the classifier, the provider files, the reader of addresses."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable
from importlib.resources import files

import pytest
from lupa.luajit21 import LuaRuntime
from tests.unit.api.cases import ROUTES, make_route_resource

from fairlead.api.resource import LLMRoute
from fairlead.api.route import BuiltinDetector, DataClass, ProviderType
from fairlead.api.rules.detectors import RESERVED_DETECTORS, is_findable, is_folded
from fairlead.api.rules.route import OWN_BASE_URL
from fairlead.api.validation import parse_llmroute
from fairlead.errors import RenderError
from fairlead.gateway import lua
from fairlead.policy.law import CLASSES
from fairlead.providers.hosts import parse_base_url
from fairlead.providers.loader import ProviderCatalog

_COMPILES = """
return function(keyword)
  return (pcall(compile_detectors, { { name = "x", class = "Public", keywords = { keyword } } }, { Public = 1 }))
end
"""


def _read(name: str) -> str:
    return files(lua).joinpath(name).read_text(encoding="utf-8")


def _compiles() -> Callable[[bytes], bool]:
    """Whether the gateway can make something to look for of a keyword: its own texts."""
    source = "\n".join([*map(_read, ("json.lua", "fold.lua", "detect.lua")), _COMPILES])
    compiles: Callable[[bytes], bool] = LuaRuntime(encoding=None).execute(source.encode())
    return compiles


def test_every_keyword_that_passes_can_be_compiled() -> None:
    """For every character there is: twice, with what stands between words around it. Otherwise the gateway refuses all requests."""
    compiles = _compiles()
    assert not compiles(b"--")
    wrong = []
    for code in range(1, sys.maxunicode + 1):
        if 0xD800 <= code < 0xE000:
            continue
        keyword = f"-{chr(code)}{chr(code)} _"
        if is_findable(keyword) and not compiles(keyword.encode()):
            wrong.append(f"U+{code:04X}")
    assert wrong == []


def test_letters_and_digits_of_all_scripts_pass() -> None:
    refused = [
        chr(code)
        for code in range(1, 0x30000)
        if unicodedata.category(chr(code)) in ("Lu", "Ll", "Lo", "Nd") and not is_findable(chr(code))
    ]
    # Fillers, and marks that look like a hyphen: they are letters by name only.
    assert {f"{ord(letter):04X}" for letter in refused} <= {
        "00AA",
        "115F",
        "1160",
        "1400",
        "3006",
        "303C",
        "3164",
        "FFA0",
    } | {f"{code:04X}" for code in range(0x180A, 0x1820)}


def test_reserved_names_are_those_that_the_classifier_gives() -> None:
    named = re.search(r"local RULES = {(.*?)}", _read("answer.lua"), re.DOTALL)
    assert named is not None
    assert {"header", *re.findall(r"^ +(\w+) =", named[1], re.MULTILINE)} == set(RESERVED_DETECTORS)


def test_what_a_pattern_may_not_have_is_what_its_text_never_has() -> None:
    """And no letter passes that the text does not have."""
    source = "\n".join([*map(_read, ("json.lua", "fold.lua")), "return fold"])
    fold: Callable[[bytes], bytes] = LuaRuntime(encoding=None).execute(source.encode())
    for code in range(1, 0x20000):
        if 0xD800 <= code < 0xE000:
            continue
        sign = chr(code)
        kept = fold(sign.encode()) == sign.encode()
        assert kept or not is_folded(sign) or unicodedata.category(sign) not in ("Lu", "Ll"), hex(code)
        assert not kept or is_folded(sign), hex(code)


def test_providers_that_need_an_address_are_those_without_one() -> None:
    definitions = {provider.value: ProviderCatalog.builtin().get(provider.value) for provider in ProviderType}
    needy = {name for name, one in definitions.items() if not one.base_urls and one.unsupported is None}
    assert needy == set(OWN_BASE_URL)


def _addresses() -> list[str]:
    backends = [case.resource["spec"].get("backends") for case in ROUTES.rows("valid") + ROUTES.rows("invalid")]
    providers = [one["provider"] for some in backends if isinstance(some, list) for one in some if "provider" in one]
    return sorted({one["baseURL"] for one in providers if one and isinstance(one.get("baseURL"), str)})


@pytest.mark.parametrize("url", _addresses())
def test_an_address_that_is_refused_could_not_be_called(url: str) -> None:
    """The rule says earlier what the planner would say; and what it lets pass, the planner can read, whether or not it may call it.
    A scheme in capitals is the same to the planner, and the rule is stricter about it."""
    problem = ""
    try:
        parse_base_url(url, path="x", trusted_hosts=("*.example.com", "*.modal.run", "10.9.8.7", "fd00::1"))
    except RenderError as error:
        problem = str(error)
    if isinstance(_parse(url), LLMRoute):
        assert problem == ""
    elif url.startswith("https://") and len(url) <= 512:
        assert problem


def _parse(url: str) -> object:
    provider = {"type": "OpenAICompatible", "baseURL": url, "secretRef": {"name": "a", "key": "b"}}
    return parse_llmroute(
        make_route_resource("own", {"spec": {"backends": [{"name": "mycloud", "provider": provider}]}})
    )


def test_classes_are_in_the_order_of_the_law() -> None:
    assert tuple(DataClass) == tuple(CLASSES)


def test_builtins_are_known_to_the_gateway() -> None:
    text = _read("detect.lua")
    for builtin in BuiltinDetector:
        assert re.search(rf"\b{builtin.value}\b", text), builtin
