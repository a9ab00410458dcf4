"""One pass after the other: what is written, in which order, and what is left alone; with every fault that a write can have."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from tests.unit.kube.fake_api import Fault
from tests.unit.runtime.world import CRS, DEPLOYMENTS, EVENTS, KEY, SERVICES, DirectedPlanner, World, controlling

from fairlead.api import names
from fairlead.facts.observed import ObjectKey
from fairlead.planning.plan import PlannedEvent
from fairlead.runtime.applier import NotLeadingError, OwnerGoneError, PostponedError, StaleOwnerError
from fairlead.runtime.statuswriter import LATEST_S

CREATES = ["deployments/m PATCH", "services/m PATCH"]
STATUS = "llmdeployments/m/status PATCH"


async def test_a_new_resource_gets_its_children_then_one_status_then_nothing() -> None:
    async with controlling() as world:
        world.put_cr(x=1)
        await world.run_pass()
        assert world.writes() == CREATES, "status waits until the change has settled"
        world.now[0] += 0.5
        assert await world.run_pass() == "success"
        assert world.writes() == [STATUS]
        world.now[0] += 60
        assert await world.run_pass() == "success"
        assert world.writes() == []
        assert world.api.objects[f"{CRS}/m"]["status"]["observedGeneration"] == 1


async def test_a_fresh_process_finds_everything_in_order() -> None:
    async with controlling() as first:
        first.put_cr(x=1)
        await first.settle()
        objects = first.api.objects
    async with controlling() as second:
        second.api.objects, second.api.version = objects, 500
        second.sync()
        await second.settle()
        assert second.writes() == []
        assert second.metrics.apply_skipped.labels("Service")._value.get() > 0


async def test_only_the_child_that_changed_is_applied() -> None:
    async with controlling() as world:
        world.put_cr(x=1)
        await world.settle()
        world.writes()
        world.api.put(SERVICES, "m", **_edited(world, f"{SERVICES}/m", x=99))
        world.sync()
        await world.run_pass()
        assert world.writes() == ["services/m PATCH"]
        assert world.api.objects[f"{SERVICES}/m"]["spec"] == {"x": 1}


def _edited(world: World, path: str, **spec: Any) -> dict[str, Any]:
    live = world.api.objects[path]
    return {**live, "spec": spec}


async def test_a_field_that_is_wished_no_more_is_taken_away_though_the_live_object_cannot_show_it() -> None:
    async with controlling() as world:
        world.put_cr(x=1, y=2)
        await world.settle()
        world.writes()
        world.put_cr(x=1)
        await world.run_pass()
        assert world.writes() == CREATES


async def test_a_spelling_that_the_server_normalises_does_not_loop() -> None:
    """An apply that changed nothing is remembered: the difference is one of spelling."""
    async with controlling() as world:
        world.put_cr(x=1)
        await world.settle()
        path = f"{SERVICES}/m"
        world.api.objects[path]["spec"] = {"x": "one"}  # what the server makes of it
        world.api.objects[path]["metadata"]["resourceVersion"] = "9000"
        world.api.version = 9001
        world.sync()
        world.writes()

        real = world.api._patch

        async def normalise(request: Any) -> Any:
            if request.path == path:
                from aiohttp import web

                return web.json_response(world.api.objects[path])
            return await real(request)

        world.api._patch = normalise  # type: ignore[method-assign]
        await world.run_pass()
        assert world.writes() == ["services/m PATCH"]
        for _ in range(3):
            world.now[0] += 100
            await world.run_pass()
        assert world.writes() == []


async def test_a_child_is_created_only_if_there_is_none() -> None:
    async with controlling() as world:
        foreign = world.api.put(SERVICES, "m", apiVersion="v1", kind="Service", spec={"x": 1})
        world.put_cr(x=1)
        await world.run_pass()
        assert world.api.objects[f"{SERVICES}/m"] == foreign
        assert f"{DEPLOYMENTS}/m" in world.api.objects, "one child that fails does not stop the others"
        assert world.condition()["reason"] == "NameConflict"
        assert "Next: rename this LLMDeployment, or remove the other object." in world.condition()["message"]
        world.api.requests.clear()
        for _ in range(5):
            world.now[0] += 1
            await world.run_pass()
        assert world.writes() == []
        assert world.api.requests == []
        world.api.remove(f"{SERVICES}/m")
        world.now[0] += 700
        await world.settle()
        assert world.writes()[0] == "services/m PATCH"
        assert world.condition()["reason"] == "NotStalled"


async def test_a_child_of_another_owner_in_the_cache_is_left_alone_without_asking() -> None:
    async with controlling() as world:
        reference = {"kind": "Gateway", "name": "g", "uid": "other", "controller": True}
        metadata = {"labels": names.make_engine_labels("m"), "ownerReferences": [reference]}
        world.cache.put(world.api.put(SERVICES, "m", metadata=metadata, spec={}), "Service")
        world.put_cr(x=1)
        await world.run_pass()
        assert world.writes() == ["deployments/m PATCH", STATUS]
        assert "Gateway/g" in world.planner.seen[-1].failures[0].message


async def test_a_child_that_the_cache_lost_is_recognised_by_its_owner() -> None:
    async with controlling() as world:
        world.put_cr(x=1)
        await world.settle()
        entry = world.cache.get(ObjectKey("Service", "ml", "m"))
        assert entry is not None
        world.cache.remove(entry.key, entry.uid, entry.resource_version)
        world.api.put(SERVICES, "m", **_edited(world, f"{SERVICES}/m", x=5))
        world.writes()
        await world.run_pass()
        assert world.writes() == ["services/m PATCH", "services/m PATCH"], "a create that is refused, then the repair"
        assert world.api.objects[f"{SERVICES}/m"]["spec"] == {"x": 1}
        assert world.cache.get(entry.key) is not None


async def test_a_predecessors_child_is_waited_for() -> None:
    async with controlling() as world:
        world.put_cr(x=1)
        await world.settle()
        world.api.remove(f"{CRS}/m")
        old = world.cache.get(ObjectKey(names.LLMDEPLOYMENT, "ml", "m"))
        assert old is not None
        world.cache.remove(old.key, old.uid, world.api.version)
        world.put_cr(x=1)
        world.writes()
        world.now[0] += 10
        await world.settle()
        assert world.writes() == [STATUS]
        assert world.condition()["reason"] == "NotStalled"
        assert world.planner.seen[-1].children == {}
        for path in (f"{SERVICES}/m", f"{DEPLOYMENTS}/m"):
            world.api.remove(path)
        world.sync()
        await world.run_pass()
        assert world.writes() == CREATES


async def test_a_name_that_was_taken_between_two_looks_is_not_taken_over() -> None:
    """The cache knows our Service; meanwhile it was deleted and a user made one of that name."""
    async with controlling() as world:
        world.put_cr(x=1)
        await world.settle()
        world.api.remove(f"{SERVICES}/m")
        foreign = world.api.put(SERVICES, "m", apiVersion="v1", kind="Service", spec={"x": "mine"})
        world.put_cr(x=2)
        await world.run_pass()
        assert world.api.objects[f"{SERVICES}/m"] == foreign


async def test_what_is_planned_no_more_is_deleted_with_its_uid_and_only_if_ours() -> None:
    async with controlling() as world:
        world.put_cr(x=1)
        await world.settle()
        world.writes()
        world.planner.kinds = ("Deployment",)
        await world.run_pass()
        assert world.writes() == ["services/m DELETE"]
        await world.settle()
        assert world.writes() == []


async def test_a_deletion_of_a_changed_object_is_refused_and_comes_again() -> None:
    async with controlling() as world:
        world.put_cr(x=1)
        await world.settle()
        world.api.put(SERVICES, "m", **_edited(world, f"{SERVICES}/m", x=7))
        world.planner.kinds = ("Deployment",)
        assert await world.run_pass() == "error"
        assert f"{SERVICES}/m" in world.api.objects
        world.sync()
        await world.run_pass()
        assert f"{SERVICES}/m" not in world.api.objects


async def test_an_immutable_field_is_replaced_where_that_loses_nothing_and_told_where_it_does() -> None:
    for replaceable in (True, False):
        async with controlling() as world:
            world.put_cr(x=1, replaceable=replaceable)
            await world.settle()
            world.writes()
            world.put_cr(x=2, replaceable=replaceable)
            world.api.fail(422, method="PATCH", contains="services/m", message="spec.x: field is immutable")
            await world.run_pass()
            if replaceable:
                assert world.writes() == ["deployments/m PATCH", "services/m PATCH", "services/m DELETE"]
                await world.settle()
                assert world.api.objects[f"{SERVICES}/m"]["spec"]["x"] == 2
            else:
                assert world.writes() == ["deployments/m PATCH", "services/m PATCH", STATUS]
                assert world.condition()["reason"] == "ImmutableField"
                world.now[0] += 5
                await world.run_pass()
                assert world.writes() == []


async def test_a_typo_in_a_raw_field_is_told_once_and_not_repeated_until_the_spec_changes() -> None:
    async with controlling() as world:
        message = (
            "failed to create typed patch object (ml/m; apps/v1, Kind=Deployment): "
            ".spec.template.spec.affinity.x: field not declared in schema"
        )
        world.api.fail(500, method="PATCH", contains="deployments/m", message=message)
        world.put_cr(x=1)
        await world.run_pass()
        assert world.condition()["reason"] == "InvalidChild"
        assert world.planner.seen[-1].failures[0].path == "spec.pod.affinity.x"
        world.writes()
        await world.run_pass()
        assert world.writes() == []
        world.put_cr(x=2)
        await world.settle()
        assert world.condition()["reason"] == "NotStalled"
        assert f"{DEPLOYMENTS}/m" in world.api.objects


@pytest.mark.parametrize(
    ("code", "headers", "least_s"), [(429, {"Retry-After": "9"}, 9.0), (500, {}, 0.0), (503, {}, 0.0)]
)
async def test_an_outage_is_retried_with_backoff_and_not_told_as_a_fault(
    code: int, headers: dict[str, str], least_s: float
) -> None:
    async with controlling() as world:
        world.put_cr(x=1)
        world.api.fail(code, method="PATCH", contains="services/m", headers=headers)
        assert await world.run_pass() == "error"
        assert world.queue.failures == {KEY: 1}
        assert world.queue.delayed[KEY] >= least_s - 0.1
        assert world.planner.seen[-1].failures == ()
        world.now[0] += least_s
        await world.settle()
        assert f"{SERVICES}/m" in world.api.objects
        assert world.queue.failures == {}


async def test_what_happens_meanwhile_does_not_shorten_the_wait_that_the_server_asked_for() -> None:
    """The Deployment that could be made reports at once, and its event brings the key back long before Retry-After is over."""
    async with controlling() as world:
        world.put_cr(x=1)
        world.api.fail(429, method="PATCH", contains="services/m", headers={"Retry-After": "9"})
        assert await world.run_pass() == "error"
        world.writes()
        world.queue.add(KEY)
        world.now[0] += 5.0
        assert await world.run_pass() == "requeue_after"
        assert world.writes() == []
        assert world.queue.delayed[KEY] == pytest.approx(4.0, abs=0.1)
        world.now[0] += 4.1
        await world.run_pass()
        assert "services/m PATCH" in world.writes()


async def test_a_status_from_an_old_spec_is_refused() -> None:
    """Stale state: our cache has generation 1, the API server has 2; the status of 1 must not overwrite that of 2."""
    async with controlling() as world:
        world.put_cr(x=1)
        await world.run_pass()
        live = world.api.objects[f"{CRS}/m"]
        world.api.put(
            CRS,
            "m",
            **{
                **live,
                "metadata": {**live["metadata"], "generation": 2},
                "spec": {"x": 2},
                "status": {"observedGeneration": 2},
            },
        )
        world.now[0] += 5
        assert await world.run_pass() == "error"
        assert world.api.objects[f"{CRS}/m"]["status"] == {"observedGeneration": 2}


async def test_a_crd_older_than_the_operator_gets_the_fields_that_it_has() -> None:
    """Applied first is the CRD, but a rollback of it comes the other way round; without a status nobody would see a thing."""
    undeclared = "failed to create typed patch object (ml/m; …): .status.pods: field not declared in schema"
    async with controlling() as world:
        world.put_cr(x=1)
        await world.run_pass()
        world.api.fail(500, contains="/status", message=undeclared)
        await world.settle()
        assert world.api.objects[f"{CRS}/m"]["status"]["observedGeneration"] == 1
        assert "pods" not in world.api.objects[f"{CRS}/m"]["status"]
        assert await world.run_pass() == "success"
        world.writes()
        world.put_cr("n", x=1)
        await world.settle("n")
        assert world.writes().count("llmdeployments/n/status PATCH") == 1, "known by now"
        world.controller.crd_may_have_changed(names.LLMDEPLOYMENT)
        await world.settle()
        assert world.api.objects[f"{CRS}/m"]["status"]["pods"] == 0


async def test_status_is_written_also_when_a_child_failed() -> None:
    async with controlling() as world:
        world.put_cr(x=1)
        world.api.fail(403, method="PATCH", contains="services/m", message="exceeded quota: none")
        await world.run_pass()
        assert world.writes()[-1] == STATUS
        assert world.condition()["reason"] == "ChildRefused"
        assert 1.5 < world.queue.delayed[KEY] <= 2.1


async def test_refusals_that_others_can_mend_are_tried_ever_more_seldom() -> None:
    async with controlling() as world:
        world.put_cr(x=1)
        world.api.fail(403, method="PATCH", contains="services/m", times=99)
        await world.run_pass()
        attempts = []
        for _ in range(40):
            world.writes()
            world.now[0] += 15
            await world.run_pass()
            if "services/m PATCH" in world.writes():
                attempts.append(world.now[0] - 1000)
        assert attempts[:4] == [15, 30, 60, 120]


async def test_an_unwanted_status_of_a_deleted_resource_is_no_error() -> None:
    async with controlling() as world:
        world.put_cr(x=1)
        await world.run_pass()
        world.api.remove(f"{CRS}/m")
        world.now[0] += 5
        assert await world.run_pass() == "success"


async def test_a_resource_that_is_being_deleted_gets_nothing() -> None:
    async with controlling() as world:
        live = world.put_cr(x=1)
        world.cache.put(
            {
                **live,
                "metadata": {**live["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": "900"},
            }
        )
        assert await world.run_pass() == "success"
        assert world.writes() == []
        assert world.planner.seen == []


async def test_a_deleted_resource_is_forgotten() -> None:
    async with controlling() as world:
        live = world.put_cr(x=1)
        world.api.fail(503, method="PATCH")
        await world.run_pass()
        key = ObjectKey(names.LLMDEPLOYMENT, "ml", "m")
        world.cache.remove(key, live["metadata"]["uid"], 9999)
        world.writes()
        assert await world.run_pass() == "success"
        assert world.writes() == []
        assert world.queue.failures == {}
        assert world.queue.delayed == {}


async def test_nothing_is_created_while_the_resource_may_be_a_ghost() -> None:
    async with controlling() as world:
        world.put_cr(x=1)
        world.creatable[0] = False
        with pytest.raises(PostponedError):
            await world.run_pass()
        assert world.writes() == []
        world.creatable[0] = True
        await world.run_pass()
        assert world.writes() == CREATES
        world.creatable[0] = False
        world.put_cr(x=2)
        await world.run_pass()
        assert world.writes() == CREATES, "what exists may be changed"


async def test_nothing_is_written_without_the_lease() -> None:
    async with controlling() as world:
        world.put_cr(x=1)
        await world.settle()
        world.put_cr(x=2)
        world.writes()
        world.leading[0] = False
        with pytest.raises(NotLeadingError):
            await world.run_pass()
        assert world.writes() == []


async def test_counts_that_move_are_told_once_they_are_calm_and_never_later_than_three_seconds() -> None:
    async with controlling() as world:
        world.put_cr(x=1)
        await world.settle()
        world.writes()
        written_at = []
        for step in range(50):
            pod = {
                "metadata": {
                    "name": f"p{step}",
                    "namespace": "ml",
                    "uid": f"p{step}",
                    "resourceVersion": str(10_000 + step),
                    "labels": {names.LABEL_LLMDEPLOYMENT: "m"},
                }
            }
            world.cache.put(pod, "Pod")
            world.now[0] += 0.1
            await world.run_pass()
            if world.writes():
                written_at.append(step)
        assert 3 <= len(written_at) <= 50 * 0.1 / 1.0 + 1
        assert max(b - a for a, b in itertools.pairwise(written_at)) * 0.1 <= LATEST_S


async def test_a_flicker_is_not_told_at_all() -> None:
    async with controlling() as world:
        world.put_cr(x=1)
        await world.settle()
        world.writes()
        key = ObjectKey("Pod", "ml", "p")
        world.cache.put(
            {
                "metadata": {
                    "name": "p",
                    "namespace": "ml",
                    "uid": "p",
                    "resourceVersion": "9000",
                    "labels": {names.LABEL_LLMDEPLOYMENT: "m"},
                }
            },
            "Pod",
        )
        await world.run_pass()
        world.cache.remove(key, "p", 9001)
        world.now[0] += 5
        await world.run_pass()
        assert world.writes() == []


async def test_events_are_told_with_the_status_and_each_once() -> None:
    async with controlling() as world:
        world.planner.events = (PlannedEvent("Warning", "InvalidSpec", "no good"),)
        world.put_cr(x=1)
        await world.run_pass()
        assert not any(path.startswith(EVENTS) for path in world.api.objects)
        world.now[0] += 1
        await world.run_pass()
        for generation in (2, 3):
            world.put_cr(x=generation)
            await world.settle()
        events = [live for path, live in world.api.objects.items() if path.startswith(EVENTS)]
        assert [(event["reason"], event["note"], event["regarding"]["name"]) for event in events] == [
            ("InvalidSpec", "no good", "m")
        ]


async def test_the_plans_wish_to_come_again_is_heard() -> None:
    async with controlling() as world:
        world.planner.requeue_after_s = 42.0
        world.put_cr(x=1)
        await world.run_pass()
        world.queue.discard(KEY)
        world.now[0] += 5
        assert await world.run_pass() == "requeue_after"
        assert world.queue.delayed[KEY] == pytest.approx(42.0, abs=1.0)


async def test_a_broken_resource_harms_only_itself() -> None:
    async with controlling(DirectedPlanner(error=ValueError("bug"))) as world:
        world.put_cr("broken", broken=True)
        world.put_cr("sound", x=1)
        world.controller.start(2)
        for _ in range(200):
            await asyncio.sleep(0.005)
            if (
                f"{SERVICES}/sound" in world.api.objects
                and world.metrics.passes[names.LLMDEPLOYMENT].panics._value.get() >= 2
            ):
                break
        assert f"{SERVICES}/sound" in world.api.objects
        assert world.metrics.passes[names.LLMDEPLOYMENT].panics._value.get() >= 2
        assert not world.controller.broken.is_set()
        assert list(world.queue.failures) == [ObjectKey(names.LLMDEPLOYMENT, "ml", "broken")]


async def test_stop_gives_running_passes_their_grace_and_takes_no_more() -> None:
    async with controlling() as world:
        release = asyncio.Event()
        plan = world.planner.plan

        async def slow(*args: Any) -> Any:
            await release.wait()
            return await plan(*args)

        world.planner.plan = slow  # type: ignore[method-assign]
        world.put_cr("m", x=1)
        world.put_cr("n", x=1)
        world.controller.start(1)
        await asyncio.sleep(0.02)
        stopping = asyncio.create_task(world.controller.stop(5.0))
        await asyncio.sleep(0.05)
        assert not stopping.done()
        release.set()
        await stopping
        assert f"{SERVICES}/m" in world.api.objects
        assert f"{SERVICES}/n" not in world.api.objects


async def test_losing_the_lease_cancels_at_once() -> None:
    async with controlling() as world:

        async def for_ever(*_: Any) -> Any:
            await asyncio.Event().wait()

        world.planner.plan = for_ever  # type: ignore[method-assign]
        world.put_cr(x=1)
        world.controller.start(1)
        await asyncio.sleep(0.02)
        async with asyncio.timeout(1):
            await world.controller.stop(0.0)
        assert not world.controller.is_working
        assert world.queue.busy == {}


async def test_what_a_late_renewal_held_up_is_made_up_for_when_the_same_term_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that was frozen hears of changes first and renews its Lease, which nobody took, a moment later."""
    monkeypatch.setattr("fairlead.runtime.controller.UNSURE_S", 0.05)
    async with controlling() as world:
        world.leading[0] = False
        world.put_cr(x=1)
        world.controller.start(1)
        await asyncio.sleep(0.2)
        assert world.writes() == []
        assert world.controller.is_working
        world.leading[0] = True
        for _ in range(200):
            await asyncio.sleep(0.005)
            if f"{SERVICES}/m" in world.api.objects:
                break
        assert f"{SERVICES}/m" in world.api.objects


