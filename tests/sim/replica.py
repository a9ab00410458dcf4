"""One process of the operator on the simulated cluster: the real `Operator` with all its parts, less what needs a socket.

In the place of kopf, which would bring its own threads and sockets, stands the loop of its watch stream (list, watch, list
again after 410), which hands each event to the real feed. An engine from a ConfigMap is rendered in this process. A crash
cancels everything at one instant and nothing of it is heard of again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.sim.cluster import SimCluster
from tests.sim.delivery import Manner
from tests.sim.measuring import ScriptedCollector
from tests.sim.transport import SimSession, as_session

from fairlead.config import OperatorConfig
from fairlead.errors import ApiError, Gone
from fairlead.facts.alerts import Delivery
from fairlead.facts.observed import Observed, OperatorFacts
from fairlead.kube.cache import Cache
from fairlead.kube.client import ApiClient
from fairlead.kube.session import Connection
from fairlead.planning.plan import Plan
from fairlead.runtime import decide
from fairlead.runtime.authority import CertificateAuthority
from fairlead.runtime.feed import CustomResourceFeed
from fairlead.runtime.kinds import Kinds, by_name, make_llmdeployment
from fairlead.runtime.main import Operator
from fairlead.runtime.sandbox import Sandbox
from fairlead.runtime.scaling import ScalingDesk

WORKERS = 4
KOPF_RETRY_S = 1.0


class _SameProcess(Sandbox):
    """Renders here: a process of its own would run on real time."""

    async def decide(
        self,
        raw: Mapping[str, Any],
        observed: Observed,
        overrides: Mapping[str, tuple[str, str]],
        facts: OperatorFacts,
        now: datetime,
    ) -> Plan:
        return decide.decide(raw, observed, overrides, facts, now)


@dataclass(frozen=True, slots=True)
class Options:
    """How a replica runs. `elect`: by the real Lease; otherwise it believes that it leads as soon as its caches are filled."""

    manner: Manner = Manner.PROMPT
    elect: bool = False
    leads: bool = True


class Replica:
    """One life of the operator, from start to crash or stop."""

    def __init__(self, cluster: SimCluster, actor: str, options: Options | None = None) -> None:
        self.cluster = cluster
        self.actor = actor
        self.options = options or Options()
        self.session = SimSession(cluster, actor, self.options.manner)
        self.session.on_crash = self.crash
        self.crashed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        connection = Connection(server="http://sim", session=as_session(self.session))
        connection.ready.set()
        config = OperatorConfig(
            leader_elect=self.options.elect,
            identity=actor,
            workers=WORKERS,
            metrics_address="127.0.0.1",
            metrics_port=0,
        )
        self.operator = Operator(config, connection, self._make_kinds)
        self._use_cluster_time()
        cluster.hearers.append(self._hear)
        self._signals = ScriptedCollector(cluster, self.operator._enqueue)
        self.operator.signals = self._signals
        self.operator.controller._desk = ScalingDesk(self.operator.cache, self._signals, self.operator.inbox.alerts_of)

    def start(self) -> None:
        """As `Operator.run` does it, in the background."""
        self._spawn(self._run(), "run")

    @property
    def is_working(self) -> bool:
        """Whether it takes keys from its queue."""
        return self.operator.controller.is_working

    def lead(self, leading: bool) -> None:
        """Have it believe that it leads, or that it does no more."""
        self.operator._on_leading(leading)

    def crash(self) -> None:
        """SIGKILL: nothing more is sent, nothing is tidied up."""
        self.session.cut()
        self.crashed.set()
        for task in [*self._tasks, *self.operator.controller._workers]:
            task.cancel()
        self._signals.drop()
        self.operator.queue.close()

    async def end(self) -> None:
        """Crash, and wait until every task is gone."""
        if not self.crashed.is_set():
            self.crash()
        await asyncio.gather(*self._tasks, *self.operator.controller._workers, return_exceptions=True)
        await self._signals.stop()

    def findings(self) -> list[str]:
        """What this life did that none may: passes that raised, tasks that died."""
        found = []
        panics = sum(passes.panics._value.get() for passes in self.operator.metrics.passes.values())
        if panics:
            found.append(f"{self.actor}: {panics:.0f} passes raised an exception")
        if self.operator.controller.broken.is_set():
            found.append(f"{self.actor}: a worker died")
        found += [
            f"{self.actor}: task {task.get_name()} died: {task.exception()!r}"
            for task in self._tasks
            if task.done() and not task.cancelled() and task.exception() is not None
        ]
        return found

    def _hear(self, delivery: Delivery) -> None:
        """What the port for alerts does, for a leader; a standby says no, and who is dead says nothing."""
        if self.is_working and not self.crashed.is_set():
            self.operator.inbox.take(delivery)

    def _make_kinds(self, config: OperatorConfig, cache: Cache, client: ApiClient) -> Kinds:
        planner = decide.DeploymentPlanner(
            config, cache, _SameProcess(), lambda: CertificateAuthority(config.namespace, cache, client)
        )
        return by_name(make_llmdeployment(config, planner))

    def _use_cluster_time(self) -> None:
        controller = self.operator.controller
        controller._wall = self.cluster.wall
        controller._recorder._wall = self.cluster.wall
        self.operator.elector._wall = self.cluster.wall
        self.operator.inbox._wall = self.cluster.wall

    async def _run(self) -> None:
        operator = self.operator
        for feed in operator.feeds.values():
            await feed.expect()
        for informer in operator.informers:
            self._spawn(informer.run(), f"informer of {informer.selection}")
        for feed in operator.feeds.values():
            self._spawn(feed.run(), "ghost finder")
        self._spawn(operator._follow_leadership(), "leadership")
        if self.options.leads or self.options.elect:
            self._spawn(operator._lead_when_synced(), "election")
        for feed in operator.feeds.values():
            self._spawn(self._watch_resources(feed), "kopf")

    async def _watch_resources(self, feed: CustomResourceFeed) -> None:
        """What kopf does: a list whose items have no type, then a watch from there; after 410 again from the beginning."""
        client, resource = self.operator.client, feed.resource
        version = ""
        while True:
            try:
                if not version:
                    async for page in client.list(resource, None):
                        feed.listed()
                        version = page.resource_version
                        for item in page.items:
                            feed.on_event({"type": None, "object": item})
                async for event in client.watch(resource, None, resource_version=version):
                    version = event.object["metadata"]["resourceVersion"]
                    raw = {"type": event.type, "object": event.object}
                    if event.type != "BOOKMARK" and not feed.is_known(raw):
                        feed.on_event(raw)
            except Gone:
                version = ""
            except ApiError:
                await asyncio.sleep(KOPF_RETRY_S)
            await asyncio.sleep(0.1)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_swallow)
        self._tasks.append(task)


def _swallow(task: asyncio.Task[None]) -> None:
    """An exception is told by `findings`, not by the loop."""
    with contextlib.suppress(asyncio.CancelledError):
        task.exception()
