"""While one generation follows another, nothing is reached that is no longer permitted: "narrow at once", and not by accident.

Each pair is two routes by chance that have the same names of models, backends and consumers: whatever can change has changed.
plan_route is asked again and again with what it published before, until it publishes nothing new. A gateway that has loaded a
step reaches at most what the new spec permits; one that has loaded some of its files (inside of Envoy there is no order between
them) at most what the old or the new one permits.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Final

import pytest
from tests.law.addresses import Facts
from tests.law.cases import Case, Who, deal, make_requests
from tests.law.envoy_reader import Gateway, Unreadable
from tests.law.judge import Judge
from tests.law.narrowings import BESIDE, NARROWINGS, make_base
from tests.law.rendering import plan, render
from tests.law.test_law import SEED, make_acceptable
from tests.law.truth import CLASSES, Request, Target

Files = Mapping[str, str]
PAIRS: Final = 40
SHOWN: Final = 5
FILES: Final = ("rds-public.json", "rds-egress.json", "cds.json")
Place = tuple[tuple[tuple[str, int], ...], tuple[tuple[str, str, str], ...]]


class Generation:
    """A route in a world, and what may be reached there."""

    def __init__(self, case: Case) -> None:
        self.case, self.world = case, copy.deepcopy(dict(case.world))
        self.files = render(case.route, self.world)
        self.judge = Judge(case.route, self.world, self.files)
        self.accepted = self.judge.law.is_accepted()

    def permits(self, request: Request, at_least: str = "Public") -> set[Place]:
        """Addresses, with the keys that go there."""
        return self._places(self.judge.law.rule(request, at_least).tried, request.path)

    def keeps(self, old: Generation, request: Request, at_least: str = "Public") -> set[Place]:
        """ "an invalid CR never disturbs what already runs": where a provider of this name was, whose entry is refused now, for what may
        go to any provider of the name."""
        law, before = self.judge.law, old.judge.law
        named = {target.backend for target in law.rule(request, at_least).permitted}
        kept = {
            name for name in named if law.is_refused(law.backends[name]) and "provider" in before.backends.get(name, {})
        }
        targets = before.targets(request.model) if request.model in before.models else []
        return old._places([target for target in targets if target.backend in kept], request.path)

    def _places(self, targets: Sequence[Target], path: str) -> set[Place]:
        facts = [
            self.judge.facts(target.backend, target.model, path)
            for target in targets
            if target.backend in self.judge.law.there
        ]
        return {place_of(one) for one in facts if one is not None}


def place_of(facts: Facts) -> Place:
    return facts.addresses, facts.credentials


def places(gateway: Gateway, request: Request) -> set[Place]:
    """What any attempt may reach."""
    reached = gateway.ask(
        request.consumer,
        request.model,
        request.declared,
        request.found,
        request.opaque,
        request.method,
        request.path,
        request.stream,
    )
    return {place_of(hop) for group in reached.attempts for hop, _ in group if isinstance(hop, Facts)}


def publish(old: Generation, new: Generation) -> Iterator[tuple[Files, Files]]:
    """What the ConfigMaps hold before and after each step."""
    live = old.files
    for _ in range(6):
        files = plan(new.case.route, new.world, live).files or live
        yield live, files
        if files == live:
            return
        live = files
    raise AssertionError("plan_route finds no end")


def mixtures(before: Files, after: Files) -> Iterator[Files]:
    """What a gateway may have loaded in between: each file as it was or as it is."""
    for taken in product((False, True), repeat=len(FILES)):
        chosen = {name: after[name] if new else before[name] for name, new in zip(FILES, taken, strict=True)}
        yield {**before, **after, **chosen}


def pairs() -> Iterator[tuple[int, Generation, Generation, list[Request]]]:
    dice = random.Random(SEED)
    cases = list(deal(dice, 2 * PAIRS))
    for number in range(PAIRS):
        old, new = cases[2 * number], cases[2 * number + 1]
        for case in (old, new) if number % 4 else (old,):
            make_acceptable(case, dice)
        requests = [*make_requests(dice, old, 40), *make_requests(dice, new, 40)]
        yield number, Generation(old), Generation(new), requests


def excess(
    gateway: Gateway, requests: Sequence[Request], old: Generation, new: Generation, *, narrowed: bool
) -> Iterator[str]:
    """What is reached although the new generation does not permit it, nor (if not yet `narrowed`) the old one. Until the last step the
    detectors of both may count: "a request whose class is unknown … is treated as the highest class"."""
    for request in requests:
        try:
            found = places(gateway, request)
        except (Unreadable, KeyError) as error:
            yield f"{request}: {error}"
            continue
        if found:
            found_before = old.judge.law.detected(request)
            too_much = found - new.permits(request) - new.permits(request, at_least=found_before)
            too_much -= new.keeps(old, request)
            if not narrowed:
                too_much -= old.permits(request) | old.permits(request, at_least=new.judge.law.detected(request))
            if too_much:
                yield f"{request} reaches {too_much}"


def steps_of(old: Generation, new: Generation, requests: Sequence[Request]) -> Iterator[str]:
    """What is wrong with the steps as wholes."""
    files: Files = {}
    for step, (_, files) in enumerate(publish(old, new)):
        gateway = Gateway(files)
        yield from (f"step {step}: {one}" for one in excess(gateway, requests, old, new, narrowed=True))
        for request in requests:
            same = old.permits(request) == new.permits(request) != set()
            if same and not places(gateway, request):
                yield f"step {step}: {request} is served before and after, and not now"
    if new.accepted and files != new.files:
        yield "it ends with other files than wanted"


def test_what_is_loaded_reaches_only_what_the_new_generation_permits() -> None:
    """Each step as a whole, also if the new route is not accepted; and at its end a route is published as it is wanted."""
    problems = [
        f"pair {number}, {problem}"
        for number, old, new, requests in pairs()
        for problem in steps_of(old, new, requests)
        if "is served before" not in problem  # where everything changes at once, what is alike is so by chance
    ]
    assert not problems, f"{len(problems)}:\n" + "\n".join(problems[:SHOWN])


def test_what_is_half_loaded_reaches_only_what_either_generation_permits() -> None:
    """A name must not mean one place in one file and another place in the next: a chain that was for a deployment leads to a provider
    then, as long as only one of both files is loaded."""
    problems = [
        f"pair {number}, {problem}"
        for number, old, new, requests in pairs()
        for problem in half_loaded(old, new, requests)
    ]
    assert not problems, f"{len(problems)}:\n" + "\n".join(problems[:SHOWN])


def half_loaded(old: Generation, new: Generation, requests: Sequence[Request]) -> Iterator[str]:
    """The first step, since every later one begins with what the new generation permits."""
    before, after = next(publish(old, new))
    for mixture in mixtures(before, after):
        yield from excess(Gateway(mixture), requests, old, new, narrowed=False)


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("name", NARROWINGS)
def test_what_is_withdrawn_is_gone_with_the_first_step(name: str, beside: str) -> None:
    """ "a change that *narrows* what is permitted (…) is applied in one phase, at once, even if the rest of the CR is refused"; and what
    it is not about goes on."""
    route, world = make_base()
    narrower, other_world = copy.deepcopy((route, world))
    NARROWINGS[name](narrower, other_world)
    BESIDE[beside](narrower, other_world)
    callers: dict[str | None, Who] = {"ann": Who(1, ""), "bob": Who(2, ""), "eve": Who(0, ""), None: Who(1, "")}
    old, new = Generation(Case(route, world, callers, {})), Generation(Case(narrower, other_world, callers, {}))
    assert old.accepted
    assert new.accepted is (beside != "beside something refused")
    requests = [
        Request(consumer, model, declared, found, opaque)
        for consumer, model, declared, found, opaque in product(
            callers, ("chat", "other"), (None, *CLASSES), ((), ("low",), ("high",), ("seen",), ("new",)), (False, True)
        )
    ]
    narrowed = [request for request in requests if old.permits(request) - new.permits(request)]
    assert narrowed, "this takes nothing away"
    problems = list(steps_of(old, new, requests))
    assert not problems, f"{len(problems)}:\n" + "\n".join(problems[:SHOWN])
