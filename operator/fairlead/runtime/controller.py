"""The worker loop: a key comes from the queue, the cache is read, a plan is made, what differs is applied, status is written.

Level-triggered: nothing is remembered of why a key was added. A pass over an unchanged world writes nothing. A custom
resource that makes planning fail harms itself only: it is counted, logged with its traceback and tried again with backoff.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

from fairlead.errors import ApiError
from fairlead.facts.observed import ObjectKey, Observed
from fairlead.kube.cache import Cache
from fairlead.kube.client import ApiClient
from fairlead.kube.events import EventRecorder
from fairlead.kube.resources import DEPLOYMENT, SCALED_OBJECT
from fairlead.planning.plan import Plan
from fairlead.runtime.applier import (
    Applier,
    ChildMemory,
    NotLeadingError,
    Outcome,
    Owner,
    OwnerGoneError,
    PostponedError,
    StaleOwnerError,
)
from fairlead.runtime.kinds import Kinds
from fairlead.runtime.leftbehind import LeftBehind
from fairlead.runtime.metrics import Metrics
from fairlead.runtime.pods import Pods
from fairlead.runtime.queue import Priority, Queue
from fairlead.runtime.refusals import Refusal, is_transient, least_wait_s, slow_retry_s
from fairlead.runtime.scaling import ScalingDesk
from fairlead.runtime.statuswriter import StatusTiming, StatusWriter, is_awaited, is_beginning, is_unseen, is_urgent
from fairlead.runtime.troubles import Troubles

logger = logging.getLogger(__name__)

PASS_TIMEOUT_S: Final = 120.0
RESYNC_S: Final = 36_000.0
POSTPONED_S: Final = 1.0
UNSURE_S: Final = 1.0  # the Lease was not renewed in time, and its loss is not certain yet


@dataclass(slots=True)
class _Memory:
    """What is remembered of one custom resource between passes."""

    generation: int = -1
    held_until: float = float("-inf")  # the API server asked for patience until then
    children: ChildMemory = field(default_factory=ChildMemory)
    timing: StatusTiming = field(default_factory=StatusTiming)


class Controller:
    """Owns the workers. `start` and `stop` follow the Lease; `run_pass` is one pass, also for tests."""

    def __init__(
        self,
        kinds: Kinds,
        client: ApiClient,
        cache: Cache,
        queue: Queue[ObjectKey],
        applier: Applier,
        recorder: EventRecorder,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        wall: Callable[[], datetime],
        may_write: Callable[[], bool],
        jitter: Callable[[], float] = random.random,
        desk: ScalingDesk | None = None,
    ) -> None:
        self._kinds = kinds
        self._status = StatusWriter(kinds, client, cache, metrics, may_write)
        self._cache = cache
        self._queue = queue
        self._applier = applier
        self._recorder = recorder
        self._pods = Pods(client, cache, recorder, may_write)
        self._metrics = metrics
        self._clock = clock
        self._wall = wall
        self._jitter = jitter
        self._desk = desk or ScalingDesk(cache)
        self.troubles = Troubles(clock)
        self.broken = asyncio.Event()  # a worker died, which none may: end the process rather than limp
        self._memories: dict[ObjectKey, _Memory] = {}
        self._inherited: set[ObjectKey] = set()
        self._began = wall()  # of this term
        self._refusing: set[ObjectKey] = set()
        self._active = 0
        self._workers: list[asyncio.Task[None]] = []

    @property
    def is_working(self) -> bool:
        """Whether workers take keys."""
        return bool(self._workers)

    def start(self, workers: int) -> None:
        """Begin to work on every custom resource there is, with nothing remembered from an earlier term."""
        self._forget_all()
        self._queue.reopen()
        owners = [key for kind in self._kinds for key in self._cache.keys(kind)]
        self._inherited = set(owners)
        self._began = self._wall()
        for owner in owners:
            self._queue.add(owner, Priority.RESYNC)
        self._metrics.max_concurrent.set(workers)
        self._workers = [asyncio.create_task(self._work(), name=f"worker {number}") for number in range(workers)]
        for worker in self._workers:
            worker.add_done_callback(self._worker_ended)

    async def stop(self, grace_s: float) -> None:
        """Take no more keys, give running passes `grace_s` seconds, then cancel them."""
        self._queue.close()
        workers, self._workers = self._workers, []
        deadline = asyncio.get_running_loop().time() + grace_s
        while grace_s > 0 and self._active and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        self._forget_all()
        for key in self._queue.failures:
            self._queue.forget(key)

    def _forget_all(self) -> None:
        """A term is over, or another begins: whoever stands by has no troubles to show, and whoever leads has no memories."""
        self._memories.clear()
        self._refusing.clear()
        self._desk.clear()
        self.troubles.clear()

    def crd_may_have_changed(self, kind: str) -> None:
        """The watch of the custom resources of this kind began anew, as it does when their CRD is replaced."""
        self._status.crd_may_have_changed(kind)

    def refusing(self) -> AbstractSet[ObjectKey]:
        """Custom resources that have a refused child: another object's change may concern them."""
        return self._refusing

    def refusals(self) -> Iterator[tuple[ObjectKey, Mapping[ObjectKey, Refusal]]]:
        """Their refused children, for people."""
        for key in self._refusing:
            if (memory := self._memories.get(key)) is not None:
                yield key, memory.children.refusals

    def left_behind(self) -> Iterator[tuple[ObjectKey, Mapping[ObjectKey, LeftBehind]]]:
        """Custom resources that wait for the end of a predecessor's children, for people."""
        return (
            (key, memory.children.left_behind) for key, memory in self._memories.items() if memory.children.left_behind
        )

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        if not worker.cancelled():
            logger.critical("A worker died", exc_info=worker.exception())
            self.broken.set()

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            self._active += 1
            self._metrics.active_workers.set(self._active)
            try:
                await self._guarded_pass(key)
            finally:
                self._active -= 1
                self._metrics.active_workers.set(self._active)
                self._queue.done(key)

    async def _guarded_pass(self, key: ObjectKey) -> None:
        started, metrics = time.perf_counter(), self._metrics.passes[key.kind]
        about: dict[str, Any] = {
            "controller": key.kind.lower(),
            "namespace": key.namespace,
            "name": key.name,
            "reconcile_id": uuid4().hex[:12],
        }
        try:
            async with asyncio.timeout(PASS_TIMEOUT_S):
                result = await self.run_pass(key, about)
        except NotLeadingError:
            # Whoever has lost the Lease forgets the queue in a moment. But one that was frozen may find that nobody took it: then the
            # same term goes on, and nothing else would bring this key back.
            self._queue.add_after(key, UNSURE_S)
            result = "requeue_after"
        except StaleOwnerError:
            self._queue.add(key)
            result = "requeue"
        except OwnerGoneError:
            self._forget(key, about["uid"])
            result = "success"
        except PostponedError:
            self._queue.add_after(key, POSTPONED_S)
            result = "requeue_after"
        except ApiError as error:
            # What the planner must know to decide could not be read. Nothing is changed for that.
            self.troubles.failed(key, error, about["reconcile_id"])
            delay_s = self._queue.retry(key, at_least_s=least_wait_s(error))
            logger.warning("No plan could be made, again in %.2f s: %s", delay_s, error, extra={"about": about})
            result = "error"
        except TimeoutError as error:
            metrics.timeouts.inc()
            self.troubles.failed(key, error, about["reconcile_id"])
            self._queue.retry(key)
            logger.error("The pass took longer than %.0f s", PASS_TIMEOUT_S, extra={"about": about})
            result = "error"
        except Exception as error:
            # One broken custom resource must not stop the others, whatever is wrong with it.
            metrics.panics.inc()
            self.troubles.failed(key, error, about["reconcile_id"])
            delay_s = self._queue.retry(key)
            logger.exception("The pass failed; again in %.1f s", delay_s, extra={"about": about})
            result = "error"
        if result == "error":
            metrics.errors.inc()
        metrics.total[result].inc()
        metrics.time.observe(time.perf_counter() - started)

    async def run_pass(self, key: ObjectKey, about: dict[str, Any]) -> str:
        """One pass over one custom resource. Returns the result's name for the metrics."""
        entry = self._cache.get(key)
        if entry is None:
            self._forget(key, "")
            return "success"
        raw = entry.load()
        about |= {"uid": entry.uid, "generation": entry.generation}
        if raw["metadata"].get("deletionTimestamp"):
            return "success"  # the garbage collector has the rest; creating anything now would race it
        memory = self._recall(key, entry.generation, raw)
        if (held_s := memory.held_until - self._clock()) > 0.0:
            self._queue.add_after(key, held_s)
            return "requeue_after"
        owner = Owner(self._kinds[key.kind], key.namespace, key.name, entry.uid)
        told = memory.children.failures()
        plan = await self._plan(key, raw, memory)
        outcome = await self._applier.carry_out(owner, plan, memory.children)
        self._remember_refusals(key, memory)
        news = memory.children.failures() != told
        if outcome.written:
            memory.timing.child_written(self._clock())
            # Its pods are made in a moment: that event, and not a look in between, is when there is something to tell.
            memory.timing.is_beginning |= self._is_beginning(plan, entry.uid)
        if owner.kind.has_nudges or plan.nudges:
            plan = await self._nudge(owner, raw, plan, memory, outcome)
        wait_s = 0.0
        if outcome.written and not news:
            # What was just written is about to move; the next pass sees it settled and tells of it.
            wait_s = memory.timing.due_in_s(self._clock(), urgent=True)
        status_error = None
        hurries = plan.acts_on_status or is_awaited(raw.get("status") or {}, plan.status)
        if wait_s == 0.0 or hurries:
            if news or outcome.written:
                plan = await self._plan(key, raw, memory)
            wait_s, status_error = await self._keep_status(owner, raw, plan, memory, outcome, at_once=news or hurries)
            if plan.acts_on_status and "status" in outcome.written:
                self._queue.add(key)  # status holds a decision now: another pass carries it out
        if wait_s > 0.0 and not outcome.errors:  # after an error the backoff, or the server, says when
            self._queue.add_after(key, wait_s)
        return self._finish(key, plan, outcome, memory, status_error, about)

    async def _nudge(self, owner: Owner, raw: Mapping[str, Any], plan: Plan, memory: _Memory, outcome: Outcome) -> Plan:
        """Tell pods of what they should load, and of what was written just now; end those that do not listen. Returns the plan of that
        moment."""
        if outcome.written:
            plan = await self._plan(owner.key, raw, memory)
        await self._pods.nudge(owner, plan.nudges, outcome)
        await self._pods.remove(owner, plan.removals, outcome)
        return plan

    def _recall(self, key: ObjectKey, generation: int, raw: Mapping[str, Any]) -> _Memory:
        memory = self._memories.get(key)
        if memory is None:
            # One that is older than this term and heard of only now may be gone: its watch is behind.
            inherited = key in self._inherited or _is_older(raw, self._began)
            memory = self._memories[key] = _Memory(children=ChildMemory(inherited=inherited))
        if memory.generation != generation:
            memory.generation = generation
            memory.children.refusals.clear()
        return memory

    def _remember_refusals(self, key: ObjectKey, memory: _Memory) -> None:
        """Before status is written: whoever reads there of a refused child finds it on the debug page."""
        if memory.children.refusals:
            self._refusing.add(key)
        else:
            self._refusing.discard(key)

    def _is_beginning(self, plan: Plan, uid: str) -> bool:
        deployments = (self._cache.get(child.key) for child in plan.children if child.key.kind == DEPLOYMENT.kind)
        return any(
            live is not None and live.controller_uid == uid and is_beginning(live.load()) for live in deployments
        )

    def _forget(self, key: ObjectKey, uid: str) -> None:
        """The custom resource of that uid is gone, or going. Whatever its watch says of that state later is old news."""
        entry = self._cache.get(key)
        if entry is not None and entry.uid != uid:
            self._queue.add(key)  # another one has the name by now, and nobody will tell of it again
        elif entry is not None and not entry.load()["metadata"].get("deletionTimestamp"):
            self._cache.remove(entry.key, entry.uid, entry.resource_version)
        self._memories.pop(key, None)
        self._refusing.discard(key)
        self._inherited.discard(key)
        self._desk.forget(key)
        self.troubles.recovered(key)
        self._queue.discard(key)

    async def _plan(self, key: ObjectKey, raw: Mapping[str, Any], memory: _Memory) -> Plan:
        observed = self._observe(key, str(raw["metadata"]["uid"]), memory.children)
        has_keda = self._cache.is_served(SCALED_OBJECT.kind, key.namespace)
        observed = replace(observed, signals=self._desk.gather(key, raw, observed), has_keda=has_keda)
        memory.timing.is_first = (raw.get("status") or {}).get("observedGeneration", -1) < 0  # -1 is the CRD's default
        if any(map(is_unseen, observed.children.values())):
            memory.timing.child_moves(self._clock())
        memory.timing.is_beginning = any(is_beginning(live) or is_unseen(live) for live in observed.children.values())
        plan = await self._kinds[key.kind].planner.plan(raw, observed, self._wall())
        self._desk.remember(key, plan)
        return plan

    async def _keep_status(
        self, owner: Owner, raw: Mapping[str, Any], plan: Plan, memory: _Memory, outcome: Outcome, *, at_once: bool
    ) -> tuple[float, ApiError | None]:
        """Write status if it differs and is due, and the Events of its transitions. Returns the seconds until it is due,
        and why it could not be written."""
        key = owner.key
        if not self._status.differs(key, raw, plan.status):
            memory.timing.up_to_date()
            return 0.0, None
        wait_s = memory.timing.due_in_s(self._clock(), urgent=is_urgent(raw.get("status") or {}, plan.status))
        if wait_s > 0.0 and not at_once:
            return wait_s, None
        try:
            if await self._status.write(key, raw, plan.status):
                outcome.written.append("status")
                memory.children.current_uid = owner.uid  # it was accepted for the version that we had seen
        except ApiError as error:
            return 0.0, error
        memory.timing.up_to_date()
        await self._tell(owner, plan)
        return 0.0, None

    def _observe(self, key: ObjectKey, uid: str, memory: ChildMemory) -> Observed:
        children = {}
        pods = [entry.load() for entry in self._cache.carriers_of(key) if entry.key.kind == "Pod"]
        for entry in self._cache.of_owner(key):
            if entry.key.kind == "Pod":
                pods.append(entry.load())
            elif not entry.is_left_behind_for(key, uid):
                children[entry.key] = entry.load()
        pods.sort(key=lambda pod: (pod["metadata"].get("creationTimestamp", ""), pod["metadata"]["name"]))
        return Observed(children=children, pods=tuple(pods), failures=memory.failures())

    async def _tell(self, owner: Owner, plan: Plan) -> None:
        for event in plan.events:
            await self._recorder.tell(
                owner.regarding, type_=event.type, reason=event.reason, message=event.message, action=event.action
            )

    def _finish(
        self,
        key: ObjectKey,
        plan: Plan,
        outcome: Outcome,
        memory: _Memory,
        status_error: ApiError | None,
        about: Mapping[str, Any],
    ) -> str:
        if outcome.written:
            logger.info("Reconciled: %s", ", ".join(outcome.written), extra={"about": about})
        else:
            logger.debug("Nothing to do", extra={"about": about})
        if any(refusal.failure.terminal for refusal in memory.children.refusals.values()):
            self._metrics.passes[key.kind].terminal_errors.inc()
        if outcome.errors or (status_error is not None and is_transient(status_error)):
            wait_s = max(outcome.least_wait_s, least_wait_s(status_error) if status_error is not None else 0.0)
            memory.held_until = self._clock() + wait_s
            delay_s = self._queue.retry(key, at_least_s=wait_s)
            error = outcome.errors[0] if outcome.errors else status_error
            assert error is not None
            self.troubles.failed(key, error, about.get("reconcile_id", ""))
            logger.warning(
                "The API server did not take everything, again in %.2f s: %s", delay_s, error, extra={"about": about}
            )
            return "error"
        self._queue.forget(key)
        self._queue.add_after(key, RESYNC_S * (0.9 + 0.2 * self._jitter()))
        if status_error is None:
            self.troubles.recovered(key)
        waits = [wait for wait in (plan.requeue_after_s, outcome.retry_s) if wait is not None]
        if status_error is not None:
            logger.error("Status cannot be written: %s", status_error, extra={"about": about})
            self.troubles.failed(key, status_error, about.get("reconcile_id", ""))
            waits.append(slow_retry_s(2))
        if waits:
            self._queue.add_after(key, min(waits))
            return "requeue_after"
        return "success"


def _is_older(raw: Mapping[str, Any], than: datetime) -> bool:
    """By the API server's clock, which counts whole seconds."""
    created = raw["metadata"].get("creationTimestamp")
    return created is not None and datetime.fromisoformat(str(created)) < than