async def test_a_replica_that_stands_by_again_shows_no_trouble_of_its_last_term() -> None:
    async with controlling(DirectedPlanner(error=ValueError("bug"))) as world:
        world.put_cr("broken", broken=True)
        world.put_cr("refused", x=1)
        world.api.faults.append(Fault(lambda request: request.method == "PATCH", 422, "no", times=10_000))
        world.controller.start(1)
        for _ in range(200):
            await asyncio.sleep(0.005)
            if world.queue.failures and list(world.controller.refusals()):
                break
        assert world.queue.failures
        assert list(world.controller.refusals())
        await world.controller.stop(0.0)
        assert world.queue.failures == {}
        assert world.controller.troubles.describe(10) == {}
        assert list(world.controller.refusals()) == list(world.controller.left_behind()) == []


async def test_a_new_term_begins_with_every_resource() -> None:
    async with controlling() as world:
        for name in "abc":
            world.put_cr(name, x=1)
        world.controller.start(2)
        for _ in range(200):
            await asyncio.sleep(0.005)
            if sum(path.startswith(SERVICES) for path in world.api.objects) == 3:
                break
        assert sorted(path.rpartition("/")[2] for path in world.api.objects if path.startswith(SERVICES)) == [
            "a",
            "b",
            "c",
        ]


