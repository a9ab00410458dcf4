"""The soak's own judges can fail: the book of causes, the comparison of children, the verdict on a status, the story of a seed."""

from __future__ import annotations

import copy
import itertools
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.soak.fleet import UNKNOWN_ENGINE, Fate, Model, child_names, edit_spec, make_spec, owner_name
from tests.soak.ledger import Cause, Ledger
from tests.soak.oracle import Oracle, find_gaps, judge_child, judge_status
from tests.soak.vitals import Vitals, count_lives, find_growth

from fairlead_cluster.audit import AuditRecord

Json = dict[str, Any]
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


def at(second: float) -> datetime:
    return NOON + timedelta(seconds=second)


def wrote(resource: str, name: str, *, second: float = 1.0, verb: str = "patch", code: int = 200) -> AuditRecord:
    return AuditRecord(
        "id",
        "ResponseComplete",
        verb,
        "operator",
        "",
        "/",
        "",
        resource,
        "a",
        name,
        code,
        at(second),
        at(second + 0.01),
    )


def book(*causes: tuple[str, str], disturbances: int = 0, harmless: bool = False) -> Ledger:
    ledger = Ledger(disturbances=disturbances)
    for resource, name in causes:
        ledger.enter(Cause(NOON, resource, "a", name, "edited", harmless))
    return ledger


CR = ("llmdeployments", "m")


@pytest.mark.parametrize(
    ("ledger", "records"),
    [
        (book(CR), [wrote("services", "m-pods", code=201), wrote("deployments", "m"), wrote("llmdeployments/status", "m")]),
        (book(CR), [wrote("persistentvolumeclaims", "m-cache", verb="delete")]),
        (book(("services", "m")), [wrote("services", "m"), wrote("llmdeployments/status", "m")]),
        (book(("pods", "m")), [wrote("llmdeployments/status", "m"), wrote("events", "", verb="create", code=201)]),
        (book(), []),
        (book(CR), [wrote("services", "m", code=503), wrote("services", "m", code=503), wrote("services", "m")]),
        (book(CR, disturbances=1), [wrote("services", "m")] * 3),
        (book(("deployments", "m"), harmless=True, disturbances=1), [wrote("llmdeployments/status", "m")]),
    ],
)  # fmt: skip
def test_what_was_caused_is_explained(ledger: Ledger, records: list[AuditRecord]) -> None:
    assert ledger.judge(records) == []


@pytest.mark.parametrize(
    ("ledger", "records", "complaint"),
    [
        (book(), [wrote("services", "m")], "nothing caused it"),
        (book(("llmdeployments", "other")), [wrote("services", "m")], "nothing caused it"),
        (book(("llmdeployments", "other")), [wrote("llmdeployments/status", "m")], "nothing caused it"),
        (book(("services", "m")), [wrote("deployments", "m")], "the book has only"),
        (book(("services", "m")), [wrote("services", "m-pods")], "the book has only"),
        (book(("pods", "m")), [wrote("deployments", "m")], "the book has only"),
        (book(("networkpolicies", "m")), [wrote("networkpolicies", "m", verb="delete")], "the book has only"),
        (book(("deployments", "m"), harmless=True), [wrote("llmdeployments/status", "m")], "the book has only"),
        (book(("services", "m"), harmless=True, disturbances=1), [wrote("services", "m")], "the book has only"),
        (book(CR), [wrote("services", "m", second=-5)], "the book has only"),
        (book(CR), [wrote("services", "m")] * 3, "written 3 times for 1 causes"),
        (book(CR), [wrote("llmdeployments/status", "m")] * 7, "written 7 times for 1 causes"),
        (book(CR), [replace(wrote("services", "m", code=403), lacks_right=True)], "forbidden"),
        (book(CR), [wrote("secrets", "m")], "no business"),
        (book(CR), [wrote("llmdeployments", "m")], "no business"),
        (book(CR), [wrote("events", "", verb="create", code=201)], "1 Events in a, where only 0 statuses"),
        (book(), [wrote("leases", "mine", verb="update")], "not the operator's"),
    ],
)  # fmt: skip
def test_what_nobody_caused_is_reported_with_its_record(
    ledger: Ledger, records: list[AuditRecord], complaint: str
) -> None:
    (line,) = ledger.judge(records)
    assert complaint in line


def test_a_name_that_a_stranger_has_explains_refusals_and_nothing_else() -> None:
    ledger = Ledger(standing={("a", "services", "m")})
    assert ledger.judge([wrote("services", "m", code=409)]) == []
    assert len(ledger.judge([wrote("services", "m"), wrote("services", "n", code=409)])) == 2


def test_gaps_are_found_and_additions_are_not() -> None:
    wish = {"replicas": 2, "ports": [{"name": "b", "port": 1}, {"name": "a", "port": 2}], "args": ["x", "y"]}
    live: Json = {**copy.deepcopy(wish), "more": 1}
    live["ports"] = [{"name": "a", "port": 2, "protocol": "TCP"}, {"name": "b", "port": 1}]
    assert list(find_gaps(wish, live)) == []
    for broken in (
        {**live, "replicas": 3},
        {**live, "args": ["y", "x"]},
        {**live, "ports": live["ports"][:1]},
        {key: value for key, value in live.items() if key != "args"},
        {**live, "ports": "none"},
    ):
        assert list(find_gaps(wish, broken)), broken


