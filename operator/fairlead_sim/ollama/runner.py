"""Loaded models: loading takes time, requests share a runner's slots, an idle runner goes when its keep-alive is over."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from fairlead_sim import loading
from fairlead_sim.durations import FOREVER_S
from fairlead_sim.engine import Engine, Generation
from fairlead_sim.latency import Limits, Step
from fairlead_sim.ollama.environment import Environment
from fairlead_sim.ollama.errors import OllamaError
from fairlead_sim.ollama.store import Model
from fairlead_sim.settings import Settings

LOG = logging.getLogger("fairlead_sim.ollama")
#: Seconds of a load that do not depend on the model's size.
LOAD_BASE_S = 0.25
#: Bytes of KV cache for each token of context at f16, of a small model; only `ollama ps` shows them.
_KV_BYTES_PER_TOKEN = {"f16": 32_768, "q8_0": 17_408, "q4_0": 9_216}
#: Slots are fixed and the context shifts: the KV cache is never what a request waits for.
_UNLIMITED_BLOCKS = 1 << 40
_BUSY = "server busy, please try again.  maximum pending requests exceeded"


class _NoMetrics:
    """Ollama counts nothing."""

    def on_step(self, step: Step) -> None:
        """Nothing."""

    def on_tokens(self, generation: Generation, gap_s: float | None) -> None:
        """Nothing."""

    def on_finished(self, generation: Generation) -> None:
        """Nothing."""


class Runner:
    """One loaded model."""

    def __init__(self, model: Model, context_length: int, environment: Environment, settings: Settings) -> None:
        self.model = model
        self.context_length = context_length
        limits = Limits(max_sequences=environment.num_parallel, kv_blocks=_UNLIMITED_BLOCKS, prefix_caching=False)
        self.engine = Engine(settings.speed, limits, _NoMetrics())
        self.loaded = asyncio.Event()
        self.users = 0
        self.keep_alive_s = environment.keep_alive_s
        #: Unix time; moved on whenever a request ends.
        self.expires_at_s = time.time() + self.keep_alive_s
        kv_bytes = _KV_BYTES_PER_TOKEN.get(environment.kv_cache_type, _KV_BYTES_PER_TOKEN["f16"])
        self.size_bytes = model.size_bytes + context_length * environment.num_parallel * kv_bytes
        self.timer: asyncio.TimerHandle | None = None


class Scheduler:
    """Which models are loaded."""

    def __init__(self, environment: Environment, settings: Settings) -> None:
        self._environment = environment
        self._settings = settings
        self._runners: dict[str, Runner] = {}
        self._changed = asyncio.Condition()
        self._pending = 0

    @property
    def runners(self) -> list[Runner]:
        """What is loaded or loading; the longest remaining first, as `ollama ps` shows them."""
        return sorted(self._runners.values(), key=lambda runner: -int(runner.expires_at_s))

    @asynccontextmanager
    async def use(self, model: Model, num_ctx: int | None, keep_alive_s: float | None) -> AsyncIterator[Runner]:
        """The model's runner, loaded if need be. Raises OllamaError: 503 when too many wait, 500 when loading fails."""
        if self._pending >= self._environment.max_queue:
            raise OllamaError(_BUSY, HTTPStatus.SERVICE_UNAVAILABLE)
        self._pending += 1
        try:
            runner = await self._acquire(model, num_ctx or self._environment.context_length)
        finally:
            self._pending -= 1
        if keep_alive_s is not None:
            runner.keep_alive_s = keep_alive_s
        self._renew(runner)
        try:
            yield runner
        finally:
            runner.users -= 1
            self._renew(runner)
            async with self._changed:
                self._changed.notify_all()

    async def unload(self, model: Model) -> None:
        """Expire the model's runner: it goes as soon as nobody uses it."""
        runner = self._runners.get(model.digest)
        if runner is not None:
            runner.keep_alive_s = 0.0
            self._renew(runner)

    async def close(self) -> None:
        """Unload all, whatever runs."""
        for runner in list(self._runners.values()):
            await self._remove(runner)

    async def _acquire(self, model: Model, context_length: int) -> Runner:
        """A loaded runner with one more user."""
        while True:
            runner = self._runners.get(model.digest)
            if runner is not None and runner.context_length == context_length:
                runner.users += 1
                try:
                    await runner.loaded.wait()
                except asyncio.CancelledError:
                    runner.users -= 1
                    raise
                if runner.model.digest in self._runners:
                    return runner
                continue  # it was unloaded while this request waited
            if runner is None and len(self._runners) < self._environment.max_loaded:
                return await self._load(model, context_length)
            victim = runner or self._idle_runner()
            if victim is not None and victim.users == 0:
                await self._remove(victim)
            else:
                await self._wait_for_change()

    async def _wait_for_change(self) -> None:
        async with self._changed:
            await self._changed.wait()

    def _idle_runner(self) -> Runner | None:
        idle = [runner for runner in self._runners.values() if runner.users == 0]
        return min(idle, key=lambda runner: runner.expires_at_s, default=None)

    async def _load(self, model: Model, context_length: int) -> Runner:
        runner = Runner(model, context_length, self._environment, self._settings)
        runner.users = 1
        self._runners[model.digest] = runner
        duration_s = loading.load_duration_s(
            f"{model.name.model}:{model.name.tag}", base_s=LOAD_BASE_S, fixed_s=self._settings.load_seconds
        )
        timeout_s = self._environment.load_timeout_s
        try:
            await asyncio.sleep(min(duration_s, timeout_s))
            if duration_s > timeout_s:
                raise OllamaError("timed out waiting for llama runner to start - progress 0.00 - ")
        except BaseException:
            # Nobody else may wait for a load that has ended.
            del self._runners[model.digest]
            runner.loaded.set()
            raise
        LOG.info('msg="llama runner started in %.2f seconds" model=%s', duration_s, model.name.short)
        runner.engine.start()
        runner.loaded.set()
        return runner

    def _renew(self, runner: Runner) -> None:
        """Start the keep-alive anew."""
        if runner.timer is not None:
            runner.timer.cancel()
            runner.timer = None
        runner.expires_at_s = time.time() + runner.keep_alive_s
        if runner.users == 0 and runner.keep_alive_s < FOREVER_S:
            loop = asyncio.get_running_loop()
            runner.timer = loop.call_later(runner.keep_alive_s, lambda: loop.create_task(self._expire(runner)))

    async def _expire(self, runner: Runner) -> None:
        if runner.users == 0:
            await self._remove(runner)

    async def _remove(self, runner: Runner) -> None:
        if self._runners.get(runner.model.digest) is runner:
            del self._runners[runner.model.digest]
        if runner.timer is not None:
            runner.timer.cancel()
        await runner.engine.stop()
        async with self._changed:
            self._changed.notify_all()
