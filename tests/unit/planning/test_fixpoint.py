"""Status is a function of the world and not of how it came about: whoever looks at the same world again, after a restart or as the
next leader, writes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.planning.test_status import started
from tests.unit.planning.world import VLLM, Json, World, ended, make_pod, waiting

SERVING = {"conditions": [{"type": "Ready", "status": "True"}]}
LOSSES: dict[str, list[Json]] = {
    "its pod waits for nothing known": [make_pod("pod-0", phase="Pending", conditions=[], containerStatuses=[])],
    "its pod is gone": [],
    "its pod loads": [
        make_pod("pod-0", containerStatuses=[{"name": "engine", "ready": False, "state": {"running": {}}}])
    ],
    "its pod crashed": [make_pod("pod-0", containerStatuses=[ended("boom", restarts=4)])],
    "its image is away": [make_pod("pod-0", containerStatuses=[waiting("ImagePullBackOff", "no")])],
}


def ready_world() -> World:
    world = started(VLLM, make_pod("pod-0", **SERVING))
    wanted = world.deployment["spec"]["replicas"]
    world.report(replicas=wanted, updated=wanted, ready=wanted)
    world.step()
    assert world.states()["Ready"].startswith("True")
    return world


@pytest.mark.parametrize("loss", LOSSES)
def test_a_model_that_lost_its_pods_is_told_of_once(loss: str) -> None:
    world = ready_world()
    world.pods = LOSSES[loss]
    wanted = world.deployment["spec"]["replicas"]
    world.report(replicas=wanted, updated=wanted, ready=0)
    world.step()
    told: Any = world.status
    assert world.states()["Ready"].startswith("False")
    assert world.step().events == ()
    assert world.status == told
