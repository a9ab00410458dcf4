"""One step of a scenario, played under one schedule: when the operator dies, how events reach it, how old its first view is.

A schedule begins from the converged state that the undisturbed run left before the step. It ends when nothing has changed for
a while; what happened until then is the `Outcome` that the oracles judge.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.sim.cluster import SimCluster, Write
from tests.sim.controllers import Controllers, Pace
from tests.sim.delivery import Manner
from tests.sim.kinds import CHILD_KINDS
from tests.sim.replica import Options, Replica
from tests.sim.transport import CrashPoint, Refused, make_fault
from tests.unit.fake_time import FakeTimeLoop

#: Longer than what the operator mostly waits for by itself (a child left behind: 30 s), shorter than a refusal's third attempt.
QUIET_S = 40.0
#: A status that may not be written is tried again after a minute.
QUIET_WHEN_FORBIDDEN_S = 100.0
CONVERGES_WITHIN_S = 900.0
RESTART_S = 0.3
WARM_UP_S = 1.0
RESOURCES = frozenset({"LLMDeployment"})
CHILDREN = frozenset(CHILD_KINDS)
ROUNDS_AT_ONE_MOMENT = 5_000
_UNCOUNTED = ("Lease", "Event")

Act = Callable[[SimCluster], None]


@dataclass(frozen=True, slots=True)
class Step:
    """What somebody does, and what kstatus must say of each custom resource when it has settled (None: nothing is said).
    `passing`: there are states on the way that an operator may miss, so that less than in the undisturbed run is no fault.
    `quiet_s`: how long nothing must change before it counts as settled."""

    name: str
    act: Act
    expect: str | None = "Current"
    passing: bool = False
    quiet_s: float = QUIET_S


@dataclass(frozen=True, slots=True)
class Schedule:
    """What goes wrong.

    `behind`: events by which the first view after the crash is old, of `stale` kinds. `down`: the operator starts only after the
    step. `refused`: how the write of that number fails. `deposed`: the write before which the operator is told that another one
    leads. `restarted`: it starts anew when all has settled. `rivals`: how many operators believe to lead; `lag_s`: by how much
    each is slower than the one before, on each way of a request (alone: slower than usual).
    """

    crash: CrashPoint | None = None
    manner: Manner = Manner.PROMPT
    behind: int = 0
    stale: frozenset[str] = RESOURCES | CHILDREN
    down: bool = False
    refused: tuple[int, Refused] | None = None
    deposed: int | None = None
    restarted: bool = False
    rivals: int = 1
    lag_s: float = 0.0

    @property
    def undisturbed(self) -> bool:
        """Nothing goes wrong."""
        return self == Schedule()

    @property
    def only_events_fail(self) -> bool:
        """No process and no request fails: what was written is known to have been."""
        return self == Schedule(manner=self.manner, restarted=self.restarted)

    def quiet_s(self, step: Step) -> float:
        """How long nothing must change before that step counts as settled."""
        forbidden = self.refused is not None and self.refused[1] is Refused.FORBIDDEN
        return max(step.quiet_s, QUIET_WHEN_FORBIDDEN_S) if forbidden else step.quiet_s

    @property
    def sees_children_late(self) -> bool:
        """Whether children are seen as they were a while ago."""
        return self.manner is Manner.LATE_CHILDREN or (self.behind > 0 and self.stale >= CHILDREN)

    def __str__(self) -> str:
        parts = [self.manner.value]
        if self.crash is not None:
            parts.append(f"crash {'after' if self.crash.after else 'before'} write {self.crash.write}")
        if self.down:
            parts.append("down meanwhile")
        if self.behind:
            whose = "all" if len(self.stale) > len(CHILDREN) else "resource" if self.stale == RESOURCES else "children"
            parts.append(f"view of {whose} {self.behind} behind")
        if self.refused is not None:
            parts.append(f"write {self.refused[0]} fails: {self.refused[1]}")
        if self.deposed is not None:
            parts.append(f"deposed before write {self.deposed}")
        if self.restarted:
            parts.append("restart when settled")
        if self.lag_s and self.rivals == 1:
            parts.append(f"requests take {self.lag_s * 2:.1f} s")
        if self.rivals > 1:
            parts.append(f"{self.rivals} leaders {self.lag_s * 1000:.1f} ms apart")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Life:
    """One process: from when to when, and what it did that none may."""

    actor: str
    born_s: float
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run: the cluster as it was at its beginning and is at its end, and every write between. `quiet_from`: number of writes
    when the last change had happened."""

    step: Step
    schedule: Schedule
    before: SimCluster
    cluster: SimCluster
    lives: tuple[Life, ...]
    converged: bool
    began_s: float
    ended_s: float
    quiet_from: int
    deposed: tuple[str, float] | None = None
    heard_within_s: float | None = None  # when everybody has heard of what happened; None: by the schedule's manner

    @property
    def writes(self) -> list[Write]:
        """All, in order."""
        return self.cluster.writes

    @property
    def actors(self) -> frozenset[str]:
        """The operator's names, one per life."""
        return frozenset(life.actor for life in self.lives)