async def test_a_child_of_a_resource_that_is_gone_is_not_made_again() -> None:
    """The garbage collector took the child, and its deletion is heard before that of the custom resource."""
    async with controlling() as world:
        world.put_cr(x=1)
        await world.settle()
        world.api.remove(f"{CRS}/m")
        world.api.remove(f"{SERVICES}/m")
        entry = world.cache.get(ObjectKey("Service", "ml", "m"))
        assert entry is not None
        world.cache.remove(entry.key, entry.uid, world.api.version)
        world.writes()
        with pytest.raises(OwnerGoneError):
            await world.run_pass()
        world.controller._forget(KEY, "uid-1")
        assert await world.run_pass() == "success"
        assert world.writes() == []


@pytest.mark.parametrize(("code", "wait_s"), [(503, 0.1), (403, 16.0)], ids=["outage", "quota"])
async def test_a_child_that_could_not_be_made_is_not_made_after_the_end_of_its_resource(
    code: int, wait_s: float
) -> None:
    """The next attempt may come long after the first one, and the watch of the custom resources may be down with the rest."""
    async with controlling() as world:
        world.put_cr(x=1)
        world.api.fail(code, method="PATCH", contains="services/m", message="exceeded quota: none")
        await world.run_pass()
        world.api.remove(f"{CRS}/m")
        world.writes()
        world.now[0] += wait_s
        with pytest.raises(OwnerGoneError):
            await world.run_pass()
        assert world.writes() == []


