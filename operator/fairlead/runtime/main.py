"""The operator as one process: everything is built here, started in order, and stopped in the opposite order.

Start: log in, wait for the CRD, fill the caches, serve probes, then take part in the election; only the leader works the queue.
Stop (SIGTERM, SIGINT): take no more keys, give running passes their grace, give the Lease away, stop kopf, close.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import kopf

from fairlead.api import names
from fairlead.config import OperatorConfig
from fairlead.facts.observed import ObjectKey
from fairlead.kube.cache import Cache, Change, OwnerKey
from fairlead.kube.client import ApiClient
from fairlead.kube.events import EventRecorder
from fairlead.kube.informer import Informer, Selection
from fairlead.kube.lease import LeaderElector, LeaseTimings
from fairlead.kube.resources import CHILD_RESOURCES, CONFIG_MAP, DEPLOYMENT, LLMDEPLOYMENT, POD
from fairlead.kube.session import Connection, connect
from fairlead.runtime.applier import Applier
from fairlead.runtime.controller import Controller
from fairlead.runtime.feed import CustomResourceFeed, resource_key
from fairlead.runtime.handlers import make_registry, make_settings
from fairlead.runtime.metrics import CONTROLLER, ConditionCollector, Metrics
from fairlead.runtime.planner import Planner
from fairlead.runtime.queue import Priority, Queue
from fairlead.runtime.server import (
    DEBUG_KEYS_MAX,
    Health,
    LoopProbe,
    Server,
    Stream,
    describe_lease,
    describe_queue,
    describe_streams,
    describe_tasks,
)
from fairlead.runtime.statuswriter import is_beginning
from fairlead.runtime.troubles import describe_left_behind, describe_refusals

logger = logging.getLogger(__name__)

ENGINE_SELECTOR = names.LABEL_ENGINE
MANAGED_SELECTOR = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"

#: Children change in volleys. One pass for each volley is enough: at once for what may have to be put right, soon for what
#: people wait for (a pod is ready, or in trouble), later for what merely moves on.
CHANGE_COALESCE_S = 0.05
NEWS_COALESCE_S = 0.25
STATUS_COALESCE_S = 1.5

#: Nearly all garbage is freed by its last reference. With Python's own thresholds the search for the rest is a tenth of all work.
GC_THRESHOLDS = (20_000, 20, 20)

MakePlanner = Callable[[OperatorConfig, Cache], Planner]


class Operator:
    """One replica. `run` returns after a clean stop and raises what ended it otherwise."""

    def __init__(self, config: OperatorConfig, connection: Connection, make_planner: MakePlanner) -> None:
        loop_time = asyncio.get_running_loop().time
        self.config = config
        self.connection = connection
        self.metrics = Metrics()
        self.cache = Cache()
        self.client = ApiClient(connection)
        connection.observer = self._observe_request
        self.queue: Queue[OwnerKey] = Queue(clock=loop_time, observer=self.metrics)
        self.metrics.watch_queue(self.queue.__len__, lambda: self.queue.busy.values())
        self.elector = self._make_elector()
        self.feed = CustomResourceFeed(
            self.client, self.cache, self._enqueue, self.metrics, namespaces=config.watch_namespaces, clock=loop_time
        )
        self.informers = self._make_informers(loop_time)
        self.planner = make_planner(config, self.cache)
        self.applier = self._make_applier(loop_time)
        self.controller = self._make_controller(loop_time)
        self.probe = LoopProbe(self.metrics, loop_time)
        streams: dict[str, Stream] = {str(informer.selection): informer for informer in self.informers}
        streams[LLMDEPLOYMENT.plural] = self.feed
        self.streams = streams
        self.health = Health(
            streams, self.queue, self.probe, clock=loop_time, is_working=lambda: self.controller.is_working
        )
        self.server = Server(
            self.metrics.registry, self.health, self._debug, config.metrics_address, config.metrics_port
        )
        self.metrics.registry.register(ConditionCollector(self.feed.conditions, self.cache.counts))
        self.metrics.leader.labels(config.lease_name).set(0)
        self._let_metrics_see(asyncio.get_running_loop())
        self._stopping = asyncio.Event()
        self._led = asyncio.Event()  # something changed about leading
        self._leading = False
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Run until `stop` is called, a signal arrives, or something that must not end ends."""
        gc.set_threshold(*GC_THRESHOLDS)
        self.connection.open()
        self._install_signals()
        try:
            await self.server.start()
            self._spawn(self.probe.run(), "loop probe")
            await self._until_stopped(self.feed.expect())
            if not self._stopping.is_set():
                await self._serve()
        finally:
            await self._shut_down()
            await self.planner.close()

    def stop(self) -> None:
        """Begin a clean stop."""
        if not self._stopping.is_set():
            logger.info("Stopping")
        self._stopping.set()

    async def _serve(self) -> None:
        for informer in self.informers:
            self._spawn(informer.run(), f"informer of {informer.selection}")
        self._spawn(self.feed.run(), "ghost finder")
        self._spawn(self._follow_leadership(), "leadership")
        self._spawn(self._watch_workers(), "worker watch")
        # All of these before kopf: at its end it waits for, and then cancels, what began after it.
        self._spawn(self._lead_when_synced(), "election")
        stop_flag = asyncio.Event()
        started = asyncio.Event()
        kopf_task = asyncio.create_task(self._run_kopf(stop_flag, started), name="kopf")
        await asyncio.wait(
            {kopf_task, asyncio.create_task(started.wait(), name="kopf start")}, return_when=asyncio.FIRST_COMPLETED
        )
        self._install_signals()  # kopf put its own in their place, which would stop it before the workers
        stopping = asyncio.create_task(self._stopping.wait(), name="stop")
        try:
            ended, _ = await asyncio.wait({kopf_task, stopping, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
            await self._retire()
        finally:
            stopping.cancel()
            stop_flag.set()
            if not kopf_task.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await kopf_task
        for task in (kopf_task, *ended):
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error
        if not self._stopping.is_set():
            names_of_ended = ", ".join(sorted(task.get_name() for task in ended))
            raise RuntimeError(f"a task that must not end has ended: {names_of_ended}")

    async def _run_kopf(self, stop_flag: asyncio.Event, started: asyncio.Event) -> None:
        namespaces = self.config.watch_namespaces
        await kopf.operator(
            registry=make_registry(self.connection, self.feed),
            settings=make_settings(),
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
            stop_flag=stop_flag,
            ready_flag=started,
        )

    async def _lead_when_synced(self) -> None:
        """A replica with cold caches must not lead: what it does not see, it would make again."""
        streams: tuple[Stream, ...] = (*self.informers, self.feed)
        for stream in streams:
            await stream.synced.wait()
        logger.info("Caches are filled", extra={"objects": self.cache.counts()})
        # What was imported and built until now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        if self.config.leader_elect:
            await self.elector.run()
        self._on_leading(True)
        await asyncio.Event().wait()

    def _on_leading(self, leading: bool) -> None:
        self._leading = leading
        self.metrics.leader.labels(self.config.lease_name).set(int(leading))
        self._led.set()

    async def _follow_leadership(self) -> None:
        while True:
            await self._led.wait()
            self._led.clear()
            if self._leading and not self.controller.is_working:
                self.controller.start(self.config.workers)
            elif not self._leading and self.controller.is_working:
                await self.controller.stop(0.0)  # somebody else may lead any moment now

    async def _watch_workers(self) -> None:
        await self.controller.broken.wait()
        raise RuntimeError("a worker died")

    async def _retire(self) -> None:
        """The part of the stop that needs the API server."""
        await self.controller.stop(self.config.shutdown_grace_s)
        await self._cancel("election")
        if self.config.leader_elect:
            await self.elector.release()

    async def _shut_down(self) -> None:
        await self.controller.stop(0.0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.server.stop()
        await self.connection.close()
        await asyncio.sleep(0)

    async def _cancel(self, name: str) -> None:
        for task in [task for task in self._tasks if task.get_name() == name]:
            self._tasks.remove(task)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        tasks = {asyncio.create_task(work), asyncio.create_task(self._stopping.wait())}
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            task.result()

    def _may_write(self) -> bool:
        return self._leading and (not self.config.leader_elect or self.elector.is_leader)

    def _enqueue(self, key: OwnerKey, priority: Priority = Priority.EVENT) -> None:
        if self.controller.is_working:  # a follower's queue would only grow; whoever begins to lead adds every key
            self.queue.add(key, priority)

    def _on_child_change(self, change: Change) -> None:
        if change.after is not None and change.after.key in self.applier.in_flight:
            return  # the pass that writes it looks at it again
        delay_s = CHANGE_COALESCE_S
        if change.is_status_only or _is_pod(change):
            delay_s = NEWS_COALESCE_S if change.is_news else STATUS_COALESCE_S
            if not change.is_news and _is_on_its_way(change):
                return  # status waits for the pods, and a pass for the case that they never come is due already
        for owner in change.owners():
            if self.controller.is_working:
                self.queue.add_after(owner, delay_s)
        if change.after is None and change.before is not None and self.controller.is_working:
            self._on_name_free(change.before.key)

    def _on_name_free(self, freed: ObjectKey) -> None:
        """Whoever waited for this name need not wait for its slow retry: those with a refused child, and those whose plan
        left the name alone because the object was somebody else's."""
        waiting = {owner for owner in self.controller.refusing() if owner.namespace == freed.namespace}
        named = (OwnerKey(freed.namespace, name) for name in names.possible_owner_names(freed.name))
        for owner in waiting | {owner for owner in named if self.cache.get(resource_key(owner)) is not None}:
            self._enqueue(owner)

    def _on_engine_change(self, change: Change) -> None:
        labels = [
            (entry.load()["metadata"].get("labels") or {}).get(names.LABEL_ENGINE)
            for entry in (change.before, change.after)
            if entry is not None
        ]
        for key in self.cache.keys(LLMDEPLOYMENT.kind):
            owner = OwnerKey(key.namespace, key.name)
            entry = self.cache.get(resource_key(owner))
            if entry is not None and ((entry.load().get("spec") or {}).get("engine") or {}).get("type") in labels:
                self._enqueue(owner)

    def _observe_request(self, method: str, path: str, is_watch: bool, code: str, duration_s: float) -> None:
        self.metrics.observe("WATCH" if is_watch else method, self.connection.host, code, duration_s)
        if path.endswith(f"/{LLMDEPLOYMENT.plural}"):
            self.feed.tried()
            if code == "200":
                self.feed.heard()  # kopf does not tell of bookmarks, but each of its streams begins with a request
                self.controller.crd_may_have_changed()

    def _make_elector(self) -> LeaderElector:
        config = self.config
        return LeaderElector(
            self.client,
            namespace=config.leases_in,
            name=config.lease_name,
            identity=config.identity,
            on_change=self._on_leading,
            clock=asyncio.get_running_loop().time,
            timings=LeaseTimings(config.lease_duration_s, config.renew_deadline_s, config.retry_period_s),
        )

    def _make_informers(self, clock: Callable[[], float]) -> list[Informer]:
        selections = [
            Selection(resource, namespace, MANAGED_SELECTOR)
            for namespace in (self.config.watch_namespaces or (None,))
            for resource in (*CHILD_RESOURCES, POD)
        ]
        informers = [
            Informer(self.client, self.cache, selection, self._on_child_change, clock=clock, observer=self.metrics)
            for selection in selections
        ]
        engines = Selection(CONFIG_MAP, self.config.namespace, ENGINE_SELECTOR)
        informers.append(
            Informer(self.client, self.cache, engines, self._on_engine_change, clock=clock, observer=self.metrics)
        )
        return informers

    def _make_applier(self, clock: Callable[[], float]) -> Applier:
        return Applier(
            self.client,
            self.cache,
            self.metrics,
            clock=clock,
            may_write=self._may_write,
            may_create=self.feed.may_create,
        )

    def _make_controller(self, clock: Callable[[], float]) -> Controller:
        recorder = EventRecorder(self.client, instance=self.config.identity, clock=clock)
        return Controller(
            self.client,
            self.cache,
            self.queue,
            self.planner,
            self.applier,
            recorder,
            self.metrics,
            clock=clock,
            wall=lambda: datetime.now(UTC),
            may_write=self._may_write,
        )

    def _let_metrics_see(self, loop: asyncio.AbstractEventLoop) -> None:
        """What lives elsewhere is asked for at each scrape."""

        def silence_of(stream: Stream) -> Callable[[], float]:
            return lambda: loop.time() - stream.last_heard_at

        def count_refused(reason: str) -> int:
            refused = (refusal for _, refusals in self.controller.refusals() for refusal in refusals.values())
            return sum(refusal.failure.reason == reason for refusal in refused)

        self.metrics.watch_streams({name: silence_of(stream) for name, stream in self.streams.items()})
        self.metrics.watch_state(
            tasks=lambda: len(asyncio.all_tasks(loop)),
            failing=lambda: len(self.queue.failures),
            lease_age_s=lambda: self.elector.view.renewed_ago_s if self.elector.view is not None else 0.0,
            refused=count_refused,
            left_behind=lambda: sum(len(them) for _, them in self.controller.left_behind()),
        )

    def _debug(self) -> dict[str, Any]:
        now = asyncio.get_running_loop().time()
        return {
            "controller": CONTROLLER,
            "identity": self.config.identity,
            "lease": describe_lease(self.elector.view),
            **describe_queue(self.queue, leading=self._may_write()),
            "lastErrors": self.controller.troubles.describe(DEBUG_KEYS_MAX),
            "refused": describe_refusals(self.controller.refusals(), now, DEBUG_KEYS_MAX),
            "waitingForDeletion": describe_left_behind(self.controller.left_behind(), now, DEBUG_KEYS_MAX),
            "streams": describe_streams(self.streams, now),
            "cache": self.cache.counts(),
            "loopLagSeconds": round(self.probe.lag_s, 3),
            "tasks": describe_tasks(asyncio.all_tasks()),
        }

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)


def _is_on_its_way(change: Change) -> bool:
    entry = change.after
    return entry is not None and entry.key.kind == DEPLOYMENT.kind and is_beginning(entry.load())


def _is_pod(change: Change) -> bool:
    entry = change.after or change.before
    return entry is not None and entry.key.kind == POD.kind


async def run_operator(config: OperatorConfig, make_planner: MakePlanner) -> None:
    """Find the API server and run one replica until it is told to stop."""
    connection = connect(config.kubeconfig)
    await Operator(config, connection, make_planner).run()
