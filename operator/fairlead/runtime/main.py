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
from fairlead.gateway.envoy import GatewaySettings
from fairlead.kube.cache import Cache, Change
from fairlead.kube.client import ApiClient
from fairlead.kube.events import EventRecorder
from fairlead.kube.informer import Informer, Selection
from fairlead.kube.lease import LeaderElector, LeaseTimings
from fairlead.kube.resources import DEPLOYMENT, OPTIONAL_RESOURCES, POD, Resource
from fairlead.kube.session import Connection, connect
from fairlead.runtime.alerts import make_alert_server
from fairlead.runtime.applier import Applier
from fairlead.runtime.controller import Controller
from fairlead.runtime.feed import CustomResourceFeed
from fairlead.runtime.handlers import make_registry, make_settings
from fairlead.runtime.inbox import Inbox
from fairlead.runtime.kinds import Kind, Kinds
from fairlead.runtime.metrics import CONTROLLER, ConditionCollector, Metrics
from fairlead.runtime.nodes import NodeDesk
from fairlead.runtime.queue import Priority, Queue
from fairlead.runtime.scaling import ScalingDesk
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
from fairlead.runtime.signals import Collector, make_sources
from fairlead.runtime.statuswriter import is_beginning
from fairlead.runtime.troubles import describe_left_behind, describe_refusals
from fairlead.runtime.waking import Waker
from fairlead.sources.held import HeldSource

logger = logging.getLogger(__name__)

MANAGED_SELECTOR = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"

#: Children change in volleys. One pass for each volley is enough: at once for what may have to be put right, soon for what
#: people wait for (a pod is ready, or in trouble), later for what merely moves on.
CHANGE_COALESCE_S = 0.05
NEWS_COALESCE_S = 0.25
STATUS_COALESCE_S = 1.5

#: Nearly all garbage is freed by its last reference. With Python's own thresholds the search for the rest is a tenth of all work.
GC_THRESHOLDS = (20_000, 20, 20)

MakeKinds = Callable[[OperatorConfig, Cache, ApiClient], Kinds]