async def test_a_child_of_a_resource_that_lives_is_made_again_after_one_question() -> None:
    async with controlling() as world:
        world.put_cr(x=1)
        await world.settle()
        world.api.remove(f"{SERVICES}/m")
        world.sync()
        world.api.requests.clear()
        await world.run_pass()
        assert [method for method, _, _ in world.api.requests] == ["GET", "PATCH"]
        assert f"{SERVICES}/m" in world.api.objects


async def test_who_begins_to_lead_with_an_old_view_does_not_put_an_old_spec_over_a_newer_one() -> None:
    """A stand-by whose watch of custom resources fell silent: the leader before it has carried out the edit already."""
    async with controlling() as world:
        old = world.put_cr(x=1)
        await world.settle()
        world.put_cr(x=2)
        await world.settle()
        world.cache.remove(ObjectKey(names.LLMDEPLOYMENT, "ml", "m"), old["metadata"]["uid"], 10**6)
        world.cache._tombstones.clear()
        world.cache.put(old)
        world.controller.start(0)
        world.writes()
        with pytest.raises(StaleOwnerError):
            await world.run_pass()
        await world.settle()
        assert world.writes() == []
        assert world.api.objects[f"{SERVICES}/m"]["spec"] == {"x": 2}


async def test_who_begins_to_lead_makes_nothing_for_a_resource_that_is_gone() -> None:
    async with controlling() as world:
        old = world.put_cr(x=1)
        world.api.remove(f"{CRS}/m")
        assert world.cache.get(ObjectKey(names.LLMDEPLOYMENT, "ml", "m")) is not None, old
        world.controller.start(0)
        with pytest.raises(OwnerGoneError):
            await world.run_pass()
        assert world.writes() == []


