"""Probes: alive until only a restart helps, ready when the caches are filled; and what the debug page shows."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

import aiohttp
import pytest
from tests.unit.fake_time import run_in_fake_time

from fairlead.facts.observed import ObjectKey
from fairlead.runtime.metrics import ConditionCollector, Metrics
from fairlead.runtime.queue import Queue
from fairlead.runtime.server import Health, LoopProbe, Server, describe_queue


@dataclass
class SilentStream:
    """A stream that says what a test wants."""

    last_heard_at: float = 0.0
    last_tried_at: float = 0.0
    synced: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Patient:
    """Something to judge."""

    now: list[float]
    stream: SilentStream
    queue: Queue[ObjectKey]
    probe: LoopProbe
    working: list[bool]
    health: Health


def patient() -> Patient:
    now, working = [0.0], [True]
    stream, metrics = SilentStream(), Metrics()
    queue: Queue[ObjectKey] = Queue(clock=lambda: now[0])
    probe = LoopProbe(metrics, lambda: now[0])
    health = Health({"pods": stream}, queue, probe, clock=lambda: now[0], is_working=lambda: working[0])
    return Patient(now, stream, queue, probe, working, health)


async def test_a_stream_that_is_silent_for_three_minutes_is_deaf() -> None:
    sick = patient()
    sick.now[0] = 180.0
    assert sick.health.liveness() == []
    sick.now[0] = 181.0
    assert sick.health.liveness() == ["the watch of pods has been silent for 181 s"]
    sick.stream.last_heard_at = 170.0
    assert sick.health.liveness() == []


async def test_a_watch_that_is_refused_is_not_ready_but_alive() -> None:
    """A restart does not bring an API server back; it only makes the kubelet wait longer and longer."""
    sick = patient()
    sick.stream.synced.set()
    sick.now[0], sick.stream.last_tried_at = 181.0, 170.0
    assert sick.health.liveness() == []
    assert sick.health.readiness() == ["pods: nothing heard for 181 s"]
    sick.stream.last_heard_at = 180.0
    assert sick.health.readiness() == []


async def test_a_queue_that_does_not_move_and_a_worker_that_hangs_are_found_on_the_leader_only() -> None:
    sick = patient()
    sick.queue.add(ObjectKey("LLMDeployment", "ml", "a"))
    await sick.queue.get()
    sick.queue.add(ObjectKey("LLMDeployment", "ml", "b"))
    sick.now[0] = sick.stream.last_heard_at = 601.0
    assert len(sick.health.liveness()) == 2
    sick.working[0] = False
    assert sick.health.liveness() == []


async def test_a_loop_that_lags_is_found() -> None:
    sick = patient()
    sick.probe.lag_s = 5.1
    assert "lags 5.1 s" in sick.health.liveness()[0]


def test_the_lag_is_measured() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        probe = LoopProbe(Metrics(), loop.time)
        task = asyncio.create_task(probe.run())
        await asyncio.sleep(2.5)
        assert probe.lag_s == 0.0
        loop.now += 7.5  # type: ignore[attr-defined]
        for _ in range(5):
            await asyncio.sleep(0)
        assert probe.lag_s == pytest.approx(7.0)
        task.cancel()

    run_in_fake_time(test)


async def test_ready_means_the_caches_are_filled() -> None:
    sick = patient()
    assert sick.health.readiness() == ["pods: not listed yet"]
    sick.stream.synced.set()
    assert sick.health.readiness() == []


async def test_the_pages() -> None:
    sick = patient()
    metrics = Metrics()
    metrics.registry.register(
        ConditionCollector({"LLMDeployment": lambda: [("ml", "a", "Ready", "True", "Serving")]}, lambda: {"Pod": 3})
    )
    sick.queue.add(ObjectKey("LLMDeployment", "ml", "waiting"))
    sick.queue.retry(ObjectKey("LLMDeployment", "ml", "failed"))
    sick.queue.add_after(ObjectKey("LLMRoute", "ml", "resynced"), 36_000.0)
    server = Server(metrics.registry, sick.health, lambda: describe_queue(sick.queue, leading=True), "127.0.0.1", 0)
    await server.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:
            async with session.get("/healthz") as response:
                assert (response.status, await response.text()) == (200, "ok\n")
            async with session.get("/readyz") as response:
                assert (response.status, await response.text()) == (503, "pods: not listed yet\n")
            async with session.get("/metrics") as response:
                text = await response.text()
            async with session.get("/debug/queue") as response:
                queue = json.loads(await response.text())
            async with session.get("/debug/secrets") as response:
                assert response.status == 404
    finally:
        await server.stop()
    assert (
        'fairlead_llmdeployment_condition{name="a",namespace="ml",reason="Serving",status="True",type="Ready"} 1.0'
        in text
    )
    assert 'fairlead_cache_objects{kind="Pod"} 3.0' in text
    assert "process_resident_memory_bytes" in text
    assert queue["depth"] == 1
    assert queue["failures"] == {"ml/failed": 1}
    assert list(queue["delayed"]) == ["ml/failed"]
    assert queue["delayedForLong"] == 1


async def test_a_port_that_is_taken_is_an_error_at_once() -> None:
    sick = patient()
    first = Server(Metrics().registry, sick.health, dict, "127.0.0.1", 0)
    await first.start()
    try:
        second = Server(Metrics().registry, sick.health, dict, "127.0.0.1", first.port)
        with pytest.raises(OSError, match="in use"):
            await second.start()
        await second.stop()
    finally:
        await first.stop()
