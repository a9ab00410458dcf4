"""The sweep: whatever fails, and whenever, the operator ends where it would have ended, and does no harm on the way."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
from tests.sim.mutations import MUTATIONS, Mutation
from tests.sim.scenarios import SCENARIOS, Scenario
from tests.sim.schedules import Outcome
from tests.sim.sweep import Tally, first_violation, references, sweep

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
#: Enough of everything for every day: each 97th schedule; the prime hits other kinds of schedule in each scenario.
EVERY_DAY = 97
#: CI takes each fifth, another fifth in each scenario; `make sweep` takes all.
EVERY = int(os.environ.get("FAIRLEAD_SWEEP_EVERY", "5"))
_KNOWN: dict[str, list[Outcome]] = {}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Thousands of failed requests would fill the log that a failed test shows."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def _assert_clean(tally: Tally) -> None:
    print(tally)
    listed = "\n".join(map(str, tally.violations[:10]))
    assert not tally.violations, f"{tally}\n{listed}"


def test_a_sample_of_all_schedules_of_all_scenarios() -> None:
    tally = Tally()
    for offset, scenario in enumerate(SCENARIOS):
        sweep(scenario, tally, every=EVERY_DAY, offset=offset * 13)
    _assert_clean(tally)
    assert tally.schedules > 150


@pytest.mark.long
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name.replace(" ", "-"))
def test_all_schedules(scenario: Scenario) -> None:
    tally = Tally()
    sweep(scenario, tally, every=EVERY, offset=SCENARIOS.index(scenario) % EVERY)
    _assert_clean(tally)


def _known(name: str) -> list[Outcome]:
    """The undisturbed runs of the operator as it should be."""
    if name not in _KNOWN:
        _KNOWN[name] = list(references(BY_NAME[name]))
    return _KNOWN[name]


def _is_caught(mutation: Mutation, tally: Tally) -> bool:
    for name in mutation.shows_in:
        known = _known(name)
        with pytest.MonkeyPatch.context() as patch:
            mutation.put_in(patch)
            violation = first_violation(BY_NAME[name], known, tally)
        if violation is not None:
            print(f"{mutation} ({tally.schedules} schedules): {violation}")
            return True
    return False


#: Those that an undisturbed run or one of the first schedules shows.
_QUICK = {
    "the first apply is forced",
    "the first apply joins what is there",
    "status is written once",
    "always applies",
    "the hash is not compared",
    "an invalid spec takes everything down",
    "a status write touches the resource",
    "status tells the last generation",
}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_a_fault_can_be_put_in(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names that it replaces are there: most faults are tried by the long tests alone."""
    mutation.put_in(monkeypatch)


@pytest.mark.parametrize("mutation", [m for m in MUTATIONS if m.name in _QUICK], ids=str)
def test_a_fault_that_is_put_into_the_core_is_caught(mutation: Mutation) -> None:
    assert _is_caught(mutation, Tally())


@pytest.mark.long
@pytest.mark.parametrize("mutation", [m for m in MUTATIONS if m.name not in _QUICK], ids=str)
def test_every_other_fault_is_caught(mutation: Mutation) -> None:
    assert _is_caught(mutation, Tally())