@dataclass
class Stage:
    """A cluster in fake time with the operators that live on it."""

    cluster: SimCluster
    controllers: Controllers
    replicas: list[Replica] = field(default_factory=list)
    born: dict[str, float] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def start(self, options: Options) -> Replica:
        """Another life of the operator."""
        replica = Replica(self.cluster, f"operator-{next(self._numbers)}", options)
        self.replicas.append(replica)
        self.born[replica.actor] = self.cluster.clock()
        replica.start()
        return replica

    async def settle(self, quiet_s: float = QUIET_S, limit_s: float = CONVERGES_WITHIN_S) -> tuple[bool, int]:
        """Wait until nothing has changed for `quiet_s`, three times as long as that if need be. Returns whether it came to that, and how
        many writes there were then."""
        deadline = self.cluster.clock() + max(limit_s, 3 * quiet_s)
        last_version, since, writes = self._news(), self.cluster.clock(), len(self.cluster.writes)
        while self.cluster.clock() < deadline:
            await asyncio.sleep(1.0)
            if self._news() != last_version:
                last_version, since, writes = self._news(), self.cluster.clock(), len(self.cluster.writes)
            elif self.cluster.clock() - since >= quiet_s:
                return True, writes
        return False, writes

    def _news(self) -> int:
        for entry in reversed(self.cluster.log):
            if entry.key.kind not in _UNCOUNTED:
                return entry.version
        return 0

    async def end(self) -> tuple[Life, ...]:
        """Stop all lives; what they were."""
        findings = {replica.actor: tuple(replica.findings()) for replica in self.replicas}
        for replica in self.replicas:
            await replica.end()
        return tuple(Life(actor, self.born[actor], found) for actor, found in findings.items())


def play(before: SimCluster, at_s: float, step: Step, schedule: Schedule, pace: Pace | None = None) -> Outcome:
    """One run, from `before` on."""

    async def run() -> Outcome:
        loop = asyncio.get_running_loop()
        cluster = before.fork(loop.time)
        stage = Stage(cluster, Controllers(cluster, pace))
        options = Options(manner=schedule.manner)
        deposed: list[tuple[str, float]] = []
        quiet_s = schedule.quiet_s(step)
        if schedule.down:
            step.act(cluster)
            await asyncio.sleep(WARM_UP_S)
            _start_stale(stage, options, schedule)
        else:
            await _start_fresh(stage, options, schedule)
            if schedule.deposed is not None:
                _depose_at(stage, options, schedule.deposed, deposed)
            step.act(cluster)
            if schedule.crash is not None:
                await _restart_after_crash(stage, options, schedule, quiet_s)
        converged, quiet_from = await stage.settle(quiet_s)
        if schedule.restarted:
            stage.replicas[0].crash()
            stage.start(options)
            again, _ = await stage.settle(quiet_s)
            converged = converged and again
        ended_s = loop.time()
        lives = await stage.end()
        return Outcome(
            step,
            schedule,
            before,
            cluster,
            lives,
            converged,
            at_s,
            ended_s,
            quiet_from,
            deposed[0] if deposed else None,
        )

    return run_at(at_s, run)


async def _start_fresh(stage: Stage, options: Options, schedule: Schedule) -> None:
    replicas = [stage.start(options) for _ in range(schedule.rivals)]
    replicas[0].session.crash = None
    async with asyncio.timeout(QUIET_S):
        while not all(replica.is_working for replica in replicas):
            await asyncio.sleep(0.05)
    await asyncio.sleep(WARM_UP_S)
    for number, replica in enumerate(replicas):
        replica.session.writes = 0
        replica.session.lag_s = (number if schedule.rivals > 1 else 1) * schedule.lag_s
    session = replicas[0].session
    session.crash = schedule.crash
    if schedule.refused is not None:
        at, how = schedule.refused
        session.faults.append(make_fault(how, lambda request: request.method != "GET" and session.writes == at + 1))


def _depose_at(stage: Stage, options: Options, write: int, deposed: list[tuple[str, float]]) -> None:
    """Before that write the operator hears that it does not lead any more; the write is on its way. Another one takes over."""
    old = stage.replicas[0]

    def depose(_: object) -> None:
        if old.session.writes == write + 1 and not deposed:
            deposed.append((old.actor, stage.cluster.clock()))
            old.lead(False)
            stage.start(options)

    old.session.before_write = depose


async def _restart_after_crash(stage: Stage, options: Options, schedule: Schedule, quiet_s: float) -> None:
    replica = stage.replicas[0]
    try:
        async with asyncio.timeout(quiet_s):
            await replica.crashed.wait()
    except TimeoutError:
        return  # with these events there are fewer writes than in the undisturbed run
    await asyncio.sleep(RESTART_S)
    _start_stale(stage, options, schedule)


def _start_stale(stage: Stage, options: Options, schedule: Schedule) -> None:
    view = stage.cluster.version_behind(schedule.behind, RESOURCES | CHILDREN)
    session = stage.start(options).session
    session.view = view
    session.view_kinds = schedule.stale if schedule.behind else frozenset()


class SpinningError(Exception):
    """The operator works without a pause, and time does not go on."""


class WatchfulLoop(FakeTimeLoop):
    """Fake time in which nobody may spin."""

    def __init__(self, at_s: float) -> None:
        super().__init__()
        self.now = at_s
        self.watching = True
        self._last_s = at_s
        self._rounds = 0

    def _run_once(self) -> None:
        self._rounds = self._rounds + 1 if self.now == self._last_s else 0
        self._last_s = self.now
        if self.watching and self._rounds > ROUNDS_AT_ONE_MOMENT:
            raise SpinningError(f"{ROUNDS_AT_ONE_MOMENT} rounds of the event loop at {self.now:.3f} s")
        super()._run_once()

    def close_all(self) -> None:
        """Cancel what still runs, and close."""
        self.watching = False
        for task in asyncio.all_tasks(self):
            task.cancel()
        self.run_until_complete(asyncio.sleep(0))
        self.close()


def run_at(at_s: float, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run in fake time, from that second on."""
    loop = WatchfulLoop(at_s)
    try:
        return loop.run_until_complete(work())
    finally:
        loop.close_all()
