"""The life of one container: image, configuration, start, hooks, probes, end, and starting again.

One task per container runs it until its restart policy has no more use for it. `stop` ends it from outside, with
preStop, SIGTERM and the grace period, in the order of a kubelet.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fairlead_cluster.node.actions import Actions, Outcome, Result
from fairlead_cluster.node.backoff import BackOff, format_duration
from fairlead_cluster.node.containerlogs import ContainerLogs, termination_message
from fairlead_cluster.node.deadline import Deadline
from fairlead_cluster.node.environment import make_environment
from fairlead_cluster.node.guardian import Guardian
from fairlead_cluster.node.imagepull import ImagePuller, PullProblem
from fairlead_cluster.node.images import Image, ImageReference, InvalidImageNameError, default_pull_policy
from fairlead_cluster.node.launch import ContainerDirectory, Launch, make_launch
from fairlead_cluster.node.memory import MemoryWatch
from fairlead_cluster.node.options import Options
from fairlead_cluster.node.podfields import PodContext
from fairlead_cluster.node.probes import Kind, Probe
from fairlead_cluster.node.process import ContainerProcess, StartError, Stdio
from fairlead_cluster.node.references import MissingReferenceError, References
from fairlead_cluster.node.security import non_root_complaint
from fairlead_cluster.node.state import ContainerState, Terminated
from fairlead_cluster.node.storage import MountError
from fairlead_cluster.node.volumes import PodVolumes

Json = dict[str, Any]

_START_ERROR_CODE = 128
_MINIMUM_GRACE_S = 2.0  # the kubelet's, so that a hook that used up the grace period leaves time for SIGTERM
_HOOK_TIMEOUT_S = 24 * 3600.0  # postStart has no time limit of its own


class ConfigError(Exception):
    """The container cannot be made: CreateContainerConfigError."""


@dataclass(frozen=True, slots=True)
class Machinery:
    """What all containers of a stand-in share."""

    references: References
    actions: Actions
    guardian: Guardian
    memory: MemoryWatch
    options: Options
    search_path: str


class Owner(Protocol):
    """The pod, as far as its containers need it."""

    @property
    def context(self) -> PodContext: ...
    @property
    def volumes(self) -> PodVolumes: ...
    def changed(self) -> None:
        """Some state of a container has changed."""

    def emit(self, kind: str, reason: str, message: str, container: ContainerState) -> None:
        """Write an event about a container."""


class Container:
    """Runs one container of a pod. `state` is what the pod's status shows of it."""

    def __init__(
        self,
        state: ContainerState,
        owner: Owner,
        machinery: Machinery,
        directory: ContainerDirectory,
        logs: ContainerLogs,
    ) -> None:
        self.state = state
        self.logs = logs
        self.first_attempt_over = asyncio.Event()  # started (postStart included) or failed to: the next may be started
        self.started = asyncio.Event()
        self.done = asyncio.Event()  # will not run again
        self._owner = owner
        self._machinery = machinery
        self._directory = directory
        options = machinery.options
        self._back_off = BackOff(options.crash_back_off_s, options.crash_back_off_max_s)
        image_back_off = BackOff(options.image_back_off_s, options.image_back_off_max_s)
        self._puller = ImagePuller(options.images, image_back_off, options.sync_retry_s)
        self._stopping = asyncio.Event()
        self._start_lock = asyncio.Lock()
        self._process: ContainerProcess | None = None
        self._launch: Launch | None = None
        self._deadline: Deadline | None = None
        self._was_run = False
        self._out_of_memory = False
        self._stops_probes = asyncio.Event()

    @property
    def pod_ip(self) -> str:
        """Where its ports are."""
        return self._owner.context.pod_ip

    @property
    def ports(self) -> Sequence[Json]:
        """Of its spec."""
        return self.state.spec.get("ports") or []

    @property
    def launch(self) -> Launch:
        """What runs now; only while something runs."""
        assert self._launch is not None
        return self._launch

    @property
    def process(self) -> ContainerProcess | None:
        """What runs now, if anything does."""
        return self._process

    def is_active(self) -> bool:
        """Whether it runs, or will."""
        return self._was_run and not self.done.is_set()

    async def run(self) -> None:
        """Run and restart as the restart policy says; ends when it is `done`."""
        self._was_run = True
        try:
            while not self._stopping.is_set():
                await self._run_once()
                self.first_attempt_over.set()
                if not self._will_restart() or await self._wait_for_turn():
                    break
        finally:
            self.first_attempt_over.set()
            self.done.set()

    async def stop(self, deadline: Deadline, turn: Awaitable[object] | None = None, *, message: str = "") -> None:
        """End it for good: preStop, wait for `turn` (other containers' ends), SIGTERM, and SIGKILL at the deadline."""
        self._stopping.set()
        async with self._start_lock:  # a start that has begun comes first
            process = self._process
        if process is not None:
            await self._end_process(process, deadline, turn, message or f"Stopping container {self.state.name}")
        await self.done.wait()

    def hasten(self, grace_s: float) -> None:
        """The end must come sooner than promised."""
        if self._deadline is not None:
            self._deadline.shorten_to(grace_s)

    async def _run_once(self) -> None:
        image = await self._ensure_image()
        launch = None if image is None else await self._configure(image)
        if launch is None:
            return
        async with self._start_lock:
            if self._stopping.is_set():
                return
            started_at_s = time.time()
            self.state.container_id = f"fairlead://{secrets.token_hex(32)}"
            output = self.logs.open(self.state.restart_count)
            try:
                process = await ContainerProcess.start(launch.command, Stdio(output, output), self._machinery.guardian)
            except StartError as error:
                self._owner.emit("Warning", "Failed", f"Error: {error}", self.state)
                self._note_end(started_at_s, _START_ERROR_CODE, "StartError", str(error))
                return
            finally:
                os.close(output)
            self._process, self._launch, self._out_of_memory = process, launch, False
        await self._accompany(process, started_at_s)

    async def _accompany(self, process: ContainerProcess, started_at_s: float) -> None:
        """From the start of the process to the record of its end."""
        self._owner.emit("Normal", "Started", f"Started container {self.state.name}", self.state)
        self._stops_probes.clear()
        limit = (self.state.spec.get("resources", {}).get("limits") or {}).get("memory")
        try:
            with self._machinery.memory.limit(process.group, limit, self._on_oom):
                async with asyncio.TaskGroup() as group:
                    running = group.create_task(self._be_running(process, started_at_s))
                    code = await process.wait()
                    running.cancel()
        finally:
            if not process.has_ended():
                process.kill()
                await process.wait()
            self._process = None
        reason = "OOMKilled" if self._out_of_memory else "Completed" if code == 0 else "Error"
        policy = self.state.spec.get("terminationMessagePolicy", "File")
        run = self.state.restart_count
        message = termination_message(self._directory.termination_log, policy, code, self.logs, run)
        self._note_end(started_at_s, code, reason, message)

    async def _be_running(self, process: ContainerProcess, started_at_s: float) -> None:
        """postStart, then Running, then probes until cancelled."""
        since_s = time.monotonic()
        post_start = (self.state.spec.get("lifecycle") or {}).get("postStart")
        if post_start is not None:
            outcome = await self._machinery.actions.perform(post_start, self, _HOOK_TIMEOUT_S)
            if outcome.result is not Result.SUCCESS:
                self._owner.emit(
                    "Warning", "FailedPostStartHook", f"PostStartHook failed: {outcome.message}", self.state
                )
                self._kill_later(process, "FailedPostStartHook")
                await process.wait()
                return
        self.state.set_running(started_at_s)
        probes = {kind: self.state.spec.get(f"{kind.lower()}Probe") for kind in Kind}
        if probes[Kind.STARTUP] is None:
            self._note_started()
        self._owner.changed()
        self.first_attempt_over.set()
        await self._probe(probes, since_s)

    async def _probe(self, specs: dict[Kind, Json | None], since_s: float) -> None:
        if (startup := specs[Kind.STARTUP]) is not None:
            await self._until_stopping(self._make_probe(Kind.STARTUP, startup).run(since_s))
            if not self.state.started:
                return  # its failure has killed the container, or it is being stopped
        async with asyncio.TaskGroup() as group:
            if (readiness := specs[Kind.READINESS]) is not None:
                group.create_task(self._make_probe(Kind.READINESS, readiness).run(since_s))
            if (liveness := specs[Kind.LIVENESS]) is not None:
                await self._until_stopping(self._make_probe(Kind.LIVENESS, liveness).run(since_s))

    async def _until_stopping(self, probing: Awaitable[None]) -> None:
        """Startup and liveness probes end when the container is being stopped; readiness goes on to the end."""
        task = asyncio.ensure_future(probing)
        stopping = asyncio.ensure_future(self._stops_probes.wait())
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            task.cancel()
            stopping.cancel()

    def _make_probe(self, kind: Kind, spec: Json) -> Probe:
        return Probe(
            kind, spec, self._machinery.actions, self, on_verdict=self._on_verdict, on_complaint=self._on_complaint
        )

    def _on_verdict(self, kind: Kind, verdict: Result, _message: str) -> None:
        succeeded = verdict is Result.SUCCESS
        if kind is Kind.READINESS:
            self.state.ready = succeeded
        elif succeeded and kind is Kind.STARTUP:
            self._note_started()
        elif not succeeded and self._process is not None:
            message = f"Container {self.state.name} failed {kind.lower()} probe, will be restarted"
            self._kill_later(self._process, message, self.state.spec[f"{kind.lower()}Probe"])
        self._owner.changed()

    def _on_complaint(self, kind: Kind, outcome: Outcome) -> None:
        words = "probe failed" if outcome.result is Result.FAILURE else "probe errored and resulted in unknown state"
        self._owner.emit("Warning", "Unhealthy", f"{kind} {words}: {outcome.message}", self.state)

    def _note_started(self) -> None:
        self.state.started = True
        self.state.ready = "readinessProbe" not in self.state.spec
        self.started.set()

    def _kill_later(self, process: ContainerProcess, message: str, probe: Json | None = None) -> None:
        """Kill the container (it may be restarted) with the probe's or the pod's grace period."""
        grace_s = (probe or {}).get("terminationGracePeriodSeconds")
        if grace_s is None:
            grace_s = self._owner.context.pod["spec"].get("terminationGracePeriodSeconds", 30)
        task = asyncio.ensure_future(self._end_process(process, Deadline(float(grace_s)), None, message))
        self._killing = task  # keeps the task alive; it ends with the process
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _end_process(
        self, process: ContainerProcess, deadline: Deadline, turn: Awaitable[object] | None, message: str
    ) -> None:
        self._stops_probes.set()
        if self._deadline is not None:
            # Somebody ends it already: only the time may get shorter.
            self._deadline.shorten_to(deadline.remaining_s())
            await process.wait()
            return
        self._deadline = deadline
        self._owner.emit("Normal", "Killing", message, self.state)
        try:
            await self._pre_stop(process, deadline)
            if turn is not None:
                await deadline.wait_for(turn)
            process.send(signal.SIGTERM)
            if not await deadline.wait_for(process.wait(), at_least_s=_MINIMUM_GRACE_S):
                process.kill()
                await process.wait()
        finally:
            self._deadline = None

    async def _pre_stop(self, process: ContainerProcess, deadline: Deadline) -> None:
        hook = (self.state.spec.get("lifecycle") or {}).get("preStop")
        if hook is None or process.has_ended() or deadline.remaining_s() == 0:
            return
        action = asyncio.ensure_future(self._machinery.actions.perform(hook, self, deadline.remaining_s()))
        ended = asyncio.ensure_future(process.wait())
        try:
            waiting = asyncio.wait({action, ended}, return_when=asyncio.FIRST_COMPLETED)
            await deadline.wait_for(waiting)
            if action.done() and action.result().result is not Result.SUCCESS:
                message = f"PreStopHook failed: {action.result().message}"
                self._owner.emit("Warning", "FailedPreStopHook", message, self.state)
        finally:
            action.cancel()
            ended.cancel()

    def _on_oom(self) -> None:
        self._out_of_memory = True
        if self._process is not None:
            self._process.kill()

    def _note_end(self, started_at_s: float, code: int, reason: str, message: str) -> None:
        end = Terminated(code, reason, message, started_at_s, time.time(), self.state.container_id)
        self.state.set_terminated(end)
        self._owner.changed()

    def _will_restart(self) -> bool:
        if self._stopping.is_set():
            return False
        policy = self.state.spec.get("restartPolicy") or self._owner.context.pod["spec"].get("restartPolicy", "Always")
        end = self.state.terminated
        failed = end is None or end.exit_code != 0
        if self.state.is_init and not self.state.is_sidecar:
            return failed and policy != "Never"
        return policy == "Always" or (policy == "OnFailure" and failed)

    async def _wait_for_turn(self) -> bool:
        """The crash back-off. True if the container is stopped instead."""
        end = self.state.terminated
        if end is not None:
            left_s = self._back_off.remaining_s(end.finished_at_s, time.time())
            if left_s > 0:
                delay = format_duration(self._back_off.current_s)
                where = self._owner.context.description
                message = f"back-off {delay} restarting failed container={self.state.name} pod={where}"
                self.state.set_waiting("CrashLoopBackOff", message)
                words = f"Back-off restarting failed container {self.state.name} in pod {where}"
                self._owner.emit("Warning", "BackOff", words, self.state)
                self._owner.changed()
                if await self._pause(left_s):
                    return True
            self._back_off.note_start(end.finished_at_s, time.time())
            self.state.restart_count += 1
        return False

    async def _ensure_image(self) -> Image | None:
        """The image, however long it takes; None if the container is stopped meanwhile."""
        name = self.state.spec["image"]
        while not self._stopping.is_set():
            found = self._puller.ensure(name, self.state.spec.get("imagePullPolicy") or _default_policy(name))
            if isinstance(found, Image):
                return found
            self._note_pull_problem(name, found)
            if await self._pause(found.retry_s):
                break
        return None

    def _note_pull_problem(self, name: str, problem: PullProblem) -> None:
        self.state.set_waiting(problem.reason, problem.message)
        if problem.is_back_off:
            self._owner.emit("Normal", "BackOff", f'Back-off pulling image "{name}"', self.state)
        elif problem.reason == "ErrImagePull":
            self._owner.emit("Warning", "Failed", f'Failed to pull image "{name}": {problem.message}', self.state)
        self._owner.emit("Warning", "Failed", f"Error: {problem.reason}", self.state)
        self.first_attempt_over.set()
        self._owner.changed()

    async def _configure(self, image: Image) -> Launch | None:
        """What to start, however long it takes; None if the container is stopped meanwhile."""
        while not self._stopping.is_set():
            try:
                return await self._make_launch(image)
            except (ConfigError, MissingReferenceError, MountError, OSError) as error:
                self.state.set_waiting("CreateContainerConfigError", str(error))
                self._owner.emit("Warning", "Failed", f"Error: {error}", self.state)
                self.first_attempt_over.set()
                self._owner.changed()
            if await self._pause(self._machinery.options.sync_retry_s):
                break
        return None

    async def _make_launch(self, image: Image) -> Launch:
        context, spec = self._owner.context, self.state.spec
        complaint = non_root_complaint(context.pod, spec, image, context.description)
        if complaint is not None:
            raise ConfigError(complaint)
        env = await make_environment(self._machinery.references, context, spec)
        return make_launch(spec, image, env, context, self._owner.volumes, self._directory, self._machinery.search_path)

    async def _pause(self, seconds: float) -> bool:
        """Sleep; True as soon as the container is stopped."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True


def _default_policy(image: str) -> str:
    try:
        return default_pull_policy(ImageReference.parse(image))
    except InvalidImageNameError:
        return "IfNotPresent"
