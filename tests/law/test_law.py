"""The law, proved on the rendered files: whatever the route, the world and the request, what any attempt can reach is what the truth
table permits, in the order that it says, and nothing else.

A failure names the seed and the number of the route, which is all that is needed to see it again.
"""

from __future__ import annotations

import ast
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest
from tests.law.cases import CALLERS, IMPLIED, NOBODY, STATES, Case, State, Who, deal, make_requests
from tests.law.judge import Judge
from tests.law.rendering import plan, render
from tests.law.truth import CLASSES, Law, Request, Ruling, highest, rank

SEED: Final = 20261127
SHOWN: Final = 5
#: Each of them has 72,000 cases and more; together they have a million.
PARTS: Final = 14
#: Class of the request, class that it declares, state of one of its targets, caller.
Combination = tuple[str, str | None, State, Who]


@dataclass
class Tally:
    """What was judged, and what was wrong."""

    seed: int
    routes: int = 0
    cases: int = 0
    problems: list[str] = field(default_factory=list)
    seen: set[Combination] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)

    def count(self, case: Case, request: Request, ruling: Ruling, law: Law) -> None:
        """Notes one request."""
        self.cases += 1
        self.answers["/".join(map(str, sorted(ruling.statuses))) or "served"] += 1
        if request.model not in law.models or request.consumer not in case.callers:
            return
        who = case.callers[request.consumer]
        floor = law.policy.get("floor", "Public")
        base = highest((law.default, request.declared or law.default, floor, law.detected(request)))
        data_class = min(ruling.classes, key=rank, default=base)
        for target in law.models[request.model]["targets"]:
            self.seen.add((data_class, request.declared, case.states[target["backend"]], who))


def all_combinations() -> Iterator[Combination]:
    """All that can exist: no caller can lower the class below what it declares."""
    for data_class, declared, state, who in product(CLASSES, (None, *CLASSES), STATES, (*CALLERS, NOBODY, IMPLIED)):
        if declared is None or rank(data_class) >= rank(declared):
            yield data_class, declared, state, who


def judge_all(seed: int, routes: int, extra: int) -> Tally:
    """Renders so many routes, and asks each everything."""
    dice, tally = random.Random(seed), Tally(seed)
    for number, case in enumerate(deal(dice, routes)):
        judge = Judge(case.route, case.world, render(case.route, case.world))
        found = [*judge.walls()]
        requests = list(make_requests(dice, case, extra))
        for request in requests:
            ruling = judge.law.rule(request)
            problem = judge.check(request, ruling)
            if problem:
                found.append(problem)
            if request.path.startswith("/v1/") and request.method == "POST":
                tally.count(case, request, ruling, judge.law)
        kinds = {(request.declared, request.found): request for request in requests if not request.opaque}
        found += filter(None, (judge.lists(caller, list(kinds.values())) for caller in case.callers))
        tally.routes += 1
        tally.problems += [f"seed {seed}, route {number}: {problem}" for problem in found]
        assert len(tally.problems) < SHOWN, "\n".join(tally.problems[:SHOWN])
    return tally


def report(tally: Tally, seconds: float, *, is_part: bool = False) -> None:
    """Prints the figures, then says what is wrong. Of a part not that some combination was not dealt."""
    possible = set(all_combinations())
    print(
        f"\nlaw: seed {tally.seed}, {tally.routes:,} routes, {tally.cases:,} cases in {seconds:.1f} s;"
        f" {len(tally.seen):,} of {len(possible):,} combinations (class × declared × [locality × trust × confidential ×"
        f" encrypted × failure] × [roles × access]); answers {dict(tally.answers.most_common())}"
    )
    assert not tally.problems, "\n".join(tally.problems)
    assert tally.seen <= possible if is_part else tally.seen == possible, (
        f"never seen: {sorted(possible - tally.seen, key=str)[:SHOWN]}; {tally.seen - possible}"
    )


def test_what_is_reached_is_what_the_law_permits() -> None:
    """Some 20,000 cases."""
    began = time.monotonic()
    tally = judge_all(SEED, routes=120, extra=40)
    report(tally, time.monotonic() - began)
    assert tally.cases >= 20_000


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(PARTS))
def test_what_is_reached_is_what_the_law_permits_many_times(part: int) -> None:
    """Each part deals other routes."""
    began = time.monotonic()
    tally = judge_all(SEED + 1 + part, routes=230, extra=200)
    report(tally, time.monotonic() - began, is_part=True)
    assert tally.cases >= 72_000