class Operator:
    """One replica. `run` returns after a clean stop and raises what ended it otherwise."""

    def __init__(self, config: OperatorConfig, connection: Connection, make_kinds: MakeKinds) -> None:
        loop_time = asyncio.get_running_loop().time
        self.config = config
        self.connection = connection
        self.cache = Cache(self._on_any_change)
        self.nodes = NodeDesk(self.cache, config.nodes)
        self.client = ApiClient(connection)
        self.kinds = make_kinds(config, self.cache, self.client)
        self.metrics = Metrics(self.kinds)
        connection.observer = self._observe_request
        self.queue: Queue[ObjectKey] = Queue(clock=loop_time, observer=self.metrics)
        self.metrics.watch_queue(self.queue.__len__, lambda: self.queue.busy.values())
        self.elector = self._make_elector()
        self.feeds = {name: self._make_feed(kind, loop_time) for name, kind in self.kinds.items()}
        self._feeds_by_plural = {feed.resource.plural: feed for feed in self.feeds.values()}
        self.informers = self._make_informers(loop_time)
        self.applier = self._make_applier(loop_time)
        self.signals = Collector(self.cache, make_sources(config, loop_time), self._enqueue, clock=loop_time)
        self.inbox = Inbox(self.cache, self._evaluate, self.metrics, clock=loop_time, wall=lambda: datetime.now(UTC))
        self.waker = Waker(
            self.cache, HeldSource(GatewaySettings().status_port), self._on_held, self._may_write, loop_time
        )
        self.controller = self._make_controller(loop_time)
        self.probe = LoopProbe(self.metrics, loop_time)
        self.streams = self._name_streams()
        self.health = Health(
            self.streams, self.queue, self.probe, clock=loop_time, is_working=lambda: self.controller.is_working
        )
        self.server = Server(
            self.metrics.registry, self.health, self._debug, config.metrics_address, config.metrics_port
        )
        self.alert_server = make_alert_server(config, self.inbox, self.metrics, self._works, loop_time)
        conditions = {name: feed.conditions for name, feed in self.feeds.items()}
        self.metrics.registry.register(ConditionCollector(conditions, self.cache.counts))
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
            if self.alert_server is not None:
                await self.alert_server.start()
            self._spawn(self.probe.run(), "loop probe")
            await self._until_stopped(self._expect_resources())
            if not self._stopping.is_set():
                await self._serve()
        finally:
            await self._shut_down()
            for kind in self.kinds.values():
                await kind.planner.close()

    def stop(self) -> None:
        """Begin a clean stop."""
        if not self._stopping.is_set():
            logger.info("Stopping")
        self._stopping.set()

    async def _expect_resources(self) -> None:
        """Until the cluster knows the kinds that are needed. One that it does not know, and that is not needed, is served after a
        restart: an upgrade whose new CRD comes late must not keep what there was before from being served."""
        async with asyncio.TaskGroup() as group:
            found = {
                name: group.create_task(feed.expect(is_needed=self.kinds[name].is_needed))
                for name, feed in self.feeds.items()
            }
        for name in [name for name, task in found.items() if not task.result()]:
            feed = self.feeds.pop(name)
            self.streams.pop(feed.resource.plural)
            logger.warning("%ss are not known to this cluster and are not served: apply crds/ to have them", name)
            self._spawn(self._restart_for(feed), f"wait for {name}s")

    async def _restart_for(self, feed: CustomResourceFeed) -> None:
        await feed.appear()
        logger.warning("This cluster knows %ss now: ending, to serve them after the restart", feed.resource.kind)
        self.stop()
        await asyncio.Event().wait()

    async def _serve(self) -> None:
        for informer in self.informers:
            self._spawn(informer.run(), f"informer of {informer.selection}")
        for feed in self.feeds.values():
            self._spawn(feed.run(), "ghost finder")
        self._spawn(self._follow_leadership(), "leadership")
        self._spawn(self._watch_workers(), "worker watch")
        self._spawn(self.waker.run(), "waker")
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
            registry=make_registry(self.connection, self.feeds.values()),
            settings=make_settings(),
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
            stop_flag=stop_flag,
            ready_flag=started,
        )

    async def _lead_when_synced(self) -> None:
        """A replica with cold caches must not lead: what it does not see, it would make again."""
        streams: tuple[Stream, ...] = (*self.informers, *self.feeds.values())
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
                self.signals.start()
                self.inbox.forget()
                self.controller.start(self.config.workers)
            elif not self._leading and self.controller.is_working:
                await self.controller.stop(0.0)  # somebody else may lead any moment now
                await self.signals.stop()

    async def _watch_workers(self) -> None:
        await self.controller.broken.wait()
        raise RuntimeError("a worker died")

    async def _retire(self) -> None:
        """The part of the stop that needs the API server."""
        await self.controller.stop(self.config.shutdown_grace_s)
        await self.signals.stop()
        await self._cancel("election")
        if self.config.leader_elect:
            await self.elector.release()

    async def _shut_down(self) -> None:
        await self.controller.stop(0.0)
        await self.signals.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.alert_server is not None:
            await self.alert_server.stop()
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

    def _on_held(self, key: ObjectKey, _: int) -> None:
        self._enqueue(key)

    def _works(self) -> bool:
        return self._may_write() and self.controller.is_working

    def _enqueue(self, key: ObjectKey, priority: Priority = Priority.EVENT) -> None:
        if self.controller.is_working:  # a follower's queue would only grow; whoever begins to lead adds every key
            self.queue.add(key, priority)

    def _evaluate(self, key: ObjectKey) -> None:
        self._enqueue(key, Priority.URGENT)

    def _on_any_change(self, change: Change) -> None:
        """The cache has something new, from a watch or from the answer to a write of our own. A custom resource hears of itself by its
        feed and of its children by `_on_child_change`; here others hear of it whom it concerns."""
        self.inbox.changed(change)
        moved = self.nodes.changed(change)
        if not self.controller.is_working:
            return
        told = change.owners() | {entry.key for entry in (change.before, change.after) if entry is not None}
        for kind in self.kinds.values():
            for key in self._find_concerned(kind, change):
                if key not in told and self.cache.get(key) is not None:
                    self._enqueue(key)
        for key in moved:
            self._enqueue(key)

    def _find_concerned(self, kind: Kind, change: Change) -> list[ObjectKey]:
        try:
            return list(kind.concerned(change, self.cache))
        except Exception:
            # Whoever changed the cache, a watch or a pass, is not to end because of what one kind makes of the change.
            logger.exception("What a change means for %ss was not found out", kind.name)
            return []

    def _on_served(self, resource: Resource) -> None:
        """A kind that need not be there appeared, or went: whoever plans with it decides anew."""
        for kind in self.kinds.values():
            if resource in (*kind.children, *(watched.resource for watched in kind.watches)):
                for key in self.cache.keys(kind.name):
                    self._enqueue(key, Priority.RESYNC)

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
        if change.after is None and change.before is not None:
            self._on_name_free(change)

    def _on_name_free(self, change: Change) -> None:
        """Whoever waited for this name need not wait for its slow retry: those with a refused child. And an owner whose child is gone
        makes it anew at once. (Those whose plan left the name alone because the object was somebody else's are named by their kind.)"""
        assert change.before is not None
        waiting = {owner for owner in self.controller.refusing() if owner.namespace == change.before.key.namespace}
        bereft = set() if _is_pod(change) else change.owners()
        for owner in waiting | {owner for owner in bereft if self.cache.get(owner) is not None}:
            self._enqueue(owner)

    def _observe_request(self, method: str, path: str, is_watch: bool, code: str, duration_s: float) -> None:
        self.metrics.observe("WATCH" if is_watch else method, self.connection.host, code, duration_s)
        feed = self._feeds_by_plural.get(path.rpartition("/")[2])
        if feed is not None:
            feed.tried()
            if code == "200":
                feed.heard()  # kopf does not tell of bookmarks, but each of its streams begins with a request
                self.controller.crd_may_have_changed(feed.resource.kind)

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

    def _make_feed(self, kind: Kind, clock: Callable[[], float]) -> CustomResourceFeed:
        return CustomResourceFeed(
            kind.resource,
            self.client,
            self.cache,
            self._enqueue,
            self.metrics,
            namespaces=self.config.watch_namespaces,
            clock=clock,
        )

    def _make_informers(self, clock: Callable[[], float]) -> list[Informer]:
        """One for each selection that a kind needs, however many kinds need it."""
        children = dict.fromkeys(child for kind in self.kinds.values() for child in kind.children)
        selections = [
            Selection(resource, namespace, MANAGED_SELECTOR, is_needed=resource not in OPTIONAL_RESOURCES)
            for namespace in (self.config.watch_namespaces or (None,))
            for resource in (*children, POD)
        ]
        selections += dict.fromkeys(watched for kind in self.kinds.values() for watched in kind.watches)
        return [
            Informer(
                self.client,
                self.cache,
                selection,
                self._on_child_change,
                clock=clock,
                observer=self.metrics,
                others=selections,
                on_served=self._on_served,
            )
            for selection in selections
        ]

    def _name_streams(self) -> dict[str, Stream]:
        """By what they watch. Children that share resource and namespace with what a kind watches beside them are told from it by
        their labels."""
        streams: dict[str, Stream] = {}
        for informer in sorted(self.informers, key=lambda one: one.selection.label_selector == MANAGED_SELECTOR):
            name = str(informer.selection)
            streams[name if name not in streams else f"{name} ({informer.selection.label_selector})"] = informer
        return streams | self._feeds_by_plural

    def _make_applier(self, clock: Callable[[], float]) -> Applier:
        return Applier(
            self.client,
            self.cache,
            self.metrics,
            clock=clock,
            may_write=self._may_write,
            may_create=lambda key: self.feeds[key.kind].may_create(key),
        )

    def _make_controller(self, clock: Callable[[], float]) -> Controller:
        recorder = EventRecorder(self.client, instance=self.config.identity, clock=clock)
        return Controller(
            self.kinds,
            self.client,
            self.cache,
            self.queue,
            self.applier,
            recorder,
            self.metrics,
            clock=clock,
            wall=lambda: datetime.now(UTC),
            may_write=self._may_write,
            desk=ScalingDesk(self.cache, self.signals, self.inbox.alerts_of, self.waker.held, self.nodes),
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
            alerts_firing=self.inbox.count_firing,
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
            "alerts": self.inbox.describe(),
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


async def run_operator(config: OperatorConfig, make_kinds: MakeKinds) -> None:
    """Find the API server and run one replica until it is told to stop."""
    connection = connect(config.kubeconfig)
    await Operator(config, connection, make_kinds).run()