async def test_one_question_is_enough_for_a_term_and_a_status_that_was_written_answers_it() -> None:
    async with controlling() as world:
        world.put_cr(x=1)
        await world.settle()
        world.controller.start(0)
        for x in (2, 3):
            world.put_cr(x=x)
            world.api.requests.clear()
            await world.run_pass()
            reads = [path for method, path, _ in world.api.requests if method == "GET"]
            assert len(reads) == (1 if x == 2 else 0)
        world.put_cr("new", x=1)
        await world.settle("new")
        world.put_cr("new", x=2)
        world.api.requests.clear()
        await world.run_pass("new")
        assert [method for method, _, _ in world.api.requests] == ["PATCH", "PATCH"]


async def test_a_resource_that_took_the_name_is_not_forgotten_with_its_predecessor() -> None:
    """Whether the old one lives was asked, and before the answer came the watch told of the new one."""
    async with controlling() as world:
        old = world.put_cr(x=1)
        await world.settle()
        world.api.remove(f"{CRS}/m")
        world.put_cr(x=2)
        world.controller._forget(KEY, old["metadata"]["uid"])
        assert len(world.queue) == 1
        await world.run_pass()
        assert world.cache.get(ObjectKey(names.LLMDEPLOYMENT, "ml", "m")) is not None


async def test_a_pass_that_waits_for_answers_makes_nothing_for_a_resource_that_went_meanwhile() -> None:
    class Slow(DirectedPlanner):
        async def plan(self, raw: Any, observed: Any, now: Any) -> Any:
            plan = await super().plan(raw, observed, now)
            world.cache.remove(ObjectKey(names.LLMDEPLOYMENT, "ml", "m"), raw["metadata"]["uid"], 10**6)
            return plan

    async with controlling(Slow()) as world:
        world.put_cr(x=1)
        with pytest.raises(OwnerGoneError):
            await world.run_pass()
        assert world.writes() == []
