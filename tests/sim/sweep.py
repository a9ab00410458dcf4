"""The exhaustive sweep: every step of every scenario under every schedule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.sim.cluster import SimCluster
from tests.sim.delivery import Manner
from tests.sim.oracles import Finding, judge, judge_alone
from tests.sim.scenarios import CREATE, SCENARIOS, Scenario
from tests.sim.schedules import CHILDREN, RESOURCES, Outcome, Schedule, SpinningError, play
from tests.sim.transport import CrashPoint, Refused

EVENTS_BEHIND = range(6)
ONE_SIDED = (1, 5)  # where also a view is tried that is old of one side only
STALE_VIEWS = (RESOURCES | CHILDREN, RESOURCES, CHILDREN)
START_S = 1000.0
#: By how much the second of two leaders is slower on each way: in step, half a trip, one, and so on, so that the writes of the two
#: fall between each other in every way.
SLOW_S = (0.05, 0.3)
LAGS_S = (0.0, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.05, 0.3)


@dataclass(frozen=True, slots=True)
class Violation:
    """A schedule under which something is wrong."""

    scenario: str
    step: str
    schedule: Schedule
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        what = "\n    ".join(map(str, self.findings[:6]))
        return f"{self.scenario} / {self.step} / {self.schedule}\n    {what}"


@dataclass(slots=True)
class Tally:
    """How much was played, and what was wrong."""

    schedules: int = 0
    violations: list[Violation] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.schedules} schedules, {len(self.violations)} violations"


def references(scenario: Scenario) -> Iterator[Outcome]:
    """The undisturbed run of each step, each from the end of the one before."""
    before, at_s = SimCluster(lambda: START_S), START_S
    for step in scenario.steps:
        outcome = play(before, at_s, step, Schedule())
        yield outcome
        before, at_s = outcome.cluster, outcome.ended_s


def count_writes(outcome: Outcome) -> int:
    """Writes of the operator in a run."""
    return sum(1 for write in outcome.writes if write.actor in outcome.actors)


def crash_schedules(writes: int) -> Iterator[Schedule]:
    """A crash before and after each write, with a first view that is 0 to 5 events old."""
    for write in range(writes):
        for after in (False, True):
            for behind in EVENTS_BEHIND:
                for stale in STALE_VIEWS if behind in ONE_SIDED else STALE_VIEWS[:1]:
                    yield Schedule(CrashPoint(write, after), behind=behind, stale=stale)


def event_schedules(writes: int) -> Iterator[Schedule]:
    """Every way in which events can fail to arrive, undisturbed and with a crash at each write."""
    yield Schedule(restarted=True)
    for manner in Manner:
        if manner is Manner.PROMPT:
            continue
        yield Schedule(manner=manner)
        for write in range(writes):
            for after in (False, True):
                yield Schedule(CrashPoint(write, after), manner=manner)


def absence_schedules(_: int) -> Iterator[Schedule]:
    """The operator was down when it happened; how many writes it made otherwise does not matter."""
    for behind in EVENTS_BEHIND:
        for stale in STALE_VIEWS if behind else STALE_VIEWS[:1]:
            yield Schedule(down=True, behind=behind, stale=stale)


def fault_schedules(writes: int) -> Iterator[Schedule]:
    """Each write fails in each way."""
    for write in range(writes):
        for refused in Refused:
            yield Schedule(refused=(write, refused))


def leader_schedules(writes: int) -> Iterator[Schedule]:
    """The leader is deposed at each write, and two believe that they lead."""
    for write in range(writes):
        yield Schedule(deposed=write)
    for lag_s in LAGS_S:
        yield Schedule(rivals=2, lag_s=lag_s)
    for lag_s in SLOW_S:
        yield Schedule(lag_s=lag_s)


def all_schedules(writes: int) -> Iterator[Schedule]:
    """The whole sweep of one step."""
    yield from crash_schedules(writes)
    yield from event_schedules(writes)
    yield from absence_schedules(writes)
    yield from fault_schedules(writes)
    yield from leader_schedules(writes)


def sweep(scenario: Scenario, tally: Tally, *, every: int = 1, offset: int = 0) -> None:
    """Play all schedules of all steps, or each `every`-th of them. A first step that scenarios share is swept with the first."""
    position = offset
    for number, reference in enumerate(references(scenario)):
        tally.schedules += 1
        if findings := judge_alone(reference):
            tally.violations.append(Violation(scenario.name, reference.step.name, reference.schedule, tuple(findings)))
        if number == 0 and reference.step is CREATE and scenario is not SCENARIOS[0]:
            continue
        for schedule in all_schedules(count_writes(reference)):
            if position % every == 0:
                _try(scenario, reference, schedule, tally)
            position += 1


def _try(scenario: Scenario, reference: Outcome, schedule: Schedule, tally: Tally) -> None:
    tally.schedules += 1
    try:
        findings = judge(reference, play(reference.before, reference.began_s, reference.step, schedule))
    except SpinningError as error:
        findings = [Finding("does_not_spin", str(error))]
    if findings:
        tally.violations.append(Violation(scenario.name, reference.step.name, schedule, tuple(findings)))


def first_violation(scenario: Scenario, known: list[Outcome], tally: Tally) -> Violation | None:
    """The first thing that is wrong with the operator as it is now, compared with `known`: what it did before it was changed.

    The whole sweep, in the order in which a fault is likely to show: what fails for all first, crashes last.
    """
    swept = [outcome for outcome in known if outcome.step is not CREATE or len(known) == 1]
    for pick in (_calm, event_schedules, absence_schedules, fault_schedules, leader_schedules, crash_schedules):
        for reference in swept:
            for schedule in pick(count_writes(reference)):
                _try(scenario, reference, schedule, tally)
                if tally.violations:
                    return tally.violations[0]
    return None


def _calm(_: int) -> Iterator[Schedule]:
    yield Schedule()
