"""Law 8 on a cluster whose pods run: another build of the operator takes over, and no pod notices."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.operator_world import World, make_cr, until
from tests.cluster.replicas.conftest import Team
from tests.cluster.replicas.replica import Replica
from tests.cluster.upgrade.builds import (
    NEWER,
    NEWER_ANNOTATION,
    NEWER_PODS,
    NEWER_PORT,
    NEWER_VARIABLE,
    NEWER_VERSION,
    make_build,
)
from tests.cluster.upgrade.pods import Life, engine_of, read_life

pytestmark = pytest.mark.cluster

Json = dict[str, Any]

TERMS = ("--lease-duration-s=6", "--renew-deadline-s=4", "--retry-period-s=1")
READY_S = 90.0
QUIET_S = 3.5
OLD_PORT = 8000


def make_model(world: World, name: str, **spec: Any) -> Json:
    """A model that starts in a second on the node stand-in, on CPU, so that any number of them fits."""
    model = make_cr(world.namespace, name, **{"replicas": 2, **spec})
    del model["spec"]["accelerator"]
    return model


def ready_reason(world: World, name: str) -> str:
    condition = world.condition(name, "Ready")
    return f"{condition.get('status')}/{condition.get('reason')}"


def wait_for_reason(world: World, name: str, reason: str) -> None:
    """Until Ready is True for this reason, for the current generation."""

    def is_so() -> bool:
        status = world.status(name)
        return ready_reason(world, name) == f"True/{reason}" and status["observedGeneration"] == status["generation"]

    until(is_so, f"{name} is {reason} (last: {world.condition(name, 'Ready')})", READY_S)


def lead(crew: Team, name: str, build: Path | None = None) -> Replica:
    replica = crew.start(name, *TERMS, **({"source_root": build} if build else {}))  # type: ignore[arg-type]
    replica.wait_leads()
    return replica


def assert_quiet(crew: Team) -> None:
    """Nobody writes any more."""
    mark = crew.cluster.audit.mark()
    time.sleep(QUIET_S)
    records = crew.cluster.audit.records(user=crew.judge.users, namespace=crew.namespace, since=mark)
    assert [str(record) for record in records if record.is_write] == []


def lives(world: World, *names: str) -> dict[str, Life]:
    return {name: read_life(world, name) for name in names}


@pytest.mark.long
def test_a_newer_build_moves_no_pod_and_is_taken_when_asked_for(crew: Team, tmp_path: Path) -> None:
    world = World(crew.cluster, crew.namespace)
    newer = make_build(tmp_path / "newer", *NEWER)
    older = lead(crew, "one")
    world.apply(make_model(world, "a"), make_model(world, "b"))
    for name in ("a", "b"):
        wait_for_reason(world, name, "Serving")
    before = lives(world, "a", "b")

    older.stop()
    lead(crew, "two", newer)
    for name in ("a", "b"):
        wait_for_reason(world, name, "RevisionAvailable")
    assert_quiet(crew)
    assert lives(world, "a", "b") == before, "an upgrade moved pods"
    assert_others_are_newer(world, "a")
    assert_status_tells_of_running_pods(world, "a")

    world.patch("llmdeployment/a", '{"spec": {"rollout": {"revision": "Latest"}}}')
    world.patch("llmdeployment/b", '{"spec": {"context": {"maxLength": 4096}}}')
    for name in ("a", "b"):
        wait_for_reason(world, name, "Serving")
        taken = read_life(world, name)
        assert set(taken.pods).isdisjoint(before[name].pods)
        assert taken.rollouts == "2", "taken once"
        assert NEWER_VARIABLE in json.dumps(engine_of(world, name)["env"])
        assert world.status(name)["engine"]["version"] == NEWER_VERSION
        assert headless_port(world, name) == NEWER_PORT
    assert_quiet(crew)


def assert_others_are_newer(world: World, name: str) -> None:
    """What moves no pod is kept up to date at once."""
    for what in (f"service/{name}", f"networkpolicy/{name}", f"poddisruptionbudget/{name}", f"deployment/{name}"):
        child = world.get(what)
        assert child is not None
        assert child["metadata"]["annotations"][NEWER_ANNOTATION] == "yes", what
    budget, deployment = world.get(f"poddisruptionbudget/{name}"), world.get(f"deployment/{name}")
    assert budget is not None
    assert budget["spec"]["maxUnavailable"] == "50%"
    assert deployment is not None
    assert deployment["spec"]["revisionHistoryLimit"] == 4


def assert_status_tells_of_running_pods(world: World, name: str) -> None:
    """The pods are still the older build's: status, and the ports that others go by, must not say otherwise."""
    engine = engine_of(world, name)
    status = world.status(name)
    assert status["engine"]["image"] == engine["image"]
    assert NEWER_VERSION not in status["engine"]["version"]
    assert headless_port(world, name) == engine["ports"][0]["containerPort"] == OLD_PORT


