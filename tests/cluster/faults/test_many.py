"""A thousand LLMDeployments at once: every one is observed, for the price of one each, and then there is silence."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.cluster.faults.operated import CHILDREN, OPERATOR, Operated, start
from tests.cluster.operator_world import QUIET_S, Json, make_cr, until

from fairlead_cluster.audit import AuditMark
from fairlead_cluster.cluster import LocalCluster

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.alone]

BATCH = 100
DEADLINE_S = 400.0
#: One is the rule (`make bench` counts). On a machine so busy that the Deployment controller's answer is seen only after the
#: three seconds that a status may wait, a second one is the truth.
STATUSES_AT_MOST = 2


@pytest.fixture(scope="module")
def operated(control_plane: LocalCluster) -> Iterator[LocalCluster]:
    start(control_plane, None)
    yield control_plane
    control_plane.stop_operator(OPERATOR)


@pytest.fixture
def world(operated: LocalCluster, namespace: str) -> Iterator[Operated]:
    yield Operated(operated, namespace)
    operated.check()


def items(world: Operated) -> list[Json]:
    found: list[Json] = world.cluster.kubectl.json(
        "get", "llmdeployments", f"--namespace={world.namespace}", timeout_s=DEADLINE_S
    )["items"]
    return found


def all_observed(world: Operated, count: int, generation: int) -> bool:
    observed = [item["status"].get("observedGeneration") for item in items(world)]
    return observed == [generation] * count


def apply_all(world: Operated, names: list[str], **spec: object) -> None:
    for first in range(0, len(names), BATCH):
        world.apply(*(make_cr(world.namespace, name, replicas=0, **spec) for name in names[first : first + BATCH]))


def writes_by_kind(world: Operated, since: AuditMark) -> Counter[str]:
    return Counter(
        f"{record.verb} {record.resource}: {record.code}" for record in world.records(since) if record.is_write
    )


def quiet(world: Operated) -> bool:
    return world.writes_in_a_while() == []


def live_through(world: Operated, count: int) -> None:
    """Creation, one change of each, deletion of all; replicas 0, so that no pods say anything."""
    names = [f"m{number:04}" for number in range(count)]
    mark = world.mark()
    apply_all(world, names)
    until(lambda: all_observed(world, count, 1), "all are observed", DEADLINE_S)
    until(lambda: quiet(world), "quiet", DEADLINE_S)
    expected = {
        "patch deployments: 201": count,
        "patch networkpolicies: 201": count,
        "patch services: 201": 2 * count,
    }
    found = writes_by_kind(world, mark)
    statuses = found.pop("patch llmdeployments/status: 200")
    assert found == expected
    assert count <= statuses <= STATUSES_AT_MOST * count, f"{statuses} statuses for {count}"
    assert sum(expected.values()) == count * len(CHILDREN)
    assert world.is_calm()
    mark = world.mark()
    apply_all(world, names, context={"maxLength": 4096})
    until(lambda: all_observed(world, count, 2), "all changes are observed", DEADLINE_S)
    until(lambda: quiet(world), "quiet", DEADLINE_S)
    found = writes_by_kind(world, mark)
    statuses = found.pop("patch llmdeployments/status: 200")
    assert found == {"patch deployments: 200": count}
    assert count <= statuses <= STATUSES_AT_MOST * count, f"{statuses} statuses for {count} changes"
    mark = world.mark()
    deletion = ("delete", "llmdeployments", "--all", "--wait=false", f"--namespace={world.namespace}")
    world.cluster.kubectl(*deletion, timeout_s=DEADLINE_S)  # one request each
    until(lambda: not world.names("deployments,services,networkpolicies"), "all children are collected", DEADLINE_S)
    time.sleep(QUIET_S)
    assert not world.created(mark), "nothing is made after the deletion"
    assert world.metric("fairlead_llmdeployment_condition", namespace=world.namespace) == 0
    assert not [key for key in world.queue()["delayed"] if key.startswith(f"{world.namespace}/")]
    assert world.is_calm()


@pytest.mark.timeout(1800)
def test_a_thousand(world: Operated) -> None:
    live_through(world, 1000)
    assert world.metric("process_open_fds") < 200
