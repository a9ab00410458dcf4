"""From the object to the container: vLLM's argument lines as they are planned, and the rules about a user's own flags.

The whole table of valid objects is planned for every version that the engine file claims; the parsers' own lists are the
judge, also of the patterns that say which flags belong to fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.unit.api.cases import Case, valid_cases
from tests.unit.engines.test_vllm_flags import claimed_versions
from tests.unit.engines.vllm_flags import check_vllm_args, read_flags
from tests.unit.planning.world import NOW

from fairlead.api.resource import LLMDeployment
from fairlead.api.rules.flags import FIELD_FLAGS, PROTECTED_FLAGS, flag_pattern
from fairlead.api.validation import parse_llmdeployment
from fairlead.engines.loader import EngineCatalog
from fairlead.engines.version import read_image_version
from fairlead.facts.observed import Observed, OperatorFacts
from fairlead.planning.deployment import plan_deployment

Json = dict[str, Any]


def vllm_cases() -> list[Case]:
    return [case for case in valid_cases() if case.resource["spec"]["engine"]["type"] == "vLLM"]


def plan_args(resource: Json) -> list[str] | None:
    """Arguments of the planned engine container; None when the engine file refuses what this version cannot do."""
    parsed = parse_llmdeployment(resource)
    assert isinstance(parsed, LLMDeployment), parsed
    plan = plan_deployment(parsed, Observed(), EngineCatalog.builtin(), OperatorFacts(), NOW)
    for child in plan.children:
        if child.key.kind == "Deployment":
            container = child.body["spec"]["template"]["spec"]["containers"][0]
            assert container["command"] == ["vllm", "serve"]
            return list(container["args"])
    stalled = next(c for c in plan.status["conditions"] if c["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "InvalidSpec"), stalled
    return None


def with_version(case: Case, version: str) -> Json:
    """The case's object for this version, without what says another one and without a user's own arguments."""
    engine = {key: value for key, value in case.resource["spec"]["engine"].items() if key not in ("image", "args")}
    return case.resource | {"spec": case.resource["spec"] | {"engine": engine | {"version": version}}}


@pytest.mark.parametrize("version", claimed_versions())
def test_every_valid_object_is_planned_to_a_line_that_the_version_takes(version: str) -> None:
    judged = 0
    for case in vllm_cases():
        args = plan_args(with_version(case, version))
        if args is not None:
            judged += 1
            assert check_vllm_args(version, args) == [], case.name
    assert judged > 30


@pytest.mark.parametrize("case", [c for c in vllm_cases() if c.resource["spec"]["engine"].get("args")], ids=str)
def test_a_users_own_arguments_leave_a_line_that_the_newest_version_takes(case: Case) -> None:
    resource = case.resource
    image_version = read_image_version(resource["spec"]["engine"].get("image") or "")
    assert image_version in (None, "0.33.0")
    args = plan_args(resource)
    assert args is not None
    assert check_vllm_args("0.33.0", args) == []


def spellings(version: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Every spelling of every option, also with underscores, and all the names of that option."""
    for name, flag in read_flags(version).flags.items():
        family = frozenset([*flag["names"], *flag.get("negative", ())])
        yield name, family
        if name.startswith("--"):
            yield "--" + name[2:].replace("-", "_"), family


@pytest.mark.parametrize("version", claimed_versions())
@pytest.mark.parametrize(
    "flags",
    [pytest.param((row.flags, row.short), id=row.path) for row in FIELD_FLAGS]
    + [pytest.param(((flag,), ()), id=flag) for flag in PROTECTED_FLAGS],
)
def test_the_patterns_match_every_spelling_of_their_flags_and_no_other_flag(
    version: str, flags: tuple[tuple[str, ...], tuple[str, ...]]
) -> None:
    pattern = re.compile(flag_pattern(*flags), re.ASCII)
    missed, mistaken = [], []
    for spelling, family in spellings(version):
        ours = not family.isdisjoint(flags[0])
        matches = bool(pattern.search(spelling)) and bool(pattern.search(f"{spelling}=1"))
        if ours and not matches:
            missed.append(spelling)
        if matches and not ours:
            mistaken.append(spelling)
    assert (missed, mistaken) == ([], [])


@pytest.mark.parametrize("version", claimed_versions())
def test_the_short_spellings_of_the_engine_file_are_the_parsers_own(version: str) -> None:
    definition = EngineCatalog.builtin().get("vLLM").definition
    flags = read_flags(version).flags
    for alias, flag in definition.flag_aliases.items():
        if alias in flags:
            assert flag in flags[alias]["names"], alias
    assert set(definition.flag_aliases) <= set(read_flags("0.33.0").flags)