def headless_port(world: World, name: str) -> int:
    service = world.get(f"service/{name}-pods")
    assert service is not None
    port: int = service["spec"]["ports"][0]["port"]
    return port


@pytest.mark.long
def test_under_an_older_revision_scaling_and_suspending_move_no_other_pod(crew: Team, tmp_path: Path) -> None:
    world = World(crew.cluster, crew.namespace)
    older = lead(crew, "one")
    world.apply(make_model(world, "a"))
    wait_for_reason(world, "a", "Serving")
    before = read_life(world, "a")
    older.stop()
    lead(crew, "two", make_build(tmp_path / "newer", *NEWER))
    wait_for_reason(world, "a", "RevisionAvailable")

    world.kubectl("scale", "llmdeployment/a", "--replicas=3")
    until(lambda: len(read_life(world, "a").pods) == 3, "three pods", READY_S)
    wait_for_reason(world, "a", "RevisionAvailable")
    scaled = read_life(world, "a")
    assert before.pods.items() <= scaled.pods.items()
    assert (scaled.template, scaled.rollouts) == (before.template, before.rollouts)

    world.kubectl("scale", "llmdeployment/a", "--replicas=1")
    until(lambda: len(read_life(world, "a").pods) == 1, "one pod", READY_S)
    assert read_life(world, "a").pods.items() <= scaled.pods.items()

    world.patch("llmdeployment/a", '{"spec": {"suspend": true}}')
    until(lambda: not read_life(world, "a").pods, "suspended", READY_S)
    world.patch("llmdeployment/a", '{"spec": {"suspend": false}}')
    wait_for_reason(world, "a", "RevisionAvailable")
    resumed = read_life(world, "a")
    assert (resumed.template, resumed.rollouts, resumed.replica_sets) == (
        before.template,
        before.rollouts,
        before.replica_sets,
    )


@pytest.mark.long
def test_a_downgrade_moves_no_pod_and_builds_that_alternate_do_not_flap(crew: Team, tmp_path: Path) -> None:
    """Pods of the newer build under the older operator, and then to and fro as a rolling update that is rolled back."""
    world = World(crew.cluster, crew.namespace)
    newer = make_build(tmp_path / "newer", *NEWER)
    first = lead(crew, "one", newer)
    world.apply(make_model(world, "a"), make_model(world, "s", suspend=True))
    wait_for_reason(world, "a", "Serving")
    world.wait_observed("s")
    before = lives(world, "a", "s")
    assert NEWER_VARIABLE in json.dumps(engine_of(world, "a")["env"])

    leader = first
    for name, build in (("two", None), ("three", newer)):
        follower = crew.start(name, *TERMS, **({"source_root": build} if build else {}))  # type: ignore[arg-type]
        time.sleep(2)
        mark = crew.cluster.audit.mark()
        leader.stop()
        follower.wait_leads()
        wait_for_reason(world, "a", "Serving" if build else "RevisionAvailable")
        time.sleep(2)
        writes = [
            record
            for record in crew.cluster.audit.records(user=crew.judge.users, namespace=crew.namespace, since=mark)
            if record.is_write and record.resource not in ("events", "llmdeployments/status")
        ]
        touched = [(record.resource, record.name) for record in writes]
        assert len(touched) == len(set(touched)), "each child is brought to the new leader's build once"
        assert {record.user for record in writes} <= {follower.user}
        assert_quiet(crew)
        assert lives(world, "a", "s") == before, f"{name} moved pods"
        leader = follower


@pytest.mark.long
def test_only_the_pods_differ_and_nothing_at_all_is_written_to_children(crew: Team, tmp_path: Path) -> None:
    """An upgrade whose other children are the same costs one status per model, and no more."""
    world = World(crew.cluster, crew.namespace)
    older = lead(crew, "one")
    world.apply(*(make_model(world, name, replicas=1) for name in ("a", "b", "c")))
    for name in ("a", "b", "c"):
        wait_for_reason(world, name, "Serving")
    assert_quiet(crew)
    older.stop()
    mark = crew.cluster.audit.mark()
    lead(crew, "two", make_build(tmp_path / "newer", *NEWER_PODS))
    for name in ("a", "b", "c"):
        wait_for_reason(world, name, "RevisionAvailable")
    assert_quiet(crew)
    records = crew.cluster.audit.records(user=crew.judge.users, namespace=crew.namespace, since=mark)
    writes = sorted(f"{r.resource} {r.name}" for r in records if r.is_write and r.resource != "events")
    assert writes == [f"llmdeployments/status {name}" for name in ("a", "b", "c")]