def test_a_route_is_accepted_exactly_when_the_law_says_so_and_then_published_as_judged() -> None:
    """plan_route applies the very files that are judged here, mounts each provider's own Secret where its key is read, and applies
    nothing of a route that is not accepted."""
    dice, answers = random.Random(SEED), Counter[bool]()
    for number, case in enumerate(deal(dice, 120)):
        if (
            number % 3
        ):  # by chance hardly any route has a target for everything that it grants: take what would refuse it away
            make_acceptable(case, dice)
        world = case.world
        planned, where = plan(case.route, world), f"seed {SEED}, route {number}"
        accepted = Law(case.route, world).is_accepted()
        answers[accepted] += 1
        assert planned.accepted == accepted, f"{where}: {planned.message}"
        assert planned.files == (render(case.route, world) if accepted else None), where
        if accepted:
            assert_own_secrets(case, planned.plan.children, where)
    print(f"\naccepted: {answers[True]}, refused: {answers[False]}")
    assert min(answers[True], answers[False]) > 20


def make_acceptable(case: Case, dice: random.Random) -> None:
    """Sometimes leaves one cause in, of which there are three: claims of trust, forbidden addresses, gaps."""
    spared = dice.choice(["", "", "claims", "addresses", "gaps"])
    for backend in case.route["backends"]:
        provider = backend.get("provider")
        if provider is None:
            continue
        state = case.states[backend["name"]]
        if state.failure == "forbidden address" and spared != "addresses":
            provider["baseURL"] = f"https://api.{backend['name']}.example.com/v1"
        if state.trust == "claimed" and spared != "claims":
            del provider["trusted"]
    if spared != "gaps":
        case.route["dataPolicy"]["denyClasses"] = list(CLASSES)


def assert_own_secrets(case: Case, children: Any, where: str) -> None:
    """The files that clusters name are those of the Secret that the backend names."""
    (pod,) = [child.body["spec"]["template"]["spec"] for child in children if child.key.kind == "Deployment"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in pod["containers"][0]["volumeMounts"]}
    providers = {backend["name"]: backend["provider"] for backend in case.route["backends"] if "provider" in backend}
    named = {
        path: mount["secret"]["secretName"]
        for path, mount in mounts.items()
        if path.startswith("/etc/envoy/providers/")
    }
    secrets = {provider["secretRef"]["name"] for provider in providers.values()}
    assert named == {f"/etc/envoy/providers/{name}": name for name in secrets}, where
    authorities = {
        path: mount["secret"] for path, mount in mounts.items() if path.startswith("/etc/envoy/authorities/")
    }
    wanted = {
        f"/etc/envoy/authorities/{provider['tls']['caSecretRef']['name']}": provider["tls"]["caSecretRef"]
        for provider in providers.values()
        if "caSecretRef" in provider.get("tls", {})
    }
    for backend in case.route["backends"]:
        named_deployment = backend.get("deployment", {}).get("name")
        if case.world["deployments"].get(named_deployment, {}).get("tls"):
            secret = f"tls-{named_deployment}"
            wanted[f"/etc/envoy/authorities/{secret}"] = {"name": secret, "key": "ca.crt"}
    assert {path: secret["secretName"] for path, secret in authorities.items()} == {
        path: ref["name"] for path, ref in wanted.items()
    }
    for path, ref in wanted.items():
        assert authorities[path]["items"] == [{"key": ref["key"], "path": ref["key"]}], where


def test_the_oracle_shares_nothing_with_what_it_judges() -> None:
    """Only `rendering` and the mutations know fairlead; neither the truth table, nor the reader, nor the cases, nor the judge does."""
    folder = Path(__file__).parent
    for name in (
        "truth",
        "addresses",
        "envoy_reader",
        "strict",
        "reading_hold",
        "shadow_rules",
        "judge",
        "cases",
        "narrowings",
    ):
        tree = ast.parse((folder / f"{name}.py").read_text())
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        strange = {module for module in imported if module.startswith("fairlead") or module == "tests.law.rendering"}
        assert not strange, f"{name} imports {strange}"
