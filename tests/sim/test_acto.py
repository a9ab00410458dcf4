"""Acto's oracles on generated specs: an edit leads where a creation leads, a mistake that is taken back leaves nothing behind,
nothing waits for the health of what it replaces, and what is declared shows."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.sim import oracles
from tests.sim.cluster import SimCluster
from tests.sim.controllers import BROKEN_IMAGE
from tests.sim.reflected import unreflected
from tests.sim.scenarios import FAILED, NAME, NAMESPACE, USER
from tests.sim.schedules import Outcome, Schedule, Step, play
from tests.sim.sweep import START_S
from tests.unit.planning.specs import SPECS

Json = dict[str, Any]
_COMMON = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}
FEW = settings(max_examples=12, **_COMMON)
MANY = settings(max_examples=150, **_COMMON)

#: What CEL would refuse, or what only the planner finds: the API takes these here, as an older CRD might.
MISTAKES: tuple[Json, ...] = (
    {"engine": {"type": "Nobody"}},
    {"engine": {"type": "vLLM", "args": ["--port=1"]}},
    {"model": {"source": "ftp://somewhere/x"}},
    {"replicas": -1},
    {"resources": {"requests": {"cpu": "many"}}},
    {"storage": {"type": "PersistentVolumeClaim"}},
    {"files": [{"path": "relative", "configMapRef": {"name": "t", "key": "x"}}]},
    {"pod": {"labels": {"app.kubernetes.io/instance": "stolen"}}},
)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Story:
    """Specs of one custom resource, one after the other, each when the one before has settled."""

    def __init__(self) -> None:
        self.cluster = SimCluster(lambda: START_S)
        self.at_s = START_S

    def ask(self, spec: Json, expect: str | None = None) -> Outcome:
        """Create it, or replace its spec. Judges what can be judged of one run."""

        def act(cluster: SimCluster) -> None:
            body = copy.deepcopy(spec)
            if cluster.get("LLMDeployment", NAMESPACE, NAME) is None:
                metadata = {"name": NAME, "namespace": NAMESPACE}
                kind = {"apiVersion": "fairlead.dev/v1alpha1", "kind": "LLMDeployment"}
                cluster.create(USER, {**kind, "metadata": metadata, "spec": body})
            else:
                cluster.edit(USER, "LLMDeployment", NAMESPACE, NAME, lambda live: live.update(spec=body))

        outcome = play(self.cluster, self.at_s, Step("ask", act, expect), Schedule())
        self.cluster, self.at_s = outcome.cluster, outcome.ended_s
        findings = oracles.judge_alone(outcome)
        assert not findings, "\n".join(map(str, findings))
        return outcome

    def resource(self) -> Json:
        found = self.cluster.get("LLMDeployment", NAMESPACE, NAME)
        assert found is not None
        return found


def _follow_claims(before: Json, after: Json) -> Json:
    """What a claim once got it keeps: a spec that asks for another class, mode or a smaller size is told so, and is no edit that
    leads where a creation leads. So the later spec takes over the earlier one's storage where both have a claim."""
    old, new = before.get("storage") or {}, after.get("storage") or {}
    both = all(s.get("type") == "PersistentVolumeClaim" and not s.get("claimName") for s in (old, new))
    return after | {"storage": old} if both else after


def _edit_equals_creation(first: Json, second: Json) -> None:
    second = _follow_claims(first, second)
    edited, fresh = Story(), Story()
    edited.ask(first)
    outcome = edited.ask(second)
    findings = oracles.same_as_from_nothing(outcome, fresh.ask(second))
    assert not findings, "\n".join(map(str, findings))


def _mistake_taken_back(spec: Json, mistake: Json) -> None:
    story = Story()
    before = story.ask(spec)
    during = story.ask(spec | mistake, FAILED)
    changed = [
        w
        for w in during.writes
        if w.actor in during.actors and w.changed and w.key.kind != "Event" and not w.subresource
    ]
    assert not changed, f"a spec that is wrong changed {changed}"
    after = story.ask(spec)
    findings = oracles.same_as_from_nothing(after, before)
    assert not findings, "\n".join(map(str, findings))


def _never_blocked(spec: Json) -> None:
    """The pods of the first spec can never come up; the second must be carried out all the same."""
    spec = {key: value for key, value in spec.items() if key not in ("suspend", "replicas")}
    broken = spec | {"engine": spec["engine"] | {"image": f"example.com/{BROKEN_IMAGE}:0.33.0"}}
    story, fresh = Story(), Story()
    story.ask(broken, FAILED)
    outcome = story.ask(spec, "Current")
    findings = oracles.same_as_from_nothing(outcome, fresh.ask(spec, "Current"))
    assert not findings, "\n".join(map(str, findings))


def _declared_shows(spec: Json) -> None:
    story = Story()
    story.ask(spec)
    missing = list(unreflected(story.cluster, story.resource()))
    assert not missing, f"declared, and in no child: {missing}"


@FEW
@given(first=SPECS, second=SPECS)
def test_an_edit_leads_where_a_creation_leads(first: Json, second: Json) -> None:
    _edit_equals_creation(first, second)


@FEW
@given(spec=SPECS, mistake=st.sampled_from(MISTAKES))
def test_a_mistake_that_is_taken_back_leaves_nothing_behind(spec: Json, mistake: Json) -> None:
    _mistake_taken_back(spec, mistake)


@FEW
@given(spec=SPECS)
def test_nothing_waits_for_the_health_of_what_it_replaces(spec: Json) -> None:
    _never_blocked(spec)


@FEW
@given(spec=SPECS)
def test_what_is_declared_shows(spec: Json) -> None:
    _declared_shows(spec)


@pytest.mark.long
@MANY
@given(specs=st.lists(SPECS, min_size=3, max_size=4), mistake=st.sampled_from(MISTAKES))
def test_all_of_it_for_many_specs(specs: list[Json], mistake: Json) -> None:
    _edit_equals_creation(specs[0], specs[1])
    _mistake_taken_back(specs[1], mistake)
    _never_blocked(specs[2])
    for spec in specs:
        _declared_shows(spec)
