"""What must not change when an operator is replaced: pods, ReplicaSets and the template, as the API server has them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.cluster.operator_world import World

Json = dict[str, Any]


@dataclass(frozen=True)
class Life:
    """The pods of one Deployment: who they are, how often they restarted, what they were made from."""

    pods: dict[str, int]  # uid -> restarts
    replica_sets: frozenset[str]
    rollouts: str  # the Deployment controller counts them
    template: str

    def __str__(self) -> str:
        return f"{len(self.pods)} pods of rollout {self.rollouts}"


def read_life(world: World, name: str) -> Life:
    """As it is now. Pods that are ending do not count."""
    deployment = world.get(f"deployment/{name}")
    assert deployment is not None
    selector = ",".join(f"{key}={value}" for key, value in deployment["spec"]["selector"]["matchLabels"].items())
    pods = _list(world, "pods", selector)
    return Life(
        pods={
            pod["metadata"]["uid"]: sum(c["restartCount"] for c in pod["status"].get("containerStatuses", ()))
            for pod in pods
            if "deletionTimestamp" not in pod["metadata"]
        },
        replica_sets=frozenset(one["metadata"]["name"] for one in _list(world, "replicasets", selector)),
        rollouts=deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        template=json.dumps(deployment["spec"]["template"], sort_keys=True),
    )


def engine_of(world: World, name: str) -> Json:
    """The engine container in the Deployment's template."""
    deployment = world.get(f"deployment/{name}")
    assert deployment is not None
    container: Json = next(c for c in deployment["spec"]["template"]["spec"]["containers"] if c["name"] == "engine")
    return container


def _list(world: World, kind: str, selector: str) -> list[Json]:
    found: list[Json] = json.loads(world.kubectl("get", kind, f"--selector={selector}", "-o", "json"))["items"]
    return found