def test_a_child_of_somebody_else_is_found() -> None:
    wish = {"metadata": {"labels": {"a": "b"}}, "spec": {}}
    mine = {"controller": True, "uid": "u"}
    live = {"metadata": {"labels": {"a": "b"}, "ownerReferences": [mine]}, "spec": {}}
    assert judge_child(wish, live, "u") == []
    assert judge_child(wish, live, "v") == ["owned by ['u'], not by v"]
    assert judge_child(wish, {**live, "metadata": {"ownerReferences": [mine]}}, "u") == ["labels.a is missing"]


def status(ready: str, reconciling: str, stalled: str, reason: str = "x", generation: int = 1) -> Json:
    states = {"Ready": ready, "Reconciling": reconciling, "Stalled": stalled}
    conditions = [
        {"type": kind, "status": state, "reason": reason, "observedGeneration": generation}
        for kind, state in states.items()
    ]
    return {"metadata": {"generation": 1}, "status": {"observedGeneration": generation, "conditions": conditions}}


def model(**more: Any) -> Model:
    made = Model("a", "m", {})
    made.wish({"engine": {"type": more.pop("engine", "vLLM")}, **more.pop("spec", {})})
    for key, value in more.items():
        setattr(made, key, value)
    return made


@pytest.mark.parametrize(
    ("of", "live"),
    [
        (model(), status("True", "False", "False")),
        (model(fate=Fate.CRASHES), status("False", "False", "True", "CrashLoop")),
        (model(fate=Fate.NO_IMAGE), status("False", "False", "True", "ImagePullFailed")),
        (model(fate=Fate.PENDING), status("False", "True", "False", "PodsPending")),
        (model(spec={"suspend": True}), status("False", "False", "False", "Suspended")),
        (model(taken={("services", "m")}), status("False", "False", "True", "NameConflict")),
        (model(engine=UNKNOWN_ENGINE), status("False", "False", "True", "EngineNotFound")),
    ],
)
def test_a_status_is_right_for_one_situation_and_wrong_for_the_others(of: Model, live: Json) -> None:
    assert judge_status(of, live) == ""
    assert judge_status(of, {**live, "metadata": {"generation": 2}})
    others = [model(), model(fate=Fate.CRASHES), model(fate=Fate.PENDING), model(spec={"suspend": True})]
    assert sum(judge_status(other, live) == "" for other in others) <= 1


def test_a_seed_is_a_story_and_every_edit_of_it_changes_something() -> None:
    def tell(seed: int) -> list[tuple[str, Json]]:
        chance = random.Random(seed)
        story = [("made", make_spec(chance))]
        for _ in range(60):
            story.append(edit_spec(chance, story[-1][1]))
        return story

    story = tell(7)
    assert story == tell(7) != tell(8)
    assert all(before[1] != after[1] for before, after in itertools.pairwise(story))


def test_rendering_and_the_naming_scheme_agree_on_random_specs() -> None:
    chance = random.Random(1)
    models = []
    for number in range(12):
        made = Model("a", f"m{number}", {})
        spec = make_spec(chance)
        for _ in range(4):
            spec = edit_spec(chance, spec)[1]
        made.wish(spec)
        models.append(made)
    expected = Oracle().expect(models)  # asserts that they agree
    owners = {(namespace, owner_name(plural, name)) for namespace, plural, name in expected}
    good = [made for made in models if made.last_good is not None]
    assert owners == {made.key for made in good}
    assert len(expected) == sum(len(child_names(made.last_good or {}, made.name)) for made in good)


def life(*rss_mib: float, pid: int = 1, era: int = 0, leading: bool = True) -> list[Vitals]:
    return [Vitals(era, "one", pid, leading, rss, 30, 56) for rss in rss_mib]


def test_what_grows_for_a_whole_life_is_found_and_what_comes_and_goes_is_not() -> None:
    assert list(find_growth(life(80, 95, 85, 120, 88, 90))) == []
    (found,) = find_growth(life(*(80.0 + 3 * number for number in range(12))))
    assert found.startswith("rss_mib of one (pid 1) grew from 89 to 104")
    more = [Vitals(0, "one", 1, True, 80, 30 + 5 * number, 56 + number) for number in range(12)]
    assert len(list(find_growth(more))) == 2, "descriptors and tasks"


def test_connections_of_a_leader_that_stands_by_again_are_no_leak_and_those_of_one_that_goes_on_are() -> None:
    def waits(*descriptors: int, leading: bool = False) -> list[Vitals]:
        return [Vitals(0, "one", 1, leading, 80, number, 40) for number in descriptors]

    assert list(find_growth(waits(25, 25, 25, 25) + waits(38, leading=True) + waits(35, 35))) == []
    (found,) = find_growth(waits(25, 25, 25, 25, 35, 35))
    assert found == "descriptors of one (pid 1) grew from 25 to 35: [25.0, 25.0, 25.0, 25.0, 35.0, 35.0]"


def test_another_process_another_role_and_another_api_server_are_other_lives() -> None:
    for other in (life(*[120.0] * 4, pid=2), life(*[120.0] * 4, era=1), life(*[120.0] * 4, leading=False)):
        assert list(find_growth(life(*[80.0] * 4) + other)) == []
    assert list(find_growth(life(80, 120, 130))) == [], "too short a life to tell"
    assert count_lives(life(*[80.0] * 4) + life(80, 80, pid=2) + life(*[80.0] * 9, leading=False)) == 1
