"""A proof that lets mistakes pass proves nothing: each of these, put in on purpose, must be seen by the properties of `test_law`.

A mistake that only the judge of the files sees is looked for there; one in whether a route is accepted, in what plan_route does.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import pytest
import tests.law.mutations_of_hold
import tests.law.mutations_of_limits
import tests.law.mutations_of_tls  # noqa: F401 - both register their own
from tests.law.cases import Case, deal, make_requests
from tests.law.judge import Judge
from tests.law.mutations_of_code import MUTATIONS
from tests.law.mutations_of_files import EDITS as FILE_EDITS
from tests.law.mutations_of_files import Files
from tests.law.mutations_of_patterns import PATTERN_EDITS
from tests.law.mutations_of_tables import TABLE_MUTATIONS
from tests.law.rendering import plan, render
from tests.law.test_law import assert_own_secrets, make_acceptable
from tests.law.truth import Law, Request, Ruling

IN_CODE: Final = {**MUTATIONS, **TABLE_MUTATIONS}
EDITS: Final = {**FILE_EDITS, **PATTERN_EDITS}
SEED: Final = 4711
ROUTES: Final = 48
Asked = tuple[Case, list[tuple[Request, Ruling]]]


@lru_cache(maxsize=1)
def cases() -> list[Asked]:
    """The same few routes for all, with what the law says to each request."""
    dice, asked = random.Random(SEED), []
    for case in deal(dice, ROUTES):
        law = Law(case.route, case.world)
        asked.append((case, [(request, law.rule(request)) for request in make_requests(dice, case, 20)]))
    return asked


@lru_cache(maxsize=1)
def rendered() -> list[Mapping[str, str]]:
    """Their files, without a mistake in the code."""
    return [render(case.route, case.world) for case, _ in cases()]


def problems(edit: Callable[[Files], None] | None = None) -> Iterator[str]:
    """What is found, requests first, since most mistakes show there."""
    for number, (case, requests) in enumerate(cases()):
        if edit is None:
            files = render(case.route, case.world)
        else:
            parsed = {name: json.loads(text) for name, text in rendered()[number].items()}
            edit(parsed)
            files = {name: json.dumps(value) for name, value in parsed.items()}
        try:
            judge = Judge(case.route, case.world, files)
        except AssertionError as error:
            yield str(error)
            continue
        yield from filter(None, (judge.check(request, ruling) for request, ruling in requests))
        yield from judge.walls()
        simple = [request for request, _ in requests if not request.opaque]
        yield from filter(None, (judge.lists(caller, simple) for caller in case.callers))


@lru_cache(maxsize=1)
def planned_cases() -> list[tuple[Case, dict[str, Any], bool]]:
    """Routes as plan_route sees them, most of them without anything that would refuse them."""
    dice, found = random.Random(SEED), []
    for number, case in enumerate(deal(dice, 40)):
        if number % 3:
            make_acceptable(case, dice)
        world = case.world
        found.append((case, world, Law(case.route, world).is_accepted()))
    return found


def problems_of_plans() -> Iterator[str]:
    """The same of what plan_route makes of whole routes."""
    for case, world, accepted in planned_cases():
        planned = plan(case.route, world)
        if planned.accepted != accepted or (planned.files is not None) != accepted:
            yield f"accepted: {accepted}, but {planned.message}"
        elif accepted:
            try:
                assert_own_secrets(case, planned.plan.children, "")
            except AssertionError as error:
                yield str(error)


OF_PLANS: Final = ("gaps-are-accepted", "the-list-of-denied-classes-is-ignored", "keys-are-mounted-from-the-secret-of-another-backend",
                   "a-refused-route-is-published", "a-wrong-claim-of-trust-is-accepted")  # fmt: skip


@pytest.mark.parametrize("name", IN_CODE)
def test_a_mistake_in_the_code_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cases(), planned_cases()
    IN_CODE[name](monkeypatch)
    found = next(problems_of_plans() if name in OF_PLANS else problems(), None)
    assert found is not None, f"{name} is not seen"


@pytest.mark.parametrize("name", EDITS)
def test_a_mistake_in_the_files_is_caught(name: str) -> None:
    found = next(problems(EDITS[name]), None)
    assert found is not None, f"{name} is not seen"


def test_without_a_mistake_nothing_is_found() -> None:
    """On the same cases: so that none of the above is caught by chance. And there are enough of them."""
    before = copy.deepcopy([case.route for case, _ in cases()])
    assert list(problems()) == []
    assert list(problems_of_plans()) == []
    assert [case.route for case, _ in cases()] == before
    print(f"\nmutations: {len(IN_CODE) + len(EDITS)}")
    assert len(IN_CODE) + len(EDITS) >= 40
