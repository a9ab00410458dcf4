"""Pods are made in a moment: status waits for them, and what their Deployment says until then starts no pass."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.runtime.test_main import running
from tests.unit.runtime.world import DEPLOYMENTS, KEY, World, controlling

from fairlead.runtime.controller import Controller
from fairlead.runtime.main import NEWS_COALESCE_S

CR_STATUS = "llmdeployments/m/status PATCH"
REFUSED = [{"type": "ReplicaFailure", "status": "True", "message": "no quota"}]


def deployment_says(world: World, **status: Any) -> None:
    live = world.api.objects[f"{DEPLOYMENTS}/m"]
    world.api.put(DEPLOYMENTS, "m", **live | {"status": status})
    world.sync()


async def seconds_until_told(world: World, limit_s: int = 60) -> int:
    for second in range(limit_s):
        await world.run_pass()
        if CR_STATUS in world.writes():
            return second
        world.now[0] += 1.0
    return limit_s


async def test_a_new_resource_is_told_of_after_half_a_minute_when_no_pods_come() -> None:
    async with controlling() as world:
        world.put_cr(replicas=2)
        assert await seconds_until_told(world) == 30


async def test_the_default_of_the_crd_is_no_status_either() -> None:
    async with controlling() as world:
        world.put_cr(replicas=2)
        live = world.api.objects[next(path for path in world.api.objects if path.endswith("/m"))]
        live["status"] = {"observedGeneration": -1}
        world.cache.put({**live, "metadata": {**live["metadata"], "resourceVersion": "900"}})
        assert await seconds_until_told(world) == 30


async def test_a_change_of_one_that_has_a_status_is_told_of_after_ten_seconds() -> None:
    async with controlling() as world:
        world.put_cr(replicas=1)
        await world.run_pass()
        deployment_says(world, replicas=1)
        await world.settle()
        world.writes()
        world.put_cr(replicas=2)
        assert await seconds_until_told(world) == 10


async def test_the_pass_comes_back_for_the_case_that_the_pods_never_come() -> None:
    async with controlling() as world:
        world.put_cr(replicas=2)
        await world.run_pass()
        assert world.queue.delayed[KEY] == pytest.approx(30.0, abs=1.0)


async def test_pods_that_are_made_or_refused_are_told_of_at_once() -> None:
    for status in ({"replicas": 2}, {"conditions": REFUSED}):
        async with controlling() as world:
            world.put_cr(replicas=2)
            await world.run_pass()
            world.writes()
            world.now[0] += 0.6
            deployment_says(world, **status)
            await world.run_pass()
            assert world.writes() == [CR_STATUS], status


async def test_a_scale_to_zero_waits_for_nobody() -> None:
    async with controlling() as world:
        world.put_cr(replicas=0)
        assert await seconds_until_told(world) == 1


def deployment(version: int, wanted: int = 2, **status: Any) -> dict[str, Any]:
    labels = {"fairlead.dev/llmdeployment": "m"}
    metadata = {"name": "m", "namespace": "ml", "uid": "d", "resourceVersion": str(version), "labels": labels}
    return {"kind": "Deployment", "metadata": metadata, "spec": {"replicas": wanted}, "status": status}


async def test_only_what_status_waits_for_starts_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as run:
        monkeypatch.setattr(Controller, "is_working", True)
        operator, queue = run.operator, run.operator.queue

        def delay_after(live: dict[str, Any]) -> float | None:
            queue.discard(KEY)
            operator._on_child_change(operator.cache.put(live))
            return queue.delayed.get(KEY)

        assert delay_after(deployment(1)) is not None, "one that is new"
        assert delay_after(deployment(2, observedGeneration=1)) is None, "seen, and no pods yet"
        assert delay_after(deployment(3, observedGeneration=1, replicas=1)) is None, "half of them"
        made = delay_after(deployment(4, observedGeneration=1, replicas=2))
        assert made == pytest.approx(NEWS_COALESCE_S, abs=0.1), "all of them"
        assert delay_after(deployment(5, replicas=2, readyReplicas=1)) is not None, "one is ready"
        assert delay_after(deployment(6, replicas=1)) is not None, "the ready one is gone"
        assert delay_after(deployment(7, replicas=1, conditions=REFUSED)) is not None, "and no other is allowed"
        assert delay_after(deployment(8, 3, replicas=1, conditions=REFUSED)) is not None, "somebody scaled it"
        assert delay_after(deployment(9, 0)) is not None
        assert delay_after(deployment(10, 0, observedGeneration=3)) is not None, "zero pods are all there are"
