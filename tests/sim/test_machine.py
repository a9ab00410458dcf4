"""Whatever people, the cluster and bad luck do in whatever order: when it is over, the cluster is as if the last wishes had been
the first, and no law was broken on the way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from tests.sim import oracles, scenarios
from tests.sim.cluster import Request, SimCluster
from tests.sim.controllers import BROKEN_IMAGE, Controllers, Pace
from tests.sim.delivery import Manner
from tests.sim.kinds import CHILD_KINDS
from tests.sim.replica import Options, Replica
from tests.sim.scenarios import NAMESPACE, USER
from tests.sim.schedules import (
    CHILDREN,
    QUIET_WHEN_FORBIDDEN_S,
    RESOURCES,
    Act,
    Outcome,
    Schedule,
    Stage,
    Step,
    WatchfulLoop,
    play,
)
from tests.sim.sweep import START_S
from tests.sim.transport import CrashPoint, Fault, Refused, make_fault

Json = dict[str, Any]
NAMES = ("m", "n")
ENGINE = {"type": "Ollama"}
#: Sections that can be put into a spec or (None) taken out, all with one end whatever was before.
SECTIONS: dict[str, tuple[Any, ...]] = {
    "replicas": (0, 1, 2, 3),
    "service": ({"port": 8080}, {"port": 81, "annotations": {"a": "b"}}, None),
    "storage": (scenarios.CLAIM, None),
    "networkPolicy": ({"mode": "Disabled"}, {"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}, None),
    "resources": ({"requests": {"cpu": "2"}}, None),
    "context": ({"maxLength": 4096}, None),
    "suspend": (True, False),
    "pod": ({"labels": {"team": "a"}, "nodeSelector": {"zone": "a"}}, None),
    "engine": (
        ENGINE,
        ENGINE | {"env": [{"name": "OLLAMA_DEBUG", "value": "1"}]},
        ENGINE | {"args": ["--port=1"]},  # invalid
        ENGINE | {"image": f"example.com/{BROKEN_IMAGE}:0.33.0"},
        {"type": "Unknown"},
    ),
}
HEALTHY_ENGINES = SECTIONS["engine"][:2]
HEARD_WITHIN_S = 10.0  # a stream that was cut is opened again after some seconds


def _scale(live: Json) -> None:
    live["spec"]["replicas"] = 5


def _renumber(live: Json) -> None:
    live["spec"]["ports"][0]["port"] = 8999


def _unlabel(live: Json) -> None:
    live["metadata"]["labels"] = {}


def _unannotate(live: Json) -> None:
    live["metadata"]["annotations"] = {}


def _open(live: Json) -> None:
    live["spec"]["ingress"] = [{}]


#: A port under another number and another name is no edit of ours any more, but an entry of somebody else's, which stays.
HAND_EDITS: tuple[tuple[str, str, Callable[[Json], None]], ...] = (
    ("Deployment", "", _scale),
    ("Deployment", "", _unannotate),
    ("Service", "", _renumber),
    ("Service", "-pods", _unlabel),
    ("NetworkPolicy", "", _open),
)
CHILD_NAMES = (
    ("Deployment", ""),
    ("Service", ""),
    ("Service", "-pods"),
    ("NetworkPolicy", ""),
    ("PodDisruptionBudget", ""),
    ("PersistentVolumeClaim", "-cache"),
)
FOREIGN = (("Service", ""), ("Service", "-pods"), ("NetworkPolicy", ""), ("PodDisruptionBudget", ""))


class Machine(RuleBasedStateMachine):
    """One cluster, one or two operators, and everything that may happen to them."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable(logging.CRITICAL)
        self.loop = WatchfulLoop(START_S)
        self.manner = Manner.PROMPT
        self.cluster = SimCluster(self.loop.time)
        self.stage = Stage(self.cluster, Controllers(self.cluster))
        self.told: list[str] = []

    # helpers ----------------------------------------------------------------------------------------------------------

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def act(self, act: Act) -> None:
        async def now() -> None:
            act(self.cluster)

        self.run(now())

    def alive(self) -> list[Replica]:
        return [replica for replica in self.stage.replicas if not replica.crashed.is_set()]

    def start(self, behind: int = 0, stale: frozenset[str] = RESOURCES | CHILDREN) -> None:
        async def now() -> None:
            session = self.stage.start(Options(manner=self.manner)).session
            session.view = self.cluster.version_behind(behind, RESOURCES | CHILDREN)
            session.view_kinds = stale if behind else frozenset()

        self.run(now())

    def wait_s(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    def lives(self, name: str) -> bool:
        live = self.cluster.get("LLMDeployment", NAMESPACE, name)
        return live is not None

    # people -----------------------------------------------------------------------------------------------------------

    @initialize(
        pace=st.sampled_from([Pace(), Pace(collect_s=0.01), Pace(reverse=True), Pace(workload_s=0.4, pod_s=0.05)])
    )
    def begin(self, pace: Pace) -> None:
        self.stage.controllers.pace = pace
        self.start()
        self.wait_s(1.0)
        self.act(scenarios.create("m"))

    @rule(name=st.sampled_from(NAMES), replicas=st.integers(0, 3), claim=st.booleans())
    def create(self, name: str, replicas: int, claim: bool) -> None:
        if not self.lives(name):
            more = {"storage": scenarios.CLAIM} if claim else {}
            self.act(scenarios.create(name, replicas=replicas, **more))

    @rule(
        name=st.sampled_from(NAMES),
        data=st.data(),
        sections=st.lists(st.sampled_from(sorted(SECTIONS)), min_size=1, max_size=2),
    )
    def edit(self, name: str, data: st.DataObject, sections: list[str]) -> None:
        for section in sections:
            value = data.draw(st.sampled_from(SECTIONS[section]))
            change = (
                scenarios.edit(name, drop=(section,)) if value is None else scenarios.edit(name, **{section: value})
            )
            self.act(change)

    @rule(name=st.sampled_from(NAMES), again=st.booleans())
    def delete(self, name: str, again: bool) -> None:
        if self.lives(name):
            self.act(scenarios.both(scenarios.delete(name), *([scenarios.create(name)] if again else [])))

    @rule(name=st.sampled_from(NAMES), edit=st.sampled_from(HAND_EDITS))
    def edit_child(self, name: str, edit: tuple[str, str, Callable[[Json], None]]) -> None:
        kind, suffix, change = edit
        live = self.cluster.get(kind, NAMESPACE, name + suffix)
        if live is not None and oracles.owner_uid(live):
            self.act(scenarios.drift(kind, name + suffix, change))

    @rule(name=st.sampled_from(NAMES), child=st.sampled_from(CHILD_NAMES), swap=st.booleans())
    def delete_child(self, name: str, child: tuple[str, str], swap: bool) -> None:
        """Also foreign ones go like that; `swap`: somebody else takes the name at once."""
        acts = [scenarios.delete_child(child[0], name + child[1])]
        if swap and child in FOREIGN:
            acts.append(scenarios.create_foreign(child[0], name + child[1]))
        self.act(scenarios.both(*acts))

    @rule(name=st.sampled_from(NAMES), child=st.sampled_from(FOREIGN))
    def take_name(self, name: str, child: tuple[str, str]) -> None:
        if self.cluster.get(child[0], NAMESPACE, name + child[1]) is None:
            self.act(scenarios.create_foreign(child[0], name + child[1]))

    # bad luck ---------------------------------------------------------------------------------------------------------

    @rule(refused=st.sampled_from(Refused), times=st.integers(1, 3))
    def refuse_writes(self, refused: Refused, times: int) -> None:
        for replica in self.alive():
            replica.session.faults += [make_fault(refused, _is_write) for _ in range(times)]

    @rule(times=st.integers(1, 4))
    def refuse_reads(self, times: int) -> None:
        for replica in self.alive():
            replica.session.faults.append(Fault(lambda request: request.method == "GET", 500, times=times))

    @rule(after=st.booleans(), write=st.integers(0, 3))
    def crash_at_a_write(self, after: bool, write: int) -> None:
        for replica in self.alive()[:1]:
            replica.session.crash = CrashPoint(replica.session.writes + write, after)

    @rule(behind=st.integers(0, 5), stale=st.sampled_from([RESOURCES | CHILDREN, RESOURCES, CHILDREN]))
    def crash_and_restart(self, behind: int, stale: frozenset[str]) -> None:
        for replica in self.alive()[:1]:
            replica.crash()
        self.start(behind, stale)

    @precondition(lambda self: len(self.alive()) < 2)
    @rule()
    def second_leader(self) -> None:
        self.start()

    @rule()
    def change_leader(self) -> None:
        """The old one hears of it, and goes when there is a third."""
        for replica in self.alive()[:-1]:
            replica.crash()
        for replica in self.alive():
            replica.lead(False)
        self.start()

    @rule(manner=st.sampled_from(Manner))
    def events_arrive(self, manner: Manner) -> None:
        self.manner = manner
        for replica in self.alive():
            replica.session.manner = manner

    @rule()
    def cut_streams(self) -> None:
        for replica in self.alive():
            for stream in list(replica.session.streams):
                self.act(lambda _, stream=stream: stream.close())  # type: ignore[misc]

    @rule()
    def compact(self) -> None:
        def now(cluster: SimCluster) -> None:
            cluster.compact()
            for replica in self.alive():
                for stream in list(replica.session.streams):
                    stream.expire()

        self.act(now)

    @rule(seconds=st.sampled_from([0.001, 0.0025, 0.01, 0.06, 0.3, 1.0, 4.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.wait_s(seconds)

    # and then ---------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if self.stage.replicas:
                self._judge()
        finally:
            self.loop.close_all()
            logging.disable(logging.NOTSET)

    def _judge(self) -> None:
        self.act(self._heal)
        if not any(replica.is_working for replica in self.alive()):
            self.start()
        converged, quiet_from = self.run(self.stage.settle(QUIET_WHEN_FORBIDDEN_S, 3000.0))
        ended_s = self.loop.time()
        step = Step("all of it", lambda _: None, None)
        schedule = Schedule(manner=Manner.LATE_CHILDREN, rivals=2)  # the least that can be asked for, see the oracles
        lives = self.run(self.stage.end())
        empty = SimCluster(lambda: START_S)
        run = Outcome(
            step,
            schedule,
            empty,
            self.cluster,
            lives,
            converged,
            START_S,
            ended_s,
            quiet_from,
            heard_within_s=HEARD_WITHIN_S,
        )
        fresh = play(empty, START_S, Step("at once", self._ask_at_once(), None), Schedule())
        findings = [*oracles.judge_alone(run), *oracles.same_as_from_nothing(run, fresh)]
        assert not findings, "\n".join(map(str, findings[:8])) + "\n" + "\n".join(map(str, self.cluster.writes[-40:]))

    def _heal(self, cluster: SimCluster) -> None:
        """Nothing more goes wrong, and what keeps an earlier state alive is taken back."""
        for replica in self.alive():
            replica.session.faults.clear()
            replica.session.crash = None
            replica.session.manner = Manner.PROMPT
        self.manner = Manner.PROMPT
        for resource in cluster.all("LLMDeployment"):
            if resource["spec"]["engine"] not in HEALTHY_ENGINES:
                scenarios.edit(resource["metadata"]["name"], engine=ENGINE)(cluster)

    def _ask_at_once(self) -> Act:
        foreign = [live for kind in CHILD_KINDS for live in self.cluster.all(kind) if not oracles.owner_uid(live)]
        resources = self.cluster.all("LLMDeployment")

        def act(cluster: SimCluster) -> None:
            for live in foreign:
                live["spec"].pop("clusterIP", None)
                cluster.create(USER, live)
            for live in resources:
                cluster.create(USER, live)

        return act


def _is_write(request: Request) -> bool:
    return request.method != "GET"


_COMMON = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}


def test_some_stories() -> None:
    run_state_machine_as_test(Machine, settings=settings(max_examples=12, stateful_step_count=12, **_COMMON))


@pytest.mark.long
def test_many_stories() -> None:
    run_state_machine_as_test(Machine, settings=settings(max_examples=250, stateful_step_count=30, **_COMMON))
